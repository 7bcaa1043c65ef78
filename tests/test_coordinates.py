"""The coordinate check, cut to two widths and one seed: what must pass does, and what is broken on purpose is caught.

One run of the command serves every test; variants of one width share one compiled program.  Measured so: muP 1.17, Muon 1.15,
SP 4.8 and 40, mistakes 1.7 and more; over widths 64 to 512 and three seeds (the command's defaults) see
docs/parameterization.md.
"""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import tiny

from scaling import coordinates, model
from scaling.coordinates import Factors

WIDTHS, SEEDS = (64, 256), (0,)
MARGINAL = "embedding std 1/sqrt(D)"  # caught over 64 to 256 by a hair, and clearly from 32 on


@pytest.fixture(scope="session")
def checked(tmp_path_factory):
    """What the command wrote: the folder, its exit status, and the outcomes by name."""
    out = tmp_path_factory.mktemp("coordinates")
    status = coordinates.main(["--widths", ",".join(map(str, WIDTHS)), "--seeds", str(len(SEEDS)), "--out", str(out)])
    content = json.loads((out / "coordinates.json").read_text())
    return out, status, {o["name"]: o for group in content["groups"].values() for o in group}


def worst(outcome) -> tuple[float, str]:
    """The spread that exceeds its row's limit by most, worked out again from the changes."""
    spread = {row: max(values) / min(values) for row, values in outcome["change"].items()}
    return max((value / (1.6 if row.startswith("scores") else 1.3), row) for row, value in spread.items())


def of(variants) -> list[str]:
    return [v.name for v in variants if v.name != MARGINAL]


@pytest.mark.slow
@pytest.mark.parametrize("name", of([coordinates.MUP, coordinates.GROWING, coordinates.MUON, *coordinates.INVISIBLE]))
def test_mup_does_not_depend_on_the_width(checked, name):
    # fails when a rate, an init or a forward multiplier of muP, or of Muon under it, loses its power of the width
    assert worst(checked[2][name])[0] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", of([coordinates.SP, coordinates.SP_FAN_IN]))
def test_sp_fails_by_far(checked, name):
    # fails when the check is blind: SP must exceed 2 in the first layer and in the residual
    change = checked[2][name]["change"]
    for row in ("attn_out 0", "mlp_out 0", "scores 0", "residual"):
        assert max(change[row]) / min(change[row]) > 2, row


@pytest.mark.slow
@pytest.mark.parametrize("name", of([*coordinates.MISTAKES, *coordinates.MUON_MISTAKES]))
def test_a_mistake_is_caught(checked, name):
    # fails when a multiplier of muP could be wrong without the check noticing
    assert worst(checked[2][name])[0] > 1


@pytest.mark.slow
def test_a_marginal_mistake_is_caught_over_a_wider_range():
    # fails when an embedding that shrinks with the width goes unnoticed
    (variant,) = (v for v in coordinates.MISTAKES if v.name == MARGINAL)
    assert not coordinates.measure(variant, (32, 256), SEEDS).flat
    assert coordinates.measure(coordinates.MUP, (32, 256), SEEDS).flat


@pytest.mark.slow
def test_depth(checked):
    # fails when CompleteP's branch multiplier or its constant init is lost: what is added up over the layers then grows
    # with the depth, as it does without a rule and with GPT-2's init alone
    found = {v.name: checked[2][v.name]["change"]["residual"] for v in coordinates.DEPTH_VARIANTS}
    ratios = {name: change[-1] / change[0] for name, change in found.items()}
    assert 1 / 1.3 < ratios["CompleteP"] < 1.3
    assert ratios["no depth rule"] > 2 and ratios["o, down over sqrt(2 depth)"] > 1.5


@pytest.mark.slow
def test_the_command_writes_and_tells(checked, capsys):
    # fails when a file is missing or the exit status does not say that all was as expected
    out, status, outcomes = checked
    marginal_flat = worst(outcomes[MARGINAL])[0] <= 1
    assert status == marginal_flat
    assert (out / "coordinates.png").read_bytes()[:4] == b"\x89PNG"
    svg = (out / "coordinates.svg").read_text()
    assert "hidden lr not over m" in svg and "Final residual, by depth" in svg


