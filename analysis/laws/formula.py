"""Laws that are no sum of powers: a formula in NumPy, with its parameters, differentiated numerically by the one fitter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from analysis.newton import Numeric

Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Formula:
    """A law as a function.

    Attributes:
      name: of the law.
      parameters: their names in the order of theta.
      positive: those that theta holds as logarithms.
      variables: the columns that it reads: 'N', 'D', 'C', 'U' (unique tokens) of a table, or any that its rows have.
      value: (params, columns) → predicted, which must accept complex parameters of shape (lanes, 1) beside columns of shape
        (rows,), and return (lanes, rows).
      guesses: (columns, measured) → params to start from, each an array (starts,).
      latex: of the whole law.
      shift: log(predicted + shift) is compared with log(measured + shift); 0 for losses.
    """

    name: str
    parameters: tuple[str, ...]
    positive: tuple[str, ...]
    variables: tuple[str, ...]
    value: Callable[[Mapping[str, Any], Columns], Any]
    guesses: Callable[[Columns, np.ndarray], Mapping[str, Any]]
    latex: str
    shift: float = 0.0
    coupling: None = None

    @property
    def exponents(self) -> tuple[str, ...]:
        """Parameters that may take either sign."""
        return tuple(p for p in self.parameters if p not in self.positive)

    @property
    def floor(self) -> str | None:
        return "E" if "E" in self.parameters else None

    def centre(self, columns: Columns) -> dict[str, float]:
        """Nothing is centred."""
        return {}

    def _natural(self, theta: np.ndarray) -> dict[str, Any]:
        return {
            name: np.exp(theta[:, i : i + 1]) if name in self.positive else theta[:, i : i + 1]
            for i, name in enumerate(self.parameters)
        }

    def bind(self, columns: Columns, centre: Mapping[str, float]) -> Numeric:
        """The law at given rows."""
        return Numeric(lambda theta: np.log(self.value(self._natural(theta), columns) + self.shift), len(self.parameters))

    def to_params(self, theta: np.ndarray, centre: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Parameters by name, an array over the first axis of ``theta``."""
        return {name: v[:, 0] for name, v in self._natural(np.minimum(theta, 700.0)).items()}

    def starts(self, columns: Columns, measured: np.ndarray) -> np.ndarray:
        """theta of the guesses, (starts, parameters)."""
        guesses = self.guesses(columns, measured)
        values = np.broadcast_arrays(*(np.atleast_1d(np.asarray(guesses[name], float)) for name in self.parameters))
        return np.stack(
            [np.log(v) if name in self.positive else v for name, v in zip(self.parameters, values, strict=True)], -1
        )
