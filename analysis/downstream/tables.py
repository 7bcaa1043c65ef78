"""Task loss and accuracy of a ladder's checkpoints, task by task: from run directories, anybody's CSV, or what is shipped."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import importlib.resources
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analysis import load
from analysis.load import LoadError, Table
from scaling import runs as run_files
from scaling.units import format_count

EVALS = "evals.jsonl"
SHIPPED = "olmo_steps.csv.gz"
NEEDED = ("task", "run", "n_params", "tokens", "loss", "accuracy")
OPTIONAL = ("n", "chance", "cluster", "flops", "annealed")
UNNAMED = "task loss"  # where nobody said what its unit is
AT_ITS_END = 0.01  # a checkpoint whose tokens are within this of the run's end is its end
# Published forecasts over what was measured, less 1, in percent (Bhagia et al. 2024, their code run on their tables).
PUBLISHED = {
    "MMLU": {"7B-4T": -1.3, "13B-5T": -0.7}, "HellaSwag": {"7B-4T": 1.4, "13B-5T": 2.5},
    "ARC-Challenge": {"7B-4T": -16.9, "13B-5T": -17.5}, "ARC-Easy": {"7B-4T": -9.4, "13B-5T": -11.4},
    "PIQA": {"7B-4T": -1.0, "13B-5T": -1.1}, "CommonsenseQA": {"7B-4T": 4.2, "13B-5T": 4.7},
    "Social IQa": {"7B-4T": -2.0, "13B-5T": -2.7}, "OpenBookQA": {"7B-4T": -10.6, "13B-5T": -7.8},
}  # fmt: skip
# What is counted and what is its loss, in the order of preference: bytes compare across tokenizers.
_COUNTED, _LOSSES = ("acc", "exact_match"), ("nll_byte", "nll_token")
_LOSS_NAMES = {"nll_byte": "nats per byte of the right answer", "nll_token": "nats per token of the right answer"}


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run's checkpoints on one task, ascending in tokens; arrays are (checkpoints,).

    Attributes:
      cluster: runs of one trunk share one.
      ends: whether the last checkpoint is a finished, annealed run's end, which step 1 is fitted to.
      loss: of the right answer, in the task's unit.
      accuracy: share of items answered right.
    """

    id: str
    cluster: str
    size: str
    n_params: float
    ends: bool
    tokens: np.ndarray
    flops: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One task over the runs of a ladder.

    Attributes:
      chance: accuracy of a guess; 0 for exact match.
      items: asked of every checkpoint; NaN where unknown.
    """

    name: str
    chance: float
    items: float
    runs: tuple[Run, ...]
    loss_name: str = UNNAMED
    source: str = "arrays"

    def where(self, keep: Callable[[Run], bool]) -> Task:
        """The task with only the runs for which ``keep(run)``."""
        return dataclasses.replace(self, runs=tuple(r for r in self.runs if keep(r)))

    def largest(self) -> float:
        """Parameters of the largest size."""
        return max(r.n_params for r in self.runs)


def asked(path: str | os.PathLike[str]) -> bool:
    """Whether any member of a sweep folder has been scored on a task."""
    return any((member.path / EVALS).exists() for member in run_files.members(path))


def of_runs(path: str | os.PathLike[str], table: Table) -> list[Task]:
    """The tasks of a sweep folder whose members have evals.jsonl, most shots first.

    One for each (suite, task, split, format, shots).

    Args:
      path: the sweep's folder.
      table: ``load.runs`` of it, which says what N is, which runs share a trunk and which are finished and annealed.

    Raises:
      LoadError: no member has been scored, or a row lacks a field.
    """
    known = {row.id: row for row in table.rows}
    found: dict[tuple[Any, ...], dict[str, dict[float, dict[str, Any]]]] = {}
    for member in run_files.members(path):
        for row in _evals(member.path / EVALS):
            key = tuple(row[k] for k in ("suite", "task", "split", "format", "shots"))
            found.setdefault(key, {}).setdefault(member.id, {})[row["tokens"]] = row  # later rows replace earlier ones
    if not found:
        score = f"python -m scaling.evals --run {path}"
        raise LoadError(f"{path}: no member has an {EVALS} with accuracies; score them with `{score}`")
    names = _names(found)
    most_first = sorted(found, key=lambda key: -key[-1])  # shots: prompts with examples are what a task is best asked with
    return [_task(names[key], known, found[key], str(path)) for key in most_first]


def _evals(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The usable rows of one evals.jsonl: those with something counted and the loss of the right answer."""
    if not path.exists():
        return
    for number, row in enumerate(run_files.read_jsonl(path), 1):
        if row.get("kind") != "eval":
            continue
        missing = [k for k in ("suite", "task", "split", "format", "shots", "tokens", "n", "chance", "metrics") if k not in row]
        if missing:
            again = "score the run again with `python -m scaling.evals`"
            raise LoadError(f"{path}, row {number}: no {', '.join(missing)}; {again}")
        counted, loss = _first(row["metrics"], _COUNTED), _first(row["metrics"], _LOSSES)
        if counted is not None and loss is not None:
            yield row | {"accuracy": counted[1], "loss": loss[1], "loss_name": _LOSS_NAMES[loss[0]]}


def _first(metrics: Mapping[str, Any], names: Sequence[str]) -> tuple[str, float] | None:
    for name in names:
        value = (metrics.get(name) or {}).get("value")
        if isinstance(value, int | float) and math.isfinite(value):
            return name, float(value)
    return None


