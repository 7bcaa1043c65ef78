"""Lock files and folders that are there while they are used: what is refused leaves nothing behind.

The system lets go of a lock however its holder ends; the file of a killed one stays and does no harm.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import IO


@contextlib.contextmanager
def made(folder: pathlib.Path) -> Iterator[None]:
    """Makes ``folder`` and those above it; what was made and is empty at the end goes again."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]  # the deepest first
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty: something came of it
            for path in missing:
                path.rmdir()


@contextlib.contextmanager
def held(path: pathlib.Path, take: Callable[[IO[str]], None]) -> Iterator[IO[str]]:
    """Holds the lock file ``path``.

    Args:
      path: of the file.
      take: locks the opened file with ``flock``, or raises what it means that another process holds it.
    """
    with made(path.parent), _taken(path, take) as file:
        try:
            yield file
        finally:
            with contextlib.suppress(OSError):  # of a file system that has become read-only
                path.unlink()  # while it is held: nobody else can have taken it


def exclusively(file: IO[str]) -> None:
    """Takes the lock.

    Raises:
      BlockingIOError: when another process holds it.
    """
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _taken(path: pathlib.Path, take: Callable[[IO[str]], None]) -> IO[str]:
    """The open file, locked, and still the one of that name: its last holder may have removed the one that was opened."""
    while True:
        file = open(path, "a+")  # noqa: SIM115 the caller closes it
        try:
            take(file)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
