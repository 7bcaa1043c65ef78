"""One fitter for every law: log-sum-exp space, many starts, exact Newton; float64 NumPy, nothing to compile.

The objective is the SUM over rows of Huber_delta(log L_predicted - log L) (Hoffmann et al. 2022): a mean under a default
tolerance stops early, which is how published fits went wrong.  The way to its minimum:

1. variable projection: for a grid of exponents the coefficients are a weighted linear least-squares problem, all of them
   solved in one batch; the best cells that lie apart become starts;
2. damped Newton with the exact Hessian from every start at once, delta going 1e-1 → 1e-2 → target, because small deltas
   have local minima.  There are no bounds: a parameter that runs away is reported in ``Fit.edges``.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from analysis.laws import CHINCHILLA, Law
from analysis.load import Table

# A published table mixes digitised points and outliers: the Chinchilla choice, nearly least absolute deviations.  The runs of
# one sweep share protocol and validation windows: least squares, unless a row is off by more than 1 %.  With some fifteen rows
# that matters, since near-absolute deviations pass exactly through as many rows as there are parameters.
DEFAULT_DELTA = {"csv": 1e-3, "runs": 1e-2}
EXPONENT_GRID = np.geomspace(0.02, 1.5, 32)
CONTINUATION = (1e-1, 1e-2)
STARTS = 4
MIN_SIZES = 3
_VANISHED = 1e-6  # a term whose share of the loss is below this on every row has run to zero
# A term with at least this share of the loss on some row may be stepped in its coefficient; one that vanishes may not.
_LINEAR_SHARE = 1e-4
_EXPONENT_RANGE = (0.01, 3.0)  # no power law of loss was ever reported outside; beyond it a term is a constant or a step


class FitError(ValueError):
    """Rows that no fit can be made of; the message says what is missing."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Why to believe that the minimum is the minimum."""

    starts: int
    agreeing: int  # starts that ended within 1e-6 (relative) of the best objective
    gradient: float  # norm of the gradient over delta * sqrt(rows)
    convex: bool  # the Hessian is positive definite there
    iterations: int


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A law with its parameters, and what produced them."""

    law: Law
    params: dict[str, float]
    delta: float
    objective: float  # sum of Huber terms of log loss
    residuals: np.ndarray  # log measured - log fitted, one per row
    certificate: Certificate
    edges: tuple[str, ...]  # parameters that ran away, in words
    table: Table
    theta: np.ndarray  # at centred log N and log D
    centre: tuple[float, float]
    design: np.ndarray  # Z of Law.design at the rows

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.residuals) - len(self.law.parameters)

    def losses(self, theta: np.ndarray, n_params: float, n_tokens: float) -> np.ndarray:
        """Loss of one run under each theta, in centred logarithms, where even an exponent that ran away does not overflow."""
        z = self.law.design(np.log([n_params]) - self.centre[0], np.log([n_tokens]) - self.centre[1])
        return np.exp(np.minimum(log_loss(z, theta)[:, 0], 700.0))

    @property
    def sigma(self) -> float:
        """Residual standard deviation of log loss, corrected for the fitted parameters."""
        return float(np.sqrt(np.sum(self.residuals**2) / max(1, self.degrees_of_freedom)))


def fit(table: Table, law: Law = CHINCHILLA, delta: float | None = None, starts: int = STARTS) -> Fit:
    """The global minimum of the objective over the table's fitted rows.

    Args:
      table: rows from ``analysis.load``; excluded ones are left out.
      law: the form.
      delta: where the Huber loss turns from square to absolute, in log loss; by default ``DEFAULT_DELTA`` of the table's kind.
      starts: from how many grid cells that lie apart Newton starts.

    Raises:
      FitError: fewer rows than parameters + 1, or fewer than three sizes or token counts.
    """
    check_rows(table, law)
    delta = DEFAULT_DELTA[table.kind] if delta is None else delta
    log_n, log_d, target = (np.log(table.column(c).astype(float)) for c in ("n_params", "n_tokens", "loss"))
    centre = (float(log_n.mean()), float(log_d.mean()))  # centring divides the condition number by a thousand
    z = law.design(log_n - centre[0], log_d - centre[1])
    theta = _starting_points(law, z, target, starts)
    targets, weights = np.broadcast_to(target, (len(theta), len(target))), np.ones((len(theta), len(target)))
    iterations = 0
    for stage in (d for d in CONTINUATION if d > delta):
        coarse = minimise(z, targets, weights, theta, stage, max_iterations=20, tolerance=1e-6)
        theta, iterations = revived(z, coarse.theta), iterations + coarse.iterations
    result = minimise(z, targets, weights, theta, delta)
    best = int(np.argmin(result.objective))
    theta_best, value = result.theta[best], float(result.objective[best])
    predicted = log_loss(z, theta_best[None])[0]
    certificate = Certificate(
        starts=len(theta),
        agreeing=int(np.sum(result.objective <= value * (1 + 1e-6) + 1e-24)),
        gradient=float(np.linalg.norm(result.gradient[best]) / (delta * math.sqrt(len(target)))),
        convex=bool(result.convex[best]),
        iterations=iterations + result.iterations,
    )
    params = to_params(law, theta_best[None], centre)
    return Fit(
        law, {k: float(v[0]) for k, v in params.items()}, delta, value, target - predicted, certificate,
        _edges(law, z, theta_best), table, theta_best, centre, z,
    )  # fmt: skip


def check_rows(table: Table, law: Law = CHINCHILLA) -> None:
    """Raises FitError unless the fitted rows can carry the law at all."""
    rows, need = len(table.fitted), len(law.parameters) + 1
    sizes, budgets = len(table.sizes()), len({r.n_tokens for r in table.fitted})
    if rows < need or min(sizes, budgets) < MIN_SIZES:
        left_out = f" ({len(table.excluded)} more are excluded)" if table.excluded else ""
        raise FitError(
            f"{table.source}: {rows} rows with {sizes} sizes and {budgets} token counts{left_out}; the {law.name} law has "
            f"{len(law.parameters)} parameters and needs at least {need} rows, {MIN_SIZES} sizes and "
            f"{MIN_SIZES} token counts: train or add more"
        )


def to_params(law: Law, theta: np.ndarray, centre: tuple[float, float]) -> dict[str, np.ndarray]:
    """Parameters by name, an array over the first axis of ``theta``, with the centring undone."""
    middle = dict(zip("ND", centre, strict=True))
    position = {name: i for i, name in enumerate(law.parameters)}
    out = {}
    for t, term in enumerate(law.terms):
        shift = theta[:, position[str(term.exponent)]] * middle[term.variable] if term.variable else 0.0
        out[term.coefficient] = np.exp(np.minimum(theta[:, t] + shift, 700.0))  # 1e304 says as much as infinity, and sorts
    return out | {name: theta[:, position[name]].copy() for name in law.exponents}


def log_loss(z: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """log L of shape (lanes, rows) for ``theta`` of shape (lanes, parameters)."""
    return _softmax(z, theta)[0]


def _softmax(z: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log L (lanes, rows), and each term's share of L (terms, lanes, rows)."""
    n, terms, p = z.shape
    u = (theta @ z.transpose(2, 1, 0).reshape(p, terms * n)).reshape(-1, terms, n).transpose(1, 0, 2)
    top = u.max(0)
    share = np.exp(u - top)
    total = share.sum(0)
    share /= total
    return top + np.log(total), share


