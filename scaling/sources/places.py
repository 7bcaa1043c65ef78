"""Where files lie and how they are opened: on this machine by path or glob, elsewhere by any address that fsspec knows
(gs://, s3://, hf://, https://, memory://, members of archives as zip://*.txt::gs://bucket/a.zip), packed or not."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import gzip
import hashlib
import io
import os
import pathlib
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scaling import units
from scaling.building import Progress
from scaling.sources.base import Advance, SourceError

READ_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class File:
    """One file.

    Attributes:
      path: as its file system knows it.
      shown: as messages name it.
      bytes: its size as it is stored.
      system: of fsspec; None for this machine's own.
    """

    path: str
    shown: str
    bytes: int
    system: Any = None

    @property
    def name(self) -> str:
        """The last part of its path; documents are named after it, so that a split survives a move."""
        return self.path.rstrip("/").rpartition("/")[2] if self.system else os.path.basename(self.path)

    def open(self) -> Any:
        """The stored bytes, to be read from the beginning; some systems can seek."""
        return open(self.path, "rb", buffering=0) if self.system is None else self.system.open(self.path, "rb")

    def unpacked(self, advance: Advance) -> io.BufferedIOBase:
        """Its content, decompressed by the ending of its name; ``advance`` is told of the stored bytes."""
        raw = io.BufferedReader(_Counted(self.open(), advance), READ_BYTES)
        if self.name.endswith(".gz"):
            return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
        if self.name.endswith(".zst"):
            return io.BufferedReader(_Unzstd(raw), READ_BYTES)
        return raw

    @contextlib.contextmanager
    def local(self) -> Iterator[str]:
        """A path on this machine with the stored bytes, for readers that need one: itself, or a copy for as long as it is
        read."""
        if self.system is None:
            yield self.path
            return
        with tempfile.NamedTemporaryFile() as copy, self.open() as f, Progress(f"copying {self.name}", self.bytes) as progress:
            while block := f.read(READ_BYTES):
                copy.write(block)
                progress.advance(len(block))
            copy.flush()
            yield copy.name


def sha256(files: Sequence[File]) -> list[str]:
    """Of the stored bytes of every file: reads all of them once, from a disk at about 1 GB/s."""
    out = []
    with Progress("reading for the fingerprint", sum(f.bytes for f in files)) as progress:
        for file in files:
            digest = hashlib.sha256()
            with reading(file), file.open() as f:
                while block := f.read(READ_BYTES):
                    digest.update(block)
                    progress.advance(len(block))
            out.append(digest.hexdigest())
    return out


def find(pattern: str, known: Callable[[str], object]) -> list[File]:
    """The files of a path, a glob or an address, in order of name.

    Args:
      pattern: '**' goes into subfolders.
      known: whether a file's name tells a format, for the hint when nothing matches.

    Raises:
      SourceError: when it matches nothing, or lies where this installation cannot look.
    """
    if "://" in pattern:
        return _find_elsewhere(pattern)
    found = sorted(p for p in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(p))
    if not found:
        raise SourceError(f"--text {pattern!r}: matches no file{_nearby(pattern, known)}")
    return [File(p, str(pathlib.Path(p)), os.path.getsize(p)) for p in found]


def _find_elsewhere(address: str) -> list[File]:
    import fsspec

    first, chain, rest = address.partition("::")
    protocol = first.partition("://")[0]
    try:
        system, path = fsspec.core.url_to_fs(address)
        names = sorted(system.glob(path)) if glob.has_magic(path) else [path]
        infos = [system.info(name) for name in names]
    except ImportError as error:
        raise SourceError(f"--text {address!r}: {protocol}:// needs a package ({error}): pip install -e '.[cloud]'") from None
    except FileNotFoundError:
        raise SourceError(f"--text {address!r}: matches no file; check the address and the name") from None
    except ValueError as error:  # an unknown protocol
        raise SourceError(f"--text {address!r}: {error}; known are gs://, s3://, hf://, https://, file:// and paths") from None
    except Exception as error:  # each system has its own: no network, no such bucket, no credentials
        raise SourceError(f"--text {address!r}: {_brief(error)}; check the address and your credentials") from None
    files = [
        File(name, f"{protocol}://{name.removeprefix(f'{protocol}://')}{chain}{rest}", info["size"] or 0, system)
        for name, info in zip(names, infos, strict=True)
        if info["type"] == "file"
    ]
    if not files:
        raise SourceError(
            f"--text {address!r}: matches no file; check the address, and quote it so that the shell leaves it alone"
        )
    return files


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__


def _nearby(pattern: str, known: Callable[[str], object]) -> str:
    """What is there instead, for a glob that matches nothing."""
    folder = os.path.dirname(os.path.expanduser(pattern)) or "."
    if glob.has_magic(folder):
        return "; check the folder, and quote the pattern so that the shell leaves it alone"
    if not os.path.isdir(folder):
        return f"; there is no folder {folder}"
    names = sorted(n for n in os.listdir(folder) if known(n))
    return f"; {folder} holds {len(names)} file(s) of a known kind.{units.did_you_mean(os.path.basename(pattern), names)}"


class reading:
    """Turns what the system and the decompressors raise into a SourceError that names the file."""

    def __init__(self, file: File):
        self.file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        shown = self.file.shown
        if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error) or type(error).__name__ == "ZstdError":
            raise SourceError(f"{shown}: damaged or cut short ({error}); copy or compress it again") from None
        if isinstance(error, SourceError) or not isinstance(error, Exception):
            return
        if self.file.system is not None and not isinstance(error, UnicodeError):
            raise SourceError(f"{shown}: cannot be read ({_brief(error)}); check the address and your credentials") from None
        if isinstance(error, OSError):
            raise SourceError(f"{shown}: cannot be read ({error.strerror}); check its permissions") from None


class _Counted(io.RawIOBase):
    """A raw file that tells how far it has been read, before decompression."""

    def __init__(self, file: Any, advance: Advance):
        self._file, self._advance = file, advance

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
