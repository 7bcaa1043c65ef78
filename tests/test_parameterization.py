"""SP and muP as tables: literal values, every parameter in one class, and what the tables promise."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import tiny

from scaling import config, model, objectives, optim, parameterization
from scaling.parameterization import PARAMETERS, class_of, rules

EVERYTHING = [
    {"bias": True, "qk_norm": True, "norm": "layernorm", "norm_bias": True, "positions": "learned"},
    {"activation": "gelu", "tied_head": True},
    {},
]


def mup(width: int, **fields) -> config.ModelConfig:
    """Width 64 is the base: heads of 8, F = 168 there."""
    return config.model_config(depth=2, width=width, base_width=64, zero_init_q=False, **fields)


def values(c: config.ModelConfig) -> dict[str, tuple[float, ...]]:
    return {name: (r.init_std, r.init_mean, r.lr, r.weight_decay, r.eps) for name, r in rules(c).items()}


def test_mup_at_two_widths():
    # fails when a multiplier loses its 1/m, or takes it twice: written out by hand for m = 1 and m = 4 (F = 168, 640)
    assert mup(64).ff == 168 and mup(256, head_size=8).ff == 640
    assert values(mup(64)) == {
        "embedding": (1, 0, 1, 0, 1),
        **dict.fromkeys(("gain", "final_gain"), (0, 1, 1, 0, 1)),
        **dict.fromkeys(("bias", "final_bias"), (0, 0, 1, 0, 1)),
        "q": (1 / 8, 0, 1, 1, 1),
        "hidden": (1 / 8, 0, 1, 1, 1),
        "out": (1 / 16, 0, 1, 1, 1),
        "down": (168**-0.5 / 2, 0, 1, 1, 1),
        "head": (1 / 8, 0, 1, 0, 1),
    }
    wide = mup(256, head_size=8)
    assert values(wide) == {
        "embedding": (1, 0, 1, 0, 1 / 4),
        **dict.fromkeys(("gain", "final_gain"), (0, 1, 1, 0, 1 / 4)),
        **dict.fromkeys(("bias", "final_bias"), (0, 0, 1, 0, 1 / 4)),
        "q": (1 / 16, 0, 1 / 4, 4, 1 / 4),
        "hidden": (1 / 16, 0, 1 / 4, 4, 1 / 4),
        "out": (1 / 32, 0, 1 / 4, 4, 1 / 4),
        "down": (640**-0.5 / 2, 0, 168 / 640, 640 / 168, 1 / 4),
        "head": (1 / 8, 0, 1, 0, 1 / 4),
    }
    assert parameterization.logit_multiplier(mup(64)) == 1 and parameterization.logit_multiplier(wide) == 1 / 4
    assert parameterization.attention_scale(wide) == pytest.approx(8**-0.5)
    assert parameterization.attention_scale(mup(256, head_size=32, base_head_size=8)) == pytest.approx(8**0.5 / 32)
    assert parameterization.input_multiplier(wide) == 1 and parameterization.input_multiplier(mup(64, tied_head=True)) == 50
    assert rules(mup(256, head_size=8, tied_head=True))["embedding"].init_std == 0.02


@pytest.mark.parametrize("width", [64, 256])
def test_sp_is_gpt2s(width):
    # fails when SP's multipliers or stds depend on the width
    c = config.model_config(depth=2, width=width, head_size=16, parameterization="sp", zero_init_q=False)
    for name, r in rules(c).items():
        assert (r.lr, r.eps) == (1, 1)
        assert r.weight_decay == (name in ("q", "hidden", "out", "down"))
    stds = {name: r.init_std for name, r in rules(c).items()}
    zero, small = ("gain", "bias", "final_gain", "final_bias"), ("out", "down")
    expected = dict.fromkeys(("embedding", "q", "hidden", "head"), 0.02) | dict.fromkeys(zero, 0) | dict.fromkeys(small, 0.01)
    assert stds == expected
    assert parameterization.logit_multiplier(c) == parameterization.input_multiplier(c) == 1
    assert parameterization.attention_scale(c) == 1 / 4


def test_zero_init_flags():
    # fails when a flag touches another class, or both tables do not have it
    for kind in config.PARAMETERIZATIONS:
        plain_rules, zero = (
            rules(config.model_config(parameterization=kind, zero_init_q=z, zero_init_head=z)) for z in (False, True)
        )
        assert {n for n in zero if zero[n] != plain_rules[n]} == {"q", "head"}
        assert zero["q"].init_std == zero["head"].init_std == 0 and zero["q"].lr == plain_rules["q"].lr


def names(path) -> tuple[str, ...]:
    return tuple(k.key for k in path)


def test_every_parameter_has_one_class_and_every_class_a_parameter():
    # fails when a new parameter is forgotten in the table, a row is dead, its axes do not fit its shape, or a norm at the end
    # is taken for one in a block
    seen, kinds = set(), set()
    for fields in EVERYTHING:
        c = tiny.model_config(**fields)
        for path, leaf in jax.tree_util.tree_flatten_with_path(model.abstract_params(c))[0]:
            name, kind = model.param_name(path), class_of(names(path))
            _, axes = PARAMETERS[name]
            assert kind in rules(c)
            stacked = "blocks" in names(path)
            assert len(axes) + stacked == leaf.ndim, path
            assert kind.startswith("final_") == (names(path)[0] == "final_norm")
            assert (kind in ("embedding", "head") or kind.startswith("final_")) == (not stacked)
            seen.add(name)
            kinds.add(kind)
    assert seen == set(PARAMETERS)
    assert kinds == set(rules(tiny.model_config()))


@pytest.mark.parametrize("fields", [{}, {"tied_head": True}, {"parameterization": "sp"}])
def test_drawn_values_have_the_tables_scale(fields):
    # fails when init ignores the table: by class, std within 5 standard errors
    c = config.model_config(depth=2, width=64, zero_init_q=False, **fields)
    params = jax.jit(model.init, static_argnums=0)(c, jax.random.key(1))
    for path, x in jax.tree_util.tree_flatten_with_path(params)[0]:
        rule = rules(c)[class_of(names(path))]
        assert abs(np.std(x) - rule.init_std) <= 5 * rule.init_std / math.sqrt(2 * x.size), path
        assert abs(np.mean(x) - rule.init_mean) <= 5 * rule.init_std / math.sqrt(x.size), path


def test_at_the_base_width_mup_is_fan_in_sp():
    # fails when a multiplier is not 1 at the base width: same table but for inits, same logits and same update from one tree
    same = {"width": 24, "base_width": 24, "base_ff": 40, "base_head_size": 6, "context": 8}
    mu, sp = (tiny.model_config(parameterization=p, **same) for p in ("mup", "sp"))
    for name, r in rules(mu).items():
        s = rules(sp)[name]
        assert (r.lr, r.weight_decay, r.eps, r.init_mean) == (s.lr, s.weight_decay, s.eps, s.init_mean)
    assert parameterization.attention_scale(mu) == pytest.approx(parameterization.attention_scale(sp), rel=1e-15)
    assert (
        rules(mu)["hidden"].init_std == 24**-0.5 and rules(mu)["down"].init_std == 40**-0.5 / 2
    )  # 1/sqrt(fan-in), GPT-2's depth
    assert parameterization.logit_multiplier(mu) == parameterization.logit_multiplier(sp) == 1
    params, tokens_BT = tiny.wide_params(mu), tiny.tokens(1, 8, mu.vocab_size)
    logits = [jax.jit(model.apply, static_argnums=0)(c, params, tokens_BT) for c in (mu, sp)]
    assert tiny.max_difference(*logits) == 0
    grads = tiny.wide_params(mu, seed=1)
    updates = []
    for c in (mu, sp):
        tx = optim.optimizer(c, config.OptimConfig())
        updates.append(jax.jit(tx.update)(grads, tx.init(params), params)[0])
    assert tiny.max_difference(*updates) == 0


def test_decay_shrinks_hidden_matrices_alike_at_every_width():
    # fails when lr x decay of a hidden matrix depends on the width, or anything else decays
    lr, decay = 0.01, 0.2
    for width in (64, 256):
        c = mup(width, head_size=8, bias=True, positions="learned")
        params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), model.abstract_params(c))
        tx = optim.optimizer(c, config.OptimConfig(weight_decay=decay))
        updates, _ = jax.jit(tx.update)(jax.tree.map(np.zeros_like, params), tx.init(params), params)
        new = jax.tree.map(lambda p, u: p + lr * u, params, updates)
        for path, x in jax.tree_util.tree_flatten_with_path(new)[0]:
            hidden = class_of(names(path)) in ("q", "hidden", "out", "down")
            np.testing.assert_allclose(x, 1 - lr * decay if hidden else 1, rtol=1e-6, err_msg=str(path))


def test_epsilon_falls_with_the_gradient():
    # fails when Adam's epsilon is not divided by m: gradients g/m with eps/m must move a parameter as g with eps does, at an
    # epsilon so large that it matters
    settings = config.OptimConfig(eps=0.3, weight_decay=0.0, clip=0.0)
    c = mup(256, head_size=8)
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), model.abstract_params(c))
    grads = tiny.wide_params(c, seed=2, std=1.0)
    tx = optim.optimizer(c, settings)
    updates, _ = jax.jit(tx.update)(jax.tree.map(lambda g: g / 4, grads), tx.init(params), params)
    for path, u in jax.tree_util.tree_flatten_with_path(updates)[0]:
        g = tiny.by_path(grads)["/".join(k.key for k in path)]
        rate = rules(c)[class_of(names(path))].lr
        np.testing.assert_allclose(u, -rate * g / (np.abs(g) + 0.3), rtol=1e-4, atol=1e-6)


def test_muon_at_two_widths():
    # fails when the rates of Muon's matrices do not fall as the root of the width, or another class is touched
    wide = mup(256, head_size=8)
    adam, muon = rules(wide), rules(wide, "muon")
    assert {kind for kind in adam if adam[kind] != muon[kind]} == {"q", "hidden", "out", "down"}
    for kind in ("q", "hidden", "out"):
        assert (muon[kind].lr, muon[kind].weight_decay) == (1 / 2, 2)
    assert (muon["down"].lr, muon["down"].weight_decay) == pytest.approx(((168 / 640) ** 0.5, (640 / 168) ** 0.5))
    assert rules(mup(64), "muon") == rules(mup(64))
    sp = config.model_config(width=64, parameterization="sp")
    assert rules(sp, "muon") == rules(sp)


# ------------------------------------------------------------------------------------------------ depth


def deep(depth: int, **fields) -> config.ModelConfig:
    return dataclasses.replace(mup(64, **fields), depth=depth, depth_rule=True, base_depth=2)


def test_depth_rule_at_two_depths():
    # fails when CompleteP's multipliers (arXiv 2505.01618, Table 1, exponent 1) touch a class outside the blocks, miss one
    # inside, change a learning rate or a decay, or the constant init still falls with the depth
    assert rules(deep(2)) == rules(mup(64)) and parameterization.branch_multiplier(deep(2)) == 1
    base, four = rules(deep(2)), rules(deep(8))
    assert parameterization.branch_multiplier(deep(8)) == 1 / 4
    inside = {"gain", "bias", "q", "hidden", "out", "down"}
    for kind in base:
        assert four[kind] == dataclasses.replace(base[kind], eps=base[kind].eps / 4 if kind in inside else base[kind].eps), kind
    assert four["out"].init_std == 1 / 16
    plain_rules = rules(dataclasses.replace(deep(8), depth_rule=False))
    assert plain_rules["out"].init_std == pytest.approx(1 / 32) and plain_rules["gain"].eps == 1
    assert parameterization.branch_multiplier(dataclasses.replace(deep(8), depth_rule=False)) == 1


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_the_branch_multiplier_is_on_both_branches(layers):
    # fails when a branch is not multiplied, or the multiplier stands before its matrix's bias: a model whose o and down (and
    # their biases) are divided by mL gives the same logits without the rule
    c = tiny.model_config(bias=True, depth_rule=True, base_depth=1, layers=layers)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(2, 8, c.vocab_size)
    scaled = jax.tree_util.tree_map_with_path(
        lambda path, x: x / 2 if model.param_name(path) in ("o", "o_bias", "down", "down_bias") else x, params
    )
    apply = jax.jit(model.apply, static_argnums=0)
    ours, theirs = apply(c, params, tokens_BT), apply(dataclasses.replace(c, depth_rule=False), scaled, tokens_BT)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert tiny.max_difference(ours, apply(dataclasses.replace(c, depth_rule=False), params, tokens_BT)) > 0.1


def test_epsilon_falls_with_the_gradients_of_a_deeper_model():
    # fails when epsilon is scaled for classes whose gradients do not fall with the depth, or not for those that do, norm
    # gains in the blocks among them (CompleteP's "residual blocks"): measured on the gradients themselves, depth 2 to 8
    def gradients(depth: int) -> dict[str, float]:
        c = dataclasses.replace(deep(depth, layers="scan", context=16, vocab_size=64))
        params = jax.jit(model.init, static_argnums=0)(c, jax.random.key(0))
        windows = tiny.tokens(8, 17, 64)

        @jax.jit
        @jax.grad
        def of(params):
            return objectives.cross_entropy(model.apply(c, params, windows[:, :-1]), windows[:, 1:])[0].mean()

        leaves = jax.tree_util.tree_flatten_with_path(of(params))[0]
        return {"/".join(names(path)): float(np.sqrt(np.mean(np.square(x)))) for path, x in leaves}

    shallow, four = gradients(2), gradients(8)
    for name, value in shallow.items():
        expected = rules(deep(8))[class_of(name.split("/"))].eps / rules(deep(2))[class_of(name.split("/"))].eps
        assert expected / 1.5 < four[name] / value < expected * 1.5, name


@pytest.mark.parametrize(("fields", "message"), [
    ({"parameterization": "sp"}, "model.depth_rule=True: is a rule of mup, not of 'sp'"),
    ({"norm_position": "post"}, "model.depth_rule=True: needs norm_position='pre'"),
    ({"base_depth": 0}, "model.base_depth=0: must be at least 1"),
])  # fmt: skip
def test_a_depth_rule_that_has_no_meaning_is_refused(fields, message):
    # fails when the flag is silently without effect
    with pytest.raises(config.ConfigError, match=message):
        config.model_config(depth_rule=True, **fields)
