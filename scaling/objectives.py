"""From a window of tokens to inputs, targets and loss weights, and from logits to nats."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from scaling.tokenizer import SPECIALS


class Example(NamedTuple):
    """What a model reads and what it is scored on; a weight of 0 leaves a target out of the loss."""

    inputs_BT: Array
    targets_BT: Array
    weights_BT: Array


COLON, NEWLINE = (ord(c) + SPECIALS for c in ":\n")  # of bytes


def next_token(windows: Array, rest: float = 1.0) -> Example:
    """Causal language modelling: windows (B, T + 1) give T inputs and their T successors.

    Targets outside of answers have the weight ``rest``; an answer reaches from a colon to the end of its line.  Other than 1 it
    is for stores of bytes (``DataConfig.rest``).
    """
    inputs_BT, targets_BT = windows[:, :-1], windows[:, 1:]
    if rest == 1.0:
        return Example(inputs_BT, targets_BT, jnp.ones(targets_BT.shape, jnp.float32))
    places_T = jnp.arange(1, inputs_BT.shape[1] + 1)
    colon_BT, newline_BT = (jax.lax.cummax(jnp.where(inputs_BT == byte, places_T, 0), axis=1) for byte in (COLON, NEWLINE))
    return Example(inputs_BT, targets_BT, jnp.where(colon_BT > newline_BT, 1.0, rest))


def cross_entropy(logits_BTV: Array, targets_BT: Array) -> tuple[Array, Array]:
    """Nats of each target (B, T) and the log-partition log Z (B, T), both float32."""
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    target_logits_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return log_z_BT - target_logits_BT, log_z_BT
