"""Four-way cloze from a corpus's own held-out documents: which word, and which sentence, comes next.  Imports no jax.

``prose_word`` ends a passage before its last content word (LAMBADA: Paperno et al. 2016); its negatives are words of the same
document with nearly the same length, frequency and ending.  ``prose_sentence`` asks which of four sentences of one document
follows (HellaSwag: Zellers et al. 2019, whose wrong endings a model wrote; ours are all real, since what a small model writes
is known by its style alone).

Two filters, both by rank, so that neither is a tell.  An *answer-only* scorer (byte trigrams, the passage unseen) ranks the
right choice first, second, third and last equally often, which makes its accuracy a quarter by construction.  Of the items
that a *contextual* n-gram scorer gets right, at most a quarter are kept, and its own favourites are the negatives (adversarial
filtering with a scorer that no one will train).  No item shares a 13-gram with the training split.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from scaling.evals import overlap
from scaling.evals.items import DEV, TEST, VAL, Item, Suite, Task, TaskError, Template
from scaling.evals.laptop.subject import hashed
from scaling.store import TokenStore

TEMPLATE = Template(question="{q}", delimiter=" ", separator="\n\n", bare="", strip=False)
KEPT, VERSION = "prose.json", 1  # the suite in its store's folder; another generator needs another version
COUNTS = {DEV: 5, VAL: 50, TEST: 500}
CHOICES = 4
ABOUT = {"prose_word": "the last word", "prose_sentence": "the next sentence"}
TRAIN_BYTES = 4_000_000  # that the scorers learn from
PASSAGE_BYTES = 150  # before the answer, so that an item fits the default context of 192
WORD = re.compile(r"[a-z]{4,}")
SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")
ENDINGS = ("ing", "ed", "ly", "es", "s", "er", "al", "ion")
COMMON = 120  # the most frequent words are no content words
POOL = 24  # candidates for the negatives of an item


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An item before its negatives are chosen: of which document, the passage, the right answer and what else it might be."""

    document: int
    passage: str
    gold: str
    others: tuple[str, ...]


class Trigrams:
    """Byte trigrams with two back-offs (stupid backoff: Brants et al. 2007): mean nats per byte of a text after another."""

    def __init__(self, texts: Sequence[str]):
        data = np.frombuffer("\n".join(texts).encode(), np.uint8).astype(np.int64)
        self.counts: list[dict[int, int]] = []
        code = np.zeros(len(data) + 1, np.int64)
        for n in range(3):
            code = code[:-1] * 256 + data[n:]
            kinds, seen = np.unique(code, return_counts=True)
            self.counts.append(dict(zip(kinds.tolist(), seen.tolist(), strict=True)))
        self.total = len(data)

    def score(self, text: str, context: str = " ") -> float:
        """Mean log of the stupid back-off score of each byte of ``text``."""
        data = (context[-2:] + text).encode()
        start = len(data) - len(text.encode())
        total = 0.0
        for i in range(start, len(data)):
            for n in (2, 1, 0):
                if i < n:
                    continue
                key = int.from_bytes(data[i - n : i + 1], "big")
                seen = self.counts[n].get(key)
                if seen:
                    whole = self.counts[n - 1][key >> 8] if n else self.total
                    total += math.log(0.4 ** (2 - n) * seen / whole)
                    break
            else:
                total += math.log(0.4**2 / self.total)
        return total / max(1, len(data) - start)


class Words:
    """Frequencies of words, and how often one follows another."""

    def __init__(self, texts: Sequence[str]):
        self.single = collections.Counter[str]()
        self.pairs = collections.Counter[tuple[str, str]]()
        for text in texts:
            run = re.findall(r"[a-z']+", text.lower())
            self.single.update(run)
            self.pairs.update(itertools.pairwise(run))
        self.common = {w for w, _ in self.single.most_common(COMMON)}

    def octave(self, word: str) -> int:
        """Of frequency."""
        return int(math.log2(self.single[word] + 1))

    def context_score(self, passage: str, choice: str) -> float:
        """How likely a choice is after a passage by pairs of words, and by words that the passage has said already."""
        before = re.findall(r"[a-z']+", passage.lower())
        run = [*before[-1:], *re.findall(r"[a-z']+", choice.lower())]
        pairs = [math.log((self.pairs[p] + 0.1) / (self.single[p[0]] + 10)) for p in itertools.pairwise(run)]
        content = [w for w in run[1:] if len(w) > 3]
        said = sum(w in before for w in content) / max(1, len(content))
        return sum(pairs) / max(1, len(pairs)) + said


