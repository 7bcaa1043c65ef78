"""Rows, tables and curves: what every fit, figure and comparison is given, wherever it came from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.units import format_count

PLANNED, STARTED, FINISHED, DIVERGED = "planned", "started", "finished", "diverged"
_NUMBERS = frozenset(
    ("n_params", "n_tokens", "flops", "loss", "loss_stderr", "seed", "unique_tokens", "batch_tokens", "lr")
)  # columns of numbers; what is not known is NaN there


class LoadError(ValueError):
    """A table that cannot be used; the message names file, column, row, value and remedy."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run.  ``loss`` is nats per token, None before there is one; ``excluded`` says why it stays out of fits."""

    id: str
    size: str
    n_params: float
    n_tokens: float
    flops: float
    loss: float | None
    loss_stderr: float | None = None
    cluster: str = ""
    annealed: bool = True
    seed: int | None = None
    state: str = FINISHED
    excluded: str | None = None
    unique_tokens: float | None = None  # different tokens among ``n_tokens``: fewer where data was repeated
    batch_tokens: float | None = None
    lr: float | None = None  # the peak
    order: str | None = None  # equal in two rows: they were trained on the same tokens in the same order


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows and how their columns are defined."""

    source: str
    rows: tuple[Row, ...]
    kind: str = "csv"  # 'runs' or 'csv'
    n_definition: str = "as in the file"
    flops_convention: str = "as in the file"
    notes: tuple[str, ...] = ()

    @property
    def fitted(self) -> tuple[Row, ...]:
        """Rows that may be fitted."""
        return tuple(r for r in self.rows if r.excluded is None)

    @property
    def excluded(self) -> tuple[Row, ...]:
        """Rows that were trained (in part) and stay out."""
        return tuple(r for r in self.rows if r.excluded is not None and r.state != PLANNED)

    def column(self, name: str) -> np.ndarray:
        """A column of the fitted rows; numbers as float64, with NaN for what is not known."""
        values = [getattr(r, name) for r in self.fitted]
        return np.array([math.nan if v is None else v for v in values], float) if name in _NUMBERS else np.array(values)

    def where(self, keep: Any) -> Table:
        """The table with only the rows for which ``keep(row)``."""
        return dataclasses.replace(self, rows=tuple(r for r in self.rows if keep(r)))

    def sizes(self) -> list[float]:
        """Distinct parameter counts of the fitted rows, ascending."""
        return sorted({r.n_params for r in self.fitted})

    def digest(self) -> str:
        """sha256 of the fitted rows, in whatever order they came."""
        rows = sorted([r.id, r.n_params, r.n_tokens, r.loss, r.cluster] for r in self.fitted)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Curve:
    """A member's losses over its training; ``tokens`` count from the trunk's start."""

    id: str
    n_params: float
    size: str
    annealed: bool
    tokens: np.ndarray
    loss: np.ndarray
    val_tokens: np.ndarray
    val_loss: np.ndarray


def table(
    n_params: Sequence[float], n_tokens: Sequence[float], loss: Sequence[float], cluster: Sequence[str] | None = None
) -> Table:
    """A table from arrays, for notebooks and tests; C = 6ND, every row its own cluster unless told."""
    names = [str(c) for c in cluster] if cluster is not None else [str(i) for i in range(len(loss))]
    rows = tuple(
        Row(f"row {i}", format_count(n), float(n), float(d), 6.0 * float(n) * float(d), float(value), cluster=names[i])
        for i, (n, d, value) in enumerate(zip(n_params, n_tokens, loss, strict=True))
    )
    return Table("arrays", rows, flops_convention="6ND")
