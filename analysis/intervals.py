"""How far to trust a fit: bootstrap intervals of parameters and predictions, and verdicts on what the rows identify.

What the intervals mean.  A parameter's interval is where refits land when the residuals are redrawn, so it holds if the law's
form is right.  A prediction's interval adds the scatter of single runs: it is where one new run is expected to land, again if
the form holds that far out.  On public tables such bands cover fewer held-out decades of compute than their level says, which
is why the extrapolation ratio always stands beside them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from analysis.fit import Fit, log_loss, minimise, revived, to_params
from analysis.laws import Cost, allocation_exponent

LEVEL = 0.9
DRAWS = 1000
MANY_ROWS = 30  # independent rows from which whole rows are resampled; below, a resample often cannot carry the law
FEW_CLUSTERS = 12  # below: Webb's six-point weights, since two-point ones have only 2^clusters different draws
_WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
_CHUNK = 20_000  # lanes x rows at a time: fits in cache

# Rules of the verdicts, each stated in the words that report it.
MAX_CONDITION = 1e6  # of the scaled normal matrix J^T J; the 240 points of Chinchilla have about 1e3
MAX_COLLINEAR = 0.995  # |correlation| of log N and log D
MAX_E_FACTOR = 1.5  # upper over lower end of E's interval
MAX_EXPONENT_WIDTH = 0.5  # an exponent's interval over its value
MAX_PREDICTION_WIDTH = 0.1  # a prediction's interval over its value: 5 % to either side
FAR = 10.0  # times the largest fitted compute


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits of a fit, one per draw."""

    fit: Fit
    kind: str  # 'wild' or 'case'
    theta: np.ndarray  # (draws, parameters)
    noise: np.ndarray  # a redrawn residual of log loss for each draw
    clusters: int
    unconverged: int

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Parameters by name, one value per draw."""
        return to_params(self.fit.law, self.theta, self.fit.centre)

    def interval(self, values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
        """The central interval of a quantity computed from each draw."""
        lo, hi = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(lo), float(hi)

    def intervals(self, level: float = LEVEL) -> dict[str, tuple[float, float]]:
        """By name: of every parameter, and of the allocation exponent ``a`` = beta / (alpha + beta) where the law has one."""
        values = self.params
        if {"alpha", "beta"} <= values.keys():
            values["a"] = allocation_exponent(values)
        return {name: self.interval(v, level) for name, v in values.items()}

    def words(self) -> str:
        """What was resampled."""
        if self.kind == "case":
            return f"{len(self.theta)} refits, rows resampled with replacement"
        what = "rows" if self.clusters == len(self.fit.residuals) else "trunks"
        return f"{len(self.theta)} refits, wild bootstrap over {self.clusters} {what}"


def bootstrap(
    fit: Fit, draws: int = DRAWS, kind: str | None = None, seed: int = 0, multipliers: np.ndarray | None = None
) -> Bootstrap:
    """Refits the law ``draws`` times, warm-started at the fit.

    'wild' (Wu 1986; clusters: Cameron, Gelbach and Miller 2008): the residuals of all rows of a cluster are multiplied by one
    random weight of mean 0 and variance 1.  A fit shrinks its residuals, so what it absorbed is put back first, by cluster and
    leverage (MacKinnon, Nielsen and Webb 2023).  On simulated ladders of five trunks with three branches 90 % intervals cover
    88 to 95 % of the parameters and 85 to 94 % of runs one size up; with sqrt(n / (n - p)) instead, 59 to 79 % and 62 to 83 %.
    Resampling a handful of trunks whole would mostly draw tables that cannot carry the law.  'case': rows with replacement.

    Args:
      fit: to refit.
      draws: number of refits.
      kind: by default 'case' for 30 or more rows that are each their own cluster, else 'wild'.
      seed: of the random weights.
      multipliers: (draws, clusters in the order of ``cluster_names``) wild weights to use instead of fresh ones, so that two
        fits can share them; they decide number and kind.
    """
    rng = np.random.default_rng(seed)
    n = len(fit.residuals)
    if multipliers is not None:
        draws, kind = len(multipliers), "wild"
    groups = np.unique([r.cluster for r in fit.table.fitted], return_inverse=True)[1]
    clusters = int(groups.max()) + 1
    kind = kind or ("case" if clusters == n >= MANY_ROWS else "wild")
    fitted = log_loss(fit.design, fit.theta[None])[0]
    if kind == "case":
        weights = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
        targets = np.broadcast_to(fitted + fit.residuals, (draws, n))
    else:
        multipliers = wild_multipliers(rng, draws, clusters) if multipliers is None else multipliers
        weights = np.ones((draws, n))
        targets = fitted + corrected_residuals(fit, groups, 1.0) * multipliers[:, groups]
    chunk, start = max(1, _CHUNK // n), revived(fit.design, fit.theta[None])
    parts = []
    for i in range(0, draws, chunk):
        some = slice(i, min(i + chunk, draws))
        parts.append(minimise(fit.design, targets[some], weights[some], np.repeat(start, some.stop - i, 0), fit.delta))
    noise = rng.choice(corrected_residuals(fit, groups, 0.5), draws) * rng.choice([-1.0, 1.0], draws)
    unconverged = int(sum((~p.converged).sum() for p in parts))
    return Bootstrap(fit, kind, np.concatenate([p.theta for p in parts]), noise, clusters, unconverged)


def cluster_names(fit: Fit) -> list[str]:
    """The clusters of the fitted rows, in the order of the columns of ``multipliers``."""
    return [str(name) for name in np.unique([r.cluster for r in fit.table.fitted])]


def wild_multipliers(rng: np.random.Generator, draws: int, clusters: int) -> np.ndarray:
    """(draws, clusters) weights of mean 0 and variance 1: two-point, of few clusters Webb's six-point ones."""
    return rng.choice(_WEBB if clusters < FEW_CLUSTERS else np.array([-1.0, 1.0]), size=(draws, clusters))


