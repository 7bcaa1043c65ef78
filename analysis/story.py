"""What a ladder says: its fit, its frontier, the largest rung as predicted and as measured; as JSON, caption and words.

``analysis.figure`` draws it, ``analysis.plot_scaling`` is the command.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis import fit, identify, intervals, load, predict, words
from analysis.estimate import Estimate, Settings, estimate
from analysis.laws import Cost, Law, has_allocation, measured_cost, optimum

CONVENTIONS = {
    "matmul_causal": "exact matmul FLOPs, causal attention", "matmul_full": "exact matmul FLOPs, full attention",
    "6N": "6 x total parameters x tokens", "6N_nonembedding": "6 x non-embedding parameters x tokens",
}  # fmt: skip
RECORDED, AFTERWARDS = "recorded", "computed afterwards"
_WHEN = {
    RECORDED: "on the record:",
    AFTERWARDS: "from smaller sizes now (nothing was recorded before it trained):",
}
_CAPTION_WIDTH = {True: 186, False: 128}  # characters per line, by whether the figure has a panel of curves


@dataclasses.dataclass(frozen=True, eq=False)
class Story:
    """Everything that the figure, the JSON and the words tell."""

    table: load.Table
    curves: list[load.Curve]
    found: Estimate | None
    no_fit: str | None  # why there is no law
    cost: Cost
    targets: list[dict[str, Any]]  # the largest rung: predicted, interval, measured
    targets_source: str  # RECORDED, AFTERWARDS, or empty
    settings: Settings

    @property
    def boot(self) -> intervals.Bootstrap | None:
        """The law and its refits."""
        return self.found.boot if self.found else None

    @property
    def level(self) -> float:
        return self.settings.level

    @property
    def convention(self) -> str:
        """How FLOPs are counted, in words."""
        return CONVENTIONS.get(self.table.flops_convention, self.table.flops_convention)

    def compute_range(self) -> tuple[float, float]:
        """FLOPs from a little below the smallest run to a little above the largest, measured or predicted."""
        values = [r.flops for r in self.table.rows if r.loss is not None] + [t["flops"] for t in self.targets]
        return min(values) / 1.35, max(values) * 1.5


def tell(table: load.Table, curves: list[load.Curve], lines: list[dict[str, Any]], settings: Settings | None = None) -> Story:
    """Fits what can be fitted and gathers the rest; ``lines`` are those of predictions.jsonl."""
    settings = settings or Settings()
    found, no_fit = None, None
    try:
        found = estimate(table, settings)
    except fit.FitError as error:
        no_fit = str(error)
    rows = [r for r in table.rows if r.state != load.PLANNED] or list(table.rows)
    cost = measured_cost([r.n_params for r in rows], [r.n_tokens for r in rows], [r.flops for r in rows])
    targets, source = _recorded(table, lines), RECORDED
    if not targets and table.kind == "runs":
        targets, source = _afterwards(table, settings), AFTERWARDS
    return Story(table, curves, found, no_fit, cost, targets, source if targets else "", settings)


def _recorded(table: load.Table, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Recorded predictions (the last of each member) with what was measured since."""
    by_id = {r.id: r for r in table.rows}
    last = {p["member"]: p for p in lines if p["kind"] == "prediction" and p["member"] in by_id}
    return [_target(_whole(by_id[m], p), p["loss"], p["interval"], p["level"], p["recorded_at"]) for m, p in last.items()]


def _whole(row: load.Row, prediction: dict[str, Any]) -> load.Row:
    """The row at the tokens that were predicted: one that diverged has fewer."""
    tokens = float(prediction["n_tokens"])
    return dataclasses.replace(row, n_tokens=tokens, flops=row.flops * tokens / row.n_tokens)


def _afterwards(table: load.Table, settings: Settings) -> list[dict[str, Any]]:
    """The largest size predicted from the smaller ones now; nothing where those are too few."""
    members = predict.largest(table)
    if not members:
        return []
    try:
        smaller = estimate(predict.smaller(table, members[0].n_params), settings)
    except fit.FitError:
        return []
    made = [(r, smaller.predict(r.n_params, r.n_tokens, r.flops)) for r in members]
    return [_target(r, f.plain.loss, list(f.calibrated), settings.level, None) for r, f in made]


def _target(row: load.Row, predicted: float, ends: list[float], level: float, recorded_at: str | None) -> dict[str, Any]:
    measured = row.loss if row.excluded is None else None
    return {
        "member": row.id, "size": row.size, "n_params": row.n_params, "n_tokens": row.n_tokens, "flops": row.flops,
        "predicted": predicted, "interval": ends, "level": level, "recorded_at": recorded_at,
        "measured": measured, "state": row.excluded or row.state,
        "error_percent": 100 * (predicted / measured - 1) if measured else None,
        "hit": ends[0] <= measured <= ends[1] if measured else None,
    }  # fmt: skip


def frontier(story: Story, flops: np.ndarray) -> dict[str, np.ndarray]:
    """Compute-optimal parameters, tokens and loss at each of ``flops``, the loss with its plain and its calibrated band."""
    assert story.found is not None and story.boot is not None
    law = story.boot.fit.law
    if not isinstance(law, Law):
        raise TypeError(f"{law.name}: a formula has no frontier in N and D")
    nowhere = not words.quoted(story.boot.fit)  # the optimum lies beside the line on which the rows do
    if nowhere or not _has_frontier(law):  # one size, or one token count: nothing to choose
        unknown = ("n_params", "n_tokens", "loss", "lo", "hi", "calibrated_lo", "calibrated_hi")
        return {"flops": flops} | {name: np.full(flops.shape, np.nan) for name in unknown}
    n, d, loss = _best(law, story.boot.fit.params, flops, story.cost)
    with np.errstate(all="ignore"):  # a draw whose exponent ran away has no optimum; it is left out by nanquantile
        draws = _best(law, {k: v[:, None] for k, v in story.boot.params.items()}, flops, story.cost)[2]
    lo, hi = np.nanquantile(draws, [(1 - story.level) / 2, (1 + story.level) / 2], axis=0)
    low, high = story.found.calibration.widen(lo, hi, flops / story.boot.fit.table.column("flops").max())
    band = {"lo": lo, "hi": hi, "calibrated_lo": low, "calibrated_hi": high}
    return {"flops": flops, "n_params": n, "n_tokens": d, "loss": loss} | band


