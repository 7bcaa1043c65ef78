"""The loop with real processes that keep the trainer's contract but train nothing, through a backend of the tests' own."""

import dataclasses
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import rich.console
from launching import REPO

from scaling import locks, runs
from scaling.launch import claims, closing, devices, follow, outcome, prepare, status
from scaling.launch import folder as folders
from scaling.launch.analyses import Analyses
from scaling.launch.backend import Handle, Job
from scaling.launch.board import PlainBoard
from scaling.launch.folder import Item
from scaling.launch.local import LocalBackend
from scaling.launch.prepare import Prepared, Request
from scaling.launch.runner import SAY_AFTER_REFUSALS, Runner, Stop
from scaling.launch.schedule import Phase

SWEEP = """
import ml_collections
from scaling import config as configs, sweep

def get_config(arg=""):
    config = ml_collections.ConfigDict(configs.default_dict())
    config.model.context = 32
    config.batch = "128 tokens"
    return config

def get_sweep(config):
    return sweep.fork(sweep.ladder(config, [SIZES]), ["3 tokens/param", "6 tokens/param", "9 tokens/param"])
"""


class StubBackend(LocalBackend):
    """The local backend with another program for every member."""

    def submit(self, job: Job) -> Handle | None:
        stub = str(REPO / "tests" / "launch" / "stub_worker.py")
        return super().submit(dataclasses.replace(job, command=(job.command[0], stub, job.command[-1])))


@dataclasses.dataclass
class Ran:
    prepared: Prepared
    now: dict[str, Phase]
    failures: dict[str, str]
    printed: str

    def item(self, name: str) -> Item:
        return next(i for i in self.prepared.items if i.id == name)

    def attempts(self, name: str) -> int:
        return len(list((self.item(name).path / runs.ATTEMPTS).glob("*.json")))


def prepared_sweep(
    tmp_path: pathlib.Path, store: pathlib.Path, sizes: tuple[str, ...], retries: int = 2, use=None, **more
) -> Prepared:
    """The sweep as it stands before its folder is written; ``more`` are fields of the config."""
    sweep_file = tmp_path / "stubs.py"
    sweep_file.write_text(SWEEP.replace("SIZES", ", ".join(map(repr, sizes))))
    request = Request(
        str(sweep_file), {"data.store": str(store), "data.epochs": 99.0} | more, tmp_path / "runs", retries, use=use
    )
    return prepare.complete(request, prepare.check(request, writes=True), build=False, say=print)


def write(prepared: Prepared) -> None:
    """sweep.json and the members' specs."""
    folders.write_sweep(prepared.folder, prepared.items, prepared.head(), LocalBackend().environment())


def launch(tmp_path: pathlib.Path, store: pathlib.Path, sizes: tuple[str, ...], retries: int = 2, use=None) -> Ran:
    """What the verb run does, with the stub."""
    text = io.StringIO()
    board = PlainBoard(rich.console.Console(file=text, width=200))
    stop = Stop()
    prepared = prepared_sweep(tmp_path, store, sizes, retries, use)
    with folders.locked(prepared.folder), stop.listening():
        backend = StubBackend(prepared.pool)
        write(prepared)
        runner = Runner(prepared, backend, board, Analyses(prepared.folder), stop)
        now = runner.run()
    return Ran(prepared, now, runner.failures(), text.getvalue())


def seen_submissions(monkeypatch: pytest.MonkeyPatch, see: Callable[[Job, Handle | None], None]) -> None:
    """Tells ``see`` of every job that a launcher of these tests submits, and of the answer."""
    submit = StubBackend.submit

    def seen(self: StubBackend, job: Job) -> Handle | None:
        handle = submit(self, job)
        see(job, handle)
        return handle

    monkeypatch.setattr(StubBackend, "submit", seen)


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    monkeypatch.setenv("PYTHONPATH", str(REPO))


def test_failing_member_is_retried_then_reported_and_the_others_go_on(tmp_path, store, monkeypatch) -> None:
    """Fails when retries are miscounted, the log is not shown, or one failure stops the sweep."""
    monkeypatch.setenv("STUB_causal_13K_6x", "error")
    monkeypatch.setenv("STUB_causal_13K_3x", "error once")
    ran = launch(tmp_path, store, ("13K",), retries=2)
    assert ran.now == dict.fromkeys(ran.now, Phase.FINISHED) | {"causal-13K-6x": Phase.FAILED}
    assert ran.attempts("causal-13K-6x") == 3 and ran.attempts("causal-13K-3x") == 2
    report = "\n".join(closing.failures(ran.prepared.items, ran.now, ran.failures))
    assert "RuntimeError: the stub was told to fail" in report and "causal-13K-6x" in report and "3 times" in report


