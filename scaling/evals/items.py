"""What is asked: items, tasks, suites, and an item as it is put to a model.  Imports no jax.

A task is data: its items by split, the formats it can be asked in, where it comes from.  ``prompts`` turns an item into a
``Request``, ``scoring`` turns requests into ``Scored``, ``metrics`` turns those into numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

FORMATS = ("cloze", "letter", "generate", "cot")
GENERATED = ("generate", "cot")  # of them: the model writes its answer
DEV, VAL, TEST = "dev", "val", "test"
WORLD = "world"  # of ``Item.meta``: what holds for some items of a task alone, which therefore are examples for each other
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class TaskError(ValueError):
    """Task data that cannot be used; the message names file, row, value and remedy."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
      id: unique within its task and split, the same on every machine.
      question: as its source has it, unstripped.
      choices: to choose from, unstripped; empty for an item that can only be generated or continued.
      answer: index of the right choice; 0 without choices.
      target: what a generation must equal, or the one continuation that is scored; the right choice where it is empty.
      cot: the reasoning that leads to the answer, for few-shot examples and for training text.
      contexts: for tasks whose options differ in their context and share the continuation ``target`` (Winograd schemas);
        empty for all others.
      meta: difficulty and the like.
    """

    id: str
    question: str
    choices: tuple[str, ...] = ()
    answer: int = 0
    target: str = ""
    cot: str = ""
    contexts: tuple[str, ...] = ()
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def gold(self) -> str:
        """The right answer as text."""
        return self.target or self.choices[self.answer]


@dataclasses.dataclass(frozen=True)
class Template:
    """How a task is put in words, for the formats that are not MMLU's own prompt.

    ``question`` and ``answer`` are joined as ``question.format(q=…) + delimiter + answer``; shots are joined by ``separator``.
    ``cot`` holds ``{cot}`` and ends where the answer follows.  ``stop`` ends a generation, but a worked one (``cot``), which
    may have several lines, ends at ``separator``.

    Attributes:
      header: before the first shot, with ``{subject}`` where it is named.
      bare: the context that an answer is scored in without its question (PMI; Brown et al. 2020, 2.4).
      end: after the answer of a worked example, such as a full stop.
      strip: questions of outer whitespace, as lm-evaluation-harness does.
    """

    question: str = "Question: {q}\nAnswer:"
    delimiter: str = " "
    separator: str = "\n\n"
    cot: str = "{cot} So the answer is"
    stop: tuple[str, ...] = ("\n",)
    header: str = ""
    bare: str = "Answer:"
    end: str = ""
    strip: bool = True


@dataclasses.dataclass(frozen=True)
class Task:
    """A named set of items.

    Attributes:
      name: unique in its suite; a file name.
      subject: as prompts say it, with blanks.
      group: of its suite, '' where it has none.
      splits: items by split, ``DEV`` for shots.
      formats: that make sense for it, the primary one first.
      template: of the formats that are not MMLU's own.
      style: of the ``letter`` format, one of ``prompts.STYLES``.
      seed: None takes the first dev items as shots in their order; a number draws them per item (see ``prompts``).
      citation: paper or repository.
    """

    name: str
    subject: str
    splits: Mapping[str, Sequence[Item]]
    formats: tuple[str, ...] = FORMATS
    group: str = ""
    template: Template = Template()
    style: str = "harness"
    seed: int | None = None
    citation: str = ""

    @property
    def chance(self) -> float:
        """The accuracy of a uniform guess: the mean of 1 / choices over test items, 0 for generation."""
        items = self.splits.get(TEST) or self.splits.get(VAL) or ()
        options = [len(i.contexts) or len(i.choices) for i in items]
        return sum(1 / n if n else 0.0 for n in options) / max(1, len(options))


@dataclasses.dataclass(frozen=True)
class Suite:
    """Tasks that are reported together, in groups; ``notes`` say in words what was met when they were read."""

    name: str
    tasks: tuple[Task, ...]
    citation: str = ""
    notes: tuple[str, ...] = ()

    def groups(self) -> dict[str, tuple[Task, ...]]:
        """Tasks by group, in their order."""
        names = dict.fromkeys(t.group for t in self.tasks if t.group)
        return {g: tuple(t for t in self.tasks if t.group == g) for g in names}


@dataclasses.dataclass(frozen=True)
class Request:
    """One item as it is put to a model.

    Attributes:
      item: whose request it is.
      prefix: header and shots, the same for many items of a task, so that it is encoded once; '' without.
      options: (context after the prefix, continuation) of each choice; one where there is nothing to choose from.
      shots: that are in the prefix, after those that did not fit were dropped.
      delimiter: with which every continuation starts; not counted in its bytes and characters.
      bare: the context for the unconditional probability of each continuation, '' where nobody asks.
      generate: the context after the prefix from which to generate, '' where nobody asks.
      stop: ends a generation.
    """

    item: Item
    prefix: str
    options: tuple[tuple[str, str], ...]
    shots: int
    delimiter: str = " "
    bare: str = ""
    generate: str = ""
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a model made of a request; lists run over its options.

    Attributes:
      loglikelihoods: nats, summed over the continuation's tokens.
      greedy: whether each continuation is what greedy decoding gives.
      tokens, n_bytes, characters: of each continuation; bytes and characters without the delimiter before it, as
        lm-evaluation-harness counts.
      unconditional: nats of each continuation after ``bare``, empty where nobody asked.
      generated: text up to a stop string, None where nobody asked.
      shots: effective.
      truncated: whether the left of the prompt was cut off.
    """

    item: Item
    loglikelihoods: tuple[float, ...]
    greedy: tuple[bool, ...]
    tokens: tuple[int, ...]
    n_bytes: tuple[int, ...]
    characters: tuple[int, ...]
    shots: int
    unconditional: tuple[float, ...] = ()
    generated: str | None = None
    truncated: bool = False
