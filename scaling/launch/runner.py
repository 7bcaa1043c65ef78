"""The loop: look, judge, start, show.  Everything it knows is in files, so it may be killed at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from scaling import runs
from scaling.launch import estimate, outcome, schedule
from scaling.launch import folder as folders
from scaling.launch.analyses import Analyses, Result
from scaling.launch.backend import Backend
from scaling.launch.board import Board, Row
from scaling.launch.folder import Item, State
from scaling.launch.follow import UNKNOWN, Progress, Tail
from scaling.launch.outcome import End, Tally
from scaling.launch.prepare import Prepared
from scaling.launch.schedule import Facts, Phase
from scaling.launch.watchdog import Watchdog, progress
from scaling.units import format_seconds

TICK_SECONDS = 0.5
REPLAN_SECONDS = 10.0
SAY_AFTER_REFUSALS = 3  # a worker that has just ended keeps its core for some tenths of a second


class Stop:
    """Counts Ctrl-C and SIGTERM, and wakes the loop for them and for every worker that ends."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.count = 0
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the signals while inside."""
        before = {s: signal.signal(s, self._take) for s in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        self.count += 1

    def sleep(self, seconds: float) -> None:
        """Until something happens."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4096)


@dataclasses.dataclass
class _Track:
    """A member while this launcher looks after it."""

    item: Item
    state: State
    tail: Tail
    ended: str | None = None
    final_loss: float | None = None
    mark: bool = False
    elsewhere: bool = False  # a process that this launcher knows nothing of trains it
    progress: Progress = UNKNOWN
    note: str = ""
    hung: str = ""  # why its worker was ended by the watchdog


class Gate:
    """Whether the largest size may start."""

    def __init__(self, prepared: Prepared):
        self._folder = prepared.folder
        self._wanted = {i.id for i in prepared.items if i.gated and i.member.plan.annealed}
        self.asked = False
        begun = any(i.gated and i.started for i in prepared.items)
        self.open = not prepared.gated or begun or self.recorded()

    def recorded(self) -> bool:
        """Whether every annealed member of the largest size has its prediction on record."""
        return self._wanted <= folders.predicted(self._folder)


