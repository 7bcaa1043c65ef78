"""From an item to what a model reads: the four formats, shots, and MMLU's prompt in its three published wordings.

``letter`` is MMLU's prompt verbatim: the question, its choices behind letters, "Answer:", and the letters to choose from.
``cloze`` scores the text of every choice after the question (``mmlu_continuation`` of lm-evaluation-harness, or the task's own
template); it is also how tasks without choices (LAMBADA) and tasks whose contexts differ (Winograd schemas) are asked.
``generate`` asks for the answer itself, ``cot`` for worked steps that end in it.

Shots are the first of the dev split in their order, so that all items of a task share one prefix, or, where the task has a
``seed``, drawn for each item by a hash of its id; never the item itself.  Fewer shots of an item are always the beginning of
more, so that dropping one changes nothing else but the last.
"""

from __future__ import annotations

import dataclasses
import random

from scaling import units
from scaling.evals.items import DEV, FORMATS, LETTERS, TEST, WORLD, Item, Request, Task, TaskError, Template

ABOUT = "The following are multiple choice questions (with answers){about}.\n\n"


@dataclasses.dataclass(frozen=True)
class Style:
    """A wording of MMLU's prompt: ``header`` with ``{about}``, what stands ``before`` a question, whether it is stripped."""

    header: str
    about: str = " about {subject}"
    before: str = ""
    strip: bool = False


STYLES = {
    "harness": Style(ABOUT, strip=True),  # lm-evaluation-harness, task mmlu
    "hendrycks": Style(ABOUT, about=" about  {subject}"),  # hendrycks/test, evaluate.py: its subject starts with a blank
    "helm": Style(ABOUT, before="Question: "),  # HELM, task mmlu; its shots differ unless given in its order
    "plain": Style("", strip=True),  # the harness's without its header of some 80 bytes, for short contexts
}


def request(task: Task, item: Item, format: str, shots: int) -> Request:
    """An item as it is put to a model.

    Args:
      task: of the item; its template, style and seed.
      item: of any split.
      format: one of ``FORMATS``.
      shots: worked or answered items of the dev split before it.

    Raises:
      TaskError: where the item cannot be asked in this format, or has too few dev items for its shots.
    """
    return _request(task, item, format, shots, {})


def requests(task: Task, format: str, shots: int, split: str = TEST, limit: int | None = None) -> list[Request]:
    """All items of a split, or the first ``limit`` of them, as they are put to a model.

    Raises:
      TaskError: as ``request``, and for a split that is missing or empty.
    """
    items = task.splits.get(split) or ()
    if not items:
        there = ", ".join(f"{name} ({len(i)})" for name, i in task.splits.items() if i) or "none"
        raise TaskError(f"{task.name}: no items in split {split!r}; it has: {there}")
    prefixes: dict[tuple[str, ...], str] = {}
    return [_request(task, item, format, shots, prefixes) for item in items[:limit]]


def shots_of(task: Task, item: Item, shots: int) -> tuple[Item, ...]:
    """The examples before an item: where it is from a world of its own, from that world.

    Raises:
      TaskError: where the dev split has fewer than ``shots`` items besides this one.
    """
    if shots < 0:
        raise TaskError(f"{task.name}: shots={shots}; must be 0 or more")
    if shots == 0:
        return ()
    dev = [d for d in task.splits.get(DEV) or () if d.meta.get(WORLD) == item.meta.get(WORLD)]
    if task.seed is None:
        chosen = [d for d in dev[: shots + 1] if d != item][:shots]
    else:
        # An id decides the draw, so it is the same in any order and on any machine; a draw that repeats is passed over.
        rng = random.Random(f"{task.seed}|{item.id}")
        seen: dict[int, None] = {}
        while len(seen) < min(shots + 1, len(dev)):
            seen[rng.randrange(len(dev))] = None
        chosen = [dev[i] for i in seen if dev[i] != item][:shots]
    if len(chosen) < shots:
        has = "is missing or empty" if not dev else f"has {len(dev)} items, of which {len(chosen)} may stand before {item.id!r}"
        raise TaskError(f"{task.name}: {shots} shots asked for, but its dev split {has}; ask for fewer, or bring dev items")
    return tuple(chosen)


# ---- the parts of a prompt


