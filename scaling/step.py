"""The training state and the step: pure functions, compiled once for a shape and a mesh."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scaling import fast, flops, model, objectives, optim, partition
from scaling.config import TrainConfig
from scaling.plan import Plan


class TrainState(NamedTuple):
    """Everything that training carries from step to step."""

    step: Array  # int32 ()
    params: Any
    opt_state: Any


class Metrics(NamedTuple):
    """Of one step, float32: mean nats per token, z-loss apart (), the gradient's norm before clipping (), and where one source
    of a mixture is reported (``data.loss_of``) the mean nats per token of each window (B,)."""

    loss: Array
    grad_norm: Array
    loss_B: Array | None = None


def named_key(seed: int, name: str) -> Array:
    """The random key of one use of a member's seed: ``init``, ``dropout``, ..."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def init_state(config: TrainConfig, tx: optax.GradientTransformation, key: Array) -> TrainState:
    """A fresh state; the optimizer's part of it is all zeros (checked by test)."""
    params = model.init(config.model, key)
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def loss_fn(
    config: TrainConfig, params: Any, windows: Array, forms: model.Forms, key: Array | None
) -> tuple[Array, tuple[Array, Array | None]]:
    """Mean nats per target over windows (B, T + 1), with and (second) without z-loss; last ``Metrics.loss_B``."""
    example = objectives.next_token(windows, config.data.rest)
    logits_BTV = model.apply(config.model, params, example.inputs_BT, dropout_key=key, forms=forms)
    nats_BT, log_z_BT = objectives.cross_entropy(logits_BTV, example.targets_BT)
    total = example.weights_BT.sum()
    nats = (nats_BT * example.weights_BT).sum() / total
    told = nats, (nats_BT * example.weights_BT).sum(1) / example.weights_BT.sum(1) if config.data.loss_of else None
    if not config.model.z_loss:
        return nats, told
    return nats + config.model.z_loss * (jnp.square(log_z_BT) * example.weights_BT).sum() / total, told


CACHED_TOKENS = 1024  # of a micro-batch on a CPU, whose activations then stay in cache: docs/performance.md


def micro_batches(config: TrainConfig, mesh: Mesh, windows: int) -> int:
    """Into how many parts a step takes a batch of ``windows``: as configured, else as suits the platform.

    With dropout it is one where the config leaves it open, since each part draws masks of its own.
    """
    if config.machine.micro_batches:
        return config.machine.micro_batches
    if mesh.devices.flat[0].platform != "cpu" or config.model.dropout:
        return 1
    rows = windows // (mesh.shape["data"] * mesh.shape["fsdp"])
    most = max(1, rows * config.model.context // CACHED_TOKENS)
    return max(n for n in range(1, most + 1) if rows % n == 0)


def train_step(
    config: TrainConfig,
    tx: optax.GradientTransformation,
    forms: model.Forms,
    mesh: Mesh,
    state: TrainState,
    windows: Array,
    lr: Array,
) -> tuple[TrainState, Metrics]:
    """One update from windows (B, T + 1) at learning rate ``lr``."""
    key = jax.random.fold_in(named_key(config.seed, "dropout"), state.step) if config.model.dropout else None
    gradient = jax.value_and_grad(functools.partial(loss_fn, config), has_aux=True)
    n = micro_batches(config, mesh, windows.shape[0])
    if n == 1:
        (_, (nats, loss_B)), grads = gradient(state.params, windows, forms, key)
    else:
        # Micro-batch i takes rows i::n, so that each is spread over the data axis as the whole batch is.
        parts = jnp.swapaxes(windows.reshape(-1, n, windows.shape[1]), 0, 1)

        def add(carry: Any, part: tuple[Array, Array]) -> tuple[Any, Array | None]:
            i, rows = part
            (_, (nats, loss_B)), grads = gradient(
                state.params, forms.constrain(rows), forms, None if key is None else jax.random.fold_in(key, i)
            )
            return jax.tree.map(jnp.add, carry, (nats, grads)), loss_B

        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params))
        total, parts_loss = jax.lax.scan(add, zeros, (jnp.arange(n), parts))
        loss_B = None if parts_loss is None else parts_loss.T.reshape(-1)
        nats, grads = jax.tree.map(lambda x: x / n, total)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optim.apply_updates(state.params, updates, lr)
    return TrainState(state.step + 1, params, opt_state), Metrics(nats, optim.global_norm(grads), loss_B)


