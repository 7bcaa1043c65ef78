"""The default ladder: text in, a law out, in one command.

    pip install -e '.[demo]' && python -m scaling.launch --sweep ladder.py

(none)  6 sizes to 600K x 3 budgets of bytes, 24 members: 18 and a half minutes on 2 busy cores (2.4 GHz, no AVX-512).
quick   4 smaller sizes x 3 budgets of a sixth: a few minutes; a smoke test, its law means nothing.
bpe     the default grid in tokens of a BPE vocabulary of 1,024 (2.7 bytes each), of the same corpus.
tpu     10M to 3B parameters in bf16 over `--config.data.store`: planned and priced anywhere, for a pod.

Why this grid.  Every size sees the same three budgets, a factor of 2 apart, so N and D vary independently (with D in
proportion to N, L(N, D) could not be identified).  Depth is 4 and head size 16 on every rung: width alone grows, so width-muP
needs no depth rule.  The largest size is predicted from the others before it starts.

What was tried, in held-out nats per byte, with heads of 8 where not said.  Small models sit on the bigram plateau for some
hundred steps, so the batch is small (4 windows of 192 bytes) and the rate high.  At 50K parameters, after 0.5M and 1M bytes:

    batch 1536, lr 8e-3                 1.823  1.521
    batch  768, lr 8e-3                 1.677  1.477
    batch  768, lr 1.1e-2               1.681  1.477
    batch  768, lr 8e-3, head size 16   1.669  1.477  (this)
    batch  768, lr 8e-3, random q       1.736  1.505

At 110K after 0.6M and 1.2M bytes: lr 5e-3 1.580 1.378, lr 8e-3 1.541 1.363, lr 1.2e-2 1.534 1.361, head size 16 1.527 1.367:
the same rate serves both widths, and 600K as well (configs/lr_transfer.py; docs/parameterization.md).  Heads of 16 have half
the scores to compute, at equal loss.

Seeds (initialisation and data order) 0, 1, 2 with heads of 8 after 1.2M bytes: 75K 1.369 1.367 1.365, 110K 1.363 1.340 1.332,
150K 1.307 1.312 1.330, 250K 1.268 1.303 (some of these sizes are of an earlier grid): pooled standard deviation 0.014.  The
steps of this grid from size to size are worth 0.08, 0.07, 0.02, 0.03 and 0.003 on average, so the last one lies within the
noise: `sweep.seeds` averages it out, at the price of as many ladders.

Every other window is of the laptop suite's training text (scaling/evals/laptop), so that abilities can be seen to appear
(--config.sweep.suite=False: prose alone).  The numbers above are of prose alone; laws are still of the loss on held-out prose,
which sees half the budget.  At equal weights of the twelve subjects, longer questions and 160 people to know, 110K parameters
solved nothing at 2.4M bytes (exact match at most 0.07); with these weights, exact match (or accuracy among four) and nats per
byte of the right answer, 200 items, 5 shots, seed 0 (python -m analysis.plot_emergence --runs runs/ladder):

                     50K 0.6M   50K 2.4M  195K 1.2M  195K 2.4M  600K 1.2M  600K 2.4M
    copy             0.00 2.69  0.00 2.47  0.00 2.42  0.33 0.64  0.09 0.93  0.97 0.02  a jump, in the loss as well
    reverse          0.00 2.61  0.00 2.46  0.00 2.33  0.39 0.71  0.06 1.10  1.00 0.01  (likewise)
    add, in steps    0.01 1.03  0.04 0.65  0.02 0.82  0.73 0.16  0.08 0.36  0.66 0.16  a gain of chain of thought,
    add, direct      0.00 2.30  0.01 2.03  0.01 1.98  0.03 1.52  0.01 1.90  0.07 1.40  over this
    codes            0.00 2.96  0.01 1.28  0.08 1.13  0.35 0.58  0.39 0.59  0.88 0.13  a jump of exact match alone
    brackets, of 4   0.33 1.58  0.64 1.05  0.66 1.11  0.70 0.87  0.66 0.98  0.84 0.62  smooth
    mod_add, of 4    0.21 2.43  0.28 2.37  0.23 2.34  0.24 2.34  0.27 2.33  0.20 2.32  at chance, as sum, lookup, two_hop
    hidden_map       0.21 1.44  0.26 1.41  0.26 1.41  0.23 1.39  0.27 1.39  0.24 1.38  and this with and without shots
"""

import ml_collections

from scaling import sweep
from scaling.config import DataConfig, default_dict

# argument -> sizes and budgets
GRIDS = {
    "": (("50K", "110K", "195K", "310K", "440K", "600K"), ("600K tokens", "1.2M tokens", "2.4M tokens")),
    "quick": (("13K", "28K", "50K", "75K"), ("100K tokens", "200K tokens", "400K tokens")),
    "bpe": (("50K", "110K", "195K", "310K", "440K", "600K"), ("600K tokens", "1.2M tokens", "2.4M tokens")),
    "tpu": (
        ("10M", "25M", "85M", "200M", "680M", "1.6B", "3B"),
        ("10 tokens/param", "20 tokens/param", "40 tokens/param"),
    ),
}
LARGE = ("680M", "1.6B", "3B")
SUITE_TEXT = "tokens/laptop"  # what the laptop suite asks about; made when it is missing


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The base run of the grid."""
    if arg not in GRIDS:
        raise ValueError(f"unknown argument; there are {', '.join(a for a in GRIDS if a)}, and none")
    config = ml_collections.ConfigDict(default_dict())
    sizes, budgets = GRIDS[arg]
    config.sweep = ml_collections.ConfigDict({"sizes": sizes, "budgets": budgets, "suite": arg in ("", "quick")})
    config.batch = "768 tokens"
    config.evals = 1
    config.data.val_windows = 256
    if arg in ("", "bpe"):
        config.model.head_size = 16
    config.probe.update(formats=("cloze", "cot"), shots=(0, 5), items=200, marks=False)
    if arg == "quick":
        config.probe.update(formats=("cloze",), shots=(5,), items=50)
    if arg == "bpe":
        config.data.update(vocab="1024", store="tokens/apidocs-1024")
    if arg == "tpu":
        config.model.update(context=2048, dtype="bfloat16", layers="scan", remat="dots", base_width=384, base_head_size=64)
        config.model.update(depth_rule=True, base_depth=6)  # from 10M on depth grows as well
        config.data.update(vocab="32768", store="tokens/web-32k", val_windows=512, epochs=4.0)
        config.optim.update(lr=4e-3, beta2=0.95)
        config.update(batch="porian", evals=10)
        config.machine.update(data=0, checkpoint_minutes=15.0)  # as many devices as the batch can use
    config.lock()
    return config


def get_sweep(config: ml_collections.ConfigDict) -> list[sweep.Draft]:
    """A constant-rate trunk per size, and a cooldown branch per budget."""
    rungs = sweep.ladder(config, config.sweep.sizes)
    if config.sweep.suite and config.data.vocab == "bytes" and not config.data.mixture:
        prose, asked = config.data.store, config.probe.suite or "laptop"
        mixed = {"data.mixture": ((prose, 1.0), (SUITE_TEXT, 1.0)), "data.loss_of": prose, "data.store": DataConfig.store}
        rungs = [r.with_(None, **mixed | {"probe.suite": asked}) for r in rungs]
    # From about 1B on parameters are split as well; 8 devices are inside one fast domain of every pod and divide every width.
    rungs = [r.with_(None, **{"machine.fsdp": 8}) if r.config.model.size in LARGE else r for r in rungs]
    return sweep.fork(rungs, config.sweep.budgets)
