"""Published architectures: parameter counts and settings as published, and tensor by tensor as transformers makes them."""

import json

import pytest
from oracles import require

from scaling import config, flops, hf, presets, sweep
from scaling.families import family_of

# Parameters of the released weights (their model cards' counts of tensors; a tied table once), and of their config.json (of
# stories* llama2.c's README and ModelArgs) heads, key/value heads, context, epsilon of the norms and rotary base.
PUBLISHED = {
    "gpt2": (124_439_808, 12, 12, 1024, 1e-5, None),
    "gpt2-medium": (354_823_168, 16, 16, 1024, 1e-5, None),
    "gpt2-large": (774_030_080, 20, 20, 1024, 1e-5, None),
    "gpt2-xl": (1_557_611_200, 25, 25, 1024, 1e-5, None),
    "stories15M": (15_191_712, 6, 6, 256, 1e-5, 1e4),
    "stories42M": (pytest.approx(42e6, rel=0.01), 8, 8, 1024, 1e-5, 1e4),  # published so
    "stories110M": (pytest.approx(110e6, rel=0.01), 12, 12, 1024, 1e-5, 1e4),
    "smollm-135M": (134_515_008, 9, 3, 2048, 1e-5, 1e4),
    "smollm-360M": (361_821_120, 15, 5, 2048, 1e-5, 1e4),
    "smollm-1.7B": (1_711_376_384, 32, 32, 2048, 1e-5, 1e4),
    "tinyllama-1.1B": (1_100_048_384, 32, 4, 2048, 1e-5, 1e4),
    "llama-7B": (6_738_415_616, 32, 32, 2048, 1e-6, 1e4),
    "llama2-7B": (6_738_415_616, 32, 32, 4096, 1e-5, 1e4),
    "llama2-13B": (13_015_864_320, 40, 40, 4096, 1e-5, 1e4),
    "llama2-70B": (68_976_648_192, 64, 8, 4096, 1e-5, 1e4),
    "llama3-8B": (8_030_261_248, 32, 8, 8192, 1e-5, 5e5),
    "llama3-70B": (70_553_706_496, 64, 8, 8192, 1e-5, 5e5),
    "llama3.2-1B": (1_235_814_400, 32, 8, 8192, 1e-5, 5e5),  # 8192: their original_max_position_embeddings
    "llama3.2-3B": (3_212_749_824, 24, 8, 8192, 1e-5, 5e5),
}


def test_parameter_counts_and_settings_are_the_published_ones():
    # fails on a wrong width, hidden size, vocabulary or tied head, and on a setting that no count shows
    def ours(c):
        rope = c.rope_base if c.positions == "rotary" else None
        return flops.n_params(c)["total"], c.heads, c.kv_heads, c.context, c.norm_eps, rope

    assert {name: ours(c) for name, c in presets.PRESETS.items()} == PUBLISHED


@pytest.mark.parametrize("name", presets.PRESETS)
def test_tensors_are_those_of_transformers(name, tmp_path):
    # fails when a tensor of the family has another name or shape than transformers gives it, or is left out
    torch, transformers = require("torch"), require("transformers")
    c = presets.PRESETS[name]
    family = family_of(c)
    (tmp_path / hf.CONFIG).write_text(json.dumps(family.to_json(c)))
    assert hf.read_config(tmp_path) == c
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(tmp_path))
    assert sum(p.numel() for p in theirs.parameters()) == flops.n_params(c)["total"]
    ours = hf.tensor_shapes(c)
    tied = {"lm_head.weight"} if c.tied_head else set()
    assert ours == {n: tuple(x.shape) for n, x in theirs.state_dict().items() if n not in tied}


def test_an_unknown_preset_is_refused_with_the_nearest():
    # fails with a KeyError, or without a name to choose
    with pytest.raises(config.ConfigError, match=r'gpt-2.*smollm-135M.*Did you mean "gpt2"'):
        presets.preset("gpt-2")
    with pytest.raises(config.ConfigError, match="widht"):
        presets.preset("gpt2", widht=3)


def test_a_preset_is_a_config_whose_fields_can_be_set():
    # fails when a config's own fields are overwritten by defaults, or an override by the preset
    tree, _ = sweep.load_config("preset.py:llama3.2-1B", {"model.dtype": "bfloat16", "model.vocab_size": None})
    resolved = config.resolve(tree).model
    assert resolved == presets.preset("llama3.2-1B", dtype="bfloat16", vocab_size=260)
    assert presets.preset("gpt2") == presets.PRESETS["gpt2"]