@dataclasses.dataclass(frozen=True)
class Scorers:
    """Of choices alone, and of choices after a passage."""

    trigrams: Trigrams
    words: Words

    def answer_only(self, choice: str) -> float:
        """Higher is likelier."""
        return self.trigrams.score(choice)

    def contextual(self, passage: str, choice: str) -> float:
        """Higher is likelier."""
        return self.words.context_score(passage, choice)


def suite(store: TokenStore, counts: dict[str, int] | None = None) -> Suite:
    """Both tasks, from the validation documents of ``store``, the same for the same store.

    Raises:
      TaskError: where the documents give too few items.
    """
    counts = counts or COUNTS
    scorers = learn(store)
    documents = list(_texts(store, "valid"))
    made = {
        "prose_word": list(word_candidates(documents, scorers.words)),
        "prose_sentence": list(sentence_candidates(documents)),
    }
    known: dict[str, int] = {}
    words = {c: overlap.hash_words(f"{c.passage} {c.gold}", known) for candidates in made.values() for c in candidates}
    dirty = overlap.shared(words, store, overlap.N)
    citation = f"held-out documents of {store.path.name} ({store.fingerprint})"
    tasks = []
    for name in ABOUT:
        clean = {c.passage: c for c in made[name] if c not in dirty and len(c.others) >= CHOICES - 1}
        order = iter(sorted(clean.values(), key=lambda c: hashed(f"{name}|{c.passage}")))
        splits = {split: tuple(_fill(name, split, n, order, scorers)) for split, n in counts.items()}
        tasks.append(_task(name, splits, citation))
    return Suite("prose", tuple(tasks), citation)


def kept(store: TokenStore) -> Suite:
    """``suite`` of a store, read from ``KEPT`` in its folder, where it is left when it has been made: that takes 15 CPU
    seconds for 46 million bytes, most of them to look for items in the training split.

    Raises:
      TaskError: as ``suite``.
    """
    file = store.path / KEPT
    mark = [VERSION, store.fingerprint]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(file.read_text())
        if content["of"] == mark:
            return _read(content)
    made = suite(store)
    content = {"of": mark, "citation": made.citation}
    content["tasks"] = {
        t.name: {s: [dataclasses.asdict(i) for i in items] for s, items in t.splits.items()} for t in made.tasks
    }
    with contextlib.suppress(OSError):  # a store that may not be written to
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, file)
    return made


def _read(content: Mapping[str, Any]) -> Suite:
    """The suite that ``kept`` wrote."""
    tasks = []
    for name, splits in content["tasks"].items():
        items = {
            split: tuple(Item(**{**i, "choices": tuple(i["choices"]), "contexts": tuple(i["contexts"])}) for i in listed)
            for split, listed in splits.items()
        }
        tasks.append(_task(name, items, content["citation"]))
    return Suite("prose", tuple(tasks), content["citation"])


def _task(name: str, splits: Mapping[str, tuple[Item, ...]], citation: str) -> Task:
    return Task(name, ABOUT[name], splits, ("cloze", "generate"), "prose", TEMPLATE, citation=citation)


def learn(store: TokenStore) -> Scorers:
    """Of training documents spread over the whole split, so that they are of all its sources."""
    texts = list(_texts(store, "train", TRAIN_BYTES))
    return Scorers(Trigrams(texts), Words(texts))


def _texts(store: TokenStore, split: str, most: int | None = None) -> Iterator[str]:
    """Documents in order; with ``most``, the beginnings of all of them, about so many tokens together."""
    tokens, offsets = store.tokens(split), store.offsets(split)
    part = 1.0 if most is None else min(1.0, most / max(1, len(tokens)))
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield store.tokenizer.decode(np.asarray(tokens[start : start + math.ceil(part * (stop - start))]))


# ---- candidates


