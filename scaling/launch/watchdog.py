"""Which workers hang: those that say that they train, and whose steps do not follow each other.

Time is counted in looks, each for at most ``MOST_PER_LOOK`` of the interval between two: when the launcher itself stood still
(a closed laptop, a paused machine, a clock that jumps), the worker stood still too, and is not blamed for it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

LOOKS = 20  # per limit
MOST_PER_LOOK = 2.0


def progress(pid: int, attempt: dict[str, Any] | None) -> tuple[Any, ...] | None:
    """What must change while a worker trains, from the latest attempts/NNN.json; None while it does something else: it starts,
    compiles, restores, validates, saves or has ended."""
    if attempt is None or attempt.get("pid") != pid or attempt.get("exit") or attempt.get("doing") != "train":
        return None
    return attempt["started_at"], attempt["to_step"]


@dataclasses.dataclass
class Watchdog:
    """Counts, for each member, the seconds without progress."""

    limit: float  # seconds; 0 never bites
    _seen: dict[str, tuple[tuple[Any, ...], float]] = dataclasses.field(default_factory=dict)
    _looked: float | None = None

    def due(self, now: float) -> float:
        """Seconds that this look counts for; 0 before it is time for one.  ``now`` is of a clock that only goes forward."""
        interval = self.limit / LOOKS
        if self._looked is None or now < self._looked:
            self._looked = now
        passed = now - self._looked
        if not self.limit or passed < interval:
            return 0.0
        self._looked = now
        return min(passed, MOST_PER_LOOK * interval)

    def hangs(self, member: str, mark: tuple[Any, ...] | None, seconds: float) -> bool:
        """Whether ``member`` has made no progress for the limit; ``seconds`` have passed since the last look."""
        if mark is None:
            self._seen.pop(member, None)
            return False
        before, waited = self._seen.get(member, (None, 0.0))
        waited = waited + seconds if mark == before else 0.0
        self._seen[member] = (mark, waited)
        return 0 < self.limit <= waited
