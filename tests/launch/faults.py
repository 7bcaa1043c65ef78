"""Faults made on purpose: each function makes one and says in words what happened.  ``CASES`` is the table of docs/faults.md.

Real launchers and trainers throughout.  Most faults meet a sweep that was cut off in the middle (``Lab.paused``): a trunk with
a mark and two later checkpoints, one branch done, one to come.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from kills import asked_to_stop, killed_at_random, killed_launcher, second_launcher
from lab import LATE, MARK, SAME, Lab, files, held
from launching import TRUNK, differences, is_worker, results, wait_for

from scaling import runs
from scaling.checkpoint import SET_ASIDE

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
    return f"the member ends with a message (cause, remedy) and is not tried in vain; with room again, {lab.same()}"


def allowed(*words: str) -> None:
    """Runs a command that makes a fault possible; skips the fault, in CI as well, where the system does not let it."""
    try:
        done = subprocess.run(words, capture_output=True, text=True)
        why = done.stderr.strip() or f"exit status {done.returncode}" if done.returncode else ""
    except FileNotFoundError as error:
        why = str(error)
    if why:
        pytest.skip(f"this fault cannot be made here: {shlex.join(words)}: {why}")


@contextlib.contextmanager
def small_disk(place: pathlib.Path) -> Iterator[Callable[[str], None]]:
    """A file system of 64 MB in memory at ``place``; yields what changes its mount options."""
    place.mkdir()
    allowed("mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place))

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
        held_back = ["setpriv", "--bounding-set=-dac_override"]  # root may write everywhere, unless it gives that right up
        allowed(*held_back, "true")
        words = [*held_back, *words]
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
    "Python's clock, of launcher and workers, jumps by a year, back and forth": clock_jumps,
    "the folder copied elsewhere while it runs, and continued there": copied,
    "a config changed between two launches": changed_config,
    "the same command again after the end": once_more,
}
