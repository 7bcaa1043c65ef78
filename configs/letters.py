"""When does a model learn to answer with a letter?  MMLU's own format, in which small models stay at chance for long.

    python -m scaling.launch --sweep letters.py
    python -m scaling.evals --run runs/letters --suite laptop --tasks codes,homes --formats cloze,letter --shots 0 --step all

(none)  3 sizes x MARKS of training on two subjects of the laptop suite (codes and homes), four documents in five as MMLU puts
        them (the store tokens/letters, made when it is missing).
quick   one size, two marks.
"""

import ml_collections

from scaling import sweep
from scaling.config import default_dict

# argument -> sizes, budget and how many marks of equal distance
GRIDS = {"": (("110K", "220K", "440K"), 10_000_000, 10), "quick": (("50K",), 400_000, 2)}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The base run: one long run per size, every mark a checkpoint."""
    if arg not in GRIDS:
        raise ValueError(f"unknown argument; there are {', '.join(a for a in GRIDS if a)}, and none")
    config = ml_collections.ConfigDict(default_dict())
    sizes, tokens, marks = GRIDS[arg]
    config.sweep = ml_collections.ConfigDict({"sizes": sizes})
    config.budget = f"{tokens} tokens"
    config.marks = tuple(f"{tokens * i // marks} tokens" for i in range(1, marks))
    config.batch = "1280 tokens"
    config.evals = marks
    config.model.update(context=160, head_size=16)  # MMLU's header and one question
    config.data.update(store="tokens/letters", epochs=4.0, val_windows=128, rest=0.1)
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """A run per size."""
    return sweep.ladder(config, config.sweep.sizes)
