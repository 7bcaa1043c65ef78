"""What the rows identify: verdicts, the condition number, correlations between parameters, and rows that lie on one line.

Three grades.  A parameter is identified when its interval is narrow enough to be of use.  Where it is not, its number is still
shown beside its interval.  Where the rows cannot tell the law's terms apart at all (tokens in step with parameters, or a normal
matrix that is singular in float64), any number would be made up: none is quoted, and only predictions on the rows' line stand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from analysis.checks import MAX_COLLINEAR
from analysis.fit import Fit
from analysis.laws import Law, allocation_exponent
from analysis.laws.formula import Formula
from scaling.units import format_count

if TYPE_CHECKING:
    from analysis.intervals import Bootstrap

# Rules of the verdicts, each stated in the words that report it.
MAX_CONDITION = 1e6  # of the scaled normal matrix J^T J; the 240 points of Chinchilla have about 1e3
MAX_E_FACTOR = 1.5  # upper over lower end of E's interval
MAX_SCALE_FACTOR = 10.0  # the same of any other positive parameter
MAX_EXPONENT_WIDTH = 0.5  # an exponent's interval over its value
MAX_MISFIT = 0.1  # median |residual| of log loss; the published tables that hold one sweep each have at most 0.04
SAME = 0.01  # counts that differ by less than this (log) are one count
MAX_PREDICTION_WIDTH = 0.1  # a prediction's interval over its value: 5 % to either side


def jacobian(fit: Fit) -> np.ndarray:
    """Derivatives of log loss by theta at the rows, shape (rows, parameters)."""
    return fit.model.derivatives(fit.theta[None]).jacobian[0].T


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether something is identified, with every reason against it; without ``quote`` its number must not be shown at all."""

    identified: bool
    reasons: tuple[str, ...]
    quote: bool = True


def judge_parameters(boot: Bootstrap, level: float = 0.9) -> dict[str, Verdict]:
    """Verdicts on 'E', 'exponents' and, apart from them, 'a'; predictions: ``judge_prediction``.

    The irreducible loss E is identified when its interval stays off zero and its ends differ by less than a factor of 1.5; the
    exponents when each interval is narrower than half the value; a (which the ridge between E, A and alpha leaves alone) when
    its interval is narrower than half its value; any other positive parameter of a formula when the ends of its interval differ
    by less than a factor of 10.  None is when ``inseparable`` says so (then none is to be quoted either), when a parameter ran
    to an edge, or when Newton found no strict minimum.
    """
    fit = boot.fit
    fatal = inseparable(fit)
    common = [*fit.edges, *_ill_conditioned(fit), *_misfit(fit)]
    if not fit.certificate.convex:
        common.append("the minimum is not strict: some combination of parameters is free")
    ranges = boot.intervals(level)
    out: dict[str, list[str]] = {}
    if floor := fit.law.floor:
        lo, hi = ranges[floor]
        wide = [f"{_wide(floor, ranges[floor])}: it needs larger and longer runs"]
        out[floor] = wide if lo <= 0.05 * fit.params[floor] or hi > MAX_E_FACTOR * lo else []
    out["exponents"] = [
        _wide(name, ranges[name])
        for name in fit.law.exponents
        if _relative(ranges[name], fit.params[name]) > MAX_EXPONENT_WIDTH
    ]
    if "a" in ranges:
        a = float(allocation_exponent(fit.params, law=fit.law)) if isinstance(fit.law, Law) else float("nan")
        out["a"] = [_wide("a", ranges["a"])] if _relative(ranges["a"], a) > MAX_EXPONENT_WIDTH else []
    if isinstance(fit.law, Formula):
        for name in (p for p in fit.law.positive if p != floor):
            lo, hi = ranges[name]
            out[name] = [_wide(name, ranges[name])] if not hi < MAX_SCALE_FACTOR * lo else []
    if fatal:  # the reasons that remain would quote numbers
        return {what: Verdict(False, tuple(fatal), quote=False) for what in out}
    return {what: Verdict(not (common or reasons), tuple(common + reasons)) for what, reasons in out.items()}


def judge_prediction(fit: Fit, n_params: float, n_tokens: float, loss: float, ends: tuple[float, float]) -> Verdict:
    """A prediction is identified when its interval is narrower than 10 % of the loss (5 % to either side); with collinear rows
    also only near their line, since nothing is known beside it.
    """
    reasons = []
    if (width := _relative(ends, loss)) > MAX_PREDICTION_WIDTH:
        spans = f"{100 * width:.3g} % of" if width < 10 else "more than ten times"
        reasons.append(f"its interval spans {spans} the loss (limit {100 * MAX_PREDICTION_WIDTH:.0f} %)")
    reasons += off_the_line(fit, n_params, n_tokens) + _another(fit, n_params, n_tokens)
    return Verdict(not reasons, tuple(reasons))


