"""What is said about an ability, with every number that it rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from analysis.emergence import shapes
from analysis.emergence.ability import Ability

CALLS = ("absent", "smooth", "sharp-metric-only", "sharp-in-loss", "under-powered")


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """The shapes of one curve, compared.

    Attributes:
      theta: parameters by shape, in the order of ``shapes.PARAMETERS``, x being log10 FLOPs or minus the loss.
      delta: QAICc above the best shape's.
      weights: of QAICc, summing to 1.
      phi: over-dispersion, the best shape's Pearson chi2 / (models − parameters); at least 1 where items are counted.
      models: scores fitted.
      winner: shape of the least QAICc.
      said: the winner as it may be said: 'linear or hinge' where these two cannot be told apart, else the winner.
      p_step: of a parametric bootstrap under the fitted step: how often a sigmoid gains as much over it as here.
      p_hinge: the same of a hinge over the straight line.
      middle: share of the ladder that the middle 80 % of the fitted rise takes: .8 of a straight line, 0 of a step.
      p_broad: share of curves redrawn from the best shape, and each fitted anew, whose ``middle`` is at least .4.
      floor: score that the shapes start from.
    """

    theta: Mapping[str, np.ndarray]
    delta: Mapping[str, float]
    weights: Mapping[str, float]
    phi: float
    models: int
    winner: str
    said: str
    p_step: float
    p_hinge: float
    middle: float
    p_broad: float
    floor: float

    def curve(self, x: np.ndarray, shape: str | None = None) -> np.ndarray:
        """Scores of the winner, or of ``shape``, at x (P,)."""
        name = shape or self.winner
        return shapes.scores(name, self.theta[name][None], np.asarray(x, float), self.floor)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Onset:
    """Where on the x axis (log10 FLOPs) the rise is.

    Attributes:
      log_flops: the least compute from which on every score is above chance, tests corrected over tasks (Holm); None if none.
      hinge: onset of the fitted hinge.
      midpoint, midpoint_interval: x0 of the better sigmoid, with the ends of its 95 % profile interval (infinite: open).
      width, width_interval: decades from 10 to 90 % of the rise, of the same sigmoid.
      spacing: decades between the two measured models about the midpoint; a width below it is not resolved.
    """

    log_flops: float | None
    hinge: float
    midpoint: float
    midpoint_interval: tuple[float, float]
    width: float
    width_interval: tuple[float, float]
    spacing: float

    @property
    def resolved(self) -> bool:
        """Whether the models lie closer together than the rise is wide."""
        return self.width > self.spacing


@dataclasses.dataclass(frozen=True, eq=False)
class Mirage:
    """Whether a smooth law of a continuous metric, pushed through the metric, predicts the curve.

    Attributes:
      companion: name of the continuous metric, or 'implied nll' = −log(exact match) where none was given.
      law: (P,) what the smooth law says of the companion at each model; NaN where unknown.
      predicted: (P,) the score that follows.
      error: root mean square of score − predicted, as a share of the score's rise.
      p_value: of the predicted curve's chi2 under the scores' own noise.
      jump: share of the companion's change that falls within a third of the ladder.
      companion_sharp: whether a jump fits the companion better than any smooth law.
      lead: share of the companion's progress that was made before the score had made a tenth of its rise.
      explained: the verdict: the companion is smooth and predicts the score.
      linearity, breakthroughness: of BIG-bench (2022), of the score; ``index`` is B of the score over B of the companion.
      loglog_r2, loglog_slope: of log(−log score) against log10 FLOPs (Hu et al. 2023); None unless an exact match.
    """

    companion: str
    law: np.ndarray
    predicted: np.ndarray
    error: float
    p_value: float
    jump: float
    companion_sharp: bool
    lead: float
    explained: bool
    linearity: float
    breakthroughness: float
    index: float
    loglog_r2: float | None
    loglog_slope: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class AgainstLoss:
    """The score against pre-training loss, all sizes and budgets together (Du et al. 2024).

    Attributes:
      one_curve: whether residuals about the best curve are no more alike within a size than by chance.
      p_value: of that test; NaN where no size has several models.
      selection: the shapes with x = −loss.
      threshold: loss at which the fitted hinge leaves chance, where a hinge or sigmoid beats the straight line; else None.
      sharp: whether the rise is narrow in loss too.
    """

    one_curve: bool
    p_value: float
    selection: Selection
    threshold: float | None
    sharp: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """What the models below the largest compute said about it: ``interval`` is where one more model should score."""

    log_flops: float
    observed: float
    predicted: float
    interval: tuple[float, float]
    level: float

    @property
    def inside(self) -> bool:
        """Whether the observed score is in the interval."""
        return self.interval[0] <= self.observed <= self.interval[1]


@dataclasses.dataclass(frozen=True, eq=False)
class SeedSpread:
    """Models that differ in the seed alone.

    Attributes:
      repeats: groups of at least two.
      deviation: root mean square standard deviation of the score over seeds, within groups.
      ratio: its square over what counting alone scatters.
      bimodal: log10 FLOPs of groups of at least three seeds that fall into two clusters.
    """

    repeats: int
    deviation: float
    ratio: float
    bimodal: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What an ability does over a ladder.

    Attributes:
      ability: what was judged.
      call: one of CALLS.
      reasons: sentences, the decisive first.
      sharp: whether the score itself rises sharply, whatever the reason.
      floor: chance, or the plateau of the smallest models where that lies above chance.
      reached: score of the largest models, by the best shape.
      p_present: of 'no group of largest models is above chance'; ``p_adjusted`` corrected over tasks (Holm).
      min_effect: the least score of one model that would be told from chance in 4 of 5 such ladders.
      selection, onset: None with fewer than 4 different values of compute.
      mirage, loss, forecast, seeds: None where the data do not allow them.
    """

    ability: Ability
    call: str
    reasons: tuple[str, ...]
    sharp: bool
    floor: float
    reached: float
    p_present: float
    p_adjusted: float
    min_effect: float
    selection: Selection | None = None
    onset: Onset | None = None
    mirage: Mirage | None = None
    loss: AgainstLoss | None = None
    forecast: Forecast | None = None
    seeds: SeedSpread | None = None
