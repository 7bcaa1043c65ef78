"""Run directories or anybody's CSV → one tidy table.

A row is a run at its end.  Rows that must stay out of a fit (diverged, not annealed, not finished, marked by the user) are
kept with the reason, so that every figure can show them and every caption can say why.
"""

from __future__ import annotations

import csv as csv_module
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling import flops as flops_module
from scaling import runs as runs_module
from scaling.units import did_you_mean, format_count

N_DEFINITIONS = ("non_embedding", "total", "active")
PLANNED, STARTED, FINISHED, DIVERGED = "planned", "started", "finished", "diverged"

# Column names that need no mapping, in order of preference (compared in lower case).
OBVIOUS = {
    "N": ("n", "n_params", "params", "parameters"),
    "D": ("d", "n_tokens", "tokens"),
    "C": ("c", "flops", "compute"),
    "loss": ("loss", "val_loss"),
    "stderr": ("loss_stderr", "val_loss_stderr"),
    "cluster": ("cluster", "trunk"),
    "id": ("id", "run", "name"),
    "seed": ("seed",),
    "annealed": ("annealed",),
    "exclude": (),  # leaving rows out is a decision: never taken from a column's name
}
_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")


class LoadError(ValueError):
    """A table that cannot be used; the message names file, column, row, value and remedy."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run.  ``loss`` is nats per token, None before there is one; ``excluded`` says why it stays out of fits."""

    id: str
    size: str
    n_params: float
    n_tokens: float
    flops: float
    loss: float | None
    loss_stderr: float | None = None
    cluster: str = ""
    annealed: bool = True
    seed: int | None = None
    state: str = FINISHED
    excluded: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows and how their columns are defined."""

    source: str
    rows: tuple[Row, ...]
    kind: str = "csv"  # 'runs' or 'csv'
    n_definition: str = "as in the file"
    flops_convention: str = "as in the file"
    notes: tuple[str, ...] = ()

    @property
    def fitted(self) -> tuple[Row, ...]:
        """Rows that may be fitted."""
        return tuple(r for r in self.rows if r.excluded is None)

    @property
    def excluded(self) -> tuple[Row, ...]:
        """Rows that were trained (in part) and stay out."""
        return tuple(r for r in self.rows if r.excluded is not None and r.state != PLANNED)

    def column(self, name: str) -> np.ndarray:
        """A column of the fitted rows."""
        return np.array([getattr(r, name) for r in self.fitted])

    def where(self, keep: Any) -> Table:
        """The table with only the rows for which ``keep(row)``."""
        return dataclasses.replace(self, rows=tuple(r for r in self.rows if keep(r)))

    def sizes(self) -> list[float]:
        """Distinct parameter counts of the fitted rows, ascending."""
        return sorted({r.n_params for r in self.fitted})

    def digest(self) -> str:
        """sha256 of the fitted rows, in whatever order they came."""
        rows = sorted([r.id, r.n_params, r.n_tokens, r.loss, r.cluster] for r in self.fitted)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Curve:
    """A member's losses over its training; ``tokens`` count from the trunk's start."""

    id: str
    n_params: float
    size: str
    annealed: bool
    tokens: np.ndarray
    loss: np.ndarray
    val_tokens: np.ndarray
    val_loss: np.ndarray


def table(
    n_params: Sequence[float], n_tokens: Sequence[float], loss: Sequence[float], cluster: Sequence[str] | None = None
) -> Table:
    """A table from arrays, for notebooks and tests; C = 6ND, every row its own cluster unless told."""
    names = [str(c) for c in cluster] if cluster is not None else [str(i) for i in range(len(loss))]
    rows = tuple(
        Row(f"row {i}", format_count(n), float(n), float(d), 6.0 * float(n) * float(d), float(value), cluster=names[i])
        for i, (n, d, value) in enumerate(zip(n_params, n_tokens, loss, strict=True))
    )
    return Table("arrays", rows, flops_convention="6ND")


def runs(
    path: str | os.PathLike[str], n_definition: str = "non_embedding", convention: str = flops_module.DEFAULT_CONVENTION
) -> Table:
    """Every member of a sweep folder, trained or not.

    Args:
      path: what ``scaling.launch`` or ``scaling.train`` wrote.
      n_definition: which parameter count is N: 'non_embedding', 'total' or 'active'.
      convention: how FLOPs are counted (``scaling.flops.CONVENTIONS``).

    Raises:
      LoadError: no such folder.
      runs.RunError: a folder that holds no run, or a file in it that cannot be read.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise LoadError(f"{root}: no such folder; give the sweep's folder, such as runs/ladder")
    sweep = runs_module.read_json(root / runs_module.SWEEP)
    planned = {m["id"]: m for m in sweep["members"]} if sweep else {}
    rows = tuple(_member_row(m, planned.get(m.id), n_definition, convention) for m in runs_module.members(root))
    return Table(str(root), rows, "runs", n_definition, convention)


