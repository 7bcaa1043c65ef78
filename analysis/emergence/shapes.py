"""The shapes that a score can take against log compute (or loss), fitted to many curves at once by binomial likelihood.

    constant       p = level
    linear         p = level + slope (x − centre)
    hinge          p = floor + slope max(0, x − onset)
    step           p = floor below x0, top from it on
    sigmoid        p = floor + (1 − floor) s((x − x0) / scale),  s the logistic function
    sigmoid_top    p = floor + (top − floor) s((x − x0) / scale)

The floor is the chance level, not a parameter: what is asked is when a score leaves chance.  Every p is clipped to [0, 1] and
then mixed with a lapse of 1e-4 (p ← 1e-4 + (1 − 2e-4) p), so that one lucky hit of a model at an exact-match floor of 0 costs
some nats and not infinity.

All curves of one call share x and floor: the starts are then one grid, whose likelihoods for every curve are a single matrix
product, and damped Fisher scoring goes on from the best of each part of the grid, in all curves at once.  1000 curves of 24
points in all six shapes take about a second of one core.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

LAPSE = 1e-4
SHAPES = ("constant", "linear", "hinge", "step", "sigmoid", "sigmoid_top")
PARAMETERS = {
    "constant": ("level",), "linear": ("level", "slope"), "hinge": ("onset", "slope"), "step": ("x0", "top"),
    "sigmoid": ("x0", "scale"), "sigmoid_top": ("x0", "scale", "top"),
}  # fmt: skip
TEN_TO_NINETY = 2 * np.log(9.0)  # of a logistic function, in scales
STARTS = 4  # parts of a grid from whose best point the search goes on
STEPS = 40
TOLERANCE = 1e-8  # relative fall of the negative log-likelihood that ends a search
COARSEST, FINEST = 0.04, 2e-4  # steps of the compass search, in spans of x
PROFILE = np.array([0.3, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0])  # points of a profile, in standard errors x quantile
CHUNK = 4_000_000  # likelihoods of grid points held at once, 32 MB
NARROWEST = 0.004  # scale of a sigmoid, in spans of x; below, it is a step
STEEPEST = 300.0  # slope of a hinge, in 1 / spans


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """Counts of B curves over the same P values of x.

    Attributes:
      x: (P,) ascending; log10 FLOPs, or minus a loss.
      hits, n: (B, P), n = 0 where a curve has no value.
      floor: score that a shape starts from.
    """

    x: np.ndarray
    hits: np.ndarray
    n: np.ndarray
    floor: float

    @property
    def span(self) -> float:
        """Of x; 1 where all are equal."""
        return float(np.ptp(self.x)) or 1.0

    @property
    def scores(self) -> np.ndarray:
        """(B, P) fraction right, 0 where nothing was asked."""
        return self.hits / np.maximum(self.n, 1e-300)

    def take(self, rows: np.ndarray | Sequence[int]) -> Curves:
        """Some of the curves."""
        return dataclasses.replace(self, hits=self.hits[rows], n=self.n[rows])


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """One shape fitted to B curves: ``theta`` (B, k) in the order of PARAMETERS, ``nll`` and Pearson's ``chi2`` (B,)."""

    shape: str
    theta: np.ndarray
    nll: np.ndarray
    chi2: np.ndarray


def lapsed(p: np.ndarray) -> np.ndarray:
    """A probability as the likelihood sees it, within [1e-4, 1 − 1e-4]."""
    return LAPSE + (1 - 2 * LAPSE) * np.clip(p, 0.0, 1.0)


def logistic(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−z)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * z))


def scores(shape: str, theta: np.ndarray, x: np.ndarray, floor: float) -> np.ndarray:
    """What a shape says at ``x`` (P,), for parameters (B, k): (B, P), clipped and with the lapse."""
    t = np.asarray(theta, float)[:, :, None]
    if shape == "constant":
        p = np.repeat(t[:, 0], len(x), axis=1)
    elif shape == "linear":
        p = t[:, 0] + t[:, 1] * x
    elif shape == "hinge":
        p = floor + t[:, 1] * np.maximum(0.0, x - t[:, 0])
    elif shape == "step":
        p = np.where(x < t[:, 0], floor, t[:, 1])
    else:
        top = t[:, 2] if shape == "sigmoid_top" else 1.0
        p = floor + (top - floor) * logistic((x - t[:, 0]) / t[:, 1])
    return lapsed(p)


def middle_share(p: np.ndarray) -> np.ndarray:
    """Share of the range of x, of which p (B, points) are scores at equal distances, that the middle 80 % of the rise takes.

    Of a straight line .8, of a step 0; 1 where the curve does not rise.
    """
    rise = p[:, -1:] - p[:, :1]
    share = (p - p[:, :1]) / np.where(rise > 1e-9, rise, 1.0)
    inside = np.sum((share > 0.1) & (share < 0.9), axis=1) / (p.shape[1] - 1)
    return np.where(rise[:, 0] > 1e-9, inside, 1.0)


