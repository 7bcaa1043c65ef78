"""AdamW and Muon by optax with the multipliers of the parameterization tables, and learning rates as functions of the step.

The learning rate is an argument of the training step, not part of it, so that a trunk, its branches and every seed share one
compiled program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling import model, parameterization
from scaling.config import ModelConfig, OptimConfig
from scaling.plan import Plan

MUON_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration, five times (Jordan et al. 2024)
MUON_MOMENTUM = 0.95
MUON_RMS = 0.2  # of an update's entries: Adam's, as Liu et al. 2025 measured it


def per_class(params: Any, value: Callable[[str], Any]) -> Any:
    """A tree like ``params`` with ``value(class)`` of each parameter at its leaf (``parameterization.class_of``)."""

    def of(path: tuple[Any, ...], _: Any) -> Any:
        return value(parameterization.class_of([k.key for k in path]))

    return jax.tree_util.tree_map_with_path(of, params)


def _scale_by_class(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies every update by the factor of its class."""

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, f: u if f == 1.0 else u * f, updates, per_class(updates, factors.__getitem__))

    return optax.stateless(update)


def _decay(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Adds decoupled weight decay (Loshchilov & Hutter 2019), by class: none on embeddings, norms, biases and the head."""

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(
            lambda u, p, r: u if r == 0.0 else u + r * p, updates, params, per_class(updates, rates.__getitem__)
        )

    return optax.stateless(update)


def optimizer(config: ModelConfig, optim: OptimConfig) -> optax.GradientTransformation:
    """Clipping, AdamW or Muon, and the table's multipliers, without the learning rate: params + lr * update is the new value.

    The table's epsilon multiplier e is applied by dividing gradients by e before Adam, whose update is unchanged when
    gradient and epsilon are scaled together.
    """
    table = parameterization.rules(config, optim.optimizer)
    adam = optax.scale_by_adam(optim.beta1, optim.beta2, optim.eps)
    return optax.chain(
        optax.clip_by_global_norm(optim.clip) if optim.clip else optax.identity(),
        _scale_by_class({kind: 1 / r.eps for kind, r in table.items()}),
        adam if optim.optimizer == "adamw" else _muon(adam),
        _decay({kind: optim.weight_decay * r.weight_decay for kind, r in table.items()}),
        _scale_by_class({kind: -r.lr for kind, r in table.items()}),
    )


def _muon(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) on the matrices of the blocks, ``adam`` on everything else.

    Put together from optax's parts, because ``optax.contrib.muon`` would give Adam Muon's Nesterov momentum (its first step
    would be 1.47 times as long), epsilon and beta2, and would take embeddings and heads for matrices to be orthogonalised.

    Every matrix of every layer is orthogonalised by itself, all heads together, and scaled to a root mean square of .2, as
    Adam's updates have, so that both share one learning rate (Liu et al. 2025, arXiv 2502.16982).
    """
    muon = optax.contrib.scale_by_muon(MUON_COEFFICIENTS, beta=MUON_MOMENTUM, weight_dimension_numbers=_dimensions)

    def init(params: Any) -> Any:
        # Without the coefficients: they are constants, and a state begins as zeros and holds arrays like parameters only.
        return muon.init(params)._replace(ns_coeffs=None)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = muon.update(updates, state._replace(ns_coeffs=jnp.asarray(MUON_COEFFICIENTS)), params)
        scaled = jax.tree.map(lambda u, d: MUON_RMS * _larger_side(u, d) ** 0.5 * u, updates, _dimensions(updates))
        return scaled, state._replace(ns_coeffs=None)

    def side(kind: str) -> str:
        return "muon" if kind in parameterization.MATRICES else "adam"

    transforms = {"muon": optax.GradientTransformation(init, update), "adam": adam}
    return optax.partition(transforms, lambda params: per_class(params, side))


def _dimensions(params: Any) -> Any:
    """For every matrix of the blocks, stacked by layer, which axes are its input and which its output."""

    def of(path: tuple[Any, ...], x: Any) -> optax.contrib.MuonDimensionNumbers:
        inputs = 2 if model.param_name(path) == "o" else 1  # heads and head size
        return optax.contrib.MuonDimensionNumbers(tuple(range(1, 1 + inputs)), tuple(range(1 + inputs, x.ndim)))

    return jax.tree_util.tree_map_with_path(of, params)


def _larger_side(x: Any, d: Any) -> int:
    """The larger one of a matrix's input and output sizes: an orthogonal one has a root mean square of 1 / sqrt of it."""
    return max(math.prod(x.shape[i] for i in axes) for axes in d)


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
