"""What is in a file: text, JSON lines, Parquet rows or ArrayRecord records, each as documents."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from scaling import units
from scaling.sources import records
from scaling.sources.base import Advance, Document, SourceError, row_document
from scaling.sources.places import READ_BYTES, File, find, reading, sha256
from scaling.tokenizer import cut

ENDINGS = {
    ".txt": "text", ".txt.gz": "text", ".txt.zst": "text", ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".jsonl.zst": "jsonl",
    ".parquet": "parquet", ".array_record": "array_record", ".arrayrecord": "array_record",
}  # fmt: skip
_SHARD = re.compile(r"-\d+-of-\d+$")  # as TFDS names them: c4-train.array_record-00000-of-01024


def kind_of(name: str) -> str | None:
    """The format that a file's name tells, or None."""
    name = _SHARD.sub("", name)
    return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)


class FileSource:
    """The documents of text files: a .txt is one document, each line of a .jsonl, each row of a .parquet and each record of an
    ArrayRecord file is one.

    Ids are the file's name, for the others with '#' and the field ``id`` where there is one, else with the line's, row's or
    record's number; so they do not change when a folder is moved or files are added.

    Args:
      patterns: paths, globs ('**' goes into subfolders), or addresses such as gs://bucket/books/*.jsonl.zst.
      field: the text field of .jsonl, .parquet and ArrayRecord files of tf.train.Example.

    Raises:
      SourceError: when a pattern matches nothing, a file is of no known kind, or a Parquet file lacks the column.
    """

    def __init__(self, patterns: Sequence[str], field: str = "text"):
        self.field = field
        found = {file.shown: file for pattern in patterns for file in find(pattern, kind_of)}
        self.files = list(found.values())
        for file in self.files:
            kind = kind_of(file.name)
            if kind is None:
                ending = "." + file.name.rpartition(".")[2]
                raise SourceError(
                    f"{file.shown}: cannot tell its format from its name; known are {', '.join(ENDINGS)}."
                    f"{units.did_you_mean(ending, ENDINGS)}"
                )
            with reading(file):
                if kind == "parquet":
                    with _parquet_file(file) as table:
                        self._columns(file, table)
                else:
                    file.open().close()
        self.total_bytes = sum(f.bytes for f in self.files)
        self.found: dict[str, Any] = {}
        self.description = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}: {', '.join(patterns)}"

    def record(self) -> dict[str, Any]:
        """Name, size and SHA-256 of every file."""
        prints = zip(self.files, sha256(self.files), strict=True)
        files = [{"name": f.name, "bytes": f.bytes, "sha256": digest} for f, digest in prints]
        return {"kind": "files", "field": self.field, "files": files}

    def documents(self, advance: Advance) -> Iterator[Document]:
        readers = {"jsonl": self._jsonl, "parquet": self._parquet, "array_record": self._array_record}
        for file in self.files:
            kind = kind_of(file.name)
            with reading(file):
                if kind == "text":
                    yield Document(file.name, _TextFile(file, advance))
                else:
                    yield from readers[str(kind)](file, advance)

    def _jsonl(self, file: File, advance: Advance) -> Iterator[Document]:
        with file.unpacked(advance) as f:
            for number, line in enumerate(f, 1):  # a binary file: lines end at b"\n" alone, not at U+2028 or U+0085
                where = f"{file.shown}:{number}"
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode())
                except UnicodeDecodeError as error:
                    raise SourceError(
                        f"{where}: not UTF-8 at byte {error.start} of the line; convert the file to UTF-8"
                    ) from None
                except json.JSONDecodeError as error:
                    raise SourceError(
                        f"{where}: not valid JSON ({error.msg}, column {error.colno}); mend or remove the line"
                    ) from None
                except RecursionError:
                    raise SourceError(f"{where}: JSON nested too deep; mend or remove the line") from None
                if not isinstance(row, dict):
                    raise SourceError(f"{where}: holds a {type(row).__name__}, not an object with a field {self.field!r}")
                if self.field not in row:
                    names = ", ".join(map(repr, list(row)[:8])) or "none"
                    hint = units.did_you_mean(self.field, row)
                    raise SourceError(f"{where}: no field {self.field!r} (it has {names}); name the text with --field.{hint}")
                yield row_document(file.name, row[self.field], row.get("id"), number, self.field, where)

    def _columns(self, file: File, table: Any) -> list[str]:
        """The columns to read of a Parquet file: the text's, and ``id`` where there is one."""
        import pyarrow as pa

        schema = table.schema_arrow
        if self.field not in schema.names:
            hint = units.did_you_mean(self.field, schema.names)
            raise SourceError(
                f"{file.shown}: no column {self.field!r} (it has {', '.join(map(repr, schema.names[:8]))}); name the text with "
                f"--field.{hint}"
            )
        kind = schema.field(self.field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            raise SourceError(f"{file.shown}: column {self.field!r} holds {kind}, not strings; name the text with --field")
        return [self.field, *(["id"] if "id" in schema.names and self.field != "id" else [])]

    def _parquet(self, file: File, advance: Advance) -> Iterator[Document]:
        import pyarrow as pa

        number = 0
        with _parquet_file(file) as table:
            columns, rows = self._columns(file, table), max(1, table.metadata.num_rows)
            try:
                for batch in table.iter_batches(batch_size=256, columns=columns):
                    ids = batch.column("id").to_pylist() if len(columns) > 1 else [None] * batch.num_rows
                    for text, name in zip(batch.column(self.field).to_pylist(), ids, strict=True):
                        number += 1
                        yield row_document(file.name, text, name, number, self.field, f"{file.shown}: row {number}")
                    advance(round(file.bytes * batch.num_rows / rows))
            except pa.ArrowException as error:
                raise SourceError(
                    f"{file.shown}: damaged after row {number} ({str(error).splitlines()[0]}); write it again"
                ) from None

    def _array_record(self, file: File, advance: Advance) -> Iterator[Document]:
        with file.local() as path:
            for number, total, record in records.array_record(path, file.shown):
                where = f"{file.shown}: record {number}"
                text, name = records.text_and_id(record, self.field, where)
                yield row_document(file.name, text, name, number, self.field, where)
                advance(file.bytes * number // total - file.bytes * (number - 1) // total)


@contextlib.contextmanager
def _parquet_file(file: File) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        try:
            source = file.path if file.system is None else stack.enter_context(file.open())
            table = stack.enter_context(pq.ParquetFile(source))
        except (pa.ArrowInvalid, pa.ArrowException) as error:
            why = str(error).splitlines()[0]
            raise SourceError(f"{file.shown}: not a readable Parquet file ({why}); write it again") from None
        yield table


class _TextFile:
    """The pieces of a .txt file, read as they are needed; a byte-order mark is dropped, line ends stay as they are."""

    def __init__(self, file: File, advance: Advance):
        self.file, self.advance = file, advance

    def __call__(self, limit: int) -> Iterator[str]:
        rest, pending, offset = "", b"", 0  # pending: the first bytes of a character; offset: of pending[0] in the text
        with reading(self.file), self.file.unpacked(self.advance) as f:
            while True:
                block = f.read(READ_BYTES)
                data = pending + block
                if offset == 0 and data.startswith(codecs.BOM_UTF8):
                    data, offset = data[3:], 3
                try:
                    text, used = codecs.utf_8_decode(data, "strict", not block)
                except UnicodeDecodeError as error:
                    raise SourceError(
                        f"{self.file.shown}: not UTF-8 at byte {offset + error.start} (value 0x{data[error.start]:02x}); "
                        f"convert it, for example with: iconv -f latin1 -t utf-8"
                    ) from None
                pending, offset = data[used:], offset + used
                *whole, rest = list(cut(rest + text, limit)) or [""]
                yield from whole
                if not block:
                    if rest:
                        yield rest
                    return
