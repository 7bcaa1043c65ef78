"""Approach 1: which size has the least loss at every budget, from the training curves of all runs (Hoffmann et al. 2022, 3.1).

The frontier is the lower convex hull of all points in (log C, log L), its decreasing part (Gemstones: McLeish et al. 2025), or
the least interpolated loss at each of many budgets; log N and log D on log C along it are straight lines with slopes a and b.

Truncation is its trap.  Below the budgets that the smallest size was made for it wins only because nothing smaller was trained,
and a size that ran out of tokens hands over to a larger one too early.  Such points are kept and named, and the slope leaves
them out: on noise-free curves of 12 sizes with tokens in proportion to parameters, that turns an error of -0.04 in a into one
below 0.001 (tests/analysis/test_envelope.py).  Published slopes use every point: ``only_free=False``.

Whatever the slope, a point halfway through a schedule lies above what a run annealed there would reach (by 0.087 nats for
Gemstones), and by an amount that depends on how far the schedule has come: N and C of runs that were annealed are Approach 2's
and 3's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from analysis import load
from analysis.fit import FitError
from analysis.intervals import DRAWS

METHODS = ("hull", "bins")
MIN_POINTS, MIN_SIZES = 3, 3  # of the frontier, for a slope
MIN_CURVE = 5  # points that make a curve of a run
FEW_POINTS = 8  # a note below: a handful of points carries the slope
BINS = 300
# Of a curve, the tokens before this part of its run are left out: warm-up and the first descent obey no power law.
_START = 0.05
_GRID = 60  # smoothed points of a curve, evenly spaced in log tokens
_BANDWIDTH = 0.1  # of log tokens: a kernel of +-10 %, whose bias on a power law of exponent 0.37 is 1e-4 of the loss


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Losses along runs: arrays of one length, C in FLOPs, loss in nats per token."""

    n_params: np.ndarray
    n_tokens: np.ndarray
    flops: np.ndarray
    loss: np.ndarray
    run: np.ndarray  # whose curve a point belongs to
    cluster: np.ndarray  # what is resampled together: a run, or all runs of a trunk
    notes: tuple[str, ...] = ()

    def where(self, keep: np.ndarray) -> Points:
        """The points at which ``keep`` is true."""
        arrays = {f.name: getattr(self, f.name)[keep] for f in dataclasses.fields(self) if f.name != "notes"}
        return Points(**arrays, notes=self.notes)


def from_table(table: load.Table) -> Points:
    """The fitted rows as points of curves: rows of one cluster and size are one run's.

    Raises:
      FitError: rows that are single, so that there are no curves.
    """
    rows = table.fitted
    n, d, c, loss = (table.column(name).astype(float) for name in ("n_params", "n_tokens", "flops", "loss"))
    run = np.array([f"{r.cluster} {r.n_params!r}" for r in rows])
    note = "rows along runs: before a run's end they are not annealed"
    points = Points(n, d, c, loss, run, table.column("cluster"), (note,))
    count = np.unique(points.run, return_counts=True)[1]
    long = int((count >= MIN_CURVE).sum())
    if long < MIN_SIZES:
        raise FitError(
            f"{table.source}: no training curves: {long} runs have {MIN_CURVE} or more rows, {MIN_SIZES} are needed; a CSV "
            f"may hold them as rows of one cluster"
        )
    return points


def from_curves(curves: Sequence[load.Curve], table: load.Table) -> Points:
    """Smoothed training losses of the curves of ``table``'s runs, with the table's N and FLOPs.

    Where there are trunks (runs that were never annealed), their branches are left out: a branch shows a cooldown only, and
    annealed and other points must not meet on one frontier.  Diverged and excluded runs are left out as well.

    Raises:
      FitError: fewer than three sizes have a curve.
    """
    # A trunk is excluded from fits for not being annealed, a run under way for having no loss yet: both have good curves.
    rows = {r.id: r for r in table.rows if r.state != load.DIVERGED and (not r.excluded or not r.annealed or r.loss is None)}
    whole = [c for c in curves if c.id in rows and len(c.tokens) >= MIN_CURVE]
    trunks = [c for c in whole if not c.annealed]
    used = trunks or whole
    if (sizes := len({c.n_params for c in used})) < MIN_SIZES:
        raise FitError(f"{table.source}: {sizes} sizes have a training curve, {MIN_SIZES} are needed")
    parts = []
    for c in used:
        row = rows[c.id]
        tokens, loss = smoothed(c.tokens, c.loss)
        parts.append((np.full(len(loss), row.n_params), tokens, tokens * row.flops / row.n_tokens, loss))
    lengths = [len(p[3]) for p in parts]
    kind = "constant-rate trunks" if trunks else "runs"
    note = f"smoothed training losses of {len(used)} {kind}, none of whose points is annealed"
    n, d, flops, loss = (np.concatenate(column) for column in zip(*parts, strict=True))
    run, cluster = (np.repeat(names, lengths) for names in ([c.id for c in used], [rows[c.id].cluster for c in used]))
    return Points(n, d, flops, loss, run, cluster, (note,))


