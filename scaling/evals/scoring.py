"""Items put to a model: what fits its context, one call of the engine, and what came of it as ``Scored``.

A prompt that is longer than the model's context T is dealt with in one of three ways (``cells.FITS``):
  drop_shots     the last shot is left out until the prompt fits, as hendrycks/test does; one that does not fit without any
                 shot loses its left part
  left_truncate  the left part is cut off: tokens (context + continuation)[-(T + 1):], as lm-evaluation-harness does
  skip           the item is not scored
An item with a continuation that is itself longer than T cannot be scored and is always skipped.  How many were cut and
skipped, and how many shots each kept, is in the output.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from scaling.evals import prompts
from scaling.evals.cells import check_fit
from scaling.evals.engine import Engine, encode_pair
from scaling.evals.items import Item, Request, Scored, Task, TaskError
from scaling.tokenizer import Tokenizer

Pair = tuple[np.ndarray, np.ndarray]  # ids of a context and of what follows it


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a model made of a task.

    Attributes:
      scored: in the order of the items, without those that were skipped.
      skipped: ids of items that did not fit.
      answer_tokens: of a right answer, on average.
      notes: on how it was asked, in words.
    """

    scored: list[Scored]
    skipped: tuple[str, ...]
    answer_tokens: float
    notes: tuple[str, ...] = ()

    @property
    def shots_effective(self) -> dict[str, int]:
        """How many items were asked with how many shots."""
        counts = collections.Counter(s.shots for s in self.scored)
        return {str(shots): counts[shots] for shots in sorted(counts)}


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A request whose shots fit, in tokens; ``context`` is what a generation goes on from, None where nobody asks."""

    request: Request
    pairs: tuple[Pair, ...]
    context: np.ndarray | None
    truncated: bool


def score(
    engine: Engine,
    task: Task,
    items: Sequence[Item],
    format: str,
    shots: int = 0,
    fit: str = "drop_shots",
    advance: Callable[[float], None] = lambda n: None,
) -> Outcome:
    """Asks a model all ``items`` of a task.

    Args:
      engine: the model.
      format: one of ``items.FORMATS``.
      shots: asked for; ``Outcome.shots_effective`` has what fitted.
      fit: one of ``FITS``.
      advance: told how many items (in parts of one) have been done since it was called last.

    Raises:
      TaskError: as ``prompts.request``, and where no item fits.
    """
    check_fit(fit)
    asked, room = _asked(engine, task, items, format, shots)
    fitted = [_fit(engine, task, request, format, fit, room) for request in asked]
    there = [f for f in fitted if f is not None]
    skipped = tuple(item.id for item, f in zip(items, fitted, strict=True) if f is None)
    if not there:
        raise _none_fits(engine, task, items, format, shots, fit)
    advance(len(skipped))
    bare = [_bare(engine.tokenizer, f.request) for f in there]
    pairs = [pair for part in (*(f.pairs for f in there), *bare) for pair in part]
    per_item = len(there) / len(pairs) / (2 if room else 1)
    found = iter(engine.loglikelihoods(pairs, lambda n: advance(n * per_item)))
    options = [[next(found) for _ in f.pairs] for f in there]
    unconditional = [tuple(next(found)[0] for _ in b) for b in bare]
    texts = _generated(engine, there, room, lambda n: advance(n / 2))
    scored = [_scored(*parts) for parts in zip(there, options, unconditional, texts, strict=True)]
    tokens = [s.tokens[s.item.answer if len(s.tokens) > 1 else 0] for s in scored]
    return Outcome(scored, skipped, float(np.mean(tokens)), tuple(_notes(engine, format, there)))


def check_room(engine: Engine, task: Task, items: Sequence[Item], format: str, shots: int, fit: str) -> None:
    """Raises TaskError where ``score`` would since no item fits; the first that does ends the search."""
    asked, room = _asked(engine, task, items, format, shots)
    if all(_fit(engine, task, request, format, fit, room) is None for request in asked):
        raise _none_fits(engine, task, items, format, shots, fit)


def _none_fits(engine: Engine, task: Task, items: Sequence[Item], format: str, shots: int, fit: str) -> TaskError:
    return TaskError(
        f"{task.name}: none of its {len(items)} prompts fits the model's context of {engine.config.context} tokens "
        f"({format}, {shots} shots, fit {fit}); take fewer shots, another fit, or a model of a longer context"
    )


def _asked(engine: Engine, task: Task, items: Sequence[Item], format: str, shots: int) -> tuple[list[Request], int]:
    """Requests with all their shots, and how many tokens their generations may have."""
    asked = [prompts.request(task, item, format, shots) for item in items]
    return asked, _room(engine, asked)


def _room(engine: Engine, asked: Sequence[Request]) -> int:
    """Tokens that a generation may have: twice the longest right answer of the task, at most half the context; 0 without."""
    golds = [engine.tokenizer.encode(r.options[0][1]).size for r in asked if r.generate]
    return min(max(16, 2 * max(golds)), engine.config.context // 2) if golds else 0


def _fit(engine: Engine, task: Task, request: Request, format: str, fit: str, room: int) -> Fitted | None:
    """A request with as many of its shots as fit; None where it is to be skipped."""
    limit = engine.config.context  # a context and its continuation, behind an end-of-document token, less the last token
    while True:
        pairs = tuple(pair_ids(engine.tokenizer, request.prefix, *option) for option in request.options)
        longest = max(len(context) + len(continuation) for context, continuation in pairs)
        context = None
        if request.generate:
            context = _joined(engine.tokenizer, request.prefix, request.generate)
            longest = max(longest, 1 + len(context) + room)
        if longest <= limit:
            return Fitted(request, pairs, context, truncated=False)
        if fit == "skip" or max(len(continuation) for _, continuation in pairs) > limit:
            return None
        if fit == "left_truncate" or request.shots == 0:
            return Fitted(request, pairs, context, truncated=True)
        request = prompts.request(task, request.item, format, request.shots - 1)


def pair_ids(tokenizer: Tokenizer, prefix: str, context: str, continuation: str) -> Pair:
    """As ``encode_pair`` of prefix and context together.  Both vocabularies encode line by line, so a prefix that ends a line
    is encoded once for all items that share it."""
    if prefix.endswith("\n") and context.strip():
        ids, continuation_ids = encode_pair(tokenizer, context, continuation)
        return np.concatenate([_encoded(tokenizer, prefix), ids]), continuation_ids
    return encode_pair(tokenizer, prefix + context, continuation)


def _joined(tokenizer: Tokenizer, prefix: str, context: str) -> np.ndarray:
    if prefix.endswith("\n"):
        return np.concatenate([_encoded(tokenizer, prefix), tokenizer.encode(context)])
    return tokenizer.encode(prefix + context)


@functools.lru_cache(maxsize=64)
def _encoded(tokenizer: Tokenizer, text: str) -> np.ndarray:
    return tokenizer.encode(text)


def _bare(tokenizer: Tokenizer, request: Request) -> tuple[Pair, ...]:
    """Each continuation after ``bare``, for PMI."""
    return tuple(encode_pair(tokenizer, request.bare, c) for _, c in request.options) if request.bare else ()


def _generated(engine: Engine, there: Sequence[Fitted], room: int, advance: Callable[[float], None]) -> list[str | None]:
    if not room:
        return [None] * len(there)
    contexts = [f.context for f in there if f.context is not None]
    return list(engine.generate(contexts, [f.request.stop for f in there], room, advance))


def _scored(
    fitted: Fitted, options: Sequence[tuple[float, bool]], unconditional: tuple[float, ...], generated: str | None
) -> Scored:
    request = fitted.request
    texts = [continuation.removeprefix(request.delimiter) for _, continuation in request.options]
    return Scored(
        item=request.item,
        loglikelihoods=tuple(nats for nats, _ in options),
        greedy=tuple(greedy for _, greedy in options),
        tokens=tuple(len(continuation) for _, continuation in fitted.pairs),
        n_bytes=tuple(len(text.encode()) for text in texts),
        characters=tuple(map(len, texts)),
        shots=request.shots,
        unconditional=unconditional,
        generated=generated,
        truncated=fitted.truncated,
    )


def _notes(engine: Engine, format: str, there: Sequence[Fitted]) -> list[str]:
    """Of a BPE vocabulary that splits a letter: its tokens' log-probabilities are added, as they are of bytes."""
    split = max(len(continuation) for f in there for _, continuation in f.pairs)
    if format != "letter" or split == 1 or engine.tokenizer.kind == "bytes":
        return []
    return [f"the vocabulary writes a letter as up to {split} tokens; their log-probabilities are added"]
