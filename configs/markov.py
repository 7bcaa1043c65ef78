"""A ladder on a generated language whose best possible loss is known: what a law says about E can be checked.

python -m scaling.launch --sweep markov.py
"""

import ml_collections

from scaling import sweep
from scaling.config import default_dict

SIZES = ("13K", "28K", "50K", "75K", "110K")
BUDGETS = ("200K tokens", "400K tokens", "800K tokens")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The base run; takes no argument."""
    if arg:
        raise ValueError("markov.py takes no argument; another language is another store, made with python -m scaling.markov")
    config = ml_collections.ConfigDict(default_dict())
    config.data.update(store="tokens/markov", val_windows=512)
    config.model.context = 64
    config.update(batch="768 tokens", evals=1)
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """A constant-rate trunk per size, and a cooldown branch per budget."""
    return sweep.fork(sweep.ladder(config, SIZES), BUDGETS)
