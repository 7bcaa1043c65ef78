"""Benchmarks from a user's folder, in the layouts in which they are published.

    mmlu/{dev,val,test}/anatomy_test.csv     MMLU's own tree: no header, question, four choices, letter (also below data/)
    the same with a header                   question, choice0 … choice3 (or A … D, or choices), answer 0 to 3; perhaps subject
    anatomy/test-00000-of-00001.parquet      the Hugging Face repository's: a folder per subject, or ``all``
    arc_easy.jsonl, gsm8k/test.jsonl         a JSON object per line, of any kind in ``rows.KINDS``
    bbh/anything.json, cot-prompts/*.txt     BIG-bench-hard: {"examples": [{"input": …, "target": …}]} and its worked shots

A file's name, else its folder's, says the task and the split: dev, val (valid, validation), test, train.  Shots come from dev,
or from train where there is none.  Where a file is all there is, they are drawn for each item from the rest of it, as the CORE
benchmark does (Li et al. 2024, arXiv 2406.11794).  ``auxiliary_train`` is passed over.  All is checked when it is read.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scaling import units
from scaling.evals import groups as mmlu_groups
from scaling.evals import rows
from scaling.evals.items import DEV, LETTERS, TEST, VAL, Item, Suite, Task, TaskError, Template
from scaling.evals.rows import Kind, Place, Row

TRAIN = "train"
SPLITS = {"dev": DEV, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST, "train": TRAIN}
LAYOUTS = {"mmlu-csv": ".csv", "csv": ".csv", "parquet": ".parquet", "jsonl": ".jsonl", "json": ".json"}
CORE_SEED = 1234  # of the shots of a file that has no dev split, as the CORE benchmark's
MMLU_CITATION = "Hendrycks et al. 2021, arXiv 2009.03300"
_HEADERLESS = ("question", "A", "B", "C", "D", "answer")
_SHARD = re.compile(rf"({'|'.join(SPLITS)})(-\d+-of-\d+)?")
_NAMED = re.compile(rf"(.+)[_-]({'|'.join(SPLITS)})")
# What pandas reads as missing; hendrycks/test itself so turns the choice "None" into "nan".
_READ_AS_NAN = frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)

Table = Mapping[str, Sequence[tuple[Place, Row]]]  # rows by split


@dataclasses.dataclass(frozen=True)
class Read:
    """Rows of one split of one task, with where they stand."""

    task: str
    split: str
    rows: Sequence[tuple[Place, Row]]


def load_folder(
    path: str | os.PathLike[str], layout: str | None = None, only: Sequence[str] = (), groups: str = "harness"
) -> Suite:
    """The suite that a folder or a file holds.

    Args:
      path: of a folder in one of the layouts above, or of one of its files.
      layout: one of ``LAYOUTS``; by default it is recognised: by what files there are, and in CSV by a header.
      only: the tasks to load; by default all, which of MMLU must be all 57.
      groups: which map of MMLU's subjects to groups, 'harness' or 'hendrycks'.

    Raises:
      TaskError: naming the file, row and value of what cannot be used.
    """
    root = pathlib.Path(path)
    if layout is not None and layout not in LAYOUTS:
        raise TaskError(f"layout {layout!r}; choose of {', '.join(LAYOUTS)}.{units.did_you_mean(layout, LAYOUTS)}")
    if not root.exists():
        raise TaskError(f"{root}: no such file or folder")
    files = [(file, *_name_and_split(file, root)) for file in _files(root, layout)]
    named = {name for _, name, _ in files} & set(only)  # none of them where a column names the subjects
    reads = [Read(name, split, list(_rows(file, layout))) for file, name, split in files if name in named or not named]
    title = root.resolve().name if root.is_dir() else root.stem
    title = root.resolve().parent.name if title == "data" else title
    return suite_of(title, reads, only, groups, _cot_prompts(root), sorted({name for _, name, _ in files}))


def suite_of(
    name: str,
    reads: Sequence[Read],
    only: Sequence[str] = (),
    groups: str = "harness",
    cot: Mapping[str, pathlib.Path] | None = None,
    names: Sequence[str] = (),
) -> Suite:
    """A suite of what was read; ``cot`` are files of worked shots by task, ``names`` those of all tasks there are.

    Raises:
      TaskError: as ``load_folder``.
    """
    tables: dict[str, dict[str, list[tuple[Place, Row]]]] = {}
    for read in reads:
        for place, row in read.rows:
            by_subject = isinstance(row.get("subject"), str) and read.task not in mmlu_groups.HARNESS
            task = row["subject"] if by_subject else read.task
            if not only or task in only:
                tables.setdefault(task, {}).setdefault(read.split, []).append((place, row))
    if absent := [n for n in only if n not in tables]:
        there = sorted({*tables, *names} or {r.task for r in reads})
        raise TaskError(f"{name}: no task {absent[0]!r}; it has {_some(there)}.{units.did_you_mean(absent[0], there)}")
    if not tables:
        raise TaskError(f"{name}: there are no items")
    first = next(iter(next(iter(tables.values())).values()))[0]
    if rows.kind_of(first[1], first[0]).name == rows.MMLU.name:
        _check_subjects(name, tables, only)
    mapped = mmlu_groups.map_of(groups)
    notes: list[str] = []
    tasks = tuple(_task(t, tables[t], mapped, (cot or {}).get(t), notes) for t in sorted(tables))
    is_mmlu = any(t.name in mapped for t in tasks)
    return Suite(name, tasks, MMLU_CITATION if is_mmlu else "", (*notes, *_notes(tasks)))


# ---- files


def _files(root: pathlib.Path, layout: str | None) -> list[pathlib.Path]:
    """The files of one kind under ``root``, sorted."""
    if root.is_file():
        if root.suffix not in LAYOUTS.values():
            raise TaskError(f"{root}: ends in {root.suffix!r}; known are {', '.join(dict.fromkeys(LAYOUTS.values()))}")
        return [root]
    found = [f for f in sorted(root.rglob("*")) if f.is_file() and not _passed_over(f.relative_to(root))]
    kinds = [LAYOUTS[layout]] if layout else [s for s in (".csv", ".parquet", ".jsonl") if any(f.suffix == s for f in found)]
    if len(kinds) > 1:
        raise TaskError(f"{root}: holds {' and '.join(kinds)} files; give the folder of one benchmark, or layout=")
    files = [f for f in found if f.suffix == (kinds or [".json"])[0]]
    if not files:
        wanted = kinds[0] if kinds else "/".join(dict.fromkeys(LAYOUTS.values()))
        raise TaskError(f"{root}: no {wanted} file in it; give a folder in one of the layouts of scaling/evals/layouts.py")
    apart = [f for f in files if f.parent.name != "all"]
    return apart if apart and files[0].suffix == ".parquet" else files  # ``all`` repeats the subjects


def _passed_over(file: pathlib.Path) -> bool:
    return any(p.startswith((".", "auxiliary_train")) for p in file.parts)


def _name_and_split(file: pathlib.Path, root: pathlib.Path) -> tuple[str, str]:
    """('anatomy', 'test') of …/test/anatomy_test.csv, …/anatomy_test.csv and …/anatomy/test-00000-of-00001.parquet; a file
    that names no split is a test."""
    if shard := _SHARD.fullmatch(file.stem):
        return (file.parent.resolve().name if file.parent != root else root.resolve().name), SPLITS[shard[1]]
    if named := _NAMED.fullmatch(file.stem):
        return named[1], SPLITS[named[2]]
    return file.stem, SPLITS.get(file.parent.name, TEST)


def _rows(file: pathlib.Path, layout: str | None) -> Iterator[tuple[Place, Row]]:
    """All rows of a file with their places."""
    count = 0
    for number, row in _parquet(file) if file.suffix == ".parquet" else _parsed(file, layout):
        place = Place(str(file), number)
        if not isinstance(row, Mapping):
            raise place.error(f"{row!r:.80} is no object with named fields")
        count += 1
        yield place, row
    if not count:
        raise TaskError(f"{file}: is empty: it has no rows; restore it")


def _parsed(file: pathlib.Path, layout: str | None) -> Iterator[tuple[int, Any]]:
    text = _text(file)
    if file.suffix == ".csv":
        yield from _csv(file, text, layout)
    elif file.suffix == ".json":
        content = _json(text, Place(str(file), 1))
        listed = content.get("examples") if isinstance(content, dict) else content
        if not isinstance(listed, list):
            raise TaskError(f"{file}: holds neither a list nor 'examples'; BIG-bench-hard's files do")
        yield from enumerate(listed, 1)
    else:
        lines = text.split("\n")  # not splitlines: U+2028 may stand in a text
        yield from ((n, _json(line, Place(str(file), n))) for n, line in enumerate(lines, 1) if line.strip())


def _text(file: pathlib.Path) -> str:
    data = file.read_bytes()
    if not data.strip():
        raise TaskError(f"{file}: is empty; restore it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(f"{file}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8") from None


def _json(text: str, place: Place) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise place.error(f"not valid JSON ({error.msg} at character {error.pos}): {text!r:.60}") from None


def _csv(file: pathlib.Path, text: str, layout: str | None) -> Iterator[tuple[int, Row]]:
    """Cells are text as they stand, "None" and "NA" too."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 0
    header: tuple[str, ...] = _HEADERLESS
    try:
        for cells in reader:
            if not number and layout != "mmlu-csv" and "question" in cells and "answer" in cells:
                header, number = tuple(cells), 1
                continue
            if not number and layout == "csv":
                raise TaskError(f"{file}: header {cells!r:.120}; needs question, choices (or choice0 … choice3) and answer")
            number += 1
            if cells and len(cells) != len(header):
                here = number - (header is not _HEADERLESS)
                choices = f", so {len(cells) - 2} choices where there must be 4" if header is _HEADERLESS else ""
                raise Place(str(file), here).error(f"{len(cells)} cells {cells!r:.200}; needs {', '.join(header)}{choices}")
            if cells:
                yield number - (header is not _HEADERLESS), dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise TaskError(
            f"{file}: line {reader.line_num}: not valid CSV ({error}); quote cells and double quotes in them"
        ) from None


