"""From a window of tokens to inputs, targets and loss weights, and from logits to nats."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Example(NamedTuple):
    """What a model reads and what it is scored on; a weight of 0 leaves a target out of the loss."""

    inputs_BT: Array
    targets_BT: Array
    weights_BT: Array


def next_token(windows: Array) -> Example:
    """Causal language modelling: windows (B, T + 1) give T inputs and their T successors."""
    targets_BT = windows[:, 1:]
    return Example(windows[:, :-1], targets_BT, jnp.ones(targets_BT.shape, jnp.float32))


def cross_entropy(logits_BTV: Array, targets_BT: Array) -> tuple[Array, Array]:
    """Nats of each target (B, T) and the log-partition log Z (B, T), both float32."""
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    target_logits_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return log_z_BT - target_logits_BT, log_z_BT
