"""The Transformer: one family, pure functions over a tree of parameters.

    from scaling import model
    config = model.size("1.2M")
    params = model.init(config, jax.random.key(0))
    logits_BTV = model.apply(config, params, tokens_BT)

Letters: B batch, T query time, S key time, D width, H heads, G key/value heads, K head size, F feed-forward, V vocabulary.
Parameters of all blocks are stacked on a leading layer axis, whether layers are scanned or unrolled.
An architecture is a mask and a set of blocks: ``Block`` attends from ``x_BTD`` to any ``source_BSD`` under any mask.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from scaling import parameterization
from scaling.config import ModelConfig, model_config, size
from scaling.presets import preset

__all__ = [
    "Cache", "ModelConfig", "Transformer", "apply", "attention", "empty_cache", "extend", "init", "model_config", "prefill",
    "preset", "resized", "rows_of", "size",
]  # fmt: skip

FLAT_DRAW = 20_000_000  # parameters


def linear(x: Array, w: Array, *, contract: int = 1, out_dtype: Any = None) -> Array:
    """The last ``contract`` axes of ``x`` times the first of ``w``: accumulated in float32, then in the dtype of ``x``."""
    axes = tuple(range(x.ndim - contract, x.ndim)), tuple(range(contract))
    return jax.lax.dot_general(x, w, (axes, ((), ())), preferred_element_type=jnp.float32).astype(out_dtype or x.dtype)


def attention(
    q_BTHK: Array, k_BSGK: Array, v_BSGK: Array, *, scale: float, causal: bool, allowed_BTS: Array | None = None
) -> Array:
    """Softmax attention; every model goes through this one function.

    Args:
      scale: multiplies the scores.
      causal: query t sees keys up to t (T = S).
      allowed_BTS: an additional boolean mask, for padding or a visible prefix.

    Returns:
      out_BTHK, in the dtype of ``q_BTHK``; scores and softmax are float32.
    """
    T, H = q_BTHK.shape[1:3]
    S, G = k_BSGK.shape[1:3]
    # Query heads of one key/value head lie side by side: head h reads k[h // (H/G)] (Ainslie et al. 2023).
    k_BSHK = k_BSGK if G == H else jnp.repeat(k_BSGK, H // G, axis=2)
    v_BSHK = v_BSGK if G == H else jnp.repeat(v_BSGK, H // G, axis=2)
    # Heads before time: as (B, T, H, K) the same products took XLA's CPU code 2 to 8 times longer.
    q_BHTK, k_BHSK, v_BHSK = (jnp.swapaxes(x, 1, 2) for x in (q_BTHK, k_BSHK, v_BSHK))
    scores_BHTS = scale * jnp.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK, preferred_element_type=jnp.float32)
    if causal:
        scores_BHTS = jnp.where(np.tri(T, S, dtype=bool), scores_BHTS, -jnp.inf)
    if allowed_BTS is not None:
        scores_BHTS = jnp.where(allowed_BTS[:, None], scores_BHTS, -jnp.inf)
    # Softmax, divided after the product with v rather than before: K divisions per query instead of S.
    top_BHT1 = jax.lax.stop_gradient(scores_BHTS.max(axis=-1, keepdims=True))
    weights_BHTS = jnp.exp(scores_BHTS - top_BHT1)
    out_BHTK = jnp.einsum("BHTS,BHSK->BHTK", weights_BHTS.astype(v_BHSK.dtype), v_BHSK, preferred_element_type=jnp.float32)
    out_BHTK = out_BHTK / weights_BHTS.sum(axis=-1, keepdims=True)
    return jnp.swapaxes(out_BHTK, 1, 2).astype(q_BTHK.dtype)


@dataclasses.dataclass(frozen=True)
class Forms:
    """How the model's operations are carried out, with equal values and gradients: the products plainly or as suits a platform
    (``scaling.fast``), activations anywhere or pinned to a sharding.
    """

    linear: Callable[..., Array] = linear
    attention: Callable[..., Array] = attention
    constrain: Callable[[Array], Array] = lambda x: x  # of activations with a leading batch axis


PLAIN = Forms()


def rotary_turns(positions: Array | np.ndarray, head_size: int, base: float) -> tuple[Array, Array]:
    """Cosine and sine of the angles of rotary positions (Su et al. 2021): positions (T,) or (B, T) to (..., T, 1, K/2).

    Positions known while tracing give constants, which cost nothing in the step.
    """
    xp: Any = np if isinstance(positions, np.ndarray) else jnp
    frequencies = base ** (-np.arange(head_size // 2, dtype=np.float32) / (head_size // 2))
    angles = positions[..., None, None].astype(np.float32) * frequencies
    return xp.cos(angles), xp.sin(angles)


def rotary(x_BTHK: Array, turns: tuple[Array, Array]) -> Array:
    """Turns the two halves of a head against each other, as in Llama."""
    cos, sin = turns
    halves = x_BTHK.astype(jnp.float32).reshape(*x_BTHK.shape[:-1], 2, -1)
    signed = jnp.stack([-sin, sin], axis=-2)
    turned = halves * cos[..., None, :] + jnp.flip(halves, axis=-2) * signed
    return turned.reshape(x_BTHK.shape).astype(x_BTHK.dtype)


def sinusoids(positions: Array | np.ndarray, width: int) -> Array:
    """Sinusoidal positions (Vaswani et al. 2017), sines then cosines: positions (T,) or (B, T) to (..., T, D)."""
    half = width // 2
    angles = positions[..., None] * 10_000.0 ** (-np.arange(half, dtype=np.float32) / half)
    odd = jnp.zeros((*angles.shape[:-1], width - 2 * half))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles), odd], axis=-1)


class _Parts(nn.Module):
    """Parameters by name, drawn by the rule of their class."""

    config: ModelConfig

    def get(self, name: str, *shape: int) -> Array:
        rule = parameterization.rules(self.config)[parameterization.class_of((*self.path, name))]

        def draw(key: Array) -> Array:
            return rule.init_mean + rule.init_std * jax.random.normal(key, shape, jnp.float32)

        return self.param(name, draw)

    def matrix(self, name: str, *shape: int) -> Array:
        """A parameter in the compute dtype."""
        return self.get(name, *shape).astype(self.config.dtype)


class Norm(_Parts):
    """RMSNorm or LayerNorm over the last axis, in float32."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.config
        y = x.astype(jnp.float32)
        if c.norm == "layernorm":
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + c.norm_eps) * self.get("gain", x.shape[-1])
        if c.norm_bias:
            y = y + self.get("bias", x.shape[-1])
        return y.astype(x.dtype)


