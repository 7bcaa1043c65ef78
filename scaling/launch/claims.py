"""Which cores and devices are taken: an open, locked file for each, which the worker inherits.

However a worker ends, the system gives its locks back; nothing is left behind by a kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib


def folder() -> pathlib.Path | None:
    """Where all launchers of this user on this host meet; None where there is no such place."""
    path = pathlib.Path(os.environ.get("TMPDIR") or "/tmp") / f"scaling-{os.getuid()}"
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid == os.getuid() and os.access(path, os.W_OK):
            return path
    return None


def take(kind: str, slot: str) -> int | None:
    """An open file that holds a slot for as long as any process has it open; None while another sweep's worker does."""
    place = folder()
    if place is None:  # nowhere to agree with others
        return os.open(os.devnull, os.O_RDONLY)
    number = os.open(place / f"{kind}-{slot.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number
