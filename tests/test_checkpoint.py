"""Checkpoints: exact, complete or absent, on any mesh, kept where planned."""

import functools
import os
import pathlib
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import tiny

from scaling import job, partition, runs, step
from scaling.checkpoint import KEEP_NEWEST, SET_ASIDE, Checkpoints

META = {"track": {"total": 0.1}, "ids_hash": "7"}


@functools.cache
def programs(**fields):
    c = tiny.train_config(**fields)
    return step.make_programs(c, partition.make_mesh(c.machine))


def fresh(p):
    return p.init(step.named_key(0, "init"))


def host(state):
    """A copy that no device can change."""
    return jax.tree.map(lambda x: np.array(x, copy=True), state)


def steps_in(run_dir: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in (run_dir / runs.CHECKPOINTS).iterdir() if p.name.isdigit())


@pytest.mark.parametrize("to", [{"machine_fsdp": 8}, {"machine_data": 2, "machine_fsdp": 2, "machine_tensor": 2}, {}])
def test_a_state_saved_on_one_mesh_is_restored_on_another(to, tmp_path):
    # fails when a checkpoint can be read on the mesh that wrote it alone, or a restored array lies elsewhere than it should
    state = fresh(programs(machine_data=4, machine_fsdp=2))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state, META)
    checkpoints.close()
    abstract = programs(**to).abstract_state
    again, meta = Checkpoints(tmp_path, read_only=True).restore(3, abstract)
    assert meta == META and isinstance(again, step.TrainState)
    assert tiny.max_difference(host(again), host(state)) == 0
    for x, a in zip(jax.tree.leaves(again), jax.tree.leaves(abstract), strict=True):
        assert x.sharding == a.sharding and x.dtype == a.dtype


@pytest.mark.parametrize("axes", [{}, pytest.param({"machine_fsdp": 8}, marks=pytest.mark.slow)])
def test_training_goes_on_while_a_checkpoint_is_written(axes, tmp_path):
    # fails when the asynchronous writer reads buffers that the next step, to which they were donated, has overwritten:
    # every restored state must be, to the bit, what the host saw when it was saved.  The state is of several megabytes
    p = programs(**axes, model_width=64, model_vocab_size=1000)
    checkpoints = Checkpoints(tmp_path, marks=range(1, 6))
    state, seen = fresh(p), {}
    assert sum(x.nbytes for x in jax.tree.leaves(state)) > 2e6
    for at in range(1, 6):
        state, _ = p.train(state, tiny.tokens(8, 17, 260, seed=at), np.float32(0.05))
        seen[at] = host(state)
        checkpoints.save(at, state, META)
        for i in range(2):  # the saved state is donated at once
            state, _ = p.train(state, tiny.tokens(8, 17, 260, seed=i), np.float32(0.05))
    checkpoints.close()
    reader = Checkpoints(tmp_path, read_only=True)
    for at, expected in seen.items():
        again, _ = reader.restore(at, p.abstract_state)
        different = jax.tree.map(lambda x, y: int((np.asarray(x) != y).sum()), again, expected)
        assert sum(jax.tree.leaves(different)) == 0, f"step {at}"


def test_marks_and_the_two_newest_are_kept(tmp_path):
    # fails when a branch's mark is tidied away, or every checkpoint stays for ever
    state = fresh(programs())
    checkpoints = Checkpoints(tmp_path, marks=(20, 60))
    for at in range(10, 100, 10):
        checkpoints.save(at, state, META)
    checkpoints.close()
    assert steps_in(tmp_path) == [20, 60, 80, 90] and KEEP_NEWEST == 2
    again = Checkpoints(tmp_path, marks=(20, 60))
    assert again.latest() == 90
    again.save(100, state, META)
    again.close()
    assert steps_in(tmp_path) == [20, 60, 90, 100]


