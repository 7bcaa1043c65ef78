"""Anybody's table of scores: a header line, then one model on one task per line."""

from __future__ import annotations

import csv
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

from analysis.emergence.points import ACCURACY, EXACT, Point, Shown, ability
from analysis.tables import LoadError
from scaling.units import did_you_mean

ROLES = {  # role: column names that need no mapping, compared in lower case
    "task": ("task", "benchmark", "ability"),
    "score": ("score", "acc", "accuracy", "exact_match"),
    "C": ("flops", "train_flops", "c", "compute"),
    "n": ("n", "n_items", "items"),
    "chance": ("chance",),
    "loss": ("loss", "val_loss"),
    "N": ("n_params", "params", "parameters"),
    "cluster": ("cluster", "trunk", "family"),
    "seed": ("seed",),
    "format": ("format",),
    "shots": ("shots", "n_shots"),
    "id": ("id", "run", "model", "name"),
    "nll": ("nll", "nll_token"),
    "p_gold": ("p_gold",),
    "brier": ("brier",),
    "edit": ("edit",),
    "length": ("length", "answer_tokens"),
    "exclude": (),  # leaving rows out is a decision: never taken from a column's name
}
NOTIONAL = 1000  # items, where no column tells: over-dispersion then stands for the noise of items as well
_TEXT = ("task", "cluster", "format", "id", "exclude")
_COMPANIONS = ("nll", "p_gold", "brier", "edit")
_SHOWN = 8  # problems that a message names; the rest are counted
_FALSE = ("0", "0.0", "false", "no", "")


def read(path: str | os.PathLike[str], mapping: Mapping[str, str] | None = None) -> tuple[list[Shown], list[str]]:
    """A table of scores as abilities, one for each task, format and shots, and notes on what was assumed.

    Raises:
      LoadError: a missing file or column, or every line that cannot be used, with its column, value and remedy.
    """
    path = pathlib.Path(path)
    header, lines = _lines(path)
    columns = _columns(path, header, mapping or {})
    problems: list[str] = []
    groups: dict[tuple[str, str, int | None], list[Point]] = {}
    about: dict[tuple[str, str, int | None], dict[str, float]] = {}
    for number, cells in lines:
        row = _row(f"{path}:{number}", cells, columns, problems)
        if row is None:
            continue
        text, values = row
        shots = None if math.isnan(values["shots"]) else int(values["shots"])
        key = text["task"] or path.stem, text["format"], shots
        groups.setdefault(key, []).append(_point(text, values))
        about.setdefault(key, values)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise LoadError("\n".join([*problems[:_SHOWN], *more]))
    shown = [_shown(key, points, about[key], path) for key, points in groups.items()]
    few = [s.key for s in shown if len(s.ability.flops) < 3]
    if len(few) == len(shown):
        raise LoadError(f"{path}: no task has three models or more; a shape needs three, and six say more")
    notes = [f"left out, with fewer than three models: {', '.join(few)}"] if few else []
    if "n" not in columns:
        notes.append(
            f"no column for n, the items behind a score: {NOTIONAL} are assumed, which gives all intervals of single scores; "
            "--map n=COLUMN"
        )
    if "chance" not in columns:
        notes.append("no column for chance: 0 is assumed; a task of four choices has 0.25")
    return [s for s in shown if s.key not in few], notes


