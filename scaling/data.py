"""A token store as training batches and validation windows.  The order is a pure function of (seed, index).

The k-th window of the stream does not depend on the batch size, the number of hosts, restarts, the model or the budget: the
first D tokens of a long run are the D tokens of a short one.  The only state is how many windows have been seen.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from typing import Any

import grain
import numpy as np
from grain.experimental import index_shuffle, set_next_index

from scaling import mixture
from scaling.mixture import Dataset
from scaling.store import TokenStore

SHUFFLE_ROUNDS = 4
SOURCE_BITS = 32  # grain's permutation has as many; in the ids of a mixture the source stands above them
MAX_WINDOWS = 2**SOURCE_BITS - 1


class StreamError(ValueError):
    """A budget, batch or position that the stream cannot serve; the message names the remedy."""


def order_seed(seed: int) -> int:
    """The 32-bit seed of the data order of a run with ``seed``; other uses of the run's seed fold in other names."""
    return fold(seed, "data")


def fold(seed: int, name: str) -> int:
    """A 32-bit seed that depends on ``seed`` and ``name`` alone."""
    return int.from_bytes(hashlib.sha256(f"{name}|{seed}".encode()).digest()[:4], "big")


@dataclasses.dataclass(frozen=True)
class Stream:
    """The one global order of training windows; picklable, without open files.

    Window i holds tokens [i T, i T + T + 1) of the file, so neighbours share one token and no target is counted twice.  The
    first epoch is a permutation of all windows; each later epoch is another permutation of the same windows.

    Attributes:
      path: of a raw token file.
      dtype: of its tokens.
      context: T.
      seed: of the order, see ``order_seed``.
      epoch_windows: windows of one epoch.
      budget_windows: windows that may be asked for.
    """

    path: str
    dtype: str
    context: int
    seed: int
    epoch_windows: int
    budget_windows: int

    @classmethod
    def open(cls, store: TokenStore, context: int, seed: int, budget_tokens: int | None = None, epochs: float = 1.0) -> Stream:
        """The training stream of ``store``.

        Args:
          store: opened.
          context: T.
          seed: the run's; the order's is folded from it.
          budget_tokens: what will be trained on, a multiple of T; None allows everything.
          epochs: how often the stream may be seen.

        Raises:
          StreamError: when the budget is larger than ``epochs`` times the stream, or the store is shorter than one window.
        """
        windows = (store.splits["train"].tokens - 1) // context
        if windows < 1:
            raise StreamError(
                f"{store.path}: {store.splits['train'].tokens:,} training tokens are less than one window of {context} + 1; "
                f"use a smaller model.context or bring more text"
            )
        if windows > MAX_WINDOWS:
            raise StreamError(
                f"{store.path}: {windows:,} windows of {context}, at most {MAX_WINDOWS:,}; use a larger model.context"
            )
        allowed = math.floor(epochs * windows + 1e-9)
        budget = allowed if budget_tokens is None else -(-budget_tokens // context)
        if budget > allowed:
            raise StreamError(
                f"the budget of {budget_tokens:,} tokens is more than data.epochs={epochs:g} x {windows * context:,} tokens of "
                f"{store.path}; allow repeats with data.epochs={math.ceil(10 * budget / windows) / 10:g}, lower the budget, or "
                f"bring more text"
            )
        return cls(str(store.path / "train.bin"), store.dtype.str, context, order_seed(seed), windows, budget)

    def window_ids(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64: the windows at places ``start`` to ``stop`` of the order.

        Raises:
          StreamError: when the range leaves the budget.
        """
        if not 0 <= start <= stop <= self.budget_windows:
            raise StreamError(f"windows {start:,} to {stop:,} are outside the budget of {self.budget_windows:,} windows")
        ids: list[int] = []
        last = self.epoch_windows - 1
        while start < stop:
            epoch, place = divmod(start, self.epoch_windows)
            n = min(stop - start, self.epoch_windows - place)
            seed = fold(self.seed, f"epoch {epoch}") if epoch else self.seed
            # 4 microseconds each: 8 windows per step on a laptop's rung, 250 Mtokens/s at a context of 1,024
            ids += [index_shuffle(k, last, seed, SHUFFLE_ROUNDS) for k in range(place, place + n)]
            start += n
        return np.array(ids, np.int64)

    def epoch(self, windows_seen: int) -> float:
        """How often the stream has been seen after ``windows_seen`` windows."""
        return windows_seen / self.epoch_windows

    @functools.cached_property
    def _windows(self) -> np.ndarray:
        return window_view(np.memmap(self.path, np.dtype(self.dtype), "r"), self.context)

    def windows(self, ids: np.ndarray) -> np.ndarray:
        """(B, T + 1) int32 tokens of the windows ``ids`` (B,)."""
        return self._windows[ids].astype(np.int32)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_windows"}  # an open file does not travel

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Streams of several stores as one order of windows (see ``scaling.mixture``); what a ``Stream`` has, this has too.

    Each source keeps its own order, which depends on the seed and its tokens alone, whatever it is mixed with.

    Attributes:
      streams: one per source.
      weights: whole numbers, one per source.
      epoch_windows: until the first source has been seen once.
      budget_windows: windows that may be asked for.
    """

    streams: tuple[Stream, ...]
    weights: tuple[int, ...]
    epoch_windows: int
    budget_windows: int

    def window_ids(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64: of each window in the places ``start`` to ``stop``, its source times 2^32 plus its number.

        Raises:
          StreamError: when the range leaves the budget.
        """
        if not 0 <= start <= stop <= self.budget_windows:
            raise StreamError(f"windows {start:,} to {stop:,} are outside the budget of {self.budget_windows:,} windows")
        before = mixture.counts(np.arange(start, stop + 1), self.weights)  # (sources, windows + 1)
        ids = np.empty(stop - start, np.int64)
        for i, (stream, seen) in enumerate(zip(self.streams, before, strict=True)):
            ids[np.diff(seen) == 1] = (i << SOURCE_BITS) + stream.window_ids(int(seen[0]), int(seen[-1]))
        return ids

    def of_source(self, ids: np.ndarray, source: int) -> np.ndarray:
        """Which of the windows ``ids`` (B,) are of ``source``: (B,) bool."""
        return ids >> SOURCE_BITS == source

    def epoch(self, windows_seen: int) -> float:
        """How often the source that runs out first has been seen after ``windows_seen`` windows."""
        return windows_seen / self.epoch_windows

    def windows(self, ids: np.ndarray) -> np.ndarray:
        """(B, T + 1) int32 tokens of the windows ``ids`` (B,)."""
        out = np.empty((len(ids), self.streams[0].context + 1), np.int32)
        for i, stream in enumerate(self.streams):
            mine = self.of_source(ids, i)
            out[mine] = stream.windows(ids[mine] & MAX_WINDOWS)
        return out


def open_stream(
    dataset: Dataset, context: int, seed: int, budget_tokens: int | None = None, epochs: float = 1.0
) -> Stream | Mixture:
    """The training stream of ``dataset``; arguments and errors as of ``Stream.open``, where no source may be seen more often
    than ``epochs`` times (to within as many windows per epoch as there are sources).
    """
    if not dataset.mixed:
        return Stream.open(dataset.stores[0], context, seed, budget_tokens, epochs)
    streams = [Stream.open(store, context, fold(seed, store.fingerprint)) for store in dataset.stores]
    one_epoch = mixture.epoch_windows([stream.epoch_windows for stream in streams], dataset.weights)
    allowed = math.floor(epochs * one_epoch + 1e-9)
    budget = allowed if budget_tokens is None else -(-budget_tokens // context)
    shares = mixture.counts(budget, dataset.weights).tolist()
    if budget > allowed:
        need, name = max((n / s.epoch_windows, name) for n, s, name in zip(shares, streams, dataset.names, strict=True))
        raise StreamError(
            f"data.mixture: {budget_tokens:,} tokens see {name!r} {need:.3g} times, data.epochs={epochs:g}; allow repeats with "
            f"data.epochs={math.ceil(10 * budget / one_epoch) / 10:g}, lower the budget or its weight, or bring more of it"
        )
    streams = [dataclasses.replace(s, budget_windows=n) for s, n in zip(streams, shares, strict=True)]
    return Mixture(tuple(streams), dataset.weights, one_epoch, budget)


def window_view(tokens: np.ndarray, context: int) -> np.ndarray:
    """All windows of ``tokens`` (N,) as a view, ((N - 1) // T, T + 1): copying rows of it is cheaper than indices."""
    return np.lib.stride_tricks.sliding_window_view(tokens.view(np.ndarray), context + 1)[::context]


class Rows:
    """Random access to whole batches: record b is the p-th of P equal blocks of rows of global batch b, which is how JAX lays
    processes out along the batch axis.  A whole batch per record is about four times cheaper than windows batched by grain.
    """

    def __init__(self, stream: Stream | Mixture, batch_windows: int, process_index: int = 0, process_count: int = 1):
        if batch_windows % process_count:
            raise StreamError(
                f"a batch of {batch_windows} windows does not split over {process_count} processes; choose a multiple"
            )
        self.stream, self.batch_windows = stream, batch_windows
        self.process_index, self.process_count = process_index, process_count

    def __len__(self) -> int:
        return self.stream.budget_windows // self.batch_windows

    def __getitem__(self, step: int) -> np.ndarray:
        rows = self.batch_windows // self.process_count
        start = int(step) * self.batch_windows + self.process_index * rows
        return self.stream.windows(self.stream.window_ids(start, start + rows))

    def __repr__(self) -> str:
        return f"Rows({self.stream!r}, {self.batch_windows}, {self.process_index}/{self.process_count})"


def loader(
    stream: Stream | Mixture, batch_windows: int, start_step: int = 0, process_index: int = 0, process_count: int = 1
) -> grain.DatasetIterator[np.ndarray]:
    """Batches of this process from ``start_step`` on, (B / P, T + 1) int32 each, until the budget ends.

    One thread reads two batches ahead.  Starting anywhere costs the same; ``get_state()`` is ``{'next_index': step}``.

    Raises:
      StreamError: when the batch does not split over the processes, or the budget is less than one batch.
    """
    rows = Rows(stream, batch_windows, process_index, process_count)
    if len(rows) < 1:
        raise StreamError(
            f"the budget of {stream.budget_windows} windows is less than one batch of {batch_windows}; lower the batch"
        )
    if not 0 <= start_step <= len(rows):
        raise StreamError(f"step {start_step} is outside the budget of {len(rows)} steps")
    iterator = iter(grain.MapDataset.source(rows).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))
    set_next_index(iterator, start_step)
    return iterator


def validation(store: TokenStore, context: int, max_windows: int) -> np.ndarray:
    """(n, T + 1) int32: at most ``max_windows`` whole windows, spread evenly over the validation split.

    They depend on the store and T alone, so every rung and seed is measured on the same text and shares its sampling error.

    Raises:
      StreamError: when the validation split is shorter than one window.
    """
    tokens = store.splits["valid"].tokens
    available = (tokens - 1) // context
    if available < 1:
        raise StreamError(
            f"{store.path}: {tokens:,} validation tokens are less than one window of {context} + 1; use a smaller "
            f"model.context, or build the store with a smaller --holdout or more text"
        )
    n = min(max_windows, available)
    return window_view(store.tokens("valid"), context)[np.arange(n) * available // n].astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Validation:
    """The fixed validation windows of a run, and what their losses amount to.

    Attributes:
      names: of the sources.
      shares: of the sources in training, summing to one.
      sizes: how many of the windows each source has, in their order.
      n_bytes: that the targets of each source's windows stand for.
      windows: (n, T + 1) int32, one source after another.
      loss_of: the source whose loss is the run's; None: all, weighted.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    n_bytes: tuple[int, ...]
    windows: np.ndarray
    loss_of: int | None = None

    @classmethod
    def open(cls, dataset: Dataset, context: int, max_windows: int) -> Validation:
        """At most ``max_windows`` of each source, as ``validation`` picks them; raises what it raises."""
        each = [validation(store, context, max_windows) for store in dataset.stores]
        n_bytes = [target_bytes(store, windows) for store, windows in zip(dataset.stores, each, strict=True)]
        return cls(dataset.names, dataset.shares, tuple(map(len, each)), tuple(n_bytes), np.concatenate(each), dataset.loss_of)

    def losses(self, nats: np.ndarray) -> dict[str, Any]:
        """What a metrics row tells of ``nats`` (n,), summed over each window's targets: the loss in nats per token, its
        standard error and bits per byte; of a mixture also of each source, and then the loss is that of ``loss_of`` or, without
        it, of the mixture, the sources' losses weighted as in training."""
        context = self.windows.shape[1] - 1
        parts = np.split(nats, np.cumsum(self.sizes)[:-1])
        each = [_loss(part, context, n_bytes) for part, n_bytes in zip(parts, self.n_bytes, strict=True)]
        if len(each) == 1:
            return each[0]
        sources = dict(zip(self.names, each, strict=True))
        if self.loss_of is not None:
            return each[self.loss_of] | {"sources": sources}
        errors = [row["loss_stderr"] for row in each]
        mean_nats = sum(share * part.mean() for share, part in zip(self.shares, parts, strict=True))
        mean_bytes = sum(share * n / size for share, n, size in zip(self.shares, self.n_bytes, self.sizes, strict=True))
        return {
            "loss": sum(share * row["loss"] for share, row in zip(self.shares, each, strict=True)),
            "loss_stderr": None if None in errors else math.hypot(*(s * e for s, e in zip(self.shares, errors, strict=True))),
            "bpb": bits_per_byte(float(mean_nats), float(mean_bytes)),
            "sources": sources,
        }


def _loss(nats: np.ndarray, context: int, n_bytes: int) -> dict[str, Any]:
    return {
        "loss": float(nats.mean() / context),
        "loss_stderr": float(nats.std(ddof=1) / context / np.sqrt(len(nats))) if len(nats) > 1 else None,
        "bpb": bits_per_byte(float(nats.sum()), n_bytes),
    }


def target_bytes(store: TokenStore, windows: np.ndarray) -> int:
    """UTF-8 bytes that the targets of ``windows`` (n, T + 1), all but each first token, stand for; document ends count none."""
    return int(store.token_bytes[windows[:, 1:]].sum())


def bits_per_byte(nats: float, n_bytes: float) -> float:
    """``nats``, summed over all targets, per byte of their text: the loss that does not depend on the vocabulary."""
    return nats / math.log(2) / n_bytes


_HASH_BITS = 48  # a whole number that JSON, float64 and twelve hex digits hold exactly
_HASH_MASK = np.uint64(2**_HASH_BITS - 1)
_HASH_FACTOR = 0x9E3779B97F4A7C15


def ids_hash(previous: int, window_ids: np.ndarray) -> int:
    """The running hash of the window order after ``window_ids`` (n,) int64, from that before them (0 at the start).

    It is folded window by window, hash = hash x factor + mix(id) modulo 2^48, so that it does not depend on how windows are
    cut into batches: equal tokens mean equal hashes on every rung.
    """
    mixed = window_ids.astype(np.uint64) + np.uint64(_HASH_FACTOR)  # splitmix64
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = (mixed ^ (mixed >> np.uint64(31))) & _HASH_MASK
    for value in mixed.tolist():
        previous = previous * _HASH_FACTOR + value & 2**_HASH_BITS - 1
    return previous
