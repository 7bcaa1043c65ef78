"""How much single runs scatter, from runs that differ in their seed alone, and the weights that follow.

Fits are of log loss, so the scatter is that of log loss: a standard deviation of 0.004 is 0.4 % of the loss.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from analysis.checks import labels
from analysis.tables import Row, Table

MIN_DEGREES = 10  # replicate degrees of freedom from which a trend of the scatter is looked for
MIN_CELLS = 5
MIN_SPAN = 1.1  # largest over smallest loss of the repeated cells
MAX_SD = 0.05  # cells that scatter more than this differ in more than their seeds
_SIGNIFICANT = 3.84  # 95 % point of chi-square with one degree of freedom
_ITERATIONS = 50


@dataclasses.dataclass(frozen=True)
class Noise:
    """The scatter of log loss between seeds: sd(L) = sd (L / reference)^power."""

    sd: float
    degrees_of_freedom: int
    cells: int
    told_by_seed: bool  # False: no seeds are given, and rows of one cell are taken to differ in theirs alone
    power: float = 0.0
    power_error: float = 0.0  # its standard error; 0 where no trend was looked for
    reference: float = 1.0
    span: tuple[float, float] = (0.0, np.inf)  # losses of the repeated cells; the trend is not carried on beyond

    def at(self, loss: np.ndarray) -> np.ndarray:
        """The standard deviation of log loss of runs at these losses."""
        return self.sd * (np.clip(loss, *self.span) / self.reference) ** self.power

    def words(self) -> str:
        """What was found, in one sentence."""
        what = "seeds" if self.told_by_seed else "repeats (no seeds are given: all that differs within a cell counts)"
        out = f"{what} scatter by {100 * self.sd:.2g} % in {self.cells} cells ({self.degrees_of_freedom} degrees of freedom)"
        if self.power:
            lo, hi = (100 * self.at(np.array(loss)) for loss in self.span)
            out += (
                f", growing as L^{self.power:.2g} (standard error {self.power_error:.2g}): "
                f"{lo:.2g} % at a loss of {self.span[0]:.3g}, {hi:.2g} % at {self.span[1]:.3g}"
            )
        return out


def estimate(table: Table) -> Noise | None:
    """The scatter between rows of one cell; None where no cell is repeated.

    A cell is a size and a token count (and unique tokens, batch and learning rate, where they are known), equal to a millionth.
    It counts where each of its rows has a seed of its own, or, where no seeds are given, a cluster of its own.  The variance is
    pooled over cells.  From 10 degrees of freedom on, a trend log sd = log s0 + g log(L / L_ref) is fitted to the cells'
    variances v by maximum likelihood, v degrees / sd^2 being chi-square: a generalised linear model with gamma errors and a log
    link (McCullagh and Nelder 1989, ch. 8), which weighs a cell by its degrees of freedom and bears one that agrees exactly.
    The trend counts where a likelihood ratio test rejects none at 5 %, with the dispersion estimated where it is above one;
    even then it is shrunk by 1 - 1 / ratio, since what passes a test is overstated.
    """
    cells, told_by_seed = _cells(table)
    if not cells:
        return None
    logs = [np.log([float(r.loss or 0.0) for r in cell]) for cell in cells]
    degrees = np.array([len(x) - 1 for x in logs], float)
    variance, level = np.array([x.var(ddof=1) for x in logs]), np.array([x.mean() for x in logs])
    pooled = float(np.average(variance, weights=degrees))
    noise = Noise(float(np.sqrt(pooled)), int(degrees.sum()), len(cells), told_by_seed)
    wide = np.ptp(level) >= np.log(MIN_SPAN) and len(cells) >= MIN_CELLS
    if pooled == 0 or noise.degrees_of_freedom < MIN_DEGREES or not wide:
        return noise
    middle = float(np.average(level, weights=degrees))
    intercept, slope, error, ratio = _trend(level - middle, variance, degrees)
    noise = dataclasses.replace(noise, reference=float(np.exp(middle)), power_error=error / 2)
    if ratio <= _SIGNIFICANT:
        return noise
    power = slope / 2 * (1 - 1 / ratio)
    span = float(np.exp(level.min())), float(np.exp(level.max()))
    return dataclasses.replace(noise, sd=float(np.exp(intercept / 2)), power=power, span=span)


def _cells(table: Table) -> tuple[list[list[Row]], bool]:
    """The repeated cells, and whether seeds tell their rows apart."""
    rows = table.fitted
    key = np.stack([labels(table.column(c)) for c in ("n_params", "n_tokens", "unique_tokens", "batch_tokens", "lr")], -1)
    groups: dict[tuple[int, ...], list[Row]] = {}
    for row, k in zip(rows, key.tolist(), strict=True):
        groups.setdefault(tuple(k), []).append(row)
    told_by_seed = bool(rows) and all(r.seed is not None for r in rows)
    cells = [
        cell
        for cell in groups.values()
        if len(cell) > 1 and len({r.seed if told_by_seed else r.cluster for r in cell}) == len(cell)
    ]
    return cells, told_by_seed


def _trend(x: np.ndarray, variance: np.ndarray, degrees: np.ndarray) -> tuple[float, float, float, float]:
    """Intercept and slope of log variance against ``x``, the slope's standard error, and the likelihood ratio of the slope.

    Fisher scoring of sum degrees / 2 (eta + v exp(-eta)), which is convex in eta; both last figures allow for a dispersion
    above that of chi-square (Pearson's, at least 1).
    """
    design = np.stack([np.ones_like(x), x], -1)
    information = design.T @ (degrees[:, None] / 2 * design)

    def deviance(coefficients: np.ndarray) -> float:
        eta = design @ coefficients
        return float(np.sum(degrees * (eta + variance * np.exp(-eta))))

    start = np.array([np.log(np.average(variance, weights=degrees)), 0.0])
    coefficients, at = start, deviance(start)
    for _ in range(_ITERATIONS):
        score = design.T @ (degrees / 2 * (variance * np.exp(-design @ coefficients) - 1))
        step = np.linalg.solve(information, score)
        while (new := deviance(coefficients + step)) > at and np.abs(step).max() > 1e-9:
            step = step / 2
        if np.abs(step).max() <= 1e-9:
            break
        coefficients, at = coefficients + step, new
    spread = np.sum(degrees / 2 * (variance * np.exp(-design @ coefficients) - 1) ** 2) / max(1, len(x) - 2)
    dispersion = max(1.0, float(spread))
    error = float(np.sqrt(dispersion * np.linalg.inv(information)[1, 1]))
    return float(coefficients[0]), float(coefficients[1]), error, (deviance(start) - at) / dispersion


def weights(table: Table) -> tuple[np.ndarray, str]:
    """A weight per fitted row, 1 / variance of its log loss with mean 1, and what they rest on in words.

    Known are the scatter between seeds, where it has a trend, and the standard errors of the losses of a CSV.  The scatter
    holds the errors' share already, so where there are both the larger counts.  Where there are errors alone, their median
    square stands for what else scatters, so that no row counts more than twice as much as one in the middle.  The standard
    errors of one sweep's runs are no noise between them: they come from the same validation windows, which move all together.
    """
    noise, even = estimate(table), np.ones(len(table.fitted))
    if noise is not None and noise.sd > MAX_SD:
        said = f"{noise.words()}: more than seeds do (over {100 * MAX_SD:g} %), so they differ in more; all rows count alike"
        return even, said
    loss = table.column("loss")
    errors = _errors(table)
    if errors is None and (noise is None or not noise.power):
        known = f"{noise.words()}, without a trend" if noise else "no run is repeated with another seed"
        return even, f"{known}; all rows count alike"
    if noise is None or noise.degrees_of_freedom < MIN_DEGREES:
        assert errors is not None
        variance, said = errors**2 + np.median(errors**2), "weights by the standard errors of the losses"
    elif errors is None:
        variance, said = noise.at(loss) ** 2, f"weights by the scatter of seeds: {noise.words()}"
    else:
        variance = np.maximum(noise.at(loss), errors) ** 2
        said = f"weights by the standard errors of the losses and the scatter of seeds: {noise.words()}"
    out = 1 / variance
    return out / out.mean(), said


def _errors(table: Table) -> np.ndarray | None:
    """Standard errors of log loss, the median's for a row without; None where fewer than half of the rows have one."""
    relative = table.column("loss_stderr") / table.column("loss")
    known = np.isfinite(relative)
    if table.kind == "runs" or known.sum() < max(1, len(relative) / 2):
        return None
    return np.where(known, relative, np.median(relative[known]))