def smoothed(tokens: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, loss) at up to 60 points evenly spaced in log tokens, from a twentieth of the run to its end.

    Each is a local straight line of log loss on log tokens under a Gaussian kernel: unlike a moving average, it does not lag
    behind a falling loss, nor at the end of the run.
    """
    x, y = np.log(tokens), np.log(loss)
    first = max(x.min(), x.max() + np.log(_START))
    at = np.linspace(first, x.max(), min(_GRID, int((x >= first).sum())))
    away = x - at[:, None]
    # Logged steps may lie further apart than the kernel is wide: then the three nearest carry the line.
    width = np.maximum(_BANDWIDTH, np.partition(np.abs(away), 2, axis=1)[:, 2])
    weight = np.exp(-0.5 * (away / width[:, None]) ** 2)
    s0, s1, s2 = (np.sum(weight * away**k, 1) for k in range(3))
    t0, t1 = np.sum(weight * y, 1), np.sum(weight * away * y, 1)
    return np.exp(at), np.exp((s2 * t0 - s1 * t1) / (s0 * s2 - s1**2))


@dataclasses.dataclass(frozen=True, eq=False)
class Frontier:
    """The points of least loss, by ascending FLOPs."""

    method: str
    n_params: np.ndarray
    n_tokens: np.ndarray
    flops: np.ndarray
    loss: np.ndarray
    run: np.ndarray
    truncated: np.ndarray  # why a point may not be the optimum, empty where it may

    @property
    def free(self) -> np.ndarray:
        """Which points may be optima."""
        return self.truncated == ""


@dataclasses.dataclass(frozen=True, eq=False)
class PowerLine:
    """log y = level + slope log(C / centre), and the same for every draw of a bootstrap."""

    centre: float
    slope: float
    level: float
    slopes: np.ndarray
    levels: np.ndarray

    def at(self, flops: float) -> float:
        """y at a budget."""
        return float(np.exp(self.level + self.slope * np.log(flops / self.centre)))

    def between(self, flops: float, level: float) -> tuple[float, float]:
        """The central interval of y at a budget."""
        return central(np.exp(self.levels + self.slopes * np.log(flops / self.centre)), level)

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval of the slope."""
        return central(self.slopes, level)


def central(values: np.ndarray, level: float) -> tuple[float, float]:
    """Not a number where no draw has one."""
    kept = values[np.isfinite(values)]
    lo, hi = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2]) if len(kept) else (np.nan, np.nan)
    return float(lo), float(hi)


