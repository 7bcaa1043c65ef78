"""From the command line to what is to run: the sweep, its token store and its members' places, or every problem at once."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
import shlex
import shutil
import time
from collections.abc import Callable
from typing import Any

from scaling import config as configs
from scaling import corpus, flops, runs
from scaling import sweep as sweeps
from scaling.evals import cells
from scaling.evals.items import TaskError
from scaling.launch import devices, estimate
from scaling.launch import folder as folders
from scaling.launch.devices import Pool
from scaling.launch.folder import Item, LaunchError
from scaling.launch.schedule import MIN_SIZES_TO_PREDICT
from scaling.mixture import Dataset
from scaling.store import STORE, StoreError
from scaling.units import format_bytes

RETRIES = 2
HANG_MINUTES = 10.0  # a training step takes seconds; its compilation, validation and checkpoints are not counted
MIN_HANG_MINUTES = 0.2  # a worker tells of its steps every five seconds
_OF_TRUNK = re.compile(r": its trunk (\S+) cannot run")


@dataclasses.dataclass(frozen=True)
class Device:
    """Accelerators that ``plan`` prices a sweep on."""

    kind: str
    count: int
    mfu: float  # of exact matmul FLOPs with causal attention

    def flops_per_second(self) -> float:
        """What one of them achieves.

        Raises:
          LaunchError: for a device whose peak is not known.
        """
        peak = flops.device_peak(self.kind)
        if peak is None:
            known = ", ".join(flops.DEVICES)
            raise LaunchError([f"--device {self.kind!r}: its peak is not known; there are {known}"])
        return peak * self.mfu

    def __str__(self) -> str:
        return f"{self.count} x {self.kind} at {self.mfu:.0%} MFU"


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line, parsed."""

    sweep: str
    overrides: dict[str, Any]
    out: pathlib.Path
    retries: int = RETRIES
    slots: int | None = None
    use: str | None = None
    hang_minutes: float = HANG_MINUTES
    device: Device | None = None

    def command(self, verb: str) -> str:
        """What to type for another verb on the same sweep."""
        words = ["python", "-m", "scaling.launch", verb, "--sweep", self.sweep]
        words += ["--out", str(self.out)] if str(self.out) != "runs" else []
        words += ["--slots", str(self.slots)] if self.slots else []
        words += ["--use", self.use] if self.use else []
        words += ["--retries", str(self.retries)] if self.retries != RETRIES else []
        words += ["--hang-minutes", f"{self.hang_minutes:g}"] if self.hang_minutes != HANG_MINUTES else []
        words += [f"--config.{name}={value}" for name, value in self.overrides.items()]
        return shlex.join(words)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A sweep that can run."""

    request: Request
    sweep: sweeps.Sweep
    folder: pathlib.Path
    items: tuple[Item, ...]
    pool: Pool
    store: str
    fingerprint: str | None  # None before there is a store
    gated: bool  # whether the largest size waits for its prediction
    corpus_seconds: float = 0.0

    def head(self) -> dict[str, Any]:
        """The head of sweep.json."""
        path, arg = sweeps.find_config(self.request.sweep)
        return {
            "name": self.sweep.name, "config_file": str(path), "arg": arg, "overrides": self.request.overrides,
            "data_fingerprint": self.fingerprint, "store": self.store,
        }  # fmt: skip


def check(request: Request, writes: bool) -> sweeps.Sweep:
    """Reads the sweep without its data and checks all that can be checked before a lock is taken.

    Raises:
      LaunchError: with every problem.
    """
    problems: list[str] = []
    loaded = None
    try:
        loaded = sweeps.load(request.sweep, request.overrides, _stream_tokens(request))
    except configs.ConfigError as error:
        problems += _of_config(error)
    except StoreError as error:
        problems.append(str(error))
    if writes:
        problems += folders.check_writable(request.out, request.out / loaded.name if loaded else None)
    problems += _machine_problems(request)
    if request.retries < 0:
        problems.append(f"--retries {request.retries}: must be 0 or more")
    if request.hang_minutes and not request.hang_minutes >= MIN_HANG_MINUTES:
        problems.append(f"--hang-minutes {request.hang_minutes:g}: must be at least {MIN_HANG_MINUTES}, or 0 to wait for ever")
    if loaded:
        problems += _store_problems(loaded, needed=writes)
        problems += _probe_problems(loaded)
    if problems or loaded is None:
        raise LaunchError(problems)
    return loaded


def complete(request: Request, loaded: sweeps.Sweep, build: bool, say: Callable[[str], None]) -> Prepared:
    """Makes sure of the token store, resolves against it, and compares with what the folder already holds.

    Args:
      request: the command line.
      loaded: what ``check`` returned.
      build: whether a missing default store is built.
      say: takes a line for the user.

    Raises:
      LaunchError: with every problem.
    """
    data, seconds = loaded.members[0].config.data, 0.0
    if build and not corpus.is_there(data):
        say(f"building the token store {' and '.join(_missing(data))}, once …")
        start = time.monotonic()
        corpus.load_data(data)
        seconds = time.monotonic() - start
        try:
            loaded = sweeps.load(request.sweep, request.overrides, _stream_tokens(request))
        except configs.ConfigError as error:
            raise LaunchError(_of_config(error)) from None
    dataset = corpus.load_data(data) if corpus.is_there(data) else None
    fingerprint = dataset.fingerprint if dataset else None
    pool = devices.find(request.use).first(request.slots)
    gated = len(loaded.sizes()) >= MIN_SIZES_TO_PREDICT
    folder = request.out / loaded.name
    items = place(loaded, folder, fingerprint or "", pool, gated)
    problems = folders.conflicts(folder, items, fingerprint) if fingerprint else []
    problems += [p for i in items if not (i.path / runs.DONE).exists() for p in _place_problems(i, pool)]
    if build:
        problems += _disk_problems(items, request.out)
    if problems:
        raise LaunchError(problems)
    return Prepared(request, loaded, folder, tuple(items), pool, _words(data, dataset), fingerprint, gated, seconds)


def _machine_problems(request: Request) -> list[str]:
    try:
        pool = devices.find(request.use)
    except LaunchError as error:
        return error.problems
    usable = len(pool.slots)
    if request.slots is None or 1 <= request.slots <= usable:
        return []
    there = f"this machine has {usable} usable {pool.unit}s"
    return [f"--slots {request.slots}: {there}; give 1 to {usable}, or leave it out"]


def _place_problems(item: Item, pool: Pool) -> list[str]:
    """Why a member cannot be trained on ``pool``."""
    unit, names = devices.UNITS.get(item.kind, item.kind), {s.name for s in pool.slots if s.name}
    if item.kind != pool.kind or (item.device and names and item.device not in names):
        was, here = item.device or f"{unit}s", pool.words()
    elif item.slots > len(pool.slots):
        was, here = f"{item.slots} {unit}s", str(len(pool.slots))
    elif pool.kind == "tpu" and 1 < item.slots < len(pool.slots):
        return [f"{item.path}: its mesh takes {item.slots} chips; a host's chips go to members one by one or all together"]
    else:
        return []
    if not item.started:
        return [f"{item.path}: its mesh takes {was}, here are {here}; lower an axis of machine.data, fsdp and tensor"]
    return [
        f"{item.path}: was started on {was}, and here are {here}; its results depend on that: go on with as many of the same, "
        f"or start anew with another --out"
    ]


def _disk_problems(items: list[Item], out: pathlib.Path) -> list[str]:
    needed = sum(estimate.disk_bytes(i) for i in items if not i.started)
    free = shutil.disk_usage(out).free
    if needed <= free:
        return []
    return [f"{out}: needs {format_bytes(needed)} of disk, {format_bytes(free)} are free; make room or give another --out"]


def place(loaded: sweeps.Sweep, folder: pathlib.Path, fingerprint: str, pool: Pool, gated: bool) -> list[Item]:
    """Members with their folders, digests and slots: a core each, all of them for the largest size where it waits; of devices
    as many as a member's mesh has."""
    largest = {m.id for m in loaded.largest()} if gated else set()
    items: list[Item] = []
    digests: dict[str, str] = {}
    for m in loaded.members:
        parent = digests[m.parent] if m.parent else None
        digests[m.id] = configs.digest(m.config, fingerprint, parent, m.mark_tokens)
        path = folder / m.id
        wanted = (len(pool.slots) if m.id in largest else 1) if pool.kind == "cpu" else _mesh_size(m.config.machine, pool)
        kind, slots = folders.kept_place(path, pool.kind, wanted)
        items.append(Item(m, path, digests[m.id], slots, kind, m.id in largest))
    return items


