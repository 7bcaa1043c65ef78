"""Verdicts in words and as JSON: per task what Schaeffer et al. 2023, Du et al. 2024 and Wei et al. 2022 would each ask for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.emergence.draw import Judged
from analysis.emergence.incontext import Interval, Shots, Thought
from analysis.emergence.points import Point, Shown
from analysis.emergence.verdict import Mirage, Onset, Selection, Verdict
from analysis.words import number


def table(judged: Sequence[Judged]) -> list[str]:
    """One line for each ability."""
    wide = max(24, *(len(j.shown.ability.task) for j in judged))
    out = [f"{'task':<{wide}} {'verdict':<17} {'models':>6} {'score':>14} {'shape':<16} {'onset':>6} {'midpoint':>9} {'width':>6}"]
    for j in judged:
        a, v = j.shown.ability, j.verdict
        score = f"{a.score[0]:.3f} → {a.score[-1]:.3f}"
        shape, onset, middle, width = v.selection.said if v.selection else "–", "–", "–", "–"
        if v.onset is not None:
            onset = "–" if v.onset.log_flops is None else f"{v.onset.log_flops:.2f}"
            if bends(v):
                middle, width = f"{v.onset.midpoint:.2f}", f"{v.onset.width:.2f}" if v.onset.resolved else "unres."
        out.append(
            f"{a.task:<{wide}} {v.call:<17} {len(a.flops):>6} {score:>14} {shape:<16} {onset:>6} {middle:>9} {width:>6}"
        )
    return [*out, "onset and midpoint: log10 FLOPs; width: decades from 10 to 90 % of the rise, unresolved below the models' spacing"]


def bends(v: Verdict) -> bool:
    """Whether a midpoint and a width may be told: of a curved winner."""
    return v.selection is not None and v.selection.winner in ("sigmoid", "sigmoid_top", "step")


def reasons(j: Judged) -> list[str]:
    """What a verdict rests on: its reasons, then the numbers."""
    a, v = j.shown.ability, j.verdict
    n = float(np.nanmedian(a.n))
    asked = ", ".join(
        part for part in (j.shown.format, "" if j.shown.shots is None else f"{j.shown.shots} shots", a.source) if part
    )
    out = [f"{a.task} ({asked}): {v.call.upper()}", *(f"  - {reason}" for reason in v.reasons)]
    floor = f"chance {number(a.chance)}" + (f", plateau {number(v.floor)}" if v.floor > a.chance + 1e-9 else "")
    centred = (
        f", centred {(a.score[0] - a.chance) / (1 - a.chance):.3f} → {(a.score[-1] - a.chance) / (1 - a.chance):.3f}"
        if a.chance
        else ""
    )
    out.append(
        f"  {a.metric} {a.score[0]:.4f} → {a.score[-1]:.4f}{centred}; {floor}; resolution 1/n = {number(1 / n, 2)}, "
        f"detectable from {v.min_effect:.3f}; p(present) {_p(v.p_adjusted)}"
    )
    out += [f"  {line}" for line in _companions(j)]
    if v.selection is not None:
        out.append(f"  {_shape(v.selection)}")
    if v.onset is not None and bends(v):
        out.append(f"  {_where(v.onset)}")
    if v.mirage is not None:
        out.append(f"  {_mirage(v.mirage)}")
    return out + [f"  {line}" for line in _further(v)]


def _p(value: float) -> str:
    return "< 1e-4" if value < 1e-4 else f"{value:.2g}"


def _companions(j: Judged) -> list[str]:
    """The companions of the smallest and the largest model, side by side."""
    ends = []
    for name, values in j.shown.ability.companions.items():
        known = values[np.isfinite(values)]
        ends.append(f"{name} {number(known[0], 3)} → {number(known[-1], 3)}")
    return ["beside it: " + ", ".join(ends)] if ends else []


def _shape(s: Selection) -> str:
    ranked = sorted(s.delta.items(), key=lambda item: item[1])
    others = ", ".join(f"{name} +{delta:.1f}" for name, delta in ranked[1:4])
    tests = [f"step over sigmoid p {_p(s.p_step)}", f"hinge over line p {_p(s.p_hinge)}"]
    tests = [t for t, p in zip(tests, (s.p_step, s.p_hinge), strict=True) if math.isfinite(p)]
    told = f"; {', '.join(tests)}" if tests else ""
    return f"shape: {s.said} (QAICc weight {s.weights[s.winner]:.2f}; {others}); over-dispersion {s.phi:.3g}{told}"


def _where(o: Onset) -> str:
    lo, hi = o.midpoint_interval
    spread = f"10–90 % width {o.width:.2f} decades [{_end(o.width_interval[0])}, {_end(o.width_interval[1])}]"
    resolved = "" if o.resolved else f": unresolved, the models about it lie {o.spacing:.2f} apart"
    onset = "no onset" if o.log_flops is None else f"onset 10^{o.log_flops:.2f}"
    return f"{onset} (hinge 10^{o.hinge:.2f}), midpoint 10^{o.midpoint:.2f} [{_end(lo)}, {_end(hi)}] FLOPs; {spread}{resolved}"


def _end(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "open"


def _mirage(m: Mirage) -> str:
    law = "is predicted" if m.explained else "is not predicted"
    out = (
        f"mirage test: the score {law} by a smooth law of {m.companion} (error {100 * m.error:.0f} % of the rise, p {_p(m.p_value)}; "
        f"{100 * m.jump:.0f} % of {m.companion}'s change within a third of the ladder); breakthroughness {m.breakthroughness:.3g}, "
        f"linearity {m.linearity:.3g}, mirage index {m.index:.3g}"
    )
    return out if m.loglog_r2 is None else f"{out}; log(−log score) against log C: R² {m.loglog_r2:.2f}"


def _further(v: Verdict) -> list[str]:
    """Against loss, the forecast, seeds."""
    out = []
    if v.loss is not None:
        one = "one curve for all sizes" if v.loss.one_curve else "sizes lie on different curves"
        p = f" (p {_p(v.loss.p_value)})" if math.isfinite(v.loss.p_value) else ""
        at = "" if v.loss.threshold is None else f"; leaves chance at {number(v.loss.threshold)}"
        name = v.ability.loss_name
        out.append(f"against {name}: {one}{p}, {v.loss.selection.said}, {'sharp' if v.loss.sharp else 'not sharp'}{at}")
    if v.forecast is not None:
        f = v.forecast
        out.append(
            f"largest left out: {f.observed:.3f} measured, {f.predicted:.3f} foretold, {100 * f.level:g} % "
            f"[{f.interval[0]:.3f}, {f.interval[1]:.3f}]: {'inside' if f.inside else 'OUTSIDE'}"
        )
    if v.seeds is not None:
        two = "; bimodal over seeds at 10^" + ", 10^".join(f"{at:.2f}" for at in v.seeds.bimodal) if v.seeds.bimodal else ""
        out.append(
            f"seeds: {v.seeds.repeats} groups, sd {v.seeds.deviation:.3f}, variance {v.seeds.ratio:.2g} times counting's{two}"
        )
    return out


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


def _interval(value: Interval) -> str:
    return f"{value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]"


# ---- JSON


def to_json(
    judged: Sequence[Judged], curves: Sequence[Shots], found: Sequence[Thought], source: str, level: float
) -> dict[str, Any]:
    """All numbers of the figures; NaN and infinities are null."""
    return _plain({
        "source": source, "level": level,
        "tasks": {j.shown.key: _task(j.shown, j.verdict) for j in judged},
        "shots": [dataclasses.asdict(c) for c in curves], "chain_of_thought": [dataclasses.asdict(t) for t in found],
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