def test_a_missing_step_names_what_is_there(tmp_path):
    # fails when a branch whose mark is missing gets orbax's traceback
    checkpoints = Checkpoints(tmp_path, marks=(2,))
    assert checkpoints.latest() is None
    for at in (2, 5):
        checkpoints.save(at, fresh(programs()), META)
    checkpoints.wait()
    with pytest.raises(runs.RunError, match=r"no checkpoint of step 3; there are \[2, 5\]"):
        checkpoints.restore(3, programs().abstract_state)
    checkpoints.close()


def test_a_step_that_is_there_is_left_alone(tmp_path):
    # fails when saving a step twice raises, or overwrites what a branch may be reading
    state = fresh(programs())
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, META)
    checkpoints.wait()
    checkpoints.save(1, jax.tree.map(lambda x: x + 1, state), META | {"ids_hash": "8"})
    checkpoints.close()
    again, meta = Checkpoints(tmp_path, read_only=True).restore(1, programs().abstract_state)
    assert meta == META and int(again.step) == 0


def test_reading_a_parent_changes_nothing(tmp_path):
    # fails when a branch's opening of its trunk's folder creates, tidies or saves
    state = fresh(programs())
    writer = Checkpoints(tmp_path, marks=(1, 2, 3, 4))
    for at in range(1, 5):
        writer.save(at, state, META)
    writer.close()
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    reader = Checkpoints(tmp_path, read_only=True)
    reader.restore(1, programs().abstract_state)
    reader.close()
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
    Checkpoints(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()


def test_half_a_checkpoint_is_none(tmp_path):
    # fails when a folder that a kill left half-written counts as the newest checkpoint, or takes room for ever
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, fresh(programs()), META)
    checkpoints.close()
    half = tmp_path / runs.CHECKPOINTS / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    assert Checkpoints(tmp_path, read_only=True).latest() == 1 and half.exists()
    again = Checkpoints(tmp_path)
    assert again.latest() == 1 and not half.exists()
    again.close()


