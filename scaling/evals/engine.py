"""Log-likelihoods of continuations after contexts, of one model, with nothing computed twice.

    engine = Engine(config, params, tokenizer)
    [(nats, greedy), ...] = engine.loglikelihoods([(context_ids, continuation_ids), ...])

A document begins after an end-of-document token in the trainer's stream, so that token stands before every context that does
not begin with it; an empty context is that token alone, as lm-evaluation-harness has it.  A sequence longer than the model's
context loses its left part: as there, (context + continuation)[-(T + 1):].

Sequences with the same context are branches of one row, a beginning that many rows share is encoded once into a key/value
cache, and rows of like length are batched into few shapes (``trees``).  Programs are compiled once for a model's shape:
parameters are an argument, so another checkpoint compiles nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from scaling import decode, fast, model
from scaling.config import ModelConfig
from scaling.evals import trees
from scaling.evals.trees import Asked, Row
from scaling.tokenizer import EOS, Tokenizer

CPU_TOKENS = 1024  # of a batch: activations stay in cache, as in the trainer's micro-batches (step.CACHED_TOKENS)
COMPILE_FLOPS = 1e11  # that a core does while one more shape is compiled (3 s): a small model should meet few shapes
TOKENS = 1 << 16  # of a batch on an accelerator
GENERATED_ROWS = 16  # at a time


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a continuation after a context, as lm-evaluation-harness cuts them (``TemplateLM._encode_pair``).

    Blanks at the end of the context are moved into the continuation, both are encoded together, and the continuation is what
    follows as many tokens as the context has alone.
    """
    stripped = context.rstrip()
    continuation, context = context[len(stripped) :] + continuation, stripped
    alone = tokenizer.encode(context)
    return alone, tokenizer.encode(context + continuation)[len(alone) :]


def asked(context: np.ndarray, continuation: np.ndarray, length: int, owner: int = 0) -> Asked:
    """The sequence that is scored: an end-of-document token, context, continuation, of it the last ``length`` + 1 tokens.

    Raises:
      ValueError: for a continuation that is empty, or longer than ``length``.
    """
    if not 0 < len(continuation) <= length:
        raise ValueError(f"a continuation of {len(continuation)} tokens; the model's context of {length} allows 1 to {length}")
    ids = np.concatenate([_begun(context), continuation]).astype(np.int32)[-(length + 1) :]
    return Asked(ids, len(ids) - len(continuation), owner)


def _begun(context: np.ndarray) -> np.ndarray:
    """``context`` behind an end-of-document token."""
    return context if len(context) and context[0] == EOS else np.concatenate([[EOS], context]).astype(np.int32)


@functools.lru_cache(maxsize=8)
def _programs(config: ModelConfig, forms: model.Forms) -> tuple[Any, Any]:
    """Jitted (score a batch of rows, encode a prefix), for every checkpoint of this shape."""
    return (
        jax.jit(functools.partial(_score, config, forms), static_argnames=("forks", "one_place")),
        jax.jit(functools.partial(_encode_prefix, config, forms)),
    )


def _encode_prefix(config: ModelConfig, forms: model.Forms, params: Any, tokens_1S: Array, real_1S: Array) -> model.Cache:
    _, cache = model.prefill(config, params, tokens_1S, tokens_1S.shape[1], real_BT=real_1S, forms=forms)
    return cache


