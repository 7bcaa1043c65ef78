"""The three approaches of Hoffmann et al. 2022 side by side: envelope of curves, IsoFLOP profiles, parametric surface.

Each says how the best N grows with C (N* ~ C^a) and what N* and D* are at a budget.  They use the same runs in different
ways, so where they disagree by more than their intervals at least one of them does not hold: the grid is off its optimum, the
curves are truncated, or the surface has the wrong form.  One that cannot be computed says why.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analysis import envelope, fit, identify, intervals, isoflop, load
from analysis.laws import Cost, allocation_exponent, measured_cost, optimum
from analysis.words import between
from scaling.units import format_count

WINDOW = isoflop.MAX_WIDTH  # sizes further from the best one are not used: no recipe but Akima's follows a wider bowl
RECIPE = "cubic"  # no bias that matters, a third of Akima's scatter; the other two stand beside it
_TITLES = {"envelope": "1 envelope", "isoflop": "2 IsoFLOP", "surface": "3 surface"}


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best N and D at a budget, with their intervals."""

    flops: float
    n_params: float
    n_interval: tuple[float, float]
    n_tokens: float
    d_interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Approach:
    """One approach; without ``a`` where it cannot be computed."""

    name: str  # 'envelope', 'isoflop' or 'surface'
    a: float | None = None
    interval: tuple[float, float] | None = None
    identified: bool = False  # the interval of a is narrower than half of a; for the surface, as analysis.intervals judges
    optima: tuple[Optimum, ...] = ()
    missing: str | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Approaches:
    """All three, with what they were computed from."""

    source: str
    level: float
    items: tuple[Approach, ...]
    agree: bool | None  # whether every two that are identified agree within their intervals; None for fewer than two
    disagreements: tuple[str, ...]
    by_curves: envelope.Envelope | None
    by_profiles: isoflop.IsoFlop | None
    recipes: tuple[isoflop.IsoFlop, ...]  # every recipe on the same profiles and the same redrawn noise
    boot: intervals.Bootstrap | None
    bias: isoflop.Bias | None  # of the IsoFLOP recipe on its grid, if the surface were the truth


def side_by_side(
    table: load.Table, curves: Sequence[load.Curve] = (), boot: intervals.Bootstrap | None = None,
    budgets: Sequence[float] | None = None, level: float = intervals.LEVEL, draws: int = intervals.DRAWS, seed: int = 0,
) -> Approaches:  # fmt: skip
    """The three approaches on one table.

    Args:
      table: runs at their ends; a CSV may hold whole curves, as rows of one cluster.
      curves: of the table's runs (``load.curves``).
      boot: refits of a Chinchilla law to the table; made here if not given.
      budgets: FLOPs at which to quote N* and D*; by default the largest of the table and 10 times that.
      level: of all intervals.
      draws: of every bootstrap.
      seed: of every bootstrap.
    """
    flops = table.column("flops").astype(float)
    budgets = [float(flops.max()), 10 * float(flops.max())] if budgets is None else list(budgets)
    points, no_points = _points(table, curves)
    first, found = _envelope(points, no_points, budgets, level, draws, seed)
    second, recipes = _isoflop(table, points, budgets, level, draws, seed)
    third, boot = _surface(table, boot, budgets, level, draws, seed)
    profile, bias = recipes[0] if recipes else None, None
    if profile is not None and boot is not None and third.identified:
        bias = isoflop.bias_on_grid(boot.fit.params, profile, budgets[-1], _cost(table))
    items = (first, second, third)
    disagreements = tuple(
        f"{_TITLES[x.name]} and {_TITLES[y.name]}: a = {x.a:.3f} and {y.a:.3f}"
        for x, y in itertools.combinations([i for i in items if i.identified], 2)
        if not _agree(x, y)
    )
    agree = not disagreements if sum(i.identified for i in items) > 1 else None
    return Approaches(table.source, level, items, agree, disagreements, found, profile, recipes, boot, bias)


def _agree(x: Approach, y: Approach) -> bool:
    """Whether the difference is within the interval that two independent ones have (the halves facing each other, added in
    squares); the same runs are in both, so the true one is narrower rather than wider.
    """
    assert x.a is not None and y.a is not None and x.interval is not None and y.interval is not None
    (low, low_ends), (high, high_ends) = sorted([(x.a, x.interval), (y.a, y.interval)])
    return high - low <= math.hypot(low_ends[1] - low, high - high_ends[0])


