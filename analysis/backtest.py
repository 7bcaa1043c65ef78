"""How well a law predicts what it was not fitted to: fit the cheaper part of a table, score the rest (rolling origin).

A row is never predicted by a fit that saw its own run.  Where rows of one cluster (checkpoints of a run, branches of a trunk)
lie on both sides of a split by compute, the ones beyond it are predicted by a refit that leaves out that cluster's other rows.
A ladder of a few trunks is split by size instead, which leaves every trunk on one side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import fit as fitting
from analysis.fit import AnyLaw, Fit, FitError, Rows
from analysis.intervals import FEW_CLUSTERS, LEVEL, bootstrap
from analysis.laws import CHINCHILLA, SURFACES
from analysis.load import Table
from analysis.newton import minimise
from scaling.units import format_count

QUANTILES = (0.4, 0.55, 0.7, 0.85)  # of log C: where the fitted part ends
DRAWS = 150  # bootstrap refits per origin: the ends of a 90 % band are then known to a tenth of its half-width
# Every form is asked to fit what the largest can carry, so that all are scored on the same splits; two rows beyond its
# parameters, since a fit through all of its rows has no residual to make a band of.
MIN_ROWS = max(len(law.parameters) for law in SURFACES.values()) + 2
MIN_VALUES = 3  # sizes, and token counts, below the split


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """One split: masks over the table's fitted rows."""

    words: str
    below: np.ndarray
    beyond: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class BackTest:
    """Every prediction of a row beyond an origin; arrays have one entry per prediction.

    Attributes:
      law: what was fitted.
      kind: 'expanding' or 'largest'.
      level: of the bands.
      origins: the splits that could be fitted.
      origin: index into ``origins``.
      row: index into the table's fitted rows.
      distance: log of the row's compute over the largest compute below the origin.
      predicted: log loss.
      measured: log loss.
      middle: of the plain band (bootstrap and the scatter of single runs), in log loss; nan without draws.
      half: half of its width.
    """

    law: AnyLaw
    kind: str
    level: float
    origins: tuple[Origin, ...]
    origin: np.ndarray
    row: np.ndarray
    distance: np.ndarray
    predicted: np.ndarray
    measured: np.ndarray
    middle: np.ndarray
    half: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def errors(self) -> np.ndarray:
        """log measured - log predicted."""
        return self.measured - self.predicted

    @property
    def mean_error(self) -> float:
        """Mean |log error|."""
        return float(np.abs(self.errors).mean())

    @property
    def by_origin(self) -> np.ndarray:
        """Mean |log error| of each origin that has predictions."""
        return np.array([np.abs(self.errors[self.origin == o]).mean() for o in np.unique(self.origin)])

    @property
    def bias(self) -> float:
        """Mean log error: above 0, runs end worse than predicted."""
        return float(self.errors.mean())

    @property
    def reach(self) -> np.ndarray:
        """How far each measured loss lies from the middle of its band, in half-widths: above 1 is outside."""
        return np.abs(self.measured - self.middle) / self.half

    @property
    def coverage(self) -> float:
        """The part of the rows that the plain bands hold."""
        return float((self.reach <= 1).mean())

    def words(self) -> str:
        """One sentence."""
        what = "the largest size left out" if self.kind == "largest" else f"{len(self.origins)} expanding windows"
        band = "" if np.isnan(self.half).any() else (
            f"; nominal {100 * self.level:g} % bands hold {100 * self.coverage:.0f} % of them"
        )  # fmt: skip
        return (
            f"back-test of the {self.law.name} law, {what}: {len(self)} predictions, mean |log error| "
            f"{100 * self.mean_error:.2g} %, bias {100 * self.bias:+.2g} %{band}"
        )

    def to_dict(self, table: Table) -> dict[str, Any]:
        """As JSON types, each prediction by its row's id."""
        ids, banded = [r.id for r in table.fitted], not np.isnan(self.half).any()
        columns = {"distance": self.distance, "predicted": np.exp(self.predicted), "measured": np.exp(self.measured)}
        if banded:
            columns |= {"lower": np.exp(self.middle - self.half), "upper": np.exp(self.middle + self.half)}
        return {
            "form": self.law.name, "kind": self.kind, "level": self.level, "origins": [o.words for o in self.origins],
            "mean_abs_log_error": self.mean_error, "bias": self.bias, "coverage": self.coverage if banded else None,
            "predictions": [
                {"origin": int(self.origin[i]), "id": ids[self.row[i]]} | {k: float(v[i]) for k, v in columns.items()}
                for i in range(len(self))
            ],
        }  # fmt: skip


