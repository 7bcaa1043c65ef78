"""Approach 2: the size of least loss at every budget, from IsoFLOP profiles (Hoffmann et al. 2022, 3.2), and its known biases.

A profile holds the rows of one budget.  A curve through the loss over log N has its least point at N*; the slope of a straight
line of log N* on log C is the exponent a.  Three recipes draw the curve:

    parabola   least squares of the loss, as in Hoffmann et al. and most after them
    cubic      the same with a third power, since bowls are steeper on one side and that alone moves a parabola's vertex
    akima      through every point, in log loss; N* is the median over redrawn noise (Porian et al. 2024, arXiv 2406.19146)

The first is the steadiest and the only one with a bias: none in a while every grid is centred and equally wide, but one in N*
beyond the budgets, and in a as well as soon as the grids drift (Czech et al. 2026, arXiv 2603.22339).  On simulated grids of 7
budgets x 9 sizes within a factor of 8, with noise of 0.2 % and alpha three times beta, a has a standard deviation of 0.0016,
0.004 and 0.017, and N* two decades further out is off by +18, 0 and -1 % (tests/analysis/test_isoflop.py).  ``bias_on_grid``
computes the bias for a given law on the very rows of a table, for information: nothing here is corrected by it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis import load
from analysis.envelope import Points, PowerLine, central, straight
from analysis.fit import FitError
from analysis.intervals import DRAWS, LEVEL
from analysis.laws import CHINCHILLA, Cost, allocation_exponent, optimum

TOLERANCE = 0.05  # of log C: rows of one budget differ by less, since tokens come in whole batches
SAME_SIZE = 0.02  # of log N: digitised sizes differ by less, and no curve goes through two losses of one size
MIN_SIZES = 4  # of a budget that counts as a profile
MIN_BUDGETS = 3  # of a table with profiles, and of a slope
MIN_RANGE = 3.0  # factor in C that interpolated budgets span at least: a slope over less says nothing
INTERPOLATED = 8  # budgets that curves or a ladder are read off at
# What a profile is warned of (Czech et al. 2026 and the biases in tests/analysis/test_isoflop.py).
MIN_SIDE = 3  # sizes on either side of N*
MAX_OFF_CENTRE = 1.5  # factor between N* and the middle of the sizes
MAX_WIDTH = 8.0  # factor from the middle of the sizes to their ends
MAX_LOST = 0.1  # part of the draws without a least point
MAX_DISAGREEMENT = 2.0  # standard errors between two recipes
# Rows with at most this part more loss than the least of their budget show the noise: beyond, no cubic fits a bowl.
NOISE_EXCESS = 0.1
_FINE = 25  # points of a curve per gap between sizes (Porian et al.)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a curve is drawn through a profile."""

    name: str
    degree: int | None  # of the polynomial of the loss; None goes through every point (Akima, in log loss)
    sizes: int  # fewer do not carry the curve

    @property
    def medians(self) -> bool:
        """A curve through every point follows the noise: N* is then its median over draws, and budgets weigh as 1 / variance,
        the standard deviation taken as at least a third of the distance between sizes (Porian et al.).
        """
        return self.degree is None


RECIPES = {r.name: r for r in (Recipe("parabola", 2, 3), Recipe("cubic", 3, 4), Recipe("akima", None, 4))}


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """The rows of one budget, by ascending size; arrays of one length."""

    flops: float
    n_params: np.ndarray
    n_tokens: np.ndarray
    loss: np.ndarray
    cluster: np.ndarray  # rows of one cluster and size share their noise, within a profile and between profiles


@dataclasses.dataclass(frozen=True, eq=False)
class Profiles:
    """Profiles by ascending budget, and where they come from."""

    source: str  # 'rows' of an IsoFLOP grid; 'rows between budgets' and 'curves' are interpolated in C
    items: tuple[Profile, ...]
    notes: tuple[str, ...] = ()


