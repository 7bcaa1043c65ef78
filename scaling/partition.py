"""Meshes and shardings: axes data, fsdp, tensor; logical axes of parameters and activations mapped to them by one table."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling import model, parameterization, units
from scaling.config import ConfigError, MachineConfig

AXES = ("data", "fsdp", "tensor")
LOGICAL = {"embed": "fsdp", "vocab": "tensor", "heads": "tensor", "kv_heads": "tensor", "ff": "tensor"}
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(machine: MachineConfig, windows: int | None = None) -> Mesh:
    """The mesh that ``machine`` asks for over the first devices.

    Axes are Auto: Explicit, the default of newer JAX, would turn sharding constraints into assertions.

    Args:
      machine: 0 on one axis takes what the others leave, on the data axis no more than the batch can use.
      windows: of a batch; None where none is to be split.

    Raises:
      ConfigError: when there are too few devices, or the batch does not split over them.
    """
    shape = [getattr(machine, axis) for axis in AXES]
    devices = jax.devices()
    if shape.count(0) == 1:
        rest = int(np.prod([s for s in shape if s]))
        free = max(1, len(devices) // rest)
        if shape[0] == 0 and windows is not None:
            free = math.gcd(free, max(1, windows // (shape[1] * machine.micro_batches)))
        shape[shape.index(0)] = free
    if windows is not None:
        resolved = dataclasses.replace(machine, **dict(zip(AXES, shape, strict=True)))
        try:
            units.check_split(windows, resolved, f"a batch of {windows} windows")
        except ValueError as error:
            raise ConfigError([str(error)]) from None
    n = int(np.prod(shape))
    if n < 1 or n > len(devices):
        raise ConfigError([f"machine.data, fsdp, tensor = {shape}: needs {n} devices, there are {len(devices)}; lower an axis"])
    return Mesh(np.array(devices[:n]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def param_spec(path: tuple[Any, ...], leaf: Any, mesh: Mesh) -> PartitionSpec:
    """How one parameter (or its optimizer moment, whose path ends alike) is split.

    Raises:
      ConfigError: when an axis of the mesh does not divide the dimension that it splits.
    """
    axes: tuple[str | None, ...] = ()
    if leaf.ndim:
        axes = parameterization.PARAMETERS[model.param_name(path)][1]
        axes = (None,) * (leaf.ndim - len(axes)) + axes
    spec = [LOGICAL.get(a) if a else None for a in axes]
    for size, axis in zip(leaf.shape, spec, strict=True):
        if axis and size % mesh.shape[axis]:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ConfigError(
                [f"machine.{axis}={mesh.shape[axis]}: does not divide {name} {leaf.shape}; choose a divisor of {size}"]
            )
    return PartitionSpec(*spec)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """A tree of ``NamedSharding`` for a state of abstract or real arrays."""

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, param_spec(path, leaf, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp."""
    return NamedSharding(mesh, BATCH)


def constrain_activations(mesh: Mesh) -> model.Constrain:
    """Pins the leading axis of an activation to the batch axes of ``mesh``."""
    if mesh.size == 1:
        return lambda x: x
    sharding = batch_sharding(mesh)
    return lambda x: jax.lax.with_sharding_constraint(x, sharding)
