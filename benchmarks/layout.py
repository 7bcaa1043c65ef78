"""Members on pinned cores of their own against one process with all cores: tokens per second, all members together.

    python benchmarks/layout.py                  # about 5 minutes; the machine should be quiet
    python benchmarks/layout.py --sizes 50K --rounds 1

The rungs are those of configs/ladder.py with its batch and context.  The launcher's local backend puts one member on each core,
the faster layout wherever this was measured (docs/performance.md).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

SIZES = ("50K", "110K", "310K", "1M", "3M")


def child(size: str, seconds: float) -> None:
    """Compiles a member's step, says so, waits for a line, steps for ``seconds`` and prints tokens per second."""
    import jax

    from scaling import partition, plan, step, sweep
    from scaling.config import resolve

    config, _ = sweep.load_config("ladder.py")
    tree = config.to_dict()
    tree.pop("sweep")
    tree["model"]["size"] = size
    resolved = resolve(tree)
    programs = step.make_programs(resolved, partition.make_mesh(resolved.machine))
    the_plan, context = plan.make_plan(resolved), resolved.model.context
    compiled = step.compile_train(programs, the_plan, context)
    state, lr = programs.init(jax.random.key(0)), np.float32(1e-3)
    batch = np.random.default_rng(0).integers(4, 260, (the_plan.batch_windows, context + 1)).astype(np.int32)
    for _ in range(3):
        state, metrics = compiled(state, batch, lr)
    metrics.loss.block_until_ready()
    print("ready", flush=True)
    sys.stdin.readline()
    started, steps = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        state, metrics = compiled(state, batch, lr)
        metrics.loss.block_until_ready()
        steps += 1
    print(json.dumps(steps * batch.shape[0] * context / (time.monotonic() - started)), flush=True)


def together(size: str, cores_of: list[set[int]], seconds: float) -> float:
    """Processes that start stepping at one moment, each on its cores: their tokens per second added up."""
    from scaling.launch.local import LocalBackend

    command = [sys.executable, __file__, "--child", "--sizes", size, "--seconds", str(seconds)]
    env = os.environ | LocalBackend().environment()
    with contextlib.ExitStack() as stack:
        workers = []
        for cores in cores_of:
            pin = lambda cores=cores: os.sched_setaffinity(0, cores)  # noqa: E731
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            workers.append(stack.enter_context(subprocess.Popen(command, env=env, preexec_fn=pin, **pipes)))
        for worker in workers:
            if worker.stdout.readline().strip() != "ready":
                sys.exit(f"a member of {size} did not start: see its words above")
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return sum(json.loads(worker.stdout.readline()) for worker in workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="of the dial, as in a sweep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of steps in each round")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.sizes[0], args.seconds)
        return
    if not hasattr(os, "sched_getaffinity"):
        sys.exit("this system cannot pin processes to cores: there is one layout only")
    cores = sorted(os.sched_getaffinity(0))
    print(f"tokens per second on {len(cores)} cores, median of {args.rounds} (smallest to largest)")
    print(f"{'size':>5} {'a member a core':>28} {'one member on all cores':>28} {'ratio':>6}")
    for size in args.sizes:
        layouts = {"pinned": [{c} for c in cores], "one": [set(cores)]}
        rounds = [{name: together(size, of, args.seconds) for name, of in layouts.items()} for _ in range(args.rounds)]
        middle = {name: statistics.median(r[name] for r in rounds) for name in layouts}

        def cell(name: str, rounds: list[dict[str, float]] = rounds, middle: dict[str, float] = middle) -> str:
            values = [r[name] for r in rounds]
            return f"{middle[name]:,.0f} ({min(values):,.0f}-{max(values):,.0f})"

        print(f"{size:>5} {cell('pinned'):>28} {cell('one'):>28} {middle['pinned'] / middle['one']:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
