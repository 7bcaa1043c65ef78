"""From a table to what every command reports: a law, chosen or named, its refits, its calibration."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from analysis import calibrate, choice, fit, identify, intervals, load, noise
from analysis.laws import CHINCHILLA, LAWS, Cost, Law, has_allocation, needed_flops, optimum

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
    def floors(self) -> dict[str, Floor]:
        """E by every form that was a candidate and whose parameters the rows hold; empty where the law was named.

        A form is chosen for what it predicts; E is where it leads beyond everything that was measured, and forms that predict
        alike can lead to floors that differ by more than their intervals.  On a language of known entropy
        (configs/known_entropy.py) two of four intervals missed it, one of them of the form that predicted best; their union
        did not.
        """
        if self.choice is None:
            return {}
        out = {}
        for candidate in self.choice.candidates:
            floor = candidate.law.floor
            if floor is None or candidate.flags or identify.inseparable(candidate.fit):
                continue
            mine = candidate.law is self.boot.fit.law
            boot = self.boot if mine else intervals.bootstrap(candidate.fit, self.settings.draws)
            out[candidate.law.name] = Floor(boot.fit.params[floor], boot.intervals(self.settings.level)[floor])
        return out

    @functools.cached_property
    def floor(self) -> tuple[float, float] | None:
        """From the least to the largest E that any of ``floors`` allows; None without them."""
        ends = [f.interval for f in self.floors.values()]
        return (min(lo for lo, _ in ends), max(hi for _, hi in ends)) if ends else None

    @functools.cached_property
    def calibration(self) -> calibrate.Calibration:
        """By how much plain bands are widened."""
        return calibrate.calibrate(self.boot, self.settings.level)

    def predict(self, n_params: float, n_tokens: float, flops: float | None = None, cost: Cost | None = None) -> Forecast:
        """One run, with both bands."""
        plain = intervals.predict(self.boot, n_params, n_tokens, flops, self.settings.level, cost)
        blend = None if self.choice is None else float(self.choice.blend(n_params, n_tokens, flops)[0])
        return Forecast(plain, self.calibration.interval(plain), blend, self._best(plain, cost))

    def _best(self, plain: intervals.Prediction, cost: Cost | None) -> Best | None:
        law, params = self.boot.fit.law, self.boot.fit.params
        if cost is None or not isinstance(law, Law) or not has_allocation(law) or identify.inseparable(self.boot.fit):
            return None
        flops = float(cost.flops(plain.n_params, plain.n_tokens))
        n, d, loss = (float(v) for v in optimum(params, flops, cost, law))
        return Best(flops, n, d, loss, float(flops / needed_flops(params, plain.loss, cost, law)) - 1)


@dataclasses.dataclass(frozen=True)
class Floor:
    """The irreducible loss by one form."""

    value: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Best:
    """What the law would do with a run's FLOPs; ``extra``: those of the run over what its loss needs, less 1."""

    flops: float
    n_params: float
    n_tokens: float
    loss: float
    extra: float


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A prediction with its plain band, the calibrated one, what all forms together say (None where one was named), and the
    best use of the same compute (None where the law has none, or the cost is not known).
    """

    plain: intervals.Prediction
    calibrated: tuple[float, float]
    blend: float | None
    best: Best | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; ``interval`` is the calibrated band, which is the one that a prediction is held to."""
        plain = intervals.to_dict(self.plain)
        both = {"interval": list(self.calibrated), "plain_interval": plain["interval"]}
        best = None if self.best is None else dataclasses.asdict(self.best)
        return plain | both | {"all_forms": self.blend, "best_use_of_its_flops": best}


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
