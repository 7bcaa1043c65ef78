"""A member's metrics, read as they grow: each look reads only what is new."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any


class Tail:
    """New rows of a JSONL file that is appended to, or replaced when a trainer resumes.

    Another file is known by another line before the place where the last look ended: a name, a size and even an inode number
    may be those of the file before.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._offset = 0
        self._last = b""  # the whole line that ends at the offset

    def rows(self) -> list[dict[str, Any]]:
        """Whole lines since the last look; one that is no row is passed over, since this is only shown."""
        try:
            with open(self._path, "rb") as f:
                f.seek(self._offset - len(self._last))
                text = f.read()
                if not text.startswith(self._last):
                    self._offset, self._last = 0, b""
                    f.seek(0)
                    text = f.read()
        except FileNotFoundError:
            return []
        whole = text[len(self._last) : text.rfind(b"\n") + 1]
        if not whole:
            return []
        self._offset += len(whole)
        lines = whole.splitlines(keepends=True)
        self._last = lines[-1]
        return list(_parsed(lines))


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


@dataclasses.dataclass(frozen=True)
class Progress:
    """The latest of a member's metrics; None where not yet known."""

    step: int = -1
    tokens: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None

    def after(self, rows: list[dict[str, Any]]) -> Progress:
        """The state after new rows."""
        last = next((row for row in reversed(rows) if row.get("kind") == "train"), None)
        if last is None:
            return self
        return Progress(last["step"], last["tokens"], last["loss"], last.get("tokens_per_second"), last.get("mfu"))


UNKNOWN = Progress()
