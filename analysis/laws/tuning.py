"""The best learning rate and batch size against scale, x* = c N^p D^q: published laws, laws of one's own sweeps, and regret.

A sweep gives cells, the runs of one size and budget at several rates or batches.  Each cell has an optimum between its grid
points (``optimum``); a power law through the optima is fitted like any other (``tuning_law``, by the one fitter).  How good a
law is shows in its regret: how much worse the grid point nearest to it is than the best of the cell.  Coefficients of such laws
differ from study to study, and with how "best" is defined within one, while regrets stay small.

    found = cells({"N": n, "D": d, "lr": lr, "batch": batch}, loss)
    columns, best = optima([optimum(c) for c in found], "lr")
    mine = fit_rows(Rows.of(columns, best), tuning_law("lr", ("N", "D")), loss="squared")
    regret(found, {"lr": STEP_LR, "batch": STEP_BATCH})
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.laws.formula import Columns, Formula, exp

TUNED = ("lr", "batch")


@dataclasses.dataclass(frozen=True)
class TuningLaw:
    """x* = coefficient x prod variable^exponent, as somebody published or fitted it.

    Attributes:
      name: of what it gives: 'lr' (peak, of AdamW) or 'batch' (tokens per step).
      coefficient: c.
      exponents: by variable: 'N' (parameters), 'D' (tokens), 'C' (FLOPs).
      source: where it is from, and its definitions of the variables.
    """

    name: str
    coefficient: float
    exponents: Mapping[str, float]
    source: str

    def at(self, columns: Mapping[str, Any]) -> Any:
        """The optimum at given N, D or C; C is 6ND where it is not given."""
        known = dict(columns)
        if "C" in self.exponents and "C" not in known:
            known["C"] = 6 * np.asarray(known["N"], float) * known["D"]
        out: Any = self.coefficient
        for variable, exponent in self.exponents.items():
            out = out * np.asarray(known[variable], float) ** exponent
        return out

    @property
    def latex(self) -> str:
        powers = "".join(f"\\,{v}^{{{p:g}}}" for v, p in self.exponents.items())
        return rf"\mathrm{{{self.name}}}^* = {self.coefficient:g}{powers}"


_STEP = "Li et al. 2025, arXiv 2503.04715 (Step Law); N: non-embedding parameters"
_DEEPSEEK = "DeepSeek-AI 2024, arXiv 2401.02954; C: non-embedding FLOPs with attention"
STEP_LR = TuningLaw("lr", 1.79, {"N": -0.713, "D": 0.307}, _STEP)
STEP_BATCH = TuningLaw("batch", 0.58, {"D": 0.571}, _STEP)
DEEPSEEK_LR = TuningLaw("lr", 0.3118, {"C": -0.125}, _DEEPSEEK)
DEEPSEEK_BATCH = TuningLaw("batch", 0.2920, {"C": 0.3271}, _DEEPSEEK)


def tuning_law(name: str, variables: Sequence[str] = ("N", "D")) -> Formula:
    """x* = c prod variable^p as a law to fit; the exponent of N is named 'p_N'.

    Its variables may be any columns.  One row is one cell, so the fitter's bootstrap over rows resamples cells.
    """
    exponents = tuple(f"p_{v}" for v in variables)

    def value(params: Mapping[str, Any], columns: Columns) -> Any:
        return exp(np.log(params["c"]) + sum(params[p] * np.log(columns[v]) for p, v in zip(exponents, variables, strict=True)))

    def guesses(columns: Columns, measured: np.ndarray) -> dict[str, Any]:
        """Least squares of the logarithms, which is the optimum of squared errors."""
        x = np.stack([np.ones_like(measured), *(np.log(columns[v]) for v in variables)], 1)
        solved = np.linalg.lstsq(x, np.log(measured), rcond=None)[0]
        return dict(zip(("c", *exponents), (np.exp(solved[0]), *solved[1:]), strict=True))

    powers = "".join(f"\\,{v}^{{p_{v}}}" for v in variables)
    return Formula(name, ("c", *exponents), ("c",), tuple(variables), value, guesses, rf"\mathrm{{{name}}}^* = c{powers}")


def as_tuning_law(law: Formula, params: Mapping[str, float], source: str = "this fit") -> TuningLaw:
    """A fitted ``tuning_law`` as one that can be compared with the published."""
    return TuningLaw(law.name, float(params["c"]), {v: float(params[f"p_{v}"]) for v in law.variables}, source)


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """The runs of one size and budget; seeds are averaged.

    Attributes:
      at: the cell's variables, such as {'N': …, 'D': …}.
      grid: what was tuned, such as {'lr': …, 'batch': …}, each (points,).
      loss: (points,), infinite where a run diverged.
    """

    at: Mapping[str, float]
    grid: Mapping[str, np.ndarray]
    loss: np.ndarray

    @property
    def best(self) -> int:
        """The point of the lowest loss."""
        return int(np.argmin(self.loss))


def cells(columns: Mapping[str, Sequence[float] | np.ndarray], loss: Sequence[float] | np.ndarray) -> list[Cell]:
    """Runs → cells: rows that agree in every column but 'lr' and 'batch'.

    Args:
      columns: (rows,) each; 'lr' or 'batch' or both, and what makes a cell, such as 'N' and 'D'.
      loss: (rows,); not a number or infinite where a run diverged.

    Raises:
      ValueError: without a tuned column, for a cell without a finite loss, or values that are not positive.
    """
    tuned = [t for t in TUNED if t in columns]
    if not tuned:
        raise ValueError(f"columns: {', '.join(columns)}; one must be {' or '.join(TUNED)}")
    arrays = {k: np.asarray(v, float) for k, v in columns.items()}
    for name, values in arrays.items():
        if len(bad := np.flatnonzero(~(np.isfinite(values) & (values > 0)))):
            raise ValueError(f"column {name}, row {bad[0]}: {values[bad[0]]:g} must be positive")
    losses = np.where(np.isfinite(np.asarray(loss, float)), np.asarray(loss, float), np.inf)
    fixed = [k for k in arrays if k not in tuned]
    groups: dict[tuple[float, ...], dict[tuple[float, ...], list[float]]] = {}
    for i, value in enumerate(losses):
        cell = groups.setdefault(tuple(float(arrays[k][i]) for k in fixed), {})
        cell.setdefault(tuple(arrays[k][i] for k in tuned), []).append(float(value))
    out = []
    for key, points in sorted(groups.items()):
        where = np.array(sorted(points))
        means = np.array([np.mean(points[tuple(p)]) for p in where])
        at = dict(zip(fixed, key, strict=True))
        if not np.isfinite(means).any():
            raise ValueError(
                f"no run of {', '.join(f'{k}={v:g}' for k, v in at.items())} has a finite loss; leave the cell out"
            )
        out.append(Cell(at, {k: where[:, j] for j, k in enumerate(tuned)}, means))
    return out


@dataclasses.dataclass(frozen=True)
class Optimum:
    """Where a cell's loss is lowest between its grid points; ``best`` is empty where that cannot be said, and ``why`` says."""

    at: Mapping[str, float]
    best: Mapping[str, float]
    loss: float
    why: str = ""


