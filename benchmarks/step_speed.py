"""Tokens per CPU-second of our training step beside Hugging Face GPT-2, and the matmul rate of the machine, in one run.

    python benchmarks/step_speed.py              # about 4 minutes; needs torch and transformers
    python benchmarks/step_speed.py --sizes 100K --rounds 1

Same width, depth, heads, context, batch, byte vocabulary, float32 and AdamW; every contender in a process of its own, pinned
to one core, with the launcher's allocator setting, in turns; the median over the rounds.  Ours is the default architecture
(SwiGLU, rotary, RMSNorm), so parameter counts differ by a few per cent and are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

SIZES = {"100K": (64, 2, 2), "300K": (96, 3, 3), "1M": (128, 5, 4)}  # width, depth, heads
CONTEXT, ROWS, VOCAB = 256, 16, 260


def windows() -> np.ndarray:
    """One batch of random bytes (ROWS, CONTEXT + 1); the work does not depend on what they say."""
    return np.random.default_rng(0).integers(4, VOCAB, (ROWS, CONTEXT + 1)).astype(np.int32)


def ours(size: str, seconds: float) -> dict[str, float]:
    """Our step, as scaling.train compiles it."""
    import jax

    from scaling import config, flops, partition, plan, step

    width, depth, heads = SIZES[size]
    tree = config.default_dict()
    tree["model"] |= {"width": width, "depth": depth, "heads": heads, "context": CONTEXT}
    resolved = config.resolve(tree | {"batch": f"{ROWS * CONTEXT} tokens"})
    programs = step.make_programs(resolved, partition.make_mesh(resolved.machine))
    compiled = step.compile_train(programs, plan.make_plan(resolved), CONTEXT)
    state, batch, lr = programs.init(jax.random.key(0)), windows(), np.float32(1e-3)

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, batch, lr)
        metrics.loss.block_until_ready()

    counts, cost = flops.n_params(resolved.model), flops.flops_per_token(resolved.model)
    return {"rate": rate(run, seconds), "n_params": counts["non_embedding"], "flops_per_token": cost["matmul_full"]}


def hf_gpt2(size: str, seconds: float) -> dict[str, float]:
    """Hugging Face's GPT-2 with PyTorch's AdamW and clipping, eager, as a training script runs it."""
    import torch
    import transformers

    torch.set_num_threads(1)
    width, depth, heads = SIZES[size]
    shape = {"n_embd": width, "n_layer": depth, "n_head": heads, "n_positions": CONTEXT, "vocab_size": VOCAB}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    batch = torch.tensor(windows(), dtype=torch.long)

    def run() -> None:
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    n_params = sum(p.numel() for p in model.transformer.h.parameters())
    return {"rate": rate(run, seconds), "n_params": n_params}


def matmul(size: str, seconds: float) -> dict[str, float]:
    """float32 products of 1024 x 1024 by XLA, FLOP per CPU-second: the roofline."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((1024, 1024))
    multiply = jax.jit(jnp.matmul)
    return {"rate": rate(lambda: multiply(x, x).block_until_ready(), seconds) / (ROWS * CONTEXT) * 2 * 1024**3}


CONTENDERS = {"ours": ours, "hf_gpt2": hf_gpt2, "matmul": matmul}


def rate(run: Callable[[], object], seconds: float) -> float:
    """Batches' tokens per CPU-second of this process: the median call over ``seconds``, after a warm-up."""
    for _ in range(3):
        run()
    calls, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(calls) < 5:
        before = time.process_time()
        run()
        calls.append(time.process_time() - before)
    return ROWS * CONTEXT / statistics.median(calls)


def measure(contender: str, size: str, seconds: float) -> dict[str, float]:
    """Runs one contender in a fresh pinned process."""
    from scaling.launch.local import LocalBackend

    command = [sys.executable, __file__, "--child", contender, "--sizes", size, "--seconds", str(seconds)]
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    done = subprocess.run(
        command, env=os.environ | LocalBackend().environment(), preexec_fn=pin, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{contender} at {size} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of steps for each contender and round")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(CONTENDERS[args.child](args.sizes[0], args.seconds)))
        return
    print(f"tokens per CPU-second, one core, float32, T={CONTEXT}, {ROWS} windows, median of {args.rounds}", flush=True)
    print(f"{'size':>5} {'N ours':>8} {'N gpt2':>8} {'ours':>9} {'HF GPT-2':>9} {'ratio':>6} {'of matmul rate':>15}")
    for size in args.sizes:
        rounds = [{name: measure(name, size, args.seconds) for name in CONTENDERS} for _ in range(args.rounds)]
        median = {name: statistics.median(r[name]["rate"] for r in rounds) for name in CONTENDERS}
        first = rounds[0]
        share = median["ours"] * first["ours"]["flops_per_token"] / median["matmul"]
        print(
            f"{size:>5} {first['ours']['n_params']:>8,} {first['hf_gpt2']['n_params']:>8,} {median['ours']:>9,.0f} "
            f"{median['hf_gpt2']:>9,.0f} {median['ours'] / median['hf_gpt2']:>6.2f} {share:>14.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
