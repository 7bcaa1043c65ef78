"""The local backend: one process per member, on cores or devices of its own, in its own session: it outlives the launcher."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from scaling.launch import claims, devices
from scaling.launch.backend import Handle, Job, Report
from scaling.launch.devices import PINNING, Pool

# glibc's allocator gives large blocks back to the system after each use, and the page faults cost more than the products of a
# small step (docs/performance.md); these keep them.  Set before Python starts.
ALLOCATOR = (
    "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:"
    "glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=67108864"
)  # fmt: skip
MEM_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # new and old; jax refuses both at once
DUMP_SECONDS = 0.5  # for a hanging worker to write where it stands


class LocalBackend:
    """Worker processes on this machine."""

    def __init__(self, pool: Pool | None = None):
        """``pool``: what members are given; None for every usable core."""
        self.pool = pool or devices.cores()
        self.slots = len(self.pool.slots)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._held: dict[str, list[str]] = {}  # job -> its slots

    def environment(self) -> dict[str, str]:
        env = {"PYTHONUNBUFFERED": "1"}
        if "JAX_PLATFORMS" not in os.environ:  # a device that cannot be used is an error then, not a run on the CPU
            env["JAX_PLATFORMS"] = self.pool.kind
        if self.pool.kind == "cpu" and _is_glibc() and "GLIBC_TUNABLES" not in os.environ:
            env["GLIBC_TUNABLES"] = ALLOCATOR
        if self.pool.kind in ("cuda", "rocm") and not any(name in os.environ for name in MEM_FRACTIONS):
            env[MEM_FRACTIONS[0]] = devices.GPU_MEMORY_SHARE
        return env

    def submit(self, job: Job) -> Handle | None:
        taken = {slot for slots in self._held.values() for slot in slots}
        free = [s.id for s in self.pool.slots if s.id not in taken and not (job.device and s.name and job.device != s.name)]
        with self._claimed(free, job.slots) as (slots, files):
            if len(slots) < job.slots:
                return None
            env = os.environ | self.environment() | self.pool.environment(slots)
            if self.pool.kind == "cpu" and not PINNING:
                env["NPROC"] = str(job.slots)  # the size of XLA's thread pool, which it otherwise takes from the affinity
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with open(job.log, "ab") as log, _pinned(slots if self.pool.kind == "cpu" else []):
                child = subprocess.Popen(
                    job.command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, pass_fds=files,
                )  # fmt: skip
        self._children[child.pid] = child
        self._held[job.name] = slots
        return {"pid": child.pid, "start_time": start_time(child.pid), "kind": self.pool.kind, "slots": slots}

    @contextlib.contextmanager
    def _claimed(self, free: Sequence[str], wanted: int) -> Iterator[tuple[list[str], list[int]]]:
        """So many of ``free`` as no other sweep here uses, up to ``wanted``, and the files that hold them while inside."""
        slots: list[str] = []
        files: list[int] = []
        try:
            for slot in free:
                if len(slots) < wanted and (file := claims.take(self.pool.kind, slot)) is not None:
                    slots.append(slot)
                    files.append(file)
            yield slots, files
        finally:
            for file in files:
                os.close(file)

    def poll(self, handles: Mapping[str, Handle]) -> dict[str, Report]:
        reports = {name: self._report(handle) for name, handle in handles.items()}
        self._held = {name: handles[name]["slots"] for name, report in reports.items() if report.running}
        return reports

    def _report(self, handle: Handle) -> Report:
        child = self._children.get(handle["pid"])
        if child is not None:
            return Report(child.poll() is None, child.returncode)
        return Report(is_alive(handle["pid"], handle["start_time"]))

    def find(self, jobs: Iterable[Job]) -> dict[str, Handle]:
        wanted = {job.command: job for job in jobs}
        found = {}
        for pid, command in _processes():
            job = next((job for words, job in wanted.items() if command == " ".join(words)), None)
            began = start_time(pid) if job else None
            if job and began:
                found[job.name] = {"pid": pid, "start_time": began, "kind": self.pool.kind, "slots": self._slots_of(pid, job)}
        return found

    def _slots_of(self, pid: int, job: Job) -> list[str]:
        """The slots of a worker whose handle was lost."""
        if self.pool.kind == "cpu" and PINNING:
            return [str(core) for core in sorted(os.sched_getaffinity(pid))]
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            if seen := self.pool.seen_by(dict(word.partition("=")[::2] for word in words)):
                return seen
        return [s.id for s in self.pool.slots[: job.slots]]

    def cancel(self, handle: Handle) -> None:
        self._signal(handle, signal.SIGTERM)

    def kill(self, handle: Handle) -> None:
        self._signal(handle, signal.SIGUSR1)
        time.sleep(DUMP_SECONDS)
        self._signal(handle, signal.SIGKILL)

    def _signal(self, handle: Handle, number: signal.Signals) -> None:
        if self._report(handle).running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle["pid"], number)

    def where(self, handle: Handle) -> str:
        slots, unit = handle["slots"], self.pool.unit
        if self.pool.kind == "cpu" and not PINNING:
            return f"pid {handle['pid']}"
        return f"{unit} {slots[0]}" if len(slots) == 1 else f"{unit}s {slots[0]}-{slots[-1]}"


@contextlib.contextmanager
def _pinned(cores: Sequence[str]) -> Iterator[None]:
    """A child started inside inherits this affinity; nothing runs between its fork and exec, so threads do no harm."""
    if not PINNING or not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(core) for core in cores})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, AttributeError):  # no such name: another C library, or another system
        return False


_HAS_PROC = pathlib.Path("/proc/self/stat").exists()


def start_time(pid: int) -> str | None:
    """When a process started, in words that no later process with this number shares; None where there is none."""
    if _HAS_PROC:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    line = _ps("-o", "state=,lstart=", "-p", str(pid)).strip()
    return None if not line or line[0] == "Z" else line.partition(" ")[2].strip()


def is_alive(pid: int, began: str | None) -> bool:
    """Whether the very process lives that had this number and start."""
    return began is not None and start_time(pid) == began


def _processes() -> Iterator[tuple[int, str]]:
    """Number and command line of the processes there are."""
    if not _HAS_PROC:
        for line in _ps("-axww", "-o", "pid=,command=").splitlines():
            pid, _, command = line.strip().partition(" ")
            yield int(pid), command.strip()
        return
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = pathlib.Path(entry.path, "cmdline").read_bytes().rstrip(b"\0")
                yield int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")


def _ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False).stdout
