"""Expected seconds and bytes, before training and while it goes on."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Sequence

import numpy as np

from scaling import runs
from scaling.flops import DEFAULT_CONVENTION, device_peak
from scaling.launch.devices import Pool
from scaling.launch.folder import Item
from scaling.launch.follow import UNKNOWN, Progress
from scaling.launch.schedule import Facts, Task

# Executed matmul FLOPs (attention over all keys) of a train step over those of a large float32 matmul on one core.
EFFICIENCY = 0.35
MANY_CORES = 0.7  # what one process makes of each of several cores, against one: measured 0.6 to 0.9
DEVICE_EFFICIENCY = 0.1  # of a device's bf16 peak: members that fit one device are small
UNKNOWN_DEVICE_PEAK = 100e12
STARTUP_SECONDS = 5.0  # imports and compilation with a warm cache, checkpoint and validation
LOG_BYTES = 200_000


@dataclasses.dataclass(frozen=True)
class Rates:
    """How fast members go here."""

    flops_per_second: float  # of one core or device, executed matmuls of training
    startup: float
    source: str  # in words
    measured: dict[tuple[int, int], float] = dataclasses.field(default_factory=dict)  # (parameters, slots) -> tokens/s
    convention: str = "matmul_full"  # of ``flops_per_second``; the plain attention multiplies over all keys
    devices: int | None = None  # accelerators, where these do the work and not cores

    def used_devices(self, item: Item) -> int:
        """The devices over which the member's batch splits evenly; 0 on cores."""
        return math.gcd(item.member.plan.batch_windows, self.devices) if self.devices else 0

    def tokens_per_second(self, item: Item) -> float:
        plan = item.member.plan
        key = (plan.n_params["total"], item.slots)
        if key in self.measured:
            return self.measured[key]
        workers = self.used_devices(item) or (1.0 if item.slots == 1 else MANY_CORES * item.slots)
        return self.flops_per_second * workers / plan.flops_per_token[self.convention]

    def seconds(self, item: Item, tokens: int) -> float:
        """Of a member that has ``tokens`` of its own left."""
        return self.startup + tokens / self.tokens_per_second(item)


def on_devices(flops_per_second: float, count: int, source: str) -> Rates:
    """Rates on ``count`` accelerators that are not here: a price, not a schedule."""
    return Rates(flops_per_second, 0.0, source, convention=DEFAULT_CONVENTION, devices=count)


@functools.cache
def probe(seconds: float = 0.2) -> float:
    """FLOP/s of float32 matmuls on one core, measured once; so small that BLAS libraries use no threads."""
    n = 64
    a = np.ones((n, n), np.float32)
    out = np.empty_like(a)
    best, end = 0.0, time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        for _ in range(100):
            np.dot(a, a, out=out)
        best = max(best, 100 * 2 * n**3 / (time.perf_counter() - start))
    return best


def rates(items: Sequence[Item], pool: Pool) -> Rates:
    """From members that have ended here where there are any, else from the devices' data sheet or a matmul probe."""
    per_size: dict[tuple[int, int], list[float]] = {}
    flops, startups = [], []
    for item in items:
        plan = item.member.plan
        seconds = runs.Member(item.path).seconds() if (item.path / runs.DONE).exists() else {}
        training = seconds.get("train", 0.0)
        if training < 0.5:  # too short to tell
            continue
        rate = plan.trained_tokens / training
        per_size.setdefault((plan.n_params["total"], item.slots), []).append(rate)
        startups.append(sum(seconds.values()) - training)
        if item.slots == 1:
            flops.append(rate * plan.flops_per_token["matmul_full"])
    if flops:
        measured = {key: statistics.median(values) for key, values in per_size.items()}
        source = f"measured on {len(startups)} finished members of this sweep"
        return Rates(statistics.median(flops), statistics.median(startups), source, measured)
    if pool.kind != "cpu":
        name = next((s.name for s in pool.slots), "")
        peak = device_peak(name) or UNKNOWN_DEVICE_PEAK
        source = f"{name if device_peak(name) else 'an unknown device'} ({peak / 1e12:.0f} TFLOP/s) x {DEVICE_EFFICIENCY:g}"
        return Rates(peak * DEVICE_EFFICIENCY, STARTUP_SECONDS, f"{source}: a guess until members end")
    peak = probe()
    source = f"a matmul probe ({peak / 1e9:.0f} GFLOP/s on a core) x {EFFICIENCY:g} for a train step: a guess until members end"
    return Rates(peak * EFFICIENCY, STARTUP_SECONDS, source)


def task(item: Item, rate: Rates, facts: Facts, progress: Progress = UNKNOWN) -> Task:
    """A member for the scheduler: what is left of it, and when its branch point comes."""
    plan = item.member.plan
    if facts.ended:
        return Task(item.id, item.slots, 0.0, item.member.parent, 0.0, item.gated)
    begun = max(0, progress.tokens - (plan.fork_tokens or 0))
    left = max(0, plan.trained_tokens - begun)
    per_second = progress.tokens_per_second if facts.running else None
    seconds = left / per_second if per_second else rate.seconds(item, left)
    return Task(item.id, item.slots, seconds, item.member.parent, 0.0, item.gated)


def with_marks(tasks: Sequence[Task], items: Sequence[Item], done: dict[str, Progress]) -> list[Task]:
    """Adds to each branch the seconds until its trunk reaches its mark, from the trunk's remaining seconds."""
    by_id = {t.id: t for t in tasks}
    out = []
    for item, t in zip(items, tasks, strict=True):
        if t.parent:
            trunk = by_id[t.parent]
            whole = next(i for i in items if i.id == t.parent).member.plan.tokens
            here = done.get(t.parent, UNKNOWN).tokens
            part = ((item.member.plan.fork_tokens or 0) - here) / max(1, whole - here)
            t = dataclasses.replace(t, mark_after=min(1.0, max(0.0, part)) * trunk.seconds)
        out.append(t)
    return out


def disk_bytes(item: Item) -> int:
    """Checkpoints (one per mark, the newest and the one before it) and logs."""
    plan = item.member.plan
    return (len(plan.marks) + 2) * plan.checkpoint_bytes + LOG_BYTES
