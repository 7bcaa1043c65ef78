"""Models that differ in the seed alone: how far their scores lie apart, and whether in two heaps.

Over seeds the score of a hard task is often bimodal near its onset: some runs have learnt it and the others have not (Zhao et
al. 2025).  The mean over seeds then rises smoothly while no single run does.
"""

from __future__ import annotations

import numpy as np

from analysis.emergence.ability import Ability
from analysis.emergence.verdict import SeedSpread

GAP = 0.25  # of the score, between the two heaps, at least
OF_RANGE = 2 / 3  # of the range of scores, that the gap takes at least
SIGNIFICANT = 4.0  # standard deviations of counting that the gap takes at least
FEWEST = 3


def spread(ability: Ability) -> SeedSpread | None:
    """The spread over seeds of models of one size and compute; None without repeats."""
    use = np.isfinite(ability.hits) & (ability.n > 0)
    keys = np.stack([np.round(np.log10(ability.flops[use]), 6), np.asarray(ability.n_params[use], float)], axis=1)
    kinds, kind = np.unique(keys, axis=0, return_inverse=True)
    seeds = np.asarray(ability.seeds)[use]
    variances, counting, freedom, heaps = [], [], [], []
    for i, key in enumerate(kinds):
        rows = np.flatnonzero(kind.ravel() == i)
        if len(np.unique(seeds[rows])) < 2:
            continue
        score, n = ability.score[use][rows], ability.n[use][rows]
        mean = score.mean()
        variances.append(score.var(ddof=1))
        counting.append(max(mean * (1 - mean), 1e-4) / n.mean())
        freedom.append(len(rows) - 1)
        if len(rows) >= FEWEST and bimodal(score, n):
            heaps.append(float(key[0]))
    if not freedom:
        return None
    variance, counted = np.average(variances, weights=freedom), np.average(counting, weights=freedom)
    return SeedSpread(len(freedom), float(np.sqrt(variance)), float(variance / counted), tuple(heaps))


def bimodal(score: np.ndarray, n: np.ndarray) -> bool:
    """Whether scores (S,) of S seeds, of n items each, fall into two heaps with nothing between.

    Counting alone makes a gap of SIGNIFICANT standard deviations in fewer than one of 1000 triples.
    """
    order = np.argsort(score)
    gaps = np.diff(score[order])
    i = int(np.argmax(gaps))
    middle = (score[order[i]] + score[order[i + 1]]) / 2
    noise = np.sqrt(middle * (1 - middle) / np.mean(n))
    return bool(gaps[i] >= GAP and gaps[i] >= OF_RANGE * np.ptp(score) and gaps[i] >= SIGNIFICANT * noise)
