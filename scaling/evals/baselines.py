"""Scorers that need no model: what a score is to be compared with, and what a task must not give away.

Each takes requests and returns what a model would have made of them.  ``majority`` and the choices-only scorers know nothing
of the question; a task where they beat chance leaks its answers.
"""

from __future__ import annotations

import collections
import math
import zlib
from collections.abc import Callable, Iterable, Sequence

from scaling.evals.items import Item, Request, Scored

_SURE = 20.0  # nats below certainty of what an oracle thinks wrong: probability 2e-9
_TIE = 1e-9  # nats that break a tie; moves no probability by more


def scored(request: Request, loglikelihoods: Sequence[float], generated: str | None = None) -> Scored:
    """What a model with these log-likelihoods made of a request; a byte is a token."""
    answers = [c.removeprefix(request.delimiter) for _, c in request.options]
    best = max(range(len(answers)), key=loglikelihoods.__getitem__)
    greedy = tuple(i == best and len(answers) > 1 for i in range(len(answers)))
    n_bytes = tuple(len(a.encode()) for a in answers)
    lengths = tuple(len(a) for a in answers)
    return Scored(request.item, tuple(loglikelihoods), greedy, n_bytes, n_bytes, lengths, request.shots, (), generated)


def uniform(requests: Iterable[Request]) -> list[Scored]:
    """Equal probabilities that sum to one; which of the equals is chosen is drawn by a hash of the item, as a guess is."""

    def one(request: Request) -> Scored:
        n = len(request.options)
        guess = _hash(request.item, "guess") % n
        return scored(request, [-math.log(n) + _TIE * (i == guess) for i in range(n)], "" if request.generate else None)

    return [one(r) for r in requests]


def oracle(requests: Iterable[Request], answer: Callable[[Item], int] = lambda item: item.answer) -> list[Scored]:
    """Certain of the right answer, or of what ``answer`` says instead; generates it."""

    def one(request: Request) -> Scored:
        n, right = len(request.options), answer(request.item)
        text = request.options[0][1] if request.generate else None
        if n == 1:
            return scored(request, [-math.exp(-_SURE)], text)
        return scored(request, [-math.exp(-_SURE) if i == right else -_SURE for i in range(n)], text)

    return [one(r) for r in requests]


def shuffled(requests: Iterable[Request], seed: int = 0) -> list[Scored]:
    """Certain of an answer that has nothing to do with the item: an oracle whose labels were drawn anew."""
    listed = list(requests)
    options = {id(r.item): len(r.options) for r in listed}
    return oracle(listed, lambda item: _hash(item, f"label {seed}") % options[id(item)])


def majority(requests: Iterable[Request], seen: Iterable[Item]) -> list[Scored]:
    """Always the position that is right most often among ``seen`` items, the first of equals."""
    counts = collections.Counter(i.answer for i in seen)
    most = max(counts, key=lambda position: (counts[position], -position))
    return oracle(requests, lambda item: most)


def unigram(requests: Iterable[Request], texts: Iterable[str]) -> list[Scored]:
    """Choices by how common their characters are in ``texts``, mean nats per character; the question is not looked at."""
    counts = collections.Counter("".join(texts))
    total, size = sum(counts.values()), len(counts) + 1

    def mean(choice: str) -> float:
        return sum(math.log((counts[c] + 1) / (total + size)) for c in choice) / max(1, len(choice))

    return _choices_only(requests, mean)


def longest(requests: Iterable[Request]) -> list[Scored]:
    """The longest choice; it is right in 28 % of MMLU's test items."""
    return _choices_only(requests, len)


def _choices_only(requests: Iterable[Request], score: Callable[[str], float]) -> list[Scored]:
    """By a score in nats of each choice's text alone; equals are told apart by a hash of the item."""

    def one(request: Request) -> Scored:
        guess = _hash(request.item, "guess")
        choices = request.item.choices or request.item.contexts
        values = [score(c) + _TIE * ((i + guess) % len(choices)) for i, c in enumerate(choices)]
        most = max(values)
        total = most + math.log(sum(math.exp(v - most) for v in values))
        return scored(request, [v - total for v in values])

    return [one(r) for r in requests]


def _hash(item: Item, salt: str) -> int:
    # CRC32's low bits alone are too regular for a draw.
    return zlib.crc32(f"{salt}|{item.id}|{item.question}|{item.choices}".encode()) >> 7