def word_candidates(documents: Sequence[str], words: Words) -> Iterator[Candidate]:
    """The last word of every sentence whose document has other words that could stand there."""
    for number, text in enumerate(documents):
        there = sorted({w for w in WORD.findall(text) if w not in words.common and words.single[w]})
        kinds: dict[tuple[str, int], list[str]] = {}
        for word in there:
            kinds.setdefault((_ending(word), len(word)), []).append(word)
        for line in text.split("\n"):
            for end in re.finditer(r" ([a-z]{4,})[.!?](?: |$)", line):
                gold, passage = end[1], _tail(line[: end.start()], PASSAGE_BYTES)
                if gold in words.common or not words.single[gold] or len(passage.split()) < overlap.N:
                    continue
                alike = [w for size in (-1, 0, 1) for w in kinds.get((_ending(gold), len(gold) + size), ())]
                others = [w for w in alike if w != gold and abs(words.octave(w) - words.octave(gold)) <= 1]
                yield Candidate(number, passage, gold, _some(passage, others))


def sentence_candidates(documents: Sequence[str]) -> Iterator[Candidate]:
    """Every short sentence that follows another on its line, against sentences of nearly its length from other lines."""
    for number, text in enumerate(documents):
        lines = [SENTENCE.split(line) for line in text.split("\n")]
        short = sorted({s for line in lines for s in line if 24 <= len(s.encode()) <= 60})
        for line in lines:
            for before, gold in itertools.pairwise(line):
                passage = _tail(before, PASSAGE_BYTES - 30)
                if not 24 <= len(gold.encode()) <= 60 or len(f"{passage} {gold}".split()) < overlap.N:
                    continue
                others = [s for s in short if s not in line and abs(len(s) - len(gold)) <= 0.15 * len(gold)]
                yield Candidate(number, passage, gold, _some(passage, others))


def _ending(word: str) -> str:
    return next((e for e in ENDINGS if word.endswith(e)), "")


def _tail(text: str, size: int) -> str:
    """The end of ``text``, at most so many bytes, from the beginning of a word on."""
    text = text.strip()
    return text if len(text.encode()) <= size else text.encode()[-size:].decode(errors="ignore").partition(" ")[2]


def _some(passage: str, others: Sequence[str]) -> tuple[str, ...]:
    """At most ``POOL`` of the candidates, by a hash."""
    return tuple(sorted(others, key=lambda o: hashed(f"{passage}|{o}"))[:POOL])


# ---- items


def _fill(name: str, split: str, count: int, candidates: Iterator[Candidate], scorers: Scorers) -> Iterator[Item]:
    """``count`` items, with as many of every answer-only rank, and at most a quarter that the contextual scorer gets right.

    Raises:
      TaskError: where the candidates end before.
    """
    ranks = [0] * CHOICES
    right = made = 0
    for candidate in candidates:
        if made == count:
            return
        options = _negatives(candidate, scorers)
        if not options:
            continue
        rank = min(options, key=lambda r: ranks[r])
        if ranks[rank] >= -(-count // CHOICES):
            continue
        negatives = options[rank]
        best = max(negatives, key=lambda n: scorers.contextual(candidate.passage, n))
        solved = scorers.contextual(candidate.passage, candidate.gold) > scorers.contextual(candidate.passage, best)
        if solved and right >= count // CHOICES:
            continue
        ranks[rank] += 1
        right += solved
        choices = list(negatives)
        answer = Random(f"{name}|{candidate.passage}").randrange(CHOICES)
        choices.insert(answer, candidate.gold)
        meta = {"difficulty": 0 if candidate.gold in candidate.passage else 1, "document": candidate.document}
        yield Item(f"{split}-{made}", candidate.passage, tuple(choices), answer, meta=meta)
        made += 1
    if made < count:
        raise TaskError(
            f"{name}: {made} of {count} {split} items; the store's validation split is too small, or shares its text with the "
            f"training split; build it with a smaller --holdout, or of more text"
        )


def _negatives(candidate: Candidate, scorers: Scorers) -> dict[int, tuple[str, ...]]:
    """For every rank that is possible, three wrong choices of which so many are likelier than the right one by themselves; of
    those that qualify, the ones that fit the passage best."""
    gold = scorers.answer_only(candidate.gold)
    fit = sorted(candidate.others, key=lambda o: (-scorers.contextual(candidate.passage, o), o))
    alone = {o: scorers.answer_only(o) for o in fit}
    likelier, others = [o for o in fit if alone[o] > gold], [o for o in fit if alone[o] < gold]
    return {
        rank: (*likelier[:rank], *others[: CHOICES - 1 - rank])
        for rank in range(CHOICES)
        if len(likelier) >= rank and len(others) >= CHOICES - 1 - rank
    }
