"""Faults made on purpose: each function makes one and says in words what happened.  ``CASES`` is the table of docs/faults.md.

Real launchers and trainers throughout.  Most faults meet a sweep that was cut off in the middle (``Lab.paused``): a trunk with
a mark and two later checkpoints, one branch done, one to come.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from launching import TRUNK, Launches, differences, is_worker, results, wait_for

from scaling import runs
from scaling.checkpoint import SET_ASIDE

SAME = "the same, bit for bit"
EARLY, LATE = "causal-1Ksteps", "causal-2Ksteps"
MARK = 800


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
    wait_for(lambda: len([c for c in launches.checkpoints() if c > MARK]) >= 2, "two checkpoints after the mark")
    trunk = held(launches)
    wait_for(lambda: launches.done(EARLY), "the first branch")
    launches.kill(launcher.pid, trunk)
    wait_for(lambda: not is_worker(trunk, launches.out), "the trunk's end")
    assert not launches.done(TRUNK), "the trunk was too quick for this test"
    return launches.folder


def held(launches: Launches) -> int:
    """The trunk's worker, stopped between two steps: not in a checkpoint, which may take any time."""
    for _ in range(100):
        worker = launches.wait_for_steps()
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.05)
        if launches.attempt().get("doing") == "train":
            return worker
        os.kill(worker, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the trunk was in a checkpoint a hundred times")


# ------------------------------------------------------------------------------------------------------------- killed

SEED = 20
PHASES = ("start", "compile", "steps", "checkpoint", "closing")
# A kill per word: the trunk trains longest, so most fall on it.
KILLS = {
    TRUNK: (*PHASES, "steps", "steps", "checkpoint", "steps", "steps", "steps", "steps", "steps"),
    EARLY: PHASES,
    LATE: PHASES,
}
SPREAD = {
    "start": 1.5,
    "compile": 0.4,
    "steps": 0.25,
    "checkpoint": 0.02,
    "closing": 0.1,
}  # seconds, about as long as each takes


@dataclasses.dataclass
class Kill:
    """One kill to come: at a random moment after the member's worker has come to ``phase``."""

    phase: str
    who: tuple[str, ...]
    after: float
    seen: tuple[int, float] | None = None  # the worker that came to the phase, and when to kill it


def random_kills(seed: int) -> dict[str, list[Kill]]:
    """23 kills, repeatable from the seed: of the worker, of the launcher, and of both.  At least 20 must happen: a worker that
    is closing may end before its kill."""
    draw = random.Random(seed)
    who = [("worker",), ("launcher",), ("launcher", "worker")] * 8
    draw.shuffle(who)
    return {m: [Kill(p, who.pop(), draw.uniform(0, SPREAD[p])) for p in phases] for m, phases in KILLS.items()}


def _has_come_to(phase: str, launches: Launches, member: str, starts: int) -> bool:
    """Whether the member's running worker is in a phase (or beyond it, where that is over in a moment)."""
    folder = launches.folder / member
    if phase == "start":
        return True
    if phase == "compile":  # the summary is printed just before
        log = folder / runs.LOG
        return log.exists() and log.read_text().count("model: depth") > starts
    if not launches.attempt(member):
        return False
    over = _last_step(folder / runs.METRICS) >= (runs.read_json(folder / runs.PLAN) or {"steps": 10**9})["steps"]
    if phase == "checkpoint":
        return over or any("tmp" in p.name for p in (folder / runs.CHECKPOINTS).glob("*"))
    return over or phase == "steps"


def _last_step(metrics: pathlib.Path) -> int:
    """Of the last whole row, without reading them all."""
    if not metrics.exists():
        return 0
    with open(metrics, "rb") as f:
        f.seek(max(0, f.seek(0, os.SEEK_END) - 2000))
        rows = f.read().rpartition(b"\n")[0].splitlines()
    return json.loads(rows[-1])["step"] if rows else 0


def killed_at_random(lab: Lab) -> str:
    launches, todo = lab.launches, random_kills(SEED)
    launcher, starts, killed = launches.start(), dict.fromkeys(todo, 0), []
    end = time.monotonic() + 400
    while any(todo.values()) and launcher.poll() is None:
        assert time.monotonic() < end, f"after {killed} still to come: {todo}"
        time.sleep(0.01)
        for member, kills in todo.items():
            pid = launches.pid(member)
            if not kills or not pid or not is_worker(pid, launches.out):
                continue
            kill = kills[0]
            if kill.seen is None or kill.seen[0] != pid:
                if not _has_come_to(kill.phase, launches, member, starts[member]):
                    continue
                kill.seen = pid, time.monotonic() + kill.after
            if time.monotonic() < kill.seen[1]:
                continue
            kills.pop(0)
            launches.kill(*[{"worker": pid, "launcher": launcher.pid}[who] for who in kill.who])
            wait_for(lambda pid=pid, kill=kill: "worker" not in kill.who or not is_worker(pid, launches.out), "its end")
            log = lab.folder / member / runs.LOG
            starts[member] = log.read_text().count("model: depth") if log.exists() else 0
            killed.append(f"{'+'.join(kill.who)} of {member}: {kill.phase}")
            if "launcher" in kill.who:
                launcher = launches.start()
    printed = launches.finish(launcher)
    assert len(killed) >= 20, f"{killed}, then {todo}: {printed}"
    tallies = [launches.state(member)["tally"] for member in todo]
    assert all(t["failures"] == 0 and not t["failed"] for t in tallies), tallies
    return f"members go on from their newest checkpoints, and no kill counts as a failure; {lab.same()}"


def killed_launcher(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    launcher = launches.start()
    worker = held(launches)  # else it may end before the next launcher looks
    launches.kill(launcher.pid)
    (lab.folder / TRUNK / runs.STATE).unlink()
    again = launches.start()
    wait_for(lambda: launches.pid() == worker, "that the worker is found")
    os.kill(worker, signal.SIGCONT)
    printed = launches.finish(again)
    assert f"{TRUNK}: still running, taken over" in printed and len(launches.attempts()[TRUNK]) == 2
    return f"the worker goes on, the next launch finds it by its command and starts no second one; {lab.same()}"


def asked_to_stop(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    launcher = launches.start()
    worker = launches.wait_for_steps()
    launcher.terminate()
    printed = launches.finish(launcher, 128 + signal.SIGTERM)
    attempt = launches.attempts()[TRUNK][-1]
    assert attempt["exit"] == "preempted" and not is_worker(worker, launches.out)
    command = shlex.split(printed.rpartition("to go on: ")[2].strip())
    again = launches.start(words=[sys.executable, *command[1:]])
    wait_for(lambda: len(launches.attempts()[TRUNK]) == 3, "a third attempt")
    assert f"asked launcher {again.pid} to stop" in launches.run("cancel")
    launches.finish(again, 128 + signal.SIGTERM)
    lab.go_on()
    assert [a["exit"] for a in launches.attempts()[TRUNK][1:]] == ["preempted", "preempted", "done"]
    return f"members save and exit 75, the command to go on is printed; {lab.same()}"


def second_launcher(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    first = launches.start()
    launches.wait_for_steps()
    refused = launches.run(status=runs.BAD_CONFIG)
    assert "another launcher runs this sweep" in refused and str(first.pid) in refused and "Traceback" not in refused
    assert f"launcher {first.pid} runs it" in launches.run("status")
    launches.finish(first)
    assert [len(a) for a in launches.attempts().values()] == [2, 1, 1]
    return f"the second is refused, naming the process of the first, which goes on; {lab.same()}"


# -------------------------------------------------------------------------------------------------------------- disk


def too_large_a_file(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    largest = (lab.folder / TRUNK / runs.METRICS).stat().st_size // 1024 + 2  # KiB: two more, and the next rows do not fit
    words = ["bash", "-c", f"ulimit -f {largest}; exec " + shlex.join(launches.words())]
    printed = launches.finish(launches.start(words=words), 1)
    assert f"failed: {TRUNK}" in printed and os.strerror(errno.EFBIG) in printed and "make room" in printed
    assert "Traceback" not in printed and launches.state()["tally"]["failures"] == 0
    lab.go_on()
    return f"the member ends with a message (file, cause, remedy) and is not tried in vain; with room again, {lab.same()}"


@contextlib.contextmanager
def small_disk(place: pathlib.Path) -> Iterator[Callable[[str], None]]:
    """A file system of 64 MB in memory at ``place``; yields what changes its mount options."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full_disk(lab: Lab) -> str:
    launches = lab.launches
    with small_disk(launches.out):
        lab.paused()
        rest = lab.folder / "rest"
        launcher = launches.start()
        worker = launches.wait_for_steps()
        with contextlib.suppress(OSError), open(rest, "wb", buffering=0) as f:
            while f.write(bytes(1 << 16)):
                pass
        _both_end(lab, launcher, worker, os.strerror(errno.ENOSPC))
        rest.unlink()
        lab.go_on()
        return f"launcher and member end with a message; with room again, {lab.same()}"


def _both_end(lab: Lab, launcher: subprocess.Popen[str], worker: int, why: str) -> None:
    """Of a launcher and its worker that can write no more: each with a message, and no member is over."""
    printed, _ = launcher.communicate(timeout=300)
    wait_for(lambda: not is_worker(worker, lab.launches.out), "the worker's end")
    assert launcher.returncode in (1, 2) and why in printed and "Traceback" not in printed, printed
    assert why in lab.log() and "Traceback" not in lab.log() and not lab.launches.done(LATE)


def read_only_disk(lab: Lab) -> str:
    launches = lab.launches
    with small_disk(launches.out) as remount:
        lab.paused()
        before = files(lab.folder)
        remount("ro")
        refused = launches.run(status=runs.BAD_CONFIG)
        assert f"cannot be written ({os.strerror(errno.EROFS)})" in refused and str(launches.out) in refused
        assert "--out" in refused and "Traceback" not in refused and files(lab.folder) == before
    return "refused with the remedy, exit status 2, no file is touched"


def no_permission(lab: Lab) -> str:
    launches, words = lab.launches, lab.launches.words()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to give that right up")
        words = ["setpriv", "--bounding-set=-dac_override", *words]
    trunk = lab.paused() / TRUNK
    paths = [lab.folder, trunk, *(trunk / name for name in (runs.METRICS, runs.ATTEMPTS, runs.CHECKPOINTS))]
    launcher = launches.start(words=words)
    worker = launches.wait_for_steps()
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        _both_end(lab, launcher, worker, os.strerror(errno.EACCES))
        refused = launches.finish(launches.start(words=words), runs.BAD_CONFIG)
        assert f"cannot be written ({os.strerror(errno.EACCES)})" in refused and "Traceback" not in refused
    finally:
        for path in paths:
            path.chmod(path.stat().st_mode | 0o200)
    lab.go_on()
    return f"launcher and member end with a message, a new launch is refused; writable again, {lab.same()}"


# ------------------------------------------------------------------------------------------------------------- damage


def damaged_checkpoints(lab: Lab) -> str:
    launches, folder = lab.launches, lab.paused() / TRUNK / runs.CHECKPOINTS
    before, newest = launches.checkpoints()[-2:]
    data = max((p for p in (folder / str(newest)).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(data, data.stat().st_size // 2)
    written = sorted((p for p in (folder / str(before)).rglob("*") if p.is_file()), key=lambda p: p.stat().st_mtime_ns)
    for path in written[len(written) // 2 :]:
        path.unlink()
    lab.go_on()
    warned = re.findall(r"warning: \S+/(\d+) cannot be read \(", lab.log())
    assert warned == [str(newest), str(before)] and launches.attempts()[TRUNK][-1]["from_step"] == MARK
    assert {p.name for p in (lab.folder / TRUNK / SET_ASIDE).iterdir()} == {f"{before}.0", f"{newest}.0"}
    return f"warned of, set aside, and the one before them goes on; {lab.same()}"


def damaged_mark(lab: Lab) -> str:
    launches = lab.launches
    shutil.copytree(lab.undisturbed, lab.folder)
    shutil.rmtree(lab.folder / LATE)
    trunk = lab.folder / TRUNK
    mark = max(trunk.joinpath(runs.CHECKPOINTS).iterdir(), key=lambda p: int(p.name))
    (mark / "state" / "manifest.ocdbt").unlink()
    refused = launches.run(status=1)
    assert f"{mark} cannot be read" in refused and f"remove {trunk / runs.DONE}" in refused and "Traceback" not in refused
    assert launches.state(LATE)["tally"]["failures"] == 0
    (trunk / runs.DONE).unlink()
    shutil.rmtree(mark)
    lab.go_on()
    return f"the branch is refused with the remedy; after it, {lab.same()}"


def cut_metrics(lab: Lab) -> str:
    launches, path = lab.launches, lab.paused() / TRUNK / runs.METRICS
    before, newest = launches.checkpoints()[-2:]
    lines = path.read_bytes().splitlines(keepends=True)
    steps = [row["step"] for row in runs.read_jsonl(path)]
    cut = next(i for i, step in enumerate(steps) if step > before)
    assert steps[cut] <= newest
    path.write_bytes(b"".join(lines[:cut]) + lines[cut][:40])
    lab.go_on()
    assert f"rows up to step {newest} are left" in lab.log() and launches.attempts()[TRUNK][-1]["from_step"] == before
    return f"the newest checkpoint whose rows are all there goes on; {lab.same()}"


def lost_metrics(lab: Lab) -> str:
    launches, path = lab.launches, lab.paused() / TRUNK / runs.METRICS
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    there = launches.checkpoints()
    refused = launches.run(status=1)
    assert (
        f"rows up to step {there[-1]} are left" in refused and "bring the files back" in refused and "Traceback" not in refused
    )
    assert launches.checkpoints() == there and path.read_bytes() == whole[:1000]
    return "refused, naming file and remedy; no checkpoint and no row is touched"


# -------------------------------------------------------------------------------------------------------- hang, time


def hangs(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    launcher = launches.start("--hang-minutes", "0.2")
    held(launches)
    printed = launches.finish(launcher)
    assert "it hung: no step for 0.2 minutes" in printed
    assert launches.state()["tally"] == launches.state()["tally"] | {"failures": 0, "kills": 1}
    assert [a["exit"] for a in launches.attempts()[TRUNK][1:]] == [None, "done"]
    return f"after `--hang-minutes` it is ended and started again; {lab.same()}"


CLOCK = """
import datetime, os, time
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime
def _offset():
    with open(os.environ["CLOCK_OFFSET"]) as f:
        return int(f.read() or 0)
time.time = lambda: _time() + _offset()
time.time_ns = lambda: _time_ns() + _offset() * 10**9
class Shifted(_datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)
datetime.datetime = Shifted
"""


def clock_jumps(lab: Lab) -> str:
    """Python's wall clock, of launcher and workers, reads a file's offset; it jumps while they run."""
    launches = lab.launches
    lab.paused()
    place = lab.launches.out.parent / "clock"
    place.mkdir()
    (place / "sitecustomize.py").write_text(CLOCK)
    offset = place / "offset"

    def jump(seconds: int) -> None:
        offset.with_suffix(".new").write_text(str(seconds))
        os.replace(offset.with_suffix(".new"), offset)

    day = 24 * 3600
    jump(day)
    path = os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")]))
    launcher = launches.start("--hang-minutes", "1", env={"PYTHONPATH": path, "CLOCK_OFFSET": str(offset)})
    launches.wait_for_steps()
    jump(-400 * day)
    wait_for(lambda: launches.attempt(LATE), "the branch")
    jump(400 * day)
    launches.finish(launcher)
    started = [a["started_at"] for m in (TRUNK, LATE) for a in launches.attempts()[m]]
    assert started[2] < started[1] - 300 * day, "the clock did not jump"
    assert [len(a) for a in launches.attempts().values()] == [2, 1, 1]
    return f"nothing is ended or started anew; {lab.same()}"


def copied(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    original = launches.start()
    worker = launches.wait_for_steps()
    elsewhere = dataclasses.replace(launches, out=launches.out.parent / "elsewhere", started=[])
    with contextlib.suppress(shutil.Error):  # files that went while it copied
        shutil.copytree(launches.folder, elsewhere.folder)
    os.kill(worker, signal.SIGSTOP)
    launches.kill(original.pid)
    try:
        elsewhere.run()
        assert is_worker(worker, launches.out), "the copy took the original's worker for its own"
    finally:
        elsewhere.clean()
        launches.kill(worker)
    assert differences(elsewhere.folder, lab.undisturbed) == [] and not launches.done(TRUNK)
    return f"the copy goes on by itself and leaves the original and its worker alone; {SAME}"


def changed_config(lab: Lab) -> str:
    lab.paused()
    before = files(lab.folder)
    refused = lab.launches.run("--config.optim.lr=0.004", status=runs.BAD_CONFIG)
    assert "optim.lr: 0.008 -> 0.004" in refused and "--out" in refused and "Traceback" not in refused
    assert files(lab.folder) == before
    return "refused with the difference, exit status 2, no file is touched"


def once_more(lab: Lab) -> str:
    shutil.copytree(lab.undisturbed, lab.folder)
    printed = lab.go_on()
    assert "3 of 3 over" in printed and all(len(a) == 1 for a in lab.launches.attempts().values())
    assert results(lab.folder) == results(lab.undisturbed)
    return "nothing is trained"


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


CASES: dict[str, Callable[[Lab], str]] = {
    "`kill -9` at 20 random moments (worker, launcher, both), from the start to the closing": killed_at_random,
    "`kill -9` of the launcher, its state.json lost too": killed_launcher,
    "SIGTERM to the launcher, then `cancel`": asked_to_stop,
    "a second launcher on the same sweep": second_launcher,
    "a file that may not grow (RLIMIT_FSIZE)": too_large_a_file,
    "a full disk (tmpfs)": full_disk,
    "a read-only file system (tmpfs)": read_only_disk,
    "the right to write withdrawn while it trains": no_permission,
    "the newest checkpoint truncated, the one before it without its last files": damaged_checkpoints,
    "a branch's checkpoint of its trunk damaged": damaged_mark,
    "metrics cut in the middle of a line, before the newest checkpoint": cut_metrics,
    "metrics cut before every checkpoint": lost_metrics,
    "a worker that hangs (SIGSTOP)": hangs,
    "the clock jumps by a year, back and forth": clock_jumps,
    "the folder copied elsewhere while it runs, and continued there": copied,
    "a config changed between two launches": changed_config,
    "the same command again after the end": once_more,
}
