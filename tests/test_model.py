"""The Transformer against others' implementations, and what must not depend on how it is executed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from oracles import huggingface, plain

from scaling import config, model, objectives, parameterization, partition

SP = {"parameterization": "sp"}
LLAMA = {**SP, "norm_eps": 0.05, "rope_base": 100.0}
GPT2 = {
    **SP, "norm": "layernorm", "norm_bias": True, "positions": "learned", "activation": "gelu", "bias": True, "tied_head": True,
    "kv_heads": 4, "norm_eps": 0.05,
}  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def forward(c, params, tokens_BT, allowed_BTS=None):
    return model.apply(c, params, tokens_BT, allowed_BTS=allowed_BTS)


@functools.partial(jax.jit, static_argnums=0)
def draw(c, seed):
    return model.init(c, jax.random.key(seed))


def loss(c, params, tokens_BT):
    example = objectives.next_token(tokens_BT)
    return objectives.cross_entropy(model.apply(c, params, example.inputs_BT), example.targets_BT)[0].mean()


def assert_near(ours, theirs, tolerance=1e-4):
    """Logits are of order one, so an absolute tolerance is a relative one."""
    theirs = np.asarray(theirs)
    assert theirs.std() > 0.3, "logits too small to show a difference"
    assert np.max(np.abs(np.asarray(ours) - theirs)) < tolerance


# ------------------------------------------------------------------------------- against other implementations


@pytest.mark.parametrize("fields", [LLAMA, GPT2])
def test_logits_are_those_of_transformers(fields):
    # fails on another rotary layout, epsilon outside the root, erf GELU, heads in another order, an untied or transposed head
    c = tiny.model_config(**fields)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(2, c.context, c.vocab_size)
    assert_near(forward(c, params, tokens_BT), huggingface.logits(c, params, tokens_BT))


@pytest.mark.parametrize(
    "fields",
    [
        {"norm_position": "post"},
        {"norm_position": "post", "norm": "layernorm", "norm_bias": True, "activation": "relu", "positions": "sinusoidal"},
        {"norm": "layernorm", "qk_norm": True, "bias": True},
        {"qk_norm": True, "kv_heads": 1, "positions": "none", "activation": "relu"},
        {"positions": "sinusoidal", "activation": "gelu", "head_size": 4, "heads": 6, "kv_heads": 3},
        {"parameterization": "mup", "base_width": 8, "base_head_size": 2},
        {"parameterization": "mup", "base_width": 8, "tied_head": True, "positions": "learned", "z_loss": 1e-3},
    ],
)
def test_logits_are_those_of_the_papers(fields):
    # fails when an option is ignored, or a norm, bias, position, activation or multiplier stands in the wrong place
    c = tiny.model_config(**{**SP, "norm_eps": 0.05, "rope_base": 50.0} | fields)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(2, 9, c.vocab_size)
    assert_near(forward(c, params, tokens_BT), plain.logits(c, params, tokens_BT))


def test_allowed_keys_are_a_mask_on_top_of_the_causal_one():
    # fails when the mask is transposed, shared between rows, or replaces causality
    c = tiny.model_config(**LLAMA)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(2, 9, c.vocab_size)
    allowed_BTS = np.random.default_rng(3).random((2, 9, 9)) < 0.6
    allowed_BTS |= np.eye(9, dtype=bool)
    masked = forward(c, params, tokens_BT, allowed_BTS)
    assert_near(masked, plain.logits(c, params, tokens_BT, allowed_BTS))
    assert np.max(np.abs(masked - forward(c, params, tokens_BT))) > 0.1


def test_attention_to_another_sequence():
    # fails when queries and keys must be equally many, or causality cannot be switched off
    draw = np.random.default_rng(0)
    q, k, v = (draw.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 4, 6), (2, 5, 4, 6), (2, 5, 4, 6)))
    scores = np.einsum("bthk,bshk->bhts", q, k) * 0.7
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("bhts,bshk->bthk", weights, v)
    np.testing.assert_allclose(model.attention(q, k, v, scale=0.7, causal=False), expected, atol=1e-5)


# -------------------------------------------------------------------------------------- what must hold


@pytest.mark.parametrize("layers", ["unroll", "scan"])
def test_causality(layers):
    # fails when a position sees its successor: every logit before a changed token must stay the same to the bit
    c = tiny.model_config(layers=layers)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(1, c.context, c.vocab_size)
    before = np.asarray(forward(c, params, tokens_BT))
    for t in (1, 6, c.context - 1):
        changed = tokens_BT.copy()
        changed[0, t] = (changed[0, t] + 1) % c.vocab_size
        after = np.asarray(forward(c, params, changed))
        assert (before[0, :t] == after[0, :t]).all()
        assert (before[0, t:] != after[0, t:]).any(axis=-1).all()


def test_grouped_heads_are_repeated_full_heads():
    # fails when a group's queries read another group's keys
    grouped = tiny.model_config(kv_heads=2)
    params, tokens_BT = tiny.wide_params(grouped), tiny.tokens(2, 8, grouped.vocab_size)
    full = jax.tree.map(lambda x: x, params)
    for name in "kv":
        full["blocks"]["attention"][name] = np.repeat(params["blocks"]["attention"][name], 2, axis=2)
    assert_near(forward(grouped, params, tokens_BT), forward(dataclasses.replace(grouped, kv_heads=4), full, tokens_BT), 1e-5)


@functools.cache
def gradient(layers: str, remat: str):
    """The compiled gradient of one way of executing, its dot products before XLA's optimization, and what it gives."""
    c = tiny.model_config(layers=layers, remat=remat)
    params, windows = tiny.wide_params(c), tiny.tokens(4, c.context + 1, c.vocab_size)
    lowered = jax.jit(jax.value_and_grad(functools.partial(loss, c))).lower(params, windows)
    compiled = lowered.compile()
    return compiled, lowered.as_text().count("stablehlo.dot_general"), compiled(params, windows)


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize("layers", ["unroll", "scan"])
def test_scan_and_remat_change_no_result(layers, remat):
    # fails when one way of executing has other parameters, another order of layers, or drops a gradient
    (value, grads), (value_0, grads_0) = gradient(layers, remat)[2], gradient("unroll", "none")[2]
    assert abs(value - value_0) < 1e-6 * value_0
    norms = jax.tree.map(lambda g: np.linalg.norm(g), grads_0)
    assert min(jax.tree.leaves(norms)) > 0
    worst = jax.tree.map(lambda a, b, n: np.linalg.norm(a - b) / n, grads, grads_0, norms)
    assert max(jax.tree.leaves(worst)) < 1e-5


