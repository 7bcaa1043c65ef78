"""Which of two sweeps needs less compute for the same loss?  ``python -m analysis.compare``.

    --runs runs/a --against runs/b
    --csv a.csv --against b.csv --map N=params,D=tokens,loss=val_loss

The compute multiplier m(C) = C_b / C_a is how many times more training FLOPs the second sweep needs for the loss that the first
reaches with C: frontier_b(m C) = frontier_a(C), each frontier the least loss that its fitted law allows at a cost.  Where in
one sweep tokens grow in step with parameters, no frontier can be told and both are followed along that line instead.

Where the run directories show that two runs shared seed and order of data, their residuals are redrawn with the same weights:
what the draw of the data did to both is then no doubt about their difference.  Writes compare.png, compare.svg and
compare.json, and says the same in words.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import cli, pairing, plot_compare, words
from analysis.cells import Cells
from analysis.multiplier import Comparison, Crossover, Side, compare
from scaling import runs
from scaling.units import format_count

IN_WORDS = 5  # budgets that are printed


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _compare(argv))


def _compare(argv: list[str] | None) -> None:
    args = _arguments(argv)
    other = copy.copy(args)
    other.runs, other.csv = (args.against, None) if args.runs else (None, args.against)
    both = pairing.comparable(cli.table(args), cli.table(other), args.source)
    out = cli.out_dir(args)
    found = compare(both, args.delta, args.level, args.draws)
    runs.write_json(out / "compare.json", to_json(found))
    plot_compare.save(found, caption(found), out)
    print("\n".join(in_words(found)))
    print(f"wrote {out / 'compare.png'}, compare.svg and compare.json")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = cli.parser("compare", __doc__)
    parser.add_argument(
        "--against", metavar="FOLDER|FILE", required=True, help="the second sweep: a folder with --runs, a CSV with --csv"
    )
    parser.add_argument("--source", metavar="NAME", help="of runs on a data.mixture: on whose validation loss to compare them")
    args = parser.parse_args(argv)
    if args.source and not args.runs:
        parser.error(
            "--source names a validation loss of run folders; a CSV has none: map another column with --map loss=COLUMN"
        )
    return args


# ---- words


def in_words(c: Comparison) -> list[str]:
    """What the command prints."""
    first, second = c.sides
    lines = [_of_side(s, c.both.unit) for s in c.sides]
    lines += [f"note: {note}" for note in c.notes]
    lines.append(f"{'FLOPs of ' + first.name:>24} {'loss':>8} {'FLOPs of ' + second.name:>24}  multiplier, {100 * c.level:g} %")
    inside = np.arange(len(c.flops))[c.inside]
    for row in to_rows(c, np.unique(np.linspace(inside[0], inside[-1], IN_WORDS).round().astype(int))):
        lines.append(
            f"{row['flops']:>24.3g} {row['loss']:>8.4f} {_or_dash(row['flops_against']):>24}  "
            f"{words.number(row['multiplier'], 3)} {_between(row['interval'])}"
        )
    lo, hi = c.flops[c.inside][[0, -1]]
    lines.append(f"beyond {lo:.3g} to {hi:.3g} FLOPs of {first.name} one of the curves leaves its runs: extrapolation")
    return [*lines, headline(c), _of_crossover(c.crossover, c), *_of_cells(c.cells, c)]


def _of_side(s: Side, unit: str) -> str:
    rows = len(s.fit.residuals)
    left_out = words.exclusions(s.fit.table)
    return (
        f"{s.name}: L(N, D) = {words.equation(s.boot)}   ({unit}; {rows} rows, residual sd {100 * s.fit.sigma:.2g} %; "
        f"{s.boot.words()}{'; left out: ' + left_out if left_out else ''})"
    )


def headline(c: Comparison) -> str:
    """The multiplier in one sentence, or that there is no single one."""
    first, second = (s.name for s in c.sides)
    value, ends = c.mean(c.draws)
    how = ""
    if c.paired:
        alike = "" if c.twin_correlation is None else f" (residuals correlate {c.twin_correlation:.2f})"
        how = f", {c.twin_clusters} {_clusters(c)} of twins{alike} redrawn together; apart {_between(c.mean(c.unpaired)[1])}"
    mean = f"{words.number(value, 3)} ({100 * c.level:g} % {_between(ends)}{how})"
    change, change_ends = c.change
    if not c.verdict.identified:
        return f"no multiplier of {second} over {first}: {words.verdict_words(c.verdict)}"
    if not c.constant:
        ends_of = [f"{words.number(np.exp(c.log_multiplier[c.inside][i]), 3)} at {c.flops[c.inside][i]:.3g}" for i in (0, -1)]
        return (
            f"the multiplier CHANGES with scale: the compute that {second} needs over that of {first} goes from {ends_of[0]} "
            f"to {ends_of[1]} FLOPs of {first} (a factor of {words.number(change, 3)} {_between(change_ends)}); {mean} is its "
            f"mean over the shared range and no constant"
        )
    sure = "they cannot be told apart" if ends[0] <= 1 <= ends[1] else f"{'more' if ends[0] > 1 else 'less'}, beyond the noise"
    return (
        f"{second} needs {mean} times the compute of {first} for the same loss: {sure}; no change with scale beyond the noise "
        f"(a factor of {words.number(change, 3)} {_between(change_ends)} over the shared range)"
    )


def _clusters(c: Comparison) -> str:
    return "rows" if c.sides[1].boot.clusters == len(c.sides[1].fit.residuals) else "trunks"


def _of_crossover(x: Crossover, c: Comparison) -> str:
    first, second = (s.name for s in c.sides)
    shares = f"{100 * x.inside:.0f} % of refits cross like that among the runs, {100 * x.outside:.0f} % within 10 times of them"
    if x.flops is None:
        return (
            f"crossover: none within 10 times of the compute at which both curves pass among their runs "
            f"({100 * x.none:.0f} % of refits agree)"
        )
    better = (second, first) if x.first_better_above else (first, second)
    ends = f" {_between(x.interval)}" if x.interval else ""
    verdict = "identified" if x.identified else "NOT identified"
    return (
        f"crossover at {x.flops:.3g} FLOPs{ends}: {better[0]} is better below, {better[1]} above; {verdict} ({shares}, "
        f"{100 * x.none:.0f} % do not)"
    )


def _of_cells(cells: Cells | None, c: Comparison) -> list[str]:
    if cells is None:
        return ["no runs of one N and D in both: no comparison cell by cell"]
    first, second = (s.name for s in c.sides)
    moved = f"; N differs by up to {100 * cells.moved:.1f} %, corrected for by the law" if cells.moved > 1e-6 else ""
    out = (
        f"cell by cell: {cells.count} pairs of one N and D in {cells.clusters} clusters, {cells.twins} of them twins by seed "
        f"and data order{moved}; {second} less {first} {cells.difference:+.4f} {c.both.unit} "
        f"{_between(cells.interval) if cells.interval else '(one cluster: no interval)'}"
    )
    if cells.multiplier is not None:
        ends = f" {_between(cells.multiplier_interval)}" if cells.multiplier_interval else ""
        out += (
            f", by the slope of its curve (taken as known) {words.number(cells.multiplier, 3)}{ends} times the compute; "
            f"a mean over these cells, most of which lie off the frontier"
        )
    return [out]


def _between(ends: Sequence[float | None] | None) -> str:
    if ends is None:
        return ""
    texts = ["no end" if v is None or not math.isfinite(v) else words.number(v, 3) for v in ends]
    return f"[{texts[0]}, {texts[1]}]"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def caption(c: Comparison) -> str:
    """Definitions, rows and doubts of the figure, without what it shows."""
    table = c.both.a
    counts = ", ".join(f"{s.name} {len(s.fit.residuals)} rows of {len(s.fit.table.sizes())} sizes" for s in c.sides)
    tokens = " and ".join(format_count(float(s.fit.table.column("n_tokens").max())) for s in c.sides)
    parts = [
        f"N: {table.n_definition.replace('_', '-')}; C: {table.flops_convention}. {counts}; up to {tokens} tokens.",
        f"Compute: {headline(c)}.",
        f"C{_of_crossover(c.crossover, c)[1:]}.",
        "Bands hold if the laws' form does; dashed lines are extrapolated.",
        *(f"Note: {note}." for note in c.notes),
    ]
    return " ".join(parts)


# ---- JSON


def to_rows(c: Comparison, which: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Budgets with loss, compute of both, multiplier and intervals, as JSON types; what is not reached is None."""
    inside = np.arange(len(c.flops))[c.inside]
    first = c.sides[0]
    bands = [c.band(draws).T for draws in (c.draws, c.unpaired)]
    return [
        {
            "flops": float(c.flops[i]), "loss": float(first.losses(first.fit.params, c.flops[i])),
            "flops_against": _finite(c.flops[i] * np.exp(c.log_multiplier[i])),
            "multiplier": _finite(np.exp(c.log_multiplier[i])), "interval": [_finite(v) for v in bands[0][i]],
            "interval_unpaired": [_finite(v) for v in bands[1][i]], "extrapolated": i not in inside,
        }
        for i in which
    ]  # fmt: skip


