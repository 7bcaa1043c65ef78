"""The one home of parameter and FLOP counts: planner, trainer, MFU and every figure call this.  Imports no jax.

Conventions (all per token, forward and backward; C = tokens x value):

* ``matmul_causal``: 3 x 2 x every multiply-add of every matrix product, attention counted over the visible (T + 1) / 2 keys
* ``matmul_full``: the same with attention over all T keys (PaLM, nanoGPT); what the plain attention really executes
* ``6N``: 6 x total parameters (Chinchilla)
* ``6N_nonembedding``: 6 x parameters without embedding, positions and head (Kaplan)
"""

from __future__ import annotations

import re

from scaling.config import ModelConfig

CONVENTIONS = ("matmul_causal", "matmul_full", "6N", "6N_nonembedding")
DEFAULT_CONVENTION = "matmul_causal"

# Dense peaks, TFLOP/s per JAX device in bf16 (TF32/float32 entries are not listed); first hit in device_kind wins,
# as whole words: an "RTX A4000" is no A40.
# Sources: jax _src/tpu_info.py, vendors' data sheets, torchtitan, nanochat.  V100 and T4 are fp16.
_PEAK_TFLOPS = (
    ("GB200", 2500), ("GB300", 2500), ("B200", 2250), ("B100", 1800), ("H200 NVL", 836), ("H200", 989), ("GH200", 989),
    ("H100 NVL", 835), ("H100 PCIe", 756), ("H100", 989), ("A100", 312), ("L40S", 362), ("L40", 181), ("A40", 149.7),
    ("A30", 165), ("L4", 121), ("V100", 125), ("T4", 65), ("TPU v2", 23), ("TPU v3", 61.5), ("TPU v4", 275),
    ("TPU v5 lite", 197), ("TPU v5e", 197), ("TPU v5p", 459), ("TPU v5", 459),
    ("TPU v6 lite", 918), ("TPU v6e", 918), ("TPU7x", 1153.5),
)  # fmt: skip
DEVICES = tuple(name for name, _ in _PEAK_TFLOPS)


def device_peak(device_kind: str) -> float | None:
    """Peak bf16 FLOP/s of one JAX device, or None for an unknown one: then no MFU is reported, never a guess."""
    known = (tflops for name, tflops in _PEAK_TFLOPS if re.search(rf"\b{name}\b", device_kind, re.IGNORECASE))
    return next((tflops * 1e12 for tflops in known), None)


def param_counts(c: ModelConfig) -> dict[str, int]:
    """Parameters by named part; their sum is the total."""
    attention = c.width * c.head_size * (2 * c.heads + 2 * c.kv_heads)
    mlp = (3 if c.activation == "swiglu" else 2) * c.width * c.ff
    norm = c.width * (2 if c.norm_bias else 1)
    qk_norm = 2 * c.head_size * (2 if c.norm_bias else 1) if c.qk_norm else 0
    biases = 0
    if c.bias:
        biases = c.head_size * (c.heads + 2 * c.kv_heads) + c.width + c.ff * (2 if c.activation == "swiglu" else 1) + c.width
    return {
        "embedding": c.vocab_size * c.width,
        "positions": c.context * c.width if c.positions == "learned" else 0,
        "attention": c.depth * attention,
        "mlp": c.depth * mlp,
        "norms": c.depth * (2 * norm + qk_norm) + (norm if c.norm_position == "pre" else 0),
        "biases": c.depth * biases,
        "head": 0 if c.tied_head else c.vocab_size * c.width,
    }


def n_params(c: ModelConfig) -> dict[str, int]:
    """``total``; ``non_embedding`` (without embedding, positions and head); ``active`` (used by one token: all of them)."""
    counts = param_counts(c)
    total = sum(counts.values())
    return {
        "total": total,
        "non_embedding": total - counts["embedding"] - counts["positions"] - counts["head"],
        "active": total,
    }


def forward_flops_per_token(c: ModelConfig, causal: bool) -> dict[str, float]:
    """Exact matrix-product FLOPs of one token's forward pass by named part (a multiply-add is 2)."""
    keys = (c.context + 1) / 2 if causal else c.context
    scores = 2.0 * c.heads * c.head_size * keys
    return {
        "qkv": c.depth * 2.0 * c.width * c.head_size * (c.heads + 2 * c.kv_heads),
        "scores": c.depth * scores,
        "mix": c.depth * scores,
        "out": c.depth * 2.0 * c.heads * c.head_size * c.width,
        "mlp": c.depth * 2.0 * (3 if c.activation == "swiglu" else 2) * c.width * c.ff,
        "head": 2.0 * c.vocab_size * c.width,
    }


def flops_per_token(c: ModelConfig) -> dict[str, float]:
    """Training FLOPs per token under each convention of ``CONVENTIONS``."""
    counts = n_params(c)
    return {
        "matmul_causal": 3 * sum(forward_flops_per_token(c, causal=True).values()),
        "matmul_full": 3 * sum(forward_flops_per_token(c, causal=False).values()),
        "6N": 6.0 * counts["total"],
        "6N_nonembedding": 6.0 * counts["non_embedding"],
    }
