"""Processes killed, asked to stop, or started twice."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import random
import re
import shlex
import signal
import sys
import time

from lab import EARLY, LATE, Lab, held
from launching import TRUNK, Launches, is_worker, wait_for

from scaling import runs

SEED = 20
PHASES = ("start", "compile", "steps", "checkpoint", "closing")
# A kill per word: the trunk trains longest, so most fall on it.
KILLS = {
    TRUNK: ("start", "compile", "steps", "checkpoint", *["steps"] * 2, "checkpoint", *["steps"] * 5, "closing"),
    EARLY: PHASES,
    LATE: PHASES,
}
SPREAD = {"start": 1.5, "compile": 0.4, "steps": 0.0, "checkpoint": 0.02, "closing": 0.1}  # seconds, about as long as it takes


@dataclasses.dataclass
class Kill:
    """One kill to come: at a random moment after the member's worker has come to ``phase``."""

    phase: str
    who: tuple[str, ...]
    after: float  # seconds
    part: float = 0.0  # of the member's own steps that were made; of "steps" alone
    seen: tuple[int, float] | None = None  # the worker that came to the phase, and when to kill it


def random_kills(seed: int) -> dict[str, list[Kill]]:
    """23 kills, repeatable from the seed: of the worker, of the launcher, and of both.  Those among the steps go by how far the
    member has come, so that they are spread over it on any machine.  At least 20 must happen: a worker that is closing may end
    before its kill."""
    draw = random.Random(seed)
    who = [("worker",), ("launcher",), ("launcher", "worker")] * 8
    draw.shuffle(who)
    kills = {m: [Kill(p, who.pop(), draw.uniform(0, SPREAD[p])) for p in phases] for m, phases in KILLS.items()}
    for planned in kills.values():
        among_steps = [k for k in planned if k.phase == "steps"]
        for kill, part in zip(among_steps, sorted(draw.uniform(0, 0.9) for _ in among_steps), strict=True):
            kill.part = part
    return kills


def _has_come_to(kill: Kill, launches: Launches, member: str, starts: int) -> bool:
    """Whether the member's running worker is where it is to be killed (or beyond it, where that is over in a moment)."""
    folder = launches.folder / member
    if kill.phase == "start":
        return True
    if kill.phase == "compile":  # the summary is printed just before
        log = folder / runs.LOG
        return log.exists() and log.read_text().count("model: depth") > starts
    if not launches.attempt(member):
        return False
    plan = runs.read_json(folder / runs.PLAN) or {"steps": 10**9, "fork_steps": 0}
    made = (_last_step(folder / runs.METRICS) - plan["fork_steps"]) / (plan["steps"] - plan["fork_steps"])
    if kill.phase == "checkpoint":
        return made >= 1 or any("tmp" in p.name for p in (folder / runs.CHECKPOINTS).glob("*"))
    return made >= (kill.part if kill.phase == "steps" else 1)


def _last_step(metrics: pathlib.Path) -> int:
    """Of the last whole row, without reading them all."""
    if not metrics.exists():
        return 0
    with open(metrics, "rb") as f:
        f.seek(max(0, f.seek(0, os.SEEK_END) - 2000))
        rows = f.read().rpartition(b"\n")[0].splitlines()
    return json.loads(rows[-1])["step"] if rows else 0


def killed_at_random(lab: Lab) -> str:
    launches, todo = lab.launches, random_kills(SEED)
    launcher, starts, killed = launches.start(), dict.fromkeys(todo, 0), []
    end = time.monotonic() + 400
    while any(todo.values()) and launcher.poll() is None:
        assert time.monotonic() < end, f"after {killed} still to come: {todo}"
        time.sleep(0.01)
        for member, kills in todo.items():
            pid = launches.pid(member)
            if not kills or not pid or not is_worker(pid, launches.out):
                continue
            kill = kills[0]
            if kill.seen is None or kill.seen[0] != pid:
                if not _has_come_to(kill, launches, member, starts[member]):
                    continue
                kill.seen = pid, time.monotonic() + kill.after
            if time.monotonic() < kill.seen[1]:
                continue
            kills.pop(0)
            launches.kill(*[{"worker": pid, "launcher": launcher.pid}[who] for who in kill.who])
            wait_for(lambda pid=pid, kill=kill: "worker" not in kill.who or not is_worker(pid, launches.out), "its end")
            if "worker" in kill.who:  # the next one prints it once more
                log = lab.folder / member / runs.LOG
                starts[member] = log.read_text().count("model: depth") if log.exists() else 0
            killed.append(f"{'+'.join(kill.who)} of {member}: {kill.phase}")
            if "launcher" in kill.who:
                launcher = launches.start()
    printed = launches.finish(launcher)
    assert len(killed) >= 20, f"{killed}, then {todo}: {printed}"
    tallies = [launches.state(member)["tally"] for member in todo]
    assert all(t["failures"] == 0 and not t["failed"] for t in tallies), tallies
    return f"members go on from their newest checkpoints, and no kill counts as a failure; {lab.same()}"


def killed_launcher(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    launcher = launches.start()
    worker = held(launches)  # else it may end before the next launcher looks
    launches.kill(launcher.pid)
    (lab.folder / TRUNK / runs.STATE).unlink()
    again = launches.start()
    wait_for(lambda: launches.pid() == worker, "that the worker is found")
    os.kill(worker, signal.SIGCONT)
    printed = launches.finish(again)
    assert f"{TRUNK}: still running, taken over" in printed and len(launches.attempts()[TRUNK]) == 2
    return f"the worker goes on, the next launch finds it by its command and starts no second one; {lab.same()}"


def asked_to_stop(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    launcher = launches.start()
    worker = launches.wait_for_steps()
    launcher.terminate()
    printed = launches.finish(launcher, 128 + signal.SIGTERM)
    attempt = launches.attempts()[TRUNK][-1]
    assert attempt["exit"] == "preempted" and not is_worker(worker, launches.out)
    command = shlex.split(printed.rpartition("to go on: ")[2].strip())
    again = launches.start(words=[sys.executable, *command[1:]])
    worker = held(launches)  # else it may end before there is anything to cancel
    cancel = launches.start("cancel")
    wait_for(lambda: _is_asked(worker), "that the worker is asked to save")
    os.kill(worker, signal.SIGCONT)
    assert f"asked launcher {again.pid} to stop" in launches.finish(cancel)
    launches.finish(again, 128 + signal.SIGTERM)
    lab.go_on()
    assert [a["exit"] for a in launches.attempts()[TRUNK][1:]] == ["preempted", "preempted", "done"]
    return f"members save and end, the command to go on is printed; {lab.same()}"


def _is_asked(pid: int) -> bool:
    """Whether a SIGTERM waits for a stopped process."""
    pending = re.search(r"^ShdPnd:\s*([0-9a-f]+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return pending is not None and bool(int(pending[1], 16) >> (signal.SIGTERM - 1) & 1)


def second_launcher(lab: Lab) -> str:
    launches = lab.launches
    lab.paused()
    first = launches.start()
    launches.wait_for_steps()
    refused = launches.run(status=runs.BAD_CONFIG)
    assert "another launcher runs this sweep" in refused and str(first.pid) in refused and "Traceback" not in refused
    assert f"launcher {first.pid} runs it" in launches.run("status")
    launches.finish(first)
    assert [len(a) for a in launches.attempts().values()] == [2, 1, 1]
    return f"the second is refused, naming the process of the first, which goes on; {lab.same()}"