def _member_row(member: runs_module.Member, planned: Mapping[str, Any] | None, n_definition: str, convention: str) -> Row:
    done, about = member.read(runs_module.DONE), planned or member.read(runs_module.PLAN)
    if about is None:
        raise LoadError(
            f"{member.path}: no {runs_module.PLAN}, and no {runs_module.SWEEP} that lists it; train it, or remove it"
        )
    spec, config = member.read(runs_module.SPEC) or {}, (member.read(runs_module.CONFIG) or {}).get("config", {})
    begun = next(iter(runs_module.read_jsonl(member.path / runs_module.METRICS)), None) is not None
    state = done["status"] if done is not None else STARTED if begun else PLANNED
    actual = done or about  # a member that stopped early has fewer tokens than were planned
    annealed = bool(about["annealed"] if done is None else done.get("annealed", about["annealed"]))
    return Row(
        id=member.id, size=str(about.get("size") or format_count(about["n_params"]["non_embedding"], 2)),
        n_params=float(about["n_params"][n_definition]), n_tokens=float(actual["tokens"]),
        flops=float(actual["flops"][convention]), loss=_finite((done or {}).get("val_loss")),
        loss_stderr=_finite((done or {}).get("val_loss_stderr")),
        cluster=str(about.get("cluster") or spec.get("cluster") or member.id), annealed=annealed,
        seed=about.get("seed", config.get("seed")), state=state, excluded=_why_excluded(state, annealed, done or {}),
    )  # fmt: skip


def _why_excluded(state: str, annealed: bool, done: Mapping[str, Any]) -> str | None:
    """Why a member stays out of fits, None where it may be fitted."""
    if state == PLANNED:
        return "not trained yet"
    if state == STARTED:
        return "not finished"
    if state == DIVERGED:
        return f"diverged ({done.get('cause') or 'no cause recorded'})"
    if not annealed:
        return "not annealed"
    return None if _finite(done.get("val_loss")) is not None else f"val_loss is {done.get('val_loss')}"


def curves(path: str | os.PathLike[str], source: Table) -> list[Curve]:
    """Training and validation losses of the members of ``source`` (the table of ``path``) that have any."""
    by_id = {r.id: r for r in source.rows}
    out = []
    for member in runs_module.members(path):
        rows = member.metrics()
        pairs = {
            kind: [(r["tokens"], v) for r in rows if r["kind"] == kind and (v := _finite(r.get("loss"))) is not None]
            for kind in ("train", "val")
        }
        if not rows:
            continue
        row = by_id[member.id]
        train, val = (np.array(pairs[k], float).reshape(-1, 2).T for k in ("train", "val"))
        out.append(Curve(row.id, row.n_params, row.size, row.annealed, train[0], train[1], val[0], val[1]))
    return out


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def parse_mapping(text: str) -> dict[str, str]:
    """``'N=params,D=tokens,loss=val_loss'`` → a dict.

    Raises:
      LoadError: naming the roles there are.
    """
    mapping = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        role, equals, column = (s.strip() for s in part.partition("="))
        if not equals or not column or role not in OBVIOUS:
            roles = ", ".join(OBVIOUS)
            raise LoadError(f"--map {part!r}: must be ROLE=COLUMN with a role of {roles}.{did_you_mean(role, OBVIOUS)}")
        mapping[role] = column
    return mapping


