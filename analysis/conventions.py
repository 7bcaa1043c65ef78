"""How much the exponents owe to the way of counting: one table refitted under every FLOP convention.

Which N and which C are choices.  Kaplan et al. 2020 (arXiv 2001.08361) count non-embedding parameters, Hoffmann et al. 2022
(arXiv 2203.15556) all of them; for small models the difference alone moves the exponent a of N* ~ C^a from 0.5 to 0.73 (Pearce
and Song 2024, arXiv 2406.12907), and leaving the last layer's FLOPs out moves it as far (Porian et al. 2024, arXiv 2406.19146).

Under each convention C is taken as k N^g D, the power law nearest to the counted FLOPs of the runs, so that the law L(N, D) is
fitted once for each definition of N and the optimum follows from the cost.  All rows of the table use the same random weights:
the shift of an exponent from one convention to the next is much better known than the exponent.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from analysis import fit, identify, intervals, load, words
from analysis.laws import Cost, allocation_exponent, measured_cost, optimum
from scaling import flops
from scaling.units import format_count

DRAWS = 300  # refits for each definition of N: the ends of a 90 % interval are then known to a tenth of its width
N_OF = {"6N": "total", "6N_nonembedding": "non_embedding"}  # the others leave N as it was chosen
SIX_N_D = "6ND"


@dataclasses.dataclass(frozen=True)
class Convention:
    """One way of counting.  ``values`` and ``intervals`` hold E, alpha, beta, a, n_params and n_tokens (the optimum at
    ``flops``) and ``shift``, which is a less the a of the first convention.
    """

    name: str
    n_definition: str
    cost: Cost
    flops: float  # of the reference run, counted so
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Conventions:
    """All of them, and the run whose compute is the budget of every optimum."""

    rows: tuple[Convention, ...]
    reference: str
    level: float
    notes: tuple[str, ...]


def table_of(table: load.Table, delta: float | None = None, level: float = intervals.LEVEL, draws: int = DRAWS) -> Conventions:
    """The table of conventions: of run folders all of ``scaling.flops.CONVENTIONS``, of a CSV its own column of C beside 6ND.

    Under '6N' N counts all parameters, under '6N_nonembedding' those without embeddings, and under exact matmul FLOPs N stays
    as the table has it.

    Args:
      table: from ``load.runs`` or ``load.csv``; rows that are excluded in it are excluded under every convention.
      delta: of the Huber loss, as in ``fit.fit``.
      level: of the intervals.
      draws: refits for each definition of N.

    Raises:
      FitError: rows that cannot carry the law, or do not tell its terms apart.
    """
    tables, notes = _counted(table)
    first = next(iter(tables.values()))
    at = int(np.argmax(first.column("flops").astype(float)))
    boots: dict[str, intervals.Bootstrap] = {}
    rows: list[Convention] = []
    start: np.ndarray | None = None
    for name, counted in tables.items():
        if counted.n_definition not in boots:
            boots[counted.n_definition] = intervals.bootstrap(fit.fit(counted, delta=delta), draws)
        boot = boots[counted.n_definition]
        if reasons := identify.inseparable(boot.fit):
            raise fit.FitError(f"{table.source}: no exponents to hold against each other: {'; '.join(reasons)}")
        cost = measured_cost(*(list(counted.column(c)) for c in ("n_params", "n_tokens", "flops")))
        budget = float(counted.column("flops")[at])
        drawn = _quantities(boot.params, cost, budget)
        start = drawn["a"] if start is None else start
        drawn["shift"] = drawn["a"] - start
        point = {k: float(v) for k, v in _quantities(boot.fit.params, cost, budget).items()}
        point["shift"] = point["a"] - (rows[0].values["a"] if rows else point["a"])
        ends = {k: boot.interval(v[np.isfinite(v)], level) for k, v in drawn.items()}
        rows.append(Convention(name, counted.n_definition, cost, budget, point, ends))
    return Conventions(tuple(rows), first.fitted[at].id, level, tuple(notes))


def _counted(table: load.Table) -> tuple[dict[str, load.Table], list[str]]:
    """The table under every convention that it can be counted by, its own first."""
    if table.kind == "runs":
        names = sorted(flops.CONVENTIONS, key=lambda name: name != table.flops_convention)
        return {name: _reloaded(table, N_OF.get(name, table.n_definition), name) for name in names}, []
    if table.flops_convention == SIX_N_D:
        return {SIX_N_D: table}, ["a CSV without a column for C can be counted as 6ND alone: map one with --map C=COLUMN"]
    six = tuple(dataclasses.replace(r, flops=6 * r.n_params * r.n_tokens) for r in table.rows)
    note = "a CSV has one N and its own C: of other conventions only 6ND can be had"
    return {table.flops_convention: table, SIX_N_D: dataclasses.replace(table, rows=six, flops_convention=SIX_N_D)}, [note]


def _reloaded(table: load.Table, n_definition: str, convention: str) -> load.Table:
    """The same rows, left out as before, with other N and C."""
    if (n_definition, convention) == (table.n_definition, table.flops_convention):
        return table
    fresh = {r.id: r for r in load.runs(table.source, n_definition, convention).rows}
    rows = (dataclasses.replace(r, n_params=fresh[r.id].n_params, flops=fresh[r.id].flops) for r in table.rows)
    return dataclasses.replace(table, rows=tuple(rows), n_definition=n_definition, flops_convention=convention)


def _quantities(params: Any, cost: Cost, budget: float) -> dict[str, Any]:
    with np.errstate(all="ignore"):  # a draw whose exponent ran away has no optimum
        n, d, _ = optimum(params, budget, cost)
        a = allocation_exponent(params, cost)
    return {k: params[k] for k in ("E", "alpha", "beta")} | {"a": a, "n_params": n, "n_tokens": d}


def to_json(c: Conventions) -> dict[str, Any]:
    """As JSON types."""
    return {
        "reference_run": c.reference, "level": c.level, "notes": list(c.notes), "words": conclusion(c),
        "conventions": [
            {
                "name": r.name, "n_definition": r.n_definition, "cost": {"form": "C = k N^g D", "k": r.cost.k, "g": r.cost.g},
                "flops": r.flops, "values": r.values, "intervals": {k: list(v) for k, v in r.intervals.items()},
            }
            for r in c.rows
        ],
    }  # fmt: skip


def in_words(c: Conventions) -> list[str]:
    """An aligned table and what it says."""
    head = ("C counted as", "N", "g", "E", "alpha", "beta", f"a, {100 * c.level:g} %", "shift of a", "N*", "D*", "D*/N*")
    cells = [head] + [_cells(r, first=i == 0) for i, r in enumerate(c.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    lines.append(
        f"C = k N^g D; N*, D*: optimal at the FLOPs of {c.reference}, counted each way; shift: of a from the first row"
    )
    return lines + [f"note: {note}" for note in c.notes] + [conclusion(c)]


def _cells(r: Convention, first: bool) -> tuple[str, ...]:
    v, ends = r.values, r.intervals
    return (
        r.name, r.n_definition, words.number(r.cost.g, 3), *(words.number(v[k], 3) for k in ("E", "alpha", "beta")),
        f"{words.number(v['a'], 3)} {words.between(ends['a'])}",
        "–" if first else f"{v['shift']:+.3f} [{ends['shift'][0]:+.3f}, {ends['shift'][1]:+.3f}]",
        format_count(v["n_params"]), format_count(v["n_tokens"]), words.number(v["n_tokens"] / v["n_params"], 3),
    )  # fmt: skip


def conclusion(c: Conventions) -> str:
    """How far a moves, in one sentence."""
    if len(c.rows) < 2:
        return f"one convention ({c.rows[0].name}): nothing to compare"
    lowest, highest = (f(c.rows, key=lambda r: r.values["a"]) for f in (min, max))
    span = highest.values["a"] - lowest.values["a"]
    if span < 5e-4:
        return f"a = {c.rows[0].values['a']:.3f} under every convention"
    first = c.rows[0]
    width = first.intervals["a"][1] - first.intervals["a"][0]
    return (
        f"a moves from {lowest.values['a']:.3f} ({lowest.name}, N {lowest.n_definition}) to {highest.values['a']:.3f} "
        f"({highest.name}, N {highest.n_definition}) by the way of counting alone: {span / width:.2g} times the width of its "
        f"interval under {first.name}"
    )
