"""What the analysis commands share: their arguments, where they write, how they fail."""

from __future__ import annotations

import argparse
import errno
import os
import pathlib
import sys
from collections.abc import Callable

from analysis import load
from analysis.fit import FitError
from analysis.intervals import DRAWS, LEVEL
from scaling import flops, runs

USAGE = 2  # exit status of a clear refusal


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """An argument parser with the source, output and fit arguments of every analysis command."""
    out = argparse.ArgumentParser(
        prog=f"python -m analysis.{prog}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = out.add_mutually_exclusive_group(required=True)
    source.add_argument("--runs", metavar="FOLDER", help="a sweep's folder, such as runs/ladder, or one run's")
    source.add_argument(
        "--csv", metavar="FILE", help="anybody's table: a header line, then one run per line, losses in nats per token"
    )
    out.add_argument(
        "--map", metavar="ROLE=COLUMN,...", default="",
        help="which columns of the CSV hold what, such as N=params,D=tokens,loss=val_loss; roles: "
        + ", ".join(load.OBVIOUS)
        + ". Without D, D = C / (6N). exclude names a column whose true values leave rows out; rows of one cluster are "
        "resampled together",
    )  # fmt: skip
    out.add_argument("--out", metavar="FOLDER", help="where to write (default: the sweep's folder, else ./analysis_out)")
    out.add_argument(
        "--n",
        choices=load.N_DEFINITIONS,
        default=load.N_DEFINITIONS[0],
        help="which parameters of our runs count as N (default: %(default)s)",
    )
    out.add_argument(
        "--flops",
        choices=flops.CONVENTIONS,
        default=flops.DEFAULT_CONVENTION,
        help="how FLOPs of our runs are counted (default: %(default)s)",
    )
    out.add_argument(
        "--delta", type=float, help="where the Huber loss of log loss turns absolute (default: 1e-3 for a CSV, 1e-2 for runs)"
    )
    out.add_argument("--level", type=_level, default=LEVEL, help="of all intervals (default: %(default)s)")
    out.add_argument("--draws", type=int, default=DRAWS, help="bootstrap refits (default: %(default)s)")
    return out


def _level(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 1, such as 0.9")
    return value


def check(args: argparse.Namespace) -> None:
    """Raises LoadError for arguments that cannot go together."""
    if args.map and not args.csv:
        raise load.LoadError("--map names columns of a --csv; run folders need none")
    if args.delta is not None and not args.delta > 0:
        raise load.LoadError(f"--delta {args.delta:g} must be positive, such as 1e-3")
    if args.draws < 100:
        raise load.LoadError(f"--draws {args.draws} are too few for an interval; use at least 100")


def table(args: argparse.Namespace) -> load.Table:
    """The table that the arguments name."""
    check(args)
    if args.csv:
        return load.csv(args.csv, load.parse_mapping(args.map))
    return load.runs(args.runs, args.n, args.flops)


def out_dir(args: argparse.Namespace) -> pathlib.Path:
    """The folder to write to, made if need be; asked for before anything is fitted, so that no work is lost to a bad one."""
    path = pathlib.Path(args.out or args.runs or "analysis_out")
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return path


def run(main: Callable[[], None]) -> None:
    """Runs a command; a clear refusal is one message on stderr and exit status 2, never a traceback."""
    try:
        main()
    except (load.LoadError, FitError, runs.RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE)
    except BrokenPipeError:  # `| head`
        sys.exit(0)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}; give another --out, or allow writing there" if error.filename else error
        print(f"error: {what}", file=sys.stderr)
        sys.exit(USAGE)
