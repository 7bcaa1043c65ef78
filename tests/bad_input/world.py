"""The folder that cases spoil a copy of, and the ways of spoiling it."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

Folder = pathlib.Path
Spoil = Callable[[Folder], None]

CONFIG = """\
import os

import ml_collections

from scaling import sweep
from scaling.config import default_dict


def get_config(arg=""):
    config = ml_collections.ConfigDict(default_dict())
    config.model.update(depth=1, width=16, context=16)
    config.batch, config.budget, config.marks = "128 tokens", "20 steps", ("10 steps",)
    config.data.update(store="tokens/small", val_windows=8)
    config.machine.compile_cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    config.evals, config.run_dir = 1, "runs/one"
    return config
"""
SWEEP = """

def get_sweep(config):
    config.marks = ()
    return sweep.fork(config, ["20 steps", "40 steps"])
"""
TABLE = "params,tokens,val_loss\n" + "".join(
    f"{n},{d},{1 + 210 * n**-0.66 + 6649 * d**-0.72}\n" for n in (5e4, 1e5, 2e5) for d in (1e6, 2e6, 4e6)
)


def make_world(folder: Folder) -> Folder:
    """Text, two token stores, a config, a sweep with its trunk trained, two single runs, a table: all that cases spoil."""
    from scaling import corpus, runs, sources, train
    from scaling.launch import __main__ as launch
    from scaling.launch import folder as folders
    from scaling.launch import prepare

    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), signals_kept():
        pathlib.Path("text").mkdir()
        lines = "".join(f"Line {i} says that {i} is {i * i % 97} by {i % 89}, or so.\n\n" for i in range(800))
        pathlib.Path("text/lines.txt").write_text(lines)
        pathlib.Path("text/rows.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines.split("\n\n")))
        for name, vocab in (("small", "bytes"), ("bpe", "300"), ("other", "310")):
            corpus.build(sources.FileSource(["text/lines.txt"]), f"tokens/{name}", vocab)
        pathlib.Path("one.py").write_text(CONFIG)
        pathlib.Path("sweep.py").write_text(CONFIG + SWEEP)
        pathlib.Path("mine.csv").write_text(TABLE)
        _, request, _ = launch.parse(["--sweep", "sweep.py"])
        prepared = prepare.complete(request, prepare.check(request, writes=True), build=False, say=print)
        folders.write_sweep(prepared.folder, prepared.items, prepared.head(), {})
        run = ["--config", "one.py"]
        for words in (["--spec", "runs/sweep/causal-trunk/spec.json"], run, [*run, *WIDE.split()]):
            if train.main(words) != 0:
                raise RuntimeError(f"the folder that cases spoil could not be made: scaling.train {words}")
        pathlib.Path("runs/one", runs.DONE).unlink()  # as a run that was stopped
    return folder


WIDE = "--config.model.width=32 --config.run_dir=runs/wide"


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """The trainer listens to signals; what listened before gets them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- ways of spoiling it


def write(path: str, content: str | bytes) -> Spoil:
    """Puts a file in the folder."""
    data = content.encode() if isinstance(content, str) else content

    def spoil(folder: Folder) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)

    return spoil


def change(path: str, old: str, new: str) -> Spoil:
    """Replaces text in a file, which must hold it."""

    def spoil(folder: Folder) -> None:
        text = (folder / path).read_text()
        assert old in text, f"{path} does not hold {old!r}"
        (folder / path).write_text(text.replace(old, new, 1))

    return spoil


def edit_table(cells: dict[int, tuple[str, str | Callable[[str], str]]]) -> Spoil:
    """Changes a cell in lines of mine.csv: line number -> column and its new text, or what makes that of the old."""
    lines = [line.split(",") for line in TABLE.splitlines()]
    for number, (column, new) in cells.items():
        at = lines[0].index(column)
        lines[number - 1][at] = new if isinstance(new, str) else new(lines[number - 1][at])
    return write("mine.csv", "\n".join(",".join(line) for line in lines) + "\n")


def shorten(path: str, part: float = 0.5) -> Spoil:
    """Cuts a file."""

    def spoil(folder: Folder) -> None:
        data = (folder / path).read_bytes()
        (folder / path).write_bytes(data[: int(len(data) * part)])

    return spoil


def remove(pattern: str) -> Spoil:
    """Takes files and folders away."""

    def spoil(folder: Folder) -> None:
        found = list(folder.glob(pattern))
        assert found, f"there is no {pattern}"
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def copy(source: str, target: str) -> Spoil:
    """Puts a folder in the place of another."""

    def spoil(folder: Folder) -> None:
        shutil.rmtree(folder / target, ignore_errors=True)
        shutil.copytree(folder / source, folder / target)

    return spoil


def copy_file(source: str, target: str) -> Spoil:
    """Puts a file in the place of another."""
    return lambda folder: write(target, (folder / source).read_bytes())(folder)


def compressed(path: str, pack: Callable[[bytes], bytes]) -> Spoil:
    """Puts a compressed text in the folder that was cut short on its way."""

    def spoil(folder: Folder) -> None:
        data = pack((folder / "text/lines.txt").read_bytes())
        (folder / path).write_bytes(data[: len(data) // 2])

    return spoil


def zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


def store_json(edit: Callable[[Any], None]) -> Spoil:
    """Changes the small store's store.json."""

    def spoil(folder: Folder) -> None:
        path = folder / "tokens/small/store.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return spoil


def sweep_file(body: str) -> Spoil:
    """A sweep file whose get_sweep is ``body``."""
    return write("mine.py", CONFIG + "\n\ndef get_sweep(config):\n" + "".join(f"    {line}\n" for line in body.split("\n")))
