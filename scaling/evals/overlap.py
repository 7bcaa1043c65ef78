"""Whether a suite's items are in a training text: by exact hash, and by n-grams of words.  Imports no jax.

GPT-3's rule (Brown et al. 2020, appendix C): an item is dirty where one of its 13-grams of words is in the training text, and
an item of fewer words where all of it is.  A word here is what stands between white space, with its punctuation, in lower case.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from scaling.building import Progress
from scaling.evals.items import DEV, Item, Suite, Task
from scaling.store import TokenStore

N = 13
CHUNK_TOKENS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What of one task is in a training text.

    Attributes:
      task: its name.
      items: looked at, of all splits but dev.
      exact: ids of items whose question with its right answer is in the text, word for word.
      ngrams: ids of items that share an n-gram with it.
      questions: ids of items whose question alone is there, word for word, whatever follows.
    """

    task: str
    items: int
    exact: tuple[str, ...]
    ngrams: tuple[str, ...]
    questions: tuple[str, ...]


def words(text: str) -> list[str]:
    """Of ``text``, in lower case."""
    return text.lower().split()


def grams(text: list[str], n: int) -> Iterator[int]:
    """Hashes of all runs of ``n`` words."""
    for i in range(len(text) - n + 1):
        yield _hash(text[i : i + n])


def _hash(run: list[str]) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(run).encode(), digest_size=8).digest(), "big")


def texts(task: Task, item: Item) -> tuple[str, str]:
    """The question of ``item`` as its task puts it, and the same with the right answer."""
    question = item.contexts[item.answer] if item.contexts else item.question
    asked = task.template.question.format(q=question)
    return asked, asked + task.template.delimiter + item.gold


def overlap(suite: Suite, store: TokenStore, n: int = N, split: str = "train") -> list[Overlap]:
    """What of ``suite`` is in ``store``, task by task: one pass over its text, some 3 MB a second.

    Args:
      suite: whose test and validation items to look for.
      store: of any vocabulary.
      n: words of a gram.
      split: of the store.
    """
    wanted: dict[int, set[int]] = {}  # words of a run -> hashes to look for
    runs: dict[tuple[str, str], tuple[set[int], set[int], set[int]]] = {}
    for task in suite.tasks:
        for item in _items(task):
            question, whole = (words(t) for t in texts(task, item))
            each = (_runs(whole, len(whole)), _runs(whole, min(n, len(whole))), _runs(question, len(question)))
            runs[task.name, item.id] = each[0][1], each[1][1], each[2][1]
            for length, hashes in each:
                wanted.setdefault(length, set()).update(hashes)
    found = _found(wanted, store, split)
    out = []
    for task in suite.tasks:
        ids = [i.id for i in _items(task)]
        hits = [tuple(i for i in ids if runs[task.name, i][kind] & found) for kind in range(3)]
        out.append(Overlap(task.name, len(ids), *hits))
    return out


def _items(task: Task) -> list[Item]:
    return [item for split, items in task.splits.items() if split != DEV for item in items]


def _runs(text: list[str], n: int) -> tuple[int, set[int]]:
    return n, set(grams(text, n)) if n else set()


def _found(wanted: dict[int, set[int]], store: TokenStore, split: str) -> set[int]:
    """Which of the hashes, by length of run, are of text in ``store``."""
    out: set[int] = set()
    total = store.splits[split].tokens
    with Progress("looking for items in the training text", total, unit="million tokens") as progress:
        for document, size in _documents(store, split):
            run = words(document)
            for n, hashes in wanted.items():
                out.update(h for h in grams(run, n) if h in hashes)
            progress.advance(size)
    return out


def _documents(store: TokenStore, split: str) -> Iterable[tuple[str, int]]:
    tokens, offsets = store.tokens(split), store.offsets(split)
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield store.tokenizer.decode(np.asarray(tokens[start:stop])), stop - start


def report(found: list[Overlap], n: int = N) -> str:
    """In words, a line per task."""
    lines = [f"{'task':<16}{'items':>7}{'whole item':>12}{f'{n}-gram':>10}{'question':>10}"]
    lines += [
        f"{o.task:<16}{o.items:>7,}{len(o.exact):>12,}{len(o.ngrams):>10,}{len(o.questions):>10,}" for o in found
    ]
    return "\n".join(lines)
