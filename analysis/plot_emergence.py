"""What emerges with scale, and is it the model or the metric?  ``python -m analysis.plot_emergence``.

Draws each task's score beside its continuous companions against training compute, fits shapes, and judges it: absent, smooth,
sharp in the metric only, sharp in the loss, or under-powered.  Without arguments on the published tables that the package ships
(GPT-3, public models and the OLMo ladder; nothing is trained); with ``--runs runs/ladder`` on your own, once they were scored
(``python -m scaling.evals --run runs/ladder``); with ``--csv`` on anybody's table.  Writes emergence.png, .svg and .json, and
emergence_loss, emergence_shots, emergence_cot and emergence_letter where there is what they show, and says the same in words.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis import cli, csv_table, load
from analysis.emergence import csv_scores, incontext, ladder, sizes, summary, tables
from analysis.emergence.bands import band
from analysis.emergence.draw import UNTOLD, Judged, Page, grid, label
from analysis.emergence.incontext import Shots, Thought
from analysis.emergence.judge import judge_all
from analysis.emergence.points import WITHIN, Shown
from analysis.emergence.selection import DRAWS
from analysis.emergence.sizes import Growth
from analysis.figure import write
from scaling import runs
from scaling.cli import Parser
from scaling.units import did_you_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = "published tables"
LEVEL = 0.9
PLAIN = ("cloze", "generate", ladder.GREEDY, "")  # formats of the first page; letters and chains of thought have their own
MANY = 20  # tasks, from which their groups are drawn where there are any; --tasks shows single ones
_GRID = 120  # points of a drawn curve


@dataclasses.dataclass(frozen=True)
class Source:
    """What is judged, and what else is drawn."""

    name: str
    shown: tuple[Shown, ...]
    shots: tuple[Shots, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    sizes: tuple[Growth, ...] = ()
    notes: tuple[str, ...] = ()
    published: bool = False  # all of the shipped tables
    own: bool = False  # runs of a folder


def parser() -> Parser:
    """The command's arguments."""
    assert __doc__ is not None
    out = Parser(prog="python -m analysis.plot_emergence", description=__doc__)
    source = out.add_mutually_exclusive_group()
    source.add_argument("--runs", metavar="FOLDER", help="a sweep's folder, such as runs/ladder, or one run's")
    source.add_argument("--csv", metavar="FILE", help="anybody's table: a header line, then one model on one task per line")
    mapped = "which columns of the CSV hold what, such as score=acc*0.01,C=train_flops; roles: " + ", ".join(csv_scores.ROLES)
    out.add_argument("--map", metavar="ROLE=COLUMN,...", default="", help=mapped)
    out.add_argument("--tasks", metavar="NAME,...", type=_names, default=[], help="only these, each with a row of detail")
    out.add_argument("--format", metavar="NAME,...", type=_names, default=[], help=f"only these of {', '.join(ladder.FORMATS)}")
    out.add_argument("--shots", type=int, help="examples in the prompt (default: the most that a task was asked with)")
    every = "judge every checkpoint, those of a run as one cluster, not the ends of runs alone"
    out.add_argument("--checkpoints", action="store_true", help=every)
    first = load.N_DEFINITIONS[0]
    out.add_argument("--n", choices=load.N_DEFINITIONS, default=first, help=f"what N is of our runs (default: {first})")
    out.add_argument("--level", type=cli.level, default=LEVEL, help="of all intervals (default: %(default)s)")
    out.add_argument("--draws", type=cli.draws, default=DRAWS, help="bootstrap refits (default: %(default)s)")
    out.add_argument("--out", metavar="FOLDER", help="where to write (default: the sweep's folder, else ./analysis_out)")
    return out


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def source(args: argparse.Namespace) -> Source:
    """What the arguments name.

    Raises:
      LoadError, RunError: for what is not there or cannot be used.
    """
    if args.map and not args.csv:
        raise load.LoadError(f"--map {args.map}: names columns of a --csv; leave it out")
    if args.runs:
        return _own(args)
    if args.csv:
        shown, notes = csv_scores.read(args.csv, csv_table.parse_mapping(args.map, csv_scores.ROLES))
        return Source(args.csv, tuple(_chosen(shown, args)), notes=tuple(notes))
    whole = not (args.tasks or args.format or args.shots is not None)
    every = tables.shipped() if whole else tables.everything()
    few = incontext.published_shots(tables.few_shot(), args.level) if whole else ()
    return Source(PUBLISHED, tuple(_chosen(every, args)), tuple(few), published=whole)


def _own(args: argparse.Namespace) -> Source:
    found = ladder.read(args.runs, args.n, None if args.tasks else MANY)
    chosen = ladder.only(found, args.tasks, args.format, args.shots)
    both = ladder.only(found, args.tasks, args.format, None)
    shown, notes = ladder.shown(chosen, args.checkpoints)
    return Source(
        str(args.runs), tuple(shown), tuple(incontext.shots(both, args.level)),
        tuple(incontext.thoughts(both, args.level)), tuple(sizes.growth(chosen, args.level)), tuple(notes), own=True,
    )  # fmt: skip


def _chosen(shown: Sequence[Shown], args: argparse.Namespace) -> list[Shown]:
    """Those of a table that --tasks, --format and --shots name; a task by its name, its key or the middle of its key."""
    names = list(dict.fromkeys(n for s in shown for n in (s.task, s.key)))
    for name in args.tasks:
        if not any(_is(s, name) for s in shown):
            there = ", ".join(dict.fromkeys(s.key for s in shown))
            raise load.LoadError(f"--tasks {name}: no such task; there are {there}.{did_you_mean(name, names)}")
    asked = [("format", name, {s.format for s in shown}) for name in args.format]
    if args.shots is not None:
        asked.append(("shots", str(args.shots), {str(s.shots) for s in shown if s.shots is not None}))
    for what, value, values in asked:
        if value not in values:
            raise load.LoadError(f"--{what} {value}: there are {', '.join(sorted(values)) or 'none named'}")
    return [
        s for s in shown
        if (not args.tasks or any(_is(s, name) for name in args.tasks)) and s.format in (args.format or [s.format])
        and s.shots == (s.shots if args.shots is None else args.shots)
    ]  # fmt: skip


