"""The laptop suite: what cannot be guessed without the question, and what is in no training text."""

import collections
import math
import pathlib
import re
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest

from scaling import corpus, data
from scaling.evals import baselines, laptop, overlap, prompts
from scaling.evals.items import DEV, TEST, VAL, Item, Task
from scaling.evals.laptop import knowledge, store, subject
from scaling.mixture import Dataset
from scaling.store import StoreError, TokenStore

SUITE = laptop.suite()
TASKS = [pytest.param(task, id=task.name) for task in SUITE.tasks]
SUBJECTS = {s.name: s for s in laptop.SUBJECTS}
CONTEXT = 192


@pytest.fixture(scope="module")
def questions() -> dict[str, list[subject.Question]]:
    """1500 training questions of each subject, as its training text draws them."""
    random = Random("gates")
    return {
        s.name: [store.of_training(random, s, store.training_world(random, s)) for _ in range(1500)] for s in laptop.SUBJECTS
    }


def accuracy(items: Sequence[Item], score: Callable[[Item, str], float]) -> float:
    """Of choosing what scores highest; of k equals each has one part in k."""
    right = 0.0
    for item in items:
        scores = [score(item, c) for c in item.choices]
        best = [i for i, s in enumerate(scores) if s == max(scores)]
        right += (item.answer in best) / len(best)
    return right / len(items)


def chance_within(items: Sequence[Item], n_se: float = 3.0) -> float:
    """How far from a quarter a guess may be."""
    return n_se * math.sqrt(0.25 * 0.75 / len(items))


def distance(a: str, b: str) -> int:
    """Places that differ, and the difference in length."""
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


@pytest.mark.parametrize("task", TASKS)
def test_an_item_is_whole(task: Task) -> None:
    """Fails when counts are others, choices are repeated, an answer does not lie among them, or a question is asked twice."""
    assert len(task.splits[VAL]) == 50 and len(task.splits[TEST]) == 500
    assert len(task.splits[DEV]) == (125 if task.name == "hidden_map" else 5)
    asked = [(i.question, i.meta.get("map")) for items in task.splits.values() for i in items]
    assert len(set(asked)) == len(asked)
    for items in task.splits.values():
        assert len({i.id for i in items}) == len(items)
        for item in items:
            assert len(set(item.choices)) == 4 and 0 <= item.answer < 4 and item.meta["difficulty"] >= 0
            assert bool(item.cot) == ("cot" in task.formats)


@pytest.mark.parametrize("task", TASKS)
def test_nobody_can_answer_without_the_question(task: Task, questions: dict[str, list[subject.Question]]) -> None:
    """Fails when a subject is answered from its choices alone: their lengths, the frequency of their characters or of
    themselves as right answers in training, their place, their likeness to the other choices, or their size."""
    items = (*task.splits[TEST], *task.splits[VAL])
    gold = [q.gold for q in questions[task.name]]
    letters = collections.Counter("".join(gold))
    whole = collections.Counter(gold)
    pairs = collections.Counter(p for g in gold for p in zip(f"^{g}", f"{g}$", strict=True))
    scorers: dict[str, Callable[[Item, str], float]] = {
        "longest": lambda item, c: len(c),
        "shortest": lambda item, c: -len(c),
        "unigram": lambda item, c: sum(math.log(letters[x] + 1) for x in c) / len(c),
        "bigram": lambda item, c: sum(math.log(pairs[p] + 1) for p in zip(f"^{c}", f"{c}$", strict=True)) / len(c),
        "frequent": lambda item, c: whole[c],
        "in the middle": lambda item, c: -sum(distance(c, other) for other in item.choices),
        "odd one out": lambda item, c: sum(distance(c, other) for other in item.choices),
        "largest": lambda item, c: sorted(item.choices).index(c),
        "smallest": lambda item, c: -sorted(item.choices).index(c),
        "median": lambda item, c: -abs(sorted(item.choices).index(c) - 1.4),
    }  # fmt: skip
    found = {name: accuracy(items, score) for name, score in scorers.items()}
    off = {name: a for name, a in found.items() if abs(a - 0.25) > chance_within(items)}
    assert not off, off
    positions = np.bincount([i.answer for i in items], minlength=4)
    assert np.all(np.abs(positions / len(items) - 0.25) < chance_within(items)), positions


