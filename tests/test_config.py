"""Configs: rules applied, everything checked at once, identity."""

import dataclasses
import subprocess
import sys

import ml_collections
import pytest
import tiny

from scaling import config

PURE = ("scaling.config", "scaling.units", "scaling.sizes", "scaling.flops", "scaling.plan", "scaling.sweep", "scaling.runs",
        "scaling.parameterization", "scaling.progress", "scaling.cli")  # fmt: skip


def problems_of(**fields) -> list[str]:
    with pytest.raises(config.ConfigError) as caught:
        tiny.train_config(**fields)
    return caught.value.problems


def test_the_default_config_runs_and_survives_json():
    # fails when a default breaks its own check, or a resolved config read back is another
    default = config.resolve(config.default_dict())
    assert default == config.from_resolved(config.to_dict(default))
    assert default == config.resolve(ml_collections.ConfigDict(config.default_dict()))
    c = tiny.train_config(model_kv_heads=1, marks=("5 steps", "10 steps"), data_epochs=2, seed=3)
    assert c == config.from_resolved(config.to_dict(c)) and c.marks == ("5 steps", "10 steps") and c.data.epochs == 2.0


def test_all_problems_are_told_at_once():
    # fails when the first problem hides the others
    problems = problems_of(
        model_widht=3, optim_lr=-1.0, optim_schedule="cosin", budget="20", evals=0, machine_fsdp="two", seed=1.5, data_epochs=0,
        batch="130 tokens", optim_warmup="soon", optim_beta2=1.0, marks=("5 steps", "never"),
    )  # fmt: skip
    text = "\n".join(problems)
    for expected in (
        'model.widht=3: no such field. Did you mean "model.width"?', "optim.lr=-1.0: must be positive",
        'Did you mean "cosine"?', "budget='20': must be a number and one of the units", "evals=0",
        "machine.fsdp='two': must be a whole number",
        "seed=1.5: must be a whole number", "data.epochs=0.0: must be positive", "batch='130 tokens'", "optim.warmup='soon'",
        "optim.beta2=1.0", "marks[1]='never'",
    ):  # fmt: skip
        assert expected in text
    assert len(problems) == 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_dropout": 1.0}, "model.dropout=1.0: must be in [0, 1)"),
        ({"model_norm_bias": True}, "RMSNorm has no bias"),
        ({"model_tied_head": 1}, "model.tied_head=1: must be True or False"),
        ({"model_rope_base": float("nan")}, "model.rope_base=nan: must be a finite number"),
        ({"model_norm_eps": -1e-6}, "model.norm_eps=-1e-06: must be positive"),
        ({"model_rope_base": 0.0}, "model.rope_base=0.0: must be positive"),
        ({"model_z_loss": -1.0}, "model.z_loss=-1.0: must not be negative"),
        ({"model_context": 0}, "model.context=0: must be at least 1"),
        ({"model_width": "wide"}, "model.width='wide': must be a whole number"),
        ({"model_vocab_size": "many"}, "model.vocab_size='many': must be a whole number"),
        ({"model_vocab_size": 200}, "model.vocab_size=200: smaller than the vocabulary, 260"),
        ({"model_vocab_size": 4000, "data_vocab": "4096"}, "model.vocab_size=4000: smaller than the vocabulary, 4096"),
        ({"model_vocab_size": None, "data_vocab": "byte"}, "data.vocab='byte': must be 'bytes' or a vocabulary size"),
        ({"machine_micro_batches": -1}, "machine.micro_batches=-1: must be at least 1; 0 leaves it to the platform"),
        ({"machine_data": 0, "machine_fsdp": 0}, "machine.fsdp=0: only one axis may take"),
        ({"machine_micro_batches": 3}, "batch='128 tokens' is 8 windows of 16"),
        ({"machine_data": -1}, "machine.data=-1: must not be negative"),
        ({"data_val_windows": 513}, "data.val_windows=513: must be from 1 to 512"),
        ({"budget": "50%"}, "budget='50%': a part of what"),
        ({"budget": 2000}, "budget='2000': must be a number and one of the units"),
        ({"optim_clip": -1.0}, "optim.clip=-1.0: must not be negative"),
        ({"marks": 5}, "marks=5: must be a list of durations"),
        ({"model_parameterization": "mu"}, 'must be one of mup, sp. Did you mean "mup"?'),
    ],
)
def test_one_problem_names_field_value_and_remedy(fields, message):
    # fails when a bad value passes, ends in another exception, or is told without its field
    problems = problems_of(**fields)
    assert len(problems) == 1 and message in problems[0], problems


