"""How far to trust a fit: bootstrap intervals of its parameters and of predictions (``analysis.identify`` gives verdicts).

What the intervals mean.  A parameter's interval is where refits land when the residuals are redrawn, so it holds if the law's
form is right.  A prediction's interval adds the scatter of single runs: it is where one new run is expected to land, again if
the form holds that far out.  On public tables such bands cover fewer held-out decades of compute than their level says, which
is why the extrapolation ratio always stands beside them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from analysis.fit import AnyLaw, Fit
from analysis.identify import Verdict, jacobian, judge_prediction
from analysis.laws import Cost, Law, allocation_exponent, has_allocation
from analysis.newton import minimise

LEVEL = 0.9
DRAWS = 1000
MANY_CLUSTERS = 30  # from which whole clusters are resampled; below, a resample often cannot carry the law
NEARLY_ABSOLUTE = 0.5  # share of residuals inside delta below which a fit is decided by the few rows that it passes through
FEW_CLUSTERS = 12  # below: Webb's six-point weights, since two-point ones have only 2^clusters different draws
FAR = 10.0  # times the largest fitted compute
_WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
_MAX_SHIFT = 1.0  # of a bias correction, in standard deviations; on simulated sweeps it has mean 0 and sd 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits of a fit, one per draw."""

    fit: Fit
    kind: str  # 'wild' or 'case'
    theta: np.ndarray  # (draws, parameters)
    noise: np.ndarray  # of log loss, for each draw: what one more run of weight 1 (the rows' mean) scatters
    clusters: int
    unconverged: int

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Parameters by name, one value per draw."""
        return self.fit.law.to_params(self.theta, self.fit.centre)

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The parameters and, where the law has one, the allocation exponent ``a`` = beta / (alpha + beta)."""
        return self.params | allocation(self.fit.law, self.params)

    def unbiased(self, values: np.ndarray, point: float) -> np.ndarray:
        """The draws of a quantity, sorted and shifted in rank until half of them lie below ``point``, the fit's own.

        That is Efron's bias correction (1981): quantile u becomes quantile Phi(2 z + Phi^-1(u)), z = Phi^-1(share below point).
        Resampled rows need it, since a near-absolute fit sits on a few rows and its resamples on others.  The wild bootstrap
        redraws around the fit and does not; nor has a fit at an edge, where all draws lie to one side, anything to correct.
        """
        from scipy.special import ndtr, ndtri  # a third of a second that only this needs

        if self.kind != "case" or self.fit.edges:
            return np.sort(values)
        count = len(values)
        below = np.clip((np.sum(values < point) + np.sum(values <= point)) / 2 / count, 0.5 / count, 1 - 0.5 / count)
        shift = float(np.clip(ndtri(below), -_MAX_SHIFT, _MAX_SHIFT))
        return np.quantile(values, ndtr(2 * shift + ndtri((np.arange(count) + 0.5) / count)))

    def interval(self, values: np.ndarray, level: float = LEVEL, point: float | None = None) -> tuple[float, float]:
        """The central interval of a quantity computed from each draw; corrected for bias where its ``point`` value is given."""
        known = values if point is None else self.unbiased(values, point)
        lo, hi = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        return float(lo), float(hi)

    def intervals(self, level: float = LEVEL) -> dict[str, tuple[float, float]]:
        """By name: of every parameter, and of ``a`` where the law has one."""
        points = self.fit.params | allocation(self.fit.law, self.fit.params)
        return {name: self.interval(v, level, float(points[name])) for name, v in self.values.items()}

    def words(self) -> str:
        """What was resampled."""
        what = "rows" if self.clusters == len(self.fit.residuals) else "clusters (rows of one run or trunk)"
        if self.kind == "case":
            return f"{len(self.theta)} refits, {self.clusters} {what} resampled with replacement"
        return f"{len(self.theta)} refits, wild bootstrap over {self.clusters} {what}"


def bootstrap(
    fit: Fit, draws: int = DRAWS, kind: str | None = None, seed: int = 0, multipliers: np.ndarray | None = None
) -> Bootstrap:
    """Refits the law ``draws`` times, warm-started at the fit.

    'case': clusters (rows that share a run or a trunk; a row alone is one) are drawn with replacement, whole.  'wild' (Wu 1986;
    clusters: Cameron, Gelbach and Miller 2008): the residuals of all rows of a cluster are multiplied by one random weight of
    mean 0 and variance 1.  A fit shrinks its residuals, so what it absorbed is put back first, by cluster and leverage
    (MacKinnon, Nielsen and Webb 2023).

    Which one where was settled on simulated sweeps (``python benchmarks/interval_coverage.py``).  Where the loss is nearly that
    of absolute values, the wild bootstrap of 16 to 25 rows covers only 83 to 93 % where it claims 95, since rows that the fit
    passes through have no residual to redraw; resampled rows, corrected for bias, cover 94 to 97 %.  On simulated ladders of
    five trunks with three branches (least squares) the wild one's 90 % intervals cover 88 to 95 % of the parameters and 85 to
    94 % of runs one size up; with sqrt(n / (n - p)) in place of leverages, 59 to 79 % and 62 to 83 %.  Resampling a handful of
    trunks whole would mostly draw tables that cannot carry the law.

    Args:
      fit: to refit.
      draws: number of refits.
      kind: by default ``default_kind``.
      seed: of the random weights.
      multipliers: (draws, clusters in the order of ``cluster_names``) wild weights to use instead of fresh ones, so that two
        fits can share them; they decide number and kind.
    """
    rng = np.random.default_rng(seed)
    n, groups = len(fit.residuals), fit.rows.groups
    clusters = int(groups.max()) + 1
    if multipliers is not None:
        draws, kind = len(multipliers), "wild"
    kind = kind or default_kind(fit)
    fitted = fit.model.log_loss(fit.theta[None])[0]
    if kind == "case":
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)[:, groups] * fit.rows.weights
        targets = np.broadcast_to(fitted + fit.residuals, (draws, n))
    else:
        multipliers = wild_multipliers(rng, draws, clusters) if multipliers is None else multipliers
        weights = np.broadcast_to(fit.rows.weights, (draws, n))
        targets = fitted + corrected_residuals(fit, groups, 1.0) * multipliers[:, groups]
    start = np.repeat(fit.model.revived(fit.theta[None]), draws, 0)
    refits = minimise(fit.model, targets, weights, start, fit.delta)
    standard = np.sqrt(fit.rows.weights) * corrected_residuals(fit, groups, 0.5)
    noise = rng.choice(standard, draws) * rng.choice([-1.0, 1.0], draws)
    return Bootstrap(fit, kind, refits.theta, noise, clusters, int((~refits.converged).sum()))


