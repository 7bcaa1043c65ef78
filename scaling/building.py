"""How a token store comes to be: by one builder at a time, whole or not at all.  Imports no jax.

A store is written beside its place under a hidden name and renamed when it is complete, so a folder of that name is a
finished store or no store.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from scaling import locks
from scaling.store import STORE, StoreError, TokenStore, open_store


def make_store(out: pathlib.Path, recipe: dict[str, Any], write: Callable[[pathlib.Path], None]) -> TokenStore:
    """The store ``out``, written by ``write`` into the folder that it is given, or opened where it is there already.

    Two builds of one store at the same time do the work once: the second waits for the first.

    Args:
      out: the folder to make.
      recipe: what decides the content, as ``write`` puts it into store.json; a store of another recipe is refused.
      write: fills an empty folder, ``store.json`` last.

    Raises:
      StoreError: when ``out`` cannot be written or holds something else.
    """
    if out.name in ("", ".."):
        raise StoreError(f"--out {out}: has no name of its own; name a folder to make, such as tokens/books")
    try:
        with _lock(out):
            if _exists(out):
                return _same_store(out, recipe)
            _sweep_leftovers(out)
            temporary = out.with_name(f".{out.name}.{socket.gethostname()}.{os.getpid()}.tmp")
            temporary.mkdir()
            try:
                write(temporary)
                if out.is_dir():
                    out.rmdir()  # empty, or it would have been refused
                os.rename(temporary, out)
                sync(out.parent)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as error:
        raise StoreError(
            f"{out}: cannot be written ({error.strerror}: {error.filename or out}); choose another --out"
        ) from None
    return open_store(out)


def _exists(out: pathlib.Path) -> bool:
    return os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir()))


def _same_store(out: pathlib.Path, recipe: dict[str, Any]) -> TokenStore:
    if not (out / STORE).exists():
        raise StoreError(f"{out}: exists and is no token store; choose another --out or remove it")
    store = open_store(out)
    old = json.loads((out / STORE).read_bytes())["recipe"]
    if old != recipe:
        changed = ", ".join(key for key in recipe | old if old.get(key) != recipe.get(key))
        raise StoreError(
            f"{out}: holds a store of another {changed} ({store.description:.80}); choose another --out or remove it"
        )
    return store


@contextlib.contextmanager
def _lock(out: pathlib.Path) -> Iterator[None]:
    """One builder at a time; a killed one lets go by itself."""
    import fcntl

    def take(file: IO[str]) -> None:
        try:
            locks.exclusively(file)
        except BlockingIOError:
            print(f"{out}: another process is building it, waiting", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)

    with locks.held(out.with_name(f".{out.name}.lock"), take):
        yield


def _sweep_leftovers(out: pathlib.Path) -> None:
    """Removes what killed builds of ``out`` left on this host."""
    prefix = f".{out.name}.{socket.gethostname()}."
    for folder in out.parent.iterdir():
        name = folder.name
        if not (name.startswith(prefix) and name.endswith(".tmp")):
            continue
        pid = name[len(prefix) : -len(".tmp")]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # the lock is ours and this build has not begun: an earlier process with the same number
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_record(folder: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes ``store.json``, the last file of a store, and syncs the folder."""
    (folder / STORE).write_text(json.dumps(content, indent=1) + "\n")
    sync(folder / STORE)
    sync(folder)


def sync(path: pathlib.Path) -> None:
    """Flushes a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Progress:
    """Tells how far long work is, on stderr: nothing for two seconds, then a bar on a terminal, else a line every ten.

    Args:
      what: is being done.
      total: of what ``advance`` will be told.
      unit: a million of what is counted.
    """

    QUIET_SECONDS, LINE_SECONDS = 2.0, 10.0

    def __init__(self, what: str, total: int, unit: str = "MB"):
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self.start = time.monotonic()
        self._next = self.start + self.QUIET_SECONDS
        self._bar: Any = None

    def advance(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        if now < self._next:
            return
        if sys.stderr.isatty():
            self._next = now + 0.2
            if self._bar is None:
                self._bar = self._start_bar()
            self._bar.update(0, completed=self.done)
        else:
            self._next = now + self.LINE_SECONDS
            share = min(1.0, self.done / self.total) if self.total else 0.0
            left = f", about {(now - self.start) * (1 / share - 1):.0f} s left" if share else ""
            of = f" of {self.total / 1e6:,.1f}" if self.total else ""
            print(f"{self.what}: {self.done / 1e6:,.1f}{of} {self.unit}{left}", file=sys.stderr, flush=True)

    def _start_bar(self) -> Any:
        from rich import console, progress

        count = progress.DownloadColumn() if self.unit == "MB" else progress.MofNCompleteColumn()
        columns = ("{task.description}", progress.BarColumn(), count, progress.TimeRemainingColumn())
        bar = progress.Progress(*columns, console=console.Console(stderr=True))
        bar.add_task(self.what, total=self.total or None)
        bar.start()
        return bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