def jacobian(fit: Fit) -> np.ndarray:
    """Derivatives of log loss by theta at the rows, shape (rows, parameters)."""
    step = 1e-6
    plus, minus = (log_loss(fit.design, fit.theta + sign * step * np.eye(len(fit.theta))) for sign in (1, -1))
    return ((plus - minus) / (2 * step)).T


def corrected_residuals(fit: Fit, groups: np.ndarray, power: float) -> np.ndarray:
    """Residuals with what the fit absorbed of them put back, cluster by cluster: (1 - H_gg)^-power r_g, H the hat matrix.

    Power 1/2 gives residuals of the right variance (CR2), power 1 those of a fit without the cluster (CR3).
    """
    orthonormal = np.linalg.qr(jacobian(fit))[0]
    out = np.empty_like(fit.residuals)
    for g in range(groups.max() + 1):
        rows = np.flatnonzero(groups == g)
        values, vectors = np.linalg.eigh(np.eye(len(rows)) - orthonormal[rows] @ orthonormal[rows].T)
        values = np.maximum(values, 0.01)  # a direction that only this cluster pins has no residual to put back
        out[rows] = vectors @ ((vectors.T @ fit.residuals[rows]) * values**-power)
    return out


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether something is identified, with every reason against it."""

    identified: bool
    reasons: tuple[str, ...]


def judge_parameters(boot: Bootstrap, level: float = LEVEL) -> dict[str, Verdict]:
    """Verdicts on 'E', 'exponents' and, apart from them, 'a'; predictions are judged where they are made (``predict``).

    The irreducible loss E is identified when its interval stays off zero and its ends differ by less than a factor of 1.5; the
    exponents when each interval is narrower than half the value; a (which the ridge between E, A and alpha leaves alone) when
    its interval is narrower than half its value.  None is when log N and log D are collinear (|correlation| > 0.995), the
    scaled normal matrix is worse than 1e6, a parameter ran to an edge, or Newton found no strict minimum.
    """
    fit = boot.fit
    common = list(fit.edges)
    n, d = (np.log(fit.table.column(c).astype(float)) for c in ("n_params", "n_tokens"))
    if abs(correlation := float(np.corrcoef(n, d)[0, 1])) > MAX_COLLINEAR:
        common.append(
            f"tokens grow in step with parameters in all rows (correlation of logs {correlation:.4f}), so the two power laws "
            f"cannot be told apart: add rows with other tokens per parameter"
        )
    if (worst := condition(fit)) > MAX_CONDITION:
        common.append(f"the condition number of the normal matrix is {worst:.1e} (limit {MAX_CONDITION:.0e})")
    if not fit.certificate.convex:
        common.append("the minimum is not strict: some combination of parameters is free")
    ranges = boot.intervals(level)
    out = {}
    if "E" in ranges:
        lo, hi = ranges["E"]
        wide = [f"E may lie anywhere from {lo:.3g} to {hi:.3g}: it needs larger and longer runs"]
        out["E"] = wide if lo <= 0.05 * fit.params["E"] or hi > MAX_E_FACTOR * lo else []
    out["exponents"] = [
        _wide(name, ranges[name])
        for name in fit.law.exponents
        if _relative(ranges[name], fit.params[name]) > MAX_EXPONENT_WIDTH
    ]
    if "a" in ranges:
        a = allocation_exponent(fit.params)
        out["a"] = [_wide("a", ranges["a"])] if _relative(ranges["a"], a) > MAX_EXPONENT_WIDTH else []
    return {what: Verdict(not (common or reasons), tuple(common + reasons)) for what, reasons in out.items()}


def _relative(ends: tuple[float, float], value: float) -> float:
    return (ends[1] - ends[0]) / abs(value)


def _wide(name: str, ends: tuple[float, float]) -> str:
    return f"{name} may lie anywhere from {ends[0]:.3g} to {ends[1]:.3g}"


def condition(fit: Fit) -> float:
    """Condition number of J^T J of the rows, its columns scaled to one length."""
    columns = jacobian(fit)
    length = np.linalg.norm(columns, axis=0)
    if (length == 0).any():
        return float("inf")
    return float(np.linalg.cond(columns / length)) ** 2


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The loss that one new run is expected to reach, and how far that is from the evidence."""

    n_params: float
    n_tokens: float
    loss: float
    interval: tuple[float, float]
    level: float
    extrapolation: float  # its compute over the largest fitted compute
    verdict: Verdict

    @property
    def far(self) -> bool:
        """Whether it lies more than 10 times beyond the largest fitted compute."""
        return self.extrapolation > FAR


