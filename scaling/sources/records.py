"""ArrayRecord files: each record is a text in UTF-8, or a tf.train.Example, as TensorFlow Datasets writes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from scaling import units
from scaling.sources.base import SourceError

READ_RECORDS = 256


def array_record(path: str, shown: str) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, how many there are, content) of each record, in order.

    Raises:
      SourceError: for a file that is none, or is damaged.
    """
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise SourceError(f"{shown}: ArrayRecord files need the package array_record: pip install array_record") from None
    number = 0
    try:
        # A damaged file seems to be empty, until closing it tells why.
        with contextlib.closing(array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")) as reader:
            total = reader.num_records()
            for start in range(0, total, READ_RECORDS):
                for record in reader.read(start, min(total, start + READ_RECORDS)):
                    number += 1
                    yield number, total, record
    except (RuntimeError, IndexError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise SourceError(
            f"{shown}: no ArrayRecord file, or damaged after record {number} ({why:.120}); write it again"
        ) from None


def text_and_id(record: bytes, field: str, where: str) -> tuple[str, str | int | None]:
    """The text of a record, and the id that a tf.train.Example may carry.

    Raises:
      SourceError: when an Example has no such feature, or the text is not UTF-8.
    """
    features = example(record)
    if features is None:
        return _decoded(record, where), None
    texts = {name: value for name, value in features.items() if isinstance(value, bytes)}
    if field not in texts:
        names = ", ".join(map(repr, list(texts)[:8])) or "none"
        raise SourceError(
            f"{where}: no text feature {field!r} (it has {names}); name the text with --field."
            f"{units.did_you_mean(field, texts)}"
        )
    row_id = features.get("id") if field != "id" else None
    return _decoded(texts[field], where), row_id.decode(errors="replace") if isinstance(row_id, bytes) else row_id


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{where}: not UTF-8 at byte {error.start}; records must be texts or tf.train.Example with a text feature"
        ) from None


def example(record: bytes) -> dict[str, bytes | int] | None:
    """The features of a serialized tf.train.Example that are one byte string or one whole number, by name; None for any other
    record.

    The message, from tensorflow/core/example/*.proto: Example {1: Features {1: map<string 1, Feature 2 {1: BytesList
    {1: repeated bytes}, 2: FloatList, 3: Int64List {1: repeated int64}}>}}.  A text would have to begin with a line feed and
    the exact length of the rest to be taken for one.
    """
    out: dict[str, bytes | int] = {}
    try:
        top = _fields(record)
        if not top or any(number != 1 or not isinstance(value, bytes) for number, value in top):
            return None
        for _, features in top:
            for number, entry in _fields(features):
                pair = dict(_fields(entry))
                if number != 1 or not isinstance(pair.get(1), bytes) or not isinstance(pair.get(2, b""), bytes):
                    return None
                for kind, values in _fields(pair.get(2, b"")):
                    held = [value for _, value in _fields(values)] if kind in (1, 3) else []
                    value = held[0] if len(held) == 1 else None
                    value = _one_int64(value) if kind == 3 else value
                    if isinstance(value, bytes if kind == 1 else int):
                        out[pair[1].decode()] = value
    except (ValueError, IndexError, TypeError):
        return None
    return out


def _one_int64(value: Any) -> int | None:
    """The number of an Int64List with the one field ``value``, packed (as proto3 writes it) or not; None for several."""
    if isinstance(value, bytes):
        number, end = _varint(value, 0) if value else (None, 0)
        value = number if end == len(value) else None
    return None if value is None else value - (value >> 63 << 64)  # two's complement


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """(number, value) of each field of a protocol buffer message: bytes, or the whole number of a varint."""
    out: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            out.append((key >> 3, value))
            continue
        if key & 7 == 2:
            size, at = _varint(data, at)
        elif key & 7 in (1, 5):
            size = 8 if key & 7 == 1 else 4
        else:
            raise ValueError("no such wire type")
        if key >> 3 == 0 or at + size > len(data):
            raise ValueError("no message")
        out.append((key >> 3, data[at : at + size]))
        at += size
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("too long a number")
