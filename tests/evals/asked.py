"""Tasks of a few items, a tiny model, and the plain way to score: one forward for each option."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from scaling import model
from scaling.evals.engine import Engine, asked
from scaling.evals.items import Item, Task
from scaling.evals.trees import Asked
from scaling.tokenizer import Tokenizer, byte_tokenizer

CONTEXT = 96
VOCAB = 330
WORDS = ["amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet"]


def config(**fields: Any) -> Any:
    """A model of one shape for both vocabularies, so that its programs are compiled once."""
    shape = {"vocab_size": VOCAB, "context": CONTEXT, "kv_heads": 2, "depth": 2, "layers": "scan"}
    return tiny.model_config(**shape | fields)


def engine(tokenizer: Tokenizer | None = None, **fields: Any) -> Engine:
    """Of random parameters; small batches, so that a few items make several; one length for all; prefixes are worth sharing."""
    tokenizer = tokenizer or byte_tokenizer()
    c = config()
    small = {"batch_tokens": 128, "shape_worth": 1 << 20, "least_saved": 16} | fields
    return Engine(c, tiny.wide_params(c, std=0.15), tokenizer, **small)


@functools.cache
def _program(c: Any) -> Any:
    return jax.jit(lambda params, tokens_BT: jax.nn.log_softmax(model.apply(c, params, tokens_BT)))


def logs(e: Engine, s: Asked) -> np.ndarray:
    """Log-probabilities (n, V) of each token to be scored, by one whole forward without cache, branches or buckets."""
    tokens_BT = np.zeros((1, e.config.context), np.int32)
    tokens_BT[0, : len(s.ids) - 1] = s.ids[:-1]
    return np.asarray(_program(e.config)(e.params, jnp.asarray(tokens_BT)))[0, s.start - 1 : len(s.ids) - 1]


def plainly(e: Engine, context: np.ndarray, continuation: np.ndarray) -> tuple[float, bool]:
    """What ``Engine.loglikelihoods`` should give."""
    s = asked(context, continuation, e.config.context)
    logs_NV, wanted = logs(e, s), s.ids[s.start :]
    return float(logs_NV[np.arange(len(wanted)), wanted].sum()), bool((logs_NV.argmax(-1) == wanted).all())


def items(n: int, start: int = 0, pad: int = 0) -> tuple[Item, ...]:
    """Questions with four choices of different lengths; every third question is ``pad`` characters longer."""
    out = []
    for i in range(start, start + n):
        choices = tuple(WORDS[(i + j) % 9][: 3 + (i + j) % 3] for j in range(4))
        out.append(Item(f"q{i}", f"{i}?" + "x" * (pad if i % 3 == 0 else 0), choices, i % 4))
    return tuple(out)


def task(n: int = 8, dev: int = 2, pad: int = 0, **fields: Any) -> Task:
    """Short enough for two shots in most prompts."""
    splits = {"dev": items(dev, 100), "test": items(n, pad=pad)}
    return Task("words", "words", splits, **{"formats": ("cloze", "letter"), "style": "plain"} | fields)
