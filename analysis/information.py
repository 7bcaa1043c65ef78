"""What a design can tell before it is trained: Fisher information and simulated refits under a prior law.

To first order the estimates of a fit with equal weights have the covariance M^-1 S M^-1, where J holds the derivatives of log
loss by theta under the prior law, M = J^T J, and S = J^T V J for the covariance V of the noise, of which branches of a trunk
share a part.  Where they share none, that is the inverse of the Fisher information M / noise^2.  A quantity with gradient g has
the variance g^T M^-1 S M^-1 g (delta method).  First order is not much where E trades against A and alpha, so the same sweep is
also drawn many times from the prior and fitted as it will be.  Both hold only if the prior does: a design is judged by what it
would tell if the world were like that.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping

import numpy as np

from analysis import fit, load
from analysis.fit import EXPONENT_RANGE, VANISHED
from analysis.identify import condition_of
from analysis.laws import Cost, Law, allocation_exponent, measured_cost, optimum
from analysis.newton import PowerSum, minimise
from scaling.units import format_count

_CHUNK = 20_000  # lanes x rows at a time: fits in cache
_ROUNDING = 1e-15  # of the scaled M's largest eigenvalue: below it a direction counts as unknown
_FRESH = 10  # simulated sweeps that are also fitted from the grid's starts
GRID = 16  # sizes, and token counts, among which the next member is looked for
REACH = 2.0  # the largest candidate over the largest member, in parameters and in tokens
SAME = 1.15  # a branch within this factor of one that is planned is no new member
APART = 1.5  # of two suggestions, in parameters or in tokens
AFFORDABLE = 0.25  # of the design's FLOPs
SPAN = 4.0  # an IsoFLOP profile goes from 1/4 to 4 times the best size
PER_PROFILE = 6


@dataclasses.dataclass(frozen=True)
class Prior:
    """What is believed before: a law of N and D, and the noise about it."""

    law: Law
    params: Mapping[str, float]
    noise: float  # standard deviation of the log loss of one run
    shared: float  # the part of its variance, below 1, that the branches of one trunk have in common
    source: str  # where the law comes from, in words

    def theta(self, centre: Mapping[str, float]) -> np.ndarray:
        """The parameters as the fitter holds them, (parameters,): ``Law.to_params`` backwards."""
        coefficients = [
            math.log(self.params[t.coefficient]) - (self.params[str(t.exponent)] * centre[t.variable] if t.variable else 0.0)
            for t in self.law.terms
        ]
        return np.array(coefficients + [self.params[name] for name in self.law.parameters[len(coefficients) :]])

    def loss(self, n_params: float, n_tokens: float) -> float:
        """Of one run, in nats per token."""
        return float(self.law.loss(self.params, n_params, n_tokens))


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A constant-rate run that further branches can leave."""

    id: str
    n_params: float
    tokens: float  # where it ends
    flops_per_token: float
    cooldown: float  # part of a branch's tokens that it trains by itself

    def extra_tokens(self, n_tokens: float) -> float:
        """Tokens that one more branch of ``n_tokens`` adds: its cooldown, and what the trunk lacks to its fork."""
        return self.cooldown * n_tokens + max(0.0, (1 - self.cooldown) * n_tokens - self.tokens)


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """Annealed members, with or without losses, and what they cost.

    Attributes:
      table: one row per annealed member; losses are not looked at.
      flops: of all training, each trunk once.
      trunks: that the members branch from.
    """

    table: load.Table
    flops: float
    trunks: tuple[Trunk, ...] = ()

    @functools.cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """N and D of the members."""
        return {v: self.table.column(fit.COLUMNS[v]).astype(float) for v in ("N", "D")}

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """(members,) the number of each one's trunk, in order of appearance."""
        number: dict[str, int] = {}
        return np.array([number.setdefault(r.cluster, len(number)) for r in self.table.rows])

    @functools.cached_property
    def cost(self) -> Cost:
        """FLOPs of a run by its size and tokens, nearest to the members' own."""
        return measured_cost(*([getattr(r, c) for r in self.table.rows] for c in ("n_params", "n_tokens", "flops")))

    @property
    def separate_flops(self) -> float:
        """What the members would cost without forks."""
        return float(self.table.column("flops").sum())

    @property
    def correlation(self) -> float:
        """Of log N and log D over the members."""
        logs = [np.log(self.columns[v]) for v in ("N", "D")]
        return float(np.corrcoef(logs)[0, 1]) if all(np.ptp(x) > 0 for x in logs) else 0.0

    def best_target(self, prior: Prior, times: float) -> tuple[float, float]:
        """(N, D) of least loss under the prior at ``times`` the compute of the largest member."""
        n, d, _ = optimum(prior.params, times * self.table.column("flops").max(), self.cost, prior.law)
        return float(n), float(d)

    def plus(self, candidate: Candidate) -> Design:
        """With one more member."""
        flops = float(self.cost.flops(candidate.n_params, candidate.n_tokens))
        row = _row(candidate.words, candidate.n_params, candidate.n_tokens, flops, candidate.trunk)
        table = dataclasses.replace(self.table, rows=(*self.table.rows, row))
        return dataclasses.replace(self, table=table, flops=self.flops + candidate.flops)