class Attention(_Parts):
    """Multi-head attention from ``x_BTD`` to ``source_BSD``."""

    forms: Forms = PLAIN

    @nn.compact
    def __call__(
        self, x_BTD: Array, source_BSD: Array, turns: tuple[Array, Array] | None, causal: bool, allowed_BTS: Array | None
    ) -> Array:
        c, linear = self.config, self.forms.linear
        q_BTHK = linear(x_BTD, self.matrix("q", c.width, c.heads, c.head_size))
        k_BSGK = linear(source_BSD, self.matrix("k", c.width, c.kv_heads, c.head_size))
        v_BSGK = linear(source_BSD, self.matrix("v", c.width, c.kv_heads, c.head_size))
        if c.bias:
            q_BTHK += self.matrix("q_bias", c.heads, c.head_size)
            k_BSGK += self.matrix("k_bias", c.kv_heads, c.head_size)
            v_BSGK += self.matrix("v_bias", c.kv_heads, c.head_size)
        if c.qk_norm:
            q_BTHK = Norm(c, name="q_norm")(q_BTHK)
            k_BSGK = Norm(c, name="k_norm")(k_BSGK)
        if turns is not None:
            q_BTHK, k_BSGK = rotary(q_BTHK, turns), rotary(k_BSGK, turns)
        scale = parameterization.attention_scale(c)
        out_BTHK = self.forms.attention(q_BTHK, k_BSGK, v_BSGK, scale=scale, causal=causal, allowed_BTS=allowed_BTS)
        out_BTD = linear(out_BTHK, self.matrix("o", c.heads, c.head_size, c.width), contract=2)
        return out_BTD + self.matrix("o_bias", c.width) if c.bias else out_BTD


