"""AdamW by optax with the multipliers of the parameterization tables, and learning rates as functions of the step.

The learning rate is an argument of the training step, not part of it, so that a trunk, its branches and every seed share one
compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling import model, parameterization
from scaling.config import ModelConfig, OptimConfig
from scaling.plan import Plan


def per_class(config: ModelConfig, params: Any, value: Callable[[parameterization.Rule], float]) -> Any:
    """A tree like ``params`` with ``value(rule)`` of each parameter's class at its leaf."""
    rules = parameterization.rules(config)

    def of(path: tuple[Any, ...], _: Any) -> float:
        return value(rules[parameterization.PARAMETERS[model.param_name(path)][0]])

    return jax.tree_util.tree_map_with_path(of, params)


def _scale_by_class(config: ModelConfig, value: Callable[[parameterization.Rule], float]) -> optax.GradientTransformation:
    """Multiplies every update by ``value(rule)`` of its class."""

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, s: u if s == 1.0 else u * s, updates, per_class(config, updates, value))

    return optax.stateless(update)


def _decay(config: ModelConfig, rate: float) -> optax.GradientTransformation:
    """Adds decoupled weight decay (Loshchilov & Hutter 2019), by class: none on embeddings, norms, biases and the head."""

    def update(updates: Any, params: Any) -> Any:
        factors = per_class(config, updates, lambda r: rate * r.weight_decay)
        return jax.tree.map(lambda u, p, f: u if f == 0.0 else u + f * p, updates, params, factors)

    return optax.stateless(update)


def optimizer(config: ModelConfig, optim: OptimConfig) -> optax.GradientTransformation:
    """Clipping, AdamW and the table's multipliers, without the learning rate: params + lr * update is the new value.

    The table's epsilon multiplier e is applied by dividing gradients by e before Adam, whose update is unchanged when
    gradient and epsilon are scaled together.
    """
    return optax.chain(
        optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        _scale_by_class(config, lambda r: 1 / r.eps),
        optax.scale_by_adam(optim.beta1, optim.beta2, optim.eps),
        _decay(config, optim.weight_decay),
        _scale_by_class(config, lambda r: -r.lr),
    )


def apply_updates(params: Any, updates: Any, lr: jax.Array) -> Any:
    """params + lr * updates."""
    return jax.tree.map(lambda p, u: p + lr * u, params, updates)


def learning_rate(optim: OptimConfig, plan: Plan, step: int) -> np.float32:
    """The rate for update number ``step`` (from 0) at ``base_width``.

    Linear warm-up to the peak, then: constant; linear or cosine to ``final_lr`` of the peak at the end; or WSD, constant and
    then 1 - sqrt over the last ``cooldown_steps`` (Hägele et al. 2024, arXiv 2405.18392).
    """
    if step < plan.warmup_steps:
        return np.float32(plan.lr * (step + 1) / plan.warmup_steps)
    progress = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    if optim.schedule == "linear":
        factor = 1 + (optim.final_lr - 1) * progress
    elif optim.schedule == "cosine":
        factor = optim.final_lr + (1 - optim.final_lr) * 0.5 * (1 + np.cos(np.pi * progress))
    elif optim.schedule == "wsd":
        into = max(0, step - (plan.steps - plan.cooldown_steps)) / max(1, plan.cooldown_steps)
        factor = 1 - np.sqrt(into)
    else:
        factor = 1.0
    return np.float32(plan.lr * factor)


def global_norm(tree: Any) -> jax.Array:
    """The Euclidean norm of all leaves together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