def optimum(cell: Cell) -> Optimum:
    """The lowest point of the parabola (over two tuned variables the paraboloid) in their logarithms through the cell's best
    point and its neighbours on the grid; with one tuned variable and three points exactly through them.
    """
    names = [k for k in cell.grid if len(np.unique(cell.grid[k])) > 1]
    low = float(cell.loss[cell.best])
    if not names:
        return Optimum(cell.at, {}, low, "has one grid point")
    ranks = {k: np.unique(cell.grid[k], return_inverse=True) for k in names}
    near = np.isfinite(cell.loss)
    for k in names:
        values, rank = ranks[k]
        if rank[cell.best] in (0, len(values) - 1):
            return Optimum(cell.at, {}, low, f"its lowest loss is at the edge of the grid of {k} ({values[rank[cell.best]]:g})")
        near &= np.abs(rank - rank[cell.best]) <= 1
    x = np.stack([np.log(cell.grid[k][near] / cell.grid[k][cell.best]) for k in names], 1)
    pairs = list(itertools.combinations_with_replacement(range(len(names)), 2))
    features = np.hstack([np.ones((len(x), 1)), x, np.stack([x[:, i] * x[:, j] for i, j in pairs], 1)])
    if np.linalg.matrix_rank(features) < features.shape[1]:
        return Optimum(cell.at, {}, low, "has too few finite neighbours of its lowest loss")
    solved = np.linalg.lstsq(features, cell.loss[near], rcond=None)[0]
    slope, hessian = solved[1 : 1 + len(names)], np.zeros((len(names), len(names)))
    for (i, j), value in zip(pairs, solved[1 + len(names) :], strict=True):
        hessian[i, j] += value
        hessian[j, i] += value
    if np.linalg.eigvalsh(hessian)[0] <= 0:
        return Optimum(cell.at, {}, low, "its losses around the lowest are no bowl")
    at = -np.linalg.solve(hessian, slope)
    if not ((at >= x.min(0)) & (at <= x.max(0))).all():
        return Optimum(cell.at, {}, low, "its bowl has its lowest point beyond the neighbours of the lowest loss")
    best = {k: float(cell.grid[k][cell.best] * np.exp(v)) for k, v in zip(names, at, strict=True)}
    return Optimum(cell.at, best, float(solved[0] + slope @ at / 2))