def expanding(
    table: Table, law: AnyLaw = CHINCHILLA, quantiles: Sequence[float] = QUANTILES, delta: float | None = None,
    weights: np.ndarray | None = None, draws: int = 0, level: float = LEVEL, splits: Sequence[Origin] | None = None,
) -> BackTest:  # fmt: skip
    """Fits below each origin and scores everything beyond it.

    Args:
      table: excluded rows stay out.
      law: to fit.
      quantiles: of log C, where the origins lie; a ladder of trunks has its origins between sizes instead.
      delta: of the Huber loss; by default that of the table's kind.
      weights: one per fitted row, as in ``fit.fit``.
      draws: bootstrap refits per origin, for bands; 0 for errors only.
      level: of the bands.
      splits: origins to use, in place of those at ``quantiles``.

    Raises:
      FitError: no origin leaves enough rows on both sides.
    """
    found = origins(table, quantiles) if splits is None else tuple(splits)
    return _test(table, law, "expanding", found, delta, weights, draws, level)


def leave_largest_out(
    table: Table, law: AnyLaw = CHINCHILLA, delta: float | None = None, weights: np.ndarray | None = None, draws: int = DRAWS,
    level: float = LEVEL,
) -> BackTest:  # fmt: skip
    """Fits all sizes but the largest and scores that one; arguments and errors as ``expanding``."""
    sizes = table.sizes()
    last = [_by_size(table, sizes[-2])] if len(sizes) > 1 else []
    return _test(table, law, "largest", _usable(table, last), delta, weights, draws, level)


def origins(table: Table, quantiles: Sequence[float] = QUANTILES) -> tuple[Origin, ...]:
    """The splits that a table allows, from the earliest to the last.

    By compute, unless the rows are branches of fewer than 12 trunks of one size each: then after every size from the third.
    """
    if _is_ladder(table):
        return _usable(table, [_by_size(table, n) for n in table.sizes()[:-1]])
    log_c = np.log(table.column("flops").astype(float))
    cuts = np.unique(np.quantile(log_c, quantiles)) if len(log_c) else np.empty(0)
    found = [Origin(f"C up to {format_count(float(np.exp(cut)))}", log_c <= cut, log_c > cut) for cut in cuts]
    return _usable(table, found)


def _by_size(table: Table, largest: float) -> Origin:
    n = table.column("n_params")
    return Origin(f"up to {format_count(largest)} parameters", n <= largest, n > largest)


def _is_ladder(table: Table) -> bool:
    """Whether rows are branches of a few trunks, each of one size."""
    sizes: dict[str, set[float]] = {}
    for r in table.fitted:
        sizes.setdefault(r.cluster, set()).add(r.n_params)
    few = len(sizes) < min(FEW_CLUSTERS, len(table.fitted))
    return few and all(len(s) == 1 for s in sizes.values())


def _usable(table: Table, found: Sequence[Origin]) -> tuple[Origin, ...]:
    """Origins with enough below, something beyond, and not the same rows as one before."""
    out: list[Origin] = []
    for o in found:
        same = bool(out) and np.array_equal(out[-1].below, o.below)
        if not same and o.beyond.any() and _enough(table, o.below):
            out.append(o)
    return tuple(out)


def _enough(table: Table, keep: np.ndarray) -> bool:
    values = [len(np.unique(table.column(v)[keep])) for v in ("n_params", "n_tokens")]
    return int(keep.sum()) >= MIN_ROWS and min(values) >= MIN_VALUES


