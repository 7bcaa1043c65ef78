"""From a table to what every command reports: a law, chosen or named, its refits, its calibration."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from analysis import calibrate, choice, fit, intervals, load, noise
from analysis.laws import CHINCHILLA, LAWS, Cost

AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is fitted; the defaults are those of every command.

    Attributes:
      law: one of ``LAWS``, or 'auto' to choose among the forms of L(N, D) by back-test.
      loss: 'huber', 'squared' or 'l1'.
      delta: of the Huber loss; by default that of the table's kind.
      weighted: whether rows count by the noise that seeds or standard errors tell (``analysis.noise``).
      level: of all intervals.
      draws: bootstrap refits.
      bumps: restarts of the point fit from refits of resampled rows.
    """

    law: str = AUTO
    loss: str = "huber"
    delta: float | None = None
    weighted: bool = False
    level: float = intervals.LEVEL
    draws: int = intervals.DRAWS
    bumps: int = fit.BUMPS


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A table's law.

    Attributes:
      boot: the law and its refits.
      choice: how it was chosen; None where it was named.
      weights: how rows were weighted, in words; empty where they count alike.
    """

    boot: intervals.Bootstrap
    choice: choice.Choice | None
    weights: str
    settings: Settings

    @functools.cached_property
    def chinchilla(self) -> intervals.Bootstrap | None:
        """The Chinchilla form's refits, whatever law was chosen; None where the rows cannot carry it."""
        if self.boot.fit.law is CHINCHILLA:
            return self.boot
        try:
            return _refits(self.boot.fit.table, CHINCHILLA.name, self.settings)
        except fit.FitError:
            return None

    @functools.cached_property
    def calibration(self) -> calibrate.Calibration:
        """By how much plain bands are widened."""
        return calibrate.calibrate(self.boot, self.settings.level)

    def predict(self, n_params: float, n_tokens: float, flops: float | None = None, cost: Cost | None = None) -> Forecast:
        """One run, with both bands."""
        plain = intervals.predict(self.boot, n_params, n_tokens, flops, self.settings.level, cost)
        blend = None if self.choice is None else float(self.choice.blend(n_params, n_tokens, flops)[0])
        return Forecast(plain, self.calibration.interval(plain), blend)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A prediction with its plain band, the calibrated one, and what all forms together say (None where one was named)."""

    plain: intervals.Prediction
    calibrated: tuple[float, float]
    blend: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; ``interval`` is the calibrated band, which is the one that a prediction is held to."""
        plain = intervals.to_dict(self.plain)
        return plain | {"interval": list(self.calibrated), "plain_interval": plain["interval"], "all_forms": self.blend}


def estimate(table: load.Table, settings: Settings) -> Estimate:
    """Chooses, fits and refits.

    Raises:
      FitError: rows that cannot carry the law, or none of those to choose from.
    """
    name, chosen = settings.law, None
    if name == AUTO:
        weights = noise.weights(table)[0] if settings.weighted else None
        chosen = choice.choose(table, delta=_delta(table, settings), weights=weights)
        name = chosen.law.name
    words = noise.weights(table)[1] if settings.weighted else ""
    return Estimate(_refits(table, name, settings), chosen, words, settings)


def _refits(table: load.Table, name: str, settings: Settings) -> intervals.Bootstrap:
    weights = noise.weights(table)[0] if settings.weighted else None
    fitted = fit.fit(table, LAWS[name], settings.delta, loss=settings.loss, weights=weights, bumps=settings.bumps)
    return intervals.bootstrap(fitted, settings.draws)


def _delta(table: load.Table, settings: Settings) -> float:
    """The delta that the loss amounts to, for those who know only deltas."""
    return fit.LOSSES[settings.loss] or settings.delta or fit.DEFAULT_DELTA[table.kind]
