"""Predictions that were on record before their runs, and how they came out, over one sweep or all that lie beside it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling import runs

LEVEL = 0.95  # of the interval of the share that came out inside


@dataclasses.dataclass(frozen=True)
class Score:
    """A prediction and what was measured."""

    sweep: str
    member: str
    predicted: float
    interval: tuple[float, float]
    level: float
    measured: float
    hit: bool

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


@dataclasses.dataclass(frozen=True)
class Record:
    """What many scores say of the intervals.

    Attributes:
      n: scored predictions.
      hits: those whose interval held the measured loss.
      nominal: mean level of the intervals.
      share: interval (Clopper and Pearson 1934) of the share that such intervals hold.
      mean_error: mean |predicted / measured - 1|.
      bias: mean of predicted / measured - 1.
    """

    n: int
    hits: int
    nominal: float
    share: tuple[float, float]
    mean_error: float
    bias: float

    def words(self) -> str:
        lo, hi = (100 * v for v in self.share)
        return (
            f"{self.hits} of {self.n} predictions on record came out inside their intervals, which claim "
            f"{100 * self.nominal:g} %: the share lies between {lo:.0f} and {hi:.0f} % (95 %, if they were independent); mean "
            f"error {100 * self.mean_error:.2f} %, bias {100 * self.bias:+.2f} %"
        )


def scores(folder: str | pathlib.Path) -> list[Score]:
    """The scored predictions of a sweep folder; those of runs that were left out of fits have no score."""
    root = pathlib.Path(folder)
    return [
        Score(root.resolve().name, s["member"], s["predicted"], tuple(s["interval"]), s["level"], s["measured"], s["hit"])
        for s in runs.read_jsonl(root / runs.PREDICTIONS)
        if s["kind"] == "score" and s.get("hit") is not None
    ]  # fmt: skip


def around(folder: str | pathlib.Path) -> list[Score]:
    """The scored predictions of all sweeps in the folder that holds this one."""
    parent = pathlib.Path(folder).resolve().parent
    return [score for path in sorted(parent.glob(f"*/{runs.PREDICTIONS}")) for score in scores(path.parent)]


def record(found: Sequence[Score]) -> Record | None:
    """What the scores say together; None for none."""
    if not found:
        return None
    from scipy.special import betaincinv

    n, hits, tail = len(found), sum(s.hit for s in found), (1 - LEVEL) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    errors = np.array([s.error for s in found])
    nominal = float(np.mean([s.level for s in found]))
    return Record(n, hits, nominal, (low, high), float(np.abs(errors).mean()), float(errors.mean()))


def to_json(found: Sequence[Score]) -> dict[str, Any]:
    """As JSON types."""
    together = record(found)
    return {
        "record": None if together is None else dataclasses.asdict(together) | {"words": together.words()},
        "scores": [dataclasses.asdict(s) for s in found],
    }
