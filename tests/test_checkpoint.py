"""Checkpoints: exact, complete or absent, on any mesh, kept where planned."""

import functools
import pathlib

import jax
import numpy as np
import pytest
import tiny

from scaling import partition, runs, step
from scaling.checkpoint import KEEP_NEWEST, Checkpoints

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
    # fails when a folder that a kill left half-written counts as the newest checkpoint
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, fresh(programs()), META)
    checkpoints.close()
    half = tmp_path / runs.CHECKPOINTS / "2.orbax-checkpoint-tmp-123"
    (half / "state").mkdir(parents=True)
    again = Checkpoints(tmp_path)
    assert again.latest() == 1
    again.close()
