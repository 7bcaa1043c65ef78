"""A ladder on a generated language whose best possible loss is known: the E that a law finds can be checked.

    python -m scaling.launch --sweep known_entropy.py && python -m analysis.plot_scaling --runs runs/known_entropy

6 sizes x 4 budgets, 30 members, 9e12 FLOPs, planned at 6 minutes on 2 cores.  The language (python -m scaling.markov: order 2,
32 symbols, Zipf exponent 1, made in 4 s when it is missing) cannot be predicted to better than 1.7333 nats per token in windows
of 64, nor to better than 1.7287 in the 512 windows of validation (ideal_loss and ideal_val_loss in plan.json).  Losses over the
latter, in nats per token:

    N \\ tokens     800K     1.6M     3.2M     6.4M
        1.7K   0.2235   0.1860   0.1666   0.1531
       5.97K   0.0875   0.0647   0.0478   0.0413
       13.9K   0.0626   0.0384   0.0245   0.0188
       25.2K   0.0490   0.0299   0.0200   0.0158
         38K   0.0487   0.0280   0.0177   0.0140
       55.5K   0.0435   0.0258   0.0164   0.0126

The fit finds E = 1.7259, 90 % interval [1.7175, 1.7339]: the truth is inside, half the interval is 3.7 % of the smallest run's
excess loss and 5.4 % of the least of the smallest size.  The last row was predicted from the others before it was trained,
within 0.5 %, inside its 90 % intervals.

Why this grid.  To find E the losses must fall by powers of N and of D, and come near the floor.  Under Zipf's law there is
something to learn at every scale.  Depth is 2 on every rung, so width alone grows.  docs/data.md says what E does when a part
of the grid is left out, and what was tried before and missed.
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