def test_a_worker_that_nobody_saw_is_not_blamed_for_the_one_before_it(tmp_path, store) -> None:
    """Fails when the error of an attempt, counted at its end, is counted once more for its successor, which was killed together
    with the launcher before it had an attempt of its own."""
    prepared = prepared_sweep(tmp_path, store, ("13K",))
    write(prepared)
    trunk = prepared.items[0]
    runs.claim_attempt(trunk.path, {"pid": 1, "exit": "error", "cause": "boom"})
    killed = {"pid": 2**22 + 1, "start_time": "x", "kind": "cpu", "slots": ["0"]}
    folders.write_state(trunk.path, folders.State(killed, outcome.Tally(failures=1, step=0)))
    ran = launch(tmp_path, store, ("13K",), retries=1)
    assert set(ran.now.values()) == {Phase.FINISHED}
    tally = folders.read_state(trunk.path).tally
    assert (tally.failures, tally.kills) == (1, 1) and "boom" not in ran.printed


def test_refused_member_is_not_retried_and_a_crash_is_counted(tmp_path, store, monkeypatch) -> None:
    """Fails when a config that can never run is tried again, or a segmentation fault is retried for ever."""
    monkeypatch.setenv("STUB_causal_13K_6x", "refuse")
    monkeypatch.setenv("STUB_causal_13K_3x", "crash")
    ran = launch(tmp_path, store, ("13K",), retries=1)
    assert ran.now["causal-13K-6x"] is ran.now["causal-13K-3x"] is Phase.FAILED
    assert ran.attempts("causal-13K-6x") == 1 and ran.attempts("causal-13K-3x") == 2
    assert "SIGSEGV" in ran.failures["causal-13K-3x"]


def test_branches_of_a_diverged_trunk(tmp_path, store, monkeypatch) -> None:
    """Fails when a branch whose mark was committed does not run, or one whose mark never comes is waited for."""
    monkeypatch.setenv("STUB_causal_13K_trunk", "diverge at 400")
    ran = launch(tmp_path, store, ("13K",))
    assert ran.now == {
        "causal-13K-trunk": Phase.DIVERGED, "causal-13K-3x": Phase.FINISHED, "causal-13K-6x": Phase.BLOCKED,
        "causal-13K-9x": Phase.BLOCKED,
    }  # fmt: skip
    report = "\n".join(closing.failures(ran.prepared.items, ran.now, ran.failures))
    assert "diverged: causal-13K-trunk: the stub was told to" in report and "not run: causal-13K-6x" in report


def test_largest_size_waits_for_its_prediction_and_takes_all_cores(tmp_path, store) -> None:
    """Fails when the largest size starts before its losses are on record, or not on all cores."""
    ran = launch(tmp_path, store, ("13K", "25K", "50K", "75K"))
    assert set(ran.now.values()) == {Phase.FINISHED}
    rows = [r for r in runs.read_jsonl(ran.prepared.folder / runs.PREDICTIONS) if r["kind"] == "prediction"]
    assert {r["member"] for r in rows} == {f"causal-75K-{b}x" for b in (3, 6, 9)}, ran.printed
    recorded = (ran.prepared.folder / runs.PREDICTIONS).stat().st_mtime
    largest = ran.item("causal-75K-trunk")
    assert (largest.path / runs.ATTEMPTS / "000.json").stat().st_ctime >= recorded
    assert largest.slots == len(ran.prepared.pool.slots) == LocalBackend().slots
    assert str([int(slot.id) for slot in ran.prepared.pool.slots]) in (largest.path / runs.LOG).read_text()
    assert len(rows[0]["sizes"]) == 3
    live = runs.read_json(ran.prepared.folder / folders.LIVE_PREDICTIONS)
    assert live is None or live["members"].keys() <= ran.now.keys()


def test_prediction_that_cannot_be_made_does_not_hang_the_largest_size(tmp_path, store, monkeypatch) -> None:
    """Fails when too few finished sizes leave the largest waiting for ever, or the user is not told."""
    monkeypatch.setenv("STUB_causal_25K_trunk", "error")
    ran = launch(tmp_path, store, ("13K", "25K", "50K", "75K"), retries=0)
    assert ran.now["causal-75K-9x"] is Phase.FINISHED and ran.now["causal-25K-9x"] is Phase.BLOCKED
    assert "could not be recorded" in ran.printed


