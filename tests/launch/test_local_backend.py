"""The local backend, with real processes."""

import os
import pathlib
import signal
import sys
import time

import pytest

from scaling.launch import devices
from scaling.launch.backend import Job
from scaling.launch.devices import PINNING, cores
from scaling.launch.local import LocalBackend, is_alive, start_time

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


def job(tmp_path: pathlib.Path, name: str = "a", command: tuple[str, ...] = SLEEP, slots: int = 1) -> Job:
    return Job(name, command, tmp_path / name / "log.0.txt", slots)


@pytest.fixture(autouse=True)
def claims_of_this_test(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that another test started holds no core here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def ended(backend: LocalBackend, handle: dict) -> int | None:
    end = time.monotonic() + 20
    while (report := backend.poll({"a": handle})["a"]).running:
        assert time.monotonic() < end
        time.sleep(0.01)
    return report.status


def test_worker_is_pinned_logged_and_given_the_allocator(tmp_path: pathlib.Path) -> None:
    """Fails when members share a core, lose the allocator's setting, or the launcher itself stays pinned."""
    before = cores()
    backend = LocalBackend()
    show = "import os; print(sorted(os.sched_getaffinity(0)), os.environ.get('GLIBC_TUNABLES'))" if PINNING else "print(1)"
    handle = backend.submit(job(tmp_path, command=(sys.executable, "-c", show)))
    assert handle is not None and ended(backend, handle) == 0
    text = (tmp_path / "a" / "log.0.txt").read_text()
    if PINNING:
        assert text.startswith(f"[{handle['slots'][0]}]")
    if "GLIBC_TUNABLES" in backend.environment():
        assert "arena_max=1" in text
    assert cores() == before


def test_workers_leave_accelerators_alone_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when each of many workers takes every accelerator, or the user's own choice is overruled or not told."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert LocalBackend().environment()["JAX_PLATFORMS"] == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert "JAX_PLATFORMS" not in LocalBackend().environment()


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 99), ("150000 100000", 1), ("50000 100000", 1), ("200000 100000", 2)]
)
def test_quota_of_a_container(text: str, count: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a container of two CPUs on a large host starts a worker for every core of the host."""
    (tmp_path / "cpu.max").write_text(text + "\n")
    before = cores()
    monkeypatch.setattr(devices, "CPU_QUOTA", tmp_path / "cpu.max")
    assert cores() == before.first(count)


def test_rooms_are_counted_and_freed(tmp_path: pathlib.Path) -> None:
    """Fails when two members get one core, or a core is lost when its member ends."""
    backend = LocalBackend(cores().first(1))
    handle = backend.submit(job(tmp_path))
    assert handle is not None and backend.submit(job(tmp_path, "b")) is None
    backend.cancel(handle)
    assert ended(backend, handle) == -signal.SIGTERM
    assert backend.submit(job(tmp_path, "c", (sys.executable, "-c", ""))) is not None


def test_another_backend_takes_a_worker_over(tmp_path: pathlib.Path) -> None:
    """Fails when a new launcher does not see a running worker, its core, or its end."""
    first, second = LocalBackend(cores().first(1)), LocalBackend(cores().first(1))
    the_job = job(tmp_path, command=(*SLEEP, str(tmp_path)))
    handle = first.submit(the_job)
    assert handle is not None
    deadline = time.monotonic() + 10
    while not (found := second.find([the_job])) and time.monotonic() < deadline:
        time.sleep(0.01)  # between fork and exec
    assert found == {"a": handle}
    assert second.poll({"a": handle})["a"].running and second.submit(job(tmp_path, "b")) is None
    os.kill(handle["pid"], signal.SIGKILL)
    assert ended(second, handle) is None  # not its child, so nobody told it
    assert second.find([the_job]) == {}


def test_pid_taken_by_another_process_is_not_the_worker() -> None:
    """Fails when a recycled process number keeps a member 'running' for ever."""
    mine = start_time(os.getpid())
    assert mine is not None and is_alive(os.getpid(), mine)
    assert not is_alive(os.getpid(), mine + "0") and not is_alive(os.getpid(), None)
    assert start_time(2**22 + 1) is None


@pytest.mark.skipif(len(cores().slots) < 2, reason="one core")
def test_member_on_all_cores_waits_for_all(tmp_path: pathlib.Path) -> None:
    """Fails when a member that needs every core starts beside another."""
    backend = LocalBackend(cores().first(2))
    one = backend.submit(job(tmp_path))
    assert one is not None and backend.submit(job(tmp_path, "b", slots=2)) is None
    backend.cancel(one)
    ended(backend, one)
    both = backend.submit(job(tmp_path, "b", (sys.executable, "-c", ""), slots=2))
    assert both is not None and len(both["slots"]) == 2
