"""Anybody's CSV as a table; every problem of the file is told at once, with its line, column, value and remedy."""

from __future__ import annotations

import csv as csv_module
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis import checks
from analysis.tables import LoadError, Row, Table
from scaling.units import did_you_mean, format_count

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
    "U": ("u", "unique_tokens"),
    "batch": ("batch_tokens",),
    "lr": ("lr", "learning_rate"),
}
NUMBERS = ("N", "D", "C", "loss", "stderr", "U", "batch", "lr")  # roles that a factor may scale
_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")
_BITS = re.compile(r"(^|[^a-z])(bits?|bp[bct])([^a-z]|$)")  # a column whose name says so
_SHOWN = 8  # problems that a message names; the rest are counted


def parse_mapping(text: str, known: Collection[str] = OBVIOUS) -> dict[str, str]:
    """``'N=params,D=tokens,loss=val_loss'`` → a dict; ``'N=params_m*1e6'`` scales a column, here one in millions.

    ``known`` are the roles.

    Raises:
      LoadError: naming the roles there are.
    """
    mapping = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        role, equals, column = (s.strip() for s in part.partition("="))
        if not equals or not column or role not in known:
            roles = ", ".join(known)
            raise LoadError(f"--map {part!r}: must be ROLE=COLUMN with a role of {roles}.{did_you_mean(role, known)}")
        mapping[role] = column
    return mapping


@dataclasses.dataclass(frozen=True)
class _Column:
    """Where a role is found.  A factor, even of 1, states the unit: it is then not doubted."""

    name: str
    factor: str = ""
    given: bool = False  # by the user, not found under an obvious name

    @property
    def scale(self) -> float:
        return float(self.factor or 1.0)

    @property
    def words(self) -> str:
        return f"column '{self.name}'" + (f" * {self.factor}" if self.factor else "")


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Something wrong with one line."""

    line: int
    text: str
    why: str  # what excludes its row
    lost: bool = False  # its N or D is not to be trusted: there is no row to keep
    accept: str = ""  # the --map that takes the value as it is


def csv(path: str | os.PathLike[str], mapping: Mapping[str, str] | None = None, skip_bad: bool = False) -> Table:
    """A CSV with a header line, one run per line.

    Args:
      path: the file.
      mapping: role → column for N, D, C, loss, stderr, cluster, id, seed, annealed, exclude, U (unique tokens), batch (tokens
        per step), lr; roles that are not given are looked for under obvious names.  Without D, D = C / (6N); without C,
        C = 6ND; so too in a single row where the cell is empty.  ``exclude`` names a column whose true values leave rows out.
        ``'column*factor'`` scales numbers: N in millions is ``'params*1e6'``, a loss in bits ``'bits*0.6931'``.
      skip_bad: leave bad rows out instead of refusing the file.  They stay in the table as excluded rows with the reason; those
        without a usable N and D are told of in the notes.

    Raises:
      LoadError: a missing file or column, a column in another unit, or, unless ``skip_bad``, all rows that are bad: a value
        that is not a positive number, a row that is there twice, N, D, C or a loss in another unit than in the other rows; each
        with its line and column.
    """
    path = pathlib.Path(path)
    header, lines = _read(path)
    columns = _columns(path, header, dict(mapping or {}))
    read = [_Line(path, number, cells, columns) for number, cells in lines]
    rows = {line: row for line in read if (row := line.row()) is not None}
    good = {line: row for line, row in rows.items() if row.excluded is None}
    _check_units(good, columns)
    problems = [p for line in read for p in line.problems] + _copies(good)
    rest = {line: row for line, row in good.items() if line.number not in {p.line for p in problems}}
    problems += _other_units(rest, columns)
    table = _table(path, header, columns, read, rows, problems)
    if problems and not skip_bad:
        raise LoadError(_refusal(table, problems))
    return table


def _read(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str | None, Any]]]]:
    """The header, and each line that is not empty with its number."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            reader = csv_module.DictReader(f, skipinitialspace=True)
            header = [h or "" for h in reader.fieldnames or []]
            lines: list[tuple[int, dict[str | None, Any]]] = [(reader.line_num, dict(cells)) for cells in reader]
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise LoadError(f"{path}: no such file.{did_you_mean(path.name, near)}") from None
    except (OSError, UnicodeDecodeError, csv_module.Error) as error:
        raise LoadError(f"{path}: cannot be read as CSV ({error}); give a UTF-8 text file with a header line") from None
    if not header:
        raise LoadError(f"{path}: is empty; the first line must name the columns")
    if not lines:
        raise LoadError(f"{path}: has a header but no rows; add one line per run")
    return header, lines


