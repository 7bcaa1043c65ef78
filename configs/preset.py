"""A published architecture by name, from scratch.

    python -m scaling.train --config preset.py:gpt2 --config.data.store=tokens/mine --config.data.vocab=50257

The argument is a name of `scaling.presets.PRESETS` (gpt2 ... gpt2-xl, stories15M, smollm-135M, llama2-7B, llama3-8B, ...).  The
vocabulary is the published one; `--config.model.vocab_size=None` takes that of the data instead.  Parameterization is SP, so
the learning rate is the architecture's own: 6e-4 is nanoGPT's for GPT-2's smallest; larger ones need less
(`--config.optim.lr=3e-4` for Llama's 7B).
"""

import dataclasses

import ml_collections

from scaling import presets
from scaling.config import default_dict


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """A run of the preset ``arg``, 20 tokens per parameter."""
    config = ml_collections.ConfigDict(default_dict())
    config.model.update(dataclasses.asdict(presets.preset(arg)))
    config.optim.update(lr=6e-4, schedule="cosine", final_lr=0.1, beta2=0.95)
    config.batch = "porian"
    config.lock()
    return config
