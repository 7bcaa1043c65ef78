"""Where text comes from: files (.txt, .jsonl, .parquet) and the default corpus.  Everything becomes a stream of documents.

A document has a stable id, which decides its split, and is read in pieces, so that a book of any length needs little memory.
"""

from __future__ import annotations

import codecs
import dataclasses
import glob
import gzip
import hashlib
import html
import io
import json
import os
import pathlib
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from scaling import units
from scaling.tokenizer import cut

READ_BYTES = 1 << 20
TEXT = (".txt", ".txt.gz", ".txt.zst")
JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst")
PARQUET = (".parquet",)
EXTENSIONS = TEXT + JSONL + PARQUET

DEMO_PINS = {"botocore": "1.44.5", "google-api-python-client": "2.202.0"}
DEMO_DOCUMENTS, DEMO_BYTES, DEMO_SHA256 = 982, 47_760_883, "5a04df359985e8d9"
DEMO_DESCRIPTION = (
    "API-reference prose of AWS services (botocore) and Google APIs (google-api-python-client), taken from the data files of "
    "their Apache-2.0 wheels, one document per service, repeated lines removed. Technical and templated English, about 1.8 "
    "times more compressible than books: losses on it are not comparable with losses on web text or books, only the ladder's "
    "shape is."
)

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


# ---- files