@pytest.mark.parametrize("task", TASKS)
def test_training_and_test_ask_alike(task: Task, questions: dict[str, list[subject.Question]]) -> None:
    """Fails when the split depends on the answer, so that what is right in training is not what is right in the test: a split
    of sums by (7919 a + 104729 b) mod 10 once held some sums out for good."""
    test, train = [i.gold for i in task.splits[TEST]], [q.gold for q in questions[task.name]]
    for what in (lambda g: g[0], lambda g: g[-1], len):
        a, b = (collections.Counter(map(what, golds)) for golds in (test, train))
        # Two multinomial samples: chi-square of their difference, at most its mean and five standard deviations.
        keys = [k for k in a | b if a[k] + b[k] >= 10]
        n, m = sum(a[k] for k in keys), sum(b[k] for k in keys)
        chi2 = sum((math.sqrt(m / n) * a[k] - math.sqrt(n / m) * b[k]) ** 2 / (a[k] + b[k]) for k in keys)
        clusters = 8 if task.name in ("two_hop", "codes", "homes", "hidden_map") else 1  # items share people and maps
        assert chi2 <= clusters * (len(keys) + 5 * math.sqrt(2 * len(keys))), (chi2, len(keys))


@pytest.mark.parametrize("task", TASKS)
def test_six_items_fit_the_context(task: Task) -> None:
    """Fails when five shots and a question are longer than the default context, in any format but MMLU's letters."""
    for format in task.formats:
        if format == "letter":
            continue
        longest = max(
            len(r.prefix) + max(len(a) + len(b) for a, b in r.options) for r in prompts.requests(task, format, 5, limit=100)
        )
        assert longest + 1 <= CONTEXT, (format, longest)


def test_answers_are_right() -> None:
    """Fails when a generator's answer or its steps are wrong; every subject is solved here by other means."""
    world = knowledge.world()
    people = "|".join(world.people)

    def solve(task: Task, item: Item) -> str:
        word, _, rest = item.question.partition(" ")
        match task.name:
            case "add":
                a, b = map(int, rest.split("+"))
                ones, tens = map(int, item.cot.split())
                assert (a + b) % 10 == ones % 10 and 10 * tens + ones % 10 == a + b
                return str(a + b)
            case "mod_add":
                return f"{sum(map(int, rest.split('+'))) % 97:02}"
            case "sum":
                steps = [sum(map(int, rest[: i + 1])) % 10 for i in range(len(rest))]
                assert item.cot.split() == [str(s) for s in steps]
                return str(steps[-1])
            case "copy":
                return rest
            case "reverse":
                return "".join(reversed(rest))
            case "brackets":
                while (shorter := re.sub(r"\(\)|\[\]|\{\}|<>", "", rest)) != rest:
                    rest = shorter
                return rest[::-1].translate(str.maketrans("([{<", ")]}>"))
            case "sort":
                return "".join(sorted(rest))
            case "lookup":
                *pairs, key = rest.split()
                return dict(map(tuple, pairs))[key]
            case "hidden_map":
                return {p[0]: p[1] for p in item.meta["map"].split()}[rest[-1]]
            case "codes":
                return world.code[re.findall(people, item.question)[0]]
            case "homes":
                return world.home[re.findall(people, item.question)[0]]
            case "two_hop":
                boss = world.boss[re.findall(people, item.question)[0]]
                assert item.cot == boss
                return world.home[boss]
        raise AssertionError(task.name)

    for task in SUITE.tasks:
        for items in task.splits.values():
            for item in items:
                assert solve(task, item) == item.gold, (task.name, item)
