"""Predictions and pictures, made by child processes: asynchronous, one at a time, and harmless when they fail."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import IO

from scaling import runs
from scaling.launch import folder as folders

LIVE_SECONDS = 5.0  # live predictions start at most this often
TIMEOUT_SECONDS = 300.0
NICENESS = 10  # workers go first

COMMANDS = {
    "live": ("analysis.predict", "--live"),
    "record": ("analysis.predict", "--record"),
    "score": ("analysis.predict", "--score"),
    "plot": ("analysis.plot_scaling",),
    "emergence": ("analysis.plot_emergence",),
    "report": ("analysis.report",),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """An analysis that ended."""

    name: str
    ok: bool
    words: str  # what it printed


@dataclasses.dataclass
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    start: float


class Analyses:
    """A queue of analyses of one sweep."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._queue: collections.deque[str] = collections.deque()
        self._child: _Child | None = None
        self._live_wanted = False
        self._live_started = -LIVE_SECONDS
        self._live: dict[str, float] = {}
        self._live_stamp = 0
        self.seconds = 0.0

    def want_live(self) -> None:
        """A member ended: predict again, soon."""
        self._live_wanted = True

    def ask(self, name: str) -> None:
        """Queues one of ``COMMANDS``; it goes before live predictions."""
        self._queue.append(name)

    @property
    def busy(self) -> bool:
        """Whether something other than a live prediction runs or waits."""
        return bool(self._queue) or (self._child is not None and self._child.name != "live")

    def tick(self) -> Result | None:
        """Starts what waits; returns what ended, if anything did (never a live prediction)."""
        result = self._reap() if self._child else None
        if self._child is None:
            due = self._live_wanted and time.monotonic() - self._live_started >= LIVE_SECONDS
            if self._queue:
                self._start(self._queue.popleft())
            elif due:
                self._live_wanted, self._live_started = False, time.monotonic()
                self._start("live")
        return result

    def wait(self, name: str) -> Result:
        """Runs one analysis to its end."""
        self._queue.clear()
        self.stop()
        self._start(name)
        try:
            while self._child and (result := self._reap()) is None:
                time.sleep(0.05)
        finally:
            self.stop()  # when interrupted
        return result or Result(name, True, "")

    def stop(self) -> None:
        """Ends what runs; nothing of it is needed."""
        if self._child:
            self._child.process.kill()
            self._child.process.wait()
            self._child = None

    def live(self) -> dict[str, float]:
        """The losses predicted from smaller rungs, by member."""
        path = self._folder / folders.LIVE_PREDICTIONS
        with contextlib.suppress(FileNotFoundError):
            stamp = path.stat().st_mtime_ns
            if stamp != self._live_stamp:
                with contextlib.suppress(runs.RunError):  # a prediction that cannot be read is none
                    members = (runs.read_json(path) or {}).get("members", {})
                    self._live = {name: float(m["loss"]) for name, m in members.items() if m.get("loss") is not None}
                self._live_stamp = stamp
        return self._live

    def _start(self, name: str) -> None:
        module, *flags = COMMANDS[name]
        output = tempfile.TemporaryFile()  # noqa: SIM115  closed when the child is reaped
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--runs", str(self._folder), *flags],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        with contextlib.suppress(OSError):  # it may have ended
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        self._child = _Child(name, process, output, time.monotonic())

    def _reap(self) -> Result | None:
        child = self._child
        assert child is not None
        took = time.monotonic() - child.start
        if child.process.poll() is None:
            if took < TIMEOUT_SECONDS:
                return None
            child.process.kill()
            child.process.wait()
        self.seconds += took
        self._child = None
        with child.output as f:
            f.seek(0)
            words = f.read().decode(errors="replace").strip()
        return None if child.name == "live" else Result(child.name, child.process.returncode == 0, words)
