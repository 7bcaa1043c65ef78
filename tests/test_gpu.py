"""GPU forms, as far as a CPU can judge them: values, gradients, and what they lower to for a GPU."""

import functools
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from oracles import require

from scaling import fast, gpu, model

REPO = pathlib.Path(__file__).parents[1]


def arrays(dtype, *shapes):
    draw = np.random.default_rng(0)
    return [jnp.asarray(draw.standard_normal(shape), dtype) for shape in shapes]


def with_gradients(f, *args):
    """f(*args) and its gradient to every argument, for a gradient that differs from place to place."""

    @jax.jit
    def run(*args):
        out, pull = jax.vjp(f, *args)
        return out, *pull(jnp.asarray(np.random.default_rng(1).standard_normal(out.shape), out.dtype))

    return run(*args)


@pytest.mark.parametrize("out_dtype", [None, jnp.float32])
@pytest.mark.parametrize(("contract", "w"), [(1, (8, 2, 6)), (2, (4, 8, 6))])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_linear_is_the_plain_one(dtype, contract, w, out_dtype):
    # fails when axes are contracted in another order, or a gradient is not that of the product
    x, w = arrays(dtype, (2, 3, 4, 8), w)
    plain, ours = (
        with_gradients(functools.partial(f, contract=contract, out_dtype=out_dtype), x, w) for f in (model.linear, gpu.linear)
    )
    for a, b in zip(plain, ours, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        tolerance = 1e-5 if dtype == jnp.float32 else 0.02  # bfloat16 keeps 8 bits
        scale = float(jnp.abs(a).max())
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance * scale)


def test_no_product_of_the_backward_pass_is_wider_than_the_forward_one():
    # fails when a float32 gradient reaches a matrix product: on tensor cores that halves its rate or worse
    c = tiny.model_config(dtype="bfloat16")
    params, tokens = tiny.wide_params(c), tiny.tokens(2, 8, c.vocab_size)

    def loss(params, forms):
        return jax.nn.logsumexp(model.apply(c, params, tokens, forms=forms)).sum()

    def wide_products(linear) -> list[str]:
        # Without attention, whose plain form has float32 products by design.
        forms = model.Forms(linear=linear, attention=lambda q, k, v, **_: q)
        program = str(jax.make_jaxpr(jax.grad(functools.partial(loss, forms=forms)))(params))
        types = dict(re.findall(r"(\w+):(\w+)\[", program))
        products = re.findall(r"dot_general\[.*?\] (\w+) (\w+)", program, re.S)
        assert len(products) > 10
        return [f"{types[a]} x {types[b]}" for a, b in products if "f32" in (types[a], types[b])]

    assert wide_products(model.linear) and not wide_products(gpu.linear)


def test_attention_by_flags_is_the_plain_one(monkeypatch):
    # fails when scale, causality or the order of grouped heads mean something else to jax.nn than to the model: its XLA form,
    # which a CPU can run, takes the same arguments as cuDNN's
    by_xla = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *a, implementation, **k: by_xla(*a, implementation="xla", **k))
    q, k, v = arrays(jnp.bfloat16, (2, 16, 4, 8), (2, 16, 2, 8), (2, 16, 2, 8))
    for causal in (True, False):
        plain, ours = (
            with_gradients(functools.partial(f, scale=0.3, causal=causal), q, k, v) for f in (model.attention, gpu.attention)
        )
        for a, b in zip(plain, ours, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=0.02, atol=0.03)


def test_attention_becomes_cudnn_kernels_on_a_gpu(monkeypatch):
    # fails when JAX falls back to XLA's form, which builds the T x T scores.  Only the version check needs the library itself
    kernels = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(kernels, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(kernels, "check_compute_capability", lambda *_, **__: True)

    def loss(q, k, v):
        return gpu.attention(q, k, v, scale=0.2, causal=True).astype(jnp.float32).sum()

    q, kv = (jax.ShapeDtypeStruct((2, 96, heads, 32), jnp.bfloat16) for heads in (4, 2))
    lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, kv, kv).lower(lowering_platforms=("cuda",)).as_text()
    called = set(re.findall(r"custom_call @([\w$]+)", lowered))
    assert {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"} <= called
    assert "96x96" not in lowered


@pytest.mark.parametrize(
    ("dtype", "head", "masked"),
    [(jnp.float32, 8, False), (jnp.bfloat16, 12, False), (jnp.bfloat16, 136, False), (jnp.bfloat16, 8, True)],
)
def test_what_cudnn_cannot_do_is_done_plainly(dtype, head, masked):
    # fails when a mask is dropped, or a shape that cuDNN refuses ends in its error
    q, k, v = arrays(dtype, *[(1, 8, 2, head)] * 3)
    mask = jnp.asarray(np.random.default_rng(2).random((1, 8, 8)) < 0.7) | jnp.eye(8, dtype=bool) if masked else None
    a, b = (f(q, k, v, scale=0.3, causal=True, allowed_BTS=mask) for f in (model.attention, gpu.attention))
    np.testing.assert_array_equal(np.float32(a), np.float32(b))


@pytest.mark.parametrize(
    ("platform", "version", "capability", "forms"),
    [
        ("gpu", "PJRT C API\ncuda 13000", "9.0", gpu.GPU),
        ("gpu", "cuda 12080", "8.6", gpu.GPU),
        ("gpu", "cuda 12080", "7.5", model.PLAIN),
        ("gpu", "rocm 60300", "gfx942", model.PLAIN),
        ("tpu", "libtpu", None, model.PLAIN),
    ],
)
def test_a_gpu_gets_the_gpu_forms_where_it_can_run_them(platform, version, capability, forms):
    # fails when a GPU that has no cuDNN attention is given it, or one that has it is not
    client = types.SimpleNamespace(platform_version=version)
    assert fast.forms(types.SimpleNamespace(platform=platform, client=client, compute_capability=capability)) is forms


@pytest.mark.slow
def test_the_gpu_benchmark_runs_whole_at_toy_size():
    # fails when the benchmark rots, or its peer is not of the same size
    require("torch")
    one_of_each = ["ours", "plain attention", "plain linear", "scanned layers", "no XLA remat pass", "torch"]
    words = ["--toy", "--eager", "--contenders", *one_of_each]
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "gpu_step.py"), *words],
        env=os.environ | {"PYTHONPATH": str(REPO), "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {cells[1].strip(): cells[2:] for cells in (line.split("|") for line in done.stdout.splitlines()) if len(cells) > 3}
    assert float(rows["ours"][0].replace(",", "")) > 0 and float(rows["ours"][1]) > 0
    assert "products with weights alone: " in done.stdout and "largest relative error of out, dq, dk, dv: " in done.stdout
    losses = {name: float(rows[name][-2]) for name in one_of_each}
    assert all(losses["ours"] == pytest.approx(losses[name], abs=0.01) for name in one_of_each[:-1])
    assert all(4.5 < loss < 6.5 for loss in losses.values())  # log 260 is 5.56
