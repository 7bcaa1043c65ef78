"""What all commands share: dotted config overrides, and how a problem is told (one message, exit status 2)."""

from __future__ import annotations

import ast
import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any

from scaling import runs
from scaling.config import ConfigError

PREFIX = "--config."


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """``['--slots', '2', '--config.model.depth=6']`` → ``(['--slots', '2'], {'model.depth': 6})``.

    Values are Python literals where they parse as one, text otherwise.

    Raises:
      ConfigError: for an override without a value.
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


def guarded(main: Callable[[], int], *known: type[Exception]) -> int:
    """Runs ``main``; problems that the user can mend end as one message without a traceback.

    Args:
      main: returns an exit status.
      known: exception types beyond ConfigError, RunError and permission problems.
    """
    try:
        return main()
    except Exception as error:
        if isinstance(error, (ConfigError, runs.RunError, *known)):
            return tell(error)
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = f"{error.filename}: no permission to write; choose another folder or change its owner"
            return tell(PermissionError(what))
        raise
