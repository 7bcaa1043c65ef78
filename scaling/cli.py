"""What all commands share: dotted config overrides, and how a problem is told (one message, exit status 2)."""

from __future__ import annotations

import argparse
import ast
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from scaling import runs
from scaling.config import ConfigError

PREFIX = "--config."


class Parser(argparse.ArgumentParser):
    """Tells a problem of the command line as any other: one message, exit status 2, no page of usage."""

    def __init__(self, **options: Any):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError with the problem."""
        for kind, wanted in (("int", "a whole number"), ("float", "a number")):
            message = re.sub(rf"invalid {kind} value: (.*)", rf"\1 must be {wanted}", message)
        raise ConfigError([f"{message.removeprefix('argument ')}; see {self.prog} --help"], "command line")


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """``['--slots', '2', '--config.model.depth=6']`` → ``(['--slots', '2'], {'model.depth': 6})``.

    Values are Python literals where they parse as one, text otherwise.

    Raises:
      ConfigError: for an override without a value, and for a field that is set twice.
    """
    rest: list[str] = []
    overrides: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith(PREFIX):
            rest.append(word)
            continue
        name, equals, value = word[len(PREFIX) :].partition("=")
        if not equals:
            value = next(words, "")
        if not name or not value or (not equals and value.startswith("--")):
            raise ConfigError([f"{word}: needs a value, such as {PREFIX}model.depth=6"], "command line")
        if name in overrides:
            given = f"{PREFIX}{name}={overrides[name]!r} and ={_literal(value)!r}"
            raise ConfigError([f"{given}: set twice; give it once"], "command line")
        overrides[name] = _literal(value)
    return rest, overrides


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def tell(problem: Exception) -> int:
    """Prints a problem that the user can mend, and returns the exit status for it."""
    print(f"error: {problem}", file=sys.stderr, flush=True)
    return runs.BAD_CONFIG


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def remedy(error: Exception) -> str | None:
    """What to do about an error of the file system, in one sentence; None for any other error.

    Orbax's writers tell it in words alone: there the number is found by the system's own text for it.
    """
    numbers = (*_FULL, *_FORBIDDEN)
    if isinstance(error, OSError):
        number, place = error.errno, f"{error.filename}: " if error.filename else ""
    else:
        number, place = next((n for n in numbers if os.strerror(n) in str(error)), None), ""
    if number in _FULL:
        return f"{place}{os.strerror(number)}; make room, and the same command goes on from what was saved"
    if number in _FORBIDDEN:
        why = os.strerror(number)
        return f"{place or 'run_dir: '}no permission to write ({why}); choose another folder or change its owner"
    return None


def guarded(main: Callable[[], int], *known: type[Exception]) -> int:
    """Runs ``main``; problems that the user can mend end as one message without a traceback.

    Args:
      main: returns an exit status.
      known: exception types beyond ConfigError, RunError and what ``remedy`` knows.
    """
    try:
        return main()
    except Exception as error:
        if isinstance(error, (ConfigError, runs.RunError, *known)):
            return tell(error)
        words = remedy(error)
        if words is None:
            raise
        return tell(OSError(words))
