"""Hugging Face folders in and out: equal logits both ways, and every mistake that one could make shows in them."""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import shutil
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny
from oracles import huggingface, require
from oracles.references import CASES, GPT2, MISTAKES, SP
from training import contents

from scaling import config, data, flops, hf, model, runs, store, sweep, tokenizer

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


@pytest.mark.parametrize("name", CASES)
def test_what_transformers_wrote_is_read(case, name, tmp_path):
    # fails when shards are not joined, on transformers' own spelling of a field, or a tensor in the wrong place
    x = case(name)
    opened = huggingface.open_folder(x.folder)
    opened.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    c, params = hf.read(tmp_path)
    ours = dataclasses.replace(x.c, zero_init_q=False, **({"bias": True, "norm_bias": True} if "GPT-2" in name else {}))
    assert c == hf.read_config(tmp_path)
    assert c == ours or "muP" in name  # whose multipliers are in the weights
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


def test_of_a_single_file_and_an_index_the_single_file_is_read(case, tmp_path):
    # fails when an index that was left behind sends us to other weights than transformers opens
    x = case("Llama")
    folder = tmp_path / "both"
    hf.write(folder, x.c, x.params, shard_bytes=5_000)
    other = tmp_path / "other"
    hf.write(other, x.c, jax.tree.map(lambda p: 0.5 * p, x.params))
    (other / hf.SINGLE).rename(folder / hf.SINGLE)
    theirs = huggingface.logits_of(huggingface.open_folder(folder), x.tokens_BT)
    assert error(theirs, x.logits_BTV) > 0.1
    assert error(forward(*hf.read(folder), x.tokens_BT), theirs) < TOLERANCE