# ------------------------------------------------------------------------------------------------- damaged ones


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A run with checkpoints of steps 1, 2 and 3, each of another state, and those states."""
    run_dir, states = tmp_path_factory.mktemp("three"), {}
    checkpoints = Checkpoints(run_dir, marks=(1, 2, 3))
    state = fresh(programs())
    for at in (1, 2, 3):
        state = jax.tree.map(lambda x: x + 1, state)
        states[at] = host(state)
        checkpoints.save(at, state, META | {"rows": at})
    checkpoints.close()
    return run_dir, states


def damaged(three, tmp_path, *steps, how="truncate"):
    """A copy of the three in which the largest file of each of ``steps`` is cut in half, or gone."""
    run_dir = tmp_path / "run"
    shutil.copytree(three[0], run_dir)
    for at in steps:
        files = (p for p in (run_dir / runs.CHECKPOINTS / str(at) / "state").rglob("*") if p.is_file())
        largest = max(files, key=lambda p: p.stat().st_size)
        if how == "truncate":
            os.truncate(largest, largest.stat().st_size // 2)
        else:
            largest.unlink()
    return run_dir


@pytest.mark.parametrize("how", ["truncate", "remove"])
def test_the_one_before_a_damaged_checkpoint_goes_on(three, tmp_path, capsys, how):
    # fails when damage ends the run or is not told, when the damaged one is thrown away, or when it stays in its place: the run
    # would skip saving that step again, and a branch would find the damage
    run_dir = damaged(three, tmp_path, 2, 3, how=how)
    checkpoints = Checkpoints(run_dir)
    at, state, meta = checkpoints.restore_newest(programs().abstract_state)
    assert at == 1 and meta["rows"] == 1 and tiny.max_difference(host(state), three[1][1]) == 0
    told = capsys.readouterr().out
    assert all(f"warning: {run_dir / runs.CHECKPOINTS / str(s)} cannot be read" in told for s in (2, 3))
    assert steps_in(run_dir) == [1] and sorted(p.name for p in (run_dir / SET_ASIDE).iterdir()) == ["2.0", "3.0"]
    checkpoints.save(3, state, META)
    checkpoints.close()
    assert steps_in(run_dir) == [1, 3]


def test_nothing_is_moved_when_none_can_be_read(three, tmp_path):
    # fails when a run whose checkpoints all are damaged starts from zero, or its files are touched
    run_dir = damaged(three, tmp_path, 1, 2, 3)
    before = sorted(str(p) for p in run_dir.rglob("*"))
    with pytest.raises(runs.RunError, match=r"none of the checkpoints \[3, 2, 1\] can be used .*bring the files back"):
        Checkpoints(run_dir).restore_newest(programs().abstract_state)
    assert sorted(str(p) for p in run_dir.rglob("*")) == before


def test_a_checkpoint_whose_rows_are_lost_is_not_used(three, tmp_path, capsys):
    # fails when a run goes on behind a hole in its metrics, which nothing would ever fill
    run_dir = damaged(three, tmp_path)
    for at in (1, 2):
        runs.append_jsonl(run_dir / runs.METRICS, {"kind": "train", "step": at, "loss": 1.0})
    lost = functools.partial(job.rows_lost, run_dir)
    assert lost(2, {"rows": 2}) is None and lost(2, {}) is None and "1 of 2 rows up to step 1" in str(lost(1, {"rows": 2}))
    at, _, _ = Checkpoints(run_dir).restore_newest(programs().abstract_state, lost)
    assert at == 2 and "metrics.jsonl: 2 of 3 rows up to step 3 are left" in capsys.readouterr().out


def test_a_damaged_mark_is_told_with_its_remedy(three, tmp_path):
    # fails when a branch of a damaged trunk ends with Orbax's traceback, or changes anything in its trunk
    run_dir = damaged(three, tmp_path, 2)
    before = sorted(str(p) for p in run_dir.rglob("*"))
    with pytest.raises(
        runs.RunError, match=r"checkpoints/2 cannot be read .* remove .*done\.json and the checkpoints from 2 on"
    ):
        Checkpoints(run_dir, read_only=True).restore_mark(2, programs().abstract_state)
    assert sorted(str(p) for p in run_dir.rglob("*")) == before


@pytest.mark.slow
def test_no_missing_or_truncated_file_is_read_as_another_state(three, tmp_path):
    # fails when any file of a checkpoint, gone or cut in half, gives other numbers than were saved, in silence
    names = [p.relative_to(three[0]) for p in (three[0] / runs.CHECKPOINTS / "3").rglob("*") if p.is_file()]
    refused = 0
    for name in names:
        for how in ("gone", "half"):
            run_dir = tmp_path / "one"
            shutil.copytree(three[0], run_dir)
            if how == "gone":
                (run_dir / name).unlink()
            else:
                os.truncate(run_dir / name, (run_dir / name).stat().st_size // 2)
            checkpoints = Checkpoints(run_dir, read_only=True)
            try:
                state, meta = checkpoints.restore(3, programs().abstract_state)
            except Exception:
                refused += 1
            else:
                assert meta["rows"] == 3 and tiny.max_difference(host(state), three[1][3]) == 0, (str(name), how)
            checkpoints.close()
            shutil.rmtree(run_dir)
    assert len(names) >= 10 and refused >= 10


def test_a_failed_read_is_told_once(three, tmp_path, monkeypatch):
    # fails when reads that were under way print tracebacks after the failure was raised, or other troubles are hidden with them
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_value))
    shutil.copytree(three[0], tmp_path / "one")
    (tmp_path / "one" / runs.CHECKPOINTS / "3" / "state" / "manifest.ocdbt").unlink()
    with pytest.raises(Exception, match="NOT_FOUND"):
        Checkpoints(tmp_path / "one", read_only=True).restore(3, programs().abstract_state)
    late, other = RuntimeError("Event loop is closed"), RuntimeError("another")
    for error in (late, other):
        sys.unraisablehook(types.SimpleNamespace(exc_value=error, object=None))
    assert shown == [other]
