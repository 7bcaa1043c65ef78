"""Scores trained members on a suite: `python -m scaling.evals --run runs/ladder --suite laptop --shots 0,5`.

Writes `evals.jsonl` and `items/*.parquet` into each member's folder, a task at a time; what is there already, of the same
items asked the same way, is not asked again.  Everything that can be wrong is found before the first model is loaded.
Exit status: 0 done; 2 input that cannot be used; 130 Ctrl-C (what was written stays); 1 an error, with its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import rich.console
import rich.table

from scaling import cli, locks, runs
from scaling.config import DTYPES
from scaling.evals import asking, records, suites
from scaling.evals.cells import FITS, Ask, Cell
from scaling.evals.items import DEV, TEST, VAL, TaskError
from scaling.store import StoreError
from scaling.tokenizer import VocabularyError
from scaling.units import format_seconds

LINE_SECONDS = 10.0  # between lines of progress where there is no terminal
NEWEST, EVERY = "newest", "all"
COMPANIONS = ("acc_byte", "acc_pmi", "exact_match", "edit", "p_gold", "nll", "nll_byte", "brier", "letter_mass")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""

    def run() -> int:
        args = _parser().parse_args(argv)
        ask = Ask(
            suites.find(args.suite, args.tasks, groups=args.groups), args.formats, args.shots, args.split, args.limit, args.fit
        )
        cells = ask.cells()
        todo = _checkpoints(args.run, args.step)
        console = rich.console.Console(width=None if sys.stdout.isatty() else 160)
        for note in ask.suite.notes:
            print(f"note: {note}", flush=True)
        items = sum(len(c.items) for c in cells)
        print(f"{ask.suite.name}: {len(cells)} tasks to ask, {items:,} items, of {len(todo)} checkpoints", flush=True)
        for i, (member, step) in enumerate(todo, 1):
            title = f"{member.id} step {step:,}" + (f" ({i} of {len(todo)})" if len(todo) > 1 else "")
            with _held(member):
                _member(member, step, ask, args, title, console)
        return 0

    try:
        return cli.guarded(run, TaskError, StoreError, VocabularyError)
    except KeyboardInterrupt:
        print("stopped; what was written stays, and the same command goes on", file=sys.stderr)
        return 130


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m scaling.evals",
        description="Scores trained members on a suite of tasks.",
        epilog="examples:\n"
        "  python -m scaling.evals --run runs/ladder --suite laptop --formats cloze,letter --shots 0,5\n"
        "  python -m scaling.evals --run runs/ladder --suite prose\n"
        "  python -m scaling.evals --run runs/ladder/causal-600K-2.4M --suite mmlu --tasks anatomy --formats letter --shots 5",
    )
    text = _words
    parser.add_argument("--run", required=True, help="a member's folder, or a sweep's, of which every member is scored")
    parser.add_argument(
        "--suite", default=suites.LAPTOP, help="; ".join(f"{name}: {what}" for name, what in suites.KNOWN.items())
    )
    parser.add_argument("--tasks", type=text, default=(), metavar="A,B", help="of the suite (default: all)")
    parser.add_argument("--formats", type=text, default=(), metavar="A,B", help="default: each task's primary one")
    parser.add_argument("--shots", type=_numbers, default=(0,), metavar="0,1,5", help="examples before an item (default: 0)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N items of each task")
    parser.add_argument("--split", default=TEST, choices=(DEV, VAL, TEST), help="whose items (default: test)")
    parser.add_argument("--fit", default=FITS[0], choices=FITS, help=f"for prompts beyond the context (default: {FITS[0]})")
    parser.add_argument("--groups", default="harness", help="map of MMLU's subjects: harness (default) or hendrycks")
    parser.add_argument("--step", default=NEWEST, metavar=f"{NEWEST}|{EVERY}|N", help="which checkpoints (default: newest)")
    items = "write items/*.parquet, each item's log-likelihoods (default: yes)"
    parser.add_argument("--items", action=argparse.BooleanOptionalAction, default=True, help=items)
    parser.add_argument("--dtype", choices=DTYPES, help="to compute in (default: the run's)")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _numbers(text: str) -> tuple[int, ...]:
    numbers = _words(text)
    if not numbers or not all(n.isdecimal() for n in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, such as 0,1,5")
    return tuple(map(int, numbers))


# ---- members


def _checkpoints(run: str, wanted: str) -> list[tuple[runs.Member, int]]:
    """What is to be scored, small models first.

    Raises:
      RunError: where there is no finished run, or no such checkpoint.
    """
    if not pathlib.Path(run).is_dir():
        raise runs.RunError(f"{run}: no such folder; give the folder of a member or of a sweep, such as runs/ladder")
    members = runs.members(run)
    ready: list[tuple[runs.Member, int]] = []
    reasons: list[str] = []
    for member in sorted(members, key=_size):
        try:
            ready += [(member, step) for step in _steps(member, wanted)]
        except runs.RunError as error:
            reasons.append(str(error))
    if reasons and (not ready or len(members) == 1):
        raise runs.RunError(reasons[0])
    for reason in reasons:
        print(f"not scored: {reason}", flush=True)
    return ready


def _size(member: runs.Member) -> float:
    plan = member.read(runs.PLAN)
    return plan["n_params"]["total"] if plan else float("inf")


def _steps(member: runs.Member, wanted: str) -> list[int]:
    done = member.read(runs.DONE)
    if done is None:
        raise runs.RunError(
            f"{member.path}: not finished ({runs.DONE} is missing): until then the trainer alone writes its {records.EVALS}; "
            f"finish it, or set probe.suite in its config"
        )
    if done["status"] != "finished":
        raise runs.RunError(f"{member.path}: {done['status']} ({done['cause']}); there is nothing to score")
    folder = member.path / runs.CHECKPOINTS
    there = sorted(int(p.name) for p in folder.glob("[0-9]*") if p.name.isdigit())
    if not there:
        raise runs.RunError(f"{folder}: no checkpoint; bring the files of the run back")
    if wanted == EVERY:
        return there
    if wanted == NEWEST:
        return there[-1:]
    if not wanted.isdecimal() or int(wanted) not in there:
        raise runs.RunError(f"{folder}: no checkpoint of step {wanted!r}; there are {there}; or say {NEWEST} or {EVERY}")
    return [int(wanted)]


@contextlib.contextmanager
def _held(member: runs.Member) -> Iterator[None]:
    """Holds the member's folder, of which one process at a time writes the files."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(member.path / runs.LOCK, locks.exclusively))
        except BlockingIOError:
            raise runs.RunError(f"{member.path}: another process trains or scores this run; wait for it or stop it") from None
        yield


