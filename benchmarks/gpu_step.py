"""Training steps on one GPU beside a PyTorch GPT of the same shape (scaled_dot_product_attention, torch.compile), in one call.

    python benchmarks/gpu_step.py                        # 125M and 350M at sequence 2048; needs one CUDA GPU, the extra cuda
                                                         # and a CUDA build of torch; about 20 minutes
    python benchmarks/gpu_step.py --sizes 125M --rounds 1 --contenders ours torch
    python benchmarks/gpu_step.py --toy                  # the same path at toy size on a CPU; its numbers mean nothing

Every contender trains GPT-2's shape (LayerNorm, learned positions, GELU, biases, tied head; parameters are counted and must
be equal) on the same windows: float32 parameters and AdamW moments, bfloat16 products, clipping at 1.  Each runs in a process
of its own, in turns; the median over the rounds.  ``ours`` is the step that scaling.train compiles; the other contenders
change one thing of it.  Rates are of a window of steps that ends in reading the last loss, after compilation and three more.

MFU is tokens/s x FLOPs per token / peak, FLOPs of matrix products by scaling.flops: "full" counts attention over all T keys,
as PaLM and nanoGPT do, "causal" over the visible half; the peak is the data sheet's dense bfloat16 rate.  "of GEMM" divides by
the rate that this GPU reaches on the matrix products of this step alone, forward and backward, measured in the same call.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
    """One decoder and its batch."""

    width: int
    depth: int
    heads: int
    context: int
    vocab: int
    rows: int  # windows per step

    @property
    def tokens(self) -> int:
        return self.rows * self.context

    def windows(self) -> np.ndarray:
        """One batch (rows, T + 1) int32, the same for all; the work does not depend on what it says."""
        return np.random.default_rng(0).integers(0, self.vocab, (self.rows, self.context + 1)).astype(np.int32)


# GPT-2's vocabulary of 50,257 is padded to a multiple of 128, as nanoGPT does.
SHAPES = {
    "125M": Shape(768, 12, 12, 2048, 50_304, 16),
    "350M": Shape(1024, 24, 16, 2048, 50_304, 8),
    "toy": Shape(32, 2, 2, 32, 260, 4),
}


def rate(shape: Shape, step: Callable[[], Any], read: Callable[[Any], float], seconds: float) -> dict[str, float]:
    """Tokens per second over a window of at least five steps, each loss read one step late as trainers do; and the loss of the
    third step, before the window.
    """
    for _ in range(3):
        loss = read(step())
    count, pending, started = 0, None, time.perf_counter()
    while count < 5 or time.perf_counter() - started < seconds:
        dispatched = step()
        if pending is not None:
            read(pending)
        pending, count = dispatched, count + 1
    read(pending)
    return {"tokens_per_second": count * shape.tokens / (time.perf_counter() - started), "loss": loss}


# ---------------------------------------------------------------------------------------------------------------- ours


@dataclasses.dataclass(frozen=True)
class Variant:
    """Our step with one thing changed."""

    model: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of the model's config
    linear: str = "platform"  # or 'plain'
    attention: str = "platform"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of XLA's compiler
    jax_options: dict[str, Any] = dataclasses.field(default_factory=dict)


MAY_ERR = 0.05  # of attention in bfloat16 against float32, relative to the largest value
VARIANTS = {
    "ours": Variant(),
    "plain attention": Variant(attention="plain"),
    "plain linear": Variant(linear="plain"),
    "scanned layers": Variant(model={"layers": "scan"}),
    "no Triton GEMM": Variant(options={"xla_gpu_enable_triton_gemm": False}),
    "no XLA remat pass": Variant(jax_options={"jax_compiler_enable_remat_pass": False}),
    "deterministic": Variant(options={"xla_gpu_deterministic_ops": True}),
}


def settings(shape: Shape, **model: Any) -> Any:
    """The run's config; ``model`` changes fields of the model."""
    from scaling import config

    tree = config.default_dict()
    tree["model"] |= {
        "width": shape.width, "depth": shape.depth, "heads": shape.heads, "kv_heads": shape.heads, "ff": 4 * shape.width,
        "context": shape.context, "vocab_size": shape.vocab, "dtype": "bfloat16", "norm": "layernorm", "norm_bias": True,
        "positions": "learned", "activation": "gelu", "bias": True, "tied_head": True, "parameterization": "sp",
        "zero_init_q": False,
    } | model  # fmt: skip
    return config.resolve(tree | {"batch": f"{shape.tokens} tokens", "budget": "1000 steps"})


