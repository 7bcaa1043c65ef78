"""A ladder on a mixture of stores: three parts of the default corpus to one of a generated language.

    pip install -e '.[demo]' && python -m scaling.launch --sweep mixture.py

Both stores are made when they are missing.  Your own: --config.data.mixture="(('tokens/books', 3), ('tokens/code', 1))".  The
validation loss is the mixture's, the sources' own losses weighted as in training; metrics.jsonl and done.json hold those, and
the tokens that each source has given, under "sources".  8 members of 13 thousand to 75 thousand parameters: about 2 minutes on
2 cores by the plan's estimate.
"""

import ml_collections

from scaling import sweep
from scaling.config import default_dict


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The base run; takes no argument."""
    if arg:
        raise ValueError("mixture.py takes no argument; set the mixture with --config.data.mixture")
    config = ml_collections.ConfigDict(default_dict())
    config.data.mixture = (("tokens/apidocs", 3.0), ("tokens/markov", 1.0))
    config.data.val_windows = 256
    config.update(batch="768 tokens", evals=1)
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """Four sizes at two budgets, each as its own run."""
    return sweep.ladder(config, ("13K", "28K", "50K", "75K"), ("200K tokens", "400K tokens"))
