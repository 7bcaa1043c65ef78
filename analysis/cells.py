"""Two sweeps run by run: the loss of runs that have one N and D in both, without a law but for what a difference is worth."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from analysis import pairing

if TYPE_CHECKING:
    from analysis.multiplier import Side


@dataclasses.dataclass(frozen=True)
class Cells:
    """Runs of one N and D in both sweeps: mean loss of the second less that of the first, and what it means in compute."""

    count: int
    twins: int
    clusters: int
    moved: float  # largest difference of N that was corrected for, as a fraction
    difference: float
    interval: tuple[float, float] | None
    multiplier: float | None
    multiplier_interval: tuple[float, float] | None


def measure(both: pairing.Comparable, found: list[pairing.Pair], second: Side, level: float) -> Cells | None:
    """Differences of matched runs, without a law but for the slope that turns them into compute.

    Where N differs, the second run is brought to the first one's N and D by its own law.  A difference of log compute is the
    difference of loss over the slope of the second curve at the loss halfway, since along a curve E + K C^-gamma
    log C changes by the difference of log(L - E) / gamma, and log((x + d) / (x - d)) is 2 d / x to third order.
    """
    if not found:
        return None
    rows, others, law, params = both.a.fitted, both.b.fitted, second.fit.law, second.fit.params
    loss = np.array([[float(rows[p.i].loss or 0), float(others[p.j].loss or 0)] for p in found])
    shape = [
        np.array([[r.n_params, r.n_tokens] for r in some])
        for some in ([rows[p.i] for p in found], [others[p.j] for p in found])
    ]
    loss[:, 1] *= law.loss(params, *shape[0].T) / law.loss(params, *shape[1].T)
    clusters = [rows[p.i].cluster for p in found]
    difference, ends = _cluster_mean(loss[:, 1] - loss[:, 0], clusters, level)
    at = second.reach(params, loss.mean(1))
    step = 1e-3
    with np.errstate(all="ignore"):
        slope = (second.losses(params, at * np.exp(-step)) - second.losses(params, at * np.exp(step))) / (2 * step)
        log_m = (loss[:, 1] - loss[:, 0]) / slope
    good = bool(np.isfinite(log_m).all())
    mean, mean_ends = _cluster_mean(log_m, clusters, level) if good else (0.0, None)
    return Cells(
        len(found), sum(p.twins for p in found), len(set(clusters)),
        float(np.abs(shape[1][:, 0] / shape[0][:, 0] - 1).max()), difference, ends, float(np.exp(mean)) if good else None,
        None if mean_ends is None else (float(np.exp(mean_ends[0])), float(np.exp(mean_ends[1]))),
    )  # fmt: skip


def _cluster_mean(values: np.ndarray, clusters: list[str], level: float) -> tuple[float, tuple[float, float] | None]:
    """The mean and its interval by Student's t over clusters (Liang and Zeger 1986, with G / (G - 1)); none of one cluster."""
    from scipy.special import stdtrit

    mean, groups = float(values.mean()), np.unique(clusters, return_inverse=True)[1]
    count = int(groups.max()) + 1
    if count < 2:
        return mean, None
    sums = np.bincount(groups, values - mean)
    half = float(stdtrit(count - 1, (1 + level) / 2) * np.sqrt(count / (count - 1) * np.sum(sums**2)) / len(values))
    return mean, (mean - half, mean + half)