def test_one_mark_may_be_written_without_a_list():
    # fails when a text is taken apart into letters
    assert tiny.train_config(marks="5 steps").marks == ("5 steps",)


def test_identity_leaves_out_paths_and_the_machine():
    # fails when another folder, cache or mesh makes another member, or when something that changes results does not
    c = tiny.train_config()
    base = config.digest(c, "data")
    assert len(base) == 16
    for same in (
        {"run_dir": "elsewhere"}, {"machine_data": 2}, {"machine_compile_cache": "x"}, {"data_store": "x"},
        {"model_remat": "full"}, {"model_layers": "scan"},
    ):  # fmt: skip
        assert config.digest(tiny.train_config(**same), "data") == base, same
    changed = [
        {"seed": 1}, {"model_width": 24}, {"optim_lr": 1e-3}, {"budget": "21 steps"}, {"batch": "64 tokens"}, {"evals": 2},
        {"data_epochs": 2}, {"marks": ("5 steps",)}, {"model_dtype": "bfloat16"}, {"data_val_windows": 9},
    ]  # fmt: skip
    digests = [config.digest(tiny.train_config(**fields), "data") for fields in changed]
    digests += [config.digest(c, "other"), config.digest(c, "data", "trunk", 5), config.digest(c, "data", "trunk", 6)]
    assert len({base, *digests}) == 1 + len(digests)


def test_difference_names_fields():
    # fails when a refusal cannot tell what changed, or a tuple read back as a list counts as a change
    old, new = tiny.train_config(marks=("5 steps",)), tiny.train_config(model_width=24, marks=("5 steps",), seed=2)
    changes = config.difference(config.identity(old), config.identity(new))
    assert "model.width: 16 -> 24" in changes and "seed: 0 -> 2" in changes and not any("marks" in c for c in changes)
    assert config.difference({"a": (1, 2)}, {"a": [1, 2]}) == []


def test_dataclasses_are_frozen_and_hashable():
    # fails when a config cannot be a static argument of a jitted function
    assert hash(tiny.model_config()) == hash(tiny.model_config())
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.model_config().width = 3


# ------------------------------------------------------------------------------------------- imports

LOADED = "import sys; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
NO_NETWORK = """
import socket
def refuse(*arguments, **named):
    raise SystemExit('the network was used')
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def modules_after(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter that cannot reach any network."""
    done = subprocess.run(
        [sys.executable, "-c", f"{NO_NETWORK}\n{statement}\n{LOADED}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.split())


def test_planning_imports_no_jax():
    # fails when a plan, a size or a FLOP count costs the seconds that jax takes to load
    loaded = modules_after(f"import {', '.join(PURE)}; from scaling.config import model_config; model_config('1.2M')")
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "torch", "tensorflow", "matplotlib", "pandas"}


def test_the_model_imports_little():
    # fails when a notebook's `from scaling import model` drags in what it does not use, or asks the network
    loaded = modules_after("from scaling import model; model.model_config('50K')")
    assert "jax" in loaded and "flax" in loaded
    assert not loaded & {"torch", "tensorflow", "orbax", "grain", "matplotlib", "pandas", "analysis", "sentencepiece"}
