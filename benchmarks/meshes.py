"""What every mesh does with one small training run: losses, bytes on a device, donation and collectives.

    python benchmarks/meshes.py            # about a minute; 8 virtual CPU devices

One model and 20 steps on each mesh.  Bytes are those of parameters and optimizer state that the fullest device holds;
"donated" is the part of them whose memory the compiled step writes the new state into.  Collectives are read from the
compiled step as XLA made it for this machine, with the bytes of their results on one device; on CPU gradients are summed by
all-reduce where other backends use reduce-scatter.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import re
from typing import Any

import numpy as np

DEVICES, STEPS, LEARNING_RATE = 8, 20, 0.02
MESHES = {
    "1": {},
    "data 8": {"data": 8},
    "fsdp 8": {"fsdp": 8},
    "tensor 4 x data 2": {"tensor": 4, "data": 2},
    "fsdp 2 x tensor 4": {"fsdp": 2, "tensor": 4},
}
MODEL = {"depth": 2, "width": 32, "heads": 4, "kv_heads": 4, "head_size": 8, "ff": 96, "vocab_size": 260, "context": 16}
ROWS = 8
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s32": 4, "u32": 4, "f32": 4, "bf16": 2}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One operation between devices in a compiled program."""

    kind: str
    bytes: int  # of its result, on one device
    source: str  # the operation that it stands for, as JAX names it


@dataclasses.dataclass(frozen=True)
class Report:
    """One mesh: the run on it and what its compiled step says about itself."""

    programs: Any
    compiled: Any  # the training step
    first: Any  # params and optimizer state on the host, before the first step
    state: Any  # on the devices, after the last one
    losses: np.ndarray  # (STEPS,) nats per token
    held_first: dict[int, int]  # bytes of the state on each device, before the first step
    held: dict[int, int]  # and after the last one
    collectives: tuple[Collective, ...]


def batch(i: int) -> np.ndarray:
    """(ROWS, T + 1) int32 of step ``i``: a token is likely to be followed by the next, so that there is something to learn."""
    draw = np.random.default_rng(100 + i)
    return (np.cumsum(draw.integers(0, 3, (ROWS, MODEL["context"] + 1)), axis=1) % 65).astype(np.int32)


def bytes_on_devices(state: Any) -> dict[int, int]:
    """What each device really holds of a tree of arrays."""
    import jax

    held: collections.Counter[int] = collections.Counter()
    for leaf in jax.tree.leaves(state):
        for shard in leaf.addressable_shards:
            held[shard.device.id] += shard.data.nbytes
    return dict(held)


def collectives(program: str) -> tuple[Collective, ...]:
    """All operations between devices in the text of a compiled program."""
    found = []
    for result, kind, rest in re.findall(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\((.*)", program):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", result)
        size = sum(BYTES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n])) for dtype, shape in arrays)
        source = re.search(r'op_name="([^"]*)"', rest)
        found.append(Collective(kind, size, source[1] if source else ""))
    return tuple(found)


def settings(model: dict[str, Any] | None = None, **axes: int) -> Any:
    """The run's config on one mesh; ``model`` changes fields of the model."""
    from scaling import config

    tree = config.default_dict()
    tree["model"] |= MODEL | (model or {})
    tree["machine"] |= axes
    return config.resolve(tree | {"batch": f"{ROWS * MODEL['context']} tokens", "budget": f"{STEPS} steps"})


def run(model: dict[str, Any] | None = None, **axes: int) -> Report:
    """Trains on the mesh of ``axes``, by the programs that scaling.train uses."""
    import jax

    from scaling import partition, plan, step

    resolved = settings(model, **axes)
    programs = step.make_programs(resolved, partition.make_mesh(resolved.machine, ROWS))
    compiled = step.compile_train(programs, plan.make_plan(resolved), MODEL["context"])
    state = programs.init(step.named_key(0, "init"))
    first, held_first = jax.tree.map(lambda x: np.array(x, copy=True), state), bytes_on_devices(state)
    losses = []
    for i in range(STEPS):
        state, metrics = compiled(state, batch(i), np.float32(LEARNING_RATE))
        losses.append(float(metrics.loss))
    return Report(
        programs=programs,
        compiled=compiled,
        first=first,
        state=state,
        losses=np.array(losses),
        held_first=held_first,
        held=bytes_on_devices(state),
        collectives=collectives(compiled.as_text()),
    )


def row(name: str, report: Report, alone: Report) -> str:
    """One line of the table."""
    kinds: dict[str, list[int]] = {}
    for c in report.collectives:
        kinds.setdefault(c.kind, []).append(c.bytes)
    between = ", ".join(f"{len(sizes)} {kind} ({sum(sizes) / 1024:.0f} KB)" for kind, sizes in sorted(kinds.items()))
    held, whole = max(report.held.values()), max(alone.held.values())
    difference = np.abs(report.losses - alone.losses).max()
    donated = report.compiled.memory_analysis().alias_size_in_bytes / held
    return f"| {name} | {difference:.1e} | {held:,} | {held / whole:.3f} | {donated:.0%} | {between or 'none'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    print("| mesh | largest loss difference | state, bytes per device | of one device's | donated | collectives of a step |")
    print("|---|---|---|---|---|---|")
    alone = run()
    for name, axes in MESHES.items():
        print(row(name, run(**axes) if axes else alone, alone), flush=True)


if __name__ == "__main__":
    main()
