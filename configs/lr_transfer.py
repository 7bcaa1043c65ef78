"""Does one learning rate serve the whole ladder?  A sweep of rates over the corners of the default ladder.

    python -m scaling.launch --sweep lr_transfer.py && python -m analysis.plot_lr --runs runs/lr_transfer

(none)  smallest and largest size x smallest and largest budget of ladder.py x 7 rates, a factor of 2 apart around its 8e-3:
        14 trunks and 28 branches, 2.6 times the FLOPs of ladder.py, about half an hour on 2 cores.
quick   two tiny sizes, two short budgets, 5 rates: a few minutes; a smoke test, its minima mean little.

Both budgets of a size share one constant-rate trunk per rate.  Once the best rate is known, the same sweep goes on around it,
in the same folder and without training anything twice:

    python -m scaling.launch --sweep lr_transfer.py --config.sweep.best=8e-3

adds rates a factor of sqrt(2) below and above it, and a second seed at it and at its neighbours up to a factor of 2 away, which
measures the noise that the regret is judged against.
"""

import math

import ml_collections

from scaling import sweep
from scaling.config import default_dict

# argument -> sizes and budgets, smallest and largest of ladder.py; rates as quoted at the base width
CORNERS = {
    "": (("50K", "600K"), ("600K tokens", "2.4M tokens"), (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)),
    "quick": (("13K", "28K"), ("50K tokens", "100K tokens"), (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)),
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The base run, as in ladder.py."""
    if arg not in CORNERS:
        raise ValueError(f"unknown argument; there are {', '.join(a for a in CORNERS if a)}, and none")
    config = ml_collections.ConfigDict(default_dict())
    sizes, budgets, rates = CORNERS[arg]
    config.sweep = ml_collections.ConfigDict({"sizes": sizes, "budgets": budgets, "rates": rates, "best": 0.0})
    config.batch = "768 tokens"
    config.evals = 1
    config.data.val_windows = 256
    if not arg:
        config.model.head_size = 16
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """A trunk per size and rate, a branch per budget; with ``sweep.best``, more of both around it."""
    rungs = sweep.ladder(config, config.sweep.sizes)
    rates, best = [float(r) for r in config.sweep.rates], float(config.sweep.best)
    if best and best not in rates:
        raise ValueError(f"sweep.best={best:g}: must be one of sweep.rates={tuple(rates)}")
    near = [r for r in rates if best / 2.01 < r < best * 2.01] if best else []
    fine = [float(f"{best * factor:.3g}") for factor in (1 / math.sqrt(2), math.sqrt(2))] if best else []
    drafts = sweep.grid(rungs, {"optim.lr": rates + fine})
    drafts += [d.with_(("seed", "s1"), seed=1) for d in sweep.grid(rungs, {"optim.lr": near + fine})] if best else []
    return sweep.fork(drafts, config.sweep.budgets)