def ours(shape: Shape, seconds: float, variant: Variant) -> dict[str, Any]:
    """Our step, as scaling.train compiles it but for what ``variant`` changes."""
    import jax
    import jax.numpy as jnp

    from scaling import fast, flops, model, partition, step

    for name, value in variant.jax_options.items():
        jax.config.update(name, value)
    changed = {n: getattr(model, n) for n in ("linear", "attention") if getattr(variant, n) == "plain"}
    forms = dataclasses.replace(fast.forms(jax.devices()[0]), **changed)
    fast.forms = lambda platform: forms
    resolved = settings(shape, **variant.model)
    programs = step.make_programs(resolved, partition.make_mesh(resolved.machine))
    windows = jax.ShapeDtypeStruct((shape.rows, shape.context + 1), jnp.int32)
    started = time.perf_counter()
    lowered = programs.train.lower(programs.abstract_state, windows, jax.ShapeDtypeStruct((), jnp.float32))
    compiled = lowered.compile(compiler_options=variant.options)
    compile_seconds = time.perf_counter() - started
    state, batch, lr = programs.init(step.named_key(0, "init")), jax.device_put(shape.windows()), np.float32(3e-4)

    def run() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch, lr)
        return metrics.loss

    counts = flops.n_params(resolved.model)
    out = {"n_params": counts["total"], "flops_per_token": flops.flops_per_token(resolved.model)}
    out |= rate(shape, run, float, seconds) | {"compile_seconds": compile_seconds}
    stats = jax.devices()[0].memory_stats() or {}
    return out | {
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "device": jax.devices()[0].device_kind,
        "versions": jax.__version__,
    }


def attention_error(shape: Shape, seconds: float) -> dict[str, Any]:
    """The largest error of this device's attention and of its gradients, relative to the plain float32 form's largest value."""
    import jax
    import jax.numpy as jnp

    from scaling import fast, model

    head = shape.width // shape.heads
    draws = np.random.default_rng(0).standard_normal((4, 2, shape.context, shape.heads, head)).astype(np.float32)

    def run(attention: Callable[..., Any], dtype: Any) -> list[Any]:
        q, k, v, g = (jnp.asarray(x, dtype) for x in draws)
        out, pull = jax.vjp(lambda *a: attention(*a, scale=head**-0.5, causal=True), q, k, v)
        return [np.float32(x) for x in (out, *pull(g))]

    errors = zip(run(fast.forms(jax.devices()[0]).attention, jnp.bfloat16), run(model.attention, jnp.float32), strict=True)
    return {"errors": [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in errors]}


def gemm(shape: Shape, seconds: float) -> dict[str, Any]:
    """FLOP/s of this step's products with weights alone, forward and backward, each timed alone and weighted by its work."""
    import jax
    import jax.numpy as jnp

    D, M = shape.width, shape.tokens
    matrices = {(D, D): 4 * shape.depth, (D, 4 * D): shape.depth, (4 * D, D): shape.depth, (D, shape.vocab): 1}
    work = spent = 0.0
    for (K, N), count in matrices.items():
        x, w, g = (jnp.ones(s, jnp.bfloat16) for s in ((M, K), (K, N), (M, N)))
        for left, right, axes in ((x, w, (1, 0)), (g, w, (1, 1)), (x, g, (0, 0))):
            product = jax.jit(lambda a, b, axes=axes: jax.lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ()))))
            product(left, right).block_until_ready()
            calls, started = 0, time.perf_counter()
            while calls < 3 or time.perf_counter() - started < seconds / 12:
                for _ in range(10):
                    last = product(left, right)
                last.block_until_ready()
                calls += 10
            spent += count * (time.perf_counter() - started) / calls
            work += count * 2.0 * M * K * N
    return {"flops_per_second": work / spent}


# --------------------------------------------------------------------------------------------------------------- PyTorch