def _score(
    config: ModelConfig,
    forms: model.Forms,
    params: Any,
    prefix: model.Cache | None,
    rows_5BT: Array,
    *,
    forks: bool,
    one_place: bool,
) -> tuple[Array, Array]:
    """Log-probabilities of targets and whether each is the likeliest token, both (B, T).

    Args:
      prefix: of one row, which all rows go on from.
      rows_5BT: tokens, positions, branch, at and target of ``trees.Row``, filled up at the right.
      forks: whether any row has branches; else positions and mask are the plain ones, which is faster.
      one_place: whether each row has a single ``at``; logits are then computed there alone.
    """
    tokens_BT, positions_BT, branch_BT, at_BT, target_BT = rows_5BT
    B, T = tokens_BT.shape
    if prefix is None:
        cache = model.empty_cache(config, B, 0)
    else:  # the cache after these tokens is not used, so they need no slots of their own, but ``extend`` wants T of them
        cache = model.resized(model.rows_of(prefix, np.zeros(B, np.int32)), max(prefix.slots, T))
    tree = {}
    if forks:
        visible_BTS = (branch_BT[:, None, :] == 0) | (branch_BT[:, None, :] == branch_BT[:, :, None])
        tree = {"positions_BT": positions_BT, "allowed_BTS": visible_BTS & np.tri(T, dtype=bool)}
    wanted_BN = at_BT[:, :1] if one_place else None
    logits_BNV, _ = model.extend(config, params, tokens_BT, cache, wanted_BN=wanted_BN, forms=forms, **tree)
    at_BT = jnp.zeros_like(at_BT) if one_place else at_BT
    log_z_BN = jax.nn.logsumexp(logits_BNV, axis=-1)
    row_B1 = jnp.arange(B)[:, None]
    nats_BT = logits_BNV[row_B1, at_BT, target_BT] - log_z_BN[row_B1, at_BT]
    return nats_BT, logits_BNV.argmax(axis=-1)[row_B1, at_BT] == target_BT


