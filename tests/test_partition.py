"""Meshes over eight virtual devices."""

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from scaling import config, partition, step


def machine(**axes) -> config.MachineConfig:
    return config.MachineConfig(**axes)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({}, (1, 1, 1)),
        ({"data": 8}, (8, 1, 1)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
        ({"data": 0}, (8, 1, 1)),
        ({"data": 0, "fsdp": 4}, (2, 4, 1)),
        ({"fsdp": 0, "tensor": 2}, (1, 4, 2)),
    ],
)
def test_mesh_shapes(axes, shape):
    # fails when an axis is lost or 0 does not take the devices that are left
    mesh = partition.make_mesh(machine(**axes))
    assert tuple(mesh.shape[a] for a in partition.AXES) == shape
    assert {t.name for t in mesh.axis_types} == {"Auto"}


@pytest.mark.parametrize("axes", [{"data": 16}, {"data": 4, "tensor": 4}, {"data": 0, "fsdp": 16}])
def test_a_mesh_of_more_devices_than_there_are_is_refused(axes):
    # fails when jax's own error, or a smaller mesh in silence, takes the place of the message
    with pytest.raises(config.ConfigError, match=r"machine\.data, fsdp, tensor = .*needs \d+ devices, there are 8"):
        partition.make_mesh(machine(**axes))


@pytest.mark.parametrize(("fsdp", "windows", "ways"), [(1, 6, 2), (2, 4, 2), (1, 7, 1)])
def test_the_data_axis_takes_no_more_than_the_batch_can_use(fsdp, windows, ways):
    # fails when an axis of 0 takes devices that have no window to train on
    assert partition.make_mesh(machine(data=0, fsdp=fsdp), windows).shape["data"] == ways


MODEL = {"model_width": 32, "model_heads": 8, "model_kv_heads": 8, "model_head_size": 4, "model_ff": 88}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"machine_fsdp": 8, "model_width": 20, "model_heads": 5, "model_kv_heads": 5},
            ["machine.fsdp=8: does not divide model.width=20; set machine.fsdp to a divisor of 20, or model.width to"],
        ),
        ({"machine_tensor": 4, "model_kv_heads": 2}, ["machine.tensor=4: does not divide model.kv_heads=2;"]),
        (
            {"machine_tensor": 4, "model_heads": 2, "model_kv_heads": 2, "model_head_size": 16, "model_ff": 90},
            [f"machine.tensor=4: does not divide model.{f}" for f in ("heads=2", "kv_heads=2", "ff=90")],
        ),
        ({"machine_tensor": 8}, ["machine.tensor=8: does not divide model.vocab_size=260;"]),
    ],
)
def test_a_mesh_that_does_not_divide_the_model_is_refused(fields, said):
    # fails when XLA pads in silence, when its error names no field, or when only the first of several problems is told
    c = tiny.train_config(**MODEL | fields)
    with pytest.raises(config.ConfigError) as caught:
        step.make_programs(c, partition.make_mesh(c.machine))
    assert len(caught.value.problems) == len(said)
    for part in said:
        assert part in str(caught.value)


def test_a_batch_that_the_real_mesh_cannot_split_is_refused():
    # fails when an axis of 0, whose size is known only on the machine, escapes the check of the batch
    with pytest.raises(config.ConfigError, match=r"6 windows.*8.*does not divide"):
        partition.make_mesh(machine(fsdp=0), 6)


def test_every_parameter_and_moment_is_split_by_the_table():
    # fails when a moment is split otherwise than its parameter, or an axis of the table is ignored
    c = tiny.train_config(machine_data=2, machine_fsdp=2, machine_tensor=2, model_kv_heads=2)
    state = step.make_programs(c, partition.make_mesh(c.machine)).abstract_state
    specs = {name: x.sharding.spec for name, x in tiny.by_path(state).items()}
    expected = {
        "embedding": PartitionSpec("tensor", "fsdp"),
        "blocks/attention/q": PartitionSpec(None, "fsdp", "tensor", None),
        "blocks/attention/k": PartitionSpec(None, "fsdp", "tensor", None),
        "blocks/attention/o": PartitionSpec(None, "tensor", None, "fsdp"),
        "blocks/mlp/gate": PartitionSpec(None, "fsdp", "tensor"),
        "blocks/mlp/down": PartitionSpec(None, "tensor", "fsdp"),
        "head": PartitionSpec("fsdp", "tensor"),
        "final_norm/gain": PartitionSpec(None),
    }
    for name, spec in expected.items():
        found = {n: s for n, s in specs.items() if n.endswith(f"/{name}")}
        assert len(found) == 3 and set(found.values()) == {spec}, (name, found)


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 4, "fsdp": 2}])
def test_rows_of_a_batch_lie_on_data_and_fsdp(axes):
    # fails when devices of the fsdp axis compute the same rows again
    mesh = partition.make_mesh(machine(**axes))
    batch = jax.device_put(tiny.tokens(16, 5, 10), partition.batch_sharding(mesh))
    assert {s.data.shape for s in batch.addressable_shards} == {(2, 5)}
    assert len({s.index[0].start for s in batch.addressable_shards}) == 8


@pytest.mark.parametrize(
    ("owners", "blocks"),
    [
        ([[0, 0], [0, 0], [1, 1], [1, 1]], [(0, 2), (1, 2)]),  # data or fsdp over processes: each loads its half
        ([[0, 0, 1, 1]], [(0, 1), (0, 1)]),  # tensor over processes: both load every row
        ([[0, 1], [0, 1], [2, 3], [2, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ([[0], [0], [0], [1]], [None, (3, 4)]),  # unequal
        ([[0], [1], [0], [1]], [None, None]),  # scattered
    ],
)
def test_a_process_loads_the_rows_of_its_devices(owners, blocks):
    # fails when a process of a tensor-parallel group loads other rows than its neighbours, or unequal shares pass
    assert [partition.block_of(np.array(owners), p) for p in range(len(blocks))] == blocks