def to_json(c: Comparison) -> dict[str, Any]:
    """All numbers of the figure and the words; ends that are not reached are None."""
    value, ends = c.mean(c.draws)
    change, change_ends = c.change
    lo, hi = c.flops[c.inside][[0, -1]]
    return {
        "first": _side_json(c.sides[0], c.level), "against": _side_json(c.sides[1], c.level), "unit": c.both.unit,
        "level": c.level, "notes": list(c.notes), "words": headline(c),
        "definition": "multiplier(C) = C_against / C_first at which both curves have one loss",
        "headline": {
            "multiplier": value, "interval": [_finite(v) for v in ends], "paired": c.paired,
            "interval_unpaired": [_finite(v) for v in c.mean(c.unpaired)[1]], "twin_clusters": c.twin_clusters,
            "twin_correlation": c.twin_correlation,
            "flops": [float(lo), float(hi)], "constant_within_noise": c.constant, "verdict": dataclasses.asdict(c.verdict),
            "change": {"factor": change, "interval": [_finite(v) for v in change_ends]},
        },
        "budgets": to_rows(c, range(len(c.flops))),
        "crossover": _lists(c.crossover), "cells": None if c.cells is None else _lists(c.cells),
    }  # fmt: skip


def _side_json(s: Side, level: float) -> dict[str, Any]:
    table = s.fit.table
    return {
        "source": table.source, "name": s.name, "n_definition": table.n_definition, "flops_convention": table.flops_convention,
        "cost": {"form": "C = k N^g D", "k": s.cost.k, "g": s.cost.g}, "law": words.law_json(s.boot, level),
        "followed": "frontier" if s.line is None else {"log D": "slope log N + level", "slope": s.line[0], "level": s.line[1]},
        "flops_trained": list(s.trained), "flops_among_runs": list(s.among_runs) if s.among_runs else None,
        "rows": [dataclasses.asdict(r) for r in table.rows],
    }  # fmt: skip


def _lists(what: Crossover | Cells) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(what).items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main())
