"""Which form fits a table: chosen by what it predicts, not by how it fits.

Every form is back-tested inside the table on the same splits (``analysis.backtest``): the later half of the origins, whose
fits are nearest to the one that will be used, each counted as much as another.  Forms whose error is within one standard error
of the least are tied, and among them QAICc decides.  R² plays no part: on losses that span half a nat every form has 0.99.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis import backtest, identify
from analysis.backtest import BackTest
from analysis.fit import AnyLaw, Fit, FitError, check_rows, fit
from analysis.laws import SURFACES
from analysis.load import Table

BLEND_POWER = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """One form on the whole table and in the back-test."""

    law: AnyLaw
    fit: Fit
    test: BackTest | None  # None where the table is too small for one
    error: float  # mean over origins of the mean |log error|; nan without a back-test
    qaicc: float
    flags: tuple[str, ...]  # why it should not be chosen: parameters that ran away


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """The candidates, best first, and why the first is."""

    candidates: tuple[Candidate, ...]
    reason: str
    notes: tuple[str, ...]

    @property
    def chosen(self) -> Candidate:
        return self.candidates[0]

    @property
    def law(self) -> AnyLaw:
        return self.chosen.law

    @property
    def fit(self) -> Fit:
        """Of the chosen form, to all rows."""
        return self.chosen.fit

    @property
    def shares(self) -> dict[str, float]:
        """Each form's part of the blend, by its back-test error to the -4.

        Flagged forms have none while there are others; without a back-test the chosen form has all.
        """
        able = [c for c in self.candidates if c.test is not None and (not c.flags or self.chosen.flags)]
        weights = {c.law.name: c.error**-BLEND_POWER for c in able} or {self.law.name: 1.0}
        return {name: w / sum(weights.values()) for name, w in weights.items()}

    def blend(self, n_params: Any, n_tokens: Any, flops: Any = None) -> np.ndarray:
        """Each run's loss by all forms together, a weighted geometric mean, (runs,).  On public tables and simulated sweeps it
        erred less than the chosen form (docs/calibration.md); it is a number to hold against that form's, and no law.
        """
        by_name = {c.law.name: c.fit for c in self.candidates}
        logs = [w * np.log(by_name[k].expected(n_params, n_tokens, flops)) for k, w in self.shares.items()]
        return np.asarray(np.exp(sum(logs)))

    def words(self) -> list[str]:
        """A table of the candidates and the reason."""
        least = min(c.qaicc for c in self.candidates)
        lines = [f"{'form':<12}{'parameters':>11}{'back-test':>11}{'QAICc':>9}"]
        for c in self.candidates:
            error = "–" if np.isnan(c.error) else f"{100 * c.error:.2f} %"
            flags = f"   {'; '.join(c.flags)}" if c.flags else ""
            lines.append(f"{c.law.name:<12}{len(c.law.parameters):>11}{error:>11}{_beyond(c.qaicc, least):>9}{flags}")
        return [*lines, f"chosen: {self.reason}", *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "chosen": self.law.name, "reason": self.reason, "notes": list(self.notes),
            "candidates": [
                {
                    "form": c.law.name, "parameters": len(c.law.parameters),
                    "params": None if identify.inseparable(c.fit) else c.fit.params,
                    "back_test_error": None if c.test is None else c.error, "qaicc": c.qaicc, "flags": list(c.flags),
                    "predictions": 0 if c.test is None else len(c.test),
                }
                for c in self.candidates
            ],
        }  # fmt: skip


def choose(
    table: Table, forms: Mapping[str, AnyLaw] = SURFACES, delta: float | None = None, weights: np.ndarray | None = None
) -> Choice:
    """Chooses among ``forms`` on the fitted rows of ``table``.

    Args:
      table: excluded rows stay out.
      forms: laws by name.
      delta: of the Huber loss; by default that of the table's kind.
      weights: one per fitted row, as in ``fit.fit``.

    Raises:
      FitError: the rows carry none of the forms.
    """
    fits, notes, refused = {}, [], None
    for name, law in forms.items():
        try:
            check_rows(table, law)
            fits[name] = fit(table, law, delta, weights=weights)
        except FitError as error:
            refused = refused or error
            short = str(error).removeprefix(f"{table.source}: ").partition("; what these rows can carry")[0]
            notes.append(f"{name} cannot be fitted: {short}")
    if not fits:
        raise refused or FitError(f"{table.source}: no forms were given to choose from")
    every = backtest.origins(table)
    later = every[len(every) // 2 :]
    tests: dict[str, BackTest | None] = dict.fromkeys(fits)
    try:
        tests |= {k: backtest.expanding(table, f.law, delta=delta, weights=weights, splits=later) for k, f in fits.items()}
    except FitError as error:
        short = str(error).removeprefix(f"{table.source}: ")
        notes.append(f"no back-test: {short}" + ("; QAICc decides alone" if len(fits) > 1 else ""))
    scale = _scale(max(fits.values(), key=lambda f: len(f.law.parameters)))
    found = [Candidate(f.law, f, tests[k], _mean(tests[k]), _qaicc(f, scale), _flags(f)) for k, f in fits.items()]
    return _decide(found, tuple(notes))


def _beyond(qaicc: float, least: float) -> str:
    """QAICc above the least; a dash where the rows are too few for it to be finite."""
    return f"{qaicc - least:+.1f}" if np.isfinite(qaicc) else "–"


def _mean(test: BackTest | None) -> float:
    return float("nan") if test is None else float(test.by_origin.mean())


def _flags(fit: Fit) -> tuple[str, ...]:
    """What speaks against a form whatever it predicts: an optimum that is none, or terms that the rows do not show."""
    if identify.collinear(fit):
        return ()  # whatever the form, one of its terms does the work of both: no reason to prefer another
    return fit.edges + (() if fit.certificate.convex else ("its minimum is not strict",))


def _scale(largest: Fit) -> float:
    """What the objective grows by, per parameter and on average, where there is nothing to fit: half of this (Ronchetti 1985).

    For squares that is the residual variance; for a Huber loss E[psi^2] / E[psi'], in which the part of residuals inside delta
    is read from a wider window where few lie inside.  It is taken from the form with most parameters, so that what it does not
    explain is not counted as noise of the others.
    """
    size, w = np.abs(largest.residuals), largest.rows.weights
    window = max(largest.delta, float(np.quantile(size, 0.3)))
    slope = float(np.mean(w * (size <= window))) * largest.delta / window
    psi = float(np.mean(w * np.minimum(size, largest.delta) ** 2))
    return psi / slope * len(size) / max(1, largest.degrees_of_freedom)


def _qaicc(fit: Fit, scale: float) -> float:
    """2 objective / scale + 2 p + 2 p (p + 1) / (n - p - 1) (Burnham and Anderson 2002, section 2.5, a robust deviance)."""
    n, p = len(fit.residuals), len(fit.law.parameters)
    small = 2 * p * (p + 1) / (n - p - 1) if n > p + 1 else float("inf")
    return 2 * fit.objective / scale + 2 * p + small


def _decide(found: list[Candidate], notes: tuple[str, ...]) -> Choice:
    """Regular forms before others; among them those tied for the least back-test error; among those the least QAICc."""
    regular = [c for c in found if not c.flags] or found
    tied = _tied(regular) if regular[0].test is not None else regular
    best = min(tied, key=lambda c: c.qaicc)
    rest = sorted((c for c in found if c is not best), key=lambda c: (bool(c.flags), c.error, c.qaicc))
    return Choice((best, *rest), _reason(best, tied, regular, found), notes)


def _tied(regular: list[Candidate]) -> list[Candidate]:
    """Those whose error exceeds the least by no more than one standard error of the difference, paired by origin."""
    least = min(regular, key=lambda c: c.error)
    assert least.test is not None
    out = []
    for c in regular:
        assert c.test is not None
        excess = c.test.by_origin - least.test.by_origin
        error = excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else 0.0
        if excess.mean() <= error:
            out.append(c)
    return out


def _reason(best: Candidate, tied: list[Candidate], regular: list[Candidate], found: list[Candidate]) -> str:
    if len(found) == 1:
        return f"{best.law.name}, the only form that the rows carry"
    if best.test is None:
        return f"{best.law.name}, of the least QAICc"
    if len(regular) == 1:
        return f"{best.law.name}, the only form whose parameters the rows hold"
    error = f"{100 * best.error:.2f} % back-test error"
    others = ", ".join(c.law.name for c in tied if c is not best)
    return f"{best.law.name}, {error}" + (
        f"; no worse within the noise than {others}, and of less QAICc" if others else ", the least"
    )
