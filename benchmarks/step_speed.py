"""Tokens per CPU-second of our training step beside PyTorch GPTs, and the matmul rate of the machine, in one run.

    python benchmarks/step_speed.py                       # about 15 minutes on a quiet machine; needs torch and transformers
    python benchmarks/step_speed.py --sizes 100K --rounds 1

Same width, depth, heads, context, batch, byte vocabulary, float32, AdamW and clipping; every contender in a process of its
own, pinned to one core, with the launcher's allocator setting, in turns; the median over the rounds.

ours      the default architecture (RMSNorm, rotary, SwiGLU, untied head), the step that scaling.train compiles
ours-gpt2 the same step with GPT-2's architecture: that of both peers
plain     ours without the CPU forms of scaling/fast.py
nanoGPT   a plain PyTorch GPT in nanoGPT's manner: fused q/k/v, scaled_dot_product_attention, eager
HF GPT-2  transformers' GPT2LMHeadModel, eager
roofline  products of 1024 x 1024 in float32 by XLA or by PyTorch, whichever is faster

The share of the roofline counts the FLOPs of matrix products with attention over all keys, as the peers compute and
performance figures usually count; our causal blocks skip a part of them.  On CPUs with bfloat16 units a row with bfloat16
products accumulated in float32 stands beside: another precision, not another speed of the same thing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIZES = {"100K": (64, 2, 2), "300K": (96, 3, 3), "1M": (128, 5, 4), "3M": (256, 4, 4), "10M": (384, 6, 6)}  # D, depth, heads
CONTEXT, ROWS, VOCAB = 256, 16, 260
GPT2 = {
    "norm": "layernorm",
    "norm_bias": True,
    "positions": "learned",
    "activation": "gelu",
    "bias": True,
    "tied_head": True,
}
MODELS = {"ours": {}, "ours-gpt2": GPT2, "plain": {}, "ours-bf16": {"dtype": "bfloat16"}}
PEERS = ("nanoGPT", "HF GPT-2")
ROOFLINES = ("matmul XLA", "matmul torch")


def settings(size: str, model: dict[str, Any], micro_batches: int = 0) -> Any:
    """The training config of one size with the fields in ``model``."""
    from scaling import config

    width, depth, heads = SIZES[size]
    tree = config.default_dict()
    tree["model"] |= {"width": width, "depth": depth, "heads": heads, "context": CONTEXT} | model
    tree["machine"] |= {"micro_batches": micro_batches}
    return config.resolve(tree | {"batch": f"{ROWS * CONTEXT} tokens"})


def cost_of(size: str, model: dict[str, Any]) -> float:
    """FLOPs per token of matrix products, with attention over all keys."""
    from scaling import flops

    return flops.flops_per_token(settings(size, model).model)["matmul_full"]


def windows() -> np.ndarray:
    """One batch of random bytes (ROWS, CONTEXT + 1); the work does not depend on what they say."""
    return np.random.default_rng(0).integers(4, VOCAB, (ROWS, CONTEXT + 1)).astype(np.int32)


def ours(contender: str, size: str, seconds: float, micro_batches: int) -> dict[str, float]:
    """Our step, as scaling.train compiles it."""
    import jax

    from scaling import fast, flops, model, partition, plan, step

    resolved = settings(size, MODELS[contender], micro_batches)
    if contender == "plain":
        fast.CPU = model.PLAIN
    programs = step.make_programs(resolved, partition.make_mesh(resolved.machine))
    compiled = step.compile_train(programs, plan.make_plan(resolved), CONTEXT)
    state, batch, lr = programs.init(jax.random.key(0)), windows(), np.float32(1e-3)

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, batch, lr)
        metrics.loss.block_until_ready()

    n_params = flops.n_params(resolved.model)["non_embedding"]
    return {"rate": rate(run, seconds), "n_params": n_params, "flops_per_token": cost_of(size, MODELS[contender])}


def peer(contender: str, size: str, seconds: float) -> dict[str, float]:
    """A PyTorch GPT with its AdamW and clipping, eager, as a training script runs it."""
    import torch
    import torch_gpt

    torch.set_num_threads(1)
    width, depth, heads = SIZES[size]
    if contender == "nanoGPT":
        network = torch_gpt.Gpt(width=width, depth=depth, heads=heads, context=CONTEXT, vocab=VOCAB)
        blocks = network.blocks
    else:
        import transformers

        shape = {"n_embd": width, "n_layer": depth, "n_head": heads, "n_positions": CONTEXT, "vocab_size": VOCAB}
        plain = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
        network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **plain))
        blocks = network.transformer.h
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    batch = torch.tensor(windows(), dtype=torch.long)

    def loss_of(batch: Any) -> Any:
        if contender == "nanoGPT":
            return network(batch)
        logits = network(batch[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1))

    def run() -> None:
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        loss.item()

    n_params = sum(p.numel() for p in blocks.parameters())
    return {"rate": rate(run, seconds), "n_params": n_params, "flops_per_token": cost_of(size, GPT2)}


def matmul(contender: str, seconds: float) -> dict[str, float]:
    """float32 products of 1024 x 1024: FLOP per CPU-second."""
    if contender == "matmul XLA":
        import jax
        import jax.numpy as jnp

        x, multiply = jnp.ones((1024, 1024)), jax.jit(jnp.matmul)
        run: Callable[[], object] = lambda: multiply(x, x).block_until_ready()  # noqa: E731
    else:
        import torch

        torch.set_num_threads(1)
        y = torch.ones(1024, 1024)
        run = lambda: y @ y  # noqa: E731
    return {"rate": rate(run, seconds) / (ROWS * CONTEXT) * 2 * 1024**3}


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


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    info = pathlib.Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def child(contender: str, size: str, seconds: float, micro_batches: int) -> dict[str, float]:
    if contender in MODELS:
        return ours(contender, size, seconds, micro_batches)
    return peer(contender, size, seconds) if contender in PEERS else matmul(contender, seconds)


def measure(contender: str, size: str, args: argparse.Namespace) -> dict[str, float]:
    """Runs one contender in a fresh pinned process."""
    from scaling.launch.local import LocalBackend

    command = [sys.executable, __file__, "--child", contender, "--sizes", size]
    command += ["--seconds", str(args.seconds), "--micro-batches", str(args.micro_batches)]
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    env = os.environ | ({} if args.system_allocator else LocalBackend().environment())
    done = subprocess.run(command, env=env, preexec_fn=pin, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{contender} at {size} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def report(size: str, args: argparse.Namespace) -> None:
    """Measures the contenders at one size and prints their rows."""
    rounds = [{name: measure(name, size, args) for name in (*args.contenders, *ROOFLINES)} for _ in range(args.rounds)]
    speed = {name: statistics.median(r[name]["rate"] for r in rounds) for name in rounds[0]}
    roofline = max(speed[name] for name in ROOFLINES)
    peers = [p for p in PEERS if p in args.contenders]
    print(
        f"\n{size}: D, depth, heads = {SIZES[size]}; roofline {roofline / 1e9:.0f} GFLOP/s by {max(ROOFLINES, key=speed.get)}"
    )
    heads = "".join(f"{'/ ' + p:>11}" for p in peers)
    print(f"{'':>10} {'N':>10} {'tokens/CPU-s':>13} {heads} {'of roofline':>12}")
    for name in args.contenders:
        first = rounds[0][name]
        ratios = "".join(f"{speed[name] / speed[p]:>11.2f}" for p in peers)
        share = speed[name] * first["flops_per_token"] / roofline
        print(f"{name:>10} {first['n_params']:>10,} {speed[name]:>13,.0f} {ratios} {share:>12.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of steps for each contender and round")
    parser.add_argument("--micro-batches", type=int, default=0, help="of our step (default: as its rule has it, 4 here)")
    parser.add_argument("--system-allocator", action="store_true", help="leave the allocator as the system has it")
    able = [c for c in (*MODELS, *PEERS) if c != "ours-bf16" or has_bfloat16()]
    parser.add_argument("--contenders", nargs="+", choices=able, default=able, metavar="NAME", help=f"of {', '.join(able)}")
    parser.add_argument("--child", choices=[*MODELS, *PEERS, *ROOFLINES], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.sizes[0], args.seconds, args.micro_batches)))
        return
    print(f"tokens per CPU-second, one core, float32, T={CONTEXT}, {ROWS} windows, median of {args.rounds}", flush=True)
    if not has_bfloat16():
        print("this CPU has no bfloat16 units: no row for bfloat16 products")
    for size in args.sizes:
        report(size, args)


if __name__ == "__main__":
    main()
