"""Where a fault is made: a sweep that was cut off in the middle, and the undisturbed one to compare with."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import time

from launching import TRUNK, Launches, differences, is_worker, wait_for

from scaling import runs

SAME = "the same, bit for bit"
EARLY, LATE = "causal-1Ksteps", "causal-2Ksteps"
MARK = 800
SAVE_SECONDS = 0.3  # between two checkpoints: machine.checkpoint_minutes of seconds.py


@dataclasses.dataclass
class Lab:
    """A place for one fault: launches in a folder of its own, the cut-off sweep and the undisturbed one."""

    launches: Launches
    undisturbed: pathlib.Path
    cut_off: pathlib.Path

    @property
    def folder(self) -> pathlib.Path:
        return self.launches.folder

    def paused(self) -> pathlib.Path:
        """The cut-off sweep, copied to where this lab's launches look."""
        shutil.copytree(self.cut_off, self.folder)
        return self.folder

    def same(self) -> str:
        """Fails unless the finished sweep is the undisturbed one."""
        assert differences(self.folder, self.undisturbed) == []
        return SAME

    def log(self, member: str = TRUNK) -> str:
        return (self.folder / member / runs.LOG).read_text()

    def go_on(self, *arguments: str) -> str:
        return self.launches.run(*arguments)


def cut_off(launches: Launches) -> pathlib.Path:
    """Runs a sweep to the middle and kills it: the trunk holds still at its second checkpoint after the mark until the branch
    from there is done."""
    launcher = launches.start()
    wait_for(lambda: MARK in launches.checkpoints(), "the mark")
    for count in (1, 2):
        trunk = held(launches)
        time.sleep(1.2 * SAVE_SECONDS)  # while it makes no steps: a save is due when it goes on, however quick the machine is
        os.kill(trunk, signal.SIGCONT)
        wait_for(lambda count=count: _saved(launches, count), "a checkpoint after the mark, and a row after it")
    trunk = held(launches)
    wait_for(lambda: launches.done(EARLY), "the first branch")
    launches.kill(launcher.pid, trunk)
    wait_for(lambda: not is_worker(trunk, launches.out), "the trunk's end")
    assert not launches.done(TRUNK), "the trunk was too quick for this test"
    return launches.folder


def _saved(launches: Launches, count: int) -> bool:
    """Whether the trunk has so many checkpoints after the mark, and a row of metrics after the newest."""
    after = [c for c in launches.checkpoints() if c > MARK]
    steps = [row["step"] for row in runs.read_jsonl(launches.folder / TRUNK / runs.METRICS)]
    return len(after) >= count and steps[-1] > after[-1]


def held(launches: Launches) -> int:
    """The trunk's worker, stopped between two steps: not while a save is being started, which may take any time."""
    for _ in range(100):
        worker = launches.wait_for_steps()
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.05)
        if launches.attempt().get("doing") == "train":
            return worker
        os.kill(worker, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the trunk was in a checkpoint a hundred times")


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")}