class Mlp(_Parts):
    """SwiGLU (Shazeer 2020), or two matrices with GELU (tanh form, as GPT-2) or ReLU."""

    forms: Forms = PLAIN

    @nn.compact
    def __call__(self, x_BTD: Array) -> Array:
        c = self.config

        linear = self.forms.linear

        def project(name: str) -> Array:
            y_BTF = linear(x_BTD, self.matrix(name, c.width, c.ff))
            return y_BTF + self.matrix(f"{name}_bias", c.ff) if c.bias else y_BTF

        if c.activation == "swiglu":
            hidden_BTF = jax.nn.silu(project("gate")) * project("up")
        else:
            hidden_BTF = (jax.nn.gelu if c.activation == "gelu" else jax.nn.relu)(project("up"))
        out_BTD = linear(hidden_BTF, self.matrix("down", c.ff, c.width))
        return out_BTD + self.matrix("down_bias", c.width) if c.bias else out_BTD


class Block(nn.Module):
    """Attention and MLP, each on a residual branch."""

    config: ModelConfig
    causal: bool
    deterministic: bool
    forms: Forms = PLAIN

    @nn.compact
    def __call__(self, x_BTD: Array, turns: tuple[Array, Array] | None, allowed_BTS: Array | None) -> tuple[Array, None]:
        c = self.config

        def branch(x_BTD: Array, norm: str, f: Callable[[Array], Array]) -> Array:
            pre = c.norm_position == "pre"
            y_BTD = f(Norm(c, name=norm)(x_BTD) if pre else x_BTD)
            y_BTD *= parameterization.branch_multiplier(c)
            y_BTD = x_BTD + nn.Dropout(c.dropout, deterministic=self.deterministic)(y_BTD)
            return self.forms.constrain(y_BTD if pre else Norm(c, name=norm)(y_BTD))

        def attend(h_BTD: Array) -> Array:
            return Attention(c, self.forms, name="attention")(h_BTD, h_BTD, turns, self.causal, allowed_BTS)

        x_BTD = branch(x_BTD, "attention_norm", attend)
        x_BTD = branch(x_BTD, "mlp_norm", Mlp(c, self.forms, name="mlp"))
        return x_BTD, None


def _stack(c: ModelConfig) -> Any:
    """``depth`` blocks with stacked parameters, scanned or unrolled, rematerialised by policy."""
    block: Any = Block
    if c.remat != "none":
        policy = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}[c.remat]
        block = nn.remat(block, policy=policy, prevent_cse=c.layers == "unroll")
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=c.depth,
        unroll=c.depth if c.layers == "unroll" else 1,
    )


class Cache(NamedTuple):
    """Keys and values of the tokens that a model has read, for later tokens to attend to (``prefill``, ``extend``).

    A slot is a place for one token.  All rows of a batch take the same slots at a time; where a row has less to say, some stay
    empty and are never attended to.  A token's position is the number of filled slots before it in its row.

    Attributes:
      k_BGKS, v_BGSK: of each layer, S slots, in the compute dtype, keys after their rotation.  An array for each, because a
        layer cut from a stack is copied at every step; in these layouts both products of attention read memory in order.
      filled_BS: bool, the slots that hold a token.
      used: int32 (), how many slots are taken: the next token goes there.
    """

    k_BGKS: tuple[Array, ...]
    v_BGSK: tuple[Array, ...]
    filled_BS: Array
    used: Array

    @property
    def slots(self) -> int:
        """S."""
        return self.filled_BS.shape[1]


