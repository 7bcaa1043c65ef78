"""A sweep of seconds for tests of the launcher: a trunk with two branches.

    python -m scaling.launch --sweep tests/launch/seconds.py --config.data.store=STORE

Takes about 20 seconds on two cores with a warm compilation cache.  The trunk alone trains for some three seconds after its
first checkpoint, so that a launcher started anew finds it running; what it learns is of no interest.
"""

import ml_collections

from scaling import config as configs
from scaling import sweep


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(configs.default_dict())
    config.model.update(depth=1, width=16, context=32)
    config.batch = "128 tokens"
    config.data.val_windows = 8
    config.evals = 2
    config.data.epochs = 10.0
    config.machine.checkpoint_minutes = 0.005
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    return sweep.fork(config, ["1000 steps", "2000 steps"])
