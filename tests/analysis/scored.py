"""Scores as ``scaling.evals`` writes them, put into a synthetic sweep: tasks whose behaviour is known."""

from __future__ import annotations

import json
import math
import pathlib

import numpy as np
from synthetic import BATCH

from scaling import runs

N = 400  # items
TASKS = ("copy", "facts", "sort", "parity")
FORMATS = {
    "copy": ("cloze", "letter"), "facts": ("cloze", "generate"), "sort": ("cloze", "generate", "cot"), "parity": ("cloze",),
}  # fmt: skip


def truth(task: str, form: str, shots: int, log_flops: float, lo: float, hi: float) -> tuple[float, float]:
    """Score and nats per token at a compute within [lo, hi]: copy jumps, facts only seem to, sort rises, parity stays."""
    u = (log_flops - lo) / (hi - lo)
    few = 0.5 + 0.5 * min(1, shots)
    if task == "parity" or form == "letter":
        return 0.25, math.log(4)
    if task == "copy":
        jump = 1 / (1 + math.exp(-(u - 0.62) / 0.02))
        return 0.25 + 0.74 * jump * few, 2.3 * (1 - jump) + 0.02
    if task == "facts":
        nll = 0.9 * 10 ** (-1.6 * u)
        return (math.exp(-10 * nll) if form == "generate" else 0.25 + 0.74 * math.exp(-nll)), nll
    rise = u * few * (1.0 if form == "cot" else 0.7)
    return (0.25 + 0.7 * rise if form == "cloze" else 0.95 * rise), 1.5 - 1.2 * u


def row(task: str, form: str, shots: int, step: int, flops: float, score: float, nll: float, items: str | None) -> dict:
    """One line of evals.jsonl."""
    hit = "exact_match" if form in ("generate", "cot") else "acc"
    p_gold = math.exp(-nll)
    values = {hit: score, "nll": 4 * nll, "nll_token": nll, "nll_byte": nll, "p_gold": p_gold, "brier": 1 - p_gold}
    if form == "letter":
        values |= {"nll": nll, "letter_mass": 0.5}
    return {
        "kind": "eval", "step": step, "tokens": step * BATCH, "flops": flops, "suite": "laptop", "task": task, "group": "A",
        "split": "test", "format": form, "shots": shots, "shots_effective": {str(shots): N}, "fit": "drop_shots", "n": N,
        "skipped": 0, "truncated": 0, "chance": 0.25 if hit == "acc" else 0.0, "answer_tokens": 10.0, "items_digest": "0" * 16,
        "items_file": items, "at": 0.0,
        "metrics": {k: {"value": v, "stderr": 0.01, "low": v - 0.02, "high": v + 0.02} for k, v in values.items()},
    }  # fmt: skip


def score(root: pathlib.Path, tasks=TASKS, shots=(0, 5), items: bool = True, marks: int = 2, seed: int = 0) -> pathlib.Path:
    """Writes evals.jsonl (and items) for every finished member of ``root``; trunks are scored at ``marks`` checkpoints."""
    rng = np.random.default_rng(seed)
    members = [m for m in runs.members(root) if m.read(runs.DONE) is not None]
    ends = {m.id: np.log10(m.read(runs.DONE)["flops"]["matmul_causal"]) for m in members}
    lo, hi = min(ends.values()), max(ends.values())
    for member in members:
        done = member.read(runs.DONE)
        at = [done["steps"]] if done["annealed"] else [done["steps"] * (i + 1) // (marks + 1) for i in range(marks)]
        lines, kept = [], {}
        for step in at:
            flops = done["flops"]["matmul_causal"] * step / done["steps"]
            for task, form, k in ((t, f, k) for t in tasks for f in FORMATS[t] for k in shots):
                p, nll = truth(task, form, k, np.log10(flops), lo, hi)
                rights = np.random.default_rng([seed, len(task), len(member.id)]).random(N) < p  # the same items at all shots
                rights ^= rng.random(N) < 0.01
                name = f"items/{step:08d}.{form}.{k}.parquet" if items and form in ("cloze", "letter") else None
                lines.append(row(task, form, k, step, flops, float(rights.mean()), nll, name))
                if name:
                    kept.setdefault(name, []).extend(_items(task, rights))
        (member.path / "evals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for name, rows in kept.items():
            _write(member.path / name, rows)
    return root


def _items(task: str, rights: np.ndarray) -> list[dict]:
    chosen = [[-1.0, -2.0, -2.0, -2.0] if right else [-2.0, -1.0, -2.0, -2.0] for right in rights]
    return [
        {"task": task, "item": f"{task}-{i}", "gold": 0, "loglikelihoods": c, "greedy": [False] * 4}
        for i, c in enumerate(chosen)
    ]  # fmt: skip


def _write(path: pathlib.Path, rows: list[dict]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
