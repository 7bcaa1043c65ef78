"""One fitter for every law: log space, many starts, exact Newton; float64 NumPy, nothing to compile.

The objective is the SUM over rows of weight x Huber_delta(log L_predicted - log L) (Hoffmann et al. 2022): a mean under a
default tolerance stops early, which is how published fits went wrong.  The way to its minimum: starts from a grid
(``analysis.starts``), then damped Newton from every start at once (``analysis.newton``), delta going 1e-1 → 1e-2 → target,
because small deltas have local minima; on demand, restarts from refits of resampled rows.  There are no bounds: a parameter
that runs away is reported in ``Fit.edges``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from analysis import checks
from analysis.laws import CHINCHILLA, Law
from analysis.laws.formula import Formula
from analysis.load import Table
from analysis.newton import Minimum, Model, PowerSum, minimise
from analysis.starts import starting_points

AnyLaw: TypeAlias = Law | Formula

# A published table mixes digitised points and outliers: the Chinchilla choice, nearly least absolute deviations.  The runs of
# one sweep share protocol and validation windows: least squares, unless a row is off by more than 1 %.  With some fifteen rows
# that matters, since near-absolute deviations pass exactly through as many rows as there are parameters.
DEFAULT_DELTA = {"csv": 1e-3, "runs": 1e-2}
LOSSES = {"huber": None, "squared": 1e3, "l1": 1e-6}  # as deltas: no residual of log loss is above 1e3, none counts below 1e-6
STARTS = 4
BUMPS = 48  # restarts that commands make; without them 29 of 32 published near-absolute fits ended at the best known value
MIN_VALUES = 3  # of a variable whose exponent is its own; 2 where another variable shares it
COLUMNS = {"N": "n_params", "D": "n_tokens", "C": "flops", "U": "unique_tokens"}
_NOUNS = {"N": "sizes", "D": "token counts", "C": "budgets", "U": "counts of unique tokens"}
VANISHED = 1e-6  # a term whose share of the loss is below this on every row has run to zero
EXPONENT_RANGE = (0.01, 3.0)  # no power law of loss was ever reported outside; beyond it a term is a constant or a step


class FitError(ValueError):
    """Rows that no fit can be made of; the message says what is missing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """What is fitted: the law's variables, what was measured, and which rows move together.

    Attributes:
      columns: each variable, (rows,).
      measured: losses in nats per token, (rows,).
      clusters: a name per row; rows of one cluster are redrawn together.
      weights: (rows,), mean 1.
    """

    columns: Mapping[str, np.ndarray]
    measured: np.ndarray
    clusters: tuple[str, ...]
    weights: np.ndarray

    @classmethod
    def of(
        cls, columns: Mapping[str, Sequence[float] | np.ndarray], measured: Sequence[float] | np.ndarray,
        clusters: Sequence[Any] | None = None, weights: np.ndarray | None = None,
    ) -> Rows:  # fmt: skip
        """From plain sequences; every row its own cluster and weights 1 unless told."""
        losses = np.asarray(measured, float)
        names = tuple(str(c) for c in (range(len(losses)) if clusters is None else clusters))
        scale = np.ones(len(losses)) if weights is None else np.asarray(weights, float) / np.mean(weights)
        return cls({k: np.asarray(v, float) for k, v in columns.items()}, losses, names, scale)

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """(rows,) the number of each row's cluster."""
        return np.unique(self.clusters, return_inverse=True)[1]

    def __len__(self) -> int:
        return len(self.measured)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Why to believe that the minimum is the minimum."""

    starts: int
    agreeing: int  # starts that ended within 1e-6 (relative) of the best objective
    gradient: float  # norm of the gradient over the residuals' scale (delta, at most their sd) and sqrt(rows)
    convex: bool  # the Hessian is positive definite there
    iterations: int
    bumps: int  # restarts from refits of resampled rows
    improved: bool  # whether one of them found a lower minimum than the starts did


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A law with its parameters, and what produced them."""

    law: AnyLaw
    params: dict[str, float]
    delta: float
    objective: float  # sum of Huber terms of log loss
    residuals: np.ndarray  # log measured - log fitted, one per row
    certificate: Certificate
    edges: tuple[str, ...]  # parameters that ran away, in words
    table: Table
    rows: Rows
    theta: np.ndarray  # at centred logarithms
    centre: Mapping[str, float]
    model: Model  # the law at the rows

    @property
    def loss_name(self) -> str:
        """What the objective sums, in words."""
        return {1e3: "squares", 1e-6: "absolute values"}.get(self.delta, f"Huber({self.delta:g})")

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.residuals) - len(self.law.parameters)

    def losses(self, theta: np.ndarray, n_params: float, n_tokens: float, flops: float | None = None) -> np.ndarray:
        """Loss of one run under each theta, in centred logarithms, where even an exponent that ran away does not overflow."""
        at = {"N": n_params, "D": n_tokens, "C": 6 * n_params * n_tokens if flops is None else flops, "U": n_tokens}
        return self.at({v: np.array([at[v]]) for v in self.law.variables}, theta)[:, 0]

    def expected(self, n_params: Any, n_tokens: Any, flops: Any = None) -> np.ndarray:
        """The fitted law's loss of each run, (runs,)."""
        n, d = np.broadcast_arrays(np.atleast_1d(np.asarray(n_params, float)), np.asarray(n_tokens, float))
        c = np.broadcast_to(6 * n * d if flops is None else np.asarray(flops, float), n.shape)
        return self.at({v: {"N": n, "D": d, "C": c, "U": d}[v] for v in self.law.variables})[0]

    def at(self, columns: Mapping[str, np.ndarray], theta: np.ndarray | None = None) -> np.ndarray:
        """Predicted (lanes, points) at other values of the variables, under theta (lanes, parameters) or the fitted one."""
        where = {k: np.asarray(v, float) for k, v in columns.items()}
        logs = self.law.bind(where, self.centre).log_loss(self.theta[None] if theta is None else theta)
        return np.exp(np.minimum(logs, 700.0)) - _shift(self.law)

    @property
    def sigma(self) -> float:
        """Residual standard deviation of log loss, corrected for the fitted parameters."""
        return float(np.sqrt(np.sum(self.rows.weights * self.residuals**2) / max(1, self.degrees_of_freedom)))


