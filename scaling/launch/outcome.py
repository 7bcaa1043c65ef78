"""What the end of a worker means, and whether its member is tried again.  Pure."""

from __future__ import annotations

import dataclasses
import enum
import signal
from typing import Any

from scaling import runs

KILL_CAP = 100  # ends by a signal or a saved preemption, over a member's life; not its fault, but not for ever
STALL_CAP = 10  # of them in a row without a step of progress: most likely out of memory
# The program's own faults, unlike being killed from outside.
_CRASHES = {signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGBUS}


class End(enum.StrEnum):
    """Why a worker ended."""

    DONE = "done"  # done.json is there: finished or diverged
    SAVED = "saved"  # SIGTERM, checkpoint written: run again, uncounted
    KILLED = "killed"  # from outside: run again, uncounted
    REFUSED = "refused"  # the trainer says that it can never run: not tried again
    ERROR = "error"  # counted


@dataclasses.dataclass(frozen=True)
class Ended:
    """An end with its cause in words."""

    end: End
    cause: str = ""


def judge(status: int | None, done: bool, last_attempt: dict[str, Any] | None) -> Ended:
    """The end of a worker from its exit status, or from its files where a former launcher took the status with it.

    Args:
      status: exit status, negative for a signal, None when unknown.
      done: whether done.json is there.
      last_attempt: the worker's attempts/NNN.json, None before it has one; without ``exit`` it did not live to write that.
    """
    if done:
        return Ended(End.DONE)
    attempt = last_attempt or {}
    cause = attempt.get("cause") or ""
    if status is None:
        known = {"preempted": End.SAVED, "done": End.KILLED, None: End.KILLED}  # done.json follows on "done"
        end = known.get(attempt.get("exit"), End.ERROR)
        return Ended(end, cause if end is End.ERROR else "ended unseen")
    if status == runs.PREEMPTED:
        return Ended(End.SAVED, "asked to save")
    if status == runs.BAD_CONFIG:
        return Ended(End.REFUSED, cause or "refused by the trainer (exit status 2)")
    killed_by = -status if status < 0 else status - 128 if status > 128 else 0
    if killed_by:
        try:
            name = signal.Signals(killed_by).name
        except ValueError:
            return Ended(End.ERROR, f"exit status {status}")
        return Ended(End.ERROR if killed_by in _CRASHES else End.KILLED, name)
    return Ended(End.ERROR, cause or f"exit status {status}" + (" without done.json" if status == 0 else ""))


@dataclasses.dataclass(frozen=True)
class Tally:
    """How often a member's workers ended, and at which step they did; part of state.json."""

    failures: int = 0  # counted against --retries
    kills: int = 0
    stalled: int = 0  # kills in a row at the same step
    step: int = -1
    failed: str = ""  # why it is not tried again; empty while it is

    def after(self, ended: Ended, step: int, retries: int) -> Tally:
        """The tally after one more end, ``step`` being the last that the member's metrics show."""
        if ended.end is End.DONE:
            return self
        if ended.end is End.REFUSED:
            return dataclasses.replace(self, failed=ended.cause)
        if ended.end is End.ERROR:
            failures = self.failures + 1
            failed = f"failed {failures} times, at last: {ended.cause}" if failures > retries else ""
            return dataclasses.replace(self, failures=failures, step=step, failed=failed)
        stalled = self.stalled + 1 if step <= self.step and ended.end is End.KILLED else 0
        kills = self.kills + 1
        failed = ""
        if stalled >= STALL_CAP:
            failed = f"killed {stalled} times without a step of progress ({ended.cause}); is the memory enough?"
        elif kills >= KILL_CAP:
            failed = f"interrupted {kills} times ({ended.cause})"
        return dataclasses.replace(self, kills=kills, stalled=stalled, step=step, failed=failed)


FRESH = Tally()