def test_half_precision_files_and_older_names_are_read(case, tmp_path):
    # fails without bfloat16 in numpy, or when the prefix is required, or a causal mask that old files carry is refused
    numpy = require("safetensors.numpy")
    x = case("GPT-2")

    def older(config, tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name).astype(ml_dtypes.bfloat16)
        tensors["h.0.attn.bias"] = np.tri(x.c.context, dtype=np.float32)[None, None]
        del config["n_inner"], config["tie_word_embeddings"]  # 4 x width and tied by default

    spoilt = huggingface.copy_with(older, x.folder, tmp_path / "older")
    config_json = json.loads((spoilt / hf.CONFIG).read_text())
    assert x.c.ff != 4 * x.c.width
    with pytest.raises(config.ConfigError, match=r"c_fc.weight: shape \(24, 40\), where config.json makes it \(24, 96\)"):
        hf.read(spoilt)
    (spoilt / hf.CONFIG).write_text(json.dumps(config_json | {"n_inner": x.c.ff}))
    _, params = hf.read(spoilt)
    exact = {name: leaf.astype(ml_dtypes.bfloat16) for name, leaf in tiny.by_path(x.params).items()}
    assert all((leaf == exact[name]).all() for name, leaf in tiny.by_path(params).items())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    assert numpy.load_file(spoilt / hf.SINGLE)["wte.weight"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_writing_and_reading_give_the_same_bits(case, name, tmp_path):
    # fails when a tensor is folded, cast or permuted that need not be, or a tensor is lost between shards
    x = case(name)
    hf.write(tmp_path / "shards", x.c, x.params, shard_bytes=5_000)
    index = json.loads((tmp_path / "shards" / hf.INDEX).read_text())
    assert len(set(index["weight_map"].values())) > 3
    assert index["metadata"]["total_size"] == 4 * flops.n_params(x.c)["total"]
    for folder in (x.folder, tmp_path / "shards"):
        assert tiny.max_difference(hf.read(folder)[1], x.params) == 0


def test_reading_and_writing_hold_one_tensor_at_a_time(tmp_path):
    # fails when all tensors of a file, or of all shards, are in memory beside the model's parameters
    require("safetensors")
    c = tiny.model_config(**SP, width=240, heads=4, kv_heads=4, head_size=60, ff=640, depth=6)
    params = huggingface.draw(c)
    whole, largest, shard = 4 * flops.n_params(c)["total"], 4 * 240 * 640, 2_000_000
    tracemalloc.start()
    try:
        hf.write(tmp_path / "model", c, params, shard_bytes=shard)
        assert tracemalloc.get_traced_memory()[1] < 2 * shard + 4 * largest < whole / 2  # safetensors copies a shard
        tracemalloc.reset_peak()
        _, read = hf.read(tmp_path / "model")
        assert tracemalloc.get_traced_memory()[1] < whole + 3 * largest < 1.2 * whole
    finally:
        tracemalloc.stop()
    assert tiny.max_difference(read, params) == 0


# ---------------------------------------------------------------------------------------- what is refused


def fields(**changes):
    """A checkpoint whose config.json says otherwise (``...`` takes a field out)."""

    def spoil(folder):
        there = json.loads((folder / hf.CONFIG).read_text()) | changes
        (folder / hf.CONFIG).write_text(json.dumps({k: v for k, v in there.items() if v is not ...}))

    return spoil


def tensors(change):
    """A checkpoint whose tensors ``change`` has spoilt."""

    def spoil(folder):
        numpy = require("safetensors.numpy")
        there = numpy.load_file(folder / hf.SINGLE)
        change(there)
        numpy.save_file(there, folder / hf.SINGLE)

    return spoil


def cut(folder):
    path = folder / hf.SINGLE
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    (folder / hf.SINGLE).rename(folder / "pytorch_model.bin")


def index(content):
    def spoil(folder):
        (folder / hf.SINGLE).unlink()
        (folder / hf.INDEX).write_text(json.dumps(content))

    return spoil


Q = "model.layers.1.self_attn.q_proj.weight"
REFUSED = [
    ("Llama", lambda folder: (folder / hf.CONFIG).unlink(), ("config.json", "no such file", "save_pretrained")),
    ("Llama", lambda folder: (folder / hf.CONFIG).write_text("{"), ("config.json", "not valid JSON", "fetch")),
    ("Llama", fields(model_type="mistral"), ("config.json", 'model_type="mistral"', "gpt2 and llama")),
    ("Llama", fields(quantization_config={"bits": 4}), ("config.json", "quantization_config", "bfloat16")),
    ("Llama", fields(hidden_act="gelu"), ("config.json", 'hidden_act="gelu"', '"silu"')),
    ("Llama", fields(rope_scaling={"rope_type": "llama3"}), ("config.json", 'rope_scaling.rope_type="llama3"', "plain rotary")),
    ("Llama", fields(rope_scaling={"type": "linear"}), ("config.json", '="linear"', "plain rotary")),
    ("Llama", fields(rope_parameters={"rope_type": "yarn"}), ("config.json", 'rope_parameters.rope_type="yarn"', "plain")),
    ("Llama", fields(rope_scaling="linear"), ("config.json", 'rope_scaling="linear"', "an object or null", "fetch")),
    ("Llama", fields(rope_parameters=[1]), ("config.json", "rope_parameters=[1]", "an object or null", "fetch")),
    ("Llama", fields(model_type=[]), ("config.json", "model_type=[]", "gpt2 and llama")),
    ("GPT-2", fields(activation_function=[]), ("config.json", "activation_function=[]", '"gelu_new"')),
    ("Llama", fields(attention_bias=True), ("config.json", "attention_bias=true", "mlp_bias", "choose another")),
    ("Llama", fields(sliding_window=4096), ("config.json", "sliding_window=4096", "null")),
    ("Llama", fields(head_dim=8), ("config.json", "head_dim=8", "hidden_size=24")),
    ("Llama", fields(hidden_size="24"), ("config.json", "hidden_size='24'", "whole number")),
    ("Llama", fields(num_hidden_layers=...), ("config.json", "num_hidden_layers=None", "whole number")),
    ("Llama", fields(num_key_value_heads=3), ("config.json", "kv_heads=3", "divide")),
    ("Llama", fields(hidden_act="relu", rms_norm_eps=-1), ("config.json", 'hidden_act="relu"', "rms_norm_eps=-1")),
    ("Llama", fields(num_hidden_layers=3), ("model.layers.2.self_attn.q_proj.weight", "none of the files", "more")),
    ("Llama", fields(intermediate_size=48), ("gate_proj.weight", "shape (40, 24)", "(48, 24)")),
    ("Llama", fields(tie_word_embeddings=True, num_hidden_layers=1), (Q, "would be lost")),
    ("GPT-2", fields(activation_function="gelu"), ("config.json", 'activation_function="gelu"', '"gelu_new"')),
    ("GPT-2", fields(scale_attn_weights=False), ("config.json", "scale_attn_weights=false", "true")),
    ("GPT-2", fields(scale_attn_by_inverse_layer_idx=True), ("config.json", "scale_attn_by_inverse_layer_idx=true", "false")),
    ("GPT-2", fields(add_cross_attention=True), ("config.json", "add_cross_attention=true", "encoder")),
    ("GPT-2", fields(tie_word_embeddings=False), ("lm_head.weight", "with its head")),
    ("Llama", tensors(lambda t: t.pop(Q)), (Q, "none of the files", "whole checkpoint")),
    ("Llama", tensors(lambda t: t.update(score=t[Q])), ("score", "would be lost")),
    ("Llama", tensors(lambda t: t.update({Q: t[Q].astype(np.int8)})), (Q, "type I8", "quantization")),
    ("Llama", cut, ("model.safetensors", "cannot be read", "fetch it again")),
    ("Llama", pickled, ("no model.safetensors", "pickled", "save_pretrained")),
    ("Llama", index({"weight_map": {Q: "part.safetensors"}}), ("part.safetensors", "no such file", "fetch")),
    ("Llama", index({"metadata": {}}), ("model.safetensors.index.json", "weight_map", "fetch")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "words"), REFUSED)
def test_what_cannot_be_read_is_refused(case, name, spoil, words, tmp_path, capsys):
    # fails on a traceback, on a message without file, field, value and remedy, and when a run directory is left behind
    folder = tmp_path / "model"
    shutil.copytree(case(name).folder, folder)
    hf.read(folder)
    spoil(folder)
    before = contents(tmp_path)
    assert hf.main(["import", "--from", str(folder), "--to", str(tmp_path / "run")]) == runs.BAD_CONFIG
    said = capsys.readouterr().err
    assert said.startswith("error: ") and str(folder) in said and "Traceback" not in said
    for word in words:
        assert word in said
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export"], "error: command line: the following arguments are required: --run, --to"),
        (["export", "--run", "r", "--to", "t", "--step", "last"], "error: command line: --step: 'last' must be a whole number"),
        (["export", "--run", "r", "--to", "t", "--config.seed=1"], "export takes no --config fields"),
        (["import", "--from", "{}/model.safetensors", "--to", "t"], "model.safetensors/config.json: no such file; give the"),
        (["import", "--from", "{}", "--to", "t", "--config.run_dir=r"], "run_dir='r': the weights are a checkpoint in --to t"),
        (["import", "--from", "{}", "--to", "t", "--config.model.width=8"], "model.width: the checkpoint decides it; leave it"),
    ],
)
def test_a_wrong_command_is_told_and_writes_nothing(case, words, told, tmp_path, monkeypatch, capsys):
    # fails on a traceback or a page of usage, and when weights are imported into a folder that training would not look in
    monkeypatch.chdir(tmp_path)
    folder = case("Llama").folder
    assert hf.main([word.format(folder) for word in words]) == runs.BAD_CONFIG
    said = capsys.readouterr().err
    assert said.startswith("error: ") and told in said and "usage" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"positions": "none"}, ("model.positions='none'", "learned", "rotary")),
        ({"positions": "sinusoidal"}, ("model.positions='sinusoidal'",)),
        ({"norm": "layernorm", "qk_norm": True}, ("model.norm='layernorm'", "'rmsnorm'", "model.qk_norm=True", "folded")),
        ({"norm_position": "post"}, ("model.norm_position='post'", "'pre'")),
        ({"activation": "gelu"}, ("model.activation='gelu'", "'swiglu'")),
        ({**GPT2, "activation": "swiglu"}, ("model.activation='swiglu'", "'gelu' or 'relu'")),
        ({**GPT2, "kv_heads": 2}, ("model.kv_heads=2", "heads, 4")),
    ],
)
def test_what_cannot_be_written_is_refused(changed, words, tmp_path):
    # fails when a model is written whose logits transformers cannot give, or a folder is left behind
    c = tiny.model_config(**changed)
    with pytest.raises(config.ConfigError) as problem:
        hf.write(tmp_path / "model", c, tiny.wide_params(c))
    for word in words:
        assert word in str(problem.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused_and_a_failure_leaves_nothing(case, tmp_path, monkeypatch):
    # fails when a checkpoint is written over, or half of one is left under its name
    x = case("Llama")
    with pytest.raises(config.ConfigError, match="is there already; choose another"):
        hf.write(x.folder, x.c, x.params)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(config.ConfigError, match="has no name of its own; name a folder"):
        hf.write(".", x.c, x.params)
    broken = {**x.params, "blocks": {**x.params["blocks"], "mlp": None}}
    with pytest.raises(KeyError):
        hf.write(tmp_path / "model", x.c, broken)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------- run directories


def test_a_trained_run_is_exported_and_goes_on_from_its_weights(trainer, tmp_path, capsys):
    # fails when the exported weights are not those of the checkpoint asked for, when transformers does not find the run's own
    # validation loss with the run's own tokens, or when training that goes on from the folder starts anew
    torch, transformers = require("torch"), require("transformers")
    first, back = tmp_path / "first", tmp_path / "back"
    trainer.run(first, budget="60 steps", optim__lr="0.03", model__tied_head=True, marks="('50%',)")
    done = runs.read_json(first / runs.DONE)
    assert done["val_loss"] < 3.5  # far below ln 260 = 5.6: it has learned
    assert hf.main(["export", "--run", str(first), "--to", str(tmp_path / "hf")]) == 0
    assert "step 60" in capsys.readouterr().out
    assert hf.main(["export", "--run", str(first), "--to", str(tmp_path / "half"), "--step", "30"]) == 0
    assert tiny.max_difference(hf.read(tmp_path / "half")[1], hf.read(tmp_path / "hf")[1]) > 0.01
    assert hf.main(["export", "--run", str(first), "--to", str(tmp_path / "no"), "--step", "31"]) == runs.BAD_CONFIG
    assert "no checkpoint of step 31; there are [30, 60]" in capsys.readouterr().err
    opened = huggingface.open_folder(tmp_path / "hf")
    windows = data.validation(store.open_store(trainer.store), 16, 16)
    logits_BTV = torch.from_numpy(huggingface.logits_of(opened, np.asarray(windows[:, :-1])))
    targets = torch.from_numpy(np.asarray(windows[:, 1:])).long()
    loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten()).item()
    assert loss == pytest.approx(done["val_loss"], abs=1e-4)

    text = "Two  blanks,\n\ta tab, 한국어, \x00 and \x7f…"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert theirs(text)["input_ids"] == tokenizer.byte_tokenizer().encode(text).tolist()
    assert theirs.decode(theirs(text)["input_ids"]) == text
    for ids in (theirs, opened.config):
        assert (ids.pad_token_id, ids.bos_token_id, ids.eos_token_id) == (tokenizer.PAD, tokenizer.BOS, tokenizer.EOS)

    words = ["--config.budget=20 steps", "--config.batch=128 tokens", "--config.optim.lr=1e-9", "--config.evals=1"]
    assert hf.main(["import", "--from", str(tmp_path / "hf"), "--to", str(back), *words]) == 0
    words = [f"--config.data.store={trainer.store}", "--config.data.val_windows=16", "--config.data.epochs=100"]
    cache = f"--config.machine.compile_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}"
    moved = back.rename(tmp_path / "moved")
    trainer.finish(trainer.start("--config", str(moved / "config.py"), *words, cache))
    assert runs.read_json(moved / runs.DONE)["val_loss"] == pytest.approx(done["val_loss"], abs=1e-4)