def _is(s: Shown, name: str) -> bool:
    return name.lower() in (s.task.lower(), s.key.lower(), *s.key.lower().split("/")[:2])


def judge(shown: Sequence[Shown], level: float, draws: int) -> list[Judged]:
    """Verdicts, and the shapes as they are drawn."""
    out = []
    for s, v in zip(shown, judge_all([s.ability for s in shown], draws, progress=_say), strict=True):
        if v.selection is None:
            out.append(Judged(s, v, None))
            continue
        x = np.linspace(np.log10(s.ability.flops.min()), np.log10(s.ability.flops.max()), _GRID)
        out.append(Judged(s, v, np.stack([10**x, v.selection.curve(x), *band(v, x, level, draws)])))
    return out


def _say(what: str) -> None:
    print(f"{what} …", file=sys.stderr, flush=True)


def figures(found: Source, judged: Sequence[Judged], args: argparse.Namespace) -> dict[str, Figure]:
    """By file name, without its ending."""
    page = Page.of(judged, args.level, _caption(found, judged))
    page = dataclasses.replace(page, named=page.named | {c.n_params: c.size for c in found.shots if found.own})
    if found.published:
        from analysis.emergence import draw_published

        first = draw_published.page(judged, page)
    elif args.tasks:
        from analysis.emergence import draw_detail

        first = draw_detail.rows(judged, page)
    else:
        from analysis.emergence import draw_headline

        shown = _plain(judged, args)
        first = draw_headline.page(shown, page) or grid(shown, page)
    out = {"emergence": first}
    lossy = [j for j in _plain(judged, args) if np.isfinite(j.shown.ability.loss).any()]
    if lossy and not found.published and not args.tasks:
        there = [j for j in lossy if j.verdict.call != "absent"] or lossy
        left = [j.shown.ability.task for j in lossy if j not in there]
        words = f"  Absent, not drawn: {'; '.join(left)}." if left else ""
        out["emergence_loss"] = grid(there, dataclasses.replace(page, caption=page.caption + words), "loss")
    return out | _in_context(found, judged, page)


def _plain(judged: Sequence[Judged], args: argparse.Namespace) -> Sequence[Judged]:
    kept = [j for j in judged if j.shown.format in PLAIN]
    return judged if args.format or not kept else kept


def _in_context(found: Source, judged: Sequence[Judged], page: Page) -> dict[str, Figure]:
    """Figures of shots, chains of thought and letters, where there are any."""
    from analysis.emergence import draw_incontext

    out = {}
    if found.shots:
        nothing = {(j.shown.task, j.shown.format) for j in judged if j.verdict.call == "absent"}
        risen = [c for c in found.shots if (c.task, c.format) not in nothing]
        left = dict.fromkeys(f"{c.task} by {c.format}" for c in found.shots if c not in risen)
        out["emergence_shots"] = draw_incontext.shots(risen or found.shots, page.level, list(left) if risen else [])
    if found.thoughts:
        out["emergence_cot"] = draw_incontext.thoughts(found.thoughts, page)
    cloze = {j.shown.task: j for j in judged if j.shown.format == "cloze"}
    letters = [(j, cloze.get(j.shown.task)) for j in judged if j.shown.format == "letter"]
    if letters and found.own:
        out["emergence_letter"] = draw_incontext.letters(letters, page)
    return out


def _caption(found: Source, judged: Sequence[Judged]) -> str:
    told = ", ".join(f"{len(names)} {words}" for words, names in summary.by_kind(judged).items())
    reasons = sorted({p.excluded for j in judged for p in j.shown.rest if p.excluded and p.excluded != WITHIN})
    left = f"  Hollow, left out of fits: {'; '.join(reasons)}." if reasons else ""
    sharp = (
        f"  “{UNTOLD}” the score jumps, but nothing continuous was measured that tells which of the two does."
        if any(label(j) == UNTOLD for j in judged)
        else ""
    )
    where = " (sources: analysis/emergence/data/README.md)" if found.name == PUBLISHED else ""
    return f"{found.name}{where}: {len(judged)} curves judged: {told}.{sharp}{left}"


def main(argv: list[str] | None = None) -> None:
    """The command."""
    args = parser().parse_args(argv)
    begun = time.monotonic()
    found = source(args)
    out = cli.out_dir(args)
    print(f"judging {len(found.shown)} curves of {found.name} …", file=sys.stderr, flush=True)
    judged = judge(found.shown, args.level, args.draws)
    print(f"drawing ({time.monotonic() - begun:.0f} s so far) …", file=sys.stderr, flush=True)
    runs.write_json(
        out / "emergence.json", summary.to_json(judged, found.shots, found.thoughts, found.sizes, found.name, args.level)
    )
    names = []
    for name, drawn in figures(found, judged, args).items():
        write(drawn, out / name)
        names.append(f"{name}.png")
    lines = [
        *summary.kinds(judged),
        "",
        *summary.table(judged),
        "",
        *(line for j in judged for line in [*summary.reasons(j), ""]),
    ]
    lines += [*summary.shots(found.shots), *summary.thoughts(found.thoughts), *summary.growth(found.sizes)]
    lines += [*(f"note: {note}" for note in found.notes)]
    print("\n".join(lines))
    print(f"wrote {', '.join(names)}, the same as .svg, and emergence.json to {out}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
