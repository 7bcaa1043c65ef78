"""Bad input: what a user gives wrong, through the real commands, and the page that lists what they are told.

    python -m tests.bad_input --write docs/errors.md

A case is a command in a folder of its own, which holds text, token stores, config and sweep files, trained runs and tables, one
of them spoiled.  ``tests/test_bad_input.py`` checks every answer; the page is made from the same answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys

from . import asking, files, settings
from .case import EVALS, LAUNCH, Case
from .world import Folder, make_world, signals_kept

__all__ = ["CASES", "REPO", "Answer", "Case", "answer", "make_world", "message", "page"]

CASES = settings.CASES | files.CASES | asking.CASES
REPO = pathlib.Path(__file__).parents[2]
ENTRY = {name: f"{name}.__main__" for name in (LAUNCH, EVALS)}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command did."""

    status: int | str | None
    printed: str
    stderr: str
    changed: tuple[str, ...]  # files and folders that were made, changed or removed


def answer(case: Case, folder: Folder) -> Answer:
    """Spoils the folder, runs the command in it, and says what it did."""
    case.spoil(folder)
    before = contents(folder)
    module, *words = shlex.split(case.command)
    status, out, err = (_as_process if case.process else _in_process)(module, words, folder)
    after = contents(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Answer(status, out, err, tuple(changed))


def _as_process(module: str, words: list[str], folder: Folder) -> tuple[int, str, str]:
    env = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=folder, capture_output=True, text=True, env=env)
    return done.returncode, done.stdout, done.stderr


def _in_process(module: str, words: list[str], folder: Folder) -> tuple[int | str | None, str, str]:
    """As ``python -m module words``: what main returns is the exit status."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), signals_kept():
        try:
            status: int | str | None = importlib.import_module(ENTRY.get(module, module)).main(words)
        except SystemExit as exit:
            status = exit.code
    return status, out.getvalue(), err.getvalue()


def contents(folder: Folder) -> dict[str, str]:
    """Every file with the hash of its content, and every folder."""
    return {
        str(path.relative_to(folder)): "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
    }


# ---- the page

HEAD = """\
# What is said about bad input

Every row is a mistake, made in a folder of text, token stores, configs, runs and tables, and the answer of the real command:
exit status 2, one message that names the place, the field, the value and a remedy, no traceback, and no file changed.
`python -m tests.bad_input --write docs/errors.md` makes this page; `tests/test_bad_input.py` checks each row and this page.
`…` stands for what depends on the machine. Spoiled files are not shown.
"""


def message(case: Case, answer: Answer, folder: Folder) -> str:
    """What was said, without what depends on the machine."""
    text = answer.stderr.strip().replace(f"{folder}/", "").replace(f"{REPO}/", "…/")
    return re.sub(case.varies, "…", text) if case.varies else text


def page(said: dict[Case, str]) -> str:
    """docs/errors.md."""
    parts = [HEAD]
    for group, cases in CASES.items():
        parts.append(f"\n## {group}\n\n| mistake | command | answer |\n|---|---|---|\n")
        for case in cases:
            answer = "<br>".join(f"`{line.strip()}`" for line in said[case].replace("|", "\\|").replace("`", "'").splitlines())
            parts.append(f"| {case.name} | `python -m {case.command}` | {answer} |\n")
    return "".join(parts)
