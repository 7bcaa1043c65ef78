"""Starting launchers as real processes, and comparing what they trained."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from scaling import runs

REPO = pathlib.Path(__file__).parents[2]
SWEEP = "tests/launch/seconds.py"
TRUNK = "causal-trunk"


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
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

    def start(self, *arguments: str, words: list[str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            words or self.words(*arguments), cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """What it printed; fails unless it ends with ``status``."""
        printed, _ = process.communicate(timeout=180)
        assert process.returncode == status, printed
        return printed

    def run(self, *arguments: str, status: int = 0) -> str:
        return self.finish(self.start(*arguments), status)

    def state(self, member: str = TRUNK) -> dict:
        return runs.read_json(self.folder / member / runs.STATE) or {}

    def pid(self, member: str = TRUNK) -> int:
        return self.state(member)["handle"]["pid"]

    def wait_for_checkpoint(self, member: str = TRUNK) -> None:
        """Until a worker has saved something and goes on training."""
        folder = self.folder / member / runs.CHECKPOINTS
        wait_for(lambda: folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir()), f"a checkpoint of {member}")

    def attempts(self) -> dict[str, list[dict]]:
        return {m.id: m.attempts() for m in runs.members(self.folder)}

    def clean(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        for path in self.out.glob("*/*/attempts/*.json"):
            attempt = json.loads(path.read_text() or "{}")
            if attempt.get("exit") is None and is_worker(attempt.get("pid"), self.out):
                os.kill(attempt["pid"], signal.SIGKILL)


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
        rows = [tuple(row.get(k) for k in keys) for row in member.metrics()]
        out[member.id] = [*rows, (done["status"], done["val_loss"], done["train_loss"], done["tokens"])]
    return out