def test_failed_member_is_tried_again_by_the_next_launch(tmp_path, store, monkeypatch) -> None:
    """Fails when a member that was given up stays so after its cause is mended, or finished ones run again."""
    monkeypatch.setenv("STUB_causal_13K_6x", "error")
    launch(tmp_path, store, ("13K",), retries=0)
    monkeypatch.delenv("STUB_causal_13K_6x")
    ran = launch(tmp_path, store, ("13K",), retries=0)
    assert set(ran.now.values()) == {Phase.FINISHED}
    assert ran.attempts("causal-13K-6x") == 2 and ran.attempts("causal-13K-9x") == 1


def test_new_member_joins_a_finished_sweep(tmp_path, store) -> None:
    """Fails when adding a size is refused, or trains the others again."""
    launch(tmp_path, store, ("13K",))
    ran = launch(tmp_path, store, ("13K", "25K"))
    assert set(ran.now.values()) == {Phase.FINISHED} and len(ran.now) == 8
    assert ran.attempts("causal-13K-trunk") == 1 and "other sweeps" not in ran.printed


def test_status_tells_what_each_member_waits_for(tmp_path, store) -> None:
    """Fails when the files alone do not say which members wait for a prediction and where a branch leaves its trunk."""
    prepared = prepared_sweep(tmp_path, store, ("13K", "25K", "50K", "75K"))
    write(prepared)
    branch = next(i for i in prepared.items if i.id == "causal-13K-3x")
    branch.mark.mkdir(parents=True)
    sweep = status.read(prepared.folder)
    now = status.phases(prepared.folder, sweep, LocalBackend())
    assert now["causal-13K-trunk"] is now["causal-13K-3x"] is Phase.READY
    assert now["causal-13K-6x"] is Phase.WAITS_TRUNK and now["causal-75K-trunk"] is Phase.WAITS_PREDICTION


def test_config_may_change_until_a_member_starts(tmp_path, store) -> None:
    """Fails when a plan that nobody trained is held against its change, or a member that was started is not."""
    first = prepared_sweep(tmp_path, store, ("13K",))
    write(first)
    changed = prepared_sweep(tmp_path, store, ("13K",), **{"optim.lr": 0.004})
    write(changed)
    trunk = changed.items[0]
    spec = runs.read_json(trunk.path / runs.SPEC)
    assert spec["digest"] == trunk.digest != first.items[0].digest and spec["config"]["optim"]["lr"] == 0.004
    runs.claim_attempt(trunk.path, {})
    with pytest.raises(folders.LaunchError, match=r"optim\.lr: 0\.004 -> 0\.002   \(causal-13K-trunk\)"):
        prepared_sweep(tmp_path, store, ("13K",), **{"optim.lr": 0.002})


def test_a_worker_that_just_begins_keeps_its_version(tmp_path, store) -> None:
    """Fails when the spec of a worker that was submitted and has claimed no attempt yet is rewritten by a changed launch: it
    would train one config under the name of another."""
    first = prepared_sweep(tmp_path, store, ("13K",))
    write(first)
    trunk = first.items[0]
    before = (trunk.path / runs.SPEC).read_text()
    changed = prepared_sweep(tmp_path, store, ("13K",), **{"optim.lr": 0.004})
    with locks.held(trunk.path / runs.LOCK, locks.exclusively):  # what a worker holds from its start on
        with pytest.raises(folders.LaunchError, match=r"causal-13K-trunk: a worker of an earlier launch .* verb cancel"):
            write(changed)
        assert (trunk.path / runs.SPEC).read_text() == before
        write(first)  # the same config is no reason to refuse
    write(changed)
    assert runs.read_json(trunk.path / runs.SPEC)["digest"] == changed.items[0].digest


def test_a_copied_handle_is_not_the_copys(tmp_path) -> None:
    """Fails when the launcher of a copied folder takes the original's worker for its own, and would cancel it."""
    state = folders.State({"pid": 1, "start_time": "x", "slots": ["0"]}, outcome.Tally(kills=3))
    folders.write_state(tmp_path / "a" / "m", state)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert folders.read_state(tmp_path / "c" / "m").handle == folders.read_state(tmp_path / "a" / "m").handle == state.handle
    assert folders.read_state(tmp_path / "b" / "m") == folders.State(None, state.tally)