def _mesh_size(machine: configs.MachineConfig, pool: Pool) -> int:
    """Devices of a mesh; an axis of 0 takes all that there are."""
    return math.prod((machine.data, machine.fsdp, machine.tensor)) or len(pool.slots)


def _missing(data: configs.DataConfig) -> list[str]:
    return [path for path, _ in data.sources if not (pathlib.Path(path) / STORE).exists()]


def _words(data: configs.DataConfig, dataset: Dataset | None) -> str:
    return dataset.words() if dataset else ", ".join(path for path, _ in data.sources)


def _stream_tokens(request: Request) -> int | None:
    """Tokens of one epoch, once the store is there."""
    base = sweeps.first_config(request.sweep, request.overrides)
    data = configs.data_of(base)
    return corpus.load_data(data).stream_tokens(base.model.context) if data and corpus.is_there(data) else None


def _store_problems(loaded: sweeps.Sweep, needed: bool) -> list[str]:
    problems = []
    for field in ("store", "mixture", "vocab"):
        found = sorted({str(getattr(m.config.data, field)) for m in loaded.members})
        if len(found) > 1:
            problems.append(
                f"data.{field}: all members of a sweep share one, here are {', '.join(found)}; make a sweep of each"
            )
    data = loaded.members[0].config.data
    field = "mixture" if data.mixture else "store"
    for store in _missing(data) if needed and not problems else ():
        if not corpus.is_default(store):
            problems.append(
                f"data.{field}={store!r}: there is no such token store; make it: python -m scaling.corpus --text FILE "
                f"--out {store}"
            )
    return problems


