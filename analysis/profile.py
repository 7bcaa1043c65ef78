"""Three cheaper looks at the doubt of a fit, beside the bootstrap: profiles, standard errors compared, and the sweep of delta.

A profile holds one parameter at each of many values and minimises over all others: it shows the ridge along which E, A and
alpha trade against each other, and that a = beta / (alpha + beta) stays put on it.  In a law of powers every profile is the
same problem with another design matrix: with theta = T u, holding log A, alpha, E or a is holding one coordinate of u.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from analysis.fit import BUMPS, AnyLaw, Fit, FitError, fit
from analysis.identify import jacobian
from analysis.intervals import LEVEL, NEARLY_ABSOLUTE, Bootstrap
from analysis.laws import CHINCHILLA, Law, allocation_exponent, has_allocation
from analysis.load import Table
from analysis.newton import Minimum, Model, PowerSum, minimise

POINTS = 25
DELTAS: dict[str, dict[str, float | str]] = {
    "absolute values": {"loss": "l1"}, "Huber(1e-4)": {"delta": 1e-4}, "Huber(1e-3)": {"delta": 1e-3},
    "Huber(1e-2)": {"delta": 1e-2}, "squares": {"loss": "squared"},
}  # fmt: skip
_WIDEN = 4  # times that a grid which does not contain the interval's ends is doubled


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """The objective's minimum along one parameter.

    Attributes:
      name: of the parameter, or 'a'.
      values: (points,) ascending, the fitted one among them.
      objective: (points,) the least objective at each.
      params: all parameters there and 'a' where the law has one, each (points,).
      threshold: the objective up to which a value belongs to the interval.
      interval: its ends; infinite, or zero for a positive parameter, where the profile stays below the threshold.
      level: of the interval.
    """

    name: str
    values: np.ndarray
    objective: np.ndarray
    params: dict[str, np.ndarray]
    threshold: float
    interval: tuple[float, float]
    level: float


def profile(
    fit: Fit, name: str, values: np.ndarray | None = None, points: int = POINTS, level: float = LEVEL,
    boot: Bootstrap | None = None,
) -> Profile:  # fmt: skip
    """Minimises over all other parameters with ``name`` held at each of ``values``.

    The interval is where the objective has risen by no more than: with ``boot``, what it rises by at the draws' values of the
    parameter in the part ``level`` of them (the profile's shape, the bootstrap's width); for least squares the F quantile; for
    Huber's loss half the chi-square quantile times sum psi^2 / (n - p) / mean psi' (Schrader and Hettmansperger 1980), which
    assumes that all rows scatter alike: on Chinchilla's 240 points that gives E two thirds of the bootstrap's width.

    Args:
      fit: the minimum.
      name: a parameter of the law, or 'a' where it has an allocation.
      values: of the parameter; by default ``points`` of them around the fitted one, far enough to contain the interval.
      points: how many.
      level: of the interval.
      boot: refits of the same fit.

    Raises:
      FitError: the law has no such parameter.
    """
    known = (*fit.law.parameters, *(["a"] if isinstance(fit.law, Law) and has_allocation(fit.law) else []))
    if name not in known:
        raise FitError(f"profile of {name!r}: the {fit.law.name} law has {', '.join(known)}")
    positive = name in fit.law.parameters and name not in fit.law.exponents and name != fit.law.coupling
    centre = _natural(fit, fit.theta[None])[name][0]
    at = np.log(centre) if positive else centre
    if values is not None:
        grid = np.unique(np.append(np.log(values) if positive else np.asarray(values, float), at))
        return _along(fit, name, grid, positive, level, boot)
    reach = 3.0 * _rough_error(fit, name, positive)
    for _ in range(_WIDEN):
        offsets = np.linspace(-reach, reach, points | 1)
        lowest = -np.inf if positive else 0.02 * at
        out = _along(fit, name, np.unique(np.maximum(at + offsets, lowest)), positive, level, boot)
        if out.objective[0] > out.threshold < out.objective[-1]:
            break
        reach *= 2
    return out


def _along(fit: Fit, name: str, grid: np.ndarray, positive: bool, level: float, boot: Bootstrap | None) -> Profile:
    """The profile on a grid in the held coordinate (a logarithm where ``positive``) that has the fitted value on it."""
    theta, objective = _minima(fit, name, grid)
    rise = np.maximum(objective - fit.objective, 0.0)
    natural = np.exp(grid) if positive else grid
    allowed = _allowed(fit, level)
    if boot is not None:
        draws = boot.values[name]
        allowed = float(np.quantile(_between(grid, rise, np.log(draws) if positive else draws) ** 2, level))
    root = np.sqrt(rise) * np.sign(grid - grid[int(np.argmin(rise))])
    lo, hi = (_crossing(grid, root, sign * np.sqrt(allowed)) for sign in (-1, 1))
    ends = (float(np.exp(lo)), float(np.exp(hi))) if positive else (lo, hi)
    return Profile(name, natural, objective, _natural(fit, theta), fit.objective + allowed, ends, level)


def _between(grid: np.ndarray, rise: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Root of the rise at other values: nearly linear to either side, also beyond the grid."""
    root = np.sqrt(rise)
    inner = np.interp(at, grid, root)
    left = root[0] + (root[1] - root[0]) / (grid[1] - grid[0]) * (at - grid[0])
    right = root[-1] + (root[-1] - root[-2]) / (grid[-1] - grid[-2]) * (at - grid[-1])
    return np.where(at < grid[0], np.maximum(left, root[0]), np.where(at > grid[-1], np.maximum(right, root[-1]), inner))


