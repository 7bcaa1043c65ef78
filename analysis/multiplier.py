"""Two sweeps as a compute multiplier at equal loss, and the compute at which they cross.

``analysis.pairing`` says what they share, ``analysis.cells`` compares run by run, ``analysis.plot_compare`` draws, and
``analysis.compare`` is the command and the words.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis import cells, checks, fit, identify, intervals, load, pairing
from analysis.laws import CHINCHILLA, Cost, measured_cost, optimum

REACH = 1e6  # a loss that takes more than a million times the largest compute is not reached
MAX_FACTOR = 4.0  # upper over lower end of the mean multiplier's interval: beyond it, nothing is known
BUDGETS = 25  # at which the multiplier is computed inside the shared range
BEYOND = 8  # and on either side of it, up to 10 times away
_BESIDE = 1.02  # the best N and D may lie this factor beside the outermost rows


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """One sweep's law as loss against compute.

    ``line`` is (slope, level) of log D against log N where that line is followed; None for the compute-optimal frontier.
    """

    name: str
    boot: intervals.Bootstrap
    cost: Cost
    line: tuple[float, float] | None = None

    @property
    def fit(self) -> fit.Fit:
        return self.boot.fit

    @property
    def trained(self) -> tuple[float, float]:
        """Least and largest FLOPs of the fitted rows."""
        return self._range("flops")

    @property
    def among_runs(self) -> tuple[float, float] | None:
        """The FLOPs over which the curve passes among the rows, in compute, N and D; None where it passes beside them."""
        flops = np.geomspace(*self.trained, 500)
        inside = np.ones(len(flops), bool)
        for values, column in zip(self.point(self.fit.params, flops), ("n_params", "n_tokens"), strict=False):
            lo, hi = self._range(column)
            inside &= (values >= lo / _BESIDE) & (values <= hi * _BESIDE)
        return (float(flops[inside][0]), float(flops[inside][-1])) if inside.sum() > 1 else None

    def _range(self, column: str) -> tuple[float, float]:
        values = self.fit.table.column(column).astype(float)
        return float(values.min()), float(values.max())

    def point(self, params: Mapping[str, Any], flops: Any) -> tuple[Any, Any, Any]:
        """(N, D, L) at ``flops``; everything broadcasts."""
        if self.line is None:
            return optimum(params, flops, self.cost)
        slope, level = self.line
        n = np.exp((np.log(flops / self.cost.k) - level) / (self.cost.g + slope))
        d = np.exp(level) * n**slope
        return n, d, CHINCHILLA.loss(params, n, d)

    def losses(self, params: Mapping[str, Any], flops: Any) -> Any:
        """L at ``flops``; a draw whose exponent ran away has none (nan or infinite)."""
        with np.errstate(all="ignore"):
            return self.point(params, np.asarray(flops, float))[2]

    def reach(self, params: Mapping[str, Any], loss: Any) -> np.ndarray:
        """FLOPs at which the curve comes down to ``loss``, by bisection; infinite (0) where that is more than ``REACH`` times
        above (below) what was trained, nan where the curve does not fall.
        """
        loss = np.asarray(loss, float)
        low, high = (np.full(loss.shape, np.log(end)) for end in (self.trained[0] / REACH, self.trained[1] * REACH))
        top, bottom = self.losses(params, np.exp(low)), self.losses(params, np.exp(high))
        for _ in range(60):
            middle = (low + high) / 2
            above = self.losses(params, np.exp(middle)) > loss
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        out = np.where(bottom > loss, np.inf, np.where(top < loss, 0.0, np.exp(high)))
        return np.where(top > bottom, out, np.nan)


@dataclasses.dataclass(frozen=True)
class Crossover:
    """Where the two curves cross.  ``inside``, ``outside`` and ``none`` are shares of draws: with a crossing of this direction
    within the compute at which both curves pass among their runs (``shared``), only within 10 times of it, or neither.
    """

    flops: float | None
    first_better_above: bool | None
    interval: tuple[float, float] | None
    inside: float
    outside: float
    none: float
    shared: tuple[float, float] | None
    identified: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that the figure, the JSON and the words tell.

    ``flops`` (budgets,) are FLOPs of the first sweep, ``inside`` is the slice of them where both curves pass among their runs;
    the others are extrapolation.  ``draws`` (draws, budgets) are log multipliers of refits with the noise of twins redrawn
    together, ``unpaired`` the same with all noise redrawn apart; where there are no twins they are one.  ``twin_correlation``
    is that of the residuals of twins.  ``doubts`` say why the curves should not be believed.
    """

    both: pairing.Comparable
    sides: tuple[Side, Side]
    flops: np.ndarray
    inside: slice
    log_multiplier: np.ndarray
    draws: np.ndarray
    unpaired: np.ndarray
    twin_clusters: int
    twin_correlation: float | None
    crossover: Crossover
    cells: cells.Cells | None
    level: float
    notes: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def verdict(self) -> identify.Verdict:
        """The multiplier is identified when both frontiers pass among runs at one loss, no parameter but E ran to an edge, and
        the ends of its interval differ by less than a factor of 4.
        """
        lo, hi = self.mean(self.draws)[1]
        wide = [] if hi <= MAX_FACTOR * lo else [f"its interval spans more than a factor of {MAX_FACTOR:g}"]
        return identify.Verdict(not (self.doubts or wide), (*self.doubts, *wide))

    @property
    def paired(self) -> bool:
        return self.twin_clusters > 0

    def mean(self, draws: np.ndarray) -> tuple[float, tuple[float, float]]:
        """Geometric mean of the multiplier over the shared range, with its interval."""
        value = float(np.exp(self.log_multiplier[self.inside].mean()))
        return value, _ends(np.exp(draws[:, self.inside].mean(1)), self.level)

    @property
    def change(self) -> tuple[float, tuple[float, float]]:
        """The multiplier at the upper end of the shared range over that at the lower end, with its interval."""
        point, draws = self.log_multiplier[self.inside], self.draws[:, self.inside]
        with np.errstate(invalid="ignore"):
            return float(np.exp(point[-1] - point[0])), _ends(np.exp(draws[:, -1] - draws[:, 0]), self.level)

    @property
    def constant(self) -> bool:
        """Whether a multiplier that does not change with scale lies within the noise."""
        lo, hi = self.change[1]
        return lo <= 1 <= hi

    def band(self, draws: np.ndarray) -> np.ndarray:
        """(2, budgets): ends of the multiplier's interval at each budget."""
        return np.array([_ends(np.exp(column), self.level) for column in draws.T]).T