def csv(path: str | os.PathLike[str], mapping: Mapping[str, str] | None = None) -> Table:
    """A CSV with a header line, one run per line.

    Args:
      path: the file.
      mapping: role → column for N, D, C, loss, stderr, cluster, id, seed, annealed, exclude; roles that are not given are
        looked for under obvious names.  Without D, D = C / (6N); without C, C = 6ND.  ``exclude`` names a column whose true
        values leave rows out.

    Raises:
      LoadError: a missing file or column, or a value that is not a positive number, with its row and column.
    """
    path = pathlib.Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            reader = csv_module.DictReader(f, skipinitialspace=True)
            header = [h or "" for h in reader.fieldnames or []]
            lines = [(reader.line_num, cells) for cells in reader]  # an empty line is passed over, but counted
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise LoadError(f"{path}: no such file.{did_you_mean(path.name, near)}") from None
    except (OSError, UnicodeDecodeError, csv_module.Error) as error:
        raise LoadError(f"{path}: cannot be read as CSV ({error}); give a UTF-8 text file with a header line") from None
    columns = _columns(path, header, dict(mapping or {}))
    notes = []
    if "D" not in columns:
        notes.append(f"no column for D: D = C / (6N) with C from '{columns['C']}'")
    if "C" not in columns:
        notes.append("no column for C: C = 6ND")
    if "outlier" in header and "exclude" not in columns:
        notes.append("the column 'outlier' is not used; leave its rows out with --map exclude=outlier")
    rows = [_csv_row(_Line(path, number, cells, columns), "stderr" in (mapping or {})) for number, cells in lines]
    if not rows:
        raise LoadError(f"{path}: has a header but no rows; add one line per run")
    convention = f"column '{columns['C']}'" if "C" in columns else "6ND"
    return Table(str(path), tuple(rows), "csv", f"column '{columns['N']}'", convention, tuple(notes))


def _columns(path: pathlib.Path, header: list[str], given: dict[str, str]) -> dict[str, str]:
    """Role → column, given or obvious."""
    if not header:
        raise LoadError(f"{path}: is empty; the first line must name the columns")
    for role, column in given.items():
        if column not in header:
            raise LoadError(
                f"{path}: --map {role}={column}: no column '{column}'; there are {', '.join(header)}."
                f"{did_you_mean(column, header)}"
            )
    lower = {h.lower(): h for h in reversed(header)}
    found = {
        role: next(lower[n] for n in names if n in lower) for role, names in OBVIOUS.items() if any(n in lower for n in names)
    }
    columns = found | given
    for role, words in (("N", "the parameters"), ("loss", "the loss"), ("D", "the tokens (or C, the FLOPs)")):
        if role not in columns and not (role == "D" and "C" in columns):
            raise LoadError(f"{path}: which column holds {words}? There are {', '.join(header)}; say --map {role}=COLUMN")
    return columns


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of a CSV, read by role."""

    path: pathlib.Path
    number: int
    cells: Mapping[str, Any]
    columns: Mapping[str, str]  # role -> column

    def text(self, role: str) -> str:
        return str(self.cells.get(self.columns[role]) or "").strip()

    def problem(self, role: str, must: str) -> LoadError:
        return LoadError(f"{self.path}:{self.number}: {self.columns[role]}={self.text(role)!r} {must}")

    def number_or_none(self, role: str) -> float | None:
        """A finite number, or None for another text or a column that is not there."""
        try:
            value = float(self.text(role).replace("_", "")) if role in self.columns else math.nan
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def positive(self, role: str) -> float:
        value = self.number_or_none(role)
        if value is None or value <= 0:
            raise self.problem(role, f"must be a positive number, since it is used as {role}; correct or remove the row")
        return value

    def flag(self, role: str, default: bool) -> bool:
        if role not in self.columns:
            return default
        if self.text(role).lower() not in _TRUE + _FALSE:
            raise self.problem(role, "must be true or false (1 or 0); correct or remove the row")
        return self.text(role).lower() in _TRUE


def _csv_row(line: _Line, stderr_named: bool) -> Row:
    """One run.  A column of standard errors that nobody named must not refuse a table that is good without it."""
    n, loss = line.positive("N"), line.positive("loss")
    c = line.positive("C") if "C" in line.columns else None
    d = line.positive("D") if "D" in line.columns else (c or math.nan) / (6 * n)
    stderr = line.positive("stderr") if stderr_named else line.number_or_none("stderr")
    seed = line.number_or_none("seed")
    name = f"line {line.number}"
    annealed = line.flag("annealed", True)
    excluded = None if annealed else "not annealed"
    if line.flag("exclude", False):
        excluded = f"marked in column '{line.columns['exclude']}'"
    return Row(
        id=line.text("id") if "id" in line.columns else name, size=format_count(n), n_params=n, n_tokens=d,
        flops=6 * n * d if c is None else c, loss=loss, loss_stderr=stderr if stderr and stderr > 0 else None,
        cluster=line.text("cluster") if "cluster" in line.columns else name, annealed=annealed,
        seed=None if seed is None else int(seed), excluded=excluded,
    )  # fmt: skip
