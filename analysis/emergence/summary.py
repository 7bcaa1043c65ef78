"""Verdicts in words and as JSON: per task what Schaeffer et al. 2023, Du et al. 2024 and Wei et al. 2022 would each ask for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.emergence.draw import UNTOLD, Judged, label
from analysis.emergence.incontext import Interval, Shots, Thought
from analysis.emergence.points import Point, Shown
from analysis.emergence.sizes import Growth
from analysis.emergence.verdict import Verdict
from analysis.words import number

KINDS = ("sharp-in-loss", "sharp-metric-only", UNTOLD, "smooth", "absent", "under-powered")  # in the order of the telling
MEANING = {
    "sharp-in-loss": "jumps, and so does its continuous metric (or, without one, the score against loss)",
    "sharp-metric-only": "jumps, while a smooth law of the continuous metric predicts it",
    UNTOLD: "jumps, and nothing continuous was measured that tells which of the two does",
    "smooth": "rises gradually",
    "absent": "at chance",
    "under-powered": "too few models or items to tell, or neither sharp nor gradual",
}


def by_kind(judged: Sequence[Judged]) -> dict[str, list[str]]:
    """The names of the abilities of each kind of behaviour; only kinds that there are."""
    found = {kind: [j.shown.ability.task for j in judged if label(j) == kind] for kind in KINDS}
    return {kind: names for kind, names in found.items() if names}


def kinds(judged: Sequence[Judged]) -> list[str]:
    """One line for each kind of behaviour: what it means and who shows it."""
    return [f"{kind} ({MEANING[kind]}): {'; '.join(names)}" for kind, names in by_kind(judged).items()]


def table(judged: Sequence[Judged]) -> list[str]:
    """One line for each ability."""
    wide = max(24, *(len(j.shown.ability.task) for j in judged))
    head = (
        f"{'task':<{wide}} {'verdict':<23} {'models':>6} {'score':>14} {'shape':<21} {'onset':>6} {'midpoint':>9} {'width':>6}"
    )
    out = [head]
    for j in judged:
        a, v = j.shown.ability, j.verdict
        score = f"{a.score[0]:.3f} → {a.score[-1]:.3f}"
        shape, onset, middle, width = v.selection.said if v.selection else "–", "–", "–", "–"
        if v.onset is not None:
            onset = "–" if v.onset.log_flops is None else f"{v.onset.log_flops:.2f}"
            if bends(v):
                middle, width = f"{v.onset.midpoint:.2f}", f"{v.onset.width:.2f}" if v.onset.resolved else "unres."
        out.append(
            f"{a.task:<{wide}} {label(j):<23} {len(a.flops):>6} {score:>14} {shape:<21} {onset:>6} {middle:>9} {width:>6}"
        )
    units = "onset and midpoint: log10 FLOPs; width: decades from 10 to 90 % of the rise, unresolved below the models' spacing"
    return [*out, units]


def bends(v: Verdict) -> bool:
    """Whether a midpoint and a width may be told: of a curved winner that rises."""
    return v.call != "absent" and v.selection is not None and v.selection.winner in ("sigmoid", "sigmoid_top", "step")


def reasons(j: Judged) -> list[str]:
    """What a verdict rests on: the score and its companions, then the reasons with their numbers."""
    a, v = j.shown.ability, j.verdict
    shots = "" if j.shown.shots is None else f"{j.shown.shots} shots"
    asked = ", ".join(part for part in (j.shown.format, shots, a.source) if part)
    ends = f"{a.metric} {a.score[0]:.4f} → {a.score[-1]:.4f}"
    if a.chance:
        ends += f", centred {(a.score[0] - a.chance) / (1 - a.chance):.3f} → {(a.score[-1] - a.chance) / (1 - a.chance):.3f}"
    floor = f"chance {number(a.chance)}" + (f", plateau {number(v.floor)}" if v.floor > a.chance + 1e-9 else "")
    n = float(np.nanmedian(a.n))
    items = f"{n:.0f} items: resolution {number(1 / n, 2)}, {number(v.min_effect, 3)} would be told from chance"
    call = v.call.upper() + (f" ({UNTOLD})" if label(j) == UNTOLD else "")
    out = [f"{a.task} ({asked}): {call}", f"  {ends}; {floor}; {items}"]
    out += [f"  {line}" for line in _companions(j)]
    out += [f"  - {reason}" for reason in v.reasons]
    return out + [f"  - {line}" for line in _tests(v)]


def _companions(j: Judged) -> list[str]:
    """The companions of the smallest and the largest model, side by side."""
    ends = []
    for name, values in j.shown.ability.companions.items():
        known = values[np.isfinite(values)]
        ends.append(f"{name} {number(known[0], 3)} → {number(known[-1], 3)}")
    return ["beside it: " + ", ".join(ends)] if ends else []


def _tests(v: Verdict) -> list[str]:
    """What the reasons leave out: tests between like shapes, and BIG-bench's scores."""
    told = []
    if v.selection is not None:
        pairs = (("sigmoid over step", v.selection.p_step), ("hinge over line", v.selection.p_hinge))
        told += [f"{name} p = {value:.2g}" for name, value in pairs if math.isfinite(value)]
    if v.mirage is not None:
        told.append(f"breakthroughness {v.mirage.breakthroughness:.3g}, linearity {v.mirage.linearity:.3g} (BIG-bench 2022)")
    return ["; ".join(told)] if told else []


