"""What is kept of an evaluation: ``evals.jsonl`` and ``items/*.parquet`` in a member's folder.

A row of ``evals.jsonl`` is a task ("kind": "eval") or an average over tasks ("eval_group") in one format with so many shots at
one checkpoint; of rows with the same ``key`` the last counts.  A Parquet file has every item of all tasks that were asked the
same way at the same checkpoint.  Both are written whole, a task at a time, so an evaluation that ends early leaves what it had.
"""

from __future__ import annotations

import os
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from scaling import runs
from scaling.evals import metrics
from scaling.evals.cells import Way
from scaling.evals.items import Scored, Suite, Task
from scaling.evals.metrics import Metric

if TYPE_CHECKING:
    from scaling.evals.scoring import Outcome

EVALS = "evals.jsonl"
ITEMS = "items"
TASK, GROUP = "eval", "eval_group"
ALL = "all"  # the group of every task of a suite
KEY = ("kind", "step", "suite", "task", "split", "format", "shots", "average")


class Position(NamedTuple):
    """How far a checkpoint is in training; ``flops`` by ``flops.DEFAULT_CONVENTION``."""

    step: int
    tokens: int
    flops: float


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """By which a later row replaces an earlier one."""
    return tuple(row.get(name) for name in KEY)


def rows(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a member, by the order of their first writing; of those with the same key the last.

    Raises:
      RunError: when a line is not JSON.
    """
    return list({key(row): row for row in runs.read_jsonl(pathlib.Path(folder) / EVALS)}.values())


def task_row(
    position: Position, task: Task, way: Way, outcome: Outcome, found: Mapping[str, Metric], items_digest: str, keep: bool
) -> dict[str, Any]:
    """The row of a task; ``keep`` where its items are kept too."""
    notes = {"notes": list(outcome.notes)} if outcome.notes else {}
    return {
        **_head(TASK, position, way),
        "task": task.name,
        "group": task.group,
        "shots_effective": outcome.shots_effective,
        "n": len(outcome.scored),
        "skipped": len(outcome.skipped),
        "truncated": sum(s.truncated for s in outcome.scored),
        "chance": metrics.chance(outcome.scored),
        "answer_tokens": round(outcome.answer_tokens, 4),
        "items_digest": items_digest,
        "items_file": f"{ITEMS}/{items_name(position, way)}" if keep else None,
        "at": time.time(),
        **notes,
        "metrics": {name: _numbers(m) for name, m in found.items()},
    }


def group_rows(tasks: Sequence[Mapping[str, Any]], position: Position, way: Way, suite: Suite) -> list[dict[str, Any]]:
    """Averages over the tasks of each group and over all, weighed by items ('micro') and alike ('macro'); of tasks that were
    scored alone."""
    by_name = {row["task"]: row for row in tasks}
    out = []
    for name, members in ({g: [t.name for t in ts] for g, ts in suite.groups().items()} | {ALL: list(by_name)}).items():
        there = [by_name[t] for t in members if t in by_name]
        if len(there) < 2:
            continue
        found = [{n: Metric(**m, n=row["n"]) for n, m in row["metrics"].items()} for row in there]
        n = sum(row["n"] for row in there)
        for how in ("micro", "macro"):
            weights = [row["n"] / n if how == "micro" else 1 / len(there) for row in there]
            mean = {k: sum(w * row[k] for w, row in zip(weights, there, strict=True)) for k in ("chance", "answer_tokens")}
            total = {k: sum(row[k] for row in there) for k in ("n", "skipped", "truncated")}
            shots: dict[str, int] = {}
            for row in there:
                for k, count in row["shots_effective"].items():
                    shots[k] = shots.get(k, 0) + count
            out.append({
                **_head(GROUP, position, way), "task": name, "group": name, "average": how,
                "tasks": [row["task"] for row in there], "shots_effective": shots, **total, **mean, "at": time.time(),
                "metrics": {k: _numbers(m) for k, m in metrics.aggregate(found, how).items()},
            })  # fmt: skip
    return out


def _head(kind: str, position: Position, way: Way) -> dict[str, Any]:
    return {"kind": kind, **position._asdict(), **way._asdict()}


def _numbers(metric: Metric) -> dict[str, float]:
    return {name: getattr(metric, name) for name in ("value", "stderr", "low", "high")}


def append(folder: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Adds one row to a member's ``evals.jsonl``."""
    runs.append_jsonl(pathlib.Path(folder) / EVALS, dict(row))


# ---- items


def items_name(position: Position, way: Way) -> str:
    """The Parquet file of all items that are asked this way at this checkpoint."""
    suite = re.sub(r"[^\w.-]+", "-", way.suite).strip("-")
    return f"{position.step:08d}.{suite}.{way.split}.{way.format}.{way.shots}.parquet"


def write_items(
    folder: str | os.PathLike[str], task: Task, position: Position, way: Way, scored: Sequence[Scored]
) -> pathlib.Path:
    """Puts a task's items into its file, in the place of what it has of the task; the file is replaced atomically."""
    import pyarrow as pa
    from pyarrow import parquet

    path = pathlib.Path(folder) / ITEMS / items_name(position, way)
    path.parent.mkdir(parents=True, exist_ok=True)
    hits = metrics.right(scored, way.format, task)
    rows = [_item_row(task, position, way, s, hit) for s, hit in zip(scored, hits, strict=True)]
    table = pa.Table.from_pylist(rows, schema=_schema())
    if path.exists():
        before = parquet.read_table(path)
        others = before.filter([name != task.name for name in before["task"].to_pylist()])
        table = pa.concat_tables([others, table], promote_options="default")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        parquet.write_table(table, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _schema() -> Any:
    import pyarrow as pa

    numbers, whole = pa.list_(pa.float64()), pa.list_(pa.int32())
    return pa.schema({
        "task": pa.string(), "item": pa.string(), "format": pa.string(), "step": pa.int64(), "shots": pa.int32(),
        "gold": pa.int32(), "right": pa.bool_(), "loglikelihoods": numbers, "greedy": pa.list_(pa.bool_()), "tokens": whole,
        "n_bytes": whole, "characters": whole, "unconditional": numbers, "generated": pa.string(), "truncated": pa.bool_(),
    })  # fmt: skip


def _item_row(task: Task, position: Position, way: Way, s: Scored, right: bool) -> dict[str, Any]:
    """Names as in ``Scored``; ``shots`` are effective ones, ``right`` is ``metrics.right``."""
    names = ("shots", "loglikelihoods", "greedy", "tokens", "n_bytes", "characters", "unconditional", "generated", "truncated")
    about = {"task": task.name, "item": s.item.id, "format": way.format, "step": position.step, "gold": s.item.answer}
    return about | {"right": right} | {name: getattr(s, name) for name in names}
