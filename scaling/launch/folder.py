"""The sweep's folder: its lock, what the launcher writes into it, and what its files say about a member."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from scaling import config as configs
from scaling import flops, locks, runs
from scaling.launch.backend import Handle, Job
from scaling.launch.outcome import FRESH, Tally
from scaling.sweep import Member

LAUNCH_LOCK = ".launch.lock"
LIVE_PREDICTIONS = "live_predictions.json"


class LaunchError(RuntimeError):
    """Nothing can be launched as asked; ``problems`` holds one sentence each: place, value, remedy."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n  ".join(["cannot launch:", *self.problems]) if len(self.problems) > 1 else self.problems[0])


@dataclasses.dataclass(frozen=True)
class Item:
    """A member in its place."""

    member: Member
    path: pathlib.Path
    digest: str
    slots: int  # cores or devices
    kind: str  # of what it trains on: cpu, cuda, rocm, tpu
    gated: bool  # of the largest size, where that waits for its prediction

    @property
    def id(self) -> str:
        return self.member.id

    @property
    def mark(self) -> pathlib.Path | None:
        """The folder whose presence means that the checkpoint this branch starts from is committed."""
        if self.member.parent is None:
            return None
        return self.path.parent / self.member.parent / runs.CHECKPOINTS / str(self.member.plan.fork_steps)

    @property
    def started(self) -> bool:
        """Whether anything of it was trained; until then its spec may change."""
        return (self.path / runs.ATTEMPTS).is_dir() or (self.path / runs.DONE).exists()

    @property
    def job(self) -> Job:
        command = (sys.executable, "-m", "scaling.train", "--spec", str((self.path / runs.SPEC).absolute()))
        return Job(self.id, command, self.path / runs.LOG, self.slots, self.device)

    @property
    def device(self) -> str | None:
        """The accelerator that it was started on, as jax and the driver name it; None before, and on cores."""
        env = runs.read_json(self.path / runs.ENV) if self.kind != "cpu" and self.started else None
        return str(env["devices"][0]) if env else None

    def spec(self, sweep: str, env: dict[str, str]) -> dict[str, Any]:
        m = self.member
        config = dataclasses.replace(m.config, run_dir=str(self.path))
        return {
            "id": m.id, "sweep": sweep, "digest": self.digest, "parent": m.parent,
            "parent_dir": f"../{m.parent}" if m.parent else None, "fork_steps": m.plan.fork_steps,
            "mark_tokens": m.mark_tokens, "cluster": m.parent or m.id, **self._place(),
            "command": list(self.job.command), "env": env, "config": configs.to_dict(config),
        }  # fmt: skip

    def _place(self) -> dict[str, Any]:
        return {"cores": self.slots} if self.kind == "cpu" else {"devices": self.slots, "device_kind": self.kind}

    def row(self) -> dict[str, Any]:
        """This member's entry of sweep.json."""
        m, p = self.member, self.member.plan
        return {
            "id": m.id, "size": m.size, "role": m.role, "parent": m.parent, "cluster": m.parent or m.id, "digest": self.digest,
            **self._place(), "gated": self.gated, "mark_tokens": m.mark_tokens, "fork_steps": p.fork_steps,
            "n_params": p.n_params, "tokens": p.tokens, "trained_tokens": p.trained_tokens,
            "flops": {c: p.flops(c) for c in flops.CONVENTIONS}, "annealed": p.annealed, "seed": m.config.seed,
            "batch_tokens": p.batch_tokens, "lr": p.lr, "steps": p.steps, "checkpoint_bytes": p.checkpoint_bytes,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class State:
    """state.json: a cache that may be lost."""

    handle: Handle | None = None
    tally: Tally = FRESH
    folder: str = ""  # where the member was when this was written: in a copy, the handle is that of the original's worker


def read_state(path: pathlib.Path) -> State:
    """What state.json holds; a fresh one where it is missing or cannot be read."""
    try:
        content = runs.read_json(path / runs.STATE) or {}
    except runs.RunError:
        return State()
    known = {f.name for f in dataclasses.fields(Tally)}
    handle = content.get("handle") if content.get("folder") == str(path.resolve()) else None
    return State(handle, Tally(**{k: v for k, v in content.get("tally", {}).items() if k in known}))


def write_state(path: pathlib.Path, state: State) -> None:
    runs.write_json(path / runs.STATE, dataclasses.asdict(state) | {"folder": str(path.resolve())})


def ended(path: pathlib.Path) -> str | None:
    """``'finished'`` or ``'diverged'`` once done.json is there."""
    done = runs.read_json(path / runs.DONE)
    return None if done is None else str(done["status"])


def last_attempt(path: pathlib.Path) -> dict[str, Any] | None:
    """The latest attempts/NNN.json; None where there is none or it was cut by a kill."""
    files = sorted((path / runs.ATTEMPTS).glob("[0-9]*.json"))
    with contextlib.suppress(runs.RunError):
        return runs.read_json(files[-1]) if files else None
    return None


def is_trained_elsewhere(path: pathlib.Path) -> bool:
    """Whether some process holds the member's own lock."""
    try:
        with open(path / runs.LOCK) as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def predicted(folder: pathlib.Path) -> set[str]:
    """Members whose prediction is on record."""
    rows = runs.read_jsonl(folder / runs.PREDICTIONS)
    return {str(row["member"]) for row in rows if row.get("kind") == "prediction" and "member" in row}


def log_tail(path: pathlib.Path, lines: int = 12) -> list[str]:
    """The last lines of a member's log."""
    try:
        with open(path / runs.LOG, "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - 16_384))
            return f.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def check_writable(out: pathlib.Path, folder: pathlib.Path | None) -> list[str]:
    """Problems with writing below ``out``, made for a moment, and in the sweep's ``folder``, where that is there already."""
    for place in [out, folder] if folder and os.path.lexists(folder) else [out]:
        probe = place / f".write.{os.getpid()}.tmp"
        try:
            with locks.made(place):
                probe.write_bytes(b"")
                probe.unlink()
        except OSError as error:
            return [f"{place}: cannot be written ({error.strerror}); give another place with --out, or allow writing there"]
    return []


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds the sweep for this launcher; the system releases it however the launcher ends.

    Raises:
      LaunchError: naming the launcher that holds it.
    """

    def take(file: IO[str]) -> None:
        if not _take(file):
            pid = holder(folder)
            raise LaunchError(
                [f"{folder}: another launcher runs this sweep{f' (pid {pid})' if pid else ''}; watch it with the verb status, "
                 f"end it with the verb cancel, or give another --out"]
            )  # fmt: skip

    with locks.held(folder / LAUNCH_LOCK, take) as f:
        f.seek(0)
        f.truncate()
        json.dump({"pid": os.getpid()}, f)
        f.flush()
        yield


def _take(file: IO[str]) -> bool:
    """Locks ``file``; a few tries, because a status elsewhere looks at the lock by holding it for a moment."""
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def holder(folder: pathlib.Path) -> int | None:
    """The pid of the launcher that holds the sweep, or None."""
    try:
        with open(folder / LAUNCH_LOCK) as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f.read()
                return int(json.loads(text)["pid"])
    except (FileNotFoundError, ValueError):  # ValueError: it has just begun
        pass
    return None


def conflicts(folder: pathlib.Path, items: Sequence[Item], fingerprint: str) -> list[str]:
    """Why this sweep cannot go on in ``folder``: other members, or started ones with another meaning."""
    old = runs.read_json(folder / runs.SWEEP)
    if old is None:
        return []
    ids = [m["id"] for m in old["members"]]
    if ids and not set(ids) & {i.id for i in items}:
        return [
            f"{folder}: holds another sweep ({old['config_file']}, {len(ids)} members such as {ids[0]}); "
            f"give another --out, or rename the sweep file"
        ]
    changes: dict[str, list[str]] = {}  # a difference -> the members that have it
    for item in items:
        spec = runs.read_json(item.path / runs.SPEC) if item.started else None
        if spec is not None and spec["digest"] != item.digest:
            for change in _differences(spec, item, old["data_fingerprint"], fingerprint):
                changes.setdefault(change, []).append(item.id)
    if not changes:
        return []
    listed = [f"{change}   ({_some(members)})" for change, members in changes.items()]
    return [
        f"{folder}: was started with another config; nothing was changed there. The difference:\n      "
        + "\n      ".join(listed)
        + "\n    give a new --out (or another name to the sweep file), or take the change back"
    ]


def _differences(spec: dict[str, Any], item: Item, old_data: str, new_data: str) -> list[str]:
    found = configs.difference(configs.identity(configs.from_resolved(spec["config"])), configs.identity(item.member.config))
    found += configs.difference(spec["mark_tokens"], item.member.mark_tokens, "mark_tokens")
    found += configs.difference(old_data, new_data, "data fingerprint")
    return found or ["its trunk differs"]


def _some(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more"


def kept_place(path: pathlib.Path, kind: str, wanted: int) -> tuple[str, int]:
    """What a member trains on, and how many: bitwise results depend on both, so one that was started keeps its own."""
    spec = runs.read_json(path / runs.SPEC) if (path / runs.ATTEMPTS).is_dir() else None
    if spec is None:
        return kind, wanted
    return (spec["device_kind"], int(spec["devices"])) if "devices" in spec else ("cpu", int(spec["cores"]))


def write_sweep(folder: pathlib.Path, items: Sequence[Item], head: dict[str, Any], env: dict[str, str]) -> list[str]:
    """Writes sweep.json, and spec.json of every member that was not started.

    Returns:
      Members of an earlier version of the sweep, whose folders stay but which the analysis no longer sees.

    Raises:
      LaunchError: when a worker that an earlier launcher started has just begun to train an earlier version of its member.
    """
    old = runs.read_json(folder / runs.SWEEP) or {"members": []}
    for item in items:
        spec = item.spec(folder.name, env)
        there = runs.read_json(item.path / runs.SPEC)
        if there is None:
            runs.write_json(item.path / runs.SPEC, spec)
        elif there != {"schema": runs.SCHEMA} | spec:
            _rewrite(item, spec, there)
    runs.write_json(folder / runs.SWEEP, head | {"members": [i.row() for i in items]})
    return [m["id"] for m in old["members"] if m["id"] not in {i.id for i in items}]


def _rewrite(item: Item, spec: dict[str, Any], there: dict[str, Any]) -> None:
    """Replaces the spec of a member that was not started, under the member's lock: its worker reads the spec again once it
    has that lock (``job.is_superseded``), so that no worker ever trains another version than the one that is written here."""
    try:
        with locks.held(item.path / runs.LOCK, locks.exclusively):
            if not item.started:
                runs.write_json(item.path / runs.SPEC, spec)
    except BlockingIOError:
        if there["digest"] != item.digest:
            raise LaunchError(
                [f"{item.path}: a worker of an earlier launch trains it with another config; end it with the verb cancel, then "
                 f"take the change back or give another --out"]
            ) from None  # fmt: skip


def prune_marks(items: Sequence[Item]) -> list[pathlib.Path]:
    """Removes the trunks' checkpoints that no branch needs any more: the trunk has ended, and so have all its branches from
    there.  The newest checkpoints of a trunk stay.

    Returns:
      What was removed.
    """
    removed = []
    over = {i.id for i in items if (i.path / runs.DONE).exists()}
    needed: dict[pathlib.Path, bool] = {}
    for item in items:
        if item.mark is not None and item.member.parent in over:
            needed[item.mark] = needed.get(item.mark, False) or item.id not in over
    for mark in (m for m, is_needed in needed.items() if not is_needed and m.is_dir()):
        steps = sorted(int(p.name) for p in mark.parent.iterdir() if p.name.isdigit())
        if int(mark.name) < steps[-1]:
            gone = mark.parent.parent / f".pruned.{mark.name}"
            with contextlib.suppress(OSError):  # a place that became read-only: only room is lost
                os.replace(mark, gone)  # first out of the way whole, so that half a checkpoint is never seen
                removed.append(mark)
    for trunk in {m.parent.parent for m in needed}:
        for gone in trunk.glob(".pruned.*"):
            shutil.rmtree(gone, ignore_errors=True)
    return removed
