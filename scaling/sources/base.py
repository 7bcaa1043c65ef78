"""A document: a stable id, which decides its split, and text that is read in pieces, so that a book of any length needs little
memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from scaling.tokenizer import cut

Advance = Callable[[int], None]  # told how many source bytes have been read since the last call


class SourceError(ValueError):
    """Text that cannot be read as asked; the message names the file, the place in it and the remedy."""


@dataclasses.dataclass(frozen=True)
class Document:
    """``pieces(limit)`` gives its text in pieces of at most ``limit`` characters, cut after paragraphs where it can."""

    id: str
    pieces: Callable[[int], Iterator[str]]


class Source(Protocol):
    """Documents, and what is recorded of them."""

    description: str
    total_bytes: int  # what ``advance`` will be told in sum
    found: dict[str, Any]  # what only reading all of it has shown; kept in the store, decides nothing

    def record(self) -> dict[str, Any]:
        """What decides whether a store was made from the same text."""

    def documents(self, advance: Advance) -> Iterator[Document]:
        """All documents in a fixed order; each is to be read before the next is asked for, or left unread."""


def row_document(name: str, text: Any, row_id: Any, number: int, field: str, where: str) -> Document:
    """The document of a line, row or record: ``name``, '#', and its own id where it has one, else its number.

    Raises:
      SourceError: where ``text`` is no string, or one that UTF-8 cannot hold.
    """
    if not isinstance(text, str):
        raise SourceError(f"{where}: field {field!r} is {text!r:.40}, not a string; mend or remove it, or use another --field")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"{where}: field {field!r} holds half a surrogate pair at character {error.start}; mend or remove it"
        ) from None
    part = row_id if isinstance(row_id, str | int) and not isinstance(row_id, bool) else number
    return Document(f"{name}#{part}", lambda limit: cut(text, limit))
