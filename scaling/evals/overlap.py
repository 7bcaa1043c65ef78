"""Whether a suite's items are in a training text: by exact hash, and by n-grams of words.  Imports no jax.

GPT-3's rule (Brown et al. 2020, appendix C): an item is dirty where one of its 13-grams of words is in the training text, and
an item of fewer words where all of it is.  A word here is what stands between white space, with its punctuation, in lower case.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from scaling.building import Progress
from scaling.evals.items import DEV, Item, Suite, Task
from scaling.store import TokenStore

N = 13
CHUNK_TOKENS = 1 << 20
K = TypeVar("K", bound=Hashable)
BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial in the hashes of words; odd, so that no word is lost modulo 2^64


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What of one task is in a training text.

    Attributes:
      task: its name.
      items: looked at, of all splits but dev.
      exact: ids of items whose question with its right answer is in the text, word for word.
      ngrams: ids of items that share an n-gram with it.
    """

    task: str
    items: int
    exact: tuple[str, ...]
    ngrams: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.exact and not self.ngrams


def text_of(task: Task, item: Item) -> str:
    """The question of ``item`` as its task puts it, with the right answer."""
    question = item.contexts[item.answer] if item.contexts else item.question
    return task.template.question.format(q=question) + task.template.delimiter + item.gold


def overlap(suite: Suite, store: TokenStore, n: int = N, split: str = "train") -> list[Overlap]:
    """What of ``suite`` is in ``store``, task by task: one pass over its text.

    Args:
      suite: whose test and validation items to look for.
      store: of any vocabulary.
      n: words of a gram.
      split: of the store.
    """
    known: dict[str, int] = {}
    words = {(t.name, i.id): hash_words(text_of(t, i), known) for t in suite.tasks for i in items_of(t)}
    ngrams = shared(words, store, n, split)
    # Who has no n-gram in the text is not there as a whole either.
    whole = shared({key: words[key] for key in ngrams}, store, None, split)
    out = []
    for task in suite.tasks:
        keys = [(task.name, item.id) for item in items_of(task)]
        exact, some = (tuple(id for name, id in keys if (name, id) in found) for found in (whole, ngrams))
        out.append(Overlap(task.name, len(keys), exact, some))
    return out


def shared(words: Mapping[K, np.ndarray], store: TokenStore, n: int | None, split: str = "train") -> set[K]:
    """Which texts, by the hashes of their words, have a run of ``n`` words in ``store``: of all their words for None, or where
    there are fewer."""
    runs = {}
    for key, hashes in words.items():
        length = len(hashes) if n is None else min(n, len(hashes))
        runs[key] = length, grams(hashes, length)
    wanted: dict[int, list[np.ndarray]] = {}
    for length, hashes in runs.values():
        wanted.setdefault(length, []).append(hashes)
    found = _found({length: np.unique(np.concatenate(hashes)) for length, hashes in wanted.items()}, store, split)
    return {key for key, (length, hashes) in runs.items() if np.isin(hashes, found[length]).any()}


def items_of(task: Task) -> list[Item]:
    """Of all splits but dev, whose items are shown."""
    return [item for split, items in task.splits.items() if split != DEV for item in items]


def grams(words: np.ndarray, n: int) -> np.ndarray:
    """(len - n + 1,) uint64 hashes of all runs of ``n`` words, given by their own hashes."""
    count = len(words) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    out = np.zeros(count, np.uint64)
    for i in range(n):
        out = out * BASE + words[i : i + count]
    return out


def hash_words(text: str, known: dict[str, int]) -> np.ndarray:
    """Hashes of the words of ``text``; ``known`` remembers them."""
    out = []
    for word in text.lower().split():
        value = known.get(word)
        if value is None:
            value = known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        out.append(value)
    return np.array(out, np.uint64)


def _found(wanted: Mapping[int, np.ndarray], store: TokenStore, split: str) -> dict[int, np.ndarray]:
    """Which of the hashes of runs, by their length, are of text in ``store``; no run goes over the end of a document."""
    out: dict[int, list[np.ndarray]] = {n: [] for n in wanted}
    if not wanted:
        return {}
    known: dict[str, int] = {}
    with Progress("looking for items in the training text", store.splits[split].tokens, unit="million tokens") as progress:
        for texts, size in _documents(store, split):
            # A word that nothing contains stands between documents.
            runs = [hash_words(text, known) for text in texts]
            gap = np.full(1, 1, np.uint64)
            stream = np.concatenate([part for run in runs for part in (run, gap)])
            for n, hashes in wanted.items():
                places = np.searchsorted(hashes, there := grams(stream, n))
                places[places == len(hashes)] = 0
                out[n].append(hashes[np.unique(places[hashes[places] == there])])
            progress.advance(size)
    return {n: np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64) for n, parts in out.items()}


def _documents(store: TokenStore, split: str) -> Iterator[tuple[list[str], int]]:
    """Texts of some documents at a time, and how many tokens they have."""
    tokens, offsets = store.tokens(split), store.offsets(split)
    texts: list[str] = []
    size = 0
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        texts.append(store.tokenizer.decode(np.asarray(tokens[start:stop])))
        size += stop - start
        if size >= CHUNK_TOKENS:
            yield texts, size
            texts, size = [], 0
    if texts:
        yield texts, size


def report(found: list[Overlap], n: int = N) -> str:
    """In words, a line per task."""
    lines = [f"{'task':<16}{'items':>7}{'whole item':>12}{f'{n}-gram':>10}"]
    lines += [f"{o.task:<16}{o.items:>7,}{len(o.exact):>12,}{len(o.ngrams):>10,}" for o in found]
    return "\n".join(lines)