def _columns(path: pathlib.Path, header: list[str], given: dict[str, str]) -> dict[str, _Column]:
    """Role → column, given or obvious."""
    lower = {h.lower(): h for h in reversed(header)}
    found = {role: next((lower[n] for n in names if n in lower), None) for role, names in OBVIOUS.items()}
    columns = {role: _Column(name) for role, name in found.items() if name is not None}
    columns |= {role: _given_column(path, header, role, text) for role, text in given.items()}
    for role, words in (("N", "the parameters"), ("loss", "the loss"), ("D", "the tokens (or C, the FLOPs)")):
        if role not in columns and not (role == "D" and "C" in columns):
            raise LoadError(f"{path}: which column holds {words}? There are {', '.join(header)}; say --map {role}=COLUMN")
    for role, column in columns.items():
        if header.count(column.name) > 1:
            raise LoadError(f"{path}: two columns are called '{column.name}', used as {role}; rename or remove one")
    if "stderr" in columns and not columns["stderr"].factor:  # of the loss, so in its unit
        columns["stderr"] = dataclasses.replace(columns["stderr"], factor=columns["loss"].factor)
    return columns


def _given_column(path: pathlib.Path, header: list[str], role: str, text: str) -> _Column:
    """``'params'`` or ``'params*1e6'``; a name that holds a star is taken as it is where there is such a column."""
    if text in header:
        return _Column(text, given=True)
    name, star, factor = (part.strip() for part in text.rpartition("*"))
    if not star:
        name, factor = text, ""
    if name not in header:
        raise LoadError(
            f"{path}: --map {role}={text}: no column '{name}'; there are {', '.join(header)}.{did_you_mean(name, header)}"
        )
    if star and role not in NUMBERS:
        raise LoadError(f"{path}: --map {role}={text}: only numbers are scaled: {', '.join(NUMBERS)}; say {role}={name}")
    if star and not (_number(factor) or 0.0) > 0:
        raise LoadError(f"{path}: --map {role}={text}: the factor {factor!r} must be a positive number, such as 1e6")
    return _Column(name, factor, given=True)


def _number(text: str) -> float | None:
    """A finite number, or None for another text."""
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclasses.dataclass(frozen=True, eq=False)
class _Line:
    """A line of a CSV, read by role; what is wrong with it gathers in ``problems``."""

    path: pathlib.Path
    number: int
    cells: Mapping[str | None, Any]
    columns: Mapping[str, _Column]
    problems: list[_Problem] = dataclasses.field(default_factory=list)

    def text(self, role: str) -> str:
        return str(self.cells.get(self.columns[role].name) or "").strip() if role in self.columns else ""

    def names(self, *roles: str) -> str:
        """Where this is: file, line, and the columns of ``roles`` with their values."""
        return f"{self.path}:{self.number}: " + ", ".join(
            f"{self.columns[role].name}={self.text(role)!r}" for role in roles if role in self.columns
        )

    def _refuse(self, role: str, must: str) -> None:
        self.problems.append(
            _Problem(self.number, f"{self.names(role)} {must}", f"with a bad value in column '{self.columns[role].name}'")
        )

    def positive(self, role: str) -> float | None:
        """A positive number; a problem otherwise."""
        value = _number(self.text(role))
        if value is not None and value > 0:
            return value * self.columns[role].scale
        self._refuse(role, f"must be a positive number, since it is used as {role}")
        return None

    def optional(self, role: str) -> float | None:
        """A positive number or None.  A bad value in a column that nobody named must not refuse a table that is good so."""
        if not self.text(role):
            return None
        if self.columns[role].given:
            return self.positive(role)
        value = _number(self.text(role))
        return value * self.columns[role].scale if value is not None and value > 0 else None

    def flag(self, role: str, default: bool) -> bool:
        if role not in self.columns:
            return default
        if self.text(role).lower() not in _TRUE + _FALSE:
            self._refuse(role, "must be true or false (1 or 0)")
        return self.text(role).lower() in _TRUE

    def row(self) -> Row | None:
        """The run, excluded where something is wrong with it; None without a usable N and D."""
        if any(str(cell).strip() for cell in self.cells.get(None) or ()):
            named = f"{self.path}:{self.number}: has more cells than the header names"
            self.problems.append(_Problem(self.number, f"{named}; a number with commas needs quotes", "", lost=True))
            return None
        marked, annealed = self.flag("exclude", False), self.flag("annealed", True)
        flagged = len(self.problems)
        n, loss = self.positive("N"), self.positive("loss")
        c = self.positive("C") if "C" in self.columns and (self.text("C") or "D" not in self.columns) else None
        d = self.positive("D") if "D" in self.columns and (self.text("D") or not c) else c / (6 * n) if c and n else None
        more = {role: self.optional(role) for role in ("stderr", "U", "batch", "lr")}
        if marked or not annealed:
            del self.problems[flagged:]  # a row that stays out anyway may lack its loss
        if n is None or d is None:
            return None
        seed, name = _number(self.text("seed")), f"line {self.number}"
        why = f"marked in {self.columns['exclude'].words}" if marked else None if annealed else "not annealed"
        return Row(
            id=self.text("id") if "id" in self.columns else name, size=format_count(n), n_params=n, n_tokens=d,
            flops=6 * n * d if c is None else c, loss=loss, loss_stderr=more["stderr"],
            cluster=self.text("cluster") if "cluster" in self.columns else name, annealed=annealed,
            seed=None if seed is None else int(seed), excluded=self.problems[0].why if self.problems else why,
            unique_tokens=more["U"], batch_tokens=more["batch"], lr=more["lr"],
        )  # fmt: skip


