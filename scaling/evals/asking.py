"""A suite put to a checkpoint: every task in every format with every number of shots, recorded as it is done.

The trainer calls ``score_now`` on the parameters that it has in hand; ``python -m scaling.evals`` calls ``run`` on those of a
checkpoint.  What the records have already, of the same items asked the same way, is not asked again.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from scaling.config import ModelConfig
from scaling.evals import metrics, records, scoring
from scaling.evals.cells import Ask, Cell, Way
from scaling.evals.engine import Engine
from scaling.evals.records import Position
from scaling.tokenizer import Tokenizer


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
      TaskError: as ``Ask.cells``, and where no item of a task fits, before anything is scored; of a model whose log-likelihoods
        are not finite.
    """
    cells = ask.cells()
    before = {records.key(row): row for row in records.rows(folder)}
    for cell in cells:
        row = before.get(_key(cell, position))
        if row is None or row["items_digest"] != cell.digest:
            scoring.check_room(engine, cell.task, cell.items, cell.way.format, cell.way.shots, cell.way.fit)
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
        how = f"{format}, {shots} shot{'s' * (shots != 1)}"
        out.append(f"{asked[0]['suite']}: {name} {mean:.3f} over {len(asked)} task{'s' * (len(asked) != 1)} ({how})")
    return out