def _starting_points(law: Law, z: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    """theta of the best grid cells that lie apart, by weighted linear least squares of L with weights 1/L^2."""
    grid = np.array(np.meshgrid(*[range(len(EXPONENT_GRID))] * len(law.exponents), indexing="ij")).reshape(
        len(law.exponents), -1
    )
    first = len(law.terms)
    features, cells = [], []
    for t, term in enumerate(law.terms):
        slot = law.exponents.index(term.exponent) if term.exponent else None
        column = np.zeros((1, 1)) if slot is None else EXPONENT_GRID[:, None]
        x = z[:, t, first + slot] if slot is not None else np.zeros(len(z))
        features.append(np.exp(column * x - target))  # over L: relative residuals
        cells.append(np.zeros(grid.shape[1], int) if slot is None else grid[slot])
    gram = np.stack(
        [np.stack([(features[s] @ features[t].T)[cells[s], cells[t]] for t in range(first)], -1) for s in range(first)], -2
    )
    right = np.stack([features[t].sum(1)[cells[t]] for t in range(first)], -1)
    ridge = 1e-12 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(first)
    coefficients = np.linalg.solve(gram + ridge, right[..., None])[..., 0]
    # A cell with a negative coefficient stays a candidate, with that term at 1e-4 of the loss, and is judged as such.
    coefficients = np.maximum(coefficients, 1e-4 * len(z) / right)
    misfit = np.einsum("ci,cij,cj->c", coefficients, gram, coefficients) - 2 * np.sum(coefficients * right, -1)
    theta = np.hstack([np.log(coefficients), EXPONENT_GRID[grid.T]])
    chosen: list[int] = []
    for cell in np.argsort(misfit):
        if all(np.abs(grid[:, cell] - grid[:, c]).max() >= 4 for c in chosen):
            chosen.append(int(cell))
        if len(chosen) == count:
            break
    return theta[chosen]


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum:
    """Where every lane ended."""

    theta: np.ndarray
    objective: np.ndarray
    gradient: np.ndarray
    convex: np.ndarray
    converged: np.ndarray
    iterations: int


def minimise(
    z: np.ndarray, targets: np.ndarray, weights: np.ndarray, theta: np.ndarray, delta: float,
    max_iterations: int = 200, tolerance: float = 1e-19,
) -> Minimum:  # fmt: skip
    """Damped Newton on many problems (lanes) at once, each with its own targets, weights and start.

    The step solves (H + damping * diag(G)) step = -gradient with the exact Hessian H and the diagonal of the iteratively
    reweighted Gauss-Newton matrix G; where that is not positive definite or the objective rises, damping grows.  A coefficient
    c is stepped as c (1 + s), whose second derivative is that of log c less the first, or as c exp(s): the valley in which E
    and A trade against each other is straight in coefficients, that of A against alpha in the logarithm, and a lane whose step
    fails changes from one to the other.

    Args:
      z: design, shape (rows, terms, parameters), shared by all lanes.
      targets: log loss, (lanes, rows).
      weights: (lanes, rows); counts of a resample, or ones.
      theta: (lanes, parameters).
      delta: of the Huber loss.
      max_iterations: of every lane together.
      tolerance: a lane stops at a squared gradient, measured in G, of this part of its objective.
    """
    theta = theta.copy()
    lanes, p = theta.shape
    damping = np.full(lanes, 1e-3)
    zz = np.ascontiguousarray((z[..., :, None] * z[..., None, :]).transpose(1, 0, 2, 3).reshape(-1, p * p))
    value, gradient, hessian, scale, linear = _derivatives(z, zz, targets, weights, theta, delta)
    by_coefficient = np.ones(lanes, bool)
    active, converged, iteration = np.arange(lanes), np.zeros(lanes, bool), 0
    while True:
        size = np.sum(gradient[active] ** 2 / scale[active], -1)
        done = size <= tolerance * value[active] + 1e-31  # the second: rounding of exact data
        converged[active[done]] = True
        active = active[~done & (damping[active] < 1e14)]  # no step lowers it any more: rounding has the last word
        if not len(active) or iteration == max_iterations:
            break
        iteration += 1
        straight = linear[active] & by_coefficient[active, None]
        diagonal = damping[active, None] * scale[active] - np.where(straight, gradient[active], 0.0)
        damped = hessian[active] + diagonal[..., None] * np.eye(p)
        step, good = _solve_positive(damped, -gradient[active])
        trial = theta[active] + _bounded(step, straight)
        new = _derivatives(z, zz, targets[active], weights[active], trial, delta)
        better = good & (new[0] < value[active])
        to = active[better]
        theta[to] = trial[better]
        for old, fresh in zip((value, gradient, hessian, scale, linear), new, strict=True):
            old[to] = fresh[better]
        by_coefficient[active] ^= ~better
        damping[active] = np.where(better, np.maximum(damping[active] / 5, 1e-12), damping[active] * 4)
    # A lane that stalled is as low as rounding lets it: it counts as converged when its gradient is small all the same.
    converged |= np.sum(gradient**2 / scale, -1) <= 1e-9 * value + 1e-28
    return Minimum(theta, value, gradient, _solve_positive(hessian, gradient)[1], converged, iteration)


def _derivatives(
    z: np.ndarray, zz: np.ndarray, targets: np.ndarray, weights: np.ndarray, theta: np.ndarray, delta: float
) -> tuple[np.ndarray, ...]:
    """Objective, gradient, Hessian, the diagonal scale, and which coefficients carry a share of the loss, per lane.

    With shares q of the terms, log L has gradient J = Z^T q and Hessian Z^T diag(q) Z - J J^T.
    """
    predicted, share = _softmax(z, theta)
    terms, lanes, n = share.shape
    p = z.shape[2]
    r = predicted - targets
    size = np.abs(r)
    inside = size <= delta
    value = np.sum(weights * np.where(inside, 0.5 * r * r, delta * (size - 0.5 * delta)), -1)
    slope = weights * np.clip(r, -delta, delta)
    jacobian = np.zeros((lanes, p, n))
    for t, k in np.argwhere(z.any(0)):
        jacobian[:, k] += share[t] * z[:, t, k]
    gradient = np.matmul(jacobian, slope[..., None])[..., 0]
    outer = jacobian * (weights * inside - slope)[:, None]
    curved = (share * slope).transpose(1, 0, 2).reshape(lanes, terms * n) @ zz
    hessian = np.matmul(outer, jacobian.transpose(0, 2, 1)) + curved.reshape(lanes, p, p)
    irls = weights * delta / np.maximum(size, delta)
    linear = np.zeros((lanes, p), bool)
    linear[:, :terms] = share.max(-1).T > _LINEAR_SHARE
    # The addition lets a term that vanishes come to rest: its own scale vanishes with its gradient.
    scale = np.matmul(jacobian**2, irls[..., None])[..., 0] + 1e-6 * irls.sum(-1, keepdims=True)
    return value, gradient, hessian, scale, linear


def _bounded(step: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """The step in theta, cut so that no coefficient loses over 99.9 % or triples, and nothing else moves by more than 1."""
    limit = np.where(linear, np.where(step < 0, 0.999, 2.0), 1.0)
    step = step * np.minimum(1.0, np.min(limit / np.maximum(np.abs(step), 1e-300), -1, keepdims=True))
    return np.where(linear, np.log1p(np.where(linear, step, 0.0)), step)


def revived(z: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """``theta`` with terms that had vanished raised to a hundredth of the loss: from nothing, no gradient leads back."""
    share = _softmax(z, theta)[1].max(-1).T
    out = theta.copy()
    out[:, : share.shape[1]] += np.where(share < 1e-3, np.log(1e-2 / np.maximum(share, 1e-300)), 0.0)
    return out


def _solve_positive(matrix: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solution of every lane, and which matrices are positive definite (LAPACK's Cholesky refuses all of them for one)."""
    p = matrix.shape[-1]
    left = matrix.copy()
    good = np.ones(len(matrix), bool)
    for j in range(p - 1):
        good &= left[:, j, j] > 1e-14 * np.abs(matrix[:, j, j])
        factor = left[:, j + 1 :, j] / np.where(good, left[:, j, j], 1.0)[:, None]
        left[:, j + 1 :, j + 1 :] -= factor[:, :, None] * left[:, None, j, j + 1 :]
    good &= left[:, -1, -1] > 1e-14 * np.abs(matrix[:, -1, -1])
    x = np.linalg.solve(np.where(good[:, None, None], matrix, np.eye(p)), right[..., None])[..., 0]
    good &= np.isfinite(x).all(-1)
    return np.where(good[:, None], x, 0.0), good


def _edges(law: Law, z: np.ndarray, theta: np.ndarray) -> tuple[str, ...]:
    """Parameters that ran away, in words."""
    share = _softmax(z, theta[None])[1][:, 0]
    out = [
        f"{term.coefficient} runs to zero: the rows show no such term"
        for t, term in enumerate(law.terms)
        if share[t].max() < _VANISHED
    ]
    lo, hi = _EXPONENT_RANGE
    for name, value in zip(law.exponents, theta[len(law.terms) :], strict=True):
        if not lo <= value <= hi:
            out.append(f"{name} = {value:.3g} lies outside {lo} to {hi}: its term is not a power law on these rows")
    return tuple(out)
