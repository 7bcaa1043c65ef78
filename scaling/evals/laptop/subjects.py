"""All subjects, and the suite of their items.  Imports no jax."""

from __future__ import annotations

import functools
from random import Random

from scaling.evals.items import DEV, TEST, VAL, Item, Suite, Task
from scaling.evals.laptop import context, knowledge, numbers, strings
from scaling.evals.laptop.subject import TEMPLATE, TRAIN, UNUSED, Subject

SUBJECTS: tuple[Subject, ...] = (*numbers.SUBJECTS, *strings.SUBJECTS, *context.SUBJECTS, *knowledge.SUBJECTS)
COUNTS = {DEV: 5, VAL: 50, TEST: 500}
MAPS = 25  # of hidden_map, among which its items are spread evenly, each with shots of its own


@functools.cache
def suite() -> Suite:
    """12 subjects in 4 groups, 5 dev, 50 val and 500 test items each, four choices; the same on every machine."""
    return Suite("laptop", tuple(task(s) for s in SUBJECTS), "generated")


def task(subject: Subject) -> Task:
    """The items of ``subject``."""
    draw_items = _map_items if subject.world is context.hidden_map else _items
    return Task(
        subject.name, subject.about, draw_items(subject), subject.formats, subject.group, TEMPLATE, citation="generated"
    )


def _items(subject: Subject) -> dict[str, tuple[Item, ...]]:
    """Drawn until every split is full; no question twice."""
    random = Random(f"items/{subject.name}")
    draw = subject.world(random)
    seen: set[str] = set()
    splits: dict[str, list[Item]] = {split: [] for split in COUNTS}
    while any(len(splits[s]) < n for s, n in COUNTS.items()):
        question = draw(random)
        split = subject.split(question)
        if split in COUNTS and len(splits[split]) < COUNTS[split] and question.text not in seen:
            seen.add(question.text)
            splits[split].append(question.item(f"{split}-{len(splits[split])}"))
    return {split: tuple(items) for split, items in splits.items()}


def _map_items(subject: Subject) -> dict[str, tuple[Item, ...]]:
    """``MAPS`` maps of the test split; of each, five shots that show its four classes and one of them again, and its share of
    the other splits' items."""
    random = Random(f"items/{subject.name}")
    splits: dict[str, list[Item]] = {split: [] for split in COUNTS}
    maps = 0
    while maps < MAPS:
        draw = subject.world(random)
        if draw(random).side:
            continue
        seen: set[str] = set()
        for split, count in {DEV: COUNTS[DEV], VAL: COUNTS[VAL] // MAPS, TEST: COUNTS[TEST] // MAPS}.items():
            shown: set[int] = set()
            while count:
                question = draw(random)
                shown_too = split == DEV and len(shown) < context.PAIRS and question.answer in shown
                if shown_too or question.text in seen or subject.split(question) in (TRAIN, UNUSED):
                    continue
                seen.add(question.text)
                shown.add(question.answer)
                splits[split].append(question.item(f"{split}-{len(splits[split])}"))
                count -= 1
        maps += 1
    return {split: tuple(items) for split, items in splits.items()}
