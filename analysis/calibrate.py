"""Prediction bands widened by how far bands of the same kind missed inside the training range.

A bootstrap band knows the scatter of the rows and nothing of a wrong form, so on public tables a nominal 90 % band holds about
half of the runs beyond it.  What it misses is measured where losses are known: the law is fitted below several origins, and
every row beyond one says how many half-widths it lies from the middle of its band (its reach).  With distance d, the log of a
run's compute over the largest fitted one, and m origins,

    factor = t_m x root over origins of the mean of (reach / (1 + d)^GROWTH)^2
    widened half-width = plain half-width x max(1, factor (1 + d)^GROWTH)

The rows beyond one origin err together, so an origin is one experiment however many rows it has: each counts as much as
another, and t_m is the quantile of Student's t with m degrees of freedom, as for any error whose scale was estimated from m
draws (four origins: 2.13 in place of 1.64).  Errors of form grow with distance, so a reach found close by counts for more
further out.

How the rule and its two numbers were found, and what it then covered, is in docs/calibration.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from analysis import backtest
from analysis.backtest import BackTest
from analysis.fit import FitError
from analysis.intervals import LEVEL, Bootstrap, Prediction

GROWTH = 0.4


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """By how much plain bands are widened.

    Attributes:
      level: of the bands.
      factor: of the plain half-width at no distance, before that is taken as the least; 1 without a back-test.
      test: what it was found from; None where the table is too small.
      cautions: what to know before relying on it.
    """

    level: float
    factor: float
    test: BackTest | None
    cautions: tuple[str, ...]

    def widening(self, extrapolation: Any) -> Any:
        """How much wider the band is at ``extrapolation`` times the largest fitted compute; at least 1."""
        if self.test is None:
            return np.ones_like(np.asarray(extrapolation, float))
        return np.maximum(1.0, self.factor * _growth(np.log(np.maximum(extrapolation, 1.0))))

    def widen(self, lower: Any, upper: Any, extrapolation: Any) -> tuple[Any, Any]:
        """A plain band of losses, widened in log loss about its middle; everything broadcasts."""
        lo, hi = np.log(lower), np.log(upper)
        more = (self.widening(extrapolation) - 1) * (hi - lo) / 2
        return np.exp(lo - more), np.exp(hi + more)

    def interval(self, prediction: Prediction) -> tuple[float, float]:
        """The widened interval of a prediction made at the same level.

        Raises:
          ValueError: for a prediction at another level.
        """
        if prediction.level != self.level:
            raise ValueError(f"a prediction at level {prediction.level:g} cannot be widened by a calibration at {self.level:g}")
        lo, hi = self.widen(*prediction.interval, prediction.extrapolation)
        return float(lo), float(hi)

    def words(self) -> list[str]:
        """What was done, and cautions."""
        out = []
        if self.test is not None:
            out.append(
                f"calibration: {self.test.words()}; plain bands are widened {self.widening(1.0):.2f} times at the largest "
                f"fitted compute, {self.widening(10.0):.2f} times a decade beyond it"
            )
        return out + [f"CAUTION: {c}" for c in self.cautions]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        test = self.test
        return {
            "level": self.level, "method": "Student's t times the root mean square reach over origins", "growth": GROWTH,
            "factor": self.factor, "widening_at_1x": float(self.widening(1.0)), "widening_at_10x": float(self.widening(10.0)),
            "back_test": None if test is None else {
                "origins": [o.words for o in test.origins], "predictions": len(test), "coverage": test.coverage,
                "mean_abs_log_error": test.mean_error, "bias": test.bias,
            },
            "cautions": list(self.cautions),
        }  # fmt: skip


def calibrate(boot: Bootstrap, level: float = LEVEL, draws: int = backtest.DRAWS) -> Calibration:
    """Back-tests the fit's law on the fit's table and finds how much wider its bands must be.

    Args:
      boot: the refits that make the plain bands.
      level: of the bands.
      draws: bootstrap refits per origin.
    """
    fit = boot.fit
    try:
        test = backtest.expanding(fit.table, fit.law, delta=fit.delta, weights=fit.rows.weights, draws=draws, level=level)
    except FitError as error:
        why = str(error).removeprefix(f"{fit.table.source}: ")
        told = f"the band is not calibrated: {why}; bands that are not are mostly too narrow"
        return Calibration(level, 1.0, None, (told,))
    cautions: tuple[str, ...] = ()
    if (m := len(test.by_origin)) < len(backtest.QUANTILES):
        cautions = (f"calibrated on {m} origin{'s' * (m > 1)} only: too few to tell closely how wide the band must be",)
    return Calibration(level, factor(test, float(np.quantile(np.abs(boot.noise), level))), test, cautions)


def factor(test: BackTest, noise: float) -> float:
    """Student's t times the root mean square over origins of reach / (1 + d)^GROWTH.

    An early origin may have so few rows that its law passes through them and its band has no width; a single run still scatters
    by ``noise``, the half-width that the scatter alone gives around the fit of the whole table.
    """
    from scipy.special import stdtrit

    reach = np.abs(test.measured - test.middle) / np.maximum(test.half, noise) / _growth(test.distance)
    squares = [np.mean(reach[test.origin == o] ** 2) for o in np.unique(test.origin)]
    return float(stdtrit(len(squares), (1 + test.level) / 2) * np.sqrt(np.mean(squares)))


def _growth(distance: Any) -> Any:
    return (1 + np.maximum(distance, 0.0)) ** GROWTH