def _ends(values: np.ndarray, level: float) -> tuple[float, float]:
    """The central interval of values some of which may be infinite; those that are nan (a curve that does not fall) are out."""
    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return 0.0, float("inf")
    at = [(1 - level) / 2 * (len(ordered) - 1), (1 + level) / 2 * (len(ordered) - 1)]
    return float(ordered[int(np.floor(at[0]))]), float(ordered[int(np.ceil(at[1]))])


def compare(
    both: pairing.Comparable, delta: float | None = None, level: float = intervals.LEVEL, draws: int = intervals.DRAWS
) -> Comparison:
    """How many times the compute of the first sweep the second needs.

    Args:
      both: the two tables, from ``pairing.comparable``.
      delta: of the Huber loss, as in ``fit.fit``.
      level: of all intervals.
      draws: bootstrap refits of each sweep.

    Raises:
      FitError: rows that cannot carry the law, or no loss that both sweeps reach within their compute.
    """
    fits = fit.fit(both.a, delta=delta), fit.fit(both.b, delta=delta)
    found = pairing.pairs(both)
    twins = pairing.twin_clusters(both, found)
    boot_a, boot_b, apart = _bootstraps(fits, twins, draws)
    first, second = (
        Side(name, boot, _cost(boot.fit.table), line)
        for name, boot, line in zip(_names(both.a.source, both.b.source), (boot_a, boot_b), _lines(both), strict=True)
    )
    flops, inside, beside = _budgets(first, second)
    draws_a = _columns(boot_a)
    point = _log_multiplier(first, second, first.fit.params, second.fit.params, flops)
    together, unpaired = (_log_multiplier(first, second, draws_a, _columns(b), flops) for b in (boot_b, apart))
    edges = [(f"{s.name}: {edge}", _of_constant(s.fit, edge)) for s in (first, second) for edge in _edges(s.fit)]
    doubts = [edge for edge, harmless in edges if not harmless] + beside
    notes = [*both.notes, *(edge for edge, harmless in edges if harmless), *_of_lines((first, second))]
    return Comparison(
        both=both, sides=(first, second), flops=flops, inside=inside, log_multiplier=point, draws=together, unpaired=unpaired,
        twin_clusters=len(twins), twin_correlation=_twin_correlation(fits, found),
        crossover=_crossover(first, second, level, doubts), cells=cells.measure(both, found, second, level), level=level,
        notes=tuple(notes), doubts=tuple(doubts),
    )  # fmt: skip