def by_budget(table: load.Table, budgets: Sequence[float] | None = None, tolerance: float = TOLERANCE) -> Profiles:
    """The profiles of a table whose rows share budgets.

    Args:
      table: rows with N, D, C and loss.
      budgets: FLOPs; by default every group of rows whose C lie within twice ``tolerance``, with a gap of one around it.
      tolerance: in log C.

    Raises:
      FitError: fewer than three budgets hold four sizes or, where none are given, fewer than half the rows do: others may be
        together by chance.
    """
    n, d, c, loss = (table.column(name).astype(float) for name in ("n_params", "n_tokens", "flops", "loss"))
    cluster, log_c = table.column("cluster"), np.log(c)
    if budgets is None:
        near = [(float(np.exp(log_c[g].mean())), g) for g in _groups(log_c, tolerance) if np.ptp(log_c[g]) <= 2 * tolerance]
    else:
        near = [(float(b), np.flatnonzero(np.abs(log_c - np.log(b)) <= tolerance)) for b in sorted(budgets)]
    near = [(b, g[np.argsort(n[g], kind="stable")]) for b, g in near if len(set(n[g])) >= MIN_SIZES]
    outside = len(n) - sum(len(g) for _, g in near)
    if len(near) < MIN_BUDGETS or (budgets is None and outside > len(n) / 2):
        raise FitError(
            f"{table.source}: no IsoFLOP grid: {len(near)} budgets (rows within {100 * tolerance:g} % of C) hold {MIN_SIZES} "
            f"or more sizes, and {len(n) - outside} of {len(n)} rows; {MIN_BUDGETS} budgets and half the rows are needed"
        )
    notes = []
    if outside:
        notes.append(f"{outside} of {len(n)} rows are not used: their budgets hold fewer than {MIN_SIZES} sizes")
    return Profiles("rows", tuple(Profile(b, n[g], d[g], loss[g], cluster[g]) for b, g in near), tuple(notes))