def _member(
    member: runs.Member, step: int, ask: Ask, args: argparse.Namespace, title: str, console: rich.console.Console
) -> None:
    from scaling.evals.engine import Engine
    from scaling.members import open_member
    from scaling.train import set_up_jax

    opened = open_member(member.path, step)
    set_up_jax(opened.config.machine)
    model = dataclasses.replace(opened.config.model, dtype=args.dtype or opened.config.model.dtype)
    engine = Engine(model, opened.params, opened.tokenizer)
    position = records.Position(opened.step, opened.tokens, opened.flops)
    started = time.monotonic()
    with Progress(title, sum(len(cell.items) for cell in ask.cells())) as progress:
        done = list(asking.run(engine, ask, position, member.path, args.items, progress.advance))
    fresh = sum(d.row["n"] for d in done if not d.before)
    if fresh:
        seconds = time.monotonic() - started
        rates = f"{fresh / seconds:,.0f} items/s, {engine.fed / seconds:,.0f} tokens/s"
        speed = f"{fresh:,} items in {format_seconds(seconds)}: {rates}"
    else:
        speed = "all of it was recorded already"
    console.print(_table(title, member, position, done), soft_wrap=not console.is_terminal)
    print(f"{speed}; {member.path / records.EVALS}", flush=True)
    for line in _told(done):
        print(f"note: {line}", flush=True)


