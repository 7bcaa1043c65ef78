"""GPU forms of the model's products: bfloat16 in both passes, and attention by cuDNN, which never builds the T x S scores.

Equality with the plain forms is tested as far as a CPU can (values and gradients of ``linear``; that ``attention`` lowers to
cuDNN's kernels); benchmarks/gpu_step.py compares and times them on a GPU (docs/gpu.md).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from scaling import model

CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)
CUDNN_HEAD = 128  # the largest head size that every generation from Ampere on takes; a multiple of 8
AMPERE = 8.0  # compute capability from which there are cuDNN's fused attention and products in bfloat16


def serves(device: jax.Device) -> bool:
    """Whether a device has what these forms ask for: a GPU of NVIDIA's, Ampere or newer."""
    if device.platform != "gpu" or "cuda" not in device.client.platform_version.lower():
        return False
    return float(getattr(device, "compute_capability", 0.0)) >= AMPERE


def linear(x: Array, w: Array, *, contract: int = 1, out_dtype: Any = None) -> Array:
    """As ``model.linear``.  There the gradient arrives in float32 and turns both products of the backward pass into float32
    ones, at half the rate or less; here it is rounded to the dtype of ``x`` first.  Tensor cores accumulate in float32 anyway.
    """
    if out_dtype in (None, x.dtype):
        return _narrow(contract, x, w)
    return _wide(contract, out_dtype, x, w)


def _narrow(contract: int, x: Array, w: Array) -> Array:
    axes = tuple(range(x.ndim - contract, x.ndim)), tuple(range(contract))
    return jax.lax.dot_general(x, w, (axes, ((), ())), preferred_element_type=x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _wide(contract: int, out_dtype: Any, x: Array, w: Array) -> Array:
    return model.linear(x, w, contract=contract, out_dtype=out_dtype)


def _wide_forward(contract: int, out_dtype: Any, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _wide(contract, out_dtype, x, w), (x, w)


def _wide_backward(contract: int, out_dtype: Any, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    _, pull = jax.vjp(functools.partial(_narrow, contract), *saved)
    return pull(g.astype(saved[0].dtype))


_wide.defvjp(_wide_forward, _wide_backward)


def attention(
    q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, *, scale: float, causal: bool, allowed_BTS: Array | None = None
) -> Array:
    """As ``model.attention``: by cuDNN where it can (16-bit floats, heads of a multiple of 8 up to 128, no mask but the causal
    one), else plainly.
    """
    T, K = q_BTHK.shape[1], q_BTHK.shape[3]
    fits = q_BTHK.dtype in CUDNN_DTYPES and K % 8 == 0 and K <= CUDNN_HEAD and (k_BSGK.shape[1] == T or not causal)
    if not fits or allowed_BTS is not None:
        return model.attention(q_BTHK, k_BSGK, v_BSGK, scale=scale, causal=causal, allowed_BTS=allowed_BTS)
    # By name: left to choose, JAX takes XLA's form.  The causal mask by flag: as a boolean mask it would become a dense bias.
    return jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, scale=scale, is_causal=causal, implementation="cudnn")


GPU = model.Forms(linear, attention)