def eval_step(config: TrainConfig, forms: model.Forms, params: Any, windows: Array) -> Array:
    """Nats of each window summed over its targets: (B,)."""
    example = objectives.next_token(windows)
    logits_BTV = model.apply(config.model, params, example.inputs_BT, forms=forms)
    nats_BT, _ = objectives.cross_entropy(logits_BTV, example.targets_BT)
    return (nats_BT * example.weights_BT).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a run executes, with shardings in and out; the state is donated to ``train``."""

    mesh: Mesh
    abstract_state: TrainState  # shapes, dtypes and shardings: what a checkpoint is restored into
    init: Callable[[Array], TrainState]
    train: Any  # (TrainState, windows (B, T + 1), learning rate) -> (TrainState, Metrics)
    evaluate: Any  # (params, windows (B, T + 1)) -> nats of each window (B,)


def make_programs(config: TrainConfig, mesh: Mesh) -> Programs:
    """Jitted init, train and evaluate for ``config`` on ``mesh``; nothing compiles before it is called.

    Raises:
      ConfigError: when the mesh does not divide a parameter.
    """
    tx = optim.optimizer(config.model, config.optim)
    forms = dataclasses.replace(fast.forms(mesh.devices.flat[0]), constrain=partition.constrain_activations(mesh))
    shapes = jax.eval_shape(functools.partial(init_state, config, tx), jax.random.key(0))
    state_sharding = partition.shardings(shapes, mesh)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, state_sharding)
    rows, whole = partition.batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    return Programs(
        mesh=mesh,
        abstract_state=abstract,
        init=functools.partial(_first_state, _draw_params(config, abstract.params), abstract),
        train=jax.jit(
            functools.partial(train_step, config, tx, forms, mesh),
            in_shardings=(state_sharding, rows, whole),
            out_shardings=(state_sharding, whole),
            donate_argnums=0,
        ),
        evaluate=jax.jit(
            functools.partial(eval_step, config, forms), in_shardings=(state_sharding.params, rows), out_shardings=whole
        ),
    )


def _first_state(draw: Callable[[Array], Any], abstract: TrainState, key: Array) -> TrainState:
    """The state that ``init_state`` describes, with the zeros of the optimizer written shard by shard: as a part of one
    program they took longer to compile (0.6 s for 27 arrays) than the parameters.
    """

    def zeros(leaf: Any) -> Array:
        def shard(index: Any) -> np.ndarray:
            return np.zeros([len(range(*part.indices(size))) for part, size in zip(index, leaf.shape, strict=True)], leaf.dtype)

        return jax.make_array_from_callback(leaf.shape, leaf.sharding, shard)

    return TrainState(zeros(abstract.step), draw(key), jax.tree.map(zeros, abstract.opt_state))


def _draw_params(config: TrainConfig, abstract: Any) -> Callable[[Array], Any]:
    """Draws the parameters, the same to the bit on every mesh, so that no device holds more than its share of a large model.

    XLA draws the flat vector of a small model whole on every device and cuts it by dozens of collectives, so where parameters
    are split, one device of each process draws it (at most ``model.FLAT_DRAW`` numbers, 80 MB) and the host cuts it.
    """
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    split = not all(s.is_fully_replicated for s in jax.tree.leaves(shardings))
    staged = split and flops.n_params(config.model)["total"] <= model.FLAT_DRAW
    program = jax.jit(functools.partial(model.init, config.model), out_shardings=None if staged else shardings)

    def draw(key: Array) -> Any:
        if not staged:
            return program(key)
        whole = jax.device_get(program(key))
        return jax.tree.map(lambda x, s: jax.make_array_from_callback(x.shape, s, x.__getitem__), whole, shardings)

    return draw


def compile_evaluate(programs: Programs, plan: Plan, context: int) -> Any:
    """Evaluation compiled ahead, for batches as large as the training step's."""
    windows = jax.ShapeDtypeStruct((plan.batch_windows, context + 1), jnp.int32)
    return programs.evaluate.lower(programs.abstract_state.params, windows).compile()


def compile_train(programs: Programs, plan: Plan, context: int) -> Any:
    """The training step compiled ahead for its one shape, so that compile time is known apart from step time."""
    windows = jax.ShapeDtypeStruct((plan.batch_windows, context + 1), jnp.int32)
    return programs.train.lower(programs.abstract_state, windows, jax.ShapeDtypeStruct((), jnp.float32)).compile()
