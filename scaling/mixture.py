"""What a run trains on: one token store, or several with weights.  Imports no jax, so that planning is instant.

Sources alternate window by window in fixed proportions: of the first n windows source i has n w_i / W, to within as many
windows as there are sources.  Which source the k-th window comes from, and which of its windows that is, depends on k and the
weights alone, so it is the same for every batch size, host, budget and restart.  It is the rule of ``grain.MapDataset.mix``.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from scaling.store import StoreError, TokenStore

MAX_TOTAL_WEIGHT = 10**7  # in whole numbers; counts of 2^33 windows times this stay within 64 bits


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """The smallest whole numbers in the same proportions: (0.75, 0.25) and (3, 1) are both (3, 1).

    Raises:
      ValueError: for a weight that is not positive, or proportions that need larger numbers than ``MAX_TOTAL_WEIGHT``.
    """
    if not all(w > 0 and math.isfinite(w) for w in weights):
        raise ValueError("weights must be positive numbers")
    parts = [Fraction(repr(float(w))) for w in weights]  # 0.1 means a tenth, not the binary fraction nearest to it
    scale = math.lcm(*(p.denominator for p in parts))
    whole = [int(p * scale) for p in parts]
    shared = math.gcd(*whole)
    if sum(whole) // shared > MAX_TOTAL_WEIGHT:
        raise ValueError(f"proportions finer than one in {MAX_TOTAL_WEIGHT:,}; round them, to 0.333 for example")
    return tuple(w // shared for w in whole)


def counts(windows: int | np.ndarray, weights: Sequence[int]) -> np.ndarray:
    """(sources, ...) int64: how many of the first ``windows`` windows, a number or an array, come from each source."""
    left = np.asarray(windows, np.int64)
    total = sum(weights)
    out = []
    for weight in weights:
        others = left * (total - weight) // total
        out.append(left - others)
        left, total = others, total - weight
    return np.stack(out)


def epoch_windows(available: Sequence[int], weights: Sequence[int]) -> int:
    """The longest start of the mixture in which no source, of ``available`` windows each, is seen more than once."""
    have = np.asarray(available, np.int64)
    return bisect.bisect_right(range(int(have.sum()) + 1), 0, key=lambda n: int((counts(n, weights) > have).any())) - 1


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Opened stores and their weights in whole numbers; a single store is a mixture of one.

    Attributes:
      names: of the sources in metrics: their folders' names, or whole paths where those are not distinct.
      stores: with one vocabulary.
      weights: one per store.
      loss_of: the store whose own loss is a run's (``data.loss_of``); None: the mixture's.
    """

    names: tuple[str, ...]
    stores: tuple[TokenStore, ...]
    weights: tuple[int, ...]
    loss_of: int | None = None

    @classmethod
    def of(cls, stores: Sequence[TokenStore], weights: Sequence[float] = (1.0,), loss_of: int | None = None) -> Dataset:
        """Stores with weights, and which of them a run's loss is of.

        Raises:
          StoreError: when their vocabularies differ, or two hold the same tokens.
          ValueError: when there is not one weight for each.
        """
        if len(weights) != len(stores):
            raise ValueError(f"{len(stores)} stores and {len(weights)} weights; give one for each")
        first = stores[0]
        for store in stores[1:]:
            if store.tokenizer_fingerprint != first.tokenizer_fingerprint:
                raise StoreError(
                    f"data.mixture: {first.path} (vocabulary {first.vocab!r}, {first.tokenizer_fingerprint}) and {store.path} "
                    f"({store.vocab!r}, {store.tokenizer_fingerprint}) have different tokens; build one with the vocabulary of "
                    f"the other: python -m scaling.corpus ... --vocab {first.path}"
                )
        for one, other in itertools.combinations(stores, 2):
            if one.fingerprint == other.fingerprint:
                raise StoreError(
                    f"data.mixture: {one.path} and {other.path} hold the same tokens ({one.fingerprint}); name one and add the "
                    f"weights"
                )
        names = tuple(store.path.name for store in stores)
        if len(set(names)) < len(names):
            names = tuple(str(store.path) for store in stores)
        return cls(names, tuple(stores), whole_weights(weights), loss_of)

    @property
    def mixed(self) -> bool:
        """Whether there is more than one source."""
        return len(self.stores) > 1

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of all tokens; the weights are part of the config."""
        prints = [store.fingerprint for store in self.stores]
        return hashlib.sha256("|".join(prints).encode()).hexdigest()[:16] if self.mixed else prints[0]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each source, summing to one."""
        return tuple(w / sum(self.weights) for w in self.weights)

    def available(self, context: int) -> list[int]:
        """Windows of ``context`` targets that each source has."""
        return [(store.splits["train"].tokens - 1) // context for store in self.stores]

    def stream_tokens(self, context: int) -> int:
        """Tokens of one epoch, in whole windows: until the first source has been seen once."""
        return epoch_windows(self.available(context), self.weights) * context

    def ideal_loss(self, context: int) -> float | None:
        """The expected loss of the best possible model, for one generated language; which of several a window is from would
        have to be found out, at a cost that nobody has computed."""
        return None if self.mixed else self.stores[0].ideal_loss(context)

    def seen(self, windows: int, context: int) -> dict[str, dict[str, Any]]:
        """Tokens and epochs of each source after ``windows`` windows."""
        each = zip(self.names, counts(windows, self.weights).tolist(), self.available(context), strict=True)
        return {name: {"tokens": n * context, "epochs": round(n / have, 4)} for name, n, have in each}

    def words(self) -> str:
        """``tokens/books 75 % + tokens/code 25 %``."""
        if not self.mixed:
            return str(self.stores[0].path)
        return " + ".join(f"{store.path} {100 * share:.3g} %" for store, share in zip(self.stores, self.shares, strict=True))