def _crossing(grid: np.ndarray, root: np.ndarray, level: float) -> float:
    """Where the signed root passes ``level``; infinite where it never does."""
    side = np.flatnonzero((root - level) * np.sign(level) > 0)
    if not len(side):
        return float(np.inf * np.sign(level))
    outer = int(side[0] if level > 0 else side[-1])
    inner = outer - int(np.sign(level))
    part = (level - root[inner]) / (root[outer] - root[inner])
    return float(grid[inner] + part * (grid[outer] - grid[inner]))


def _allowed(fit: Fit, level: float) -> float:
    """By how much the objective may rise."""
    from scipy.special import chdtri, fdtri  # scipy.stats takes a second to import

    free = max(1, fit.degrees_of_freedom)
    inside = np.abs(fit.residuals) <= fit.delta
    if inside.all():
        return float(fit.objective / free * fdtri(1, free, level))
    psi = np.clip(fit.residuals, -fit.delta, fit.delta)
    scale = np.sum(fit.rows.weights * psi**2) / free / max(np.mean(fit.rows.weights * inside), 1 / len(psi))
    return float(chdtri(1, 1 - level) / 2 * scale)


def _minima(fit: Fit, name: str, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """theta (points, parameters) and objective (points,) at the least of each held value.

    All points start from the fit, and then from what both neighbours found, until none is improved on.
    """
    held = 0 if name == "a" else fit.law.parameters.index(name)
    theta = np.repeat(fit.theta[None], len(grid), 0)
    objective = np.full(len(grid), np.inf)
    starts = [theta]
    for _ in range(2 * len(grid)):
        before = objective.copy()
        for start in starts:
            found = _hold_a(fit, grid, start) if name == "a" else _hold(fit, held, grid, start)
            better = found.objective < objective
            theta, objective = np.where(better[:, None], found.theta, theta), np.where(better, found.objective, objective)
        if not (objective < before * (1 - 1e-7)).any():
            break
        starts = [theta[[0, *range(len(grid) - 1)]], theta[[*range(1, len(grid)), -1]]]
    return theta, objective


def _hold(fit: Fit, held: int, grid: np.ndarray, start: np.ndarray) -> Minimum:
    """One parameter held, all points as lanes."""
    change = _uncentred(fit, held)
    model: Model = PowerSum(fit.model.z @ change, fit.model.coupled) if isinstance(fit.model, PowerSum) else fit.model
    u = start @ np.linalg.inv(change).T
    u[:, held] = grid
    mask = np.arange(len(change)) == held
    found = _minimise(fit, model, u, mask)
    return dataclasses.replace(found, theta=found.theta @ change.T)


def _hold_a(fit: Fit, grid: np.ndarray, start: np.ndarray) -> Minimum:
    """alpha = (1 - a) s and beta = a s: for every a a law in which alpha's column is that of s and beta's is empty."""
    assert isinstance(fit.model, PowerSum) and isinstance(fit.law, Law)
    n, d = (
        fit.law.parameters.index(next(str(t.exponent) for t in fit.law.terms if t.variable == variable)) for variable in "ND"
    )
    parts = []
    for a, theta in zip(grid, start, strict=True):
        change = np.eye(len(theta))
        change[n, n], change[d, n], change[d, d] = 1 - a, a, 0.0
        u = theta.copy()
        u[n], u[d] = theta[n] + theta[d], 0.0
        model = PowerSum(fit.model.z @ change, fit.model.coupled)
        found = _minimise(fit, model, u[None], np.arange(len(theta)) == d)
        parts.append(dataclasses.replace(found, theta=found.theta @ change.T))
    return dataclasses.replace(
        parts[0], theta=np.concatenate([p.theta for p in parts]), objective=np.concatenate([p.objective for p in parts])
    )


def _minimise(fit: Fit, model: Model, start: np.ndarray, mask: np.ndarray) -> Minimum:
    shape = (len(start), len(fit.residuals))
    target = fit.model.log_loss(fit.theta[None])[0] + fit.residuals
    rows = np.broadcast_to(target, shape), np.broadcast_to(fit.rows.weights, shape)
    return minimise(model, *rows, start, fit.delta, tolerance=1e-14, fixed=mask)


def _uncentred(fit: Fit, which: int) -> np.ndarray:
    """T with theta = T u, where u has the plain log of coefficient ``which`` in place of the centred one."""
    out = np.eye(len(fit.theta))
    if isinstance(fit.law, Law) and which < len(fit.law.terms) and (term := fit.law.terms[which]).variable is not None:
        out[which, fit.law.parameters.index(str(term.exponent))] = -fit.centre[term.variable]
    return out


def _natural(fit: Fit, theta: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters by name and 'a' where the law has one, each (lanes,)."""
    params = fit.law.to_params(theta, fit.centre)
    if isinstance(fit.law, Law) and has_allocation(fit.law):
        params["a"] = allocation_exponent(params, law=fit.law)
    return params


def _slopes(fit: Fit) -> dict[str, np.ndarray]:
    """Gradient by theta of each parameter and of 'a' (complex steps would not pass exp(min(., 700)): central differences)."""
    step = 1e-6 * np.eye(len(fit.theta))
    up, down = _natural(fit, fit.theta + step), _natural(fit, fit.theta - step)
    return {name: (up[name] - down[name]) / 2e-6 for name in up}


def _rough_error(fit: Fit, name: str, positive: bool) -> float:
    """An error of the held coordinate to lay a grid by: least squares' own, at the residuals' spread."""
    columns = np.sqrt(fit.rows.weights)[:, None] * jacobian(fit)
    covariance = np.linalg.pinv(columns.T @ columns, rcond=1e-12) * max(fit.sigma, 1e-12) ** 2
    slope = _slopes(fit)[name]
    value = _natural(fit, fit.theta[None])[name][0]
    error = float(np.sqrt(max(slope @ covariance @ slope, 0.0)))
    return min(max(error / value if positive else error, 1e-9), 3.0 if positive else abs(value))


@dataclasses.dataclass(frozen=True)
class Errors:
    """Standard errors of one parameter."""

    hessian: float  # curvature alone: all rows scatter alike
    sandwich: float  # HC0, by cluster
    bootstrap: float


def standard_errors(fit: Fit, boot: Bootstrap) -> tuple[dict[str, Errors], str | None]:
    """By parameter (and 'a'), with a note where only the bootstrap is to be believed.

    With H the Hessian and u_g the gradient of cluster g: s^2 H^-1, s^2 = sum psi^2 / (n - p) / mean psi'; and
    H^-1 (sum u_g u_g^T) H^-1 G / (G - 1).  On Chinchilla's 240 points beta has .0206 by the bootstrap, .0208 by the sandwich of
    the least-squares fit, but .0160 by that of Huber(1e-3): with 39 rows inside delta, H is the curvature of a few rows.
    """
    r = -fit.residuals
    weights, inside = fit.rows.weights, np.abs(r) <= fit.delta
    psi = weights * np.clip(r, -fit.delta, fit.delta)
    at = fit.model.derivatives(fit.theta[None])
    columns = at.jacobian[0]
    # For least squares the expected Hessian is meant, as in HC0 (White 1980).
    hessian = at.hessian((weights * inside)[None], (np.zeros_like(psi) if inside.all() else psi)[None])[0]
    bread = np.linalg.pinv(hessian, rcond=1e-14, hermitian=True)
    scale = np.sum(psi**2 / weights) / max(1, fit.degrees_of_freedom) / max(np.mean(weights * inside), 1 / len(r))
    clusters = int(fit.rows.groups.max()) + 1
    scores = np.zeros((clusters, len(fit.theta)))
    np.add.at(scores, fit.rows.groups, (columns * psi).T)
    meat = scores.T @ scores * clusters / max(1, clusters - 1)
    out = {}
    for name, slope in _slopes(fit).items():
        model_based, robust = (float(np.sqrt(max(slope @ v @ slope, 0.0))) for v in (scale * bread, bread @ meat @ bread))
        out[name] = Errors(model_based, robust, float(np.std(boot.values[name], ddof=1)))
    share = float(np.mean(inside))
    if share >= NEARLY_ABSOLUTE:
        return out, None
    return out, (
        f"{inside.sum()} of {len(r)} residuals lie inside delta = {fit.delta:g}: the objective is nearly a sum of absolute "
        f"values, whose curvature a few rows decide; of these errors only the bootstrap's can be relied on"
    )


def delta_sweep(table: Table, law: AnyLaw = CHINCHILLA, weights: np.ndarray | None = None) -> dict[str, Fit]:
    """The fit under each loss from absolute values to squares: how far the parameters hang on the choice."""
    return {name: fit(table, law, weights=weights, bumps=BUMPS, **how) for name, how in DELTAS.items()}  # type: ignore[arg-type]


def delta_lines(fits: dict[str, Fit]) -> list[str]:
    """The sweep as a table in words."""
    values = {name: _natural(f, f.theta[None]) for name, f in fits.items()}
    columns = list(next(iter(values.values())))
    lines = [f"{'loss':<16}" + "".join(f"{c:>11}" for c in columns)]
    return lines + [f"{name:<16}" + "".join(f"{v[c][0]:>11.5g}" for c in columns) for name, v in values.items()]
