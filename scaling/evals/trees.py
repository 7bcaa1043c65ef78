"""What sequences share, so that it is computed once: options of a question as branches of one row, a common beginning of many
rows as a prefix, rows of like length as batches of few shapes.  Pure NumPy.

A row feeds a trunk and then its branches side by side.  A branch sees the trunk and itself, and its positions go on from the
trunk's end, so each branch is what it would be alone.  The last token of a sequence is predicted and never fed: options that
differ in their last token alone (the letters of a multiple-choice question, also where a byte vocabulary writes " A" as two
tokens) are no branches at all, and one forward of the trunk has all their logits.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

Ids = np.ndarray  # (n,) int32


@dataclasses.dataclass(frozen=True)
class Asked:
    """Tokens of which those from ``start`` on are to be scored (``start`` is at least 1)."""

    ids: Ids
    start: int
    owner: int  # the caller's number for it


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a batch, with its queries.

    Attributes:
      tokens, positions, branch: (n,) what is fed; the trunk is branch 0.
      at, target, owner: (q,) the token that each index of the row is asked for, and whose score it belongs to.
    """

    tokens: Ids
    positions: np.ndarray
    branch: np.ndarray
    at: np.ndarray
    target: Ids
    owner: np.ndarray

    @property
    def forks(self) -> bool:
        """Whether it needs a mask beyond the causal one."""
        return int(self.branch[-1]) > 1

    @property
    def one_place(self) -> bool:
        """Whether all queries are to the same token's logits, as of the letters of a multiple-choice question."""
        return bool((self.at == self.at[0]).all())

    @property
    def length(self) -> int:
        """Of what is fed or asked, whichever is more: queries are laid out in an array of the same shape as the tokens."""
        return max(len(self.tokens), len(self.at))


def common(a: Ids, b: Ids) -> int:
    """The number of tokens that two sequences begin with together."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def make_row(sequences: Sequence[Asked], cut: int = 0) -> Row:
    """A row of sequences that share their context; the first ``cut`` tokens, a prefix encoded elsewhere, are left out."""
    first = sequences[0].ids
    trunk = min(min(common(first, s.ids), len(s.ids) - 1) for s in sequences)
    tokens, positions, branch = [first[cut:trunk]], [np.arange(cut, trunk)], [np.zeros(trunk - cut, np.int32)]
    at, target, owner = [], [], []
    fed, forks = trunk - cut, 0
    for s in sequences:
        rest = s.ids[trunk:-1]
        forks += len(rest) > 0
        tokens.append(rest)
        positions.append(np.arange(trunk, trunk + len(rest)))
        branch.append(np.full(len(rest), forks, np.int32))
        before = np.arange(s.start - 1, len(s.ids) - 1)  # the token before each scored one predicts it
        at.append(np.where(before < trunk, before - cut, before - trunk + fed))
        target.append(s.ids[s.start :])
        owner.append(np.full(len(before), s.owner))
        fed += len(rest)
    parts = (tokens, positions, branch, at, target, owner)
    return Row(*(np.concatenate(p).astype(np.int32) for p in parts))


def group(sequences: Sequence[Asked], limit: int) -> list[list[Asked]]:
    """Neighbours that have the same context, as long as a row of them feeds at most ``limit`` tokens."""
    out: list[list[Asked]] = []
    fed = 0
    for s in sequences:
        last = out[-1][0] if out else None
        rest = len(s.ids) - s.start
        if last is not None and s.start == last.start and fed + rest <= limit:
            same = np.array_equal(s.ids[: s.start], last.ids[: s.start])
        else:
            same = False
        if same:
            out[-1].append(s)
            fed += rest
        else:
            out.append([s])
            fed = len(s.ids)
    return out


def prefixes(keys: Sequence[Ids], least: int) -> list[tuple[int, list[int]]]:
    """Which of ``keys`` should share how many first tokens, so that the fewest are computed; a prefix saves at least ``least``.

    Returns:
      (length of the prefix, indices of its keys); those of length 0 share nothing, and come first.
    """
    order = sorted(range(len(keys)), key=lambda i: keys[i].astype(">u4").tobytes())
    shared = np.array([common(keys[a], keys[b]) for a, b in itertools.pairwise(order)], np.int64)

    def best(low: int, high: int) -> tuple[int, list[tuple[int, int, int]]]:
        """Tokens saved among order[low : high], and the segments (length, low, high) that save them."""
        between = shared[low : high - 1]
        if len(between) == 0 or len(between) * int(between.max()) < least:
            return 0, []
        length = int(between.min())
        whole = length * (high - low - 1)
        if (between == length).all():
            return (whole, [(length, low, high)]) if whole >= least else (0, [])
        ends = [low, *(low + 1 + np.flatnonzero(between == length)).tolist(), high]
        parts = [best(a, b) for a, b in itertools.pairwise(ends)]
        apart = sum(saved for saved, _ in parts)
        if whole >= max(apart, least):
            return whole, [(length, low, high)]
        return apart, [segment for _, segments in parts for segment in segments]

    _, segments = best(0, len(order))
    inside = {i for _, low, high in segments for i in order[low:high]}
    alone = [i for i in range(len(keys)) if i not in inside]
    return ([(0, alone)] if alone else []) + [(length, sorted(order[low:high])) for length, low, high in segments]


def bucket(n: int, least: int = 16) -> int:
    """The next of 16, 24, 32, 48, 64, 96, ...: at most half more than ``n``, on average 17 %."""
    size = least
    while size < n:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def batches(rows: Sequence[Row], budget: int, shape_worth: int) -> Iterator[tuple[int, int, list[Row]]]:
    """Rows in batches of about ``budget`` tokens: (rows of its shape, length of its shape, at most so many rows).

    Each shape costs a compilation: one that saves less than ``shape_worth`` tokens of padding is left to the next longer one,
    and so is what does not fill a batch, so that one batch alone is not full.
    """
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(bucket(row.length), []).append(row)
    lengths = sorted(by_length)
    rest: list[Row] = []
    for length, longer in zip(lengths, [*lengths[1:], None], strict=True):
        size = max(1, budget // length)
        waiting = rest + by_length[length]
        full = len(waiting)
        if longer is not None:
            full = full // size * size if full * (longer - length) >= shape_worth else 0
        for start in range(0, full, size):
            yield size, length, waiting[start : min(start + size, full)]
        rest = waiting[full:]