def _edges(fitted: fit.Fit) -> tuple[str, ...]:
    """Parameters that ran away; of rows on one line of N and D, where one term does the work of both, E alone."""
    return tuple(edge for edge in fitted.edges if edge.startswith("E ") or not identify.collinear(fitted))


def _bootstraps(fits: tuple[fit.Fit, fit.Fit], twins: Mapping[str, str], draws: int) -> tuple[intervals.Bootstrap, ...]:
    """Refits of the first, of the second with the noise of twins shared, and of the second alone."""
    if not twins:
        boots = [intervals.bootstrap(f, draws, seed=seed) for seed, f in enumerate(fits)]  # one seed would make them twins
        return boots[0], boots[1], boots[1]
    names = [intervals.cluster_names(f) for f in fits]
    own = [intervals.wild_multipliers(np.random.default_rng(i), draws, len(names[i])) for i in (0, 1)]
    shared = pairing.shared_multipliers(own[1], names[1], own[0], names[0], twins)
    what = ((fits[0], own[0]), (fits[1], shared), (fits[1], own[1]))
    return tuple(intervals.bootstrap(f, multipliers=m) for f, m in what)


def _twin_correlation(fits: tuple[fit.Fit, fit.Fit], found: list[pairing.Pair]) -> float | None:
    pairs = [(fits[0].residuals[p.i], fits[1].residuals[p.j]) for p in found if p.twins]
    return float(np.corrcoef(np.array(pairs).T)[0, 1]) if len(pairs) > 2 else None


def _cost(table: load.Table) -> Cost:
    return measured_cost(*(list(table.column(c)) for c in ("n_params", "n_tokens", "flops")))


def _columns(boot: intervals.Bootstrap) -> dict[str, np.ndarray]:
    return {name: values[:, None] for name, values in boot.params.items()}


def _names(a: str, b: str) -> tuple[str, str]:
    """The shortest ends of two paths that tell them apart."""
    one, other = (pathlib.PurePath(p).with_suffix("") if p.endswith(".csv") else pathlib.PurePath(p) for p in (a, b))
    for count in range(1, max(len(one.parts), len(other.parts)) + 1):
        tails = "/".join(one.parts[-count:]), "/".join(other.parts[-count:])
        if tails[0] != tails[1]:
            return tails
    return "first", "second"


def _lines(both: pairing.Comparable) -> list[tuple[float, float] | None]:
    """The line to follow for each table: none, or where one has tokens in step with parameters, its own or that one."""
    own: list[tuple[float, float] | None] = []
    for table in (both.a, both.b):
        n, d = (np.log(table.column(c).astype(float)) for c in ("n_params", "n_tokens"))
        collinear = abs(np.corrcoef(n, d)[0, 1]) > checks.MAX_COLLINEAR
        slope, level = np.polyfit(n, d, 1)
        own.append((float(slope), float(level)) if collinear else None)
    return [own[0] or own[1], own[1] or own[0]]


