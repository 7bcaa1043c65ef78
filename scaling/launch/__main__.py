"""``python -m scaling.launch``: plans, runs, watches and ends a sweep.

Exit status: 0 all members ended, 1 some failed for good, 2 nothing could be launched as asked, 130 stopped by Ctrl-C, 143 by
SIGTERM (the same command goes on).
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

import rich.console

from scaling import cli, runs, units
from scaling import config as configs
from scaling import sweep as sweeps
from scaling.launch import board as boards
from scaling.launch import closing, planning, prepare, status
from scaling.launch import folder as folders
from scaling.launch.analyses import Analyses
from scaling.launch.folder import LaunchError
from scaling.launch.local import LocalBackend
from scaling.launch.prepare import HANG_MINUTES, RETRIES, Device, Request
from scaling.launch.runner import Runner, Stop
from scaling.launch.schedule import Phase
from scaling.progress import process_age
from scaling.sources import SourceError
from scaling.store import StoreError
from scaling.tokenizer import VocabularyError

PIPE_WIDTH = 160  # of tables that go to a file or a pipe
OPTIONS = (
    "--sweep", "--out", "--runs", "--retries", "--slots", "--use", "--hang-minutes", "--device", "--devices", "--mfu", "--help",
    cli.PREFIX,
)  # fmt: skip
VERBS = ("plan", "run", "status", "cancel")
EPILOG = """\
verbs
  plan     shows members, sizes, FLOPs, expected time and disk; writes nothing
  run      trains what is not trained yet (the default verb); the same command goes on after any interruption
  status   shows where each member stands, also while another launcher runs
  cancel   asks the launcher and its members to save and end; run goes on from there

examples
  python -m scaling.launch --sweep ladder.py                       the default ladder, from text to a scored prediction
  python -m scaling.launch plan --sweep ladder.py                  what that takes
  python -m scaling.launch --sweep ladder.py:quick --out /tmp/runs a file's argument, and another place
  python -m scaling.launch --sweep ladder.py --config.optim.lr=4e-3 --config.model.context=128
  python -m scaling.launch plan --sweep ladder.py:tpu --device 'TPU v5p' --devices 256
  python -m scaling.launch status --runs runs/ladder

