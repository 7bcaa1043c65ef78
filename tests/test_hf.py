"""Hugging Face folders in and out: equal logits both ways, and every mistake that one could make shows in them."""

import dataclasses
import functools
import logging
import pathlib

import jax
import numpy as np
import pytest
import tiny
from oracles import huggingface, require
from oracles.references import CASES, MISTAKES

from scaling import config, flops, hf, model

TOLERANCE = 1e-4


@functools.partial(jax.jit, static_argnums=0)
def forward(c, params, tokens_BT):
    return model.apply(c, params, tokens_BT)


@dataclasses.dataclass(frozen=True)
class Case:
    """A small model of ours, its logits, and the folder that it was written to."""

    c: config.ModelConfig
    params: object
    tokens_BT: np.ndarray
    logits_BTV: np.ndarray
    folder: pathlib.Path


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """``case(name)``: made once."""
    require("safetensors")
    require("transformers").logging.disable_progress_bar()

    @functools.cache
    def make(name: str) -> Case:
        c = tiny.model_config(**CASES[name])
        params, tokens_BT = huggingface.draw(c), tiny.tokens(2, c.context, c.vocab_size)
        folder = tmp_path_factory.mktemp("hf") / "model"
        hf.write(folder, c, params)
        logits_BTV = np.asarray(forward(c, params, tokens_BT))
        assert logits_BTV.std() > 0.3, "logits too small to show a difference"
        return Case(c, params, tokens_BT, logits_BTV, folder)

    return make


def error(a, b):
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))))


# ---------------------------------------------------------------------------------------- logits, both ways


@pytest.mark.parametrize("name", CASES)
def test_transformers_opens_what_is_written(case, name, caplog):
    # fails on a missing, unexpected or misshapen key, on any warning, and when a multiplier is left out of the weights
    transformers = require("transformers")
    transformers.logging.enable_propagation()
    try:
        x = case(name)
        opened = huggingface.open_folder(x.folder)
    finally:
        transformers.logging.disable_propagation()
    assert not [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert error(huggingface.logits_of(opened, x.tokens_BT), x.logits_BTV) < TOLERANCE
    assert sum(p.numel() for p in opened.parameters()) >= flops.n_params(x.c)["total"]


@pytest.mark.parametrize("name", [n for n in CASES if "muP" not in n])
def test_what_transformers_wrote_is_read(case, name, tmp_path):
    # fails when shards are not joined, on transformers' own spelling of a field, or a tensor in the wrong place
    x = case(name)
    opened = huggingface.open_folder(x.folder)
    opened.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    c, params = hf.read(tmp_path)
    ours = dataclasses.replace(x.c, zero_init_q=False, **({"bias": True, "norm_bias": True} if "GPT-2" in name else {}))
    assert c == ours == hf.read_config(tmp_path)
    assert error(forward(c, params, x.tokens_BT), huggingface.logits_of(opened, x.tokens_BT)) < TOLERANCE


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n in MISTAKES for w, _ in MISTAKES[n](tiny.model_config(**CASES[n]))])
def test_a_mistake_shows(case, name, wrong, tmp_path):
    # the test above must fail on each of these: fails when weights are drawn so that a mistake stays below five tolerances
    x = case(name)
    mistake = dict(MISTAKES[name](x.c))[wrong]
    spoilt = huggingface.copy_with(mistake, x.folder, tmp_path / "spoilt")
    theirs = huggingface.logits_of(huggingface.open_folder(spoilt), x.tokens_BT)
    assert error(theirs, x.logits_BTV) > 5 * TOLERANCE
    try:
        c, params = hf.read(spoilt)
    except config.ConfigError as problem:
        assert "GELU" in wrong and "can be read" in str(problem)  # what we have not is refused, not read as something else
        return
    assert error(forward(c, params, x.tokens_BT), theirs) < TOLERANCE  # read as it stands, not as it was meant
