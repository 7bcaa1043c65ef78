"""What a member of the default ladder costs besides its steps: start-up, input pipeline, checkpoints, memory.

    python benchmarks/overheads.py               # about 2 minutes; needs the token store tokens/apidocs (scaling.corpus --demo)

Start-up is from process start to the first step done, in a process of its own, pinned to one core, with the launcher's
allocator setting: once with an empty compilation cache and once with the cache that this left.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time


def train(size: str, run_dir: pathlib.Path, cache: pathlib.Path, store: str) -> tuple[dict, dict]:
    """A run of 40 steps as the launcher would start it; its attempt and done.json."""
    from scaling.launch.local import LocalBackend

    command = [sys.executable, "-m", "scaling.train", "--config", "ladder.py", f"--config.model.size={size}"]
    command += ["--config.budget=40 steps", f"--config.data.store={pathlib.Path(store).absolute()}"]
    command += [f"--config.run_dir={run_dir}", f"--config.machine.compile_cache={cache}"]
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    subprocess.run(command, env=os.environ | LocalBackend().environment(), preexec_fn=pin, check=True, capture_output=True)
    return json.loads((run_dir / "attempts/000.json").read_text()), json.loads((run_dir / "done.json").read_text())


def pipeline_and_checkpoints(size: str, store_path: str, folder: pathlib.Path) -> None:
    """CPU milliseconds of a batch and of a step, and how long a checkpoint stops the loop."""
    import numpy as np

    from scaling import checkpoint, config, data, partition, plan, step, store, sweep

    tree, _ = sweep.load_config("ladder.py", {"model.size": size, "budget": "10000 steps", "data.store": store_path})
    resolved = config.resolve(tree)
    opened, planned = store.open_store(store_path), plan.make_plan(resolved)
    context, rows = resolved.model.context, planned.batch_windows
    programs = step.make_programs(resolved, partition.make_mesh(resolved.machine))
    compiled = step.compile_train(programs, planned, context)
    state = programs.init(step.named_key(0, "init"))
    stream = data.Stream.open(opened, context, 0)
    batches, n = data.loader(stream, rows), min(500, stream.budget_windows // rows - 1)
    next(batches)

    before = time.process_time()
    for _ in range(n):
        windows = next(batches)
    loading = (time.process_time() - before) / n
    steps = []
    for _ in range(60):
        before = time.process_time()
        state, metrics = compiled(state, windows, np.float32(1e-3))
        metrics.loss.block_until_ready()
        steps.append(time.process_time() - before)
    stepping = statistics.median(steps)
    print(f"{size}: a batch takes {1e3 * loading:.2f} ms of CPU, a step {1e3 * stepping:.1f} ms: {loading / stepping:.1%}")

    checkpoints, pauses = checkpoint.Checkpoints(folder), []
    for i in range(12):
        state, metrics = compiled(state, windows, np.float32(1e-3))
        metrics.loss.block_until_ready()
        before = time.perf_counter()
        checkpoints.save(i + 1, state, {})
        pauses.append(time.perf_counter() - before)
        checkpoints.wait()
    checkpoints.close()
    first, rest = pauses[0], sorted(pauses[1:])
    median, most = 1e3 * rest[len(rest) // 2], 1e3 * rest[-1]
    print(f"{size}: a checkpoint stops the loop for {median:.0f} ms (median), {most:.0f} at most; the first {1e3 * first:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["50K", "600K"], help="of the dial (default: the ladder's ends)")
    parser.add_argument("--store", default="tokens/apidocs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for size in args.sizes:  # all children before this process imports jax: forking with its threads is unsafe
            for kind in ("cold", "warm"):
                attempt, done = train(size, folder / f"{size}-{kind}", folder / f"cache-{size}", args.store)
                seconds = " ".join(f"{k} {v:.2f}" for k, v in attempt["seconds"].items() if k in ("compile", "restore", "idle"))
                print(
                    f"{size}: first step after {attempt['first_step_after']:.2f} s with a {kind} cache ({seconds})", flush=True
                )
            print(f"{size}: peak memory {done['peak_memory_bytes'] / 2**20:.0f} MB", flush=True)
        for size in args.sizes:
            pipeline_and_checkpoints(size, args.store, folder / f"checkpoints-{size}")


if __name__ == "__main__":
    main()