def _names(keys: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """The task with its format and shots, and what else it takes to tell two apart."""
    out: dict[tuple[Any, ...], str] = {}
    for suite, task, split, form, shots in keys:
        name = f"{task} ({form}, {shots}-shot)"
        if name in out.values():
            name = f"{suite} {task} ({form}, {shots}-shot, {split})"
        out[suite, task, split, form, shots] = name
    return out


def _task(name: str, known: Mapping[str, load.Row], per_run: Mapping[str, Mapping[float, Any]], source: str) -> Task:
    out = []
    for id_, rows in per_run.items():
        member, at = known[id_], [rows[t] for t in sorted(rows)]
        tokens = np.array([row["tokens"] for row in at], float)
        done = member.excluded is None and abs(tokens[-1] / member.n_tokens - 1) < AT_ITS_END
        numbers = (np.array([row[k] for row in at], float) for k in ("loss", "accuracy"))
        flops = member.flops * tokens / member.n_tokens  # by the table's convention
        out.append(Run(id_, member.cluster, member.size, member.n_params, done, tokens, flops, *numbers))
    row = next(iter(next(iter(per_run.values())).values()))
    return Task(name, float(row["chance"]), float(row["n"]), tuple(out), row["loss_name"], source)


def of_csv(path: str | os.PathLike[str]) -> list[Task]:
    """Tasks from a CSV (or .csv.gz) of one line per checkpoint and task; lines that begin with # are notes.

    Columns: task, run, n_params, tokens, loss, accuracy (0 to 1), and, where known, n (items), chance, cluster (runs of one
    trunk share one), flops and annealed (0: the run's end does not enter step 1).

    Raises:
      LoadError: no such file, a column that is missing, or a cell that is not its number, with line, column and value.
    """
    try:
        data = pathlib.Path(path).read_bytes()
        text = (gzip.decompress(data) if str(path).endswith(".gz") else data).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LoadError(f"{path}: {getattr(error, 'strerror', None) or error}; give a CSV, or one packed as .csv.gz") from None
    return _from_text(text, str(path))


def shipped() -> list[Task]:
    """The OLMo ladder: eight tasks over 27 runs of 190M to 13B parameters (Bhagia et al. 2024, arXiv 2412.04403)."""
    data = (importlib.resources.files("analysis.emergence") / "data" / SHIPPED).read_bytes()
    source = "the OLMo ladder (Bhagia et al. 2024, arXiv 2412.04403)"
    return [
        dataclasses.replace(task, loss_name="bits per byte of the right answer")
        for task in _from_text(gzip.decompress(data).decode(), source)
    ]


def as_published(task: Task) -> tuple[Task, list[Run]]:
    """Of a shipped task, the 16 runs that the published fits are of (up to 1.3B, 1 to 10 times Chinchilla) and both targets."""
    targets = [r for r in task.runs if r.id in PUBLISHED["MMLU"]]
    return task.where(lambda r: r.n_params < 2e9 and not r.id.endswith("-0.5xC")), targets


def _from_text(text: str, source: str) -> list[Task]:
    numbered = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    reader = csv.DictReader(io.StringIO("\n".join(line for _, line in numbered)))
    header = reader.fieldnames or []
    if missing := [name for name in NEEDED if name not in header]:
        raise LoadError(
            f"{source}: no column {', '.join(missing)}; it has {', '.join(header) or 'none'}; needed: {', '.join(NEEDED)}; "
            f"optional: {', '.join(OPTIONAL)}"
        )
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for (line, _), cells in zip(numbered[1:], reader, strict=True):
        row = _numbers(cells, f"{source}, line {line}")
        found.setdefault(cells["task"], {}).setdefault(cells["run"], []).append(row)
    if not found:
        raise LoadError(f"{source}: no rows under the header")
    return [_csv_task(name, per_run, source) for name, per_run in found.items()]


def _numbers(cells: Mapping[str, str], where: str) -> dict[str, Any]:
    """A line's cells with numbers in place of text."""
    out: dict[str, Any] = {"cluster": cells.get("cluster") or cells["run"], "where": where}
    ranges = {"accuracy": (0.0, 1.0), "chance": (0.0, 1.0), "annealed": (0.0, 1.0)}
    for name in ("n_params", "tokens", "loss", "accuracy", "n", "chance", "flops", "annealed"):
        text = cells.get(name)
        if not text and name not in NEEDED:
            out[name] = None
            continue
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        lo, hi = ranges.get(name, (0.0, math.inf))
        if not lo <= value <= hi or (name not in ranges and not 0 < value < math.inf):
            must = f"must lie between {lo:g} and {hi:g}" if name in ranges else "must be a positive number"
            raise LoadError(f"{where}, column {name}: {text!r} {must}")
        out[name] = value
    return out


def _csv_task(name: str, per_run: Mapping[str, list[dict[str, Any]]], source: str) -> Task:
    out = []
    for id_, rows in per_run.items():
        rows.sort(key=lambda row: row["tokens"])
        first, last = rows[0], rows[-1]
        if odd := next((r for r in rows if r["n_params"] != first["n_params"]), None):
            raise LoadError(f"{odd['where']}: run {id_} has {odd['n_params']:g} parameters here, {first['n_params']:g} before")
        tokens, loss, accuracy = (np.array([r[k] for r in rows], float) for k in ("tokens", "loss", "accuracy"))
        flops = np.array([6 * r["n_params"] * r["tokens"] if r["flops"] is None else r["flops"] for r in rows])
        size, ends = format_count(first["n_params"]), last["annealed"] != 0
        out.append(Run(id_, first["cluster"], size, first["n_params"], ends, tokens, flops, loss, accuracy))
    any_row = next(iter(per_run.values()))[0]
    items = math.nan if any_row["n"] is None else any_row["n"]
    return Task(name, any_row["chance"] or 0.0, items, tuple(out), source=source)
