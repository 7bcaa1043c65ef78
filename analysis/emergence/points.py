"""Scores of models, wherever they come from → abilities with what is drawn beside them but not judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.emergence.ability import Ability

EXACT, ACCURACY = "exact match", "accuracy"
WITHIN = "within training"  # why a checkpoint is drawn but not judged


@dataclasses.dataclass(frozen=True)
class Point:
    """One model on one task.  ``n`` items were asked, NaN where unknown; ``excluded`` says why it is drawn but not judged."""

    flops: float
    score: float
    n: float = math.nan
    n_params: float = math.nan
    loss: float = math.nan
    cluster: str = ""
    seed: int = 0
    companions: Mapping[str, float] = dataclasses.field(default_factory=dict)
    excluded: str | None = None
    size: str = ""


@dataclasses.dataclass(frozen=True)
class Shown:
    """An ability as it is judged, and the points that are drawn small beside it.

    Attributes:
      key: what names it in JSON and on the command line, such as 'copy/cloze/5'.
      task: without its format.
      format, shots: how it was asked; shots None where that is not known.
      rest: points that are not judged, each with its reason.
    """

    key: str
    task: str
    format: str
    shots: int | None
    ability: Ability
    rest: tuple[Point, ...] = ()


def ability(points: Sequence[Point], task: str, metric: str, chance: float, **about: Any) -> Ability:
    """The points that are not excluded, ascending in compute; companions that fewer than half of them have are left out."""
    kept = sorted((p for p in points if p.excluded is None), key=lambda p: p.flops)
    n = np.array([p.n for p in kept], float)
    names = dict.fromkeys(name for p in kept for name in p.companions)
    companions = {name: np.array([p.companions.get(name, math.nan) for p in kept], float) for name in names}
    return Ability(
        task, metric, chance, flops=np.array([p.flops for p in kept]), hits=np.array([p.score for p in kept]) * n, n=n,
        loss=np.array([p.loss for p in kept], float), n_params=np.array([p.n_params for p in kept], float),
        clusters=tuple(p.cluster or str(i) for i, p in enumerate(kept)), seeds=tuple(p.seed for p in kept),
        companions={k: v for k, v in companions.items() if 2 * np.isfinite(v).sum() > len(kept)}, **about,
    )  # fmt: skip
