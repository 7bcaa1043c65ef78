"""A ladder on a generated language whose best possible loss is known: the E that a law finds can be checked.

    python -m scaling.launch --sweep known_entropy.py && python -m analysis.plot_scaling --runs runs/known_entropy

5 sizes x 4 budgets x 2 seeds, 50 members, 1.8e13 FLOPs, planned at 10 minutes on 2 cores.

The language (python -m scaling.markov: order 2, 32 symbols, Zipf exponent 1, made in 4 s when it is missing) cannot be
predicted to better than 1.7333 nats per token in windows of 64, nor to better than 1.7287 in the 512 windows of validation
(ideal_loss and ideal_val_loss in plan.json).  Losses over the latter, mean of the seeds (standard
deviation 0.0010):

    N \\ tokens     800K     1.6M     3.2M     6.4M
       5.97K   0.0886   0.0656   0.0493   0.0409
       13.9K   0.0615   0.0372   0.0243   0.0177
       25.2K   0.0491   0.0301   0.0203   0.0157
         38K   0.0495   0.0278   0.0179   0.0134
       55.5K   0.0435   0.0260   0.0164   0.0123

The Chinchilla form finds E = 1.7298, 90 % interval [1.7255, 1.7335]: the truth is inside, 0.0012 below the estimate.  Half the
interval is 4.5 % of the excess loss of the smallest size at its shortest budget, and 9.8 % of that at its longest.  Other forms
say up to 1.7373; all of them together allow [1.7255, 1.7386], the interval that is quoted.  The largest size was predicted from
the others before it was trained, within 0.4 %, 6 of its 8 runs inside their 90 % intervals (docs/data.md).

Why this grid.  To find E the losses must fall by powers of N and of D, independently, and come near the floor.  Under Zipf's
law there is something to learn at every scale.  Depth is 2 on every rung, so width alone grows.  docs/data.md says what E does
when a part of the grid is left out, and what was tried before: among it a smallest size of 1.7K, which learns by another power
of D than the others.
"""

import ml_collections

from scaling import sweep
from scaling.config import default_dict

WIDTHS = (16, 24, 32, 40, 48)
SEEDS = 2
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
    """A constant-rate trunk per width and seed, and a cooldown branch per budget."""
    return sweep.fork(sweep.seeds(sweep.grid(config, {"model.width": WIDTHS}), SEEDS), BUDGETS)