def attention_to_cache(q_BTHK: Array, k_BGKS: Array, v_BGSK: Array, *, scale: float, allowed_BTS: Array) -> Array:
    """As ``attention``, over keys and values as a cache holds them."""
    (B, T, H, K), G = q_BTHK.shape, k_BGKS.shape[1]
    q_BGRTK = jnp.moveaxis((q_BTHK * scale).reshape(B, T, G, H // G, K), 1, 3)  # R queries of a token read the same key
    scores_BGRTS = jnp.einsum("BGRTK,BGKS->BGRTS", q_BGRTK, k_BGKS, preferred_element_type=jnp.float32)
    scores_BGRTS = jnp.where(allowed_BTS[:, None, None], scores_BGRTS, -jnp.inf)
    weights_BGRTS = jnp.exp(scores_BGRTS - scores_BGRTS.max(axis=-1, keepdims=True))
    out_BGRTK = jnp.einsum("BGRTS,BGSK->BGRTK", weights_BGRTS.astype(v_BGSK.dtype), v_BGSK, preferred_element_type=jnp.float32)
    out_BGRTK = out_BGRTK / weights_BGRTS.sum(axis=-1, keepdims=True)
    return jnp.moveaxis(out_BGRTK, 3, 1).reshape(B, T, H, K).astype(q_BTHK.dtype)


@dataclasses.dataclass(frozen=True)
class _Continuation:
    """How ``extend`` differs from ``apply``: tokens that go on from earlier ones, and what takes them through the blocks."""

    positions_BT: Array
    end: int  # no position lies beyond it
    blocks: Callable[[Array, tuple[Array, Array] | None], Array]


class Transformer(_Parts):
    """A decoder-only language model."""

    deterministic: bool = True
    forms: Forms = PLAIN

    @nn.compact
    def __call__(self, tokens_BT: Array, allowed_BTS: Array | None = None, after: _Continuation | None = None) -> Array:
        c = self.config
        positions = np.arange(tokens_BT.shape[1]) if after is None else after.positions_BT
        embedding_VD = self.get("embedding", c.vocab_size, c.width)
        x_BTD = embedding_VD[tokens_BT]
        if c.positions == "learned":
            x_BTD += self.get("positions", c.context, c.width)[positions]
        x_BTD *= parameterization.input_multiplier(c)  # both tables are stored at the same scale
        if c.positions == "sinusoidal":
            # Of traced positions as well the angles are computed beforehand, in float64.
            x_BTD += sinusoids(positions, c.width) if after is None else sinusoids(np.arange(after.end), c.width)[positions]
        x_BTD = self.forms.constrain(x_BTD.astype(c.dtype))
        x_BTD = nn.Dropout(c.dropout, deterministic=self.deterministic)(x_BTD)
        turns = rotary_turns(positions, c.head_size, c.rope_base) if c.positions == "rotary" else None
        if after is None:
            blocks = _stack(c)(c, True, self.deterministic, self.forms, name="blocks")
            x_BTD, _ = blocks(x_BTD, turns, allowed_BTS)
        else:
            x_BTD = after.blocks(x_BTD, turns)
        if c.norm_position == "pre":
            x_BTD = Norm(c, name="final_norm")(x_BTD)
        head_DV = embedding_VD.T if c.tied_head else self.get("head", c.width, c.vocab_size)
        logits_BTV = self.forms.linear(x_BTD, head_DV.astype(c.dtype), out_dtype=jnp.float32)
        return logits_BTV * parameterization.logit_multiplier(c)


def apply(
    config: ModelConfig,
    params: Any,
    tokens_BT: Array,
    *,
    allowed_BTS: Array | None = None,
    dropout_key: Array | None = None,
    forms: Forms = PLAIN,
) -> Array:
    """Next-token logits_BTV, float32.

    Args:
      params: the tree that ``init`` returns.
      tokens_BT: int32 ids, T at most ``config.context`` for learned positions.
      allowed_BTS: an additional boolean mask on top of the causal one.
      dropout_key: turns dropout on.
      forms: how operations are carried out; ``scaling.fast.forms`` has those that suit a platform.
    """
    module = Transformer(config, deterministic=dropout_key is None, forms=forms)
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    logits_BTV: Any = module.apply({"params": params}, tokens_BT, allowed_BTS, rngs=rngs)
    return logits_BTV


def empty_cache(config: ModelConfig, batch: int, length: int) -> Cache:
    """A cache of ``length`` empty slots for ``batch`` rows."""
    B, G, K, S = batch, config.kv_heads, config.head_size, length
    k, v = (tuple(jnp.zeros(shape, config.dtype) for _ in range(config.depth)) for shape in ((B, G, K, S), (B, G, S, K)))
    return Cache(k, v, jnp.zeros((batch, length), bool), jnp.zeros((), jnp.int32))


def rows_of(cache: Cache, rows_B: Array | np.ndarray) -> Cache:
    """The cache of these rows: ``np.zeros(16, int)`` makes sixteen of the one that a common beginning was read into."""
    k, v, filled_BS = jax.tree.map(lambda x: x[rows_B], cache[:3])
    return Cache(k, v, filled_BS, cache.used)


def resized(cache: Cache, length: int) -> Cache:
    """The same with ``length`` slots: with more empty ones at the end, or without the last ones, which must be empty."""

    def fit(x: Array, axis: int) -> Array:
        more = [(0, max(0, length - cache.slots) if i == axis else 0) for i in range(x.ndim)]
        return jax.lax.slice_in_dim(jnp.pad(x, more), 0, length, axis=axis)

    k, v = tuple(fit(x, 3) for x in cache.k_BGKS), tuple(fit(x, 2) for x in cache.v_BGSK)
    return Cache(k, v, fit(cache.filled_BS, 1), cache.used)


def prefill(
    config: ModelConfig,
    params: Any,
    tokens_BT: Array,
    length: int,
    *,
    real_BT: Array | None = None,
    wanted_BN: Array | None = None,
    forms: Forms = PLAIN,
) -> tuple[Array, Cache]:
    """As ``extend`` of an empty cache of ``length`` slots (at least T), without the cost of looking for tokens in it."""
    empty = empty_cache(config, tokens_BT.shape[0], 0)
    logits, cache = extend(config, params, tokens_BT, empty, real_BT=real_BT, wanted_BN=wanted_BN, forms=forms)
    return logits, resized(cache, length)


def extend(
    config: ModelConfig,
    params: Any,
    tokens_BT: Array,
    cache: Cache,
    *,
    real_BT: Array | None = None,
    wanted_BN: Array | None = None,
    positions_BT: Array | None = None,
    allowed_BTS: Array | None = None,
    forms: Forms = PLAIN,
) -> tuple[Array, Cache]:
    """Reads tokens that follow those in ``cache``: logits_BTV, as ``apply`` of the whole text has them, and the cache after.

    The next T slots become theirs.  The caller sees to it that they are there (where they are not, XLA writes over the last
    ones: then the logits of more than one token are still right, the cache is not) and that learned positions stay below
    ``config.context``.

    Args:
      tokens_BT: int32 ids.
      real_BT: bool, False at padding, which may stand anywhere: later tokens never attend to it, and its logits mean nothing.
      wanted_BN: of each row the tokens (indices into T) whose logits are wanted; logits_BNV are returned.
      positions_BT, allowed_BTS: of tokens that do not all follow each other, such as branches of one text: their positions, and
        which of the new tokens (S = T) each sees, in place of those up to itself.
      forms: as in ``apply``; attention to what is in a cache has its own form, ``attention_to_cache``.
    """
    (B, T), old = tokens_BT.shape, cache.slots
    real = jnp.ones((B, T), bool) if real_BT is None else real_BT
    if positions_BT is None:
        before_B1 = cache.filled_BS.sum(axis=1, keepdims=True, dtype=jnp.int32)
        positions_BT = before_B1 + jnp.cumsum(real, axis=1, dtype=jnp.int32) - real
    if allowed_BTS is None and (old or real_BT is not None):
        # Padding sees itself: a softmax over nothing is no number, and no number times a weight of zero is none either.
        allowed_BTS = (real[:, None] & np.tri(T, dtype=bool)) | np.eye(T, dtype=bool)
    at_once = old > 0 and T == 1  # one token is written into its slot and then read there: nothing is copied
    if old and allowed_BTS is not None:
        seen_BTS = jnp.broadcast_to(cache.filled_BS[:, None], (B, T, old))
        if at_once:
            allowed_BTS = jax.lax.dynamic_update_slice_in_dim(seen_BTS, allowed_BTS, cache.used, 2)
        else:
            allowed_BTS = jnp.concatenate([seen_BTS, allowed_BTS], axis=2)
    kept: list[tuple[Array, Array]] = []

    def attention_in(layer: int) -> Callable[..., Array]:
        def attention(q_BTHK: Array, k_BTGK: Array, v_BTGK: Array, **options: Any) -> Array:
            new = (jnp.moveaxis(k_BTGK, 1, 3), 3), (jnp.swapaxes(v_BTGK, 1, 2), 2)
            if not old:
                kept.append((new[0][0], new[1][0]))
                return forms.attention(q_BTHK, k_BTGK, v_BTGK, **options)
            past = cache.k_BGKS[layer], cache.v_BGSK[layer]
            pairs = list(zip(past, new, strict=True))
            k, v = (jax.lax.dynamic_update_slice_in_dim(x, y, cache.used, axis) for x, (y, axis) in pairs)
            kept.append((k, v))
            if not at_once:
                k, v = (jnp.concatenate([x, y], axis) for x, (y, axis) in pairs)
            return attention_to_cache(q_BTHK, k, v, scale=options["scale"], allowed_BTS=options["allowed_BTS"])

        return attention

    def blocks(x_BTD: Array, turns: tuple[Array, Array] | None) -> Array:
        for layer in range(config.depth):  # written out, whether ``apply`` scans them or not: there is no gradient to store
            block = Block(config, True, True, dataclasses.replace(forms, attention=attention_in(layer)))
            weights = jax.tree.map(lambda x, layer=layer: x[layer], params["blocks"])
            x_BTD, _ = block.apply({"params": weights}, x_BTD, turns, allowed_BTS)
        return x_BTD if wanted_BN is None else jnp.take_along_axis(x_BTD, wanted_BN[..., None], axis=1)

    after = _Continuation(positions_BT, old + T, blocks)
    logits: Any = Transformer(config, forms=forms).apply({"params": params}, tokens_BT, None, after)
    k, v = zip(*kept, strict=True)
    filled_BS = jax.lax.dynamic_update_slice_in_dim(cache.filled_BS, real, cache.used, 1) if old else real
    return logits, Cache(k, v, filled_BS, cache.used + T)


@functools.lru_cache(maxsize=32)
def abstract_params(config: ModelConfig) -> Any:
    """The parameter tree as ``jax.ShapeDtypeStruct``s."""
    tokens_BT = jax.ShapeDtypeStruct((1, min(8, config.context)), jnp.int32)
    return jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens_BT)["params"]


def param_name(path: tuple[Any, ...]) -> str:
    """The last dictionary key of a tree path: the key of ``parameterization.PARAMETERS``."""
    return [k.key for k in path if isinstance(k, jax.tree_util.DictKey)][-1]


def init(config: ModelConfig, key: Array) -> Any:
    """Draws all parameters by the rules of the parameterization.

    Small models are cut from one flat normal vector, since a draw per leaf takes longer to compile than the training step;
    above ``FLAT_DRAW`` parameters each leaf has its own draw, which can be split over devices, as a flat vector cannot.
    """
    rules = parameterization.rules(config)
    leaves, tree = jax.tree_util.tree_flatten_with_path(abstract_params(config))
    sizes = [leaf.size for _, leaf in leaves]
    if sum(sizes) <= FLAT_DRAW:
        parts = jnp.split(jax.random.normal(key, (sum(sizes),), jnp.float32), np.cumsum(sizes)[:-1])
        draws = [part.reshape(leaf.shape) for part, (_, leaf) in zip(parts, leaves, strict=True)]
    else:
        draws = [jax.random.normal(jax.random.fold_in(key, i), leaf.shape) for i, (_, leaf) in enumerate(leaves)]
    of = [rules[parameterization.class_of([k.key for k in path])] for path, _ in leaves]
    out = [rule.init_mean + rule.init_std * draw for rule, draw in zip(of, draws, strict=True)]
    return jax.tree_util.tree_unflatten(tree, out)
