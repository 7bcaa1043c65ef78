"""A suite put to a checkpoint: every task in every format with every number of shots, recorded as it is done.

The trainer calls ``score_now`` on the parameters that it has in hand; ``python -m scaling.evals`` calls ``run`` on those of a
checkpoint.  What the records have already, of the same items asked the same way, is not asked again.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from scaling.config import ModelConfig, ProbeConfig
from scaling.evals import metrics, prompts, records, scoring, suites
from scaling.evals.engine import Engine
from scaling.evals.items import FORMATS, GENERATED, TEST, Item, Suite, Task, TaskError
from scaling.evals.records import Position, Way
from scaling.tokenizer import Tokenizer
from scaling.units import did_you_mean


class Cell(NamedTuple):
    """One task asked one way, of which the first ``len(items)`` items."""

    task: Task
    way: Way
    items: tuple[Item, ...]
    digest: str


@dataclasses.dataclass(frozen=True)
class Ask:
    """What is asked of a model.

    Attributes:
      suite: its tasks.
      formats: those that a task does not have are left out for it; () takes each task's primary one.
      shots: numbers of examples.
      split: whose items.
      limit: of items per task, the first ones.
      fit: see ``scoring.FITS``.
    """

    suite: Suite
    formats: tuple[str, ...] = ()
    shots: tuple[int, ...] = (0,)
    split: str = TEST
    limit: int | None = None
    fit: str = "drop_shots"

    def cells(self) -> list[Cell]:
        """Tasks by format and shots.

        Raises:
          TaskError: where any of it cannot be asked: no such format, no items, too few dev items for the shots.
        """
        scoring.check_fit(self.fit)
        there = {f for t in self.suite.tasks for f in t.formats}
        for format in self.formats:
            if format not in FORMATS:
                raise TaskError(f"format {format!r}; choose of {', '.join(FORMATS)}.{did_you_mean(format, FORMATS)}")
            if format not in there:
                have = ", ".join(f for f in FORMATS if f in there)
                raise TaskError(f"{self.suite.name}: no task can be asked in format {format!r}; there are {have}")
        if self.limit is not None and self.limit < 1:
            raise TaskError(f"limit={self.limit}; must be 1 or more")
        out = []
        for format in self.formats or tuple(dict.fromkeys(t.formats[0] for t in self.suite.tasks)):
            for shots in self.shots:
                way = Way(self.suite.name, self.split, format, shots, self.fit)
                for task in self.suite.tasks:
                    if format in (self.formats and task.formats) or (not self.formats and format == task.formats[0]):
                        prompts.check(task, format, shots, self.split)
                        items = tuple(task.splits[self.split][: self.limit])
                        out.append(Cell(task, way, items, records.digest(task, items, way)))
        return out


def of_config(probe: ProbeConfig) -> tuple[Ask, ...]:
    """What a run is asked.

    Raises:
      TaskError: where there is no such suite, or it cannot be asked so.
    """
    suite = suites.find(probe.suite, probe.tasks)
    chosen = [f for f in probe.formats if f not in GENERATED], [f for f in probe.formats if f in GENERATED]
    ways = zip(chosen, (probe.shots, (max(probe.shots),)), strict=True)
    out = tuple(Ask(suite, tuple(formats), shots, limit=probe.items) for formats, shots in ways if formats)
    for ask in out:
        ask.cells()
    return out


class Done(NamedTuple):
    """A cell that is over: its row, and whether it was there before."""

    cell: Cell
    row: dict[str, Any]
    before: bool


def run(
    engine: Engine,
    ask: Ask,
    position: Position,
    folder: str | os.PathLike[str],
    keep_items: bool = True,
    advance: Callable[[Cell, float], None] = lambda cell, n: None,
) -> Iterator[Done]:
    """Asks what is not recorded yet, and records each task as soon as it is done; averages last.

    Args:
      folder: of the member.
      keep_items: writes ``items/*.parquet``.
      advance: told of which cell how many items have been done since it was called last.

    Raises:
      TaskError: as ``Ask.cells``, before anything is scored; of a model whose log-likelihoods are not finite.
    """
    cells = ask.cells()
    before = {records.key(row): row for row in records.rows(folder)}
    of_way: dict[Way, list[dict[str, Any]]] = {}
    for cell in cells:
        row = before.get(_key(cell, position))
        there = row is not None and row["items_digest"] == cell.digest
        if row is None or not there:
            row = _score(engine, cell, position, folder, keep_items, functools.partial(advance, cell))
        else:
            advance(cell, len(cell.items))
        of_way.setdefault(cell.way, []).append(row)
        yield Done(cell, row, there)
    for way, rows in of_way.items():
        for row in records.group_rows(rows, position, way, ask.suite):
            old = before.get(records.key(row), {})
            if {**old, "at": 0} != {**row, "at": 0}:
                records.append(folder, row)


def _key(cell: Cell, position: Position) -> tuple[Any, ...]:
    return records.key({"kind": records.TASK, "step": position.step, "task": cell.task.name, **cell.way._asdict()})


def _score(
    engine: Engine,
    cell: Cell,
    position: Position,
    folder: str | os.PathLike[str],
    keep_items: bool,
    advance: Callable[[float], None],
) -> dict[str, Any]:
    task, way = cell.task, cell.way
    outcome = scoring.score(engine, task, cell.items, way.format, way.shots, way.fit, advance)
    found = metrics.of(outcome.scored, way.format, task, encode=engine.encode)
    if keep_items:
        records.write_items(folder, task, position, way, outcome.scored)
    row = records.task_row(position, task, way, outcome, found, cell.digest, keep_items)
    records.append(folder, row)
    return row


def score_now(
    config: ModelConfig,
    params: Any,
    tokenizer: Tokenizer,
    ask: Ask,
    position: Position,
    folder: str | os.PathLike[str],
    keep_items: bool = True,
) -> list[dict[str, Any]]:
    """Scores parameters in hand, such as those of a training state, and returns the rows of tasks.

    Programs are kept for the process: the next call with this shape of model compiles nothing.
    """
    engine = Engine(config, params, tokenizer)
    return [done.row for done in run(engine, ask, position, folder, keep_items)]


def groups_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The micro averages among rows."""
    return [row for row in rows if row["kind"] == records.GROUP and row["average"] == "micro"]


def in_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for every way in which tasks were asked: the mean over tasks of accuracy, or of exact matches."""
    of_way: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        of_way.setdefault((row["format"], row["shots"]), []).append(row)
    out = []
    for (format, shots), asked in of_way.items():
        name = "acc" if "acc" in asked[0]["metrics"] else "exact_match"
        mean = sum(row["metrics"][name]["value"] for row in asked) / len(asked)
        out.append(f"{asked[0]['suite']}: {name} {mean:.3f} over {len(asked)} tasks ({format}, {shots} shots)")
    return out