# ---- doubts about rows that are good each by itself


def _arrays(
    rows: Mapping[_Line, Row], columns: Mapping[str, _Column]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """N, D and C of the rows, the last two where they have a column."""
    n, d, c = (np.array([getattr(r, name) for r in rows.values()], float) for name in ("n_params", "n_tokens", "flops"))
    return n, d if "D" in columns else None, c if "C" in columns else None


def _check_units(rows: Mapping[_Line, Row], columns: Mapping[str, _Column]) -> None:
    """Raises LoadError where a whole column of N, D or C is in another unit."""
    told = [role for role in "NDC" if role in columns and columns[role].factor]
    found = checks.other_unit(*_arrays(rows, columns), told) if rows else None
    if found is None:
        return
    units = [
        " and ".join(f"{columns[role].name} in {checks.UNITS[role][factor]}" for role, factor in factors.items())
        for factors in found.factors
    ]
    fixes = [
        "--map " + ",".join(f"{role}={columns[role].name}*{_factor(factor)}" for role, factor in factors.items())
        for factors in (*found.factors, dict.fromkeys(found.factors[0], 1.0))
    ]
    where = next(iter(rows)).names(*(role for role in "NDC" if role in columns))
    raise LoadError(
        f"{where}: {found.why}, as if this were {', or '.join(units)}; say {', or '.join(fixes[:-1])}; "
        f"or, if it is right as it is, {fixes[-1]}"
    )


def _factor(value: float) -> str:
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def _copies(rows: Mapping[_Line, Row]) -> list[_Problem]:
    """Rows that are there twice."""

    def keys(line: _Line, row: Row) -> tuple[Hashable, Hashable, int]:
        cells = tuple(str(cell) for cell in line.cells.values())
        numbers = row.n_params, row.n_tokens, row.flops, row.loss, row.unique_tokens, row.batch_tokens, row.lr
        return cells, numbers, checks.significant_digits(line.text("loss"))

    lines, out = list(rows), []
    for i, j in checks.copies(keys(line, row) for line, row in rows.items()).items():
        where = lines[i].names("N", "D" if "D" in lines[i].columns else "C", "loss")
        text = f"{where} is line {lines[j].number} again; a run that counts twice makes intervals too narrow"
        out.append(_Problem(lines[i].number, text, "a copy of another row"))
    return out


def _other_units(rows: Mapping[_Line, Row], columns: Mapping[str, _Column]) -> list[_Problem]:
    """Rows whose N, D, C or loss is in another unit than in the other rows."""
    lines, out = list(rows), []
    n, _, c = _arrays(rows, columns)
    d, loss = (np.array([getattr(r, name) for r in rows.values()], float) for name in ("n_tokens", "loss"))
    counted = [role for role in "NDC" if role in columns]
    told = [role for role in counted if columns[role].factor]
    odd = checks.odd_rows(n, d, c if "D" in columns else None, told) if lines else {}
    accept = ",".join(f"{role}={columns[role].name}*1" for role in counted)
    for i, why in odd.items():
        text = f"{lines[i].names(*counted)}: {why}, as if one of them were in another unit"
        out.append(_Problem(lines[i].number, text, "", lost=True, accept=accept))
    keep = np.array([i for i in range(len(lines)) if i not in odd], int)
    found = None if columns["loss"].factor else checks.bits_beside_nats(n[keep], d[keep], loss[keep])
    for i in keep[list(found.rows)] if found else ():
        times, mine, theirs = ("1.44", "bits", "nats") if found and found.in_bits else ("0.69", "nats", "bits")
        text = f"{lines[i].names('loss')} is {times} times what the other rows lead one to expect, as {mine} beside {theirs}"
        accept = f"loss={columns['loss'].name}*1"
        out.append(_Problem(lines[i].number, f"{text} (1 bit is 0.6931 nats)", "with a loss in another unit", accept=accept))
    return out


# ---- the table, or why there is none


def _table(
    path: pathlib.Path, header: Sequence[str], columns: Mapping[str, _Column], read: Sequence[_Line],
    rows: Mapping[_Line, Row], problems: Sequence[_Problem],
) -> Table:  # fmt: skip
    """All rows, the bad ones excluded, with notes on what was derived, doubted or left out."""
    by_line = {p.line: p for p in reversed(problems)}
    kept = {}
    for line, row in rows.items():
        problem = by_line.get(line.number)
        if problem is None or not problem.lost:
            kept[line.number] = row if problem is None else dataclasses.replace(row, excluded=problem.why)
    notes = []
    if "D" not in columns:
        notes.append(f"no column for D: D = C / (6N) with C from {columns['C'].words}")
    if "C" not in columns:
        notes.append("no column for C: C = 6ND")
    for role, formula in (("D", "C / (6N)"), ("C", "6ND")):
        if role in columns and (empty := sum(not line.text(role) for line in rows)):
            notes.append(f"{role} = {formula} in {empty} {'row' if empty == 1 else 'rows'} without {columns[role].name}")
    if "outlier" in header and "exclude" not in columns:
        notes.append("the column 'outlier' is not used; leave its rows out with --map exclude=outlier")
    names = {line.text("id") for line in rows}
    if "id" in columns and "cluster" not in columns and len(names) < len(rows):
        name = columns["id"].name
        told = f"column '{name}' holds {len(names)} names in {len(rows)} rows: if these are runs, resample each as one"
        notes.append(f"{told} with --map cluster={name}; intervals that take its rows for independent are too narrow")
    if gone := [str(line.number) for line in read if line.number not in kept]:
        notes.append(f"left out for want of a usable N and D: line {', '.join(checks.listed(gone, _SHOWN))}")
    convention = columns["C"].words if "C" in columns else "6ND"
    table = Table(str(path), tuple(kept.values()), "csv", columns["N"].words, convention, tuple(notes))
    return dataclasses.replace(table, notes=table.notes + tuple(_doubts(table, columns))) if table.fitted else table


def _doubts(table: Table, columns: Mapping[str, _Column]) -> list[str]:
    """What the losses and FLOPs seem to be instead, where no factor says that they are right."""
    n, d, c, loss = (table.column(name) for name in ("n_params", "n_tokens", "flops", "loss"))
    out, column = [], columns["loss"]
    if not column.factor:
        if _BITS.search(column.name.lower()):
            nats = f"--map loss={column.name}*0.6931"
            out.append(f"{column.words} is in bits by its name, and so are E and every prediction; in nats it is {nats}")
        out += [f"{column.words}: {doubt}" for doubt in checks.loss_doubts(c, loss)]
    if "C" in columns and not columns["C"].factor and (doubt := checks.flops_doubt(n, d, c)):
        out.append(f"{doubt}, but {columns['C'].words} is taken as the FLOPs of whole runs")
    return out


def _refusal(table: Table, problems: Sequence[_Problem]) -> str:
    """Every problem with its line and column, the remedy, and what can still be fitted."""
    told = [p.text for p in sorted(problems, key=lambda p: p.line)]
    bad, left, offers = len({p.line for p in problems}), len(table.fitted), checks.offers(table)
    what, them = ("the row", "it") if bad == 1 else (f"these {bad} rows", "them")
    rest = f"the other {left} rows" if left != 1 else "the other row"
    if not offers:
        remedy = f"correct or remove {what}; {rest} alone cannot be fitted" if left else f"correct {what}"
    else:
        remedy = f"correct or remove {what}, or leave {them} out with --skip-bad: {rest} can be fitted"
        if "chinchilla" not in offers[0]:
            remedy += f" by {', '.join(offers)}"
    accept = sorted({p.accept for p in problems if p.accept})
    if accept:
        remedy += f"; where they are right as they are, say --map {','.join(accept)}"
    return "\n".join([*checks.listed(told, _SHOWN), remedy])