def _cost(table: load.Table) -> Cost:
    return measured_cost(*(table.column(c).astype(float).tolist() for c in ("n_params", "n_tokens", "flops")))


def _points(table: load.Table, curves: Sequence[load.Curve]) -> tuple[envelope.Points | None, str]:
    """Points of training curves, or why there are none."""
    try:
        return (envelope.from_curves(curves, table) if curves else envelope.from_table(table)), ""
    except fit.FitError as error:
        return None, _reason(error, table)


def _reason(error: fit.FitError, table: load.Table) -> str:
    return str(error).removeprefix(f"{table.source}: ")


def _lines(
    name: str, n_line: envelope.PowerLine, d_line: envelope.PowerLine, budgets: Sequence[float], level: float,
    notes: tuple[str, ...],
) -> Approach:  # fmt: skip
    """An approach from straight lines in log-log."""
    optima = tuple(Optimum(c, n_line.at(c), n_line.between(c, level), d_line.at(c), d_line.between(c, level)) for c in budgets)
    ends = n_line.interval(level)
    good = ends[1] - ends[0] <= identify.MAX_EXPONENT_WIDTH * abs(n_line.slope)  # False as well where there is no interval
    if not good:
        where = f"it may lie anywhere from {ends[0]:.3g} to {ends[1]:.3g}" if math.isfinite(ends[0]) else "it has no interval"
        notes = (*notes, f"a is NOT identified: {where}")
    return Approach(name, n_line.slope, ends, good, optima, None, notes)


def _envelope(
    points: envelope.Points | None, reason: str, budgets: Sequence[float], level: float, draws: int, seed: int
) -> tuple[Approach, envelope.Envelope | None]:
    if points is None:
        return Approach("envelope", missing=reason), None
    try:
        found = envelope.estimate(points, draws=draws, seed=seed)
    except fit.FitError as error:
        return Approach("envelope", missing=str(error), notes=points.notes), None
    return _lines("envelope", found.n_line, found.d_line, budgets, level, found.notes), found


def _isoflop(
    table: load.Table, points: envelope.Points | None, budgets: Sequence[float], level: float, draws: int, seed: int
) -> tuple[Approach, tuple[isoflop.IsoFlop, ...]]:
    """From the first of an IsoFLOP grid, rows between budgets, and curves that shows a least loss at three budgets."""
    ways: list[Callable[[], isoflop.Profiles]] = [lambda: isoflop.by_budget(table), lambda: isoflop.by_size(table)]
    if points is not None:
        ways.append(lambda: isoflop.interpolated(points, "curves", table.source))
    reasons, best = [], None
    for way in ways:
        try:
            profiles = way()
        except fit.FitError as error:
            reasons.append(_reason(error, table))
            continue
        found = isoflop.estimate(profiles, RECIPE, WINDOW, draws=draws, level=level, seed=seed)
        if found.n_line is not None:
            best = found
            break
        reasons.append(f"{profiles.source}: {found.missing}")
    if best is None or best.n_line is None or best.d_line is None:
        return Approach("isoflop", missing="; ".join(reasons)), ()
    others = tuple(
        isoflop.estimate(best.profiles, name, WINDOW if isoflop.RECIPES[name].degree else None, best.noise, draws, level, seed)
        for name in isoflop.RECIPES
        if name != RECIPE
    )
    recipes = (best, *others)
    warned = [f"at {b.flops:.2e} FLOPs {'; '.join(b.warnings)}" for b in best.bowls if b.warnings]
    notes = (f"{RECIPE} through {sum(b.reason is None for b in best.bowls)} profiles", *best.notes, *warned)
    notes += isoflop.disagreements(recipes)
    return _lines("isoflop", best.n_line, best.d_line, budgets, level, notes), recipes


