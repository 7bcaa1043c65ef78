"""Which member may start, in which order, and how long it all takes.  Pure: no files, no processes.

Order: cheapest first gives the first fit early, the longest chain first keeps every core busy to the end.  Both are played
through with the expected times; cheapest first is taken unless it costs more than ``CHEAPEST_MAY_COST``.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

MIN_SIZES_TO_PREDICT = 4  # three to fit, one to predict
CHEAPEST_MAY_COST = 1.05


class Phase(enum.StrEnum):
    """Where a member stands; derived, never stored."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"
    BLOCKED = "blocked"  # its trunk ended without the mark that it needs
    RUNNING = "running"
    READY = "ready"
    WAITS_TRUNK = "waits for its trunk"
    WAITS_PREDICTION = "waits for its prediction"

    @property
    def over(self) -> bool:
        return self in (Phase.FINISHED, Phase.DIVERGED, Phase.FAILED, Phase.BLOCKED)


@dataclasses.dataclass(frozen=True)
class Task:
    """What scheduling knows about a member."""

    id: str
    slots: int = 1
    seconds: float = 0.0  # expected, or what is left of it
    parent: str | None = None
    mark_after: float = 0.0  # the parent's seconds until the mark is there
    gated: bool = False  # of the largest size, where it is predicted before it starts


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a member's files and its backend say."""

    ended: str | None = None  # done.json's status: 'finished' or 'diverged'
    failed: bool = False
    running: bool = False
    mark: bool = True  # its parent's mark is committed, or it needs none


def phases(tasks: Sequence[Task], facts: Mapping[str, Facts], gate_open: bool) -> dict[str, Phase]:
    """Every member's phase; parents stand before their branches in ``tasks``."""
    out: dict[str, Phase] = {}
    for task in tasks:
        f = facts[task.id]
        if f.ended:
            out[task.id] = Phase(f.ended)
        elif f.running:
            out[task.id] = Phase.RUNNING
        elif f.failed:
            out[task.id] = Phase.FAILED
        elif not f.mark:
            parent_over = task.parent is not None and out[task.parent].over
            out[task.id] = Phase.BLOCKED if parent_over else Phase.WAITS_TRUNK
        else:
            out[task.id] = Phase.WAITS_PREDICTION if task.gated and not gate_open else Phase.READY
    return out


def prediction_due(tasks: Iterable[Task], now: Mapping[str, Phase]) -> bool:
    """Whether everything is over that the prediction of the largest size is fitted to."""
    return all(now[t.id].over for t in tasks if not t.gated)


def longest_path(tasks: Sequence[Task]) -> dict[str, float]:
    """Seconds from the start of each task to the end of the last that hangs on it."""
    out: dict[str, float] = {}
    for task in reversed(tasks):
        hanging = [t.mark_after + out[t.id] for t in tasks if t.parent == task.id]
        out[task.id] = max([task.seconds, *hanging])
    return out


def cheapest_first(tasks: Sequence[Task]) -> list[Task]:
    """The sweep's own order: small before large, a trunk before its branches."""
    return list(tasks)


def longest_first(tasks: Sequence[Task]) -> list[Task]:
    """The longest remaining chain first."""
    paths = longest_path(tasks)
    return sorted(tasks, key=lambda t: -paths[t.id])


ORDERS = {"cheapest first": cheapest_first, "longest chain first": longest_first}


def ready(ordered: Sequence[Task], now: Mapping[str, Phase]) -> list[Task]:
    """What may start, in order.  Offer them one by one and stop at the first without room, so that a member that needs all
    slots is not passed by for ever."""
    return [t for t in ordered if now[t.id] is Phase.READY]


def simulate(tasks: Sequence[Task], facts: Mapping[str, Facts], slots: int, ordered: Sequence[Task]) -> float:
    """Seconds until all is over, from ``facts``, when every task takes its expected seconds."""
    clock = 0.0
    current = dict(facts)
    ends = {t.id: t.seconds for t in tasks if current[t.id].running}
    starts = dict.fromkeys(ends, 0.0)
    by_id = {t.id: t for t in tasks}
    used = sum(by_id[i].slots for i in ends)
    while True:
        now = phases(tasks, current, prediction_due(tasks, phases(tasks, current, False)))
        for task in ready(ordered, now):
            if used + min(task.slots, slots) > slots:
                break
            current[task.id] = dataclasses.replace(current[task.id], running=True)
            starts[task.id], ends[task.id] = clock, clock + task.seconds
            used += min(task.slots, slots)
        waiting = [t for t in tasks if not current[t.id].mark and t.parent in starts]
        marks = {t.id: starts[t.parent] + t.mark_after for t in waiting if t.parent}
        if not ends:
            return clock
        clock = max(clock, min([*ends.values(), *marks.values()]))
        for i in [i for i, at in marks.items() if at <= clock]:
            current[i] = dataclasses.replace(current[i], mark=True)
        for i in [i for i, at in ends.items() if at <= clock]:
            del ends[i]
            used -= min(by_id[i].slots, slots)
            current[i] = dataclasses.replace(current[i], running=False, ended="finished")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The order taken and what each would take."""

    name: str
    seconds: dict[str, float]

    @property
    def expected(self) -> float:
        return self.seconds[self.name]


def choose_order(tasks: Sequence[Task], facts: Mapping[str, Facts], slots: int) -> Choice:
    """Plays every order through; see the module's docstring for which is taken."""
    seconds = {name: simulate(tasks, facts, slots, order(tasks)) for name, order in ORDERS.items()}
    cheapest, longest = ORDERS
    return Choice(cheapest if seconds[cheapest] <= CHEAPEST_MAY_COST * seconds[longest] else longest, seconds)
