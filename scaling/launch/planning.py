"""The plan in words: what will be trained, what it takes, and what the rules were."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import rich.console
import rich.table

from scaling import runs, sizes
from scaling.launch import devices, estimate, schedule
from scaling.launch import folder as folders
from scaling.launch.folder import Item
from scaling.launch.prepare import Prepared
from scaling.launch.schedule import Facts
from scaling.units import format_bytes, format_count, format_seconds


def show(prepared: Prepared, console: rich.console.Console) -> None:
    """Prints the plan."""
    items = prepared.items
    device = prepared.request.device
    facts = {i.id: Facts(_ended(i), mark=i.mark is None) for i in items}
    rate = (
        estimate.on_devices(device.flops_per_second(), device.count, str(device))
        if device
        else estimate.rates(items, prepared.pool)
    )
    console.print(_table(prepared, rate), soft_wrap=not console.is_terminal)
    out = [_tokens(prepared), *_savings(items), *_rules(items), _gate(prepared)]
    done = sum(f.ended is not None for f in facts.values())
    disk = sum(estimate.disk_bytes(i) for i in items)
    out += [_price(items, rate) if device else _time(prepared, rate, facts)]
    out += [f"disk: {format_bytes(disk)} below {prepared.folder}"]
    out += [] if device else [_watchdog(prepared)]
    out += [f"{done} of {len(items)} members are over already"] if done else []
    for line in out:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for warning, ids in (_warnings(items) | _idle_devices(items, rate)).items():
        console.print(f"note: {warning} ({_some(ids)})", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _time(prepared: Prepared, rate: estimate.Rates, facts: dict[str, Facts]) -> str:
    left = [estimate.task(i, rate, facts[i.id]) for i in prepared.items]
    choice = schedule.choose_order(estimate.with_marks(left, prepared.items, {}), facts, len(prepared.pool.slots))
    other = next(name for name in choice.seconds if name != choice.name)
    machine = f"{prepared.pool.words()} ({devices.describe(prepared.pool)})"
    return (
        f"time: {format_seconds(choice.expected)} on {machine}, {choice.name} "
        f"({other}: {format_seconds(choice.seconds[other])}); by {rate.source}"
    )


def _watchdog(prepared: Prepared) -> str:
    minutes = prepared.request.hang_minutes
    if not minutes:
        return "watchdog: none, a member that hangs is waited for"
    return (
        f"watchdog: a member that trains no step for {minutes:g} minutes (compiling, restoring, validating and saving apart) "
        f"is ended and goes on from its last checkpoint; --hang-minutes"
    )


def _price(items: Iterable[Item], rate: estimate.Rates) -> str:
    each = [(rate.seconds(i, i.member.plan.trained_tokens), rate.used_devices(i)) for i in items]
    hours = format_count(sum(seconds * used for seconds, used in each) / 3600)
    return (
        f"time: {format_seconds(sum(seconds for seconds, _ in each))} one member after another on {rate.source}: {hours} "
        f"device-hours of devices in use; compiling and waiting apart"
    )


def _idle_devices(items: Iterable[Item], rate: estimate.Rates) -> dict[str, list[str]]:
    """For each batch that does not split over all devices, its members."""
    out: dict[str, list[str]] = {}
    for item in items:
        used = rate.used_devices(item)
        if rate.devices and used < rate.devices:
            windows = item.member.plan.batch_windows
            note = f"batch of {windows} windows splits over at most {used} of {rate.devices} devices"
            out.setdefault(note, []).append(item.id)
    return out


def _table(prepared: Prepared, rate: estimate.Rates) -> rich.table.Table:
    out = rich.table.Table(
        box=None, title=f"{prepared.sweep.name}: {len(prepared.items)} members", title_justify="left", title_style="bold",
        header_style="dim", pad_edge=False,
    )  # fmt: skip
    out.add_column("member", no_wrap=True)
    slots = [] if rate.devices else [f"{prepared.pool.unit}s"]
    for name in ("N", "D", "own D", "FLOPs", "batch", "lr", *slots, "time", "disk"):
        out.add_column(name, justify="right", no_wrap=True)
    for item in prepared.items:
        plan = item.member.plan
        out.add_row(
            item.id, format_count(plan.n_params["non_embedding"]), format_count(plan.tokens), format_count(plan.trained_tokens),
            f"{plan.flops():.2e}", format_count(plan.batch_tokens), f"{plan.lr:.3g}",
            *(str(item.slots) for _ in slots), format_seconds(rate.seconds(item, plan.trained_tokens)),
            format_bytes(estimate.disk_bytes(item)),
        )  # fmt: skip
    return out


def _ended(item: Item) -> str | None:
    return folders.ended(item.path) if (item.path / runs.DONE).exists() else None


def _tokens(prepared: Prepared) -> str:
    epochs = [m.plan.epochs for m in prepared.sweep.members if m.plan.epochs is not None]
    if not epochs:
        return f"tokens: {prepared.store}, not built yet, so how often it is seen could not be checked"
    return f"tokens: {prepared.store} {prepared.fingerprint}, seen at most {max(epochs):.2g} times"


def savings(items: Iterable[Item]) -> tuple[float, float] | None:
    """FLOPs with forks and as separate runs; None without forks."""
    forked = separate = 0.0
    any_fork = False
    for item in items:
        m = item.member
        per_token = m.plan.flops() / m.plan.tokens
        forked += m.plan.trained_tokens * per_token
        any_fork |= m.role == "branch"
        separate += 0.0 if m.role == "trunk" else m.plan.tokens * per_token
    return (forked, separate) if any_fork else None


def _savings(items: Iterable[Item]) -> list[str]:
    saved = savings(items)
    if saved is None:
        return []
    forked, separate = saved
    return [
        f"forks: {forked:.2e} FLOPs are trained, {separate:.2e} as separate runs: {1 - forked / separate:.0%} saved; "
        f"the branches of a trunk share its noise and count as one cluster"
    ]


def _rules(items: Sequence[Item]) -> list[str]:
    configs = [i.member.config for i in items]
    batches = ", ".join(sorted({c.batch for c in configs}))
    warmups = ", ".join(sorted({c.optim.warmup for c in configs}))
    warmups = warmups.replace("rule", "N tokens, at most 10 % of the shortest stable part, at least 20 steps")
    schedules = ", ".join(sorted({c.optim.schedule for c in configs}))
    rates = ", ".join(
        sorted({f"{c.optim.lr:g} ({c.model.parameterization}, quoted at width {c.model.base_width})" for c in configs})
    )
    counts = [i.member.plan.n_params for i in items]
    small, large = min(counts, key=lambda n: n["total"]), max(counts, key=lambda n: n["total"])
    return [
        f"N: non-embedding parameters; in all {format_count(small['total'])} to {format_count(large['total'])}, of which "
        f"{format_count(small['active'])} to {format_count(large['active'])} are active",
        f"size rule: {sizes.FORMULA}",
        f"batch: {batches}; learning rate: {rates}; schedule: {schedules}; warm-up: {warmups}",
    ]


def _gate(prepared: Prepared) -> str:
    count = len(prepared.sweep.sizes())
    if not prepared.gated:
        return (
            f"prediction: none, it needs {schedule.MIN_SIZES_TO_PREDICT} sizes (three to fit, one to predict), not {count}; "
            "nothing waits for it"
        )
    largest = prepared.sweep.largest()
    where = " on all cores" if prepared.pool.kind == "cpu" and not prepared.request.device else ""
    return f"prediction: the {len(largest)} members of {largest[0].size} start{where} once their prediction is on record"


def _warnings(items: Iterable[Item]) -> dict[str, list[str]]:
    """Each kind of warning once, in the words of its first member; and sizes that the dial makes one shape."""
    first: dict[str, str] = {}
    out: dict[str, list[str]] = {}
    sizes_of: dict[int, dict[str, str]] = {}
    for item in items:
        sizes_of.setdefault(item.member.plan.n_params["total"], {}).setdefault(item.member.size, item.id)
        for warning in item.member.plan.warnings:
            kind = re.sub(r"[0-9.]+[KMBT]?", "#", warning)
            out.setdefault(first.setdefault(kind, warning), []).append(item.id)
    for same in sizes_of.values():
        if len(same) > 1:
            out[f"sizes {' and '.join(same)} are one shape: the dial has no step between them"] = list(same.values())
    return out


def _some(ids: list[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more"