def _surface(
    table: load.Table, boot: intervals.Bootstrap | None, budgets: Sequence[float], level: float, draws: int, seed: int
) -> tuple[Approach, intervals.Bootstrap | None]:
    try:
        boot = intervals.bootstrap(fit.fit(table), draws, seed=seed) if boot is None else boot
    except fit.FitError as error:
        return Approach("surface", missing=_reason(error, table)), None
    if not {"A", "B", "alpha", "beta"} <= boot.params.keys():
        return Approach("surface", missing=f"the {boot.fit.law.name} law has no exponents alpha and beta"), boot
    cost, params, each = _cost(boot.fit.table), boot.fit.params, boot.params
    verdict = identify.judge_parameters(boot, level)["a"]
    optima = []
    with np.errstate(all="ignore"):  # a draw whose exponent ran away has no optimum
        ends = envelope.central(allocation_exponent(each, cost), level)
        for c in budgets:
            best, drawn = optimum(params, c, cost), optimum(each, c, cost)
            (n, d), (n_ends, d_ends) = best[:2], (envelope.central(v, level) for v in drawn[:2])
            optima.append(Optimum(c, float(n), n_ends, float(d), d_ends))
    notes = (boot.words(),) + (() if verdict.identified else (f"a is NOT identified: {'; '.join(verdict.reasons)}",))
    a = float(allocation_exponent(params, cost))
    return Approach("surface", a, ends, verdict.identified, tuple(optima), None, notes), boot


def to_json(found: Approaches) -> dict[str, Any]:
    """As JSON types; a number that there is not is None."""
    return _plain({
        "source": found.source, "level": found.level, "agree": found.agree, "disagreements": found.disagreements,
        "approaches": [dataclasses.asdict(i) for i in found.items],
        "recipes": [{"recipe": r.recipe, "window": r.window, "a": r.a, "interval": r.interval, "noise": r.noise}
                    for r in found.recipes if r.n_line is not None],
        "bias_if_the_surface_holds": dataclasses.asdict(found.bias) if found.bias else None,
        "profiles": _profiles(found.by_profiles) if found.by_profiles else None,
        "frontier": _frontier(found.by_curves) if found.by_curves else None,
    })  # fmt: skip


def _profiles(found: isoflop.IsoFlop) -> dict[str, Any]:
    """The bowls, without their draws."""
    kept = [f.name for f in dataclasses.fields(isoflop.Bowl) if f.name != "draws"]
    bowls = [{name: getattr(b, name) for name in kept} for b in found.bowls]
    return {"recipe": found.recipe, "source": found.profiles.source, "notes": found.notes, "bowls": bowls}


def _frontier(found: envelope.Envelope) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(envelope.Frontier)]
    return {name: getattr(found.frontier, name) for name in names} | {"notes": found.notes}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def in_words(found: Approaches) -> str:
    """A line per approach, what they say at the budgets, and whether they agree."""
    lines = [f"three approaches to N* ~ C^a, {100 * found.level:g} % intervals"]
    for item in found.items:
        if item.missing is not None or item.a is None or item.interval is None:
            lines.append(f"  {_TITLES[item.name]:<11} none: {item.missing}")
            continue
        value = f"a = {item.a:.3f} {between(item.interval)}" if item.identified else "no a"
        lines.append(f"  {_TITLES[item.name]:<11} {value}" + "".join(f"\n{'':14}{note}" for note in item.notes))
        lines += [f"{'':14}at {o.flops:.2e} FLOPs {_best(o)}" for o in item.optima if item.identified]
    if found.agree is not None:
        count = sum(i.identified for i in found.items)
        agreed = f"the {'three' if count == 3 else 'two'} agree within their intervals"
        lines.append(agreed if found.agree else "they do NOT agree within their intervals: " + "; ".join(found.disagreements))
    if found.bias is not None and found.by_profiles is not None:
        b = found.bias
        lines.append(
            f"if the surface holds, the {found.by_profiles.recipe} on these profiles is off by {b.a:+.4f} in a and by "
            f"{100 * b.n_params:+.2g} % in N* at {b.flops:.2e} FLOPs (not corrected for)"
        )
    return "\n".join(lines)


def _best(o: Optimum) -> str:
    n, d = (f"{format_count(v)} [{', '.join(map(format_count, ends))}]"
            for v, ends in ((o.n_params, o.n_interval), (o.n_tokens, o.d_interval)))  # fmt: skip
    return f"{n} parameters, {d} tokens"
