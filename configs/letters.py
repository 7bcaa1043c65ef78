"""When does a model learn to answer with a letter?  MMLU's own format, in which small models stay at chance for long.

    python -m scaling.launch --sweep letters.py
    python -m scaling.evals --run runs/letters --suite laptop --tasks codes,homes --formats cloze,letter --shots 0 --step all

(none)  3 sizes, 10M bytes each, of two subjects of the laptop suite (codes and homes), four documents in five as MMLU puts them
        (the store tokens/letters, made when it is missing), a checkpoint every 1M: about 45 minutes on one core.
quick   one size, two marks: a smoke test.

Targets outside of answers weigh a tenth (`data.rest`): a letter is one byte in fifty of such a document.  What was seen before,
at 195K parameters, cloze and letter accuracy (128 test items each of codes and homes, 0-shot):

    all targets weigh alike, after 2M, 4M, 8M bytes    cloze 0.49 1.00 1.00   letter 0.27 0.25 0.29
    the rest weighs 0.05, after 1.5M, 3M, 5M bytes     cloze 0.99 1.00 1.00   letter 0.24 0.30 0.28

This run, with a weight of 0.1, after 10M bytes (600 items, 0-shot): what is known perfectly is not answered with a letter.

                                          110K   220K   440K
    cloze accuracy                       1.000  1.000  0.997
    letter accuracy (chance 0.25)        0.253  0.242  0.250
    nats of the letter (ln 4 is 1.386)   1.387  1.387  1.386
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
    config.probe.update(suite="laptop", tasks=("codes", "homes"), formats=("cloze", "letter"))
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """A run per size."""
    return sweep.ladder(config, config.sweep.sizes)
