"""What is put to a model: the tasks of a suite in which formats, with how many shots, found to be askable.  Imports no jax."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from scaling.config import ProbeConfig
from scaling.evals import prompts, suites
from scaling.evals.items import DEV, FORMATS, GENERATED, TEST, Item, Suite, Task, TaskError
from scaling.units import did_you_mean

FITS = ("drop_shots", "left_truncate", "skip")  # what is done with prompts that are longer than the context: see ``scoring``


class Way(NamedTuple):
    """How a task is asked."""

    suite: str
    split: str
    format: str
    shots: int
    fit: str


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
      fit: one of ``FITS``, see ``scoring``.
    """

    suite: Suite
    formats: tuple[str, ...] = ()
    shots: tuple[int, ...] = (0,)
    split: str = TEST
    limit: int | None = None
    fit: str = FITS[0]

    def cells(self) -> list[Cell]:
        """Tasks by format and shots.

        Raises:
          TaskError: where any of it cannot be asked: no such format, no items, too few dev items for the shots.
        """
        check_fit(self.fit)
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
        for format in dict.fromkeys(self.formats or [t.formats[0] for t in self.suite.tasks]):
            for shots in dict.fromkeys(self.shots):
                way = Way(self.suite.name, self.split, format, shots, self.fit)
                for task in self.suite.tasks:
                    if format in (self.formats and task.formats) or (not self.formats and format == task.formats[0]):
                        prompts.check(task, format, shots, self.split)
                        items = tuple(task.splits[self.split][: self.limit])
                        out.append(Cell(task, way, items, digest(task, items, way)))
        return out


def of_config(probe: ProbeConfig) -> tuple[Ask, ...]:
    """What a run is asked.

    Raises:
      TaskError: where there is no such suite, or it cannot be asked so.
      StoreError: where a suite of held-out text has no token store.
    """
    suite = suites.find(probe.suite, probe.tasks)
    chosen = [f for f in probe.formats if f not in GENERATED], [f for f in probe.formats if f in GENERATED]
    ways = zip(chosen, (probe.shots, (max(probe.shots),)), strict=True)
    out = tuple(Ask(suite, tuple(formats), shots, limit=probe.items) for formats, shots in ways if formats)
    for ask in out:
        ask.cells()
    return out


def check_fit(fit: str) -> None:
    """Raises TaskError for a way to deal with long prompts that is not there."""
    if fit not in FITS:
        raise TaskError(f"fit {fit!r}; choose of {', '.join(FITS)}.{did_you_mean(fit, FITS)}")


def digest(task: Task, items: Sequence[Item], way: Way) -> str:
    """Sixteen hex digits of all that decides what a model is asked: items, shots, wording, and what is done if it is long."""
    shots = task.splits.get(DEV, ()) if way.shots else ()
    what = [
        [[_plain(i) for i in part] for part in (items, shots)],
        [dataclasses.asdict(task.template), task.style, task.seed, task.subject],
        way._asdict(),
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _plain(item: Item) -> list[Any]:
    return [item.id, item.question, item.choices, item.answer, item.target, item.cot, item.contexts]