def _shift(law: AnyLaw) -> float:
    return law.shift if isinstance(law, Formula) else 0.0


def rows_of(table: Table, law: AnyLaw = CHINCHILLA, weights: np.ndarray | None = None) -> Rows:
    """The table's fitted rows as the law sees them; ``weights`` one per fitted row."""
    columns = {v: table.column(COLUMNS[v]).astype(float) for v in law.variables}
    return Rows.of(columns, table.column("loss").astype(float), [r.cluster for r in table.fitted], weights)


def fit(
    table: Table, law: AnyLaw = CHINCHILLA, delta: float | None = None, starts: int = STARTS, loss: str = "huber",
    weights: np.ndarray | None = None, bumps: int | None = None,
) -> Fit:  # fmt: skip
    """The global minimum of the objective over the table's fitted rows.

    Args:
      table: rows from ``analysis.load``; excluded ones are left out.
      law: the form.
      delta: where the Huber loss turns from square to absolute, in log loss; by default ``DEFAULT_DELTA`` of the table's kind.
      starts: from how many grid cells that lie apart Newton starts.
      loss: 'huber', 'squared' or 'l1' (absolute values); the latter two take no delta.
      weights: one per fitted row, such as 1/sd^2 of its noise (``analysis.noise.weights``); equal by default.
      bumps: restarts from refits of resampled rows (Wood 2001): they leave local minima that all starts share.  By default
        none for laws of powers, whose starts come from a grid, and ``BUMPS`` for formulas, whose starts are guesses.

    Raises:
      FitError: fewer rows than parameters + 1, too few values of a variable, or an unknown loss.
    """
    check_rows(table, law)
    delta = DEFAULT_DELTA[table.kind] if delta is None else delta
    return fit_rows(rows_of(table, law, weights), law, delta, starts, loss, bumps, table)


def fit_rows(
    rows: Rows, law: AnyLaw, delta: float = 1e-3, starts: int = STARTS, loss: str = "huber", bumps: int | None = None,
    table: Table | None = None,
) -> Fit:  # fmt: skip
    """As ``fit``, of rows that need no table (any variables that the law names).

    Raises:
      FitError: an unknown loss, or no more rows than parameters.
    """
    if loss not in LOSSES:
        raise FitError(f"loss={loss!r}: must be one of {', '.join(LOSSES)}")
    if len(rows) <= len(law.parameters):
        raise FitError(f"{len(rows)} rows for the {len(law.parameters)} parameters of the {law.name} law: add more")
    delta = LOSSES[loss] or delta
    bumps = (BUMPS if isinstance(law, Formula) else 0) if bumps is None else bumps
    centre = law.centre(rows.columns)
    model = law.bind(rows.columns, centre)
    target = np.log(rows.measured + _shift(law))
    theta = (
        law.starts(rows.columns, rows.measured)
        if isinstance(law, Formula)
        else starting_points(law, model, target, rows.weights, starts)  # type: ignore[arg-type]
    )
    result = _descend(model, target, rows.weights, theta, delta)
    best = int(np.argmin(result.objective))
    value, found = float(result.objective[best]), result.theta[best]
    agreeing = int(np.sum(result.objective <= value * (1 + 1e-6) + 1e-24))
    bumped = _bump(model, target, rows.weights, found, delta, bumps) if bumps else None
    improved = bumped is not None and bool(bumped.objective.min() < value * (1 - 1e-9))
    if bumped is not None and improved:
        result, best = bumped, int(np.argmin(bumped.objective))
        value, found = float(result.objective[best]), result.theta[best]
        agreeing = int(np.sum(result.objective <= value * (1 + 1e-6) + 1e-24))
    residuals = target - model.log_loss(found[None])[0]
    scale = min(delta, max(float(np.std(residuals)), 1e-300))
    certificate = Certificate(
        starts=len(result.objective),
        agreeing=agreeing,
        gradient=float(np.linalg.norm(result.gradient[best]) / (scale * math.sqrt(len(target)))),
        convex=bool(result.convex[best]),
        iterations=result.iterations,
        bumps=bumps,
        improved=improved,
    )
    params = {k: float(v[0]) for k, v in law.to_params(found[None], centre).items()}
    known = table if table is not None else Table("arrays", ())
    return Fit(
        law, params, delta, value, residuals, certificate, _edges(law, model, found, params), known, rows, found, centre, model
    )