def straight(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of every column of ``y`` (points, draws) on ``x``: slopes, and levels at x = 0.

    Points that are not a number are left out of their draw; a draw with fewer than three has no line.
    """
    w = np.where(np.isfinite(y), 1.0 if weights is None else weights[:, None], 0.0)
    y = np.where(w > 0, y, 0.0)
    total = w.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mx, my = (w * x[:, None]).sum(0) / total, (w * y).sum(0) / total
        dx = x[:, None] - mx
        slope = (w * dx * y).sum(0) / (w * dx**2).sum(0)
        enough = (w > 0).sum(0) >= MIN_POINTS
        return np.where(enough, slope, np.nan), np.where(enough, my - slope * mx, np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class Envelope:
    """Approach 1: the frontier and its exponents."""

    frontier: Frontier
    n_line: PowerLine  # of N on C: its slope is a
    d_line: PowerLine  # of D on C; the two slopes need not sum to 1, since C is counted point by point
    only_free: bool
    clusters: int
    lost: int  # draws that left no slope
    notes: tuple[str, ...]

    @property
    def a(self) -> float:
        """The exponent of N on C."""
        return self.n_line.slope


def estimate(
    points: Points, method: str = "hull", only_free: bool = True, budgets: np.ndarray | None = None, draws: int = DRAWS,
    seed: int = 0,
) -> Envelope:  # fmt: skip
    """The frontier's exponents, with a bootstrap over clusters: points of one run are one observation.

    Args:
      points: losses along runs.
      method: 'hull' or 'bins'.
      only_free: leave truncated points out of the slopes.
      budgets: FLOPs at which 'bins' looks; by default 300 over the range.
      draws: resamples of the clusters.
      seed: of the resamples.

    Raises:
      FitError: fewer than three (free) points, or sizes, on the frontier.
    """
    found = frontier(points, method, budgets)
    kept = found.free if only_free else np.ones(len(found.flops), bool)
    if kept.sum() < MIN_POINTS or len(set(found.n_params[kept])) < MIN_SIZES:
        why = f"; left out: {_counted(found.truncated)}" if only_free and not found.free.all() else ""
        raise FitError(
            f"the frontier of {len(set(points.n_params))} sizes shows the optimum at {int(kept.sum())} points of "
            f"{len(set(found.n_params[kept]))} sizes; {MIN_POINTS} points of {MIN_SIZES} sizes are needed{why}"
        )
    reduced = points if method == "bins" else points.where(_on_own_hull(points))
    rng = np.random.default_rng(seed)
    group = np.unique(reduced.cluster, return_inverse=True)[1]
    clusters = int(group.max()) + 1
    ends = np.full((4, draws), np.nan)
    centre = float(np.exp(np.log(found.flops[kept]).mean()))
    for i in range(draws):
        drawn = np.isin(group, rng.integers(0, clusters, clusters))
        again = frontier(reduced.where(drawn), method, found.flops if method == "bins" else None, points)
        ends[:, i] = np.ravel(_slopes(again, again.free if only_free else np.ones(len(again.flops), bool), centre))
    n_line, d_line = (
        PowerLine(centre, float(slope[0]), float(level[0]), ends[2 * k], ends[2 * k + 1])
        for k, (slope, level) in enumerate(_slopes(found, kept, centre))
    )
    lost = int(np.isnan(ends[0]).sum())
    return Envelope(found, n_line, d_line, only_free, clusters, lost, points.notes + _notes(found, kept, lost, draws))


def _slopes(found: Frontier, kept: np.ndarray, centre: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """(slope, level) of log N and of log D; not numbers where one or two sizes are left."""
    x = np.log(found.flops[kept] / centre)
    if len(set(found.n_params[kept])) < MIN_SIZES:
        return [(np.full(1, np.nan), np.full(1, np.nan))] * 2
    return [straight(x, np.log(y[kept])[:, None]) for y in (found.n_params, found.n_tokens)]


def _notes(found: Frontier, kept: np.ndarray, lost: int, draws: int) -> tuple[str, ...]:
    out = []
    count, sizes = int(kept.sum()), len(set(found.n_params[kept]))
    if count < FEW_POINTS or sizes < 5:
        out.append(f"{count} points of {sizes} sizes carry the slope")
    if not found.free.all():
        part = f"{int((~found.free).sum())} of {len(kept)}"
        out.append(f"{part} points of the frontier are truncated: {_counted(found.truncated)}")
    if lost:
        out.append(f"{lost} of {draws} resamples of the runs leave no slope")
    return tuple(out)


def _counted(reasons: np.ndarray) -> str:
    names, counts = np.unique(reasons[reasons != ""], return_counts=True)
    return ", ".join(f"{c} {n}" for n, c in zip(names, counts, strict=True))


def frontier(points: Points, method: str = "hull", budgets: np.ndarray | None = None, whole: Points | None = None) -> Frontier:
    """The points of least loss.

    Args:
      points: losses along runs.
      method: 'hull': vertices of the lower convex hull in (log C, log L) up to the least loss, which are the vertices that see
        neither a point (2 C_max, 2 L_max) nor anything that rises; 'bins': at each budget the run with the least loss there,
        between its points linear in (log C, log L).
      budgets: FLOPs for 'bins', by default 300, evenly spaced in log C.
      whole: what the first and last point of a size are judged by, where ``points`` is only a part of it.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r}: must be one of {', '.join(METHODS)}")
    if method == "hull":
        order = np.lexsort((points.loss, points.flops))
        hull = lower_hull(np.log(points.flops[order]), np.log(points.loss[order]))
        kept = points.where(order[hull[: int(np.argmin(points.loss[order[hull]])) + 1]])
        n, d, c, loss, run = kept.n_params, kept.n_tokens, kept.flops, kept.loss, kept.run
        truncated = _truncated(n, c, points, whole or points)
        return Frontier(method, n, d, c, loss, run, truncated)
    return _binned(points, budgets)


def lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of the lower convex hull of points sorted by x, then y (Andrew's monotone chain)."""
    hull: list[int] = []
    xs, ys = x.tolist(), y.tolist()
    for i in range(len(xs)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (xs[b] - xs[a]) * (ys[i] - ys[a]) > (ys[b] - ys[a]) * (xs[i] - xs[a]):
                break
            hull.pop()
        hull.append(i)
    return np.array(hull)


def _on_own_hull(points: Points) -> np.ndarray:
    """Which points lie on the hull of their own run: no other can lie on that of any set of runs."""
    out = np.zeros(len(points.loss), bool)
    for name in np.unique(points.run):
        rows = np.flatnonzero(points.run == name)
        rows = rows[np.lexsort((points.loss[rows], points.flops[rows]))]
        out[rows[lower_hull(np.log(points.flops[rows]), np.log(points.loss[rows]))]] = True
    return out


def _truncated(n_params: np.ndarray, flops: np.ndarray, points: Points, whole: Points) -> np.ndarray:
    """Why each frontier point may not be an optimum: it is of the smallest or largest size (of ``points``), or the first or
    last of its size (in ``whole``), which might have gone on.
    """
    out = np.full(len(flops), "", dtype="<U40")
    for size in np.unique(n_params):
        at = n_params == size
        seen = whole.flops[whole.n_params == size]
        out[at & (flops >= seen.max())] = "at the end of their size's runs"
        out[at & (flops <= seen.min())] = "at the start of their size's curves"
    out[n_params == points.n_params.min()] = "of the smallest size"
    out[n_params == points.n_params.max()] = "of the largest size"
    return out


def _binned(points: Points, budgets: np.ndarray | None) -> Frontier:
    """The 'bins' frontier.  Its point is truncated where the next smaller or larger size has no run at that budget."""
    if budgets is None:
        budgets = np.geomspace(points.flops.min(), points.flops.max(), BINS)
    names, first = np.unique(points.run, return_index=True)
    size = points.n_params[first]
    at = np.log(budgets)
    loss, tokens = np.full((2, len(names), len(budgets)), np.inf)
    for i, name in enumerate(names):
        rows = np.flatnonzero(points.run == name)
        rows = rows[np.argsort(points.flops[rows])]
        c = np.log(points.flops[rows])
        loss[i] = np.interp(at, c, np.log(points.loss[rows]), left=np.inf, right=np.inf)
        tokens[i] = np.interp(at, c, np.log(points.n_tokens[rows]))
    covered = np.isfinite(loss).any(0)
    best = np.argmin(loss, 0)
    sizes = np.unique(size)
    reached = np.array([np.isfinite(loss[size == s]).any(0) for s in sizes])
    rank = np.searchsorted(sizes, size[best])
    column = np.arange(len(budgets))
    truncated = np.full(len(budgets), "", dtype="<U40")
    truncated[~reached[np.minimum(rank + 1, len(sizes) - 1), column]] = "where the next larger size has no run"
    truncated[~reached[np.maximum(rank - 1, 0), column]] = "where the next smaller size has no run"
    truncated[rank == 0], truncated[rank == len(sizes) - 1] = "of the smallest size", "of the largest size"
    b = best[covered]
    return Frontier(
        "bins", size[b], np.exp(tokens[best, column][covered]), budgets[covered], np.exp(loss[best, column][covered]),
        names[b], truncated[covered],
    )  # fmt: skip