class Runner:
    """Runs a prepared sweep on a backend."""

    def __init__(self, prepared: Prepared, backend: Backend, board: Board, analyses: Analyses, stop: Stop):
        self._prepared, self._backend, self._board, self._analyses, self._stop = prepared, backend, board, analyses, stop
        self._tracks = [_Track(i, folders.read_state(i.path), Tail(i.path / runs.METRICS)) for i in prepared.items]
        self._by_id = {t.item.id: t for t in self._tracks}
        self._gate = Gate(prepared)
        self._start = time.monotonic()
        self._asked_to_save = False
        self._planned = -REPLAN_SECONDS
        self._left = 0.0
        self._watchdog = Watchdog(60 * prepared.request.hang_minutes)
        self._refusals = 0  # in a row, while no member of ours trains: other sweeps hold what there is

    def run(self) -> dict[str, Phase]:
        """Until all is over, or until the members have saved after a signal, or at once after a second one."""
        self._recover()
        while True:
            self._reap()
            self._watch()
            now = self._phases()
            if not self._stop.signal:
                self._predict(now)
                now = self._phases()
                self._submit(now)
            else:
                self._save(now)
            now = self._phases()
            self._show(now)
            running = any(p is Phase.RUNNING for p in now.values())
            over = all(p.over for p in now.values())
            if over and self._prepared.gated and not self._stop.signal:
                self._analyses.wait("live")
                self._show(now)
            if over or self._stop.count > 1 or (self._stop.signal and not running):
                self._analyses.stop()
                return now
            self._stop.sleep(TICK_SECONDS)

    def failures(self) -> dict[str, str]:
        """Members that are not tried again, and why."""
        return {t.item.id: t.state.tally.failed for t in self._tracks if t.state.tally.failed and not t.ended}

    # What is there

    def _recover(self) -> None:
        """Takes over what an earlier launcher left: ended members, running workers, lost handles."""
        for t in self._tracks:
            self._read_done(t)
            if t.state.tally.failed and not t.ended:
                self._board.say(f"{t.item.id}: gave up earlier ({t.state.tally.failed}); trying again")
                t.state = State(t.state.handle)
        live = self._backend.poll({t.item.id: t.state.handle for t in self._tracks if t.state.handle})
        lost = [t.item.job for t in self._tracks if not t.ended and not (t.item.id in live and live[t.item.id].running)]
        for name, handle in self._backend.find(lost).items():
            self._keep(self._by_id[name], handle)
        for t in self._tracks:
            found = t.state.handle is not None and not t.ended
            if found and (t.item.id not in live or live[t.item.id].running):
                self._board.say(f"{t.item.id}: still running, taken over")
        folders.prune_marks(self._prepared.items)

    def _read_done(self, t: _Track) -> None:
        done = runs.read_json(t.item.path / runs.DONE)
        if done is not None:
            t.ended, t.final_loss = done["status"], done.get("val_loss")
            t.note = str(done.get("cause") or "") if t.ended == "diverged" else ""

    def _reap(self) -> None:
        """Judges the workers that have ended."""
        handles = {t.item.id: t.state.handle for t in self._tracks if t.state.handle}
        for name, report in self._backend.poll(handles).items():
            t = self._by_id[name]
            t.progress = t.progress.after(t.tail.rows())
            if report.running:
                continue
            self._read_done(t)
            last = folders.last_attempt(t.item.path)
            own = last if last and last.get("pid") == handles[name]["pid"] else None  # one killed early has none
            ended = outcome.judge(report.status, t.ended is not None, own)
            if t.hung and ended.end is End.KILLED:
                ended = outcome.Ended(End.KILLED, t.hung)
            t.hung = ""
            if ended.end is End.REFUSED and folders.is_trained_elsewhere(t.item.path):
                self._board.say(f"{t.item.id}: another process trains it already; waiting for that to end")
                t.elsewhere = True
                self._keep(t, None)
                continue
            self._keep(t, None, t.state.tally.after(ended, t.progress.step, self._prepared.request.retries))
            self._tell(t, ended)
            self._planned = -REPLAN_SECONDS
            if ended.end is End.DONE:
                self._analyses.want_live()
                folders.prune_marks(self._prepared.items)

    def _watch(self) -> None:
        """Ends the workers that hang."""
        seconds = self._watchdog.due(time.monotonic())
        if not seconds:
            return
        for t in self._tracks:
            if t.state.handle is None:
                continue
            mark = progress(t.state.handle["pid"], folders.last_attempt(t.item.path))
            if self._watchdog.hangs(t.item.id, mark, seconds):
                minutes = self._prepared.request.hang_minutes
                t.hung = f"it hung: no step for {minutes:g} minutes; where, is in its log"
                self._backend.kill(t.state.handle)

    def _tell(self, t: _Track, ended: outcome.Ended) -> None:
        tally = t.state.tally
        if ended.end in (End.DONE, End.SAVED):
            t.note = "saved" if ended.end is End.SAVED else t.note
            return
        if tally.failed:
            t.note = tally.failed
            self._board.say(f"{t.item.id}: {tally.failed}; the last lines of {t.item.path / runs.LOG}:")
            self._board.say("\n".join(f"    {line}" for line in folders.log_tail(t.item.path)) or "    (empty)")
        elif ended.end is End.ERROR:
            t.note = f"failed {tally.failures}x"
            self._board.say(
                f"{t.item.id}: {ended.cause}; try {tally.failures} of {self._prepared.request.retries} more follows"
            )
        elif ended.end is End.KILLED and self._asked_to_save:
            t.note = "ended before it could save"
        elif ended.end is End.KILLED:
            t.note = f"killed {tally.kills}x"
            self._board.say(f"{t.item.id}: killed ({ended.cause}); goes on from its last checkpoint")

    def _phases(self) -> dict[str, Phase]:
        return schedule.phases([_bare(t.item) for t in self._tracks], self._facts(), self._gate.open)

    def _facts(self) -> dict[str, Facts]:
        return {t.item.id: self._fact(t) for t in self._tracks}

    def _fact(self, t: _Track) -> Facts:
        mark = t.item.mark
        t.mark = t.mark or mark is None or t.item.started or (not t.ended and mark.is_dir())
        if t.elsewhere and not folders.is_trained_elsewhere(t.item.path):
            t.elsewhere = False
            self._read_done(t)
        return Facts(t.ended, bool(t.state.tally.failed), t.state.handle is not None or t.elsewhere, t.mark)

    def _keep(self, t: _Track, handle: dict | None, tally: Tally | None = None) -> None:
        t.state = State(handle, tally or t.state.tally)
        folders.write_state(t.item.path, t.state)

    # What is done

    def _submit(self, now: dict[str, Phase]) -> None:
        if Phase.READY not in now.values():
            return
        if time.monotonic() - self._planned >= REPLAN_SECONDS:
            self._plan()
        for task in schedule.ready(self._ordered, now):
            t = self._by_id[task.id]
            handle = self._backend.submit(t.item.job)
            if handle is None:
                self._refusals += Phase.RUNNING not in now.values()
                if self._refusals == SAY_AFTER_REFUSALS:
                    self._board.say("other sweeps use what members would train on here; waiting for them")
                return
            self._refusals = 0
            self._keep(t, handle)
            t.note = self._backend.where(handle)

    def _plan(self) -> None:
        """The order of what is left, and how long it takes."""
        facts = self._facts()
        rate = estimate.rates(self._prepared.items, self._prepared.pool)
        tasks = [estimate.task(t.item, rate, facts[t.item.id], t.progress) for t in self._tracks]
        progress = {t.item.id: t.progress for t in self._tracks}
        tasks = estimate.with_marks(tasks, self._prepared.items, progress)
        choice = schedule.choose_order(tasks, facts, self._backend.slots)
        self._ordered: Sequence[schedule.Task] = schedule.ORDERS[choice.name](tasks)
        self._left, self._planned = choice.expected, time.monotonic()

    def _predict(self, now: dict[str, Phase]) -> None:
        """Live predictions, and the recorded one that opens the gate."""
        result = self._analyses.tick()
        if self._gate.open:
            return
        if result is not None and result.name == "record":
            self._gate.open = True
            self._recorded(result)
        elif not self._gate.asked and schedule.prediction_due([_bare(i.item) for i in self._tracks], now):
            self._gate.asked = True
            self._analyses.ask("record")

    def _recorded(self, result: Result) -> None:
        if result.ok and self._gate.recorded():
            self._board.say(result.words)
            return
        why = result.words.splitlines()[-1] if result.words else "it printed nothing"
        self._board.say(
            f"the prediction of the largest size could not be recorded ({why}); it is trained all the same, unscored"
        )

    def _save(self, now: dict[str, Phase]) -> None:
        """Asks every worker once to save and end."""
        if self._asked_to_save:
            return
        self._asked_to_save = True
        running = [t for t in self._tracks if now[t.item.id] is Phase.RUNNING and t.state.handle]
        for t in running:
            assert t.state.handle is not None
            self._backend.cancel(t.state.handle)
            t.note = "saving"
        if running:
            self._board.say(
                f"asked {len(running)} members to save and end; once more (Ctrl-C) leaves them running without this launcher"
            )

    # What is shown

    def _show(self, now: dict[str, Phase]) -> None:
        predicted = self._analyses.live()
        rows = [self._row(t, now[t.item.id], predicted.get(t.item.id)) for t in self._tracks]
        counts = {name: sum(p in phases for p in now.values()) for name, phases in _GROUPS.items()}
        elapsed = time.monotonic() - self._start
        words = [f"{counts['over']} of {len(rows)} over", f"{counts['running']} running", f"{counts['waiting']} waiting"]
        words += [f"{counts['failed']} failed"] if counts["failed"] else []
        words.append(format_seconds(elapsed))
        if any(not p.over for p in now.values()) and not self._stop.signal:
            if time.monotonic() - self._planned >= REPLAN_SECONDS:
                self._plan()
            words.append(f"about {format_seconds(max(0.0, self._left - (time.monotonic() - self._planned)))} left")
        self._board.show(f"{self._prepared.sweep.name}  {self._prepared.folder}", rows, " · ".join(words))

    def _row(self, t: _Track, phase: Phase, predicted: float | None) -> Row:
        plan, p = t.item.member.plan, t.progress
        part = max(0, p.tokens - (plan.fork_tokens or 0)) / max(1, plan.trained_tokens)
        if phase in (Phase.FINISHED, Phase.DIVERGED):
            return Row(t.item.id, phase, 1.0 if phase is Phase.FINISHED else part, t.final_loss, predicted, note=t.note)
        running = phase is Phase.RUNNING
        speed = p.tokens_per_second if running else None
        eta = (plan.tokens - p.tokens) / speed if speed and p.tokens else None
        return Row(t.item.id, phase, part, p.loss, predicted, speed, p.mfu if running else None, eta, t.note)


_GROUPS = {
    "over": {Phase.FINISHED, Phase.DIVERGED},
    "failed": {Phase.FAILED, Phase.BLOCKED},
    "running": {Phase.RUNNING},
    "waiting": {Phase.READY, Phase.WAITS_TRUNK, Phase.WAITS_PREDICTION},
}


def _bare(item: Item) -> schedule.Task:
    """A member as far as its phase needs it."""
    return schedule.Task(item.id, item.slots, parent=item.member.parent, gated=item.gated)