Ctrl-C asks the members to save (a second one leaves them running, and the next launch takes them over).
A sweep file has get_config(arg) and get_sweep(config); it is looked for as given, in ./configs and among the packaged ones.
"""


def parser() -> cli.Parser:
    """The command line."""
    description = "Plans and trains a sweep, one process per member."
    out = cli.Parser(prog="python -m scaling.launch", description=description, epilog=EPILOG)
    out.add_argument("verb", nargs="?", metavar="verb", help=", ".join(VERBS) + " (default: run)")
    out.add_argument("--sweep", metavar="FILE[:ARG]", help="the sweep file")
    out.add_argument("--out", default="runs", metavar="DIR", help="where the sweep's folder goes (default: runs)")
    out.add_argument("--runs", metavar="DIR", help="status and cancel: a sweep's folder, instead of --sweep")
    out.add_argument(
        "--retries", type=int, default=RETRIES, metavar="N", help="new tries after a member's own failures (default: 2)"
    )
    out.add_argument("--device", metavar="KIND", help="plan: price it on this accelerator, such as 'TPU v5p' or 'H100'")
    out.add_argument("--devices", type=int, default=1, metavar="N", help="plan: on so many of them (default: 1)")
    out.add_argument("--mfu", type=float, default=0.4, metavar="PART", help="plan: at this share of their peak (default: 0.4)")
    out.add_argument("--slots", type=int, metavar="N", help="use at most N cores or devices (default: all usable ones)")
    out.add_argument(
        "--use", metavar="KIND", help="train on cpu, gpu or tpu, or on some of them as in gpu:0,2 (default: TPU chips or GPUs "
        "where jax can use them, one member on each, else cores; JAX_PLATFORMS and CUDA_VISIBLE_DEVICES are respected)"
    )  # fmt: skip
    out.add_argument(
        "--hang-minutes", type=float, default=HANG_MINUTES, metavar="M", help="a member that trains no step for so long, "
        f"compiling, validating and saving apart, is ended and started again (default: {HANG_MINUTES:g}; 0: never)"
    )  # fmt: skip
    out.add_argument(
        "--config.FIELD=VALUE", dest="_", metavar="", help="sets a field of the sweep's config, such as --config.seed=1"
    )
    return out


def parse(arguments: Sequence[str]) -> tuple[str, Request, pathlib.Path | None]:
    """Verb, request and --runs.

    Raises:
      LaunchError, ConfigError: with the problems of the command line.
    """
    words, overrides = cli.split_overrides(arguments)
    args, rest = parser().parse_known_args(words)
    problems: list[str] = []
    verb = args.verb or "run"
    after_unknown = verb in words and words[words.index(verb) - 1] in rest  # the value of an option that there is not
    if verb not in VERBS and not after_unknown:
        problems.append(f"{verb!r}: no such verb; there are {', '.join(VERBS)}.{units.did_you_mean(verb, VERBS)}")
    for word in rest:
        near = units.did_you_mean(word.partition("=")[0], OPTIONS)
        problems.append(f"{word}: no such option.{near or ' See python -m scaling.launch --help'}")
    misspelt = any('"--sweep"' in problem for problem in problems)
    if args.sweep is None and not misspelt and (args.runs is None or verb in ("plan", "run")):
        problems.append("--sweep: name the sweep file, such as --sweep ladder.py")
    if args.devices < 1 or not 0 < args.mfu <= 1:
        problems.append(f"--devices {args.devices} --mfu {args.mfu:g}: need at least one device and a share above 0, at most 1")
    if problems:
        raise LaunchError([f"command line: {p}" for p in problems])
    device = Device(args.device, args.devices, args.mfu) if args.device else None
    out = pathlib.Path(args.out).expanduser()
    request = Request(args.sweep or "", overrides, out, args.retries, args.slots, args.use, args.hang_minutes, device)
    return verb, request, pathlib.Path(args.runs) if args.runs else None


def plan(request: Request, console: rich.console.Console) -> int:
    """Shows what run would do."""
    prepared = prepare.complete(request, prepare.check(request, writes=False), build=False, say=console.print)
    planning.show(prepared, console)
    console.print(f"to train it: {request.command('run')}", markup=False, highlight=False, soft_wrap=True)
    return 0


def run(request: Request, console: rich.console.Console) -> int:
    """Trains what is not trained yet, shows it, and ends with the law."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    loaded = prepare.check(request, writes=True)
    stop = Stop()
    with folders.locked(request.out / loaded.name):
        prepared = prepare.complete(request, loaded, build=True, say=say)
        backend = LocalBackend(prepared.pool)
        planning.show(prepared, console)
        left = folders.write_sweep(prepared.folder, prepared.items, prepared.head(), backend.environment())
        if left:
            say(f"note: {', '.join(left)} of an earlier version of this sweep stay in {prepared.folder}, out of the analysis")
        planned = process_age() - prepared.corpus_seconds
        analyses = Analyses(prepared.folder)
        with stop.listening():
            board = boards.open_board(console)
            runner = Runner(prepared, backend, board, analyses, stop)
            try:
                now = runner.run()
            finally:
                board.close()
        for line in closing.failures(prepared.items, now, runner.failures()):
            say(line)
        if stop.signal:
            return _stopped(request, stop, now, say)
        asked = any(item.member.config.probe.suite for item in prepared.items)
        for line in closing.law(analyses, prepared.gated, asked):
            say(line)
        wall = process_age()
        for line in closing.wall_time(prepared.items, wall, prepared.corpus_seconds, planned, analyses.seconds, prepared.pool):
            say(line)
    return 1 if any(p in (Phase.FAILED, Phase.BLOCKED) for p in now.values()) else 0


def _stopped(request: Request, stop: Stop, now: dict[str, Phase], say: Any) -> int:
    running = [name for name, phase in now.items() if phase is Phase.RUNNING]
    if running:
        say(f"left running: {', '.join(running)}")
    else:
        say("stopped; what was trained is saved")
    say(f"to go on: {request.command('run')}")
    return 128 + (stop.signal or signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; see the module's docstring for the exit status."""
    console = rich.console.Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    try:
        verb, request, folder = parse(sys.argv[1:] if arguments is None else arguments)
        if verb == "plan":
            return plan(request, console)
        if verb == "run":
            return run(request, console)
        folder = folder or request.out / sweeps.name_of(request.sweep)
        return status.show(folder, console) if verb == "status" else status.cancel(folder, console)
    except (LaunchError, configs.ConfigError, runs.RunError, StoreError, SourceError, VocabularyError) as error:
        return cli.tell(error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of a piped plan or status went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder taken away: what was trained is safe
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return cli.tell(LaunchError([f"{what}; mend it, and the same command goes on"]))


if __name__ == "__main__":
    sys.exit(main())