def test_an_imported_run_trains_where_its_config_lies(case, tmp_path, monkeypatch):
    # fails when the run directory is what was typed at import, where another folder would begin with random weights; or when
    # a field that no checkpoint decides cannot be given
    monkeypatch.chdir(tmp_path)
    words = ["--config.model.dropout=0.1", "--config.model.dtype=bfloat16", "--config.model.layers=scan"]
    assert hf.main(["import", "--from", str(case("Llama").folder), "--to", "run", *words]) == 0
    read = config.resolve(sweep.load_config("run/config.py")[0])
    assert read.model == dataclasses.replace(hf.read_config(case("Llama").folder), dropout=0.1, dtype="bfloat16", layers="scan")
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere" / "moved")
    for here, name in ((tmp_path, "elsewhere/moved/config.py"), (moved, "config.py")):
        monkeypatch.chdir(here)
        assert config.resolve(sweep.load_config(name)[0]).run_dir == str(moved)


def test_export_of_a_mixture_names_a_store_that_has_the_vocabulary(tmp_path, monkeypatch):
    # fails when it names data.store, which a mixture does not use
    mixture = (("tokens/a", 3), ("tokens/b", 1))
    c = tiny.train_config(data_mixture=mixture, data_vocab="300", model_vocab_size=300)
    monkeypatch.setattr(hf, "load_run", lambda run_dir, at: (c, tiny.wide_params(c.model), 5))
    assert "tokenizer not included: tokens/a holds" in hf.export("run", tmp_path / "hf")


def test_export_names_what_is_missing(tmp_path, capsys):
    # fails on a traceback, or without the folder and the remedy
    assert hf.main(["export", "--run", str(tmp_path), "--to", str(tmp_path / "hf")]) == runs.BAD_CONFIG
    assert f"{tmp_path}: no config.json; give the folder of a member" in capsys.readouterr().err
    c = config.to_dict(tiny.train_config())
    runs.write_json(tmp_path / runs.CONFIG, {"config": c})
    assert hf.main(["export", "--run", str(tmp_path), "--to", str(tmp_path / "hf")]) == runs.BAD_CONFIG
    assert "no checkpoint yet" in capsys.readouterr().err
