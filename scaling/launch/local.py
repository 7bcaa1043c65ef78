"""The local backend: one process per member, pinned to its own cores, in its own session, so that it outlives the launcher."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping

from scaling.launch.backend import Handle, Job, Report

# glibc's allocator gives large blocks back to the system after each use, and the page faults cost up to 2.5x of the step;
# these keep them.  Set before Python starts; each is needed (docs/performance).
ALLOCATOR = (
    "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:"
    "glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=67108864"
)  # fmt: skip
CPU_QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")  # a container's: microseconds of CPU and of the period that they are for
PINNING = hasattr(os, "sched_setaffinity")  # Linux has it, macOS has not


def usable_cores() -> list[int]:
    """The cores that this process may use, by number; as many as a container's quota pays for."""
    cores = sorted(os.sched_getaffinity(0)) if PINNING else list(range(os.cpu_count() or 1))
    return cores[: _quota()]


def _quota() -> int | None:
    """Whole cores that the container may keep busy; None without a limit."""
    try:
        quota, period = CPU_QUOTA.read_text().split()
    except OSError:
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


class LocalBackend:
    """Worker processes on this machine."""

    def __init__(self, cores: int | None = None):
        """``cores``: at most so many are used; None takes every usable one."""
        self._cores = usable_cores()[:cores]
        self.cores = len(self._cores)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._held: dict[str, list[int]] = {}  # job -> its cores

    def environment(self) -> dict[str, str]:
        env = {"PYTHONUNBUFFERED": "1"}
        if "JAX_PLATFORMS" not in os.environ:  # one worker per core: each would take all memory of every accelerator
            env["JAX_PLATFORMS"] = "cpu"
        if _is_glibc() and "GLIBC_TUNABLES" not in os.environ:
            env["GLIBC_TUNABLES"] = ALLOCATOR
        return env

    def submit(self, job: Job) -> Handle | None:
        taken = {core for cores in self._held.values() for core in cores}
        free = [core for core in self._cores if core not in taken]
        if len(free) < job.cores:
            return None
        cores = free[: job.cores]
        env = os.environ | self.environment()
        if not PINNING:
            env["NPROC"] = str(job.cores)  # the size of XLA's thread pool, which it otherwise takes from the affinity
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "ab") as log, _pinned(cores):
            child = subprocess.Popen(
                job.command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._children[child.pid] = child
        self._held[job.name] = cores
        return {"pid": child.pid, "start_time": start_time(child.pid), "cores": cores}

    def poll(self, handles: Mapping[str, Handle]) -> dict[str, Report]:
        reports = {name: self._report(handle) for name, handle in handles.items()}
        self._held = {name: handles[name]["cores"] for name, report in reports.items() if report.running}
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
                cores = sorted(os.sched_getaffinity(pid)) if PINNING else self._cores[: job.cores]
                found[job.name] = {"pid": pid, "start_time": began, "cores": cores}
        return found

    def cancel(self, handle: Handle) -> None:
        if self._report(handle).running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(handle["pid"], signal.SIGTERM)

    def where(self, handle: Handle) -> str:
        cores = handle["cores"]
        if not PINNING:
            return f"pid {handle['pid']}"
        return f"core {cores[0]}" if len(cores) == 1 else f"cores {cores[0]}-{cores[-1]}"


@contextlib.contextmanager
def _pinned(cores: list[int]) -> Iterator[None]:
    """A child started inside inherits this affinity; nothing runs between its fork and exec, so threads do no harm."""
    if not PINNING:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
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


def describe() -> str:
    """The machine in words, for the plan."""
    pinned = "one member pinned to each" if PINNING else "members not pinned: this system has no pinning"
    return f"{platform.machine()} {platform.system()}, {len(usable_cores())} usable, {pinned}; {_platform()}"


def _platform() -> str:
    chosen = os.environ.get("JAX_PLATFORMS")
    if chosen is None:
        return "trains on CPU cores: JAX_PLATFORMS with --slots 1 chooses otherwise"
    return f"trains on JAX_PLATFORMS={chosen}"
