"""An ability: one task in one format over the models of a ladder, with its continuous companions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ability:
    """Arrays are (P,), one entry per model (a checkpoint of a run), ascending in ``flops``; NaN is unknown.

    Attributes:
      task: its name, and its format where it has several, as shown.
      metric: 'accuracy' or 'exact match', or what else is counted as hit or miss.
      chance: of a guess; 0 for exact match.
      flops: training compute of each model.
      hits: expected number of right answers, score times ``n``.
      n: items asked, per model; NaN where the model was not asked.
      loss: pre-training loss, nats per token (or bits per byte, named in ``loss_name``).
      n_params: of each model.
      clusters: models of one trunk share one.
      seeds: of each model; models that differ in the seed alone are repeats.
      companions: continuous metrics by name: 'nll' (nats per token of the right answer), 'p_gold' (among the choices),
        'brier', 'edit' (token edit distance); the first is the one that the mirage test uses.
      length: tokens of an answer, for exact match as a product of per-token probabilities; None where unknown.
      group, source: for captions.
      counted: False where ``n`` is a guess (a published score that comes without): how sure a score is then follows from the
        scatter about the shapes alone.
    """

    task: str
    metric: str
    chance: float
    flops: np.ndarray
    hits: np.ndarray
    n: np.ndarray
    loss: np.ndarray
    n_params: np.ndarray
    clusters: tuple[str, ...]
    seeds: tuple[int, ...]
    companions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    length: float | None = None
    group: str = ""
    source: str = ""
    loss_name: str = "loss"
    counted: bool = True

    @property
    def score(self) -> np.ndarray:
        """Fraction right."""
        return self.hits / self.n