@pytest.mark.parametrize("layers", ["unroll", "scan"])
def test_remat_recomputes(layers):
    # fails when the policy is not applied: full remat repeats every product of a block in the backward pass, 'dots' only
    # those whose operands both carry the batch (scores and mix)
    products = {remat: gradient(layers, remat)[1] for remat in ("none", "dots", "full")}
    assert products["none"] < products["dots"] < products["full"]


def test_only_scan_has_a_loop():
    # fails when 'unroll' leaves a while loop in the program, or 'scan' none
    assert " while(" not in gradient("unroll", "none")[0].as_text()
    assert " while(" in gradient("scan", "none")[0].as_text()


def test_bf16_computes_in_bf16_and_keeps_parameters_and_logits_in_float32():
    # fails when parameters or logits lose precision, or when bf16 is asked for and float32 executed
    c = tiny.model_config(dtype="bfloat16", norm_position="pre")
    params = draw(c, 0)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    tokens_BT = tiny.tokens(2, c.context, c.vocab_size)
    logits = forward(c, params, tokens_BT)
    assert logits.dtype == jnp.float32
    exact = forward(dataclasses.replace(c, dtype="float32"), params, tokens_BT)
    error = np.abs(logits - exact).max() / exact.std()
    assert 1e-5 < error < 0.05
    grads = jax.eval_shape(jax.grad(functools.partial(loss, c)), params, tokens_BT)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    text = jax.jit(functools.partial(model.apply, c)).lower(params, tokens_BT).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products and all("xbf16>" in line.split(":")[-1].split("->")[0] for line in products)


def test_dropout_is_off_without_a_key():
    # fails when evaluation drops, or when a key does nothing
    c = tiny.model_config(dropout=0.5)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(2, c.context, c.vocab_size)
    off = forward(c, params, tokens_BT)
    assert (off == forward(dataclasses.replace(c, dropout=0.0), params, tokens_BT)).all()
    drop = jax.jit(lambda key: model.apply(c, params, tokens_BT, dropout_key=key))
    on = [drop(jax.random.key(k)) for k in (0, 0, 1)]
    assert (on[0] == on[1]).all()
    assert np.abs(on[0] - on[2]).max() > 0.1 and np.abs(on[0] - off).max() > 0.1


def test_init_is_the_flax_modules_tree_drawn_by_rule():
    # fails when init and the module disagree on a name or a shape, or one flat draw is cut up with overlaps
    c = tiny.model_config(zero_init_q=False, bias=True, qk_norm=True)
    params, other = draw(c, 0), draw(c, 1)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda x: x.shape, model.abstract_params(c))
    assert tiny.max_difference(params, draw(c, 0)) == 0
    drawn = {}
    for name, x in tiny.by_path(params).items():
        constant = np.ptp(x) == 0
        assert constant == (name.endswith("_bias") or name.split("/")[-1] in ("gain", "bias")), name
        if not constant:
            drawn[name] = np.ravel(x) / np.std(x)
            assert (np.asarray(x) != tiny.by_path(other)[name]).mean() > 0.99
    for name, x in drawn.items():
        others = [y for n, y in drawn.items() if n != name]
        assert not any(np.allclose(x[:20], y[:20]) or np.allclose(x[-20:], y[-20:]) for y in others), name


def test_a_large_models_init_is_split_over_devices():
    # fails when a device holds, while it draws, more than its part of the tree, or a large model is drawn at other scales
    c = config.model_config(depth=6, width=544, head_size=68, zero_init_q=False)
    shapes = model.abstract_params(c)
    n = sum(x.size for x in jax.tree.leaves(shapes))
    assert n > model.FLAT_DRAW
    shardings = partition.shardings(shapes, partition.make_mesh(config.MachineConfig(fsdp=8)))
    draw_split = jax.jit(functools.partial(model.init, c), out_shardings=shardings).lower(jax.random.key(0)).compile()
    assert draw_split.memory_analysis().temp_size_in_bytes < 4 * n / 4  # 0.2 of the tree when written; a flat draw: 1 and more
    table = parameterization.rules(c)
    for path, x in jax.tree_util.tree_flatten_with_path(draw_split(jax.random.key(0)))[0]:
        assert float(jnp.std(x)) == pytest.approx(
            table[parameterization.PARAMETERS[model.param_name(path)][0]].init_std, rel=0.02
        )
