"""One run at the default size.

    python -m scaling.train --config default.py --config.model.size=110K --config.run_dir=runs/one

`--config.model.size=1.2M` or `--config.model.depth=6` sets the whole shape, `--config.budget='20 tokens/param'` the length.
The default length is a compute budget, a few minutes on two cores whatever the size (195K parameters: 8,300 steps, 6.4M bytes).
"""

import ml_collections

from scaling.config import default_dict


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The default run; takes no argument."""
    if arg:
        raise ValueError("default.py takes no argument; set fields with --config.field=value")
    config = ml_collections.ConfigDict(default_dict())
    config.budget = "1e13 flops"
    config.lock()
    return config