def default_kind(fit: Fit) -> str:
    """'case' for 30 or more clusters; where fewer than half of the residuals lie inside delta, for three per parameter."""
    clusters = int(fit.rows.groups.max()) + 1
    nearly_absolute = np.mean(np.abs(fit.residuals) <= fit.delta) < NEARLY_ABSOLUTE
    return "case" if clusters >= (min(3 * len(fit.theta), MANY_CLUSTERS) if nearly_absolute else MANY_CLUSTERS) else "wild"


def cluster_names(fit: Fit) -> list[str]:
    """The clusters of the fitted rows, in the order of the columns of ``multipliers``."""
    return [str(name) for name in np.unique(fit.rows.clusters)]


def wild_multipliers(rng: np.random.Generator, draws: int, clusters: int) -> np.ndarray:
    """(draws, clusters) weights of mean 0 and variance 1: two-point, of few clusters Webb's six-point ones."""
    return rng.choice(_WEBB if clusters < FEW_CLUSTERS else np.array([-1.0, 1.0]), size=(draws, clusters))


def allocation(law: AnyLaw, params: dict[str, Any]) -> dict[str, Any]:
    """{'a': beta / (alpha + beta)} where the law trades parameters against tokens by two exponents, else nothing: with one
    exponent for both, a is 1/2 whatever the rows are.
    """
    if not isinstance(law, Law) or not has_allocation(law) or len(law.exponents) < 2:
        return {}
    return {"a": allocation_exponent(params, law=law)}


def corrected_residuals(fit: Fit, groups: np.ndarray, power: float) -> np.ndarray:
    """Residuals with what the fit absorbed of them put back, cluster by cluster: (1 - H_gg)^-power r_g, H the hat matrix.

    Power 1/2 gives residuals of the right variance (CR2), power 1 those of a fit without the cluster (CR3).
    """
    root = np.sqrt(fit.rows.weights)
    orthonormal = np.linalg.qr(root[:, None] * jacobian(fit))[0]
    scaled, out = root * fit.residuals, np.empty_like(fit.residuals)
    for g in range(groups.max() + 1):
        rows = np.flatnonzero(groups == g)
        values, vectors = np.linalg.eigh(np.eye(len(rows)) - orthonormal[rows] @ orthonormal[rows].T)
        values = np.maximum(values, 0.01)  # a direction that only this cluster pins has no residual to put back
        out[rows] = vectors @ ((vectors.T @ scaled[rows]) * values**-power)
    return out / root


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
    cost: Cost | None = None, weight: float = 1.0,
) -> Prediction:  # fmt: skip
    """Predicts one run.

    How far it lies beyond the evidence is no matter of identification (``identify.judge_prediction``): ``far`` says when it is
    more than 10 times the largest fitted compute.

    Args:
      boot: refits of the law.
      n_params: by the table's definition.
      n_tokens: tokens trained on.
      flops: by the table's convention; by default ``cost`` of the run.
      level: of the interval, which includes the scatter of single runs.
      cost: C = k N^g D where ``flops`` is not given; 6ND by default.
      weight: of the run, where the rows have weights: its noise variance is that of weight 1, their mean, over this.
    """
    fit = boot.fit
    flops = float((cost or Cost()).flops(n_params, n_tokens)) if flops is None else flops
    loss = float(fit.losses(fit.theta[None], n_params, n_tokens, flops)[0])
    values = fit.losses(boot.theta, n_params, n_tokens, flops)
    ends = boot.interval(with_noise(boot, values, loss, weight), level)
    ratio = flops / float(fit.table.column("flops").max())
    verdict = judge_prediction(fit, n_params, n_tokens, loss, ends)
    return Prediction(float(n_params), float(n_tokens), loss, ends, level, ratio, verdict)


def with_noise(boot: Bootstrap, losses: np.ndarray, point: float, weight: float = 1.0) -> np.ndarray:
    """Draws of what one run measures, from those (draws,) of its expected loss, whose fitted value is ``point``."""
    order = np.random.default_rng(0).permutation(len(losses))  # sorted draws must not meet the noise in any order of its own
    return boot.unbiased(losses, point)[order] * np.exp(boot.noise / np.sqrt(weight))


def to_dict(prediction: Prediction) -> dict[str, Any]:
    """As JSON types."""
    return dataclasses.asdict(prediction) | {"interval": list(prediction.interval)}
