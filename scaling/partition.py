"""Meshes and shardings: axes data, fsdp, tensor; logical axes of parameters and activations mapped to them by one table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling import model, parameterization, units
from scaling.config import ConfigError, MachineConfig

AXES = ("data", "fsdp", "tensor")
# Logical axis of a parameter -> (axis of the mesh that splits it, field of ModelConfig that is its size).
LOGICAL = {
    "embed": ("fsdp", "width"),
    "vocab": ("tensor", "vocab_size"),
    "heads": ("tensor", "heads"),
    "kv_heads": ("tensor", "kv_heads"),
    "ff": ("tensor", "ff"),
}
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(machine: MachineConfig, windows: int | None = None) -> Mesh:
    """The mesh that ``machine`` asks for over the first devices.

    Axes are Auto: Explicit, the default of newer JAX, would turn sharding constraints into assertions.

    Args:
      machine: 0 on one axis takes what the others leave, on the data axis no more than the batch can use.
      windows: of a batch; None where none is to be split.

    Raises:
      ConfigError: when there are too few devices, a process has none of them, or the batch does not split over them.
    """
    shape = [getattr(machine, axis) for axis in AXES]
    devices = jax.devices()
    if shape.count(0):
        rest = int(np.prod([s for s in shape if s]))
        free = max(1, len(devices) // rest)
        if shape[0] == 0 and windows is not None:
            free = math.gcd(free, max(1, windows // (shape[1] * max(1, machine.micro_batches))))
        shape[shape.index(0)] = free
    if windows is not None:
        resolved = dataclasses.replace(machine, **dict(zip(AXES, shape, strict=True)))
        try:
            units.check_split(windows, resolved, f"a batch of {windows} windows")
        except ValueError as error:
            raise ConfigError([str(error)]) from None
    n = int(np.prod(shape))
    asked = f"machine.data, fsdp, tensor = {shape}"
    if n < 1 or n > len(devices):
        raise ConfigError([f"{asked}: needs {n} devices, there are {len(devices)}; lower an axis"])
    idle = sorted({d.process_index for d in devices} - {d.process_index for d in devices[:n]})
    if idle:
        few = f"{n} of {len(devices)} devices leave process {idle[0]} without one"
        raise ConfigError([f"{asked}: {few}; raise an axis, or start fewer processes"])
    return Mesh(np.array(devices[:n]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def param_spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
    """How one parameter (or its optimizer moment, whose path ends alike) is split over the axes of a mesh."""
    return PartitionSpec(*(LOGICAL[a][0] if a else None for a in _logical(path, leaf)))


def _logical(path: tuple[Any, ...], leaf: Any) -> tuple[str | None, ...]:
    """The logical axis of every dimension of ``leaf``; layers are stacked on dimensions before those of the table."""
    if not leaf.ndim:
        return ()
    axes = parameterization.PARAMETERS[model.param_name(path)][1]
    axes = tuple(a if a in LOGICAL else None for a in axes)
    return (None,) * (leaf.ndim - len(axes)) + axes


def shardings(tree: Any, mesh: Mesh) -> Any:
    """A tree of ``NamedSharding`` for a state of abstract or real arrays.

    Raises:
      ConfigError: when an axis of the mesh does not divide what it splits, naming every such pair of fields.
    """
    problems: dict[str, None] = {}

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        for logical, size in zip(_logical(path, leaf), leaf.shape, strict=True):
            if logical is None:
                continue
            axis, field = LOGICAL[logical]
            ways = mesh.shape[axis]
            if size % ways:
                remedy = f"set machine.{axis} to a divisor of {size}, or model.{field} to a multiple of {ways}"
                problems[f"machine.{axis}={ways}: does not divide model.{field}={size}; {remedy}"] = None
        return NamedSharding(mesh, param_spec(path, leaf))

    out = jax.tree_util.tree_map_with_path(of, tree)
    if problems:
        raise ConfigError(list(problems))
    return out


def process_block(mesh: Mesh) -> tuple[int, int]:
    """(i, n): this process holds the i-th of n equal blocks of the rows of a batch.

    Processes that share rows, because the tensor axis spans them, hold the same block.

    Raises:
      ConfigError: when the rows of this process are no such block.
    """
    owners = np.array([[d.process_index for d in row] for row in mesh.devices.reshape(-1, mesh.shape["tensor"])])
    block = block_of(owners, jax.process_index())
    if block is None:
        asked = f"machine.data, fsdp, tensor = {[mesh.shape[axis] for axis in AXES]}"
        uneven = f"lies unevenly over {jax.process_count()} processes"
        raise ConfigError([f"{asked}: {uneven}; use every device of each"])
    return block


def block_of(owners: np.ndarray, process: int) -> tuple[int, int] | None:
    """``process_block`` by the processes that own the devices, ``owners`` (rows, tensor); None where it is no equal block."""
    mine = np.flatnonzero((owners == process).any(axis=1))
    start, length = mine[0], len(mine)
    if mine[-1] != start + length - 1 or start % length or len(owners) % length:
        return None
    return int(start // length), len(owners) // length


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp."""
    return NamedSharding(mesh, BATCH)


def constrain_activations(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Pins the leading axis of an activation to the batch axes of ``mesh``."""
    if mesh.size == 1:
        return lambda x: x
    sharding = batch_sharding(mesh)
    return lambda x: jax.lax.with_sharding_constraint(x, sharding)
