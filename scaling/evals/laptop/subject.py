"""What a subject of the laptop suite is: a way to draw questions, and the split that a question belongs to.  Imports no jax.

Choices come before the question: four equally plausible answers are drawn, one of them is picked, and a question is made that
it answers.  So which one is right cannot be told from the choices, by construction: not from their length, their letters, how
common they are, nor from which of them the others resemble (with three corruptions of the truth, the truth is the one in the
middle; here two independent changes give the four corners of a square).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from scaling.evals.items import DEV, FORMATS, TEST, VAL, Item, Template

TRAIN, UNUSED = "train", "unused"
# What a byte model reads is short, so that six questions fit into 192 bytes: at most 31 bytes each, newline included.
TEMPLATE = Template(question="{q}:", delimiter=" ", separator="\n", cot="{cot} =", stop=("\n",), bare="", strip=False)
MOST_BYTES = 31
HELD_OUT = {DEV: 0.05, VAL: 0.15, TEST: 0.8}  # of what is not for training


@dataclasses.dataclass(frozen=True)
class Question:
    """A drawn question, before it is known to which split it belongs.

    Attributes:
      text: of the question.
      choices: four different ones.
      answer: index of the right one.
      cot: steps to it, '' where there are none.
      difficulty: length, number of steps and the like: a larger number is harder.
      side: whether what it is about (a person, a map) is for training; None where its text alone decides.
      meta: more to know of it.
    """

    text: str
    choices: tuple[str, ...]
    answer: int
    cot: str = ""
    difficulty: int = 0
    side: bool | None = None
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def gold(self) -> str:
        """The right answer."""
        return self.choices[self.answer]

    def line(self, cot: bool = False) -> str:
        """Question and answer as a few-shot prompt and the training text have them, newline included."""
        t = TEMPLATE
        steps = t.cot.format(cot=self.cot) + t.delimiter if cot else ""
        return t.question.format(q=self.text) + t.delimiter + steps + self.gold + t.separator

    def item(self, id: str) -> Item:
        """As an item of a task."""
        return Item(
            id, self.text, self.choices, self.answer, cot=self.cot, meta={"difficulty": self.difficulty} | dict(self.meta)
        )


Draw = Callable[[Random], Question]


@dataclasses.dataclass(frozen=True)
class Subject:
    """A generator of questions.

    Attributes:
      name: of its task.
      group: of the suite.
      about: what it asks, in words.
      world: what holds for one document: draws what its questions have in common (a hidden map) and returns how they are
        drawn; most subjects have nothing in common and return the same each time.
      weight: its share of the training text, relative to the others'.
      train: the share of its questions that are for training.
      cot: share of its training documents that show the steps; 0 for a subject without.
      lesson: draws a line of training text that is no question of the suite, but needed to answer some; None without.
      lessons: how many of the lines of a document are lessons, as a probability.
    """

    name: str
    group: str
    about: str
    world: Callable[[Random], Draw]
    weight: float = 1.0
    train: float = 0.6
    cot: float = 0.0
    lesson: Draw | None = None
    lessons: float = 0.0

    @property
    def formats(self) -> tuple[str, ...]:
        """That make sense for it, the primary one first."""
        return FORMATS if self.cot else FORMATS[:-1]

    def split(self, question: Question) -> str:
        """Where ``question`` belongs, whoever draws it and whenever: a hash of its text decides whether it is for training,
        another to which of the other splits it goes.  What it is about must be on the same side; ``UNUSED`` where it is not.
        """
        taught = self.trains(question.text)
        if question.side not in (None, taught):
            return UNUSED
        if taught:
            return TRAIN
        place = hashed(f"{self.name}|held out|{question.text}")
        return DEV if place < HELD_OUT[DEV] else VAL if place < HELD_OUT[DEV] + HELD_OUT[VAL] else TEST

    def trains(self, what: str) -> bool:
        """Whether a text is on the side of training."""
        return hashed(f"{self.name}|{what}") < self.train


def hashed(text: str) -> float:
    """A number from 0 to 1, evenly spread, that ``text`` decides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def alone(draw: Draw) -> Callable[[Random], Draw]:
    """The ``world`` of a subject whose questions have nothing in common."""
    return lambda random: draw


def square(random: Random, one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[list[tuple[Any, Any]], int]:
    """The four combinations of two alternatives each, in random order, and the index of the one that shall be right."""
    corners = [(a, b) for a in one for b in other]
    random.shuffle(corners)
    return corners, random.randrange(4)