def test_marks_go_when_their_branches_are_done(tmp_path, store) -> None:
    """Fails when a mark is removed that a branch may still start from, the trunk's last checkpoint is, or a mark stays."""
    prepared = prepared_sweep(tmp_path, store, ("13K",))
    trunk, *branches = prepared.items
    steps = [int(b.mark.name) for b in branches]
    for step in steps:  # the last mark is the trunk's last checkpoint
        (trunk.path / runs.CHECKPOINTS / str(step)).mkdir(parents=True)
    kept = lambda: sorted(int(p.name) for p in (trunk.path / runs.CHECKPOINTS).iterdir())  # noqa: E731
    for done in branches[:2]:
        runs.write_json(done.path / runs.DONE, {"status": "finished"})
    assert folders.prune_marks(prepared.items) == [] and len(kept()) == 3  # the trunk still trains
    runs.write_json(trunk.path / runs.DONE, {"status": "finished"})
    folders.prune_marks(prepared.items)
    assert kept() == [steps[2]]
    runs.write_json(branches[2].path / runs.DONE, {"status": "diverged"})
    folders.prune_marks(prepared.items)
    assert kept() == [steps[2]]
    (trunk.path / runs.CHECKPOINTS / str(steps[2] + 1)).mkdir()
    folders.prune_marks(prepared.items)
    assert kept() == [steps[2] + 1] and not list(trunk.path.glob(".pruned*"))


def test_two_sweeps_share_no_core(tmp_path, store) -> None:
    """Fails when a second sweep on the host pins its member to a core on which the first one's trains."""
    here = devices.cores().first(1)
    first, second = StubBackend(here), StubBackend(here)
    sleep = Job("a", (sys.executable, "-c", "import time; time.sleep(60)"), tmp_path / "a" / "log", 1)
    handle = LocalBackend.submit(first, sleep)
    assert handle is not None
    assert LocalBackend.submit(second, dataclasses.replace(sleep, name="b", log=tmp_path / "b" / "log")) is None
    os.kill(handle["pid"], signal.SIGKILL)
    first._children[handle["pid"]].wait()
    again = LocalBackend.submit(second, dataclasses.replace(sleep, name="b", log=tmp_path / "b" / "log"))
    assert again is not None and again["slots"] == handle["slots"]
    os.kill(again["pid"], signal.SIGKILL)
    second._children[again["pid"]].wait()


def test_a_sweep_waits_for_the_cores_of_another(tmp_path, store, monkeypatch) -> None:
    """Fails when a sweep trains on cores that another one uses, gives up, or does not say what it waits for."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # claims of its own: a worker of the test before this one may still be ending
    files = [file for slot in devices.cores().slots if (file := claims.take("cpu", slot.id)) is not None]
    other = subprocess.Popen(["sleep", "60"], pass_fds=files)
    for file in files:
        os.close(file)
    refused: list[str] = []

    def see(job: Job, handle: Handle | None) -> None:
        if handle is None:
            refused.append(job.name)
        if len(refused) == SAY_AFTER_REFUSALS:
            other.kill()
            other.wait()

    seen_submissions(monkeypatch, see)
    try:
        ran = launch(tmp_path, store, ("13K",))
    finally:
        other.kill()
        other.wait()
    assert refused[:SAY_AFTER_REFUSALS] == ["causal-13K-trunk"] * SAY_AFTER_REFUSALS
    assert "other sweeps use what members would train on here; waiting for them" in ran.printed
    assert set(ran.now.values()) == {Phase.FINISHED}


def test_rows_are_followed_through_a_replacement_that_looks_the_same(tmp_path) -> None:
    """Fails when a file that a resumed trainer replaced twice between two looks, by now longer and under the inode number of
    the first, is read on from the middle of a line."""
    path = tmp_path / "metrics.jsonl"
    tail = follow.Tail(path)
    assert tail.rows() == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert tail.rows() == [{"step": 1}, {"step": 2}] and tail.rows() == []
    with open(path, "r+") as file:  # in place: name and inode number stay
        file.truncate()
        file.write('{"step": 1, "loss": 1.5}\n{"step": 2, "loss": 1.25}\n')
    assert [row["loss"] for row in tail.rows()] == [1.5, 1.25]
    with open(path, "a") as file:
        file.write('{"step": 3}\n')
    assert tail.rows() == [{"step": 3}]


def test_a_line_that_is_no_row_is_passed_over(tmp_path, store) -> None:
    """Fails when a damaged line of a member's metrics ends the launcher or the verb status in a traceback, or hides the rows
    after it."""
    prepared = prepared_sweep(tmp_path, store, ("13K",))
    write(prepared)
    path = prepared.items[0].path / runs.METRICS
    path.write_bytes(b'no row\n\xff\xfe\n7\n{"kind": "train", "step": 8, "tokens": 1024, "loss": 5.25}\n{"kind": \n')
    assert follow.UNKNOWN.after(follow.Tail(path).rows()) == follow.Progress(8, 1024, 5.25)
    text = io.StringIO()
    assert status.show(prepared.folder, rich.console.Console(file=text, width=200)) == 0
    assert "causal-13K-trunk" in text.getvalue() and "5.25" in text.getvalue()
