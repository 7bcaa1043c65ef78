"""What a run knows about itself while it runs: seconds by kind, losses since the last row, signs of divergence."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

_IMPORTED = time.monotonic()
SPIKE_WINDOW = 50
SPIKE_NATS = 1.0


class Chrono:
    """Wall seconds by kind; whatever no kind claims is ``idle`` (start-up, imports, waiting)."""

    def __init__(self) -> None:
        self._started = time.monotonic() - process_age()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, kind: str) -> Iterator[None]:
        """Counts the body as ``kind``; kinds do not nest."""
        before = time.monotonic()
        try:
            yield
        finally:
            self._seconds[kind] = self._seconds.get(kind, 0.0) + time.monotonic() - before

    def total(self) -> float:
        """Seconds since the process started."""
        return time.monotonic() - self._started

    def seconds(self) -> dict[str, float]:
        """Seconds by kind; they add up to the time since the start."""
        total = self.total()
        out = {kind: round(s, 3) for kind, s in self._seconds.items()}
        return out | {"idle": round(total - sum(out.values()), 3)}


@dataclasses.dataclass
class LossTrack:
    """Training losses since the last row and the rule that calls a run diverged; saved with every checkpoint, so that a
    resumed run writes the same rows as an uninterrupted one.

    Diverged: a loss or gradient norm that is not finite, or a mean over the last 50 steps that lies a nat above the lowest
    such mean so far (by then no run that we saw came back).
    """

    total: float = 0.0
    count: int = 0
    recent: list[float] = dataclasses.field(default_factory=list)
    lowest: float | None = None

    def add(self, step: int, loss: float, grad_norm: float, told: Sequence[float] | None = None) -> str | None:
        """Counts one step's loss; returns the cause when the run has diverged.

        Args:
          step: its number.
          loss: of the whole batch.
          grad_norm: of the gradient.
          told: losses of the windows that rows tell of, where that is a part of the batch.
        """
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"step {step}: loss {loss}, gradient norm {grad_norm}: not finite; lower optim.lr or raise the warm-up"
        told = [loss] if told is None else told
        self.total, self.count = self.total + sum(told), self.count + len(told)
        self.recent = [*self.recent[-(SPIKE_WINDOW - 1) :], loss]
        if len(self.recent) == SPIKE_WINDOW:
            mean = sum(self.recent) / SPIKE_WINDOW
            if self.lowest is not None and mean > self.lowest + SPIKE_NATS:
                rise = f"{SPIKE_NATS:g} nat above its best, {self.lowest:.3f}"
                return f"step {step}: mean loss {mean:.3f} over {SPIKE_WINDOW} steps, {rise}"
            self.lowest = mean if self.lowest is None else min(mean, self.lowest)
        return None

    def take_mean(self) -> float | None:
        """Mean loss since the last call; None where there was none to tell of."""
        mean = self.total / self.count if self.count else None
        self.total, self.count = 0.0, 0
        return mean

    def forked(self) -> LossTrack:
        """For a branch: what the trunk saw counts for divergence, not for the branch's first row."""
        return dataclasses.replace(self, total=0.0, count=0)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def process_age() -> float:
    """Seconds since this process started (since this module was imported, where the system does not tell)."""
    try:
        with open("/proc/self/stat") as f:
            started_ticks = int(f.read().rsplit(")", 1)[1].split()[19])
        with open("/proc/uptime") as f:
            return float(f.read().split()[0]) - started_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return time.monotonic() - _IMPORTED
