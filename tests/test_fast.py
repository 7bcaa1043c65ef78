"""The CPU forms equal the plain ones in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from scaling import fast, model, step


def draw(i, *shape):
    return jax.random.normal(jax.random.key(i), shape)


def out_and_gradients(f, *args):
    """Value and pull-back of a random cotangent, float64-sized numpy arrays."""
    out, pull = jax.vjp(f, *args)
    return [np.asarray(x, np.float64) for x in (out, *pull(draw(9, *out.shape).astype(out.dtype)))]


def assert_same(f, g, *args, tolerance=2e-6):
    for a, b in zip(out_and_gradients(jax.jit(f), *args), out_and_gradients(jax.jit(g), *args), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("contract", [1, 2])
def test_linear(contract):
    x, w = (draw(0, 2, 5, 12), draw(1, 12, 3, 4)) if contract == 1 else (draw(0, 2, 5, 3, 4), draw(1, 3, 4, 7))
    assert_same(functools.partial(fast.linear, contract=contract), functools.partial(model.linear, contract=contract), x, w)


def test_linear_with_many_columns():
    x, w = draw(0, 3, 5, 4), draw(1, 4, fast.WIDE)
    assert_same(fast.linear, model.linear, x, w)


def test_linear_in_bfloat16_accumulates_in_float32():
    """4096 terms of bfloat16: sums kept in bfloat16 would be off by several per cent."""
    x, w = (draw(i, *shape).astype(jnp.bfloat16) for i, shape in enumerate([(64, 4096), (4096, 8)]))
    exact = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    for form in (fast.linear, model.linear):
        y = form(x, w, out_dtype=jnp.float32)
        assert y.dtype == jnp.float32 and form(x, w).dtype == jnp.bfloat16
        np.testing.assert_allclose(y, exact, atol=1e-4 * np.abs(exact).max())
    _, dx, dw = out_and_gradients(functools.partial(fast.linear, out_dtype=jnp.float32), x, w)
    g = np.asarray(draw(9, 64, 8).astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(dw, np.asarray(x, np.float64).T @ g, rtol=1e-2, atol=0.1)
    np.testing.assert_allclose(dx, g @ np.asarray(w, np.float64).T, rtol=1e-2, atol=0.05)


@pytest.mark.parametrize(("T", "heads", "kv_heads"), [(7, 2, 2), (64, 2, 1), (150, 4, 2), (350, 1, 1)])
def test_attention(T, heads, kv_heads):
    """One block, several, blocks of unequal length; shared key/value heads."""
    q, k, v = draw(0, 2, T, heads, 8), draw(1, 2, T, kv_heads, 8), draw(2, 2, T, kv_heads, 8)
    of = [functools.partial(form, scale=0.7, causal=True) for form in (fast.attention, model.attention)]
    assert_same(*of, q, k, v)


def test_attention_in_bfloat16():
    """Within its rounding: a sum kept in bfloat16 over 150 keys would be off by more."""
    q, k, v = (draw(i, 2, 150, 2, 8) for i in range(3))
    of = [functools.partial(form, scale=0.3, causal=True) for form in (fast.attention, model.attention)]
    ours = out_and_gradients(jax.jit(of[0]), *(x.astype(jnp.bfloat16) for x in (q, k, v)))
    for a, b in zip(ours, out_and_gradients(jax.jit(of[1]), q, k, v), strict=True):
        np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max(), rtol=0)


def test_attention_survives_large_scores():
    """Scores around 1000: an exponential without its maximum taken off would overflow."""
    q, k, v = (30 * draw(i, 1, 130, 1, 8) for i in range(3))
    of = [functools.partial(form, scale=1.0, causal=True) for form in (fast.attention, model.attention)]
    assert_same(*of, q, k, v, tolerance=1e-4)


def test_other_masks_take_the_plain_form():
    q, k, v = (draw(i, 2, 6, 2, 4) for i in range(3))
    allowed = jnp.asarray(np.random.default_rng(0).random((2, 6, 6)) < 0.7) | jnp.eye(6, dtype=bool)
    for causal, mask in ((True, allowed), (False, None)):
        of = [functools.partial(f, scale=0.5, causal=causal, allowed_BTS=mask) for f in (fast.attention, model.attention)]
        assert_same(*of, q, k, v)


FIELDS = {
    "default": {},
    "scanned, all recomputed": {"layers": "scan", "remat": "full"},
    "products kept": {"remat": "dots"},
    "GPT-2": {
        "activation": "gelu", "norm": "layernorm", "norm_bias": True, "positions": "learned", "bias": True, "tied_head": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FIELDS)
def test_the_loss_of_a_model_and_its_gradient(kind):
    fields = FIELDS[kind]
    c = tiny.train_config(model_context=70, batch="140 tokens", **{f"model_{k}": v for k, v in fields.items()})
    params, windows = tiny.wide_params(c.model), tiny.tokens(2, 71, 260)
    results = []
    for forms in (fast.CPU, model.PLAIN):
        f = jax.jit(jax.value_and_grad(lambda p, forms=forms: step.loss_fn(c, p, windows, forms, None)[0]))
        results.append(f(params))
    (a, da), (b, db) = results
    np.testing.assert_allclose(a, b, rtol=1e-6)
    largest = max(float(jnp.abs(y).max()) for y in jax.tree.leaves(db))
    for name, y in tiny.by_path(db).items():
        at_least = 1e-3 * largest  # the exact gradient of a key's bias is 0
        np.testing.assert_allclose(tiny.by_path(da)[name], y, atol=3e-6 * max(float(jnp.abs(y).max()), at_least), err_msg=name)


def test_a_cpu_gets_the_cpu_forms():
    assert fast.forms(jax.devices("cpu")[0]) is fast.CPU
