"""One run on five meshes of eight devices: equal losses, a state that is really split, donated, and movable between them."""

import functools
import importlib.util
import itertools
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
import tiny
from jax.experimental.compilation_cache import compilation_cache

from scaling import model, partition, step
from scaling.checkpoint import Checkpoints

REPO = pathlib.Path(__file__).parents[1]


def benchmark(name: str):
    """A script of benchmarks/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, REPO / "benchmarks" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


meshes = benchmark("meshes")
SPREAD = [name for name in meshes.MESHES if name != "1"]
report = functools.cache(lambda name: meshes.run(**meshes.MESHES[name]))


def state_bytes(fsdp: int = 1, tensor: int = 1, **_) -> int:
    """What a device should hold, by hand: parameters and two moments in float32, a step and Adam's count in int32."""
    V, D, F, depth = 260, 32, 96, 2  # and H K = D
    matrices = 2 * V * D + depth * (4 * D * D + 3 * D * F)
    gains = (2 * depth + 1) * D
    return 3 * 4 * (matrices // (fsdp * tensor) + gains) + 2 * 4


@pytest.mark.parametrize("name", SPREAD)
def test_meshes_give_equal_losses(name):
    # fails when a gradient is not summed over devices, or a device sees other rows or parameters
    alone = report("1").losses
    assert alone[-1] < alone[0] - 1
    np.testing.assert_allclose(report(name).losses, alone, rtol=0, atol=1e-5)
    assert int(report(name).state.step) == meshes.STEPS


def test_accumulation_on_a_mesh_changes_nothing():
    # fails when micro-batches are cut so that devices repeat rows
    spread = meshes.run(data=2, fsdp=2, tensor=2, micro_batches=2)
    np.testing.assert_allclose(spread.losses, report("1").losses, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", meshes.MESHES)
def test_every_device_holds_its_share_of_the_state_and_no_more(name):
    # fails when parameters or moments are copied where they should be split: at the start, in the compiled program, after it
    r, expected = report(name), state_bytes(**meshes.MESHES[name])
    devices = int(np.prod(list(meshes.MESHES[name].values()), dtype=int))
    for held in (r.held_first, r.held):
        assert held == dict.fromkeys(range(devices), expected)
    rows = meshes.batch(0).nbytes // (devices // meshes.MESHES[name].get("tensor", 1))
    assert r.compiled.memory_analysis().argument_size_in_bytes == expected + rows + 4


@pytest.mark.parametrize("name", meshes.MESHES)
def test_the_whole_state_is_donated(name):
    # fails when a step keeps the old state beside the new one: memory doubles.  (That XLA could not use a donated buffer is
    # only a warning; pyproject.toml makes it an error in every test.)
    r = report(name)
    assert r.compiled.memory_analysis().alias_size_in_bytes == state_bytes(**meshes.MESHES[name])
    before = r.programs.init(step.named_key(0, "init"))
    after, _ = r.compiled(before, meshes.batch(0), np.float32(0.01))
    assert all(x.is_deleted() for x in jax.tree.leaves(before))
    assert not any(x.is_deleted() for x in jax.tree.leaves(after))


def test_a_donation_that_cannot_be_used_is_an_error():
    # fails when the filter in pyproject.toml no longer fits the words of the warning
    with pytest.raises(UserWarning, match="donated buffers were not usable"):
        jax.jit(lambda x: x[:2] + 1, donate_argnums=0)(jax.numpy.ones(8))


@pytest.mark.parametrize("name", SPREAD)
def test_only_what_must_travels_between_devices(name):
    # fails when the optimizer's state is gathered, parameters are gathered where only rows are split, a whole stack of layers
    # is gathered at once, or activations are
    found, axes = report(name).collectives, meshes.MESHES[name]
    n_bytes = sum(x.nbytes for x in jax.tree.leaves(report("1").first.params))
    gathered = [c for c in found if c.kind == "all-gather"]
    assert all("Transformer" in c.source for c in gathered), "gathered outside of the model's forward and backward pass"
    ways = axes.get("tensor", 1)
    if axes.get("fsdp", 1) == 1:
        assert not gathered
    else:  # each layer's matrices in both passes, and the token ids of the batch
        largest = 260 * 32 * 4 // ways
        assert max(c.bytes for c in gathered) <= largest
        assert sum(c.bytes for c in gathered) <= 2 * n_bytes // ways + meshes.batch(0).nbytes
    reduced = sum(c.bytes for c in found if c.kind == "all-reduce")
    if axes == {"data": 8}:
        assert reduced == n_bytes + 4  # gradients and the loss, once


def test_initial_parameters_are_the_same_to_the_bit_on_every_mesh():
    # fails when a mesh draws its own numbers
    for name in SPREAD:
        assert tiny.max_difference(report(name).first, report("1").first) == 0


def test_a_small_model_is_not_drawn_whole_on_every_device(capfd):
    # fails when XLA is left to split a flat draw, which it does by replicating: it says so where it really compiles
    resolved, key = meshes.settings(fsdp=8), step.named_key(0, "init")
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # which remembers that it was enabled
    try:
        programs = step.make_programs(resolved, partition.make_mesh(resolved.machine))
        programs.init(key)
        assert "rematerialization" not in capfd.readouterr().err
        shardings = jax.tree.map(lambda x: x.sharding, programs.abstract_state.params)
        jax.jit(functools.partial(model.init, resolved.model), out_shardings=shardings).lower(key).compile()
        assert "rematerialization" in capfd.readouterr().err
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


def test_a_large_model_is_drawn_in_shares(monkeypatch):
    # fails when the draw of a large model is made on one device and copied, or depends on the mesh.  Few leaves: each draw
    # takes most of a second to compile
    monkeypatch.setattr(model, "FLAT_DRAW", 0)
    monkeypatch.setattr(jax, "device_get", lambda _: pytest.fail("drawn whole"))
    few = {"activation": "gelu", "tied_head": True, "depth": 1, "width": 64, "heads": 8, "kv_heads": 8}
    drawn = []
    for ways in (1, 8):
        c = meshes.settings(few, fsdp=ways)
        drawn.append(step.make_programs(c, partition.make_mesh(c.machine)).init(step.named_key(0, "init")).params)
    assert tiny.max_difference(*drawn) == 0
    whole = sum(x.nbytes for x in jax.tree.leaves(drawn[0]))
    assert max(meshes.bytes_on_devices(drawn[1]).values()) < whole / 8 * 1.1


def test_checkpoints_move_between_any_two_meshes(tmp_path):
    # fails when a checkpoint can be read on the mesh that wrote it alone, or a restored array lies elsewhere than it should
    for name in meshes.MESHES:
        checkpoints = Checkpoints(tmp_path / name)
        checkpoints.save(meshes.STEPS, report(name).state, {"mesh": name})
        checkpoints.close()
    for source, target in itertools.product(meshes.MESHES, meshes.MESHES):
        there = report(target)
        reader = Checkpoints(tmp_path / source, read_only=True)
        state, meta = reader.restore(meshes.STEPS, there.programs.abstract_state)
        assert meta == {"mesh": source}
        assert tiny.max_difference(state, report(source).state) == 0, (source, target)
        assert meshes.bytes_on_devices(state) == there.held, (source, target)
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(there.state), strict=True):
            assert x.sharding == y.sharding and x.dtype == y.dtype
        _, metrics = there.compiled(state, meshes.batch(0), np.float32(0.01))
        assert np.isfinite(float(metrics.loss))


def test_the_table_in_the_docs_is_what_the_command_prints():
    # fails when a mesh's bytes change, or a mesh is added, and docs/meshes.md still says what was
    text = (REPO / "docs/meshes.md").read_text()
    table = re.findall(r"^\| ([^|]+) \| ([\d.e+-]+) \| ([\d,]+) \| ([\d.]+) \| (\d+%) \| .* \|$", text, re.M)
    assert [name for name, *_ in table] == list(meshes.MESHES)
    for name, difference, held, _, donated in table:
        assert float(difference) < 1e-5 and donated == "100%"
        assert int(held.replace(",", "")) == state_bytes(**meshes.MESHES[name]), name