def _groups(log_c: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Row numbers, split wherever the next larger log C is further away than the tolerance."""
    order = np.argsort(log_c, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(log_c[order]) > tolerance) + 1)


def by_size(table: load.Table) -> Profiles:
    """Profiles of a table that has several token counts per size: its rows interpolated in C along each size.

    Rows of one cluster are a curve; a size whose rows are each their own cluster is one curve.

    Raises:
      FitError: at no range of budgets lie four sizes.
    """
    n, d, c, loss = (table.column(name).astype(float) for name in ("n_params", "n_tokens", "flops", "loss"))
    cluster, n = table.column("cluster"), n.copy()
    curve = np.empty(len(n), object)
    for rows in _groups(np.log(n), SAME_SIZE):
        n[rows] = np.exp(np.log(n[rows]).mean())
        several = len(set(cluster[rows])) < len(rows)
        curve[rows] = [f"{name} {n[rows[0]]:.6e}" if several else f"{n[rows[0]]:.6e}" for name in cluster[rows]]
    return interpolated(Points(n, d, c, loss, curve, curve), "rows between budgets", table.source)


def interpolated(points: Points, source: str, name: str, budgets: Sequence[float] | None = None) -> Profiles:
    """Profiles read off curves at common budgets: log loss by a monotone cubic (PCHIP) in log C, never beyond a curve's ends.

    Args:
      points: curves, such as ``analysis.envelope.from_curves``; a curve of one point is left out.
      source: what ``Profiles.source`` says.
      name: of the table, for errors.
      budgets: FLOPs; by default eight, evenly spaced in log C over the range in which four sizes have a curve.

    Raises:
      FitError: at no budget do four sizes have a curve.
    """
    from scipy.interpolate import PchipInterpolator

    curves = []
    for run in np.unique(points.run):
        rows = np.flatnonzero(points.run == run)
        log_c, log_d, log_l = (np.log(v[rows]) for v in (points.flops, points.n_tokens, points.loss))
        groups = _groups(log_c, TOLERANCE / 5)  # seeds of one budget, as one point
        x, y, t = (np.array([v[g].mean() for g in groups]) for v in (log_c, log_l, log_d))
        if len(x) > 1:
            curves.append((points.n_params[rows[0]], points.cluster[rows[0]], x, t, PchipInterpolator(x, y)))
    items = []
    for b in np.log(_common_budgets(curves, name) if budgets is None else budgets):
        there = sorted((c for c in curves if c[2][0] - 1e-9 <= b <= c[2][-1] + 1e-9), key=lambda c: c[0])
        loss = np.exp([float(curve(np.clip(b, x[0], x[-1]))) for *_, x, _, curve in there])
        tokens = np.exp([np.interp(b, x, t) for *_, x, t, _ in there])
        items.append(Profile(float(np.exp(b)), np.array([c[0] for c in there]), tokens, loss, np.array([c[1] for c in there])))
    note = f"no IsoFLOP grid: {source}, interpolated in log C to {len(items)} common budgets"
    return Profiles(source, tuple(items), (*points.notes, note))


def _common_budgets(curves: list[tuple[Any, ...]], name: str) -> np.ndarray:
    """FLOPs, evenly spaced in log C over the range in which four sizes have a curve."""
    ends = sorted({end for c in curves for end in (c[2][0], c[2][-1])})
    good = [e for e in ends if len({c[0] for c in curves if c[2][0] <= e <= c[2][-1]}) >= MIN_SIZES]
    if not good or good[-1] - good[0] < np.log(MIN_RANGE):
        where = f"only from {np.exp(good[0]):.2e} to {np.exp(good[-1]):.2e} FLOPs" if good else "nowhere"
        raise FitError(
            f"{name}: no IsoFLOP profiles to interpolate: the curves of {MIN_SIZES} sizes meet {where}; a range of a factor of "
            f"{MIN_RANGE:g} is needed"
        )
    return np.geomspace(np.exp(good[0]), np.exp(good[-1]), INTERPOLATED)


@dataclasses.dataclass(frozen=True, eq=False)
class Bowl:
    """A profile with the curve through it and its least point.  Sizes, tokens and losses are averaged over rows of one size."""

    flops: float
    n_params: np.ndarray
    n_tokens: np.ndarray
    loss: np.ndarray
    used: np.ndarray  # which sizes lie within the window
    curve_n: np.ndarray
    curve_loss: np.ndarray
    reason: str | None  # why there is no least point; then the next three are not numbers
    n_opt: float
    d_opt: float
    loss_opt: float
    interval: tuple[float, float]  # of N*
    draws: np.ndarray  # log N* of every draw, not a number where it has none
    sides: tuple[int, int]  # sizes below and above N*; none where there is no N*
    off_centre: float  # factor between N* and the middle of the used sizes
    width: float  # factor from that middle to the ends
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class IsoFlop:
    """Approach 2 by one recipe."""

    recipe: str
    window: float | None
    noise: float | None  # standard deviation of a loss in nats per token; None where nothing tells it
    level: float
    profiles: Profiles
    bowls: tuple[Bowl, ...]
    n_line: PowerLine | None  # of N* on C: its slope is a
    d_line: PowerLine | None
    missing: str | None  # why there are no lines
    notes: tuple[str, ...]

    @property
    def a(self) -> float:
        """The exponent of N* on C."""
        assert self.n_line is not None
        return self.n_line.slope

    @property
    def interval(self) -> tuple[float, float]:
        """Of a."""
        assert self.n_line is not None
        return self.n_line.interval(self.level)


def estimate(
    profiles: Profiles, recipe: str = "cubic", window: float | None = None, noise: float | None = None, draws: int = DRAWS,
    level: float = LEVEL, seed: int = 0, reach: float = 1.0,
) -> IsoFlop:  # fmt: skip
    """N* of every budget and the exponent a, with intervals from redrawn noise.

    Every draw adds Gaussian noise to the measured losses and goes through the whole recipe; a run that appears at several
    budgets has the same noise at all of them.  The same seed redraws the same noise whatever the recipe.

    Args:
      profiles: from ``by_budget``, ``by_size`` or ``interpolated``.
      recipe: of ``RECIPES``.
      window: only sizes within this factor of the one with the least loss are used.
      noise: standard deviation of a run's loss in nats per token; by default ``residual_noise``.
      draws: 0 for no intervals.
      level: of the intervals.
      seed: of the noise.
      reach: how far beyond the sizes used, as a factor, the least point of a polynomial may lie.
    """
    sd, freedom = (noise, None) if noise is not None else residual_noise(profiles)
    redrawn = _redrawn(profiles, sd or 0.0, freedom, draws if sd else 0, seed)
    how = RECIPES[recipe]
    bowls = tuple(_bowl(p, how, window, e, level, reach) for p, e in zip(profiles.items, redrawn, strict=True))
    good = [b for b in bowls if b.reason is None]
    notes = list(profiles.notes)
    if sd is None:
        notes.append("no intervals: no budget has enough sizes near its least loss to tell the noise; give it")
    if len(good) < MIN_BUDGETS:
        reasons = ", ".join(f"at {k} {reason}" for reason, k in Counter(b.reason for b in bowls if b.reason).items())
        missing = f"{len(good)} of {len(bowls)} budgets show a least loss, {MIN_BUDGETS} are needed ({reasons})"
        return IsoFlop(recipe, window, sd, level, profiles, bowls, None, None, missing, tuple(notes))
    if len(good) < len(bowls):
        notes.append(f"{len(bowls) - len(good)} of {len(bowls)} budgets show no least loss and are left out")
    return IsoFlop(recipe, window, sd, level, profiles, bowls, *_lines(good, how), None, tuple(notes))


def _lines(bowls: list[Bowl], how: Recipe) -> tuple[PowerLine, PowerLine]:
    """log N* and log D* on log C."""
    log_c = np.log([b.flops for b in bowls])
    weights = None
    if how.medians and len(bowls[0].draws):
        floor = [np.ptp(np.log(b.n_params[b.used])) / (b.used.sum() - 1) / 3 for b in bowls]
        weights = 1 / np.maximum([np.nanstd(b.draws) for b in bowls], floor) ** 2
    draws = np.stack([b.draws for b in bowls])
    tokens = np.stack([_straight_on(b.draws, np.log(b.n_params), np.log(b.n_tokens)) for b in bowls])
    lines = []
    for best, each in (([b.n_opt for b in bowls], draws), ([b.d_opt for b in bowls], tokens)):
        slope, level = straight(log_c - log_c.mean(), np.log(best)[:, None], weights)
        again = straight(log_c - log_c.mean(), each, weights)
        lines.append(PowerLine(float(np.exp(log_c.mean())), float(slope[0]), float(level[0]), *again))
    return lines[0], lines[1]


def residual_noise(profiles: Profiles) -> tuple[float | None, int | None]:
    """Standard deviation of a run's loss about a cubic near the bottom of its bowl, pooled, and its degrees of freedom.

    It holds what differs between runs besides their size: seeds, and settings that suit one size better than another.
    """
    squares, freedom = 0.0, 0
    for p in profiles.items:
        near = p.loss <= (1 + NOISE_EXCESS) * p.loss.min()
        x, y = np.log(p.n_params[near]), p.loss[near]
        degree = min(3, len(set(x)) - 2)
        if degree < 2:
            continue
        terms = np.vander((x - x.mean()) / np.ptp(x), degree + 1)
        squares += float(np.sum((y - terms @ np.linalg.lstsq(terms, y, rcond=None)[0]) ** 2))
        freedom += len(y) - degree - 1
    if not freedom:
        return None, None
    runs = len({key for p in profiles.items for key in _keys(p)})  # budgets read off the same curves add no evidence
    return float(np.sqrt(squares / freedom)), max(1, min(freedom, runs - 4))


def _keys(profile: Profile) -> list[tuple[str, float]]:
    """Which rows share their noise."""
    return list(zip(profile.cluster.tolist(), profile.n_params.tolist(), strict=True))


def _redrawn(profiles: Profiles, sd: float, freedom: int | None, draws: int, seed: int) -> list[np.ndarray]:
    """Noise of shape (rows, draws) for every profile; with an estimated sd, each draw has its own, as a t statistic does."""
    keys = [_keys(p) for p in profiles.items]
    number = {key: i for i, key in enumerate(dict.fromkeys(itertools.chain(*keys)))}
    rng = np.random.default_rng(seed)
    scale = sd * np.sqrt(freedom / rng.chisquare(freedom, draws)) if freedom else np.full(draws, sd)
    noise = scale * rng.standard_normal((len(number), draws))
    return [noise[[number[k] for k in each]] for each in keys]


def _bowl(profile: Profile, how: Recipe, window: float | None, noise: np.ndarray, level: float, reach: float) -> Bowl:
    """The curve and its least point, for the measured losses and for every draw."""
    n, d, loss, redrawn = _by_size(profile, noise)
    x, best = np.log(n), int(np.argmin(loss))
    used = np.abs(x - x[best]) <= (np.log(window) + 1e-9 if window else np.inf)
    middle, half = (x[used][0] + x[used][-1]) / 2, (x[used][-1] - x[used][0]) / 2
    fine, curve, at, draws, lost = np.empty(0), np.empty(0), np.nan, np.full(noise.shape[1], np.nan), 0.0
    if used.sum() < how.sizes:
        reason: str | None = f"only {used.sum()} of {how.sizes} sizes that the {how.name} needs"
    else:
        fine, curves = _curves(how, x[used], np.column_stack([loss, loss[:, None] + redrawn])[used], reach)
        least = _least(fine, curves)
        curve, draws = curves[:, 0], least[1:]
        lost = float(np.isnan(draws).mean()) if len(draws) else 0.0
        at = float(np.nanmedian(draws)) if how.medians and len(draws) and lost < 0.5 else float(least[0])
        reason = _why_none(at, lost, curve)
    if reason is not None:
        at = np.nan
    sides, off = (int((x < at).sum()), int((x > at).sum())), float(np.exp(abs(at - middle)))
    return Bowl(
        profile.flops, n, d, loss, used, np.exp(fine), curve, reason, n_opt=float(np.exp(at)),
        d_opt=float(np.exp(_straight_on(at, x, np.log(d)))),
        loss_opt=float(np.interp(at, fine, curve)) if len(fine) else np.nan, interval=_ends(draws, level), draws=draws,
        sides=sides, off_centre=off, width=float(np.exp(half)),
        warnings=() if reason else _warnings(sides, off, float(np.exp(half)), lost),
    )  # fmt: skip


def _by_size(profile: Profile, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """N, D, loss and noise (sizes, draws), averaged over the rows of one size."""
    groups = _groups(np.log(profile.n_params), SAME_SIZE)
    mean = np.zeros((len(groups), len(profile.loss)))
    for i, g in enumerate(groups):
        mean[i, g] = 1 / len(g)
    n, d = (np.exp(mean @ np.log(v)) for v in (profile.n_params, profile.n_tokens))
    return n, d, mean @ profile.loss, mean @ noise


def _ends(draws: np.ndarray, level: float) -> tuple[float, float]:
    lo, hi = central(draws, level)
    return float(np.exp(lo)), float(np.exp(hi))


def _curves(how: Recipe, x: np.ndarray, losses: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The curve through every column of ``losses`` (sizes, draws), on a fine grid of log N: (grid,), (grid, draws)."""
    fine = np.linspace(x[0], x[-1], _FINE * (len(x) - 1))
    if how.degree is None:
        from scipy.interpolate import Akima1DInterpolator

        return fine, np.exp(Akima1DInterpolator(x, np.log(losses))(fine))
    middle, half = x.mean(), np.ptp(x) / 2
    if reach > 1:
        fine = np.linspace(x[0] - np.log(reach), x[-1] + np.log(reach), 2 * len(fine))
    terms, finer = (np.vander((v - middle) / half, how.degree + 1) for v in (x, fine))
    return fine, finer @ np.linalg.lstsq(terms, losses, rcond=None)[0]


def _straight_on(at: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """``np.interp`` that goes on straight beyond the ends."""
    i = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
    return y[i] + (at - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i])


def _least(fine: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Where every column is least, by a parabola through the least point of the grid and its neighbours (exact for a parabola);
    not a number where that is an end: a curve that opens downwards, or whose vertex lies outside.
    """
    i = np.argmin(curves, 0)
    inside = (i > 0) & (i < len(fine) - 1)
    i, column = np.clip(i, 1, len(fine) - 2), np.arange(curves.shape[1])
    low, mid, high = (curves[i + k, column] for k in (-1, 0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        at = fine[i] + (fine[1] - fine[0]) * 0.5 * (low - high) / (low - 2 * mid + high)
    return np.where(inside, at, np.nan)


def _why_none(at: float, lost: float, curve: np.ndarray) -> str | None:
    if np.isfinite(at) and lost < 0.5:
        return None
    if np.isfinite(at):
        return f"{100 * lost:.0f} % of the draws have no least point"
    return f"the curve is least at the {'smallest' if curve[0] < curve[-1] else 'largest'} size used"


def _warnings(sides: tuple[int, int], off_centre: float, width: float, lost: float) -> tuple[str, ...]:
    out = []
    if min(sides) < MIN_SIDE:
        few = f"only {min(sides)} size{'' if min(sides) == 1 else 's'}"
        out.append(f"{few} {'below' if sides[0] < sides[1] else 'above'} the least point")
    if off_centre > MAX_OFF_CENTRE:
        out.append(f"the sizes are centred a factor of {off_centre:.2g} off the least point")
    if width > MAX_WIDTH * (1 + 1e-9):
        out.append(f"the sizes reach a factor of {width:.2g} to either side")
    if lost > MAX_LOST:
        out.append(f"{100 * lost:.0f} % of the draws have no least point")
    return tuple(out)


def disagreements(estimates: Sequence[IsoFlop]) -> tuple[str, ...]:
    """Pairs of recipes whose a differ by more than two standard errors of that difference, under the same redrawn noise."""
    out = []
    lines = [(e, e.n_line) for e in estimates if e.n_line is not None]
    for (one, first), (two, second) in itertools.combinations(lines, 2):
        gaps = first.slopes - second.slopes
        if len(gaps) and abs(one.a - two.a) > MAX_DISAGREEMENT * (error := float(np.nanstd(gaps))):
            apart = f"more than {MAX_DISAGREEMENT:g} standard errors ({error:.3f}) apart"
            out.append(f"{one.recipe} a = {one.a:.3f}, {two.recipe} {two.a:.3f}: {apart}")
    return tuple(out)


@dataclasses.dataclass(frozen=True)
class Bias:
    """What a recipe makes of a law without noise, less what that law's optimum is."""

    a: float
    n_params: float  # relative, of N* at ``flops``
    n_tokens: float
    flops: float
    each: tuple[float, ...]  # relative, of N* at every budget; not a number where there is no least point


def bias_on_grid(params: Mapping[str, float], found: IsoFlop, flops: float, cost: Cost | None = None) -> Bias | None:
    """The bias of ``found``'s recipe if ``params`` were the truth, on its own sizes, tokens and budgets, if a line is left.

    Args:
      params: of a Chinchilla law.
      found: an estimate.
      flops: the budget to extrapolate to.
      cost: C = k N^g D of the profiles' C; 6ND by default.
    """
    items = tuple(dataclasses.replace(p, loss=CHINCHILLA.loss(params, p.n_params, p.n_tokens)) for p in found.profiles.items)
    return _bias(params, items, found.recipe, found.window, flops, cost)


def noise_free_bias(
    params: Mapping[str, float], width: float, centre: float | Sequence[float] = 1.0,
    budgets: Sequence[float] = (1e17, 1e18, 1e19, 1e20, 1e21), sizes: int = 15, recipe: str = "parabola", flops: float = 1e24,
    cost: Cost | None = None, reach: float = 1.0,
) -> Bias | None:  # fmt: skip
    """The bias of a planned grid: sizes evenly spaced in log N within a factor ``width`` of ``centre`` times the optimum.

    Args:
      params: of a Chinchilla law.
      width: factor from the middle of the sizes to their ends.
      centre: middle of the sizes over the optimum, one for all budgets or one each.
      budgets: FLOPs.
      sizes: per budget.
      recipe: of ``RECIPES``.
      flops: the budget to extrapolate to.
      cost: C = k N^g D, 6ND by default.
      reach: of ``estimate``.
    """
    cost, items = cost or Cost(), []
    for c, off in zip(budgets, np.broadcast_to(centre, len(budgets)), strict=True):
        n = off * optimum(params, c, cost)[0] * np.geomspace(1 / width, width, sizes)
        d = c / cost.flops(n, 1.0)
        items.append(Profile(float(c), n, d, CHINCHILLA.loss(params, n, d), np.arange(sizes).astype(str)))
    return _bias(params, tuple(items), recipe, None, flops, cost, reach)


def _bias(
    params: Mapping[str, float], items: tuple[Profile, ...], recipe: str, window: float | None, flops: float,
    cost: Cost | None, reach: float = 1.0,
) -> Bias | None:  # fmt: skip
    exact = estimate(Profiles("rows", items), recipe, window, draws=0, reach=reach)
    if exact.n_line is None or exact.d_line is None:
        return None
    n, d, _ = optimum(params, flops, cost)
    each = tuple(float(b.n_opt / optimum(params, b.flops, cost)[0] - 1) for b in exact.bowls)
    a = exact.a - float(allocation_exponent(params, cost))
    return Bias(a, exact.n_line.at(flops) / float(n) - 1, exact.d_line.at(flops) / float(d) - 1, flops, each)
