"""The default ladder: text in, a law out.

    python -m scaling.launch --sweep ladder.py

Arguments: (none)  6 sizes x 3 budgets of bytes,
           quick   4 sizes x 3 budgets,
           bpe     the same grid as the default in tokens of a BPE vocabulary of 1,024,
           tpu     10M to 3B parameters, bf16, for a pod.
"""

import ml_collections

from scaling import sweep
from scaling.config import default_dict

SIZES = ("50K", "75K", "110K", "150K", "195K", "250K")
BUDGETS = ("600K tokens", "1.2M tokens", "2.4M tokens")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The base run of the grid."""
    config = ml_collections.ConfigDict(default_dict())
    config.batch = "768 tokens"
    config.evals = 1
    config.data.val_windows = 256
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """A trunk per size, a cooldown branch per budget."""
    return sweep.fork(sweep.ladder(config, SIZES), BUDGETS)
