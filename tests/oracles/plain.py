"""The Transformer written out in float64 numpy: a loop over rows, layers, heads and queries, straight from the papers."""

import math
from typing import Any

import numpy as np

from scaling.config import ModelConfig


def norm(x: np.ndarray, weights: dict[str, np.ndarray], c: ModelConfig) -> np.ndarray:
    """Of one vector: RMSNorm (Zhang & Sennrich 2019) or LayerNorm (Ba et al. 2016)."""
    if c.norm == "layernorm":
        x = (x - np.mean(x)) / math.sqrt(np.var(x) + c.norm_eps)
    else:
        x = x / math.sqrt(np.mean(x**2) + c.norm_eps)
    return x * weights["gain"] + weights.get("bias", 0.0)


def rotate(x: np.ndarray, position: int, base: float) -> np.ndarray:
    """Pair i, made of coordinates i and i + K/2, turned by position * base^(-2i/K): as a product of complex numbers."""
    pairs = x[: len(x) // 2] + 1j * x[len(x) // 2 :]
    pairs = pairs * np.array([np.exp(1j * position * base ** (-2 * i / len(x))) for i in range(len(pairs))])
    return np.concatenate([pairs.real, pairs.imag])


def sinusoid(position: int, width: int) -> np.ndarray:
    """All sines, then all cosines."""
    angles = [position / 10_000 ** (2 * i / width) for i in range(width // 2)]
    return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def activate(up: np.ndarray, gate: np.ndarray | None, c: ModelConfig) -> np.ndarray:
    if c.activation == "swiglu":
        return gate / (1 + np.exp(-gate)) * up
    if c.activation == "relu":
        return np.maximum(up, 0)
    return 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))


def attend(x_TD: np.ndarray, w: dict[str, Any], c: ModelConfig, visible_TT: np.ndarray, scale: float) -> np.ndarray:
    """Every query's mix of values, one head after the other, through the output matrix."""
    T = len(x_TD)
    out_TD = np.zeros((T, c.width))
    for h in range(c.heads):
        g = h // (c.heads // c.kv_heads)
        q = x_TD @ w["q"][:, h] + (w["q_bias"][h] if c.bias else 0)
        k = x_TD @ w["k"][:, g] + (w["k_bias"][g] if c.bias else 0)
        v = x_TD @ w["v"][:, g] + (w["v_bias"][g] if c.bias else 0)
        if c.qk_norm:
            q = np.stack([norm(row, w["q_norm"], c) for row in q])
            k = np.stack([norm(row, w["k_norm"], c) for row in k])
        if c.positions == "rotary":
            q = np.stack([rotate(row, t, c.rope_base) for t, row in enumerate(q)])
            k = np.stack([rotate(row, t, c.rope_base) for t, row in enumerate(k)])
        for t in range(T):
            keys = [s for s in range(t + 1) if visible_TT[t, s]]
            scores = np.array([scale * (q[t] @ k[s]) for s in keys])
            weights = np.exp(scores - scores.max())
            mixed = sum(p * v[s] for p, s in zip(weights / weights.sum(), keys, strict=True))
            out_TD[t] += mixed @ w["o"][h]
    return out_TD + (w["o_bias"] if c.bias else 0)


def mlp(x_TD: np.ndarray, w: dict[str, Any], c: ModelConfig) -> np.ndarray:
    up = x_TD @ w["up"] + (w["up_bias"] if c.bias else 0)
    gate = x_TD @ w["gate"] + (w["gate_bias"] if c.bias else 0) if c.activation == "swiglu" else None
    return activate(up, gate, c) @ w["down"] + (w["down_bias"] if c.bias else 0)


def logits(c: ModelConfig, params: Any, tokens_BT: np.ndarray, allowed_BTT: np.ndarray | None = None) -> np.ndarray:
    """(B, T, V), with the multipliers of muP (Yang et al. 2022, Table 8) or of a standard model."""
    mup = c.parameterization == "mup"
    scale = math.sqrt(c.base_head_size) / c.head_size if mup else 1 / math.sqrt(c.head_size)
    out = []
    for b, tokens in enumerate(tokens_BT):
        visible = np.ones((len(tokens), len(tokens)), bool) if allowed_BTT is None else allowed_BTT[b]
        x = np.stack([params["embedding"][token].astype(np.float64) for token in tokens])
        if c.positions == "learned":
            x += params["positions"][: len(tokens)]
        x *= 50 if mup and c.tied_head else 1  # what is stored small, tokens and positions, is read large
        if c.positions == "sinusoidal":
            x += np.stack([sinusoid(t, c.width) for t in range(len(tokens))])
        for i in range(c.depth):
            for name, part, f in (
                ("attention_norm", "attention", lambda y, w, visible=visible: attend(y, w, c, visible, scale)),
                ("mlp_norm", "mlp", lambda y, w: mlp(y, w, c)),
            ):
                gains = {k: v[i].astype(np.float64) for k, v in params["blocks"][name].items()}
                w = {
                    k: {n: y[i] for n, y in v.items()} if isinstance(v, dict) else v[i].astype(np.float64)
                    for k, v in params["blocks"][part].items()
                }
                if c.norm_position == "pre":
                    x = x + f(np.stack([norm(row, gains, c) for row in x]), w)
                else:
                    x = np.stack([norm(row, gains, c) for row in x + f(x, w)])
        if c.norm_position == "pre":
            x = np.stack([norm(row, params["final_norm"], c) for row in x])
        head = params["embedding"].T if c.tied_head else params["head"]
        out.append(x @ head * (c.base_width / c.width if mup else 1))
    return np.stack(out)
