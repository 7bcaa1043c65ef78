"""A member's metrics, read as they grow: each look reads only what is new."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any


class Tail:
    """New rows of a JSONL file that is appended to, or replaced by a shorter one when a trainer resumes."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._file = (0, 0)  # device and inode
        self._offset = 0

    def rows(self) -> list[dict[str, Any]]:
        """Whole lines since the last look."""
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            return []
        if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self._offset:
            self._file, self._offset = (stat.st_dev, stat.st_ino), 0
        if stat.st_size == self._offset:
            return []
        with open(self._path, "rb") as f:
            f.seek(self._offset)
            text = f.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line]


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
