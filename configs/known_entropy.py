"""A ladder on a generated language whose best possible loss is known: the E that a law finds can be checked.

    python -m scaling.launch --sweep known_entropy.py
"""

import ml_collections

from scaling import sweep
from scaling.config import default_dict

WIDTHS = (8, 16, 24, 32, 40, 48)
BUDGETS = ("800K tokens", "1.6M tokens", "3.2M tokens", "6.4M tokens")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The base run; takes no argument."""
    if arg:
        raise ValueError("known_entropy.py takes no argument; another language is another store: python -m scaling.markov")
    config = ml_collections.ConfigDict(default_dict())
    config.data.update(store="tokens/markov", val_windows=512)
    config.model.update(context=64, depth=2)
    config.update(batch="768 tokens", evals=1)
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """A constant-rate trunk per width, and a cooldown branch per budget."""
    return sweep.fork(sweep.grid(config, {"model.width": WIDTHS}), BUDGETS)
