"""Text to token ids and back, without loss: raw bytes, or sentencepiece BPE.  Importing this loads no sentencepiece and no jax.

Ids 0 to 3 are special in every vocabulary (pad, eos, bos, unk) and stand for no bytes.  Every other id stands for a fixed
string of bytes, so decoding is a table look-up, bits per byte are exact for any run of tokens, and ``decode(encode(text))``
is ``text`` for all of Unicode but lone surrogates, which no UTF-8 can hold.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

PAD, EOS, BOS, UNK = range(4)
SPECIALS = 4
BYTE_VOCAB = 256 + SPECIALS

LINE_CHARACTERS = 1024  # at most 4 kB of UTF-8: BPE encoding is three times slower on whole documents
SPACE = "\u2581"  # sentencepiece writes a blank so inside its pieces

# Lossless settings: the defaults (nmt_nfkc) drop double blanks, tabs and newlines, and change full-width forms and jamo.
# One thread, and sentences from an iterator: the same text then gives the same model bytes anywhere.
BPE_SETTINGS: dict[str, Any] = {
    "model_type": "bpe", "normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True, "byte_fallback": True, "user_defined_symbols": ["\n"], "num_threads": 1,
    "pad_id": PAD, "eos_id": EOS, "bos_id": BOS, "unk_id": UNK, "max_sentence_length": 4 * LINE_CHARACTERS + 4,
}  # fmt: skip


class VocabularyError(ValueError):
    """A vocabulary that cannot be trained on this text, or a model file that cannot be used; the message names the remedy."""


class Tokenizer:
    """What both tokenizers share: everything but ``encode`` follows from the bytes of each id.

    Attributes:
      kind: 'bytes' or 'bpe'.
      vocab_size: V, specials included.
      token_bytes: (V,) int64, the number of UTF-8 bytes that each id stands for; 0 for specials.
      fingerprint: sixteen hex digits of the ids' bytes; two tokenizers with the same one agree on every id.
    """

    kind: str

    def __init__(self, pieces: Sequence[bytes]):
        self._pieces = list(pieces)
        self.vocab_size = len(self._pieces)
        self.token_bytes = np.array([len(piece) for piece in self._pieces], np.int64)
        content = b"".join(len(piece).to_bytes(4, "little") + piece for piece in self._pieces)
        self.fingerprint = hashlib.sha256(self.kind.encode() + b"\0" + content).hexdigest()[:16]

    def encode(self, text: str) -> np.ndarray:
        """(n,) int32 ids of ``text``, without specials.

        Raises:
          UnicodeEncodeError: for a lone surrogate.
        """
        raise NotImplementedError

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of ``ids``; specials vanish, and bytes that are no UTF-8 (a sample cut in a character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int] | np.ndarray) -> bytes:
        """The exact bytes of ``ids``.

        Raises:
          ValueError: for an id outside the vocabulary.
        """
        ids = np.fromiter(ids, np.int64) if not isinstance(ids, np.ndarray) else ids
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocab_size:
            bad = ids.min() if ids.min() < 0 else ids.max()
            raise ValueError(
                f"id {bad} is outside the vocabulary of {self.vocab_size}; decode with the tokenizer of the same store"
            )
        return b"".join(map(self._pieces.__getitem__, ids.tolist()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, fingerprint={self.fingerprint!r})"


class ByteTokenizer(Tokenizer):
    """id = byte + 4.  Nothing to train, the same for every language, 5 GB/s."""

    kind = "bytes"

    def __init__(self) -> None:
        super().__init__([b""] * SPECIALS + [bytes([byte]) for byte in range(256)])

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + SPECIALS


class BPETokenizer(Tokenizer):
    """Sentencepiece BPE with byte fallback, encoded line by line.

    A literal U+2581, which sentencepiece itself would turn into a blank, is written as its three bytes.

    Args:
      model: the bytes of a sentencepiece model trained with ``BPE_SETTINGS``.

    Raises:
      VocabularyError: for other bytes, or a model without byte fallback or with other special ids.
    """

    kind = "bpe"

    def __init__(self, model: bytes):
        import sentencepiece

        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise VocabularyError("not a sentencepiece model") from None
        processor = self._processor
        specials = (processor.pad_id(), processor.eos_id(), processor.bos_id(), processor.unk_id())
        if specials != (PAD, EOS, BOS, UNK):
            raise VocabularyError(f"pad, eos, bos, unk are {specials}, not {(PAD, EOS, BOS, UNK)}; train with scaling.corpus")
        names = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        pieces = [b""] * SPECIALS + [
            bytes([int(name[3:5], 16)]) if processor.is_byte(i) else name.replace(SPACE, " ").encode()
            for i, name in enumerate(names[SPECIALS:], SPECIALS)
        ]
        byte_ids = {pieces[i]: i for i in range(len(pieces)) if processor.is_byte(i)}
        if len(byte_ids) != 256:
            raise VocabularyError("the model has no byte fallback, so it loses text; train with scaling.corpus")
        self._space_ids = [byte_ids[bytes([byte])] for byte in SPACE.encode()]
        super().__init__(pieces)

    def encode(self, text: str) -> np.ndarray:
        text.encode()  # sentencepiece would replace a lone surrogate in silence
        parts: list[list[int]] = []
        for number, part in enumerate(text.split(SPACE)):
            if number:
                parts.append(self._space_ids)
            if part:
                parts += self._processor.encode(list(lines(part)))
        return np.fromiter(itertools.chain.from_iterable(parts), np.int32)

    def __reduce__(self) -> tuple[Any, ...]:
        return BPETokenizer, (self.model,)


def lines(text: str) -> Iterator[str]:
    """``text`` in pieces of at most ``LINE_CHARACTERS``, each ending with its newline where it has one; nothing is lost."""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        if len(line) <= LINE_CHARACTERS:
            yield line
        else:
            yield from cut(line, LINE_CHARACTERS, (" ",))


def cut(text: str, limit: int, separators: Sequence[str] = ("\n\n", "\n", " ")) -> Iterator[str]:
    """Pieces of at most ``limit`` characters, cut after a paragraph, else after a line, else before a word; nothing is lost.

    The first separator found in the second half of the limit decides; without any, the cut is at the limit.
    """
    start = 0
    while len(text) - start > limit:
        end = start + limit
        for separator in separators:
            found = text.rfind(separator, start + limit // 2, end)
            if found > start:
                end = found if separator == " " else found + len(separator)  # a blank belongs to the word after it
                break
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def train_bpe(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    """A BPE vocabulary of exactly ``vocab_size`` ids (specials, 256 bytes and the newline included).

    Text and order decide the model bytes; the machine does not.  About 6 CPU seconds and 450 MB of memory per 100 MB of text.

    Raises:
      VocabularyError: when the text supports fewer ids, or has more characters than ids, with the number to use.
    """
    import sentencepiece

    sentences = (line.rstrip("\n").replace(SPACE, " ") for text in texts for line in lines(text))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(s for s in sentences if s.strip()), model_writer=model, vocab_size=vocab_size, minloglevel=2,
            **BPE_SETTINGS,
        )  # fmt: skip
    except RuntimeError as error:
        message = str(error)
        if high := re.search(r"too high \(\d+\)\. Please set it to a value <= (\d+)", message):
            raise VocabularyError(
                f"--vocab {vocab_size}: too large for this corpus, which supports at most {high[1]}; use "
                f"--vocab {high[1]} or bring more text"
            ) from None
        if low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            raise VocabularyError(
                f"--vocab {vocab_size}: too small for the {low[1]} characters, bytes and specials of this corpus; use at least "
                f"--vocab {int(low[1]) + 64}, or --vocab bytes"
            ) from None
        raise VocabularyError(f"--vocab {vocab_size}: sentencepiece cannot train on this corpus ({message})") from None
    return BPETokenizer(model.getvalue())


@functools.cache
def byte_tokenizer() -> ByteTokenizer:
    """The one ``ByteTokenizer``."""
    return ByteTokenizer()


def load_bpe(path: str | os.PathLike[str]) -> BPETokenizer:
    """The tokenizer of a model file.

    Raises:
      VocabularyError: naming the file, when it is missing or not such a model.
    """
    try:
        with open(path, "rb") as f:
            return BPETokenizer(f.read())
    except OSError as error:
        raise VocabularyError(
            f"{path}: cannot be read ({error.strerror}); rebuild the store with python -m scaling.corpus"
        ) from None
    except VocabularyError as error:
        raise VocabularyError(f"{path}: {error}") from None
