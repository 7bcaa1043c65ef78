"""What the analysis commands share: their arguments, where they write, how they fail."""

from __future__ import annotations

import argparse
import errno
import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from analysis import fit, load
from analysis.estimate import AUTO, Settings
from analysis.fit import LOSSES, FitError
from analysis.intervals import DRAWS, LEVEL
from analysis.laws import LAWS, SURFACES
from scaling import cli, flops, runs

MIN_DRAWS = 100  # fewer say nothing of the ends of an interval


def parser(prog: str, description: str, sweep: bool = False, forms: bool = False) -> cli.Parser:
    """An argument parser with the source, output and fit arguments of every analysis command.

    Args:
      prog: the command's name.
      description: its help.
      sweep: whether a sweep file is a source as well.
      forms: whether the law, the loss and weights can be chosen (``settings``).
    """
    out = cli.Parser(prog=f"python -m analysis.{prog}", description=description)
    source = out.add_mutually_exclusive_group(required=True)
    source.add_argument("--runs", metavar="FOLDER", help="a sweep's folder, such as runs/ladder, or one run's")
    source.add_argument(
        "--csv", metavar="FILE", help="anybody's table: a header line, then one run per line, losses in nats per token"
    )
    if sweep:
        source.add_argument("--sweep", metavar="FILE[:ARG]", help="a sweep file that is not trained yet, such as ladder.py")
    out.add_argument(
        "--map", metavar="ROLE=COLUMN,...", default="",
        help="which columns of the CSV hold what, such as N=params,D=tokens,loss=val_loss; roles: "
        + ", ".join(load.OBVIOUS)
        + ". Without D, D = C / (6N). N=params*1e6 scales a column, here one in millions; loss=bits*0.6931 makes nats. exclude "
        "names a column whose true values leave rows out; rows of one cluster are resampled together; U: unique tokens; batch: "
        "tokens per step",
    )  # fmt: skip
    skip = "leave bad rows of the CSV out, with the reason, instead of refusing it"
    out.add_argument("--skip-bad", action="store_true", help=skip)
    out.add_argument("--out", metavar="FOLDER", help="where to write (default: the sweep's folder, else ./analysis_out)")
    first = load.N_DEFINITIONS[0]
    out.add_argument("--n", choices=load.N_DEFINITIONS, default=first, help=f"what N is of our runs (default: {first})")
    convention = flops.DEFAULT_CONVENTION
    counted = f"how FLOPs of our runs are counted (default: {convention})"
    out.add_argument("--flops", choices=flops.CONVENTIONS, default=convention, help=counted)
    delta = "where the Huber loss of log loss turns absolute (default: 1e-3 for a CSV, 1e-2 for runs)"
    out.add_argument("--delta", type=_positive, help=delta)
    if forms:
        _add_forms(out)
    out.add_argument("--level", type=level, default=LEVEL, help="of all intervals (default: %(default)s)")
    out.add_argument("--draws", type=draws, default=DRAWS, help="bootstrap refits (default: %(default)s)")
    return out


def _add_forms(out: cli.Parser) -> None:
    out.add_argument(
        "--law", choices=(AUTO, *LAWS), default=AUTO,
        help=f"the form of the law (default: {AUTO}, the one of {', '.join(SURFACES)} that best predicts what is held out "
        "inside the table)",
    )  # fmt: skip
    loss = "of log loss, summed over rows (default: %(default)s)"
    out.add_argument("--loss", choices=tuple(LOSSES), default="huber", help=loss)
    weighted = "weigh rows by the noise that their seeds or a column of standard errors tell"
    out.add_argument("--weighted", action="store_true", help=weighted)


def settings(args: argparse.Namespace) -> Settings:
    """How to fit, from the arguments of a parser with ``forms``."""
    return Settings(args.law, args.loss, args.delta, args.weighted, args.level, args.draws)


def _number(text: str, good: Callable[[float], bool], must: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not good(value):
        raise argparse.ArgumentTypeError(f"{text!r} {must}")
    return value


def _positive(text: str) -> float:
    return _number(text, lambda v: 0 < v < math.inf, "must be a positive number, such as 1e-3")


def level(text: str) -> float:
    """The type of --level."""
    return _number(text, lambda v: 0 < v < 1, "must lie between 0 and 1, such as 0.9")


def draws(text: str) -> int:
    """The type of --draws."""
    return int(_number(text, lambda v: v >= MIN_DRAWS and v == int(v), f"must be a whole number; use at least {MIN_DRAWS}"))


def table(args: argparse.Namespace) -> load.Table:
    """The table that the arguments name.

    Raises:
      LoadError, RunError: for one that cannot be used.
    """
    if args.csv:
        return load.csv(args.csv, load.parse_mapping(args.map), args.skip_bad)
    if args.map or args.skip_bad:
        given = f"--map {args.map}: names columns" if args.map else "--skip-bad: leaves out rows"
        raise load.LoadError(f"{given} of a --csv; leave it out, run folders need none")
    return load.runs(args.runs, args.n, args.flops)


def check_rows(table: load.Table, chosen: Settings) -> None:
    """Raises FitError unless the rows can carry the law that was named, or one to choose from; told before a folder is made."""
    errors = []
    for law in SURFACES.values() if chosen.law == AUTO else [LAWS[chosen.law]]:
        try:
            return fit.check_rows(table, law)
        except FitError as error:
            errors.append(error)
    raise errors[0]


def ladder(args: argparse.Namespace) -> tuple[load.Table, list[load.Curve], list[dict[str, Any]]]:
    """The table that the arguments name, its curves and the lines of its predictions.jsonl; of a CSV neither.

    Raises:
      LoadError: as ``table``, or when no run has a loss yet.
    """
    found = table(args)
    if not any(r.loss is not None for r in found.rows):
        raise load.LoadError(
            f"{found.source}: nothing to draw: no run has a final loss yet; see `python -m scaling.launch status`"
        )
    if not args.runs:
        return found, [], []
    return found, load.curves(args.runs, found), list(runs.read_jsonl(pathlib.Path(args.runs) / runs.PREDICTIONS))


def out_dir(args: argparse.Namespace) -> pathlib.Path:
    """The folder to write to, made if need be; asked for before anything is fitted, so that no work is lost to a bad one.

    Raises:
      LoadError: when it cannot be made or written to.
    """
    path = pathlib.Path(args.out or args.runs or _sweep_folder(args) or "analysis_out")
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise load.LoadError(f"--out {path}: {error.strerror}; give another --out, or allow writing there") from None
    return path


def _sweep_folder(args: argparse.Namespace) -> pathlib.Path | None:
    """Where the launcher puts the runs of --sweep."""
    if getattr(args, "sweep", None) is None:
        return None
    from scaling import sweep

    return pathlib.Path("runs") / sweep.name_of(args.sweep)


def run(command: Callable[[], None]) -> int:
    """Runs a command and returns its exit status; a clear refusal is one message on stderr and status 2, no traceback."""

    def call() -> int:
        command()
        return 0

    try:
        return cli.guarded(call, load.LoadError, FitError)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