@pytest.mark.parametrize(("words", "message"), [
    (["--widths", "64"], "--widths 64: needs two or more multiples of 16"),
    (["--widths", "64,100"], "--widths 64,100: needs two or more"),
    (["--widths", "64,wide"], "--widths 64,wide: needs two or more"),
    (["--seeds", "0"], "--seeds 0: needs at least 1"),
    (["--seeds", "two"], "--seeds: 'two' must be a whole number"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(words, message, tmp_path, capsys):
    # fails when a traceback, or a division by zero minutes later, takes the place of the message
    assert coordinates.main([*words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_rows_are_what_the_model_computes():
    # fails when the record of a block's products is in another order than the block's, or leaves out a multiplier
    c = dataclasses.replace(coordinates.width_config(64), vocab_size=50, context=12, depth_rule=True, base_depth=1)
    params, tokens_BT = tiny.wide_params(c), tiny.tokens(2, 12, 50)
    rows = jax.jit(coordinates.activations, static_argnums=0)(c, params, tokens_BT)
    expected = jax.jit(model.apply, static_argnums=0)(c, params, tokens_BT)
    np.testing.assert_allclose(rows["logits"], expected, rtol=1e-4, atol=1e-4)
    x_BTD = rows["embedding"]
    for i in range(c.depth):
        w = jax.tree.map(lambda p, i=i: p[i], params["blocks"])
        row = {name: np.asarray(rows[f"{name} {i}"]) for name in ("scores", "mix", "attn_out", "mlp_hid", "mlp_out")}
        h_BTD = model.Norm(c).apply({"params": w["attention_norm"]}, x_BTD)
        weights_BHTS = np.exp(row["scores"] - row["scores"].max(-1, keepdims=True)) * np.tri(12)
        weights_BHTS /= weights_BHTS.sum(-1, keepdims=True)
        mix_BTHK = np.einsum("bhts,bsd,dhk->bthk", weights_BHTS, h_BTD, w["attention"]["v"])
        close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)
        close(row["mix"], mix_BTHK)
        close(row["attn_out"], np.einsum("bthk,hkd->btd", row["mix"], w["attention"]["o"]))
        close(row["mlp_out"], row["mlp_hid"] @ w["mlp"]["down"])
        x_BTD = x_BTD + (row["attn_out"] + row["mlp_out"]) / 2  # depth 2 over a base depth of 1
    np.testing.assert_allclose(rows["residual"], x_BTD, rtol=1e-4, atol=1e-3)


# ------------------------------------------------------------------------------------------------ spellings


def spelling_b(c, omit: str = "") -> Factors:
    """muP's head as in Table 3 of Yang et al. 2022: from A, multiplier x m, std / m, rate / m, epsilon x m and decay x m."""
    m = c.width / c.base_width
    law = {"forward": m, "init": 1 / m, "lr": 1 / m, "eps": m, "weight_decay": m}
    return Factors(**{field: {"head": value} for field, value in law.items() if field != omit})


TRAIN = jax.jit(coordinates.train, static_argnums=(0, 5, 6))


def trained(variant) -> np.ndarray:
    """The losses of ten steps from random queries and a random head."""
    c = dataclasses.replace(coordinates.width_config(128), zero_init_head=False, zero_init_q=False)
    params, factors = coordinates.start(c, variant, seed=0)
    return np.asarray(TRAIN(c, params, factors, 2.0**-7, coordinates.page(), "adamw", 10)[1])


@pytest.mark.slow
def test_spellings_a_and_b_agree():
    # fails when a multiplier acts elsewhere than the exchange law of Adam has it (times t forward is 1/t of init and rate and t
    # of epsilon): over ten steps the two give one curve, and the law with one part left out does not
    a = trained(lambda c: Factors())
    assert a[-1] < 0.8 * a[0]
    np.testing.assert_allclose(trained(spelling_b), a, rtol=1e-5)
    for omit in ("forward", "init", "lr"):
        b = trained(lambda c, omit=omit: spelling_b(c, omit))
        assert np.max(np.abs(b / a - 1)) > 1e-2, omit
