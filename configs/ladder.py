"""The default ladder: text in, a law out, in one command.

    pip install -e '.[demo]' && python -m scaling.launch --sweep ladder.py

(none)  6 sizes to 600K x 3 budgets of bytes, 24 members: 10 to 11 minutes on 2 cores (2.4 GHz, no AVX-512).
quick   4 smaller sizes x 3 budgets of a sixth: about 2 minutes; a smoke test, its law means nothing.
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
noise (443K and 600K after 2.4M bytes: README.md): `sweep.seeds` averages it out, at the price of as many ladders.

Every other window is of the laptop suite's training text (scaling/evals/laptop), so that abilities can be seen to appear
(--config.sweep.suite=False: prose alone).  The numbers above are of prose alone; laws are still of the loss on held-out prose,
which sees half the budget.  At equal weights of
the twelve subjects, longer questions and 160 people to know, 110K parameters solved nothing at 2.4M bytes (exact match at most
0.07); with these weights, in exact match and in nats per byte of the right answer (64 test items, 5 shots, seed 0; a standard
error of a half is 0.06):

                     50K 0.6M   50K 2.4M  195K 1.2M  195K 2.4M  600K 1.2M  600K 2.4M
    copy             0.00 2.16  0.00 2.02  0.00 1.93  0.62 0.24  0.41 0.43  0.98 0.01  a jump, in the loss as well
    reverse          0.00 2.16  0.00 1.99  0.00 1.73  0.98 0.03  0.25 0.69  0.98 0.01  (likewise; and sort)
    add, in steps    0.00 0.95  0.02 0.74  0.00 0.62  0.61 0.16  0.20 0.27  0.81 0.13  a gain of chain of thought,
    add, direct      0.02 1.51  0.05 1.28  0.00 1.36  0.06 1.11  0.00 1.28  0.06 0.99  over this
    codes            0.00 2.38  0.03 1.01  0.12 0.85  0.52 0.33  0.31 0.57  0.84 0.12  a jump of exact match alone
    brackets, of 4   0.39 1.25  0.75 0.82  0.69 0.86  0.78 0.68  0.86 0.63  0.94 0.45  smooth (accuracy among choices)
    mod_add, of 4    0.22 1.58  0.23 1.57  0.28 1.57  0.25 1.55  0.30 1.55  0.25 1.53  at chance, as sum, lookup, two_hop
    hidden_map       0.20 0.71  0.30 0.69  0.34 0.71  0.30 0.69  0.20 0.72  0.20 0.69  and this with and without shots
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
