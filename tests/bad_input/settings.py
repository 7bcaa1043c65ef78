"""Mistakes in what a user says: config, sweep file, command line."""

from __future__ import annotations

from .case import LAUNCH, ONE, TRAIN, Case
from .world import SWEEP, sweep_file, write

CASES: dict[str, list[Case]] = {
    "Config": [
        Case(
            "a misspelt field", f"{TRAIN} {ONE} --config.model.widht=64",
            ("command line", "model.widht", "64", 'Did you mean "model.width"?'), process=True,
        ),
        Case(
            "text for a number", f"{TRAIN} {ONE} --config.model.depth=four",
            ("one.py", "model.depth", "'four'", "must be a whole number"),
        ),
        Case(
            "a unit that there is not", f"{TRAIN} {ONE} --config.budget='20 token/param'",
            ("one.py", "budget", "'20 token/param'", "such as '20 tokens/param'"),
        ),
        Case(
            "a number without a unit", f"{TRAIN} {ONE} --config.budget=2000",
            ("one.py", "budget", "'2000'", "such as '20 tokens/param'"),
        ),
        Case(
            "a negative size", f"{TRAIN} {ONE} --config.model.depth=-4",
            ("one.py", "model.depth", "=-4:", "must be at least 1"),
        ),
        Case(
            "windows of no tokens", f"{TRAIN} {ONE} --config.model.context=0",
            ("one.py", "model.context", "=0:", "must be at least 1"),
        ),
        Case(
            "heads that do not divide the width", f"{TRAIN} {ONE} --config.model.heads=5",
            ("one.py", "model.width", "=16: not divisible by heads=5", "use a multiple, such as 15"),
        ),
        Case(
            "a size beyond the dial", f"{TRAIN} {ONE} --config.model.size=9000T --config.model.depth=None "
            "--config.model.width=None",
            ("one.py", "model.size", "'9000T'", "set depth and width instead"),
        ),
        Case(
            "a negative learning rate", f"{TRAIN} {ONE} --config.optim.lr=-1e-3",
            ("one.py", "optim.lr", "=-0.001:", "must be positive"),
        ),
        Case(
            "two mistakes at once", f"{TRAIN} {ONE} --config.data.epochs=0 --config.model.norm=batchnorm",
            ("one.py: cannot run:", "data.epochs", "=0.0: must be positive", "'batchnorm': must be one of rmsnorm, layernorm"),
        ),
        Case(
            "a schedule that there is not", f"{TRAIN} {ONE} --config.optim.schedule=cosin",
            ("one.py", "optim.schedule", "'cosin'", 'Did you mean "cosine"?'),
        ),
        Case(
            "a batch that is not whole windows", f"{TRAIN} {ONE} --config.batch='100 tokens'",
            ("one.py", "batch", "'100 tokens'", "such as '96 tokens'"),
        ),
        Case(
            "a mixture without weights", f"{TRAIN} {ONE} --config.data.mixture=tokens/small",
            ("one.py", "data.mixture", "'tokens/small'", "such as (('tokens/a', 3), ('tokens/b', 1))"),
        ),
        Case(
            "micro-batches that do not divide the batch", f"{TRAIN} {ONE} --config.machine.micro_batches=3",
            ("one.py", "machine.micro_batches", "=3", "use a batch of 6 windows, or lower one"),
        ),
        Case(
            "a mesh larger than the machine", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.machine.data=8",
            ("one.py", "machine.data", "[8, 1, 1]", "lower an axis"), process=True,
        ),
        Case(
            "a warm-up longer than the run", f"{TRAIN} {ONE} --config.optim.warmup='30 steps'",
            ("one.py", "optim.warmup", "30 steps", "raise the budget"),
        ),
        Case(
            "a mark beyond the end", f"{TRAIN} {ONE} --config.marks='40 steps'",
            ("one.py", "marks", "'40 steps'", "20 steps of the run"),
        ),
        Case(
            "a config file that is not there", f"{TRAIN} --config on.py",
            ("'on.py'", "looked for", "configs/on.py", 'Did you mean "one.py"?'), varies=r"there are [^.]*(\.py, [^.]*)*\.py\.",
        ),
        Case(
            "a config file without get_config", f"{TRAIN} --config mine.py",
            ("mine.py", "get_config(arg)", "has no", "see configs/default.py"), write("mine.py", "config = {}\n"),
        ),
    ],
    "Sweep file": [
        Case(
            "a sweep file that is not there", f"{LAUNCH} --sweep swep.py",
            ("'swep.py'", "looked for", "configs/swep.py", 'Did you mean "sweep.py"?'), process=True,
            varies=r"there are [^.]*(\.py, [^.]*)*\.py\.",
        ),
        Case(
            "a syntax error", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "line 20", "'(' was never closed", "mend"), sweep_file("return sweep.ladder(config, ['50K']"),
        ),
        Case(
            "an exception in it", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "line 20", "list index out of range", "mend"), sweep_file("return [[config][1]]"),
        ),
        Case(
            "a misspelt field in it", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "model.widht", "=32:", 'Did you mean "model.width"?'),
            sweep_file("config.model.widht = 32\nreturn config"),
        ),
        Case(
            "no members", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "get_sweep", "no members", "return members, such as sweep.ladder"),
            sweep_file("return sweep.ladder(config, [])"),
        ),
        Case(
            "no return", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "get_sweep", "None", "sweep.ladder"), sweep_file("sweep.ladder(config, ['50K'])"),
        ),
        Case(
            "sizes instead of members", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "get_sweep", "'50K'", "sweep.ladder"), sweep_file("return ['50K', '75K']"),
        ),
        Case(
            "two members of one name", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "causal-lr0.001", "two members have this id", "different tags"),
            sweep_file("return [*sweep.grid(config, {'optim.lr': [1e-3]}), *sweep.grid(config, {'optim.lr': [1e-3]})]"),
        ),
        Case(
            "no get_sweep", f"{LAUNCH} --sweep one.py",
            ("one.py", "get_sweep(config)", "has no", "python -m scaling.train"),
        ),
        Case(
            "a get_config that returns nothing", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "get_config", "None", "ConfigDict"), write("mine.py", "def get_config(arg):\n    pass\n" + SWEEP),
        ),
        Case(
            "budgets in two units", f"{LAUNCH} --sweep mine.py",
            ("mine.py", "budgets", "steps, tokens", "must be in one unit"),
            sweep_file("return sweep.fork(config, ['20 steps', '1M tokens'])"),
        ),
        Case(
            "an argument that the file does not know", f"{LAUNCH} plan --sweep ladder.py:quik",
            ("ladder.py", "get_config", "'quik'", "quick"),
        ),
    ],
    "Command line": [
        Case(
            "a misspelt verb", f"{LAUNCH} pln --sweep sweep.py",
            ("command line", "verb", "'pln'", 'Did you mean "plan"?'),
        ),
        Case(
            "a misspelt option", f"{LAUNCH} --swep sweep.py",
            ("command line", "--swep", "no such option", 'Did you mean "--sweep"?'), process=True,
        ),
        Case(
            "an option that there is not", f"{LAUNCH} --sweep sweep.py --backend slurm",
            ("command line", "--backend", "no such option", "--help"),
        ),
        Case(
            "a field without a value", f"{TRAIN} {ONE} --config.seed",
            ("command line", "--config.seed", "needs a value", "such as --config.model.depth=6"),
        ),
        Case(
            "a field set twice", f"{TRAIN} {ONE} --config.seed=1 --config.seed=2",
            ("command line", "--config.seed", "=1 and =2", "give it once"),
        ),
        Case("neither config nor spec", TRAIN, ("command line", "give --config FILE", "--spec", "such as --config default.py")),
        Case(
            "text for a number of retries", f"{LAUNCH} --sweep sweep.py --retries two",
            ("command line", "--retries", "'two'", "must be a whole number"),
        ),
        Case(
            "a negative number of retries", f"{LAUNCH} --sweep sweep.py --retries -1",
            ("--retries", " -1:", "must be", " 0 or more"),
        ),
        Case(
            "a kind of device that there is not", f"{LAUNCH} --sweep sweep.py --use gpuu",
            ("--use", "cpu, gpu", "gpuu", "such as gpu:0,1"),
        ),
        Case(
            "a core that there is not", f"{LAUNCH} --sweep sweep.py --use cpu:99999",
            ("--use", "no core", " 99999 here", "; choose among them"), varies=r"there are [\d, ]+",
        ),
        Case(
            "a negative time to hang", f"{LAUNCH} --sweep sweep.py --hang-minutes -1",
            ("--hang-minutes", " -1:", "must be at least 0.2", "or 0 to wait"),
        ),
        Case(
            "a device of unknown peak", f"{LAUNCH} plan --sweep sweep.py --device H1000",
            ("--device", "peak", "'H1000'", "there are GB200"),
        ),
        Case(
            "an --out that is a file", f"{LAUNCH} --sweep sweep.py --out mine.csv",
            ("mine.csv", "--out", "File exists", "give another place"),
        ),
        Case(
            "a folder without a sweep", f"{LAUNCH} status --runs text",
            ("text", "sweep.json", "no sweep was launched here", "give"),
        ),
    ],
}  # fmt: skip
