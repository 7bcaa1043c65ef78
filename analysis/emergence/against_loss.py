"""The score against pre-training loss, all sizes and budgets together: one curve, and a threshold in it? (Du et al. 2024)"""

from __future__ import annotations

import numpy as np

from analysis.emergence.ability import Ability
from analysis.emergence.shapes import lapsed
from analysis.emergence.verdict import AgainstLoss, Selection

SHUFFLES = 999
LEVEL = 0.05


def judge(ability: Ability, selection: Selection, seed: int = 0) -> AgainstLoss:
    """What the shapes fitted over x = −loss say of one ability."""
    p_value = same_curve(ability, selection, seed)
    bent = selection.winner not in ("constant", "linear") and selection.delta["linear"] > 2.0
    threshold = -float(selection.theta["hinge"][0]) if bent else None
    return AgainstLoss(not p_value <= LEVEL, p_value, selection, threshold, selection.p_broad <= LEVEL)


def same_curve(ability: Ability, selection: Selection, seed: int = 0) -> float:
    """p-value of 'residuals about the curve over loss do not depend on the size', by shuffling them over models.

    NaN where no two models share a size, or all do.
    """
    use = np.isfinite(ability.loss) & np.isfinite(ability.hits) & (ability.n > 0)
    sizes, size = np.unique(ability.n_params[use], return_inverse=True)
    if not 1 < len(sizes) < use.sum():
        return float("nan")
    p = lapsed(selection.curve(-ability.loss[use]))
    n = ability.n[use]
    residual = (ability.hits[use] - n * p) / np.sqrt(n * p * (1 - p))
    counts = np.bincount(size)
    shuffled = np.random.default_rng(seed).permuted(np.tile(residual, (SHUFFLES, 1)), axis=1)
    member = np.eye(len(sizes))[size]
    between = [np.sum((r @ member) ** 2 / counts, axis=-1) for r in (residual, shuffled)]
    return float((1 + np.sum(between[1] >= between[0] - 1e-9)) / (SHUFFLES + 1))