@dataclasses.dataclass
class Engine:
    """A model as a scorer.

    Attributes:
      config, params: of the model; ``dtype`` of the config is what is computed in.
      tokenizer: of its vocabulary.
      batch_tokens: of a batch, padding included.
      shape_worth: tokens of padding that a further shape must save; compiling one takes 1 to 2 s on a CPU.
      least_saved: tokens that encoding a prefix apart must save.
      fed: tokens that the model has read, without padding.
    """

    config: ModelConfig
    params: Any
    tokenizer: Tokenizer
    batch_tokens: int = 0
    shape_worth: int = 0
    least_saved: int = 0
    fed: int = 0

    def __post_init__(self) -> None:
        self.params = jax.device_put(self.params)
        device = min(jax.tree.leaves(self.params)[0].devices(), key=lambda d: d.id)
        on_cpu = device.platform == "cpu"
        self.batch_tokens = self.batch_tokens or (CPU_TOKENS if on_cpu else TOKENS)
        worth = int(COMPILE_FLOPS / (2 * sum(leaf.size for leaf in jax.tree.leaves(self.params)))) if on_cpu else 0
        self.shape_worth = self.shape_worth or max(worth, 32 * self.batch_tokens)
        self.least_saved = self.least_saved or max(worth // 2, 16 * self.batch_tokens)
        self._score, self._encode_prefix = _programs(self.config, fast.forms(device))

    def loglikelihoods(
        self, pairs: Sequence[tuple[np.ndarray, np.ndarray]], advance: Callable[[int], None] = lambda n: None
    ) -> list[tuple[float, bool]]:
        """(nats of the continuation, summed over its tokens; whether greedy decoding gives it) for (context, continuation) ids.

        Pairs that stand next to each other and have the same context are computed together; equal pairs once.

        Args:
          advance: told how many pairs have been done since it was called last.

        Raises:
          ValueError: for a continuation that is empty or longer than the model's context.
        """
        numbers: dict[tuple[bytes, bytes], int] = {}
        sequences: list[Asked] = []
        which = []
        for context, continuation in pairs:
            key = context.tobytes(), continuation.tobytes()
            if key not in numbers:
                numbers[key] = len(sequences)
                sequences.append(asked(context, continuation, self.config.context, len(sequences)))
            which.append(numbers[key])
        advance(len(pairs) - len(sequences))
        nats, greedy = np.zeros(len(sequences)), np.ones(len(sequences), bool)
        for rows, values, hits in self._results(sequences):
            for row, row_values, row_hits in zip(rows, values, hits, strict=False):
                np.add.at(nats, row.owner, row_values[: len(row.owner)].astype(np.float64))
                np.logical_and.at(greedy, row.owner, row_hits[: len(row.owner)])
            advance(sum(len(np.unique(row.owner)) for row in rows))
        return [(float(nats[i]), bool(greedy[i])) for i in which]

    def generate(
        self,
        contexts: Sequence[np.ndarray],
        stops: Sequence[tuple[str, ...]],
        room: int,
        advance: Callable[[int], None] = lambda n: None,
    ) -> list[str]:
        """Text that greedy decoding puts after each context, up to a stop string, the end of a document or ``room`` tokens.

        Contexts of like length go together, as in ``loglikelihoods`` behind an end-of-document token; one that leaves no room
        loses its left part.
        """
        prompts = [_begun(context)[-(self.config.context - room) :] for context in contexts]
        order = sorted(range(len(prompts)), key=lambda i: (stops[i], len(prompts[i])))
        texts = [""] * len(prompts)
        for _, same in itertools.groupby(order, key=lambda i: stops[i]):
            indices = list(same)
            for chunk in (indices[i : i + GENERATED_ROWS] for i in range(0, len(indices), GENERATED_ROWS)):
                full = chunk + chunk[-1:] * (GENERATED_ROWS - len(chunk))  # one shape for all
                rule = decode.Rule(max_tokens=room, stop=stops[chunk[0]])
                found = decode.generate(self.config, self.params, self.tokenizer, [prompts[i] for i in full], rule)
                for i, completion in zip(chunk, found, strict=False):
                    texts[i] = completion.text
                advance(len(chunk))
        return texts

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``."""
        return [int(i) for i in self.tokenizer.encode(text)]

    def _results(self, sequences: Sequence[Asked]) -> Iterator[tuple[list[Row], np.ndarray, np.ndarray]]:
        """Rows with their queries' answers, a batch at a time; the host reads one batch behind what is computed."""
        pending: Any = None
        for rows, answers in self._dispatched(sequences):
            if pending is not None:
                yield pending[0], *map(np.asarray, pending[1])
            pending = rows, answers
        if pending is not None:
            yield pending[0], *map(np.asarray, pending[1])

    def _dispatched(self, sequences: Sequence[Asked]) -> Iterator[tuple[list[Row], tuple[Array, Array]]]:
        groups = trees.group(sequences, 2 * self.config.context)
        keys = [g[0].ids[: g[0].start - 1] for g in groups]  # the last token of the context is fed with each row
        for length, members in trees.prefixes(keys, self.least_saved):
            prefix = self._prefix(keys[members[0]][:length]) if length else None
            kinds: dict[tuple[bool, bool], list[Row]] = {}
            for i in members:
                row = trees.make_row(groups[i], length)
                kinds.setdefault((row.forks, row.one_place), []).append(row)
            for (forks, one_place), rows in kinds.items():
                for size, T, part in trees.batches(rows, self.batch_tokens, self.shape_worth):
                    self.fed += sum(len(row.tokens) for row in part)
                    yield part, self._score(self.params, prefix, _filled(part, size, T), forks=forks, one_place=one_place)

    def _prefix(self, ids: np.ndarray) -> model.Cache:
        """Keys and values of ``ids``; the number of slots is a power of two, so that there are few programs."""
        self.fed += len(ids)
        tokens_1S = np.zeros((1, 1 << (len(ids) - 1).bit_length()), np.int32)
        tokens_1S[0, : len(ids)] = ids
        cache: model.Cache = self._encode_prefix(self.params, tokens_1S, np.arange(tokens_1S.shape[1])[None] < len(ids))
        return cache


def _filled(rows: Sequence[Row], size: int, length: int) -> np.ndarray:
    """rows_5BT of ``_score``: (5, size, length)."""
    out = np.zeros((5, size, length), np.int32)
    for b, row in enumerate(rows):
        for i, part in enumerate((row.tokens, row.positions, row.branch, row.at, row.target)):
            out[i, b, : len(part)] = part
    return out
