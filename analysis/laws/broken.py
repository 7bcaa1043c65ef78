"""Smoothly broken power laws (Caballero et al. 2023, arXiv 2210.14891), of losses and of any other measure.

    y = a + b x^-c0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i)

Break i lies at d_i, where the slope on log axes changes by -c_i; small f_i make it sharp.  On log axes log(y - a) is a sum of
softplus functions: log b - c0 log x - sum_i c_i f_i log(1 + e^((log x - log d_i) / f_i)), which does not overflow as f → 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.laws.formula import Columns, Formula, exp, softplus

_START_FLOORS = (0.1, 0.5, 0.9)  # of the least value
_START_WIDTHS = (0.05, 0.2, 0.8)
_START_BREAKS = 8  # places along log x
_MAX_STARTS = 48


def broken_power(breaks: int = 1, variable: str = "N", shift: float = 0.0) -> Formula:
    """The law with so many breaks.

    Args:
      breaks: 0 is a power law with a floor.
      variable: the column that x is.
      shift: what is compared is log(y + shift): 1 for a measure that may be 0 (the paper's mean squared log error).

    Raises:
      ValueError: for a negative number of breaks.
    """
    if breaks < 0:
        raise ValueError(f"breaks={breaks}: must be 0 or more")
    each = range(1, breaks + 1)

    def value(params: Mapping[str, Any], columns: Columns) -> Any:
        x = np.log(columns[variable])
        log_power = np.log(params["b"]) - params["c0"] * x
        for i in each:
            f = params[f"f{i}"]
            log_power = log_power - params[f"c{i}"] * f * softplus((x - np.log(params[f"d{i}"])) / f)
        return params["a"] + exp(log_power)

    return Formula(
        name=f"broken({breaks})",
        parameters=("a", "b", "c0", *(f"{name}{i}" for i in each for name in "cdf")),
        positive=("a", "b", *(f"{name}{i}" for i in each for name in "df")),
        variables=(variable,),
        value=value,
        guesses=lambda columns, measured: _guesses(breaks, columns[variable], measured),
        latex=f"y = a + b\\,{variable}^{{-c_0}}"
        + "".join(rf"\left(1 + ({variable}/d_{i})^{{1/f_{i}}}\right)^{{-c_{i} f_{i}}}" for i in each),
        shift=shift,
    )


def _guesses(breaks: int, values: np.ndarray, measured: np.ndarray) -> dict[str, np.ndarray]:
    """The best of a grid of floors, places and widths, where log(y - a) is linear in log b, c0 and c_i."""
    x = np.log(values)
    low = max(float(np.min(measured)), 1e-9)
    places = np.linspace(x.min(), x.max(), _START_BREAKS + 2)[1:-1]
    cells = []
    for floor, width in itertools.product(_START_FLOORS, _START_WIDTHS if breaks else (1.0,)):
        a = floor * low
        target = np.log(np.maximum(measured - a, 1e-3 * low))
        for where in itertools.combinations(places, breaks):
            features = [np.ones_like(x), -x, *(-width * softplus((x - d) / width) for d in where)]
            slopes, *_ = np.linalg.lstsq(np.stack(features, 1), target, rcond=None)
            misfit = np.sum(
                (np.exp(np.minimum(np.stack(features, 1) @ slopes, 300.0)) + a - measured) ** 2 / measured.clip(low) ** 2
            )
            turns = [v for i, d in enumerate(where) for v in (slopes[2 + i], np.exp(d), width)]
            cells.append((misfit, [a, np.exp(np.clip(slopes[0], -300, 300)), slopes[1], *turns]))
    cells.sort(key=lambda cell: cell[0])
    names = ("a", "b", "c0", *(f"{name}{i}" for i in range(1, breaks + 1) for name in "cdf"))
    return dict(zip(names, np.array([theta for _, theta in cells[:_MAX_STARTS]]).T, strict=True))
