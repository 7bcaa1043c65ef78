"""Datasets of the Hugging Face hub by name, where the package ``datasets`` is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

from scaling import units
from scaling.building import Progress
from scaling.sources.base import Advance, Document, SourceError, row_document

BATCH_ROWS = 256


class HubSource:
    """The rows of one split of a dataset, each a document.

    It is downloaded into the cache of ``datasets`` once; its fingerprint is that of its ids and texts, as files' is of their
    bytes, so a dataset that was changed under its name is another.  Ids are the dataset's name and split with '#' and the
    column ``id`` where there is one, else the row's number.

    Args:
      name: of the dataset, 'org/name', or a folder that ``datasets`` can read.
      config: which of its configurations ('subset' on its page), where it has several.
      split: of the dataset; ours, into training and validation, is made within it by hash.
      revision: a branch, tag or commit; name one for a store that can be made again.
      field: the text column.

    Raises:
      SourceError: where ``datasets`` is not installed, or the dataset, split or column is not there.
    """

    def __init__(
        self, name: str, config: str | None = None, split: str = "train", revision: str | None = None, field: str = "text"
    ):
        if importlib.util.find_spec("datasets") is None:
            raise SourceError(
                f"--dataset {name}: needs the package datasets, which is not installed: pip install -e '.[datasets]'"
            )
        import datasets

        self.split, self.field = split, field
        self._document_name = f"{os.path.basename(os.path.abspath(name)) if os.path.isdir(name) else name}/{split}"
        self._where = " ".join([f"--dataset {name}", *([config] if config else []), split])
        try:
            rows: Any = datasets.load_dataset(name, config, split=split, revision=revision)
        except Exception as error:  # it raises a dozen kinds: offline, no such name, no such config or split, private, broken
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise SourceError(
                f"{self._where}: cannot be loaded ({why:.300}); check the name, --dataset-config, --dataset-split, the "
                f"network, and your token if it is private"
            ) from None
        columns = rows.column_names
        if field not in columns:
            raise SourceError(
                f"{self._where}: no column {field!r} (it has {', '.join(map(repr, columns[:8]))}); name the text with --field."
                f"{units.did_you_mean(field, columns)}"
            )
        kind = getattr(rows.features[field], "dtype", "nested values")
        if kind not in ("string", "large_string"):
            raise SourceError(f"{self._where}: column {field!r} holds {kind}, not strings; name the text with --field")
        self._rows = rows.select_columns([field, *(["id"] if "id" in columns and field != "id" else [])])
        self.total_bytes = int(self._rows.data.nbytes)
        self.found: dict[str, Any] = {"rows": len(rows), "dataset": name, "config": config, "revision": revision}
        self.description = f"dataset {name}{f' {config}' if config else ''}, split {split}, {len(rows):,} rows"

    def record(self) -> dict[str, Any]:
        """SHA-256 of all ids and texts, each with its length."""
        digest = hashlib.sha256()
        with Progress("reading for the fingerprint", self.total_bytes) as progress:
            for document in self.documents(progress.advance):
                for part in (document.id, "".join(document.pieces(1 << 30))):
                    data = part.encode()
                    digest.update(len(data).to_bytes(8, "little") + data)
        return {"kind": "dataset", "split": self.split, "field": self.field, "sha256": digest.hexdigest()}

    def documents(self, advance: Advance) -> Iterator[Document]:
        number, total = 0, max(1, len(self._rows))
        for batch in self._rows.iter(batch_size=BATCH_ROWS):
            texts = batch[self.field]
            ids = batch["id"] if "id" in batch and self.field != "id" else [None] * len(texts)
            for text, row_id in zip(texts, ids, strict=True):
                number += 1
                where = f"{self._where}: row {number}"
                yield row_document(self._document_name, text, row_id, number, self.field, where)
            advance(self.total_bytes * len(texts) // total)
