"""A sweep folder as the launcher and the trainer write it, with losses from a known law: the tests' ground truth."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from analysis import laws
from scaling import flops, runs

TRUTH = {"E": 1.0, "A": 210.0, "B": 6649.0, "alpha": 0.66, "beta": 0.72}
SIZES = (50_000, 75_000, 100_000, 130_000, 160_000, 195_000)
RATIOS = (10, 20, 40)
BATCH = 1536


def write_sweep(
    root: pathlib.Path, sizes=SIZES, trained=None, noise: float = 0.003, seed: int = 0, diverged: tuple[str, ...] = (),
    curves: bool = True,
) -> pathlib.Path:  # fmt: skip
    """Writes ``root`` with a trunk and three branches per size; only the sizes in ``trained`` have run (default: all)."""
    rng = np.random.default_rng(seed)
    members = []
    for n in sizes:
        trunk = f"causal-{n // 1000}K-trunk"
        for ratio in (0, *RATIOS):
            name = f"causal-{n // 1000}K-{ratio}x" if ratio else trunk
            tokens = round((ratio or 0.8 * RATIOS[-1]) * n / BATCH) * BATCH
            total = n + 260 * round(np.sqrt(n / 48))
            per_token = {"matmul_causal": 9.5 * n**0.98, "matmul_full": 11 * n**0.98, "6N": 6 * total, "6N_nonembedding": 6 * n}
            members.append({
                "id": name, "size": f"{n // 1000}K", "role": "branch" if ratio else "trunk", "parent": trunk if ratio else None,
                "cluster": trunk, "n_params": {"total": total, "non_embedding": n, "active": total}, "tokens": tokens,
                "flops": {c: tokens * per_token[c] for c in flops.CONVENTIONS},
                "annealed": bool(ratio), "seed": 0, "batch_tokens": BATCH,
            })  # fmt: skip
            loss = laws.CHINCHILLA.loss(TRUTH, n, tokens) * np.exp(noise * rng.standard_normal()) + (0 if ratio else 0.06)
            if n in (sizes if trained is None else trained):
                finish(root, members[-1], float(loss), "diverged" if name in diverged else "finished", curves, rng)
    runs.write_json(root / runs.SWEEP, {"name": root.name, "members": members})
    return root


def finish(root: pathlib.Path, member: dict, loss: float, status: str = "finished", curves: bool = True, rng=None) -> None:
    """Writes a member's plan, metrics and done.json."""
    folder = root / member["id"]
    runs.write_json(folder / runs.PLAN, {k: member[k] for k in ("n_params", "tokens", "flops", "annealed", "batch_tokens")})
    runs.write_json(folder / runs.SPEC, {"id": member["id"], "parent": member["parent"], "cluster": member["cluster"]})
    done = loss if status == "finished" else None
    runs.write_json(folder / runs.DONE, {
        "digest": "0" * 16, "status": status, "cause": None if done else "loss is not finite at step 900",
        "steps": member["tokens"] // BATCH, "tokens": member["tokens"], "flops": member["flops"],
        "train_loss": done, "val_loss": done, "val_loss_stderr": done and 0.004,
        "val_bpb": done and done / np.log(2), "annealed": member["annealed"], "seconds": {}, "peak_memory_bytes": 0,
    })  # fmt: skip
    if curves:
        _write_curve(folder / runs.METRICS, member, loss, rng or np.random.default_rng(0))


def _write_curve(path: pathlib.Path, member: dict, loss: float, rng: np.random.Generator) -> None:
    n, tokens = member["n_params"]["non_embedding"], member["tokens"]
    start = 0.8 * tokens if member["role"] == "branch" else 0.0
    steps = np.unique(np.linspace(start, tokens, 200)[1:] // BATCH * BATCH)
    gap = laws.CHINCHILLA.loss(TRUTH, n, steps)
    shape = (
        gap
        + 0.06 * (1 - np.sqrt(np.clip((steps - start) / (tokens - start), 0, 1)) if start else 1)
        + 3.5 * np.exp(-steps / 3e4)
    )
    shape = np.minimum(shape + (loss - shape[-1]), 5.5)
    rows = [{"kind": "train", "step": int(t // BATCH), "tokens": int(t), "flops": 0.0,
             "loss": float(v + 0.03 * rng.standard_normal()), "lr": 8e-3}
            for t, v in zip(steps, shape, strict=True)]  # fmt: skip
    rows += [{"kind": "val", "step": int(t // BATCH), "tokens": int(t), "flops": 0.0, "loss": float(v), "loss_stderr": 0.004}
             for t, v in list(zip(steps, shape, strict=True))[49::50]]  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
