"""(N, D) → task loss → accuracy: both steps fitted, redrawn together, and carried to runs that were left out.

Step 1 is the Chinchilla form of the task loss, Huber loss of its logarithm, by the one fitter; step 2 a sigmoid of task loss
(``analysis.downstream.sigmoid``).  After the OLMo ladder (Bhagia et al. 2024, arXiv 2412.04403), whose published chained
predictions it reproduces (``python -m analysis.downstream``).

What an interval holds, if both forms do: refits of both steps, runs of one trunk redrawn as one; how far a single run scatters
around step 1; and around step 2 the larger of the rows' own scatter and the sampling of as many items as the target is asked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis import identify, intervals
from analysis.downstream.sigmoid import Curve, fit_sigmoid
from analysis.downstream.tables import Run, Task
from analysis.fit import Fit, FitError, fit
from analysis.identify import Verdict
from analysis.intervals import Bootstrap
from analysis.load import Row, Table

SKIP = 0.1  # of a run's checkpoints, its first: their accuracies are at chance and their task losses far up
FEW = 10  # checkpoints, below which none is skipped: they are too few, and a branch's first is no run's beginning
MIN_ROWS = 6  # of step 2, two more than its parameters
BEST = 0.1  # the share of rows, those of least task loss, that must be above chance
ABOVE = 2.0  # standard errors of one evaluation by which they must be
MAX_SCATTER = 0.1  # of accuracy around step 2
MAX_WIDTH = 0.25  # of an accuracy's interval that still says something


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What of a run enters which step.

    Attributes:
      window: step 1 takes the mean of a run's last ``window`` task losses, step 2 moving means over as many checkpoints.  More
        than 1 is for checkpoints that lie close together at the end of a run; in a cooldown they would mix its beginning in.
      delta: of step 1's Huber loss.
      guess: whether a row at chance, far above all task losses, holds step 2's floor (``fit_sigmoid``).
    """

    window: int = 1
    delta: float = 1e-2
    guess: bool = True