def _row(name: str, n_params: float, n_tokens: float, flops: float, cluster: str | None) -> load.Row:
    size = format_count(n_params)
    return load.Row(name, size, n_params, n_tokens, flops, None, cluster=cluster or name, state=load.PLANNED)


# ---- first order


def variance(jacobian: np.ndarray, groups: np.ndarray, prior: Prior, gradients: np.ndarray) -> np.ndarray:
    """To first order, of quantities that a fit of the rows estimates, (quantities,).

    With noise s, shared part r and u the sum of J over a trunk, S = s^2 ((1 - r) M + r sum over trunks of u u^T), so that the
    variance is s^2 ((1 - r) g^T x + r sum (u^T x)^2) with x = M^-1 g.

    Args:
      jacobian: of log loss by theta, (rows, parameters).
      groups: (rows,) the number of each row's trunk.
      prior: whose noise is meant.
      gradients: of the quantities by theta, (quantities, parameters); the variance is huge where the rows tell nothing of one.
    """
    sums = np.zeros((groups.max() + 1, jacobian.shape[1]))
    np.add.at(sums, groups, jacobian)
    length = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    values, vectors = np.linalg.eigh((jacobian / length).T @ (jacobian / length))
    inverse = vectors / np.maximum(values, _ROUNDING * values[-1]) @ vectors.T
    x = gradients / length @ inverse / length
    alone, together = np.sum(gradients * x, -1), np.sum((x @ sums.T) ** 2, -1)
    return prior.noise**2 * ((1 - prior.shared) * alone + prior.shared * together)


def slopes(prior: Prior, columns: Mapping[str, np.ndarray], centre: Mapping[str, float]) -> np.ndarray:
    """Derivatives of log loss by theta under the prior, (rows, parameters)."""
    return prior.law.bind(columns, centre).derivatives(prior.theta(centre)[None]).jacobian[0].T


def _target_slope(prior: Prior, target: tuple[float, float], centre: Mapping[str, float]) -> np.ndarray:
    return slopes(prior, {"N": np.array([target[0]]), "D": np.array([target[1]])}, centre)[0]


