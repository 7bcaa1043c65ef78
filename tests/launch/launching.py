"""Starting launchers as real processes, and comparing what they trained."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from scaling import runs
from scaling.launch import folder as folders

REPO = pathlib.Path(__file__).parents[2]
SWEEP = "tests/launch/seconds.py"
TRUNK = "causal-trunk"


def wait_for(condition: Callable[[], object], what: str, seconds: float = 400.0) -> None:
    """Until ``condition`` holds; fails in words when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.01)


@dataclasses.dataclass
class Launches:
    """Starts launchers on one sweep and ends what is left of them."""

    store: pathlib.Path
    cache: pathlib.Path
    out: pathlib.Path
    started: list[subprocess.Popen[str]] = dataclasses.field(default_factory=list)

    @property
    def folder(self) -> pathlib.Path:
        return self.out / "seconds"

    def words(self, *arguments: str) -> list[str]:
        given = [f"--config.data.store={self.store}", f"--config.machine.compile_cache={self.cache}"]
        return [sys.executable, "-m", "scaling.launch", *arguments, "--sweep", SWEEP, "--out", str(self.out), *given]

    def start(
        self, *arguments: str, words: list[str] | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words or self.words(*arguments), cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, env=os.environ | (env or {}),
        )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """What it printed; fails unless it ends with ``status``."""
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == status, printed
        return printed

    def run(self, *arguments: str, status: int = 0) -> str:
        return self.finish(self.start(*arguments), status)

    def state(self, member: str = TRUNK) -> dict:
        return runs.read_json(self.folder / member / runs.STATE) or {}

    def pid(self, member: str = TRUNK) -> int:
        """Of the member's worker by its state.json; 0 when that has none."""
        handle = self.state(member).get("handle")
        return handle["pid"] if handle else 0

    def attempt(self, member: str = TRUNK) -> dict:
        """The record of the member's running worker, once it has one; a killed launcher leaves the handle of a dead one."""
        pid = self.pid(member)
        last = folders.last_attempt(self.folder / member) if is_worker(pid, self.out) else None
        return last if last is not None and last.get("pid") == pid else {}

    def wait_for_steps(self, member: str = TRUNK) -> int:
        """Until a worker that was started anew trains; its pid."""
        wait_for(lambda: self.attempt(member).get("doing") == "train" or self.done(member), f"steps of {member}")
        assert not self.done(member), f"{member} was too quick"
        return self.pid(member)

    def done(self, member: str) -> bool:
        return (self.folder / member / runs.DONE).exists()

    def checkpoints(self, member: str = TRUNK) -> list[int]:
        return sorted(int(p.name) for p in (self.folder / member / runs.CHECKPOINTS).glob("*") if p.name.isdigit())

    def kill(self, *pids: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            if process.pid in pids:
                process.wait()

    def attempts(self) -> dict[str, list[dict]]:
        return {m.id: m.attempts() for m in runs.members(self.folder)}

    def clean(self) -> None:
        """Ends what is left of them: launchers first, which would start more; then whatever works below ``out``."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            if is_worker(int(entry.name), self.out):
                self.kill(int(entry.name))


def is_worker(pid: int | None, out: pathlib.Path) -> bool:
    """Whether a process is a worker below ``out``."""
    try:
        return pid is not None and str(out).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def results(folder: pathlib.Path) -> dict[str, list]:
    """Every loss of a finished sweep, exactly, with the steps and the data they belong to."""
    out = {}
    for member in runs.members(folder):
        done = member.read(runs.DONE)
        assert done is not None, f"{member.id} has no {runs.DONE}"
        keys = ("kind", "step", "loss", "grad_norm", "ids_hash", "loss_stderr", "lr")
        rows = [tuple(_exact(row.get(k)) for k in keys) for row in member.metrics()]
        out[member.id] = [*rows, {k: _exact(v) for k, v in done.items() if k not in TIMES}]
    return out


TIMES = ("seconds", "finished_at", "peak_memory_bytes")  # what no two runs share


def _exact(value: object) -> object:
    return value.hex() if isinstance(value, float) else value


def arrays(folder: pathlib.Path) -> dict[str, dict[str, bytes]]:
    """Every array of each member's last checkpoint."""
    import orbax.checkpoint as ocp  # with jax, which most tests of the launcher do without

    out = {}
    for member in runs.members(folder):
        last = max((p for p in (member.path / runs.CHECKPOINTS).iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.restore(last / "state")
        out[member.id] = {"step": last.name.encode()} | {name: leaf.tobytes() for name, leaf in _leaves(tree, "")}
    return out


def _leaves(tree: object, name: str) -> Iterator[tuple[str, np.ndarray]]:
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if parts is None:
        yield name, np.asarray(tree)
    for key, value in parts or ():
        yield from _leaves(value, f"{name}/{key}")


def differences(folder: pathlib.Path, undisturbed: pathlib.Path) -> list[str]:
    """What of a finished sweep is not, bit for bit, what it is in the undisturbed one."""
    out = []
    for what in (results, arrays):
        mine, theirs = what(folder), what(undisturbed)
        out += [f"{what.__name__} of {name}" for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)]
    return out