def torch_gpt(shape: Shape, seconds: float, eager: bool) -> dict[str, Any]:
    """A GPT of the same shape in PyTorch: scaled_dot_product_attention, autocast, fused AdamW, torch.compile."""
    import torch
    import torch_gpt as peer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    gpt = peer.Gpt(width=shape.width, depth=shape.depth, heads=shape.heads, context=shape.context, vocab=shape.vocab).to(device)
    model = gpt if eager else torch.compile(gpt)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=3e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=device == "cuda")
    batch = torch.tensor(shape.windows(), dtype=torch.long, device=device)

    def run() -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gpt.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    started = time.perf_counter()
    run().item()
    out = {"n_params": sum(p.numel() for p in gpt.parameters()), "compile_seconds": time.perf_counter() - started}
    out |= rate(shape, run, lambda loss: loss.item(), seconds) | {"versions": torch.__version__}
    return out | {"peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None}


# ---------------------------------------------------------------------------------------------------------------- report


def child(contender: str, shape: Shape, seconds: float, eager: bool) -> dict[str, Any]:
    """What one contender measures, in this process."""
    if contender == "torch":
        return torch_gpt(shape, seconds, eager)
    if contender in ("gemm", "attention_error"):
        return {"gemm": gemm, "attention_error": attention_error}[contender](shape, seconds)
    return ours(shape, seconds, VARIANTS[contender])


def measure(contender: str, size: str, seconds: float, eager: bool) -> dict[str, Any]:
    """Runs one contender in a fresh process; ``failed`` holds the last line of what it said where it could not."""
    words = ["--child", contender, "--sizes", size, "--seconds", str(seconds), *(["--eager"] if eager else [])]
    env = os.environ | {"XLA_CLIENT_MEM_FRACTION": "0.9"}
    done = subprocess.run([sys.executable, __file__, *words], env=env, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, rounds: list[dict[str, Any]], first: dict[str, Any], peer: float | None, ceiling: float | None) -> str:
    """One line of the table; ``first`` is ours, which knows the FLOPs and the device."""
    from scaling import flops

    failed = next((r["failed"] for r in rounds if "failed" in r), None)
    if failed:
        return f"| {name} | failed: {failed} |"
    speed = statistics.median(r["tokens_per_second"] for r in rounds)
    peak = flops.device_peak(first["device"])
    cost = first["flops_per_token"]
    shares = [speed * cost[c] / peak if peak else None for c in ("matmul_full", "matmul_causal")]
    shares.append(speed * cost["matmul_causal"] / ceiling if ceiling else None)
    cells = [f"{s:.1%}" if s is not None else "-" for s in shares]
    memory = rounds[0]["peak_bytes"]
    cells += [f"{rounds[0]['compile_seconds']:.0f}", f"{memory / 1e9:.1f}" if memory else "-", f"{rounds[-1]['loss']:.3f}"]
    return f"| {name} | {speed:,.0f} | {f'{speed / peer:.2f}' if peer else '-'} | {' | '.join(cells)} |"


def attention_is_right(measured: dict[str, Any]) -> bool:
    """Says how far attention is from the plain form; whether that is rounding of bfloat16."""
    if "failed" in measured:
        print(f"error: attention could not be compared: {measured['failed']}", file=sys.stderr)
        return False
    errors = ", ".join(f"{e:.1e}" for e in measured["errors"])
    print(f"attention against the plain float32 form, largest relative error of out, dq, dk, dv: {errors}")
    if max(measured["errors"]) > MAY_ERR:
        print(f"error: attention is off by more than {MAY_ERR:g}: a fast path that is wrong is no fast path", file=sys.stderr)
    return max(measured["errors"]) <= MAY_ERR


def report(size: str, contenders: list[str], rounds: int, seconds: float, eager: bool) -> bool:
    """Measures and prints one size; whether ours ran, right, with as many parameters as its peer."""
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    extra = {name: measure(name, size, seconds, eager) for name in ("gemm", "attention_error")}
    for _ in range(rounds):
        for name in contenders:
            measured[name].append(measure(name, size, seconds, eager))
    ran = {name: results for name, results in measured.items() if not any("failed" in r for r in results)}
    first = next((results[0] for name, results in ran.items() if name != "torch"), None)
    if first is None:
        print(f"{size}: {measured}")
        return False
    versions = ", ".join(f"{n} {ran[n][0]['versions']}" for n in ("ours", "torch") if n in ran)
    shape = SHAPES[size]
    mode = "eager" if eager else "torch.compile"
    print(f"\n{size}: {first['n_params']:,} parameters, {shape.rows} windows of {shape.context} per step, bfloat16 products")
    print(f"{first['device']}; {versions} ({mode}); median of {rounds}")
    right = attention_is_right(extra["attention_error"])
    ceiling = extra["gemm"].get("flops_per_second")
    print(f"products with weights alone: {ceiling / 1e12:.3g} TFLOP/s" if ceiling else f"products: {extra['gemm']['failed']}")
    print("| contender | tokens/s | of torch | MFU full | MFU causal | of GEMM | compile s | peak GB | loss of step 3 |")
    print("|---|---|---|---|---|---|---|---|---|")
    peer = statistics.median(r["tokens_per_second"] for r in ran["torch"]) if "torch" in ran else None
    for name, results in measured.items():
        print(row(name, results, first, peer, ceiling), flush=True)
    same = len({results[0]["n_params"] for results in ran.values()}) == 1
    if not same:
        print("error: the contenders have different numbers of parameters", file=sys.stderr)
    return same and right and "ours" in ran


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["125M", "350M"])
    parser.add_argument("--contenders", nargs="+", choices=[*VARIANTS, "torch"], default=["ours", "torch", *list(VARIANTS)[1:]])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of steps for each contender and round")
    parser.add_argument("--toy", action="store_true", help="one round at toy size, on any device")
    parser.add_argument("--eager", action="store_true", help="PyTorch without torch.compile")
    parser.add_argument("--child", choices=[*VARIANTS, "torch", "gemm", "attention_error"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.toy:
        args.sizes, args.rounds, args.seconds = ["toy"], 1, 0.2
    if args.child:
        print(json.dumps(child(args.child, SHAPES[args.sizes[0]], args.seconds, args.eager)))
        return 0
    if not args.eager and shutil.which("g++") is None:
        print("torch.compile needs a C++ compiler and there is no g++: PyTorch runs eager")
        args.eager = True
    done = [report(size, args.contenders, args.rounds, args.seconds, args.eager) for size in args.sizes]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