def _parquet(file: pathlib.Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise TaskError(f"{file}: not a Parquet file ({str(error).splitlines()[0]:.120}); restore it") from None
    yield from enumerate(table.to_pylist(), 1)


# ---- tasks


def _check_subjects(name: str, tables: Mapping[str, Table], only: Sequence[str]) -> None:
    """Raises TaskError where a subject lacks a split that others have, and where MMLU's known subjects are not all there."""
    remedy = "bring its file, or name the tasks to load"
    for split in (DEV, VAL, TEST):
        having = [t for t in tables if split in tables[t]]
        lacking = [t for t in tables if split not in tables[t] and tables[t].keys() & {DEV, VAL, TEST}]
        if having and lacking:
            there = ", ".join(sorted(tables[lacking[0]]))
            raise TaskError(f"{name}: {lacking[0]} has no {split} file (it has {there}), other subjects have; {remedy}")
    known = set(tables) & set(mmlu_groups.SUBJECTS)
    missing = sorted(set(mmlu_groups.SUBJECTS) - known)
    if known and missing and not only:
        raise TaskError(f"{name}: {len(missing)} of MMLU's 57 subjects are missing: {_some(missing)}; {remedy}")


def _task(name: str, table: Table, groups: Mapping[str, str], cot: pathlib.Path | None, notes: list[str]) -> Task:
    """A task of its rows by split."""
    kinds = {s: rows.kind_of(found[0][1], found[0][0]) for s, found in table.items()}
    kind = kinds.get(TEST) or next(iter(kinds.values()))
    splits = {s: tuple(_items(kinds[s], found, s)) for s, found in table.items()}
    template, formats, seed = kind.template, kind.formats, None
    if kind is rows.BIG_BENCH_HARD and cot is not None:
        template, splits[DEV] = _worked_shots(cot, template)
        formats = ("generate", "cot", "cloze")
    if TEST not in splits and VAL in splits:
        notes.append(f"{name}: has no test split, its validation items are asked instead")
        splits[TEST] = splits.pop(VAL)
    if DEV not in splits and TRAIN in splits:
        splits[DEV] = splits[TRAIN]
    splits.pop(TRAIN, None)
    if TEST not in splits:
        file = next(iter(table.values()))[0][0].file
        raise TaskError(f"{file}: {name} has no test items (it has {', '.join(splits)}); bring a test file")
    items = splits[TEST]
    if DEV not in splits and kind.name != rows.MMLU.name:
        splits[DEV], seed = items, CORE_SEED
    template = _delimited(template, items)
    if all(i.choices == tuple(LETTERS[: len(i.choices)]) for i in items):  # the question lists the choices itself
        formats = tuple(f for f in formats if f != "letter")
    citation = MMLU_CITATION if name in groups else ""
    subject = name.replace("_", " ") if kind.name == rows.MMLU.name else ""
    return Task(name, subject, splits, formats, groups.get(name, ""), template, seed=seed, citation=citation)


def _items(kind: Kind, found: Iterable[tuple[Place, Row]], split: str) -> Iterator[Item]:
    for number, (place, row) in enumerate(found):
        yield rows.item(kind, row, f"{split}/{number}", place)


def _delimited(template: Template, items: Sequence[Item]) -> Template:
    """Fits a bare template to texts that bring their own delimiter or lack "Answer:" (ARC's and PIQA's queries do)."""
    if template.question != "{q}":
        return template
    answers = [c for i in items for c in (i.choices or (i.target,))]
    if all(a[:1].isspace() for a in answers):
        return dataclasses.replace(template, delimiter="")
    questions = [i.question.strip() for i in items]
    if all(q.startswith("Question:") and not q.endswith(":") for q in questions):
        return dataclasses.replace(template, question="{q}\nAnswer:")
    return template


# ---- BIG-bench-hard's worked shots


def _cot_prompts(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Files of ``cot-prompts`` by task, in the folder or beside it."""
    base = root if root.is_dir() else root.parent
    for folder in (base / "cot-prompts", base.parent / "cot-prompts"):
        if folder.is_dir():
            return {f.stem: f for f in sorted(folder.glob("*.txt"))}
    return {}


def _worked_shots(file: pathlib.Path, template: Template) -> tuple[Template, tuple[Item, ...]]:
    """A template whose prompts are the file's, word for word, and its examples.

    Raises:
      TaskError: where it is not written as BIG-bench-hard's are.
    """
    _, _, body = _text(file).replace("\r\n", "\n").partition("\n-----\n")
    header, *blocks = body.rstrip("\n").split("\n\nQ: ")
    shots, between = [], "\n"
    for number, block in enumerate(blocks):
        found = re.fullmatch(r"(.*?)\nA: Let's think step by step\.([\n ])(.*) So the answer is (.*?)\.", block, re.DOTALL)
        if found is None:
            raise TaskError(
                f"{file}: example {number + 1}: {block!r:.60} is not 'Q: … A: Let's think step by step. … So the answer is ….'"
            )
        between = found[2]
        shots.append(Item(f"dev/{number}", found[1], target=found[4], cot=found[3]))
    if not shots:
        raise TaskError(f"{file}: no example 'Q: …' after a line of five dashes; restore it")
    steps = f"Let's think step by step.{between}{{cot}} So the answer is"
    return dataclasses.replace(template, header=header + "\n\n", cot=steps, end="."), tuple(shots)


# ---- words


def _notes(tasks: Sequence[Task]) -> Iterator[str]:
    """How many rows of each split would be read otherwise by a careless reader."""
    for split in (DEV, VAL, TEST):
        items = [i for t in tasks if t.seed is None or split == TEST for i in t.splits.get(split, ())]
        choices = [c for i in items for c in i.choices]
        counts = {
            "choices are text that pandas takes for missing (None, NA)": sum(c in _READ_AS_NAN for c in choices),
            "choices have blanks around them, which are kept": sum(c != c.strip() for c in choices),
            "items offer one choice twice": sum(len(set(i.choices)) < len(i.choices) for i in items),
            "questions have blanks around them, which prompts strip": sum(i.question != i.question.strip() for i in items),
        }
        yield from (f"{split}: {count:,} {what}" for what, count in counts.items() if count)


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