OLMO = Recipe(window=5, delta=1e-3, guess=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """Both steps of one task with their refits; without them where ``problem`` says why not.

    Attributes:
      task: the runs that were fitted.
      loss, accuracy: step 2's rows, and the run of each in ``owners``.
      scatter: of step 2's rows around the curve, a standard deviation of accuracy.
    """

    task: Task
    recipe: Recipe
    loss: np.ndarray
    accuracy: np.ndarray
    owners: list[Run]
    law: Bootstrap | None = None
    curve: Curve | None = None
    refits: Bootstrap | None = None
    scatter: float = math.nan
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Forecast:
    """One run's task loss and accuracy as told by smaller ones, beside what was measured where it was.

    Numbers of a forecast whose ``verdict`` has no ``quote`` are None: they would be made up.
    """

    task: str
    run: str
    size: str
    n_params: float
    n_tokens: float
    flops: float
    chance: float
    items: float
    level: float
    loss: float | None
    loss_interval: tuple[float, float] | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    measured_loss: float | None
    measured_accuracy: float | None
    extrapolation: float | None  # its compute over the largest that was fitted
    verdict: Verdict

    @property
    def error(self) -> float | None:
        """Forecast over measured accuracy, less 1."""
        return None if self.accuracy is None or not self.measured_accuracy else self.accuracy / self.measured_accuracy - 1

    @property
    def hit(self) -> bool | None:
        """Whether the accuracy's interval held the measured one."""
        if self.accuracy_interval is None or self.measured_accuracy is None:
            return None
        lo, hi = self.accuracy_interval
        return lo <= self.measured_accuracy <= hi


def ends(run: Run, window: int) -> tuple[float, float]:
    """Task loss and accuracy of a run's end: means over its last ``window`` checkpoints."""
    return float(run.loss[-window:].mean()), float(run.accuracy[-window:].mean())


def checkpoints(task: Task, window: int) -> tuple[np.ndarray, np.ndarray, list[Run]]:
    """Step 2's rows: task loss, accuracy and run of every checkpoint, less the first tenth of each run of ten or more."""
    kept = [(r, math.ceil(SKIP * len(r.tokens)) if len(r.tokens) >= FEW else 0) for r in task.runs]
    loss = [_moving_mean(r.loss[first:], window) for r, first in kept]
    accuracy = [_moving_mean(r.accuracy[first:], window) for r, first in kept]
    return np.concatenate(loss), np.concatenate(accuracy), [r for r, first in kept for _ in r.tokens[first:]]


def _moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Means over the last ``window`` values, over fewer at the beginning."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    to = np.arange(1, len(values) + 1)
    since = np.maximum(0, to - window)
    return (total[to] - total[since]) / (to - since)


def chain(task: Task, recipe: Recipe | None = None, draws: int = intervals.DRAWS, seed: int = 0) -> Chain:
    """Fits and refits both steps to all runs of a task; ``Chain.problem`` says what stands against it."""
    recipe = recipe or Recipe()
    loss, accuracy, owners = checkpoints(task, recipe.window)
    out = Chain(task, recipe, loss, accuracy, owners)
    try:
        first = fit(_step_one(task, recipe), delta=recipe.delta)
    except FitError as error:
        reason = str(error).split(": ", 1)[-1].split(": train or add", 1)[0]
        return dataclasses.replace(out, problem=f"step 1: {reason}")
    if problem := _no_step_one(first) or _no_step_two(task, loss, accuracy):
        return dataclasses.replace(out, problem=problem)
    curve = fit_sigmoid(loss, accuracy, [r.cluster for r in owners], task.chance, recipe.guess)
    scatter = intervals.corrected_residuals(curve.fit, curve.fit.rows.groups, 0.5)[: len(loss)]  # the measured
    out = dataclasses.replace(out, curve=curve, scatter=float(np.sqrt(np.mean(scatter**2))))
    if problem := _no_curve(out):
        return dataclasses.replace(out, problem=problem)
    law = intervals.bootstrap(first, draws, seed=seed)
    return dataclasses.replace(out, law=law, refits=intervals.bootstrap(curve.fit, draws, "wild", seed + 1))


def _step_one(task: Task, recipe: Recipe) -> Table:
    rows = tuple(
        Row(r.id, r.size, r.n_params, float(r.tokens[-1]), float(r.flops[-1]), ends(r, recipe.window)[0], cluster=r.cluster)
        for r in task.runs
        if r.ends
    )
    return Table(task.name, rows)


def _no_step_one(first: Fit) -> str | None:
    """Why the task losses tell no law, None where they do."""
    if reasons := identify.inseparable(first):
        return f"step 1: {reasons[0]}"
    middle = float(np.median(np.abs(first.residuals)))
    if middle > identify.MAX_MISFIT:
        limit = f"limit {100 * identify.MAX_MISFIT:.0f} %"
        return f"step 1: half of the task losses lie more than {100 * middle:.0f} % off the law ({limit}): it is not their form"
    return None


def _no_step_two(task: Task, loss: np.ndarray, accuracy: np.ndarray) -> str | None:
    """Why the accuracies tell no curve, None where they do."""
    if len(loss) < MIN_ROWS:
        return f"step 2: {len(loss)} checkpoints, it takes {MIN_ROWS} at least"
    best = np.argsort(loss)[: max(3, math.ceil(BEST * len(loss)))]
    mean = float(accuracy[best].mean())
    if math.isfinite(task.items):  # all checkpoints are asked the same items, so that their mean is no surer than one of them
        error = math.sqrt(max(task.chance * (1 - task.chance), 1 / task.items) / task.items)
    else:
        error = float(accuracy.std() / math.sqrt(len(best)))
    if mean <= task.chance + ABOVE * error:
        return (
            f"step 2: flat at chance: the {len(best)} checkpoints of least task loss average {mean:.3f}, chance is "
            f"{task.chance:.3g} with a standard error of {error:.3f}; nothing says when it will rise"
        )
    return None


def _no_curve(out: Chain) -> str | None:
    """Why the fitted curve tells no accuracy, None where it does."""
    assert out.curve is not None
    params = out.curve.fit.params
    if not (params["k"] > 0 and params["top"] > params["floor"]):
        return "step 2: accuracy does not rise as the task loss falls"
    if out.scatter > MAX_SCATTER:
        limit = f"limit {MAX_SCATTER:g}"
        return f"step 2: accuracies scatter by {out.scatter:.2f} around the curve ({limit}): the task loss does not tell them"
    return None


def predict(fitted: Chain, run: Run, level: float = intervals.LEVEL, seed: int = 0) -> Forecast:
    """The end of a run as the chain tells it, beside what was measured there."""
    tokens, flops = float(run.tokens[-1]), float(run.flops[-1])
    measured: tuple[float | None, float | None] = ends(run, fitted.recipe.window) if run.ends else (None, None)
    task, known = fitted.task, fitted.problem is None
    out = Forecast(
        task.name, run.id, run.size, run.n_params, tokens, flops, task.chance, task.items, level, None, None, None, None,
        *measured, None, Verdict(known, () if known else (str(fitted.problem),), known),
    )  # fmt: skip
    if not known:
        return out
    assert fitted.law is not None and fitted.curve is not None and fitted.refits is not None
    first = intervals.predict(fitted.law, run.n_params, tokens, flops, level)
    at = fitted.law.fit.losses(fitted.law.theta, run.n_params, tokens, flops)
    losses = intervals.with_noise(fitted.law, at, first.loss)
    accuracy = float(fitted.curve.accuracy(np.array([first.loss]))[0, 0])
    draws = _asked(fitted, fitted.curve.accuracy_of_draws(losses, fitted.refits.theta), np.random.default_rng(seed + 2))
    lo, hi = (float(v) for v in np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]))
    reasons = identify.off_the_line(fitted.law.fit, run.n_params, tokens)
    if hi - lo > MAX_WIDTH:
        reasons.append(f"the accuracy's interval is {hi - lo:.2f} wide (limit {MAX_WIDTH:g})")
    return dataclasses.replace(
        out, loss=first.loss, loss_interval=first.interval, accuracy=accuracy, accuracy_interval=(lo, hi),
        extrapolation=first.extrapolation, verdict=Verdict(not reasons, tuple(reasons)),
    )  # fmt: skip


