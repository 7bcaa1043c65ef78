"""The run directory: the only thing that training, launching and analysis share.

Every file has one writer and is either replaced atomically (JSON) or appended by whole lines (JSONL).  A member's state is
derived from its files, never stored.  ``SCHEMA`` is written into every JSON file and checked when it is read.

    <sweep>/sweep.json          the resolved sweep (launcher)
    <sweep>/predictions.jsonl   recorded predictions and scores (analysis.predict)
    <sweep>/<member>/spec.json  id, digest, config, parent, mark, cores (launcher, until the member starts)
    <sweep>/<member>/...        see FILES
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

SCHEMA = 1
PREEMPTED = 75  # exit status: saved, run me again
BAD_CONFIG = 2  # exit status: never retried

SWEEP = "sweep.json"
PREDICTIONS = "predictions.jsonl"
SPEC = "spec.json"
STATE = "state.json"
CONFIG = "config.json"
PLAN = "plan.json"
ENV = "env.json"
METRICS = "metrics.jsonl"
DONE = "done.json"
ATTEMPTS = "attempts"
CHECKPOINTS = "checkpoints"
LOG = "log.0.txt"
LOCK = ".lock"


class RunError(RuntimeError):
    """A run directory that cannot be used as asked; the message names the file and the remedy."""


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Replaces ``path`` atomically and durably; adds the schema."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w") as f:
            json.dump({"schema": SCHEMA} | content, f, indent=1)
            f.write("\n")
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError:  # a full disk: what half a file takes is not left to it
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_json(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The content of ``path``, or None where there is no such file.

    Raises:
      RunError: when the file is not JSON or of another schema.
    """
    try:
        with open(path) as f:
            content = json.load(f)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not valid JSON ({error}); restore it or remove it to start over") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise RunError(f"{path}: schema {found!r}, this version reads {SCHEMA}; use the version that wrote it")
    return content


def append_jsonl(path: str | os.PathLike[str], row: dict[str, Any]) -> None:
    """Appends one line in one write, so that a kill leaves whole lines but perhaps the last, which the next write drops."""
    with open(path, "a+b") as f:
        end = f.seek(0, os.SEEK_END)
        f.seek(max(0, end - 1))
        if f.read(1) not in (b"", b"\n"):
            f.seek(0)
            f.truncate(f.read().rfind(b"\n") + 1)
        f.write(json.dumps(row).encode() + b"\n")


def sync(path: str | os.PathLike[str]) -> None:
    """Puts what was appended to ``path`` on disk, so that a power cut does not take rows that a checkpoint counts on."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
        os.fsync(f.fileno())


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The rows of ``path`` (none where it is missing); a last line cut by a kill is passed over.

    Raises:
      RunError: when an earlier line is not JSON.
    """
    try:
        lines = pathlib.Path(path).read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            if number < len(lines) - 1:
                raise RunError(f"{path}:{number}: not a JSON line; remove the line") from None


@dataclasses.dataclass(frozen=True)
class Member:
    """A member's directory, read lazily."""

    path: pathlib.Path

    @property
    def id(self) -> str:
        return self.path.name

    def read(self, name: str) -> dict[str, Any] | None:
        return read_json(self.path / name)

    def metrics(self) -> list[dict[str, Any]]:
        """Rows in order of step; of rows written twice after a crash the later one counts."""
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for row in read_jsonl(self.path / METRICS):
            rows[row["kind"], row["step"]] = row
        return sorted(rows.values(), key=lambda row: (row["step"], row["kind"]))

    def attempts(self) -> list[dict[str, Any]]:
        """Records of all attempts, oldest first; one that a full disk cut is passed over, it only tells of time spent."""
        out = []
        for path in sorted((self.path / ATTEMPTS).glob("*.json")):
            with contextlib.suppress(RunError):
                out.append(read_json(path) or {})
        return out

    def seconds(self) -> dict[str, float]:
        """Seconds by kind, over all attempts."""
        total: dict[str, float] = {}
        for attempt in self.attempts():
            for kind, value in attempt.get("seconds", {}).items():
                total[kind] = total.get(kind, 0.0) + value
        return total


def members(sweep_dir: str | os.PathLike[str]) -> list[Member]:
    """The members of a sweep folder in the order of its sweep.json (by name where there is none), or the one run itself.

    Raises:
      RunError: when the folder holds no run.
    """
    root = pathlib.Path(sweep_dir)
    sweep = read_json(root / SWEEP)
    if sweep is not None:
        return [Member(root / m["id"]) for m in sweep["members"]]
    if (root / PLAN).exists():
        return [Member(root)]
    found = sorted(p.parent for p in root.glob(f"*/{PLAN}"))
    if not found:
        raise RunError(f"{root}: no {SWEEP} and no run in it; give a folder that scaling.launch or scaling.train wrote")
    return [Member(p) for p in found]


def claim_attempt(run_dir: str | os.PathLike[str], content: dict[str, Any]) -> pathlib.Path:
    """Creates the next ``attempts/NNN.json``, whole and exclusively (a hard link fails where the name is taken)."""
    folder = pathlib.Path(run_dir) / ATTEMPTS
    folder.mkdir(parents=True, exist_ok=True)
    number = max((int(p.stem) for p in folder.glob("[0-9]*.json")), default=-1) + 1
    path, temporary = folder / f"{number:03d}.json", folder / f".claim.{os.getpid()}.tmp"
    write_json(temporary, content)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    return path