def _probe_problems(loaded: sweeps.Sweep) -> list[str]:
    """Why members cannot be asked what their configs say."""
    out = []
    for probe in dict.fromkeys(m.config.probe for m in loaded.members if m.config.probe.suite):
        try:
            cells.of_config(probe)
        except TaskError as error:
            out.append(f"probe: {error}")
        except StoreError as error:  # of held-out text; the default one is built before the members start
            if corpus.is_there(loaded.members[0].config.data):
                out.append(f"probe.suite={probe.suite!r}: {error}")
    return out


def _of_config(error: configs.ConfigError) -> list[str]:
    """Its problems with their place; one that several members share is told once, a trunk's own not again for its branches."""
    where = str(error).partition(":")[0]
    named = {p.partition(": ")[0] for p in error.problems}
    problems = [p for p in error.problems if not ((trunk := _OF_TRUNK.search(p)) and trunk[1] in named)]
    members: dict[str, list[str]] = {}
    for problem in problems:
        member, found, rest = problem.partition(": ")
        members.setdefault(rest if found else problem, []).append(member)
    out = []
    for problem in problems:
        member, found, rest = problem.partition(": ")
        who = members.pop(rest if found else problem, [])
        if who:
            out.append(f"{where}: " + (f"{who[0]} and {len(who) - 1} more: {rest}" if len(who) > 1 else problem))
    return out