def _asked(fitted: Chain, expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Accuracies (draws,) as they come out when items are asked.

    The scatter of step 2's rows holds the sampling of items already, so where it is the larger, only what is missing is added.
    """
    items, spread = fitted.task.items, fitted.scatter**2
    if math.isfinite(items):
        sampled = rng.binomial(int(items), expected) / items
        spread -= float(np.mean(expected * (1 - expected) / items))
    else:
        sampled = expected
    return np.clip(sampled + math.sqrt(max(0.0, spread)) * rng.standard_normal(len(expected)), 0.0, 1.0)


def leave_largest_out(task: Task) -> tuple[Task, list[Run]]:
    """The runs below the largest size that has a finished run, and that size's finished runs; none where none has finished."""
    finished = [r for r in task.runs if r.ends]
    top = max((r.n_params for r in finished), default=math.inf)
    return task.where(lambda r: r.n_params < top), [r for r in finished if r.n_params == top]


def forecast(
    tasks: Sequence[Task], recipe: Recipe | None = None, level: float = intervals.LEVEL, draws: int = intervals.DRAWS
) -> list[Forecast]:
    """Every finished run of each task's largest size, from the smaller sizes alone."""
    out = []
    for task in tasks:
        smaller, targets = leave_largest_out(task)
        if not targets:
            continue
        fitted = chain(smaller, recipe, draws)
        out += [predict(fitted, run, level) for run in targets]
    return out


def to_json(fitted: Chain, level: float) -> dict[str, Any]:
    """A chain as JSON types."""
    about = {"task": fitted.task.name, "chance": fitted.task.chance, "items": _number(fitted.task.items),
             "loss": fitted.task.loss_name, "window": fitted.recipe.window, "delta": fitted.recipe.delta, "skip": SKIP,
             "rows": len(fitted.loss), "problem": fitted.problem}  # fmt: skip
    if fitted.law is None or fitted.curve is None or fitted.refits is None:
        return about
    draws = fitted.curve.params(fitted.refits.theta)
    return about | {
        "runs": [r.id for r in fitted.law.fit.table.rows], "scatter": fitted.scatter,
        "step1": {"params": fitted.law.fit.params, "intervals": fitted.law.intervals(level), "edges": fitted.law.fit.edges,
                  "bootstrap": fitted.law.kind},
        "step2": {"params": fitted.curve.fit.params,
                  "intervals": {k: fitted.refits.interval(v, level) for k, v in draws.items()},
                  "bootstrap": fitted.refits.kind},
    }  # fmt: skip


def forecast_json(f: Forecast) -> dict[str, Any]:
    """A forecast as JSON types."""
    return dataclasses.asdict(f) | {"items": _number(f.items), "error": f.error, "hit": f.hit}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