def _descend(model: Model, target: np.ndarray, weights: np.ndarray, theta: np.ndarray, delta: float) -> Minimum:
    """Newton from every start, delta going down by stages."""
    targets, per_row = np.broadcast_to(target, (len(theta), len(target))), np.broadcast_to(weights, (len(theta), len(target)))
    stages = [d for d in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5) if d > delta * 1.5]
    if delta >= 1e-3:
        stages = stages[:2]
    iterations = 0
    for stage in stages:
        coarse = minimise(model, targets, per_row, theta, stage, max_iterations=20, tolerance=1e-6)
        theta, iterations = model.revived(coarse.theta), iterations + coarse.iterations
    result = minimise(model, targets, per_row, theta, delta)
    return dataclasses.replace(result, iterations=iterations + result.iterations)


def _bump(model: Model, target: np.ndarray, weights: np.ndarray, theta: np.ndarray, delta: float, bumps: int) -> Minimum:
    """Minima found from where refits of resampled rows end."""
    n = len(target)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=bumps).astype(float)
    targets = np.broadcast_to(target, (bumps, n))
    away = minimise(
        model, targets, counts * weights, np.repeat(theta[None], bumps, 0), delta, max_iterations=60, tolerance=1e-8
    )
    return minimise(model, targets, np.broadcast_to(weights, (bumps, n)), model.revived(away.theta), delta)


def check_rows(table: Table, law: AnyLaw = CHINCHILLA) -> None:
    """Raises FitError unless the fitted rows can carry the law at all."""
    rows, need = len(table.fitted), len(law.parameters) + 1
    found = {v: len({getattr(r, COLUMNS[v]) for r in table.fitted}) for v in law.variables}
    wanted = {v: _values_needed(law, v) for v in law.variables}
    if rows < need or any(found[v] < wanted[v] for v in found):
        left_out = f" ({len(table.excluded)} more are excluded)" if table.excluded else ""
        has = " and ".join(f"{count} {_NOUNS[v]}" for v, count in found.items())
        needs = " and ".join(f"{count} {_NOUNS[v]}" for v, count in wanted.items())
        others = [offer for offer in checks.offers(table) if not offer.startswith(f"--law {law.name}:")]
        still = f"; what these rows can carry (analysis.plot_scaling, analysis.predict): {'; '.join(others)}" if others else ""
        raise FitError(
            f"{table.source}: {rows} rows with {has}{left_out}; the {law.name} law has {len(law.parameters)} parameters and "
            f"needs at least {need} rows, {needs}: train or add more{still}"
        )


def _values_needed(law: AnyLaw, variable: str) -> int:
    """Distinct values of a variable that its exponent needs; one less where another variable shares the exponent."""
    if isinstance(law, Formula):
        return 1
    own = next(t.exponent for t in law.terms if t.variable == variable)
    return MIN_VALUES - (sum(t.exponent == own for t in law.terms) > 1)


def _edges(law: AnyLaw, model: Model, theta: np.ndarray, params: Mapping[str, float]) -> tuple[str, ...]:
    """Parameters that ran away, in words."""
    lo, hi = EXPONENT_RANGE
    if isinstance(law, Formula) or not isinstance(model, PowerSum):
        matter = np.abs(model.derivatives(theta[None]).jacobian[0]).max(-1)
        return tuple(
            f"{name} = {params[name]:.3g} runs to {'zero' if params[name] < 1 else 'infinity'}: no row's loss depends on it"
            for name, slope in zip(law.parameters, matter, strict=True)
            if slope < VANISHED
        )
    share = model.shares(theta[None])[1][:, 0]
    out = [
        f"{term.coefficient} runs to zero: the rows show no such term"
        for t, term in enumerate(law.terms)
        if share[t].max() < VANISHED
    ]
    for name in law.parameters[len(law.terms) :]:
        if not lo <= params[name] <= hi:
            what = "its term is not a power law on these rows" if name in law.exponents else "its powers do not couple so"
            out.append(f"{name} = {params[name]:.3g} lies outside {lo} to {hi}: {what}")
    return tuple(out)
