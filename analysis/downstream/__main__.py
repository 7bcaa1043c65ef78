"""How well would the largest run answer?  ``python -m analysis.downstream``.

    (no arguments)                     the shipped OLMo ladder: 7B and 13B from runs up to 1.3B, beside the published forecasts
    --runs runs/ladder                 accuracy of the largest size, task by task, from the smaller ones
    --runs runs/ladder --task recall   tasks whose name holds "recall" (repeat --task for more)
    --csv mine.csv                     columns task, run, n_params, tokens, loss, accuracy; n, chance, cluster where known

Two steps, each with its intervals: (N, D) to the loss of the right answer, by the Chinchilla form; that loss to accuracy, by a
sigmoid.  Writes downstream.png, downstream.svg and downstream.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from analysis import cli, intervals, load, words
from analysis.downstream import draw, steps, tables
from analysis.downstream.steps import Chain, Forecast, Recipe
from analysis.downstream.tables import Run, Task
from analysis.figure import write
from scaling import flops, runs
from scaling.cli import Parser
from scaling.units import format_count


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _downstream(_arguments(argv)))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m analysis.downstream", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--runs", metavar="FOLDER", help="a sweep's folder whose members have evals.jsonl, such as runs/ladder")
    source.add_argument("--csv", metavar="FILE", help="a line per checkpoint and task (.csv or .csv.gz)")
    parser.add_argument("--task", action="append", metavar="TEXT", help="only tasks whose name holds this; may be repeated")
    window = "checkpoints averaged at a run's end and along it (default: 1; the shipped ladder: 5)"
    parser.add_argument("--window", type=int, metavar="K", help=window)
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: the sweep's folder, else ./analysis_out)")
    parser.add_argument("--n", choices=load.N_DEFINITIONS, default=load.N_DEFINITIONS[0], help="what N is of our runs")
    parser.add_argument("--flops", choices=flops.CONVENTIONS, default=flops.DEFAULT_CONVENTION, help="how FLOPs are counted")
    parser.add_argument("--level", type=cli.level, default=intervals.LEVEL, help="of all intervals (default: %(default)s)")
    parser.add_argument("--draws", type=cli.draws, default=intervals.DRAWS, help="bootstrap refits (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.window is not None and args.window < 1:
        parser.error(f"--window {args.window}: must be 1 or more")
    return args


def _downstream(args: argparse.Namespace) -> None:
    tasks, published = _tasks(args), not (args.runs or args.csv)
    recipe = steps.OLMO if published else Recipe(window=args.window or 1)
    out = cli.out_dir(args)
    print(f"{tasks[0].source}: {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}", flush=True)
    found: list[tuple[Chain, list[Forecast]]] = []
    for task in tasks:
        smaller, targets = tables.as_published(task) if published else steps.leave_largest_out(task)
        if not targets or not smaller.runs:
            print(f"{task.name}: no finished run of a largest size above others: nothing to forecast", flush=True)
            continue
        fitted = steps.chain(smaller, recipe, args.draws)
        told = [steps.predict(fitted, run, args.level) for run in targets]
        found.append((fitted, told))
        print("\n".join(_words(fitted, told, smaller.runs, published)), flush=True)
    told_all = [f for _, told in found for f in told]
    print(_summary(told_all))
    _write(out, tasks[0].source, found, args.level)


def _tasks(args: argparse.Namespace) -> list[Task]:
    """The tasks that the arguments name.

    Raises:
      LoadError: as ``tables.of_runs`` and ``tables.of_csv``, or when none has a name that was asked for.
    """
    if args.runs:
        tasks = tables.of_runs(args.runs, load.runs(args.runs, args.n, args.flops))
    else:
        tasks = tables.of_csv(args.csv) if args.csv else tables.shipped()
    wanted = [w.lower() for w in args.task or [""]]
    kept = [t for t in tasks if any(w in t.name.lower() for w in wanted)]
    if not kept:
        raise load.LoadError(f"--task {' '.join(args.task)}: no such task; there are {', '.join(t.name for t in tasks)}")
    return kept


def _words(fitted: Chain, told: Sequence[Forecast], fitted_runs: Sequence[Run], published: bool) -> list[str]:
    """A task's chain and its forecasts, a line each."""
    task, sizes = fitted.task, sorted({r.n_params for r in fitted_runs})
    items = f", {task.items:.0f} items" if task.items == task.items else ""
    ends = sum(r.ends for r in fitted_runs)
    span = f"{format_count(sizes[0])} to {format_count(sizes[-1])}" if len(sizes) > 1 else format_count(sizes[0])
    runs_ = f"{ends} finished runs of {span} parameters, {len(fitted.loss)} checkpoints"
    lines = [f"\n{task.name}: chance {task.chance:.3g}{items}; {runs_}"]
    if fitted.problem is not None or fitted.law is None or fitted.curve is None:
        return [*lines, f"  no forecast, {fitted.problem}"]
    p = {name: words.number(v) for name, v in fitted.curve.fit.params.items()}
    rise = words.number(fitted.curve.fit.params["top"] - fitted.curve.fit.params["floor"])
    lines += [
        f"  step 1: L(N, D) = {words.equation(fitted.law)}   ({task.loss_name})",
        f"  step 2: accuracy = {p['top']} - {rise} / (1 + exp(-{p['k']} (L - {p['x0']}))), scatter {fitted.scatter:.2g}",
    ]
    return lines + [f"  {_line(f)}{_beside(f) if published else ''}" for f in told]