# ---- what to expect of a design


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something that a fit of the design would tell, and the central intervals in which estimates of it would fall."""

    value: float  # under the prior
    linear: tuple[float, float]  # to first order
    simulated: tuple[float, float]  # of refits of simulated sweeps


@dataclasses.dataclass(frozen=True, eq=False)
class Expected:
    """What a design would tell under a prior.

    Attributes:
      quantities: the law's constant, its exponents, 'a', 'target' (the law's loss there) and 'run' (the loss of one run there,
        against the law's prediction of it).
      sd: of the log loss that the fitted law predicts at the target, to first order.
      edges: parameters that run away in part of the simulated sweeps, with that part.
      lower_elsewhere: of the ``fresh`` sweeps that were also fitted from the grid's starts, those where that ended lower.
    """

    design: Design
    quantities: dict[str, Quantity]
    sd: float
    condition: float
    edges: dict[str, float]
    draws: int
    unconverged: int
    fresh: int
    lower_elsewhere: int


def expect(
    design: Design, prior: Prior, target: tuple[float, float], level: float, draws: int, delta: float, seed: int = 0,
    fresh: int = _FRESH,
) -> Expected:  # fmt: skip
    """Judges a design.

    Args:
      design: with at least as many members, sizes and token counts as the law needs (``fit.check_rows``).
      prior: the law and the noise.
      target: (N, D) of the run that is to be predicted.
      level: of all intervals.
      draws: simulated sweeps.
      delta: of the Huber loss by which they are fitted.
      seed: of their noise.
      fresh: how many of them are also fitted from the grid's starts.
    """
    law, centre = prior.law, prior.law.centre(design.columns)
    jacobian = slopes(prior, design.columns, centre)
    gradients = _gradients(prior, target, centre)
    spreads = np.sqrt(variance(jacobian, design.groups, prior, np.array(list(gradients.values()))))
    sd = dict(zip(gradients, map(float, spreads), strict=True))
    theta, noise, unconverged, lower = _refits(design, prior, draws, delta, seed, fresh)
    estimates = _estimates(law, theta, target, centre)
    sd["run"] = math.hypot(sd["target"], prior.noise)
    gradients["run"] = gradients["target"]
    estimates["run"] = estimates["target"] * np.exp(noise)
    true = {k: float(v[0]) for k, v in _estimates(law, prior.theta(centre)[None], target, centre).items()}
    true["run"] = true["target"]
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    logs = {law.floor, "target", "run"}  # positive: to first order in the logarithm
    quantities = {}
    for name in gradients:
        spread = z * sd[name]
        ends = (
            (true[name] * math.exp(-spread), true[name] * math.exp(min(spread, 700.0)))
            if name in logs
            else (true[name] - spread, true[name] + spread)
        )
        lo, hi = np.quantile(estimates[name], [(1 - level) / 2, (1 + level) / 2])
        quantities[name] = Quantity(true[name], ends, (float(lo), float(hi)))
    edges = _edges(law, law.bind(design.columns, centre), theta)
    return Expected(
        design, quantities, sd["target"], condition_of(jacobian), edges, draws, unconverged, min(fresh, draws), lower
    )


def _gradients(prior: Prior, target: tuple[float, float], centre: Mapping[str, float]) -> dict[str, np.ndarray]:
    """By theta: of the constant's logarithm, of each exponent, of a, and of the log loss at the target."""
    law, theta = prior.law, prior.theta(centre)
    unit = dict(zip(law.parameters, np.eye(len(theta)), strict=True))
    out = {name: unit[name] for name in (law.floor, *law.parameters[len(law.terms) :]) if name is not None}
    step = 1e-6

    def exponent(at: np.ndarray) -> np.ndarray:
        return np.asarray(allocation_exponent(law.to_params(at, centre), law=law))

    out["a"] = (exponent(theta + step * np.eye(len(theta))) - exponent(theta - step * np.eye(len(theta)))) / (2 * step)
    return out | {"target": _target_slope(prior, target, centre)}


def _estimates(law: Law, theta: np.ndarray, target: tuple[float, float], centre: Mapping[str, float]) -> dict[str, np.ndarray]:
    """The quantities under each theta (lanes, parameters)."""
    params = law.to_params(theta, centre)
    logs = law.bind({"N": np.array([target[0]]), "D": np.array([target[1]])}, centre).log_loss(theta)[:, 0]
    return params | {"a": allocation_exponent(params, law=law), "target": np.exp(np.minimum(logs, 700.0))}


def _refits(
    design: Design, prior: Prior, draws: int, delta: float, seed: int, fresh: int
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """theta of refits of simulated sweeps (draws, parameters), the noise of one more run in each (draws,), how many did not
    converge, and in how many of the first ``fresh`` the grid's starts end lower than the prior's does.
    """
    law, centre, groups = prior.law, prior.law.centre(design.columns), design.groups
    model, start = law.bind(design.columns, centre), prior.theta(centre)[None]
    # A stream each, member by member: one more member leaves the noise of the others as it is, so that the two can be compared.
    shared, own, run = (np.random.default_rng([seed, i]) for i in range(3))
    together = math.sqrt(prior.shared) * shared.standard_normal((groups.max() + 1, draws))[groups]
    noise = prior.noise * (together + math.sqrt(1 - prior.shared) * own.standard_normal((len(groups), draws)))
    targets = model.log_loss(start) + noise.T
    chunk, ones, parts = max(1, _CHUNK // len(groups)), np.ones_like(targets), []
    for i in range(0, draws, chunk):
        some = slice(i, min(i + chunk, draws))
        parts.append(minimise(model, targets[some], ones[some], np.repeat(start, some.stop - i, 0), delta))
    objective = np.concatenate([p.objective for p in parts])
    again = [fit.fit_rows(fit.Rows.of(design.columns, np.exp(t)), law, delta).objective for t in targets[:fresh]]
    lower = sum(found < here * (1 - 1e-6) for found, here in zip(again, objective, strict=False))
    unconverged = int(sum((~p.converged).sum() for p in parts))
    return np.concatenate([p.theta for p in parts]), prior.noise * run.standard_normal(draws), unconverged, lower


def _edges(law: Law, model: PowerSum, theta: np.ndarray) -> dict[str, float]:
    """Parameters that run away, with the part of the lanes in which they do."""
    share = model.shares(theta)[1].max(-1)
    out = {term.coefficient: float(np.mean(share[t] < VANISHED)) for t, term in enumerate(law.terms)}
    lo, hi = EXPONENT_RANGE
    for i, name in enumerate(law.parameters[len(law.terms) :], len(law.terms)):
        out[name] = float(np.mean((theta[:, i] < lo) | (theta[:, i] > hi)))
    return {name: part for name, part in out.items() if part}


# ---- the next member


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One more member, and what it does to the interval of the law's loss at the target."""

    n_params: float
    n_tokens: float
    flops: float  # that it adds
    trunk: str | None  # that it branches from; None for a run of its own
    gain: float  # part of the interval that it takes away, to first order
    per_percent: float  # the same for each percent of the design's FLOPs that it adds

    @property
    def words(self) -> str:
        n, d = format_count(self.n_params), format_count(self.n_tokens)
        return f"{n} on {d} tokens" + (f", branch of {self.trunk}" if self.trunk else "")


def candidates(design: Design, prior: Prior, target: tuple[float, float]) -> list[Candidate]:
    """Runs of their own on a grid of sizes and token counts from the smallest to twice the largest, and further branches of
    the trunks there are, the best per FLOP first.
    """
    n, d = (np.geomspace(v.min(), REACH * v.max(), GRID) for v in (design.columns["N"], design.columns["D"]))
    found: list[tuple[float, float, float, str | None]] = [
        (float(x), float(y), float(design.cost.flops(x, y)), None) for x in n for y in d
    ]
    for trunk in design.trunks:
        planned = [r.n_tokens for r in design.table.rows if r.cluster == trunk.id]
        new = [float(y) for y in d if all(_apart(y, p) > SAME for p in planned)]
        found += [(trunk.n_params, y, trunk.extra_tokens(y) * trunk.flops_per_token, trunk.id) for y in new]
    centre = prior.law.centre(design.columns)
    jacobian = slopes(prior, design.columns, centre)
    added = slopes(prior, {v: np.array([f[i] for f in found]) for i, v in enumerate(("N", "D"))}, centre)
    number = {r.cluster: g for r, g in zip(design.table.rows, design.groups, strict=True)}
    goal = _target_slope(prior, target, centre)[None]
    before = variance(jacobian, design.groups, prior, goal)[0]
    out = []
    for row, (x, y, flops, parent) in zip(added, found, strict=True):
        groups = np.append(design.groups, number.get(parent or "", len(number)))
        gain = 1 - math.sqrt(variance(np.vstack([jacobian, row]), groups, prior, goal)[0] / before)
        out.append(Candidate(x, y, flops, parent, gain, gain * design.flops / (100 * flops)))
    return sorted(out, key=lambda c: -c.per_percent)


def suggestions(ranked: list[Candidate], flops: float, count: int = 5) -> dict[str, list[Candidate]]:
    """What to show of them: 'per_flop', the best ``count`` that lie apart; 'affordable' and 'most', those that take most away
    for at most a quarter of the design's ``flops``, and whatever they cost; none or one of each.
    """
    chosen: list[Candidate] = []
    for c in ranked:
        if all(max(_apart(c.n_params, o.n_params), _apart(c.n_tokens, o.n_tokens)) >= APART for o in chosen):
            chosen.append(c)
        if len(chosen) == count:
            break
    affordable = [c for c in ranked if c.flops <= AFFORDABLE * flops]
    most = [[max(some, key=lambda c: c.gain)] if some else [] for some in (affordable, ranked)]
    return {"per_flop": chosen, "affordable": most[0], "most": most[1]}


def _apart(x: float, y: float) -> float:
    return max(x / y, y / x)


# ---- the same FLOPs otherwise


def isoflop(design: Design, prior: Prior, flops: float) -> Design:
    """About as many runs as the design has, as IsoFLOP profiles that cost ``flops`` together.

    The budgets lie evenly in log C over as many decades as the members do; at each of them the sizes go evenly from 1/4 to 4
    times the best one under the prior, which is as well placed as such a grid can be.  Every run pays for itself from its first
    token: no two share a size, so none share a trunk, nor the noise of one.
    """
    members = len(design.table.rows)
    profiles = min(8, max(3, round(members / PER_PROFILE)))
    sizes = max(5, round(members / profiles))
    used = design.table.column("flops")
    shape = np.geomspace(used.min() / used.max(), 1.0, profiles)
    rows = []
    for i, budget in enumerate(flops * shape / (sizes * shape.sum())):
        best = float(optimum(prior.params, budget, design.cost, prior.law)[0])
        for n in best * np.geomspace(1 / SPAN, SPAN, sizes):
            d = float(design.cost.tokens(n, budget))
            rows.append(_row(f"profile {i + 1}: {format_count(n)}", float(n), d, float(budget), None))
    table = dataclasses.replace(design.table, rows=tuple(rows))
    return Design(table, float(table.column("flops").sum()))