class FileSource:
    """The documents of text files: a .txt is one document, each line of a .jsonl and each row of a .parquet is one.

    Ids are the file's name, for lines and rows with '#' and the field ``id`` where there is one, else with the line or row
    number; so they do not change when a folder is moved or files are added.

    Args:
      patterns: paths or globs ('**' goes into subfolders).
      field: the text field of .jsonl and .parquet.

    Raises:
      SourceError: when a pattern matches nothing, a file is of no known kind, or a Parquet file lacks the column.
    """

    def __init__(self, patterns: Sequence[str], field: str = "text"):
        self.field = field
        paths: dict[str, None] = {}
        for pattern in patterns:
            found = sorted(p for p in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(p))
            if not found:
                raise SourceError(f"--text {pattern!r}: matches no file{_nearby(pattern)}")
            paths |= dict.fromkeys(found)
        self.paths = [pathlib.Path(p) for p in paths]
        for path in self.paths:
            if not path.name.endswith(EXTENSIONS):
                raise SourceError(
                    f"{path}: cannot tell its format from its name; known are {', '.join(EXTENSIONS)}."
                    f"{units.did_you_mean(path.suffix, EXTENSIONS)}"
                )
            with _reading(path):
                if path.name.endswith(PARQUET):
                    self._columns(path)
                else:
                    path.open("rb").close()
        self.total_bytes = sum(p.stat().st_size for p in self.paths)
        self.found: dict[str, Any] = {}
        self.description = f"{len(self.paths)} file{'s' if len(self.paths) > 1 else ''}: {', '.join(patterns)}"

    def record(self) -> dict[str, Any]:
        """Name, size and SHA-256 of every file: reads all of them once, at about 1 GB/s."""
        files = [{"name": p.name, "bytes": p.stat().st_size, "sha256": self._sha256(p)} for p in self.paths]
        return {"kind": "files", "field": self.field, "files": files}

    def documents(self, advance: Advance) -> Iterator[Document]:
        for path in self.paths:
            with _reading(path):
                if path.name.endswith(TEXT):
                    yield Document(path.name, _TextFile(path, advance))
                elif path.name.endswith(JSONL):
                    yield from self._jsonl(path, advance)
                else:
                    yield from self._parquet(path, advance)

    @staticmethod
    def _sha256(path: pathlib.Path) -> str:
        with _reading(path), open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()

    def _jsonl(self, path: pathlib.Path, advance: Advance) -> Iterator[Document]:
        with _open(path, advance) as f:
            for number, line in enumerate(f, 1):  # a binary file: lines end at b"\n" alone, not at U+2028 or U+0085
                where = f"{path}:{number}"
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
                yield self._document(path, row[self.field], row.get("id"), number, where)

    def _columns(self, path: pathlib.Path) -> list[str]:
        """The columns to read of a Parquet file: the text's, and ``id`` where there is one."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(path)
        except (pa.ArrowInvalid, pa.ArrowException) as error:
            raise SourceError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}); write it again") from None
        if self.field not in schema.names:
            hint = units.did_you_mean(self.field, schema.names)
            raise SourceError(
                f"{path}: no column {self.field!r} (it has {', '.join(map(repr, schema.names[:8]))}); name the text with "
                f"--field.{hint}"
            )
        kind = schema.field(self.field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            raise SourceError(f"{path}: column {self.field!r} holds {kind}, not strings; name the text with --field")
        return [self.field, *(["id"] if "id" in schema.names and self.field != "id" else [])]

    def _parquet(self, path: pathlib.Path, advance: Advance) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = self._columns(path)
        size, number = path.stat().st_size, 0
        try:
            with pq.ParquetFile(path) as file:
                rows = max(1, file.metadata.num_rows)
                for batch in file.iter_batches(batch_size=256, columns=columns):
                    ids = batch.column("id").to_pylist() if len(columns) > 1 else [None] * batch.num_rows
                    for text, name in zip(batch.column(self.field).to_pylist(), ids, strict=True):
                        number += 1
                        yield self._document(path, text, name, number, f"{path}: row {number}")
                    advance(round(size * batch.num_rows / rows))
        except pa.ArrowException as error:
            raise SourceError(f"{path}: damaged after row {number} ({str(error).splitlines()[0]}); write it again") from None

    def _document(self, path: pathlib.Path, text: Any, name: Any, number: int, where: str) -> Document:
        if not isinstance(text, str):
            raise SourceError(
                f"{where}: field {self.field!r} is {text!r:.40}, not a string; mend or remove it, or use another --field"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SourceError(
                f"{where}: field {self.field!r} holds half a surrogate pair at character {error.start}; mend or remove it"
            ) from None
        part = name if isinstance(name, str | int) and not isinstance(name, bool) else number
        return Document(f"{path.name}#{part}", lambda limit: cut(text, limit))


class _TextFile:
    """The pieces of a .txt file, read as they are needed; a byte-order mark is dropped, line ends stay as they are."""

    def __init__(self, path: pathlib.Path, advance: Advance):
        self.path, self.advance = path, advance

    def __call__(self, limit: int) -> Iterator[str]:
        rest, pending, offset = "", b"", 0  # pending: the first bytes of a character; offset: of pending[0] in the text
        with _reading(self.path), _open(self.path, self.advance) as f:
            while True:
                block = f.read(READ_BYTES)
                data = pending + block
                if offset == 0 and data.startswith(codecs.BOM_UTF8):
                    data, offset = data[3:], 3
                try:
                    text, used = codecs.utf_8_decode(data, "strict", not block)
                except UnicodeDecodeError as error:
                    raise SourceError(
                        f"{self.path}: not UTF-8 at byte {offset + error.start} (value 0x{data[error.start]:02x}); convert it, "
                        f"for example with: iconv -f latin1 -t utf-8"
                    ) from None
                pending, offset = data[used:], offset + used
                *whole, rest = list(cut(rest + text, limit)) or [""]
                yield from whole
                if not block:
                    if rest:
                        yield rest
                    return


class _Counted(io.RawIOBase):
    """A raw file that tells how far it has been read, before decompression."""

    def __init__(self, path: pathlib.Path, advance: Advance):
        self._file, self._advance = open(path, "rb", buffering=0), advance  # noqa: SIM115 closed by close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._file.readinto(buffer) or 0
        self._advance(n)
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


class _Unzstd(io.RawIOBase):
    """A zstd file, frame after frame.  zstandard's own stream reader takes a file that was cut short for its end."""

    def __init__(self, raw: io.BufferedReader[Any]):
        import zstandard

        self._raw, self._decompressor = raw, zstandard.ZstdDecompressor(max_window_size=2**31)
        self._frame: Any = None
        self._input, self._output = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._raw.read1(READ_BYTES // 8)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it ends inside a zstd frame")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        n = min(len(buffer), len(self._output))
        buffer[:n], self._output = self._output[:n], self._output[n:]
        return n

    def close(self) -> None:
        self._raw.close()
        super().close()


def _open(path: pathlib.Path, advance: Advance) -> io.BufferedIOBase:
    raw = io.BufferedReader(_Counted(path, advance), READ_BYTES)
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if path.suffix == ".zst":
        return io.BufferedReader(_Unzstd(raw), READ_BYTES)
    return raw


class _reading:
    """Turns what the system and the decompressors raise into a SourceError that names the file."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error) or type(error).__name__ == "ZstdError":
            raise SourceError(f"{self.path}: damaged or cut short ({error}); copy or compress it again") from None
        if isinstance(error, OSError):
            raise SourceError(f"{self.path}: cannot be read ({error.strerror}); check its permissions") from None


def _nearby(pattern: str) -> str:
    """What is there instead, for a glob that matches nothing."""
    folder = os.path.dirname(pattern) or "."
    if glob.has_magic(folder):
        return "; check the folder, and quote the pattern so that the shell leaves it alone"
    if not os.path.isdir(folder):
        return f"; there is no folder {folder}"
    names = sorted(n for n in os.listdir(folder) if n.endswith(EXTENSIONS))
    hint = units.did_you_mean(os.path.basename(pattern), names)
    return f"; {folder} holds {len(names)} file(s) of a known kind ({', '.join(EXTENSIONS)}).{hint}"


# ---- the default corpus

_BLOCK = re.compile(r"</?(?:p|li|ul|ol|br|dl|dt|dd|note|important|div|h\d)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")
_MIN_LINE = 25  # characters; shorter lines are names and list items


class DemoSource:
    """The default corpus, read from the installed wheels of the ``demo`` extra: no network, the same on every Python.

    Raises:
      SourceError: where the extra is not installed, with the pip command.
    """

    description = DEMO_DESCRIPTION
    total_bytes = DEMO_BYTES

    def __init__(self) -> None:
        import importlib.metadata
        import importlib.util

        self.versions: dict[str, str] = {}
        for package, module in zip(DEMO_PINS, ("botocore", "googleapiclient"), strict=True):
            if importlib.util.find_spec(module) is None:
                raise SourceError(f"the default corpus needs {package}, which is not installed: pip install -e '.[demo]'")
            self.versions[package] = importlib.metadata.version(package)
        self.found: dict[str, Any] = {}
        self._documents: list[tuple[str, str]] = []

    def record(self) -> dict[str, Any]:
        return {"kind": "apidocs", "versions": self.versions}

    def documents(self, advance: Advance) -> Iterator[Document]:
        if self._documents:  # read before, to train a vocabulary; 48 MB
            yield from (self._document(name, text, advance) for name, text in self._documents)
            return
        documents: list[tuple[str, str]] = []
        sha, total = hashlib.sha256(), 0
        for name, text in api_documents():
            documents.append((name, text))
            data = text.encode()
            total += len(data)
            sha.update(name.encode() + b"\0" + data)
            yield self._document(name, text, advance)
        self._documents = documents
        self.found = {"documents": len(documents), "bytes": total, "sha256": sha.hexdigest()}
        if not sha.hexdigest().startswith(DEMO_SHA256):
            have = ", ".join(f"{package} {version}" for package, version in self.versions.items())
            want = ", ".join(f"{package} {version}" for package, version in DEMO_PINS.items())
            print(
                f"warning: the default corpus is not the usual one: {len(documents)} documents, {total:,} bytes, sha256 "
                f"{sha.hexdigest()[:16]} from {have}; expected {DEMO_DOCUMENTS}, {DEMO_BYTES:,}, {DEMO_SHA256} from {want}. "
                f"Results will be close to the published ones, not equal.",
                file=sys.stderr,
            )

    @staticmethod
    def _document(name: str, text: str, advance: Advance) -> Document:
        advance(len(text))
        return Document(name, lambda limit: cut(text, limit))


def api_documents() -> Iterator[tuple[str, str]]:
    """(id, text) of every service with text of its own, in order of name; a line that occurred before is left out."""
    seen_markup: set[bytes] = set()  # two thirds of the strings are copies, whose lines need no second look
    seen_lines: set[bytes] = set()
    for name, strings in _all_services():
        fresh: list[str] = []
        for markup in strings:
            if _is_new(markup, seen_markup):
                fresh += (line for line in prose_lines(markup) if _is_new(line, seen_lines))
        if fresh:
            yield name, "\n".join(fresh)


def _is_new(text: str, seen: set[bytes]) -> bool:
    """True the first time; not ``hash()``, which differs between processes."""
    key = hashlib.blake2b(text.encode(), digest_size=8).digest()
    before = len(seen)
    seen.add(key)
    return len(seen) > before


def prose_lines(markup: str) -> list[str]:
    """The lines of a piece of HTML that are long enough to be sentences, tags removed, blanks made single."""
    if "<" in markup:
        markup = _TAG.sub("", _BLOCK.sub("\n", markup))
    lines = (" ".join(line.split()) for line in html.unescape(markup).split("\n"))
    return [line for line in lines if len(line) >= _MIN_LINE]


def _all_services() -> Iterator[tuple[str, Iterable[str]]]:
    from importlib import resources

    for service in sorted((resources.files("botocore") / "data").iterdir(), key=lambda p: p.name):
        if not service.is_dir():
            continue
        for version in sorted((v for v in service.iterdir() if v.is_dir()), key=lambda p: p.name, reverse=True):
            files = [f for f in version.iterdir() if f.name in ("service-2.json.gz", "service-2.json")]
            if files:  # the newest version that describes a service
                data = files[0].read_bytes()
                tree = json.loads(gzip.decompress(data) if files[0].name.endswith(".gz") else data)
                yield f"botocore/{service.name}", _strings(tree, {"documentation"})
                break
    folder = resources.files("googleapiclient") / "discovery_cache" / "documents"
    for file in sorted(folder.iterdir(), key=lambda p: p.name):
        if file.name.endswith(".json"):
            yield f"google/{file.name}", _strings(json.loads(file.read_bytes()), {"description", "enumDescriptions"})


def _strings(tree: Any, keys: set[str]) -> list[str]:
    """Every string, also in a list, that stands under one of ``keys``, in the order of the file."""
    found: list[str] = []

    def walk(tree: Any) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                if key in keys and isinstance(value, str):
                    found.append(value)
                elif key in keys and isinstance(value, list):
                    found.extend(x for x in value if isinstance(x, str))
                elif isinstance(value, dict | list):
                    walk(value)
        elif isinstance(tree, list):
            for value in tree:
                if isinstance(value, dict | list):
                    walk(value)

    walk(tree)
    return found