def _line(f: Forecast) -> str:
    """A forecast in words."""
    if f.loss is None or f.loss_interval is None or f.accuracy is None or f.accuracy_interval is None:
        return f"{f.run}: no forecast"
    (low, high), (lo, hi) = f.loss_interval, f.accuracy_interval
    out = f"{f.run}: task loss {f.loss:.4f} [{low:.4f}, {high:.4f}]"
    out += "" if f.measured_loss is None else f", measured {f.measured_loss:.4f}"
    out += f"; accuracy {f.accuracy:.4f} [{lo:.3f}, {hi:.3f}]"
    if f.measured_accuracy is not None:
        off = "" if f.error is None else f"{100 * f.error:+.1f} %, "
        out += f", measured {f.measured_accuracy:.4f}: {off}{'inside' if f.hit else 'OUTSIDE'}"
    return out if f.verdict.identified else f"{out}; {words.verdict_words(f.verdict)}"


def _beside(f: Forecast) -> str:
    return f" (published {tables.PUBLISHED[f.task][f.run]:+.1f} %)"


def _summary(told: Sequence[Forecast]) -> str:
    """How many intervals held what was measured, and how far off the forecasts were."""
    scored = [f for f in told if f.hit is not None and f.measured_accuracy is not None and f.accuracy is not None]
    if not scored:
        return "\nno forecast can be held against a measurement"
    off = sum(abs((f.accuracy or 0.0) - (f.measured_accuracy or 0.0)) for f in scored) / len(scored)
    hits = sum(bool(f.hit) for f in scored)
    return (
        f"\n{hits} of {len(scored)} measured accuracies lie inside intervals that claim {100 * scored[0].level:g} %; mean "
        f"error {100 * off:.1f} points of accuracy"
    )


def _write(out: Any, source: str, found: Sequence[tuple[Chain, Sequence[Forecast]]], level: float) -> None:
    content = {
        "source": source, "level": level, "chains": [steps.to_json(fitted, level) for fitted, _ in found],
        "forecasts": [steps.forecast_json(f) for _, told in found for f in told],
    }  # fmt: skip
    runs.write_json(out / "downstream.json", content)
    drawable = [pair for pair in found if pair[0].problem is None]
    if not drawable:
        print(f"wrote {out / 'downstream.json'}; nothing to draw")
        return
    write(draw.figure(found, f"Task loss and accuracy of the largest runs, from smaller ones: {source}"), out / "downstream")
    print(f"wrote {out / 'downstream.json'}, downstream.png and downstream.svg")
    if len(drawable) > draw.MOST:
        print(f"the first {draw.MOST} of {len(drawable)} tasks are drawn; choose with --task")


if __name__ == "__main__":
    sys.exit(main())