def _lines(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, skipinitialspace=True)
            header = list(reader.fieldnames or [])
            lines = [(reader.line_num, {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}) for row in reader]
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise LoadError(f"{path}: no such file.{did_you_mean(path.name, near)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LoadError(f"{path}: cannot be read as CSV ({error}); give a UTF-8 text file with a header line") from None
    if not lines:
        raise LoadError(f"{path}: holds no rows; the first line names the columns, then one model on one task per line")
    return header, lines


def _columns(path: pathlib.Path, header: Sequence[str], given: Mapping[str, str]) -> dict[str, tuple[str, float]]:
    """Role → column and the factor of its numbers."""
    lower = {h.lower(): h for h in reversed(header)}
    found = {role: (lower[name], 1.0) for role, names in ROLES.items() for name in reversed(names) if name in lower}
    for role, text in given.items():
        name, star, factor = (part.strip() for part in text.rpartition("*")) if text not in header else (text, "", "")
        name = name if star else text
        if name not in header:
            raise LoadError(
                f"{path}: --map {role}={text}: no column '{name}'; there are {', '.join(header)}.{did_you_mean(name, header)}"
            )
        try:
            found[role] = name, float(factor or 1.0)
        except ValueError:
            raise LoadError(f"{path}: --map {role}={text}: the factor {factor!r} must be a number, such as 0.01") from None
    for role, words in (("score", "the score"), ("C", "the training FLOPs")):
        if role not in found:
            raise LoadError(f"{path}: which column holds {words}? There are {', '.join(header)}; say --map {role}=COLUMN")
    return found


def _row(
    where: str, cells: Mapping[str, str], columns: Mapping[str, tuple[str, float]], problems: list[str]
) -> tuple[dict[str, str], dict[str, float]] | None:
    """The texts and numbers of a line, NaN where a cell is empty; None, with what is wrong, where it cannot be used."""
    text = {role: cells.get(columns[role][0], "") if role in columns else "" for role in _TEXT}
    values, before = {}, len(problems)
    for role in ROLES.keys() - set(_TEXT):
        name, factor = columns.get(role, ("", 1.0))
        cell = cells.get(name, "")
        try:
            values[role] = float(cell.replace("_", "")) * factor if cell else math.nan
        except ValueError:
            problems.append(f"{where}: column '{name}' is {cell!r}: must be a number")
    if len(problems) > before:
        return None
    score, n = values["score"], values["n"]
    if not 0 <= score <= 1:
        hint = f"; for percent say --map score={columns['score'][0]}*0.01" if 1 < score <= 100 else ""
        problems.append(f"{where}: column '{columns['score'][0]}' is {score:g}: must lie between 0 and 1{hint}")
    if not 0 < values["C"] < math.inf:
        problems.append(f"{where}: column '{columns['C'][0]}' is {values['C']:g}: must be a positive number of FLOPs")
    if n < 1 or n == math.inf:
        problems.append(f"{where}: column '{columns['n'][0]}' is {n:g}: must be a count of items")
    if not (math.isnan(values["chance"]) or 0 <= values["chance"] < 1):
        problems.append(f"{where}: column '{columns['chance'][0]}' is {values['chance']:g}: must lie between 0 and 1")
    return (text, values) if len(problems) == before else None


def _point(text: Mapping[str, str], values: Mapping[str, float]) -> Point:
    n = values["n"]
    return Point(
        values["C"], values["score"], NOTIONAL if math.isnan(n) else n, values["N"], values["loss"],
        text["cluster"] or text["id"], 0 if math.isnan(values["seed"]) else int(values["seed"]),
        {c: values[c] for c in _COMPANIONS if math.isfinite(values[c])},
        None if text["exclude"].lower() in _FALSE else f"excluded by the table ({text['exclude']})", text["id"],
    )  # fmt: skip


def _shown(key: tuple[str, str, int | None], points: Sequence[Point], values: Mapping[str, float], path: pathlib.Path) -> Shown:
    task, form, shots = key
    chance = 0.0 if math.isnan(values["chance"]) else values["chance"]
    made = ability(
        points, f"{task}, {form}" if form else task, ACCURACY if chance else EXACT, chance, source=path.name,
        length=None if math.isnan(values["length"]) else values["length"],
        counted=not math.isnan(values["n"]),
    )  # fmt: skip
    name = "/".join(str(part) for part in key if part not in ("", None))
    return Shown(name, task, form, shots, made, tuple(p for p in points if p.excluded))