def inseparable(fit: Fit) -> list[str]:
    """Why the rows cannot tell the law's terms apart, whatever the noise; empty where they can.

    Either log N and log D are collinear (|correlation| > 0.995) under a law of both: along D = c N^q the two power laws are two
    powers of one variable, which trade against each other and against E.  Or the scaled normal matrix is worse than 1e6.
    """
    if collinear(fit):
        correlation = collinearity(fit.rows.columns)
        return [
            f"tokens grow in step with parameters in all rows (correlation of logs {correlation:.4f}), so the two power laws "
            f"cannot be told apart: add rows with other tokens per parameter"
        ]
    return [] if fit.edges else _ill_conditioned(fit)  # a parameter at an edge has no slope, and says so itself


def collinear(fit: Fit) -> bool:
    """Whether the law is one of N and D and the rows hold both in step."""
    return abs(collinearity(fit.rows.columns)) > MAX_COLLINEAR and {"N", "D"} <= set(fit.law.variables)


def _ill_conditioned(fit: Fit) -> list[str]:
    worst = condition(fit)
    return (
        [f"the condition number of the normal matrix is {worst:.1e} (limit {MAX_CONDITION:.0e})"]
        if worst > MAX_CONDITION
        else []
    )


def _misfit(fit: Fit) -> list[str]:
    """Rows that follow no one law: tables of several texts or units of loss in one file do this, a noisy sweep does not."""
    middle = float(np.median(np.abs(fit.residuals)))
    if middle <= MAX_MISFIT:
        return []
    return [
        f"half of the rows lie more than {100 * middle:.0f} % off the law (limit {100 * MAX_MISFIT:.0f} %), so they follow no "
        "one law: fit rows of one text, tokenizer and recipe at a time"
    ]


def collinearity(columns: Mapping[str, np.ndarray]) -> float:
    """Correlation of log N and log D over rows; 0 where one of them is missing or takes a single value."""
    if not {"N", "D"} <= set(columns):
        return 0.0
    n, d = np.log(columns["N"]), np.log(columns["D"])
    return float(np.corrcoef(n, d)[0, 1]) if np.ptp(n) > 0 and np.ptp(d) > 0 else 0.0


def condition(fit: Fit) -> float:
    """Condition number of J^T J of the rows, its columns scaled to one length."""
    return condition_of(np.sqrt(fit.rows.weights)[:, None] * jacobian(fit))


def condition_of(columns: np.ndarray) -> float:
    """The same of J itself, (rows, parameters)."""
    length = np.linalg.norm(columns, axis=0)
    return float("inf") if (length == 0).any() else float(np.linalg.cond(columns / length)) ** 2


def correlations(boot: Bootstrap) -> dict[tuple[str, str], float]:
    """Rank correlation (Spearman) over the draws of every pair of parameters, ``a`` among them, in the parameters' order.

    Ranks, since a coefficient is known by its logarithm and a draw may run away.  On Chinchilla's 240 points A and alpha have
    1.00, B and beta 1.00, E and either exponent 0.5 to 0.6, E and a 0.00: what E trades away leaves the allocation alone.
    """
    values = boot.values
    names = list(values)
    ranks = np.argsort(np.argsort([values[name] for name in names], axis=1), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.atleast_2d(np.corrcoef(ranks))
    return {(names[i], names[j]): float(matrix[i, j]) for i in range(len(names)) for j in range(i + 1, len(names))}


def off_the_line(fit: Fit, n_params: float, n_tokens: float) -> list[str]:
    """For collinear rows, whatever law is fitted to them: whether a run leaves their line by more than they do (or a tenth)."""
    columns = _counts(fit)
    if abs(collinearity(columns)) <= MAX_COLLINEAR:
        return []
    n, d = np.log(columns["N"]), np.log(columns["D"])
    slope, level = np.polyfit(n, d, 1)
    spread = np.abs(d - slope * n - level).max()
    off = abs(np.log(n_tokens) - slope * np.log(n_params) - level)
    if off <= max(2 * spread, 0.1):
        return []
    return ["the rows lie on one line of tokens against parameters and this run lies beside it: nothing is known there"]


def _another(fit: Fit, n_params: float, n_tokens: float) -> list[str]:
    """For rows of one size (or one token count) and a law without it: whether a run has another."""
    out = []
    for name, value, noun in (("N", n_params, "parameters"), ("D", n_tokens, "tokens")):
        column = _counts(fit).get(name)
        if column is None or name in fit.law.variables or np.ptp(np.log(column)) > 0:
            continue
        if abs(np.log(value / column[0])) > SAME:
            out.append(f"all rows have {format_count(column[0])} {noun} and the law is not of them: nothing is known of others")
    return out


def _counts(fit: Fit) -> Mapping[str, np.ndarray]:
    """Parameters and tokens of the rows, whether the law is of them or not."""
    if fit.table is None:
        return fit.rows.columns
    return {"N": fit.table.column("n_params"), "D": fit.table.column("n_tokens")}


def _relative(ends: tuple[float, float], value: float) -> float:
    return (ends[1] - ends[0]) / abs(value)


def _wide(name: str, ends: tuple[float, float]) -> str:
    return f"{name} may lie anywhere from {ends[0]:.3g} to {ends[1]:.3g}"
