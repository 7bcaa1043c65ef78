"""From a row of a published file to an item: the fields by which each kind of row is known, and what may stand in them.

Every text is kept as it is: "None" and "NA" are text, blanks around a choice belong to it, equal choices stay (MMLU has all
three; ``layouts`` counts them).
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scaling.evals.items import LETTERS, Item, TaskError, Template

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row stands, for messages; rows count from 1, a header line is none."""

    file: str
    row: int

    def error(self, problem: str) -> TaskError:
        return TaskError(f"{self.file}: row {self.row}: {problem}")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of row.

    Attributes:
      name: for messages.
      fields: that it is known by, all of them.
      parts: reads a row into the fields of an Item but ``id``.
      formats, template: of tasks made of such rows.
    """

    name: str
    fields: tuple[str, ...]
    parts: Callable[[Row, Place], dict[str, Any]]
    formats: tuple[str, ...]
    template: Template


def kind_of(row: Row, place: Place) -> Kind:
    """The first kind whose fields ``row`` has.

    Raises:
      TaskError: where there is none.
    """
    for kind in KINDS:
        if all(f in row for f in kind.fields):
            return kind
    known = "; ".join("{" + ", ".join(k.fields) + "}" for k in KINDS)
    raise place.error(f"fields {', '.join(map(repr, row)) or 'none'} are of no known kind of item; known are: {known}")


def item(kind: Kind, row: Row, id: str, place: Place) -> Item:
    """The item that a row holds.

    Raises:
      TaskError: where a field is missing or holds what it cannot.
    """
    missing = [f for f in kind.fields if f not in row]
    if missing:
        raise place.error(f"no field {missing[0]!r} (it has {', '.join(map(repr, row))}), which rows of {kind.name} have")
    return Item(id, **kind.parts(row, place))


# ---- fields


def text(row: Row, field: str, place: Place, empty: bool = False) -> str:
    """A field that holds text; numbers are taken as written."""
    value = row[field]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not (value or empty):
        raise place.error(f"{field}={value!r}; must be text")
    return value


def choices(value: Any, field: str, place: Place, count: int | None = None) -> tuple[str, ...]:
    """A list of two or more texts, ``count`` of them where given; as text, a JSON or Python list."""
    given = value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                raise place.error(f"{field}={given!r}; must be a list of texts") from None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise place.error(f"{field}={given!r}; must be a list of texts")
    found = tuple(text({field: v}, field, place) for v in value)
    if len(found) != count if count else len(found) < 2:
        raise place.error(f"{len(found)} choices {list(found)!r}; there must be {count or 'two or more'}")
    return found


def gold(value: Any, field: str, place: Place, count: int) -> int:
    """The index that 0, '0' or 'A' stands for."""
    letters = LETTERS[:count]
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        index = None
    elif isinstance(value, int) or value.strip().isdecimal():
        index = int(value)
    else:
        index = letters.find(value.strip()) if len(value.strip()) == 1 else None
    if index is None or not 0 <= index < count:
        raise place.error(f"{field}={value!r}; must be one of {letters[0]} to {letters[-1]}, or of 0 to {count - 1}")
    return index


# ---- kinds


def _mmlu(row: Row, place: Place) -> dict[str, Any]:
    if "choices" in row:
        options = choices(row["choices"], "choices", place, 4)
    else:
        names = ("choice0", "choice1", "choice2", "choice3") if "choice0" in row else ("A", "B", "C", "D")
        if missing := [n for n in names if row.get(n) in (None, "")]:
            there = {n: row.get(n) for n in names if n not in missing}
            raise place.error(f"{4 - len(missing)} choices {there!r}; there must be 4, {missing[0]} is missing")
        options = tuple(text(row, n, place) for n in names)
    return {
        "question": text(row, "question", place),
        "choices": options,
        "answer": gold(row["answer"], "answer", place, 4),
    }


def _arc(row: Row, place: Place) -> dict[str, Any]:
    listed = row["choices"]
    if not isinstance(listed, Mapping) or not {"text", "label"} <= set(listed):
        raise place.error(f"choices={listed!r}; must hold 'text' and 'label'")
    options, labels = choices(listed["text"], "choices.text", place), [str(label) for label in listed["label"]]
    if str(row["answerKey"]) not in labels:
        raise place.error(f"answerKey={row['answerKey']!r}; must be one of {', '.join(labels)}")
    return {"question": text(row, "question", place), "choices": options, "answer": labels.index(str(row["answerKey"]))}


def _query(row: Row, place: Place) -> dict[str, Any]:
    options = choices(row["choices"], "choices", place)
    return {
        "question": text(row, "query", place),
        "choices": options,
        "answer": gold(row["gold"], "gold", place, len(options)),
    }


def _schema(row: Row, place: Place) -> dict[str, Any]:
    options = choices(row["context_options"], "context_options", place)
    answer = gold(row["gold"], "gold", place, len(options))
    return {"question": "", "contexts": options, "target": text(row, "continuation", place), "answer": answer}


def _winogrande(row: Row, place: Place) -> dict[str, Any]:
    before, blank, after = text(row, "sentence", place).partition("_")
    if not blank or str(row["answer"]) not in ("1", "2"):
        raise place.error(f"sentence={row['sentence']!r}, answer={row['answer']!r}; must have a blank _ and an answer 1 or 2")
    options = tuple(before + text(row, f"option{i}", place) for i in (1, 2))
    return {"question": "", "contexts": options, "target": after.strip(), "answer": int(row["answer"]) - 1}


def _ending(row: Row, place: Place) -> dict[str, Any]:
    context = "ctx" if "ctx" in row else "context"
    if context not in row:
        raise place.error(f"no field 'ctx' or 'context' beside 'endings' (it has {', '.join(map(repr, row))})")
    options, question = choices(row["endings"], "endings", place), text(row, context, place)
    if {"activity_label", "ctx_a", "ctx_b"} <= set(row):  # HellaSwag as published: put together as lm-evaluation-harness does
        question = _wikihow(f"{row['activity_label']}: {row['ctx_a']} {str(row['ctx_b']).capitalize()}")
        options = tuple(map(_wikihow, options))
    return {"question": question, "choices": options, "answer": gold(row["label"], "label", place, len(options))}


def _wikihow(words: str) -> str:
    return re.sub(r"\[.*?\]", "", words.strip().replace(" [title]", ". ")).replace("  ", " ")


def _piqa(row: Row, place: Place) -> dict[str, Any]:
    options = (text(row, "sol1", place), text(row, "sol2", place))
    return {"question": text(row, "goal", place), "choices": options, "answer": gold(row["label"], "label", place, 2)}


def _continuation(row: Row, place: Place) -> dict[str, Any]:
    return {"question": text(row, "context", place), "target": text(row, "continuation", place)}


def _worked(row: Row, place: Place) -> dict[str, Any]:
    steps = text(row, "chain_of_thought", place).strip()
    return {"question": text(row, "context", place), "target": text(row, "answer", place).strip(), "cot": steps}


def _grade_school(row: Row, place: Place) -> dict[str, Any]:
    steps, marker, answer = text(row, "answer", place).rpartition("####")
    if marker and not answer.strip():
        raise place.error(f"answer={row['answer']!r}; nothing follows ####")
    return {"question": text(row, "question", place), "target": answer.strip(), "cot": steps.rstrip()}


def _input(row: Row, place: Place) -> dict[str, Any]:
    return {"question": text(row, "input", place), "target": text(row, "target", place)}


_BARE, _ASKED = Template("{q}"), Template()
MMLU = Kind(
    "MMLU",
    ("question", "answer", "choices"),
    _mmlu,
    ("letter", "cloze"),
    # As lm-evaluation-harness's mmlu_continuation.
    Template(header="The following are questions (with answers) about {subject}.\n\n"),
)
BIG_BENCH_HARD = Kind("BIG-bench-hard", ("input", "target"), _input, ("generate", "cloze"), Template("Q: {q}\nA:", bare="A:"))
KINDS = (
    Kind("ARC", ("question", "choices", "answerKey"), _arc, ("cloze", "letter"), _ASKED),
    MMLU,
    dataclasses.replace(MMLU, fields=("question", "answer", "choice0")),
    dataclasses.replace(MMLU, fields=("question", "answer", "A")),
    Kind("query, choices, gold", ("query", "choices", "gold"), _query, ("cloze", "letter"), _BARE),
    Kind("context_options, continuation, gold", ("context_options", "continuation", "gold"), _schema, ("cloze",), _BARE),
    Kind("Winogrande", ("sentence", "option1", "option2", "answer"), _winogrande, ("cloze",), _BARE),
    Kind("context, endings, label", ("endings", "label"), _ending, ("cloze", "letter"), _BARE),
    Kind("PIQA", ("goal", "sol1", "sol2", "label"), _piqa, ("cloze", "letter"), _ASKED),
    Kind("context, chain_of_thought, answer", ("context", "chain_of_thought", "answer"), _worked, ("generate", "cot"), _ASKED),
    Kind("context, continuation", ("context", "continuation"), _continuation, ("cloze", "generate"), _BARE),
    Kind("question, answer", ("question", "answer"), _grade_school, ("cot", "generate"), Template(cot="{cot}\n####")),
    BIG_BENCH_HARD,
)
