"""The verbs status and cancel: what the files say, whoever runs the sweep."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from typing import Any

import rich.console

from scaling import runs
from scaling.launch import board as boards
from scaling.launch import folder as folders
from scaling.launch import schedule
from scaling.launch.backend import Backend
from scaling.launch.board import Row
from scaling.launch.folder import LaunchError
from scaling.launch.follow import Progress, Tail
from scaling.launch.local import LocalBackend
from scaling.launch.schedule import Facts, Phase, Task

CANCEL_SECONDS = 120.0


def show(folder: pathlib.Path, console: rich.console.Console) -> int:
    """Prints where each member stands."""
    sweep = read(folder)
    backend = LocalBackend()
    now = phases(folder, sweep, backend)
    live = (runs.read_json(folder / folders.LIVE_PREDICTIONS) or {}).get("members", {})
    rows = [_row(folder / m["id"], m, now[m["id"]], live.get(m["id"], {}).get("loss")) for m in sweep["members"]]
    pid = folders.holder(folder)
    counts = ", ".join(f"{n} {p}" for p in Phase if (n := sum(x is p for x in now.values())))
    summary = f"{counts}; " + (f"launcher {pid} runs it" if pid else "no launcher runs it")
    console.print(boards.table(f"{sweep['name']}  {folder}", rows, summary, height=10**6))
    return 0


def cancel(folder: pathlib.Path, console: rich.console.Console) -> int:
    """Asks the launcher, or where there is none the workers, to save and end; waits for it."""
    sweep = read(folder)
    backend = LocalBackend()
    pid = folders.holder(folder)
    handles = {m["id"]: h for m in sweep["members"] if (h := folders.read_state(folder / m["id"]).handle)}
    if pid:
        os.kill(pid, signal.SIGTERM)
        console.print(f"asked launcher {pid} to stop; it waits for its members to save")
    for name, report in backend.poll(handles).items():
        if report.running and not pid:
            backend.cancel(handles[name])
            console.print(f"asked {name} to save and end", highlight=False)
    end = time.monotonic() + CANCEL_SECONDS
    while time.monotonic() < end:
        running = [name for name, report in backend.poll(handles).items() if report.running]
        if not running and not folders.holder(folder):
            console.print(f"nothing of {sweep['name']} runs; the verb run goes on where it was", highlight=False)
            return 0
        time.sleep(0.2)
    console.print(f"after {CANCEL_SECONDS:.0f} s there still run {', '.join(running) or f'launcher {pid}'}", highlight=False)
    return 1


def read(folder: pathlib.Path) -> dict[str, Any]:
    """sweep.json of a folder.

    Raises:
      LaunchError: where there is none.
    """
    sweep = runs.read_json(folder / runs.SWEEP)
    if sweep is None:
        known = sorted(str(p.parent) for p in folder.parent.glob(f"*/{runs.SWEEP}"))
        there = f"there are {', '.join(known)}" if known else "give the folder of one, such as --runs runs/ladder"
        raise LaunchError([f"{folder}: no sweep was launched here (no {runs.SWEEP}); {there}"])
    return sweep


def phases(folder: pathlib.Path, sweep: dict[str, Any], backend: Backend) -> dict[str, Phase]:
    """Every member's phase, from files and processes alone."""
    members = sweep["members"]
    states = {m["id"]: folders.read_state(folder / m["id"]) for m in members}
    running = {name: r.running for name, r in backend.poll({n: s.handle for n, s in states.items() if s.handle}).items()}
    gated = {m["id"] for m in members if m["gated"]}
    begun = any((folder / i / runs.ATTEMPTS).is_dir() for i in gated)
    facts = {
        m["id"]: Facts(
            folders.ended(folder / m["id"]), bool(states[m["id"]].tally.failed), running.get(m["id"], False), _mark(folder, m)
        )
        for m in members
    }
    tasks = [Task(m["id"], parent=m["parent"], gated=m["gated"]) for m in members]
    recorded = {m["id"] for m in members if m["gated"] and m["annealed"]} <= folders.predicted(folder)
    return schedule.phases(tasks, facts, begun or recorded)


def _mark(folder: pathlib.Path, member: dict[str, Any]) -> bool:
    if member["parent"] is None or (folder / member["id"] / runs.ATTEMPTS).is_dir():
        return True
    return (folder / member["parent"] / runs.CHECKPOINTS / str(member["fork_steps"])).is_dir()


def _row(path: pathlib.Path, member: dict[str, Any], phase: Phase, predicted: float | None) -> Row:
    progress = Progress().after(Tail(path / runs.METRICS).rows())
    begun = max(0, progress.tokens - (member["mark_tokens"] or 0))
    part = begun / max(1, member["trained_tokens"])
    if phase in (Phase.FINISHED, Phase.DIVERGED):
        done = runs.read_json(path / runs.DONE) or {}
        return Row(
            member["id"],
            phase,
            1.0 if phase is Phase.FINISHED else part,
            done.get("val_loss"),
            predicted,
            note=done.get("cause") or "",
        )
    running = phase is Phase.RUNNING
    speed = progress.tokens_per_second if running else None
    eta = (member["tokens"] - progress.tokens) / speed if speed else None
    note = folders.read_state(path).tally.failed
    return Row(member["id"], phase, part, progress.loss, predicted, speed, progress.mfu if running else None, eta, note)