def _request(task: Task, item: Item, format: str, shots: int, prefixes: dict[tuple[str, ...], str]) -> Request:
    """As ``request``; ``prefixes``, by the ids of their shots, are shared by items of one task and format."""
    _check_item(task, item, format)
    chosen = shots_of(task, item, shots)
    key = tuple(s.id for s in chosen)
    if key not in prefixes:
        for shot in chosen:
            _check_item(task, shot, format, worked=True)
        examples = [_context(task, s, format, s.answer) + _answer(task, s, format) for s in chosen]
        prefixes[key] = _header(task, format) + "".join(examples)
    prefix, template = prefixes[key], task.template
    if format == "letter":
        continuations = [f" {letter}" for letter in LETTERS[: len(item.choices)]]
        options = tuple((_context(task, item, format), c) for c in continuations)
        return Request(item, prefix, options, shots)
    delimiter = template.delimiter
    if format == "cloze":
        if item.contexts:
            options = tuple((_context(task, item, format, i), delimiter + item.gold) for i in range(len(item.contexts)))
            return Request(item, prefix, options, shots, delimiter)
        options = tuple((_context(task, item, format), delimiter + c) for c in item.choices or (item.gold,))
        return Request(item, prefix, options, shots, delimiter, bare=template.bare if item.choices else "")
    context = _context(task, item, format)
    options = ((context, delimiter + _worked(template, item, format)),)
    if format == "generate":
        return Request(item, prefix, options, shots, delimiter, generate=context, stop=template.stop)
    opening = delimiter + template.cot.partition("{cot}")[0]
    return Request(
        item, prefix, options, shots, delimiter, generate=(context + opening).rstrip(" "), stop=(template.separator,)
    )


def _header(task: Task, format: str) -> str:
    if format != "letter":
        return task.template.header.replace("{subject}", task.subject)
    style = style_of(task)
    return style.header.replace("{about}", style.about.format(subject=task.subject) if task.subject else "")


def _context(task: Task, item: Item, format: str, option: int = 0) -> str:
    """What stands before an answer; ``option`` picks among contexts that differ."""
    if format == "letter":
        style = style_of(task)
        question = item.question.strip() if style.strip else item.question
        listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, item.choices, strict=False))
        return f"{style.before}{question}\n{listed}Answer:"
    question = item.contexts[option] if item.contexts else item.question
    return task.template.question.format(q=question.strip() if task.template.strip else question)


def _answer(task: Task, shot: Item, format: str) -> str:
    """What a shot ends with, the blank lines before the next included."""
    if format == "letter":
        return f" {LETTERS[shot.answer]}\n\n"
    end = task.template.end if format == "cot" else ""
    return task.template.delimiter + _worked(task.template, shot, format) + end + task.template.separator


def _worked(template: Template, item: Item, format: str) -> str:
    """The right answer, in ``cot`` after its steps where the item has them."""
    if format != "cot" or not item.cot:
        return item.gold
    return template.cot.format(cot=item.cot) + template.delimiter + item.gold


def style_of(task: Task) -> Style:
    """The wording of a task's ``letter`` prompts.

    Raises:
      TaskError: for a style that is not there.
    """
    if task.style not in STYLES:
        raise TaskError(
            f"{task.name}: style {task.style!r}; choose of {', '.join(STYLES)}.{units.did_you_mean(task.style, STYLES)}"
        )
    return STYLES[task.style]


def check(task: Task, format: str, shots: int, split: str = TEST) -> None:
    """Raises TaskError where ``requests`` would, for one item that stands for all."""
    requests(task, format, shots, split, limit=1)


def _check_item(task: Task, item: Item, format: str, worked: bool = False) -> None:
    if format not in FORMATS:
        raise TaskError(f"{task.name}: format {format!r}; choose of {', '.join(FORMATS)}.{units.did_you_mean(format, FORMATS)}")
    where = f"{task.name}: item {item.id!r}"
    if format == "letter" and not 2 <= len(item.choices) <= len(LETTERS):
        raise TaskError(f"{where} has {len(item.choices)} choices; letter needs 2 to {len(LETTERS)}; ask in cloze or generate")
    options = len(item.contexts) or len(item.choices)
    if options and not 0 <= item.answer < options:
        raise TaskError(f"{where}: answer {item.answer}; there are {options} options, counted from 0")
    if not options and not item.target:
        raise TaskError(f"{where} has neither choices nor a target; there is nothing to score")
    if format in ("generate", "cot") and item.contexts:
        raise TaskError(f"{where} chooses between contexts; only cloze can ask that")
    if worked and format == "cot" and not item.cot:
        raise TaskError(f"{where} has no worked answer for a cot example; ask in generate, or without shots")
