"""Starting `python -m scaling.train` as a user would."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from scaling import runs


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Until ``condition`` holds; fails in words when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds:.0f} s still not: {what}"
        time.sleep(0.01)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Commands on one store and one small model; keyword arguments are dotted fields with _ for the dots' rooms."""

    repo: pathlib.Path
    store: pathlib.Path

    def words(self, run_dir: pathlib.Path, **fields: Any) -> list[str]:
        """The arguments of one run."""
        given = {
            "model.depth": 1, "model.width": 16, "model.context": 16, "batch": "128 tokens", "budget": "300 steps", "evals": 2,
            "data.store": self.store, "data.val_windows": 16, "data.epochs": 100, "run_dir": run_dir,
            "machine.compile_cache": os.environ["JAX_COMPILATION_CACHE_DIR"],
        } | {name.replace("__", "."): value for name, value in fields.items()}  # fmt: skip
        return ["--config", "default.py", *(f"--config.{name}={value}" for name, value in given.items())]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A process of the trainer."""
        command = [sys.executable, "-m", "scaling.train", *words]
        return subprocess.Popen(command, cwd=self.repo, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def finish(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """What it printed; fails unless it ends with ``status``."""
        printed, _ = process.communicate(timeout=180)
        assert process.returncode == status, printed
        return printed

    def run(self, run_dir: pathlib.Path, status: int = 0, **fields: Any) -> str:
        """Trains ``run_dir`` in a fresh process."""
        return self.finish(self.start(*self.words(run_dir, **fields)), status)


def results(run_dir: pathlib.Path) -> list[tuple[Any, ...]]:
    """Every number of a run that must not depend on interruptions."""
    keys = ("kind", "step", "tokens", "loss", "loss_stderr", "bpb", "lr", "grad_norm", "epoch", "ids_hash")
    rows = [tuple(row.get(k) for k in keys) for row in runs.Member(run_dir).metrics()]
    done = runs.read_json(run_dir / runs.DONE) or {}
    return [*rows, tuple(done.get(k) for k in ("status", "steps", "tokens", "train_loss", "val_loss", "val_bpb"))]


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below ``folder``."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_sweep(path: pathlib.Path, body: str, **fields: Any) -> pathlib.Path:
    """A sweep file whose get_sweep is ``body`` and whose base config has ``fields`` (rooms by __) changed."""
    changes = {name.replace("__", "."): value for name, value in fields.items()}
    path.write_text(
        "import json\nimport ml_collections\nfrom scaling import sweep\nfrom scaling.config import default_dict\n\n"
        "def get_config(arg=''):\n    config = ml_collections.ConfigDict(default_dict())\n"
        f"    sweep.apply_overrides(config, json.loads({json.dumps(changes)!r}))\n    return config\n\n"
        f"def get_sweep(config):\n    return {body}\n"
    )
    return path