def _budgets(first: Side, second: Side) -> tuple[np.ndarray, slice, list[str]]:
    """FLOPs of the first sweep over the losses at which both curves pass among their runs, and up to 10 times beside; why to
    doubt them where they do not, and only compute is shared.

    Raises:
      FitError: no loss that both reach within the compute they were trained at.
    """
    doubts = [
        f"{s.name}: its frontier passes beside its runs, which have other N or D, and is extrapolated"
        for s in (first, second)
        if s.among_runs is None
    ]
    for ranges in ([s.among_runs or s.trained for s in (first, second)], [first.trained, second.trained]):
        ends = [[float(s.losses(s.fit.params, c)) for c in r] for s, r in zip((first, second), ranges, strict=True)]
        top, bottom = min(e[0] for e in ends), max(e[1] for e in ends)
        if bottom < top:
            lo, hi = (float(first.reach(first.fit.params, loss)) for loss in (top, bottom))
            below, above = np.geomspace(lo / intervals.FAR, lo, BEYOND + 1), np.geomspace(hi, hi * intervals.FAR, BEYOND + 1)
            flops = np.concatenate([below[:-1], np.geomspace(lo, hi, BUDGETS), above[1:]])
            return flops, slice(BEYOND, BEYOND + BUDGETS), doubts
        doubts = ["at no loss do both frontiers pass among their runs: one of them is extrapolated"]
    reached = [f"{s.name} {e[0]:.4g} down to {e[1]:.4g}" for s, e in zip((first, second), ends, strict=True)]
    raise fit.FitError(
        f"no loss that both sweeps reach within the compute they were trained at ({', '.join(reached)}): a multiplier would "
        f"rest on extrapolation alone; train the worse one larger or the better one smaller"
    )


def _log_multiplier(first: Side, second: Side, params_a: Any, params_b: Any, flops: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(second.reach(params_b, first.losses(params_a, flops))) - np.log(flops)


def _of_constant(fitted: fit.Fit, edge: str) -> bool:
    """Whether an edge is that of a constant term: without E the rest is still a curve, without A or B it has no frontier."""
    return edge.startswith(f"{fitted.law.floor} ")


def _of_lines(sides: tuple[Side, Side]) -> list[str]:
    """What to know of lines in place of frontiers."""
    out = []
    for s in sides:
        if s.line is not None:
            ratio = np.exp(s.line[1] + (s.line[0] - 1) * np.log(s.fit.table.column("n_params").astype(float)).mean())
            out.append(
                f"{s.name} is followed along D = {ratio:.3g} N, where tokens in step with parameters leave no other way: "
                f"this is no compute-optimal frontier"
            )
    return out


# ---- crossover


def _crossover(first: Side, second: Side, level: float, doubts: list[str]) -> Crossover:
    ranges = [s.among_runs or s.trained for s in (first, second)]
    shared = max(r[0] for r in ranges), min(r[1] for r in ranges)
    hull = min(r[0] for r in ranges), max(r[1] for r in ranges)
    lo, hi = shared if shared[0] < shared[1] else hull
    grid = np.linspace(np.log(lo / intervals.FAR), np.log(hi * intervals.FAR), 600)

    def gaps(params_a: Any, params_b: Any) -> np.ndarray:
        return np.atleast_2d(first.losses(params_a, np.exp(grid)) - second.losses(params_b, np.exp(grid)))

    point = _roots(grid, gaps(first.fit.params, second.fit.params))[0]
    middle = np.log(lo * hi) / 2
    where, falling = min(point, key=lambda root: abs(root[0] - middle)) if point else (None, None)
    found = []
    for roots in _roots(grid, gaps(_columns(first.boot), _columns(second.boot))):
        same = [x for x, direction in roots if falling is None or direction == falling]
        found.append(min(same, key=lambda x: abs(x - (middle if where is None else where)), default=np.nan))
    at = np.array(found)
    have_shared = shared[0] < shared[1]
    within = (at >= np.log(lo)) & (at <= np.log(hi)) & have_shared
    inside, none = float(within.mean()), float(np.isnan(at).mean())
    quoted = where is not None and none <= 1 - level
    return Crossover(
        None if where is None else float(np.exp(where)), falling, _ends(np.exp(at), level) if quoted else None,
        inside, 1 - inside - none, none, shared if have_shared else None,
        not doubts and where is not None and bool(np.log(lo) <= where <= np.log(hi)) and inside >= level,
    )  # fmt: skip


def _roots(grid: np.ndarray, gaps: np.ndarray) -> list[list[tuple[float, bool]]]:
    """For each lane of ``gaps`` (lanes, grid): where it changes sign, and whether it falls there; grid steps are a few percent
    of compute, over which a gap is straight.
    """
    sign = np.sign(gaps)
    lanes: list[list[tuple[float, bool]]] = [[] for _ in gaps]
    for lane, i in np.argwhere(sign[:, 1:] * sign[:, :-1] < 0):
        left, right = gaps[lane, i], gaps[lane, i + 1]
        lanes[lane].append((float(grid[i] + (grid[i + 1] - grid[i]) * left / (left - right)), bool(left > 0)))
    return lanes