# ---- in context


def shots(curves: Sequence[Shots]) -> list[str]:
    """Few-shot slopes: a line for each task, a value for each size."""
    out = ["few-shot slope, d score / d log2(1 + shots), by size:"] if curves else []
    for task, form in dict.fromkeys((c.task, c.format) for c in curves):
        same = [c for c in curves if (c.task, c.format) == (task, form)]
        how = "paired by item" if all(c.paired for c in same) else "unpaired"
        out.append(f"  {task} by {form} ({how}): " + ", ".join(f"{c.size} {_interval(c.slope)}" for c in same))
    return out


def thoughts(found: Sequence[Thought]) -> list[str]:
    """What a chain of thought adds to exact match: a line for each task, a value for each size."""
    out = ["chain of thought less direct answer, exact match, by size:"] if found else []
    for task in dict.fromkeys(t.task for t in found):
        same = [t for t in found if t.task == task]
        how = "paired by item" if all(t.paired for t in same) else "unpaired"
        out.append(f"  {task} ({how}): " + ", ".join(f"{t.size} {_interval(t.gain)}" for t in same))
    return out


def growth(found: Sequence[Growth]) -> list[str]:
    """What each size adds to the one before it: a line for each task and format."""
    out = ["score of each size less that of the size before, same items:"] if found else []
    for g in found:
        how = "paired by item" if g.paired else "unpaired"
        gains = ", ".join(f"{size} {_interval(gain)}" for size, gain in zip(g.sizes[1:], g.gains, strict=True))
        out.append(f"  {g.task} by {g.format} ({how}): {gains}; in all {_interval(g.whole)}")
    return out


def _interval(value: Interval) -> str:
    return f"{value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]"


# ---- JSON


def to_json(
    judged: Sequence[Judged],
    curves: Sequence[Shots],
    found: Sequence[Thought],
    sizes: Sequence[Growth],
    source: str,
    level: float,
) -> dict[str, Any]:
    """All numbers of the figures; NaN and infinities are null."""
    return _plain({
        "source": source, "level": level,
        "tasks": {j.shown.key: _task(j.shown, j.verdict) for j in judged},
        "shots": [dataclasses.asdict(c) for c in curves], "chain_of_thought": [dataclasses.asdict(t) for t in found],
        "sizes": [dataclasses.asdict(g) for g in sizes],
    })  # fmt: skip


def _task(shown: Shown, v: Verdict) -> dict[str, Any]:
    a = shown.ability
    parts: dict[str, Any] = {}
    for name in ("selection", "onset", "mirage", "loss", "forecast", "seeds"):
        part = getattr(v, name)
        parts[name] = None if part is None else dataclasses.asdict(part)
    return {
        "task": a.task, "format": shown.format, "shots": shown.shots, "group": a.group, "source": a.source,
        "metric": a.metric, "chance": a.chance, "verdict": v.call, "sharp": v.sharp, "reasons": list(v.reasons),
        "floor": v.floor, "reached": v.reached, "p_present": v.p_present, "p_adjusted": v.p_adjusted,
        "min_effect": v.min_effect, **parts,
        "models": {
            "flops": a.flops, "score": a.score, "n": a.n, "loss": a.loss, "n_params": a.n_params, "cluster": a.clusters,
            "seed": a.seeds, **{f"companion_{name}": values for name, values in a.companions.items()},
        },
        "not_judged": [_point(p) for p in shown.rest],
    }  # fmt: skip


def _point(p: Point) -> dict[str, Any]:
    return {"flops": p.flops, "score": p.score, "n_params": p.n_params, "loss": p.loss, "run": p.size, "why": p.excluded}


def _plain(value: Any) -> Any:
    """What JSON knows: lists, dicts, numbers and null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
