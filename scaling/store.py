"""The token store, as it is read: counts, hashes, tokens and document offsets of both splits.  Imports no jax.

``scaling.corpus`` makes one of text, ``scaling.markov`` one of a generated language.  A store is a folder:

    store.json                  counts, hashes, where the text came from
    train.bin, valid.bin        raw little-endian tokens, an end-of-document token after each document
    train.idx.npy, valid.idx.npy  where documents begin
    tokenizer.model             for BPE
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling import tokenizer as tokenizers
from scaling.tokenizer import Tokenizer, VocabularyError

SCHEMA = 1
STORE = "store.json"
MODEL = "tokenizer.model"
SPLITS = ("train", "valid")
NPY_HEADER_BYTES = 128  # of a one-dimensional array


class StoreError(RuntimeError):
    """A token store that is missing, damaged or in the way; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Counts of one split; ``bytes`` are UTF-8 bytes of text, ``sha256`` is of the token file."""

    tokens: int
    bytes: int
    docs: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """An opened token store (see ``open_store``).

    Attributes:
      path: its folder.
      vocab_size: V.
      vocab: 'bytes', or the size of its BPE vocabulary as text, as in ``DataConfig.vocab``.
      dtype: of the token files, little-endian.
      splits: of 'train' and 'valid'.
      fingerprint: sixteen hex digits of the tokens of both splits and the tokenizer.
      description: what the text is, in words.
      source: the record of where it came from, with what was found in it.
      split_by: 'documents', 'parts' where too few documents had to be cut, or 'streams' of a generated language.
      tokenizer_fingerprint: two stores with the same one agree on every id.
      entropies: of a generated language (``scaling.markov``), nats of a token when 0, 1, ... of those before it are known,
        further ones as the last; of text nobody knows them, and there are none.
    """

    path: pathlib.Path
    vocab_size: int
    vocab: str
    dtype: np.dtype
    splits: dict[str, Split]
    fingerprint: str
    description: str
    source: dict[str, Any]
    split_by: str
    tokenizer_fingerprint: str
    entropies: tuple[float, ...] = ()

    def tokens(self, split: str) -> np.memmap:
        """(tokens,) of ``split``, mapped from the file."""
        return np.memmap(self.path / f"{split}.bin", self.dtype, "r")

    def offsets(self, split: str) -> np.ndarray:
        """(docs + 1,) int64: document i is ``tokens[offsets[i]:offsets[i + 1]]``, its end token included; the one stream of a
        generated language has none."""
        return np.load(self.path / f"{split}.idx.npy")

    def ideal_loss(self, context: int) -> float | None:
        """The expected loss of the best possible model over windows of ``context`` targets, where the source is known."""
        return mean_entropy(self.entropies, context) if self.entropies else None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Loaded at first use, so that bytes need no sentencepiece.

        Raises:
          StoreError: when the model file is not the one that the tokens were made with.
        """
        if self.vocab == "bytes":
            return tokenizers.byte_tokenizer()
        again = f"bring back the file that the tokens were made with, or {_again(self.path)}"
        try:
            found = tokenizers.load_bpe(self.path / MODEL)
        except VocabularyError as error:
            raise StoreError(f"{error}; {again}") from None
        if found.fingerprint != self.tokenizer_fingerprint:
            raise StoreError(
                f"{self.path / MODEL}: another vocabulary ({found.vocab_size:,} ids, fingerprint {found.fingerprint}; {STORE} "
                f"says {self.tokenizer_fingerprint}); {again}"
            )
        return found

    @property
    def token_bytes(self) -> np.ndarray:
        """(V,) int64: UTF-8 bytes per token, 0 for specials."""
        return self.tokenizer.token_bytes


def mean_entropy(entropies: Sequence[float], context: int) -> float:
    """Mean nats over ``context`` targets, of which the first knows one token before it, the second two, and so on."""
    first = entropies[1 : context + 1]
    return (math.fsum(first) + (context - len(first)) * entropies[-1]) / context


def open_store(path: str | os.PathLike[str]) -> TokenStore:
    """Opens a store after a quick check: schema and file sizes, not content.

    Raises:
      StoreError: naming the file and the remedy, when it is missing, of another schema or cut short.
    """
    path = pathlib.Path(path)
    again = _again(path)
    try:
        content = json.loads((path / STORE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"{path}: no token store ({STORE} is missing); build one with: python -m scaling.corpus --help"
        ) from None
    except OSError as error:
        raise StoreError(f"{path / STORE}: cannot be read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        raise StoreError(f"{path / STORE}: not valid JSON ({error}); {again}") from None
    found = content.get("schema") if isinstance(content, dict) else None
    if found != SCHEMA:
        raise StoreError(f"{path / STORE}: schema {found!r}, this version reads {SCHEMA}; {again}")
    try:
        store = TokenStore(
            path=path, vocab_size=content["vocab_size"], vocab=content["vocab"], dtype=np.dtype(content["dtype"]),
            splits={s: _split(s, content["splits"][s]) for s in SPLITS}, fingerprint=content["fingerprint"],
            description=content["description"], source=content["recipe"]["source"] | content["found"],
            split_by=content["split"]["by"], tokenizer_fingerprint=content["tokenizer"]["fingerprint"],
            entropies=tuple(content.get("entropies", ())),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path / STORE}: incomplete ({error}); {again}") from None
    for split, counts in store.splits.items():
        _check_size(path / f"{split}.bin", counts.tokens * store.dtype.itemsize, again)
        _check_size(path / f"{split}.idx.npy", NPY_HEADER_BYTES + 8 * (counts.docs + 1), again)
    if store.vocab != "bytes" and not (path / MODEL).is_file():
        raise StoreError(f"{path / MODEL}: missing; {again}")
    return store


def _split(name: str, content: dict[str, Any]) -> Split:
    for field in ("tokens", "bytes", "docs"):
        if not isinstance(content[field], int) or content[field] < 0:
            raise TypeError(f"splits.{name}.{field}={content[field]!r} is no count")
    return Split(**content)


def _again(path: pathlib.Path) -> str:
    return f"remove {path} and build it again with python -m scaling.corpus"


def _check_size(path: pathlib.Path, size: int, again: str) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; {again}") from None
    if found != size:
        raise StoreError(f"{path}: {found:,} bytes, {STORE} says {size:,}: cut short or changed; {again}")
