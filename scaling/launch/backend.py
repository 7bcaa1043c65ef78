"""What an engine that runs members must do.  Success is never read from it: ``done.json`` in the run directory is."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

# JSON, so that state.json can hold it.  "pid" is the worker's, as its attempts name it; the rest is the backend's own.
Handle = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """One member's worker: a command, where its output goes, and how many cores or devices it holds."""

    name: str
    command: tuple[str, ...]
    log: pathlib.Path
    slots: int
    device: str | None = None  # the name of the device that it was started on; None takes any


@dataclasses.dataclass(frozen=True)
class Report:
    """A backend's answer about one job."""

    running: bool
    status: int | None = None  # of an ended job: its exit status, negative for a signal, None where nobody knows


class Backend(Protocol):
    """Queues, places, ends.  A handle outlives the launcher: a later launcher polls it just the same."""

    slots: int  # how many members of one slot run at once

    def environment(self) -> dict[str, str]:
        """What a worker's environment gets here, beyond the launcher's own."""

    def submit(self, job: Job) -> Handle | None:
        """Starts a job, or returns None when there is no room now."""

    def poll(self, handles: Mapping[str, Handle]) -> dict[str, Report]:
        """One call for all jobs that were submitted and have not ended; rooms are counted from these handles."""

    def find(self, jobs: Iterable[Job]) -> dict[str, Handle]:
        """Jobs that run although their handle was lost."""

    def cancel(self, handle: Handle) -> None:
        """Asks a job to save and end (SIGTERM)."""

    def kill(self, handle: Handle) -> None:
        """Ends a job that hangs at once; where it stands goes into its log, if it can still tell."""

    def where(self, handle: Handle) -> str:
        """A few words for people: ``'core 1'``."""