def optima(found: Sequence[Optimum], name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(columns, best values of ``name``) of the cells that have one, to fit ``tuning_law`` to.

    Raises:
      ValueError: where no cell has one, with the reasons.
    """
    good = [o for o in found if name in o.best]
    if not good:
        reasons = "; ".join(sorted({o.why or f"{name} was not tuned" for o in found}))
        raise ValueError(f"no cell has an optimum of {name}: {reasons}")
    return {k: np.array([o.at[k] for o in good]) for k in good[0].at}, np.array([o.best[name] for o in good])


@dataclasses.dataclass(frozen=True)
class Regret:
    """Of one cell: the grid point nearest to what a law says, and how much worse it is than the best.

    ``distance`` is between the law and that point, the largest |log ratio| of a tuned variable: what the grid could not follow.
    """

    at: Mapping[str, float]
    nearest: Mapping[str, float]
    best: Mapping[str, float]
    part: float  # loss there over the lowest, less 1; infinite where it diverged
    distance: float


def regret(found: Sequence[Cell], laws: Mapping[str, TuningLaw]) -> list[Regret]:
    """What following ``laws`` would have cost in each cell.

    Args:
      found: cells of a sweep.
      laws: by tuned variable, such as {'lr': STEP_LR, 'batch': STEP_BATCH}; what has no law is taken at its best.

    Raises:
      ValueError: for a law of something that was not tuned.
    """
    out = []
    for cell in found:
        if unknown := [k for k in laws if k not in cell.grid]:
            raise ValueError(f"laws of {', '.join(unknown)}: the cells tuned {', '.join(cell.grid)}")
        steps = np.stack([np.abs(np.log(cell.grid[k] / law.at(cell.at))) for k, law in laws.items()], 1)
        distance = np.linalg.norm(steps, axis=1)
        tied = np.flatnonzero(distance <= distance.min() * (1 + 1e-9) + 1e-12)
        nearest = int(tied[np.argmin(cell.loss[tied])])
        out.append(
            Regret(
                cell.at,
                {k: float(v[nearest]) for k, v in cell.grid.items()},
                {k: float(v[cell.best]) for k, v in cell.grid.items()},
                float(cell.loss[nearest] / cell.loss[cell.best] - 1),
                float(steps[nearest].max()),
            )
        )
    return out
