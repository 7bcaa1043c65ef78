"""The default corpus: API-reference prose, read from the wheels of the ``demo`` extra; no network, the same everywhere."""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from scaling.sources.base import Advance, Document, SourceError
from scaling.tokenizer import cut

DEMO_PINS = {"botocore": "1.44.5", "google-api-python-client": "2.202.0"}
DEMO_DOCUMENTS, DEMO_BYTES, DEMO_SHA256 = 982, 47_760_883, "5a04df359985e8d9"
DEMO_DESCRIPTION = (
    "API-reference prose of AWS services (botocore) and Google APIs (google-api-python-client), taken from the data files of "
    "their Apache-2.0 wheels, one document per service, repeated lines removed. Technical and templated English, about 1.8 "
    "times more compressible than books: losses on it are not comparable with losses on web text or books, only the ladder's "
    "shape is."
)

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
