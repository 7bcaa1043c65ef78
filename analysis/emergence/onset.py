"""Is there anything above chance, from which compute on, and how wide the rise is."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from analysis.emergence import shapes
from analysis.emergence.shapes import LAPSE, TEN_TO_NINETY, Curves
from analysis.emergence.verdict import Onset, Selection
from analysis.intervals import wild_multipliers

LEVEL = 0.05
LADDERS = 5000  # at chance, simulated once for all tasks with the same numbers of items: p-values down to 2e-4
NEGLIGIBLE = 0.03  # of the way from chance to all right: less is no ability, however significant


def present(hits: np.ndarray, n: np.ndarray, chance: float, seed: int = 0) -> np.ndarray:
    """p-values (B,) of 'no group of largest models scores above chance', curves (B, P) at ascending compute.

    The statistic is the largest, over all groups of largest models, of (mean score − chance) over what chance scatters in ONE
    model of as many items: models answer the same items, and may all be lucky together.
    """
    null = max(chance, LAPSE)
    out = np.empty(len(hits))
    kinds, kind = np.unique(np.round(n), axis=0, return_inverse=True)
    for i, items in enumerate(kinds):
        rows = np.flatnonzero(kind.ravel() == i)
        draws = np.random.default_rng(seed).binomial(items.astype(int), null, size=(LADDERS, len(items)))
        at_chance = np.sort(_largest(draws, items, null))
        found = _largest(hits[rows], n[rows], null)
        out[rows] = (1 + LADDERS - np.searchsorted(at_chance, found - 1e-9, side="left")) / (LADDERS + 1)
    return out


def _largest(hits: np.ndarray, n: np.ndarray, chance: float) -> np.ndarray:
    items = np.broadcast_to(n, hits.shape)
    asked = items > 0
    behind = [np.cumsum(a[:, ::-1], axis=1)[:, ::-1] for a in (hits, items, asked)]
    models = np.maximum(behind[2], 1)
    score = behind[0] / np.maximum(behind[1], 1)
    z = (score - chance) / np.sqrt(chance * (1 - chance) * models / np.maximum(behind[1], 1))
    return np.max(np.where(asked, z, -np.inf), axis=1)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values (tasks,) corrected over tasks (Holm 1979)."""
    order = np.argsort(p)
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return out


@functools.lru_cache(maxsize=1024)
def min_effect(n: float, chance: float) -> float:
    """The least score of one model with n items that is told from chance, one-sided at 5 %, in 80 % of draws."""
    null = max(chance, LAPSE)
    p = np.linspace(null, 1.0, 20001)[1:]
    enough = p - null >= 1.6449 * np.sqrt(null * (1 - null) / n) + 0.8416 * np.sqrt(p * (1 - p) / n)
    return float(p[np.argmax(enough)]) if enough.any() else 1.0


def at_least(hits: np.ndarray, n: np.ndarray, chance: float) -> np.ndarray:
    """One-sided binomial p-values of at least so many hits by guessing."""
    from scipy.special import betainc  # a third of a second that only this needs

    k = np.ceil(np.asarray(hits, float) - 1e-6)
    return np.where(k > 0, betainc(np.maximum(k, 1), np.maximum(np.round(n) - k + 1, 1), max(chance, LAPSE)), 1.0)


def above_chance(x: np.ndarray, hits: np.ndarray, n: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """Different x, and for each the largest one-sided binomial p-value against chance from there on (models at one x pooled)."""
    where, group = np.unique(x[n > 0], return_inverse=True)
    pooled = [np.bincount(group, a[n > 0]) for a in (hits, n)]
    p = at_least(pooled[0], pooled[1], chance)
    return where, np.maximum.accumulate(p[::-1])[::-1]


def onsets(tests: Sequence[tuple[np.ndarray, np.ndarray]], level: float = LEVEL) -> list[float | None]:
    """For each task of a family, from ``above_chance``, the least x from which on all scores are above chance.

    Corrected over tasks by Holm's factors on the p-values of the largest models; within a task the x are tested from the
    largest down until one fails, which needs no correction.
    """
    last = np.array([p[-1] for _, p in tests])
    factor = len(last) - np.argsort(np.argsort(last))
    ok = holm(last) <= level
    out: list[float | None] = []
    for (where, p), f, good in zip(tests, factor, ok, strict=True):
        passed = np.flatnonzero(p * f <= level)
        out.append(float(where[passed[0]]) if good and len(passed) else None)
    return out


def measure(
    curves: Curves, selections: Sequence[Selection], starts: Sequence[float | None], clusters: Sequence[str], draws: int, seed: int = 0
) -> list[Onset]:
    """Midpoints and widths of every curve's better sigmoid, with 95 % intervals.

    Where every model is its own cluster these are profile intervals, scaled by phi, with the t distribution's quantile for few
    models.  Checkpoints of one trunk share its luck: their residuals are redrawn together (wild bootstrap over trunks).
    """
    from scipy.special import stdtrit

    out: list[Onset | None] = [None] * len(selections)
    grid = np.unique(curves.x)
    for name, other in (("sigmoid", "sigmoid_top"), ("sigmoid_top", "sigmoid")):
        rows = [i for i, s in enumerate(selections) if (s.delta[name], name) < (s.delta[other], other)]
        if not rows:
            continue
        theta = np.stack([selections[i].theta[name] for i in rows])
        some = curves.take(rows)
        if len(set(clusters)) < len(clusters):
            middles, scales = _redrawn(name, theta, some, clusters, draws, seed)
        else:
            left = np.array([max(selections[i].models - theta.shape[1], 1) for i in rows])
            quantile = stdtrit(left, 0.975) * np.sqrt([selections[i].phi for i in rows])
            middles, scales = (shapes.profile(name, theta, some, which, quantile) for which in (0, 1))
        for i, values, x0, scale in zip(rows, theta, middles, scales, strict=True):
            at = int(np.clip(np.searchsorted(grid, values[0]), 1, len(grid) - 1))
            out[i] = Onset(
                starts[i], float(selections[i].theta["hinge"][0]), float(values[0]), (float(x0[0]), float(x0[1])),
                float(TEN_TO_NINETY * values[1]), (float(TEN_TO_NINETY * scale[0]), float(TEN_TO_NINETY * scale[1])),
                float(grid[at] - grid[at - 1]),
            )  # fmt: skip
    return [o for o in out if o is not None]


def _redrawn(
    name: str, theta: np.ndarray, curves: Curves, clusters: Sequence[str], draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals (B, 2) of x0 and scale over curves whose residuals are multiplied by one random number per cluster."""
    groups = np.unique(clusters, return_inverse=True)[1]
    p = shapes.scores(name, theta, curves.x, curves.floor)
    residual = (curves.hits - curves.n * p) * np.sqrt(len(curves.x) / max(len(curves.x) - theta.shape[1], 1))
    luck = wild_multipliers(np.random.default_rng(seed), draws, groups.max() + 1)[:, groups]
    hits = np.clip(curves.n[:, None] * p[:, None] + residual[:, None] * luck, 0, curves.n[:, None])
    again = Curves(curves.x, hits.reshape(-1, len(curves.x)), np.repeat(curves.n, draws, axis=0), curves.floor)
    found = shapes.fit(again, (name,), starts=1)[name].theta.reshape(len(theta), draws, -1)
    ends = np.quantile(found[..., :2], [0.025, 0.975], axis=1).transpose(1, 0, 2)
    return ends[..., 0], ends[..., 1]