def _has_frontier(law: Law) -> bool:
    """Whether the law says what the best loss of a budget is; of one size, or one token count, there is nothing to choose."""
    return has_allocation(law) or law.variables == ("C",)


def _best(law: Law, params: Mapping[str, Any], flops: np.ndarray, cost: Cost) -> tuple[Any, Any, Any]:
    """As ``laws.optimum``; of a law of C only the loss is known."""
    if has_allocation(law):
        return optimum(params, flops, cost, law)
    unknown = np.full(flops.shape, np.nan)
    return unknown, unknown, law.loss(params, unknown, unknown, flops)


def caption(story: Story, plain: bool = False) -> str:
    """Definitions, rows, exclusions, the law with its intervals, and how far to trust it; ``plain`` has no mathtext."""
    parts = (_of_the_rows(story), _of_the_law(story, plain))
    if plain:
        return " ".join(sentence for part in parts for sentence in part)
    width = _CAPTION_WIDTH[bool(story.curves)]
    return "\n".join(textwrap.fill(" ".join(p), width, break_on_hyphens=False, break_long_words=False) for p in parts)


def _of_the_rows(story: Story) -> list[str]:
    table = story.table
    n_words = f"{table.n_definition.replace('_', '-')} parameters" if table.kind == "runs" else table.n_definition
    out = [f"N: {n_words}. C: {story.convention}."]
    out.append(f"{len(table.fitted)} rows {'fitted' if story.boot else 'to fit'}, {len(table.sizes())} sizes.")
    if left_out := words.exclusions(table):
        out.append(f"Left out: {left_out}.")
    return out + [f"{note[0].upper()}{note[1:]}." for note in table.notes]


def _of_the_law(story: Story, plain: bool) -> list[str]:
    boot, level = story.boot, story.level
    if boot is None:
        return [f"No fit: {(story.no_fit or '').removeprefix(f'{story.table.source}: ')}."]
    values, greek = words.values(boot), {} if plain else {"alpha": "α", "beta": "β"}
    known = boot.intervals(level) if words.quoted(boot.fit) else {}
    each = [f"{greek.get(k, k)} = {words.number(values[k], 3)} {words.between(v)}" for k, v in known.items()]
    if not plain:
        each = [text.replace(" ", "\u00a0") for text in each]  # a value stays on one line with its interval
    form = f"L = {words.equation(boot)}" if plain else words.latex(boot)
    judged = identify.judge_parameters(boot, level)
    lacking = [what for what, v in judged.items() if not v.identified]
    with_values = f"with {', '.join(each)}" if each else "with values that are not quoted, since the rows do not determine them"
    out = [f"Law: {form} {with_values} ({100 * level:g} %; {boot.words()}; Huber delta {boot.fit.delta:g})."]
    if story.found is not None and story.found.choice is not None:
        out.append(f"Form chosen by what it predicts inside the table: {story.found.choice.reason}.")
        if story.found.floor is not None and words.quoted(boot.fit):
            out.append(f"E over all forms: {words.between(story.found.floor, 4)}.")
    out.append(f"Not identified by these rows: {', '.join(lacking)}." if lacking else f"Identified: {', '.join(judged)}.")
    if isinstance(boot.fit.law, Law) and _has_frontier(boot.fit.law):
        out.append(
            "The dark band holds if the law's form does; the light one is widened by what such bands missed in back-tests."
        )
    if story.targets:
        when = "before it was trained" if story.targets_source == RECORDED else "but after it had been trained"
        out.append(f"The largest rung was predicted from the smaller sizes only, {when}.")
    return out


def to_json(story: Story) -> dict[str, Any]:
    """All numbers of the figure."""
    table, cost = story.table, story.cost
    out: dict[str, Any] = {
        "source": table.source, "flops_convention": table.flops_convention, "n_definition": table.n_definition,
        "notes": list(table.notes), "caption": caption(story, plain=True), "rows": [dataclasses.asdict(r) for r in table.rows],
        "cost": {"form": "C = k N^g D", "k": cost.k, "g": cost.g}, "law": None, "chinchilla": None, "no_fit": story.no_fit,
        "largest_rung": {"source": story.targets_source, "members": story.targets},
    }  # fmt: skip
    if story.found is not None:
        out |= words.estimate_json(story.found)
        band = frontier(story, np.geomspace(*story.compute_range(), 25))
        out["frontier"] = {name: [float(v) if np.isfinite(v) else None for v in values] for name, values in band.items()}
    return out


def in_words(story: Story) -> str:
    """What the command prints."""
    table = story.table
    lines = words.source(table)
    lines += words.estimate(story.found) if story.found is not None else [f"no fit: {story.no_fit}"]
    lines += words.loss_table(table.fitted)
    if story.targets:
        lines.append(f"largest rung, predicted {_WHEN[story.targets_source]}")
        lines += ["  " + (words.score(t) if t["measured"] is not None else words.pending(t)) for t in story.targets]
    return "\n".join(lines)
