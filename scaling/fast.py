"""CPU forms of the model's products: equal to the plain ones in value and gradient (in bfloat16 to its rounding, which the
gradient of a float32 result passes as well), in an order that XLA's CPU code likes.

``scaling.model`` is written with plain ``linear`` and ``attention``; on CPUs the step replaces both by these.  What they are
worth together is measured by benchmarks/step_speed.py (docs/performance.md).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from scaling import gpu, model

# Queries go in blocks, each with the keys up to its last one: n blocks skip (1 - 1/n) / 2 of the scores.  Each block is
# compiled apart, so there are few of them.
LEAST_QUERIES, MOST_BLOCKS = 64, 4
WIDE = 1024  # rows or columns from which a weight's gradient is faster with an operand transposed first: 80 against 45 GFLOP/s


def linear(x: Array, w: Array, *, contract: int = 1, out_dtype: Any = None) -> Array:
    """As ``model.linear``, with its own gradient."""
    inner = math.prod(w.shape[:contract])
    y_NE = _product(out_dtype or x.dtype, x.reshape(-1, inner), w.reshape(inner, -1))
    return y_NE.reshape(*x.shape[: x.ndim - contract], *w.shape[contract:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(out_dtype: Any, x_ND: Array, w_DE: Array) -> Array:
    return model.linear(x_ND, w_DE, out_dtype=out_dtype)


def _product_forward(out_dtype: Any, x_ND: Array, w_DE: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(out_dtype, x_ND, w_DE), (x_ND, w_DE)


def _product_backward(out_dtype: Any, saved: tuple[Array, Array], g_NE: Array) -> tuple[Array, Array]:
    # Left to itself XLA transposes the larger operand of the weight gradient, and computes the activation function before it
    # again while it does so.
    x_ND, w_DE = saved
    x_ND, g_NE = lax.optimization_barrier((x_ND, g_NE.astype(x_ND.dtype)))
    if max(w_DE.shape) >= WIDE:
        dw_DE = jnp.matmul(lax.optimization_barrier(x_ND.T), g_NE, preferred_element_type=jnp.float32)
    else:
        dw_DE = lax.dot_general(x_ND, g_NE, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    dx_ND = lax.dot_general(g_NE, w_DE, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    return dx_ND.astype(x_ND.dtype), dw_DE.astype(w_DE.dtype)


_product.defvjp(_product_forward, _product_backward)


def attention(
    q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, *, scale: float, causal: bool, allowed_BTS: Array | None = None
) -> Array:
    """As ``model.attention``; masks other than the causal one take the plain form."""
    T, S = q_BTHK.shape[1], k_BSGK.shape[1]
    if not causal or T != S or allowed_BTS is not None:
        return model.attention(q_BTHK, k_BSGK, v_BSGK, scale=scale, causal=causal, allowed_BTS=allowed_BTS)
    repeats = q_BTHK.shape[2] // k_BSGK.shape[2]
    k_BSHK, v_BSHK = (x if repeats == 1 else jnp.repeat(x, repeats, axis=2) for x in (k_BSGK, v_BSGK))
    q_BHTK, k_BHSK, v_BHSK = (jnp.swapaxes(x, 1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
    return jnp.swapaxes(_causal(q_BHTK * scale, k_BHSK, v_BHSK), 1, 2)


def _dot(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
    """Batched over the two leading axes, accumulated in float32."""
    return lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _blocks(T: int) -> list[tuple[int, int]]:
    """First and last (exclusive) query of each block."""
    n = min(max(1, T // LEAST_QUERIES), MOST_BLOCKS)
    ends = [T * (i + 1) // n for i in range(n)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


@jax.custom_vjp
def _causal(q_BHTK: Array, k_BHSK: Array, v_BHSK: Array) -> Array:
    return _causal_forward(q_BHTK, k_BHSK, v_BHSK)[0]


def _causal_forward(q_BHTK: Array, k_BHSK: Array, v_BHSK: Array) -> tuple[Array, Any]:
    weights, sums, outs = [], [], []
    for start, end in _blocks(q_BHTK.shape[2]):
        mask = np.where(np.tri(end - start, end, start, dtype=bool), np.float32(0), np.float32(-np.inf))
        scores_BHTS = _dot(q_BHTK[:, :, start:end], k_BHSK[:, :, :end], 3, 3) + mask
        weights_BHTS = jnp.exp(scores_BHTS - scores_BHTS.max(axis=-1, keepdims=True))
        total_BHT1 = weights_BHTS.sum(axis=-1, keepdims=True)
        outs.append(_dot(weights_BHTS.astype(v_BHSK.dtype), v_BHSK[:, :, :end], 3, 2) / total_BHT1)
        weights.append(weights_BHTS)
        sums.append(total_BHT1)
    out_BHTK = jnp.concatenate(outs, axis=2).astype(q_BHTK.dtype)
    return out_BHTK, (q_BHTK, k_BHSK, v_BHSK, weights, jnp.concatenate(sums, axis=2), out_BHTK)


def _causal_backward(saved: Any, g_BHTK: Array) -> tuple[Array, Array, Array]:
    q_BHTK, k_BHSK, v_BHSK, weights, total_BHT1, out_BHTK = saved
    T, dtype = q_BHTK.shape[2], q_BHTK.dtype
    g_BHTK = g_BHTK / total_BHT1
    delta_BHT1 = (g_BHTK * out_BHTK).sum(axis=-1, keepdims=True)
    g_BHTK = g_BHTK.astype(dtype)
    dq, dk, dv = [], [], []
    for (start, end), weights_BHTS in zip(_blocks(T), weights, strict=True):
        q, g, delta = (x[:, :, start:end] for x in (q_BHTK, g_BHTK, delta_BHT1))
        dscores_BHTS = (weights_BHTS * (_dot(g, v_BHSK[:, :, :end], 3, 3) - delta)).astype(dtype)
        dq.append(_dot(dscores_BHTS, k_BHSK[:, :, :end], 3, 2))
        # As transposes: contracting the long axis of two row-major operands ran at less than half the rate.
        dk.append(_dot(q, dscores_BHTS, 2, 2))
        dv.append(_dot(g, weights_BHTS.astype(dtype), 2, 2))
    dk_BHSK, dv_BHSK = (jnp.swapaxes(_sum_of_blocks(x, T), 2, 3).astype(dtype) for x in (dk, dv))
    return lax.optimization_barrier((jnp.concatenate(dq, axis=2).astype(dtype), dk_BHSK, dv_BHSK))


def _sum_of_blocks(parts: list[Array], T: int) -> Array:
    """Sums (..., end) of each block along their common keys.  By block of keys: padded to T they were 4 % of a step."""
    sums = [sum(p[..., start:end] for p in parts if p.shape[-1] >= end) for start, end in _blocks(T)]
    return jnp.concatenate(sums, axis=-1)


_causal.defvjp(_causal_forward, _causal_backward)

CPU = model.Forms(linear, attention)


def forms(device: jax.Device) -> model.Forms:
    """The forms that suit a device."""
    if device.platform == "cpu":
        return CPU
    return gpu.GPU if gpu.serves(device) else model.PLAIN