# ---- what is shown


class Progress:
    """Items done, per second, and the time left: a bar on a terminal, else a line now and then."""

    def __init__(self, title: str, total: int):
        self.title, self.total, self.done = title, total, 0.0
        self._started = self._told = time.monotonic()
        self._bar: Any = None

    def advance(self, cell: Cell, n: float) -> None:
        """Counts ``n`` items of ``cell``."""
        self.done += n
        what = f"{self.title}: {cell.task.name} {cell.way.format} {cell.way.shots}-shot"
        now = time.monotonic()
        rate = self.done / max(1e-9, now - self._started)
        if self._bar is not None:
            self._bar.update(0, completed=self.done, description=what, rate=f"{rate:,.0f} items/s")
        elif now - self._told > LINE_SECONDS:
            self._told = now
            left = format_seconds((self.total - self.done) / max(1e-9, rate))
            print(
                f"{what}: {self.done:,.0f} of {self.total:,} items, {rate:,.0f} items/s, {left} left",
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich import progress

            columns = ("{task.description}", progress.BarColumn(), progress.MofNCompleteColumn(), "{task.fields[rate]}")
            console = rich.console.Console(stderr=True)
            self._bar = progress.Progress(*columns, progress.TimeRemainingColumn(), console=console, transient=True)
            self._bar.add_task(self.title, total=self.total, rate="")
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _table(title: str, member: runs.Member, position: records.Position, done: Sequence[asking.Done]) -> rich.table.Table:
    """Averages where there are several tasks, else the tasks: accuracy with its interval beside its companions."""
    ways = dict.fromkeys(d.cell.way for d in done)
    names = {d.cell.task.name for d in done}
    rows = [d.row for d in done]
    groups = [
        row
        for row in asking.groups_of(records.rows(member.path))
        if row["step"] == position.step
        and any(all(row[k] == v for k, v in way._asdict().items()) for way in ways)
        and set(row["tasks"]) <= names
    ]
    shown = [*rows, *groups] if len(rows) <= 12 or not groups else groups
    metrics = [m for m in COMPANIONS if any(m in row["metrics"] for row in shown)]
    out = rich.table.Table(box=None, title=title, title_justify="left", title_style="bold", header_style="dim", pad_edge=False)
    out.add_column("task", no_wrap=True)
    for name in ("format", "shots", "n", "chance", "acc", "95 %", *metrics):
        out.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        acc = row["metrics"].get("acc") or row["metrics"].get("exact_match")
        interval = f"{acc['low']:.3f} to {acc['high']:.3f}" if acc else ""
        cells = [f"{row['metrics'][m]['value']:.3f}" if m in row["metrics"] else "" for m in metrics]
        out.add_row(
            row["task"], row["format"], str(row["shots"]), f"{row['n']:,}", f"{row['chance']:.3f}",
            f"{acc['value']:.3f}" if acc else "", interval, *cells,
        )  # fmt: skip
    return out


def _told(done: Sequence[asking.Done]) -> list[str]:
    """Prompts that were longer than the context, by format and shots, and other notes."""
    out = []
    for way in dict.fromkeys(d.cell.way for d in done):
        rows = [d.row for d in done if d.cell.way == way]
        n, skipped, cut = (sum(row[k] for row in rows) for k in ("n", "skipped", "truncated"))
        fewer = sum(count for row in rows for shots, count in row["shots_effective"].items() if int(shots) < way.shots)
        if skipped or cut or fewer:
            out.append(
                f"{way.format} {way.shots}-shot, {n + skipped:,} items: {fewer:,} with fewer shots, {cut:,} cut at the left "
                f"and {skipped:,} skipped, since they are longer than the model's context ({way.fit})"
            )
        out += dict.fromkeys(f"{way.format}: {note}" for row in rows for note in row.get("notes", ()))
    return out


if __name__ == "__main__":
    sys.exit(main())