def likelihood(p: np.ndarray, hits: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of counts, without the binomial coefficient, summed over the last axis."""
    return -np.sum(hits * np.log(p) + (n - hits) * np.log1p(-p), axis=-1)


def fit(curves: Curves, names: Sequence[str] = SHAPES, starts: int = STARTS, exact: bool = True) -> dict[str, Fitted]:
    """Fits shapes to every curve.

    Args:
      curves: B curves of at least two different x.
      names: of SHAPES.
      starts: searches per curve and shape.
      exact: whether broken lines are searched point by point; derivatives alone are five times faster and now and then miss
        by some units of log-likelihood, since the best line often has a point on its break.
    """
    out = {}
    for name in names:
        theta = _CLOSED[name](curves) if name in _CLOSED else _search(name, curves, starts, exact)
        p = scores(name, theta, curves.x, curves.floor)
        chi2 = np.sum((curves.hits - curves.n * p) ** 2 / np.maximum(curves.n * p * (1 - p), 1e-300), axis=1)
        out[name] = Fitted(name, theta, likelihood(p, curves.hits, curves.n), chi2)
    return out


# ---- closed forms


def _constant(curves: Curves) -> np.ndarray:
    return (curves.hits.sum(1) / np.maximum(curves.n.sum(1), 1e-300))[:, None]


def _step(curves: Curves) -> np.ndarray:
    """The best of all cuts between neighbouring x; the top is the pooled score above it."""
    cuts = np.flatnonzero(np.diff(curves.x, prepend=-np.inf))[1:]  # first point of each further x
    hits, n = (np.cumsum(a[:, ::-1], axis=1)[:, ::-1][:, cuts] for a in (curves.hits, curves.n))
    top = hits / np.maximum(n, 1e-300)
    low = lapsed(np.array(curves.floor))
    below_hits, below = curves.hits.sum(1)[:, None] - hits, curves.n.sum(1)[:, None] - n
    p = lapsed(top)
    nll = -(below_hits * np.log(low) + (below - below_hits) * np.log1p(-low) + hits * np.log(p) + (n - hits) * np.log1p(-p))
    best = np.argmin(nll, axis=1)
    middle = (curves.x[cuts] + curves.x[cuts - 1]) / 2
    return np.stack([middle[best], np.take_along_axis(top, best[:, None], 1)[:, 0]], axis=1)


_CLOSED: Mapping[str, Callable[[Curves], np.ndarray]] = {"constant": _constant, "step": _step}


# ---- searches, in x of span 1 about 0 and free coordinates


def _search(name: str, curves: Curves, starts: int, exact: bool) -> np.ndarray:
    """The best parameters (B, k) from several starts."""
    middle, span = (curves.x[0] + curves.x[-1]) / 2, curves.span
    unit = (curves.x - middle) / span
    grid = _grid(name)
    u = grid[_best_of_parts(_scores(name, grid, unit, curves.floor)[0], curves, starts)]  # (B, starts, k)
    b, s, k = u.shape
    way = _compass if exact and name in ("linear", "hinge") else _scoring
    u, nll = way(name, u.reshape(b * s, k), unit, curves, np.repeat(np.arange(b), s))
    best = np.argmin(nll.reshape(b, s), axis=1)
    return _natural(name, u.reshape(b, s, k)[np.arange(b), best], middle, span, curves.floor)


def _grid(name: str) -> np.ndarray:
    """Starts (G, k), the first coordinate slowest."""
    if name == "linear":
        left, right = np.meshgrid(np.linspace(-2, 1, 25), np.linspace(-0.5, 2, 21), indexing="ij")
        return np.stack([(left + right) / 2, right - left], -1).reshape(-1, 2)
    where = np.linspace(-1.5, 2.0, 43)
    if name == "hinge":
        axes = [np.linspace(-1.5, 0.5, 81), np.log(np.geomspace(0.02, 30, 22))]
    else:
        axes = [where, np.log(np.geomspace(0.015, 1.0, 9))]
    if name == "sigmoid_top":
        axes.append(_logit(np.array([0.08, 0.25, 0.45, 0.65, 0.85, 0.99])))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def _best_of_parts(p_GP: np.ndarray, curves: Curves, parts: int) -> np.ndarray:
    """(B, parts) the likeliest grid point of each part of the grid, for each curve."""
    log_p, log_q = np.log(p_GP).T, np.log1p(-p_GP).T
    edges = np.linspace(0, len(p_GP), parts + 1).round().astype(int)
    out = np.empty((len(curves.hits), parts), int)
    size = max(1, CHUNK // len(p_GP))
    for at in range(0, len(out), size):
        rows = slice(at, at + size)
        fits = curves.hits[rows] @ log_p + (curves.n - curves.hits)[rows] @ log_q
        for i, (lo, hi) in enumerate(zip(edges, edges[1:], strict=False)):
            out[rows, i] = lo + np.argmax(fits[:, lo:hi], axis=1)
    return out


def _scores(name: str, u: np.ndarray, x: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """p (S, P) and its derivatives (k, S, P) by the free coordinates u (S, k)."""
    if name == "linear":
        p = u[:, :1] + u[:, 1:] * x
        slopes = [np.ones_like(p), np.broadcast_to(x, p.shape)]
    elif name == "hinge":
        slope, right = np.exp(u[:, 1:]), np.maximum(0.0, x - u[:, :1])
        p = floor + slope * right
        slopes = [-slope * (right > 0), slope * right]
    else:
        scale = np.exp(u[:, 1:2])
        z = (x - u[:, :1]) / scale
        s = logistic(z)
        share = logistic(u[:, 2:]) if name == "sigmoid_top" else 1.0
        height = (1 - floor) * share
        p = floor + height * s
        bend = height * s * (1 - s)
        slopes = [-bend / scale, -bend * z]
        if name == "sigmoid_top":
            slopes.append(height * (1 - share) * s)
    inside = (p >= 0) & (p <= 1)
    return lapsed(p), (1 - 2 * LAPSE) * np.stack(slopes) * inside


def _scoring(
    name: str, u: np.ndarray, x: np.ndarray, curves: Curves, row: np.ndarray, frozen: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fisher scoring with Levenberg's damping, for searches (S, k) on curves ``row`` (S,); one coordinate may be frozen."""
    u, k = u.copy(), u.shape[1]
    p, jac = _scores(name, u, x, curves.floor)
    nll = likelihood(p, curves.hits[row], curves.n[row])
    damping = np.full(len(u), 1e-3)
    active = np.arange(len(u))
    diagonal = np.arange(k)
    for _ in range(STEPS):
        hits, n = curves.hits[row[active]], curves.n[row[active]]
        weight = 1 / (p * (1 - p))
        gradient = np.einsum("ksp,sp->sk", jac, (n * p - hits) * weight)
        fisher = _products(jac, n * weight)
        if frozen is not None:
            gradient[:, frozen], fisher[:, frozen], fisher[:, :, frozen] = 0.0, 0.0, 0.0
            fisher[:, frozen, frozen] = 1.0
        held = fisher[:, diagonal, diagonal]
        fisher[:, diagonal, diagonal] += damping[active, None] * held + 1e-9 * held.max(1, keepdims=True) + 1e-12
        move = np.clip(-np.linalg.solve(fisher, gradient[..., None])[..., 0], -1.0, 1.0)
        tried = _bounded(name, u[active] + move)
        p_new, jac_new = _scores(name, tried, x, curves.floor)
        nll_new = likelihood(p_new, hits, n)
        gain = nll[active] - nll_new
        better = gain > 0
        u[active[better]], nll[active[better]] = tried[better], nll_new[better]
        damping[active] = np.where(better, damping[active] * 0.2, damping[active] * 8.0)
        going = np.where(better, gain > TOLERANCE * (1 + nll_new), damping[active] < 1e4)
        p, jac = np.where(better[:, None], p_new, p)[going], np.where(better[:, None], jac_new, jac)[:, going]
        active = active[going]
        if not len(active):
            break
    return u, nll


def _products(jac: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted inner products (S, k, k) of derivatives (k, S, P)."""
    return np.matmul((jac * weight).transpose(1, 0, 2), jac.transpose(1, 2, 0))


def _compass(
    name: str, u: np.ndarray, x: np.ndarray, curves: Curves, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As ``_scoring``, without derivatives: broken lines are best where a point sits on the break, where these say nothing."""
    u = u.copy()
    nll = likelihood(_scores(name, u, x, curves.floor)[0], curves.hits[row], curves.n[row])
    step = np.full(len(u), COARSEST)
    active = np.arange(len(u))
    while len(active):
        at, one = u[active], np.ones(len(active))
        turn = 2 * one if name == "linear" else 1 / np.maximum(x[-1] - at[:, 0], 0.1)  # about the last point; a line about both ends
        ways = np.stack([(one, 0 * one), (0 * one, one), (one, turn), (one, -2 * one)]).transpose(0, 2, 1) * step[active, None]
        tried = _bounded(name, (at + np.concatenate([ways, -ways])).reshape(-1, 2))
        p = _scores(name, tried, x, curves.floor)[0].reshape(len(ways) * 2, len(active), -1)
        found = likelihood(p, curves.hits[row[active]], curves.n[row[active]])
        best, each = np.argmin(found, axis=0), np.arange(len(active))
        gain = nll[active] - found[best, each]
        better = gain > TOLERANCE * (1 + nll[active])
        u[active[better]] = tried.reshape(*found.shape, 2)[best, each][better]
        nll[active[better]] -= gain[better]
        step[active[~better]] /= 4
        active = active[step[active] > FINEST]
    return u, nll


def _bounded(name: str, u: np.ndarray) -> np.ndarray:
    """Keeps a search where a shape still differs from its neighbours: no steeper than a step, no farther than 20 spans."""
    u = np.clip(u, -20.0, 20.0)
    if name == "hinge":
        u[:, 1] = np.minimum(u[:, 1], np.log(STEEPEST))
    elif name != "linear":
        u[:, 1] = np.maximum(u[:, 1], np.log(NARROWEST))
    return u


def _natural(name: str, u: np.ndarray, middle: float, span: float, floor: float) -> np.ndarray:
    """Parameters as PARAMETERS names them, in units of x."""
    if name == "linear":
        slope = u[:, 1] / span
        return np.stack([u[:, 0] - slope * middle, slope], 1)
    where = middle + span * u[:, 0]
    if name == "hinge":
        return np.stack([where, np.exp(u[:, 1]) / span], 1)
    columns = [where, span * np.exp(u[:, 1])]
    if name == "sigmoid_top":
        columns.append(floor + (1 - floor) * logistic(u[:, 2]))
    return np.stack(columns, 1)


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


# ---- profiles


def profile(name: str, theta: np.ndarray, curves: Curves, which: int, quantile: np.ndarray) -> np.ndarray:
    """Profile interval (B, 2) of one parameter of a sigmoid (``which`` = 0: x0, 1: scale).

    Args:
      name: 'sigmoid' or 'sigmoid_top'.
      theta: (B, k) of the best fits.
      curves: the B curves.
      which: parameter.
      quantile: (B,) of the signed root of twice the fall in log-likelihood, over-dispersion and its doubt included.

    Returns:
      Ends in units of x; infinite (0 for the scale) where the likelihood never falls that far.
    """
    middle, span = (curves.x[0] + curves.x[-1]) / 2, curves.span
    unit = (curves.x - middle) / span
    u = np.column_stack([(theta[:, 0] - middle) / span, np.log(theta[:, 1] / span)])
    if name == "sigmoid_top":
        u = np.column_stack([u, _logit(np.clip((theta[:, 2] - curves.floor) / (1 - curves.floor), 1e-6, 1 - 1e-6))])
    p, jac = _scores(name, u, unit, curves.floor)
    fisher = _products(jac, curves.n / (p * (1 - p)))
    error = np.sqrt(np.clip(np.linalg.pinv(fisher)[:, which, which], 1e-12, 1.0)) * quantile
    b, moves = len(u), np.concatenate([-PROFILE[::-1], PROFILE])
    tried = np.repeat(u, len(moves), axis=0)
    tried[:, which] += np.outer(error, moves).ravel()
    pinned = tried[:, which].copy()
    tried = _bounded(name, tried)
    found, nll = _scoring(name, tried, unit, curves, np.repeat(np.arange(b), len(moves)), frozen=which)
    best = np.minimum(likelihood(p, curves.hits, curves.n), nll.reshape(b, -1).min(1))
    root = np.sqrt(2 * np.maximum(nll.reshape(b, -1) - best[:, None], 0))
    root[found[:, which].reshape(b, -1) != pinned.reshape(b, -1)] = 0.0  # at a bound the likelihood has stopped falling
    ends = np.empty((b, 2))
    half = len(PROFILE)
    for i in range(b):
        where = pinned.reshape(b, -1)[i]
        ends[i, 0] = _crossing(u[i, which], where[:half][::-1], root[i, :half][::-1], quantile[i], -np.inf)
        ends[i, 1] = _crossing(u[i, which], where[half:], root[i, half:], quantile[i], np.inf)
    return middle + span * ends if which == 0 else span * np.exp(ends)


def _crossing(start: float, where: np.ndarray, root: np.ndarray, level: float, beyond: float) -> float:
    """Where the signed root, 0 at ``start``, first reaches ``level``; else ``beyond``."""
    reached = np.flatnonzero(root >= level)
    if not len(reached):
        return beyond
    i = reached[0]
    x0, y0 = (start, 0.0) if i == 0 else (where[i - 1], root[i - 1])
    return float(x0 + (where[i] - x0) * (level - y0) / (root[i] - y0))