def _test(
    table: Table, law: AnyLaw, kind: str, found: tuple[Origin, ...], delta: float | None, weights: np.ndarray | None,
    draws: int, level: float,
) -> BackTest:  # fmt: skip
    too_few = FitError(
        f"{table.source}: {len(table.fitted)} rows of {len(table.sizes())} sizes are too few for a back-test: below a split "
        f"there must be {MIN_ROWS} rows with {MIN_VALUES} sizes and {MIN_VALUES} token counts, and beyond it a row whose own "
        f"run can be left out of them"
    )
    found = tuple(o for o in found if o.below.sum() >= len(law.parameters) + 2)
    if not found:
        raise too_few
    rows = fitting.rows_of(table, law, weights)
    delta = fitting.DEFAULT_DELTA[table.kind] if delta is None else delta
    parts = [_score(table, rows, law, i, o, delta, draws, level) for i, o in enumerate(found)]
    test = BackTest(law, kind, level, found, *(np.concatenate(column) for column in zip(*parts, strict=True)))
    if not len(test):
        raise too_few
    return test


def _score(
    table: Table, rows: Rows, law: AnyLaw, number: int, origin: Origin, delta: float, draws: int, level: float
) -> tuple[np.ndarray, ...]:
    """Origin, row, distance, predicted, measured, middle and half of every row beyond one origin."""
    part = fitting.fit_rows(subset(rows, origin.below), law, delta)
    beyond = np.flatnonzero(origin.beyond)
    columns = {k: v[beyond] for k, v in rows.columns.items()}
    predicted = np.log(part.at(columns)[0])
    whole = predicted.copy()
    scored = np.ones(len(beyond), bool)
    _without_own_run(table, rows, origin, part, columns, beyond, predicted, scored)
    middle, half = np.full(len(beyond), np.nan), np.full(len(beyond), np.nan)
    if draws:
        boot = bootstrap(part, draws)
        cloud = np.log(part.at(columns, boot.theta)) + boot.noise[:, None]
        lo, hi = np.quantile(cloud, [(1 - level) / 2, (1 + level) / 2], axis=0)
        middle, half = (lo + hi) / 2 + predicted - whole, (hi - lo) / 2
    c = table.column("flops")
    distance = np.log(c[beyond] / c[origin.below].max())
    out = (np.full(len(beyond), number), beyond, distance, predicted, np.log(rows.measured[beyond]), middle, half)
    return tuple(v[scored] for v in out)


def _without_own_run(
    table: Table, rows: Rows, origin: Origin, part: Fit, columns: dict[str, np.ndarray], beyond: np.ndarray,
    predicted: np.ndarray, scored: np.ndarray,
) -> None:  # fmt: skip
    """Predicts rows whose run was fitted from a refit without it, in place; where too little is left, they are not scored."""
    groups, below = rows.groups, np.flatnonzero(origin.below)
    shared = np.intersect1d(groups[below], groups[beyond])
    able = []
    for g in shared:
        if _enough(table, origin.below & (groups != g)):
            able.append(g)
        else:
            scored[groups[beyond] == g] = False
    if not able:
        return
    keep = groups[below] != np.array(able)[:, None]
    target = np.log(rows.measured[below])
    start = part.model.revived(part.theta[None])
    refit = minimise(
        part.model, np.broadcast_to(target, keep.shape), keep * rows.weights[below], np.repeat(start, len(able), 0), part.delta
    )
    each = np.log(part.at(columns, refit.theta))
    for lane, g in enumerate(able):
        own = groups[beyond] == g
        predicted[own] = each[lane, own]


def subset(rows: Rows, keep: np.ndarray) -> Rows:
    """The rows where ``keep``."""
    some = np.flatnonzero(keep)
    columns = {k: v[some] for k, v in rows.columns.items()}
    return Rows.of(columns, rows.measured[some], [rows.clusters[i] for i in some], rows.weights[some])