def predict(
    boot: Bootstrap, n_params: float, n_tokens: float, flops: float | None = None, level: float = LEVEL,
    cost: Cost | None = None,
) -> Prediction:  # fmt: skip
    """Predicts one run.

    It is identified when its interval is narrower than 10 % of the loss (5 % to either side); with collinear rows also only
    near their line, since nothing is known beside it.  How far it lies beyond the evidence is no matter of identification:
    ``far`` says when it is more than 10 times the largest fitted compute.

    Args:
      boot: refits of the law.
      n_params: by the table's definition.
      n_tokens: tokens trained on.
      flops: by the table's convention; by default ``cost`` of the run.
      level: of the interval, which includes the scatter of single runs.
      cost: C = k N^g D where ``flops`` is not given; 6ND by default.
    """
    fit = boot.fit
    values = fit.losses(boot.theta, n_params, n_tokens) * np.exp(boot.noise)
    loss, ends = float(fit.losses(fit.theta[None], n_params, n_tokens)[0]), boot.interval(values, level)
    flops = float((cost or Cost()).flops(n_params, n_tokens)) if flops is None else flops
    ratio = flops / float(fit.table.column("flops").max())
    reasons = []
    if (width := _relative(ends, loss)) > MAX_PREDICTION_WIDTH:
        spans = f"{100 * width:.0f} % of" if width < 10 else "more than ten times"
        reasons.append(f"its interval spans {spans} the loss (limit {100 * MAX_PREDICTION_WIDTH:.0f} %)")
    reasons += _off_the_line(fit, n_params, n_tokens)
    return Prediction(float(n_params), float(n_tokens), loss, ends, level, ratio, Verdict(not reasons, tuple(reasons)))


def _off_the_line(fit: Fit, n_params: float, n_tokens: float) -> list[str]:
    """For collinear rows: whether the target leaves their line by more than the rows do (or a tenth)."""
    n, d = (np.log(fit.table.column(c).astype(float)) for c in ("n_params", "n_tokens"))
    if abs(np.corrcoef(n, d)[0, 1]) <= MAX_COLLINEAR:
        return []
    slope, level = np.polyfit(n, d, 1)
    spread = np.abs(d - slope * n - level).max()
    off = abs(np.log(n_tokens) - slope * np.log(n_params) - level)
    if off <= max(2 * spread, 0.1):
        return []
    return ["the rows lie on one line of tokens against parameters and this run lies beside it: nothing is known there"]


def to_dict(prediction: Prediction) -> dict[str, Any]:
    """As JSON types."""
    return dataclasses.asdict(prediction) | {"interval": list(prediction.interval)}
