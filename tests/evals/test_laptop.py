"""The laptop suite: what cannot be guessed without the question, and what is in no training text."""

import collections
import hashlib
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest

from scaling import corpus, sweep
from scaling.evals import laptop, overlap, prompts
from scaling.evals.items import DEV, TEST, VAL, Item, Suite, Task
from scaling.evals.laptop import knowledge, store, subject
from scaling.store import StoreError, TokenStore

SUITE = laptop.suite()
TASKS = [pytest.param(task, id=task.name) for task in SUITE.tasks]
SUBJECTS = {s.name: s for s in laptop.SUBJECTS}
CONTEXT = 192


@pytest.fixture(scope="module")
def questions() -> dict[str, list[subject.Question]]:
    """800 training questions of each subject, as its training text draws them."""
    random = Random("gates")
    return {
        s.name: [store.of_training(random, s, store.training_world(random, s)) for _ in range(800)] for s in laptop.SUBJECTS
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
    asked = [(i.question, i.meta.get("world")) for items in task.splits.values() for i in items]
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
        _word, _, rest = item.question.partition(" ")
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
                return {p[0]: p[1] for p in item.meta["world"].split()}[rest[-1]]
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


def test_without_shots_the_hidden_map_is_a_guess() -> None:
    """Fails when a map of the test is one of training, when an item's shots have another map or do not show its class, or when
    a word says more about its label than the map does: no rule from word to label beats chance over the maps."""
    task = next(t for t in SUITE.tasks if t.name == "hidden_map")
    hidden = SUBJECTS["hidden_map"]
    random = Random(0)
    taught = {store.of_training(random, hidden, store.training_world(random, hidden)).meta["world"] for _ in range(500)}
    for item in task.splits[TEST]:
        shots = [d for d in task.splits[DEV] if d.meta["world"] == item.meta["world"]]
        assert len(shots) == 5 and {d.answer for d in shots} == {0, 1, 2, 3} == {d.answer for d in shots[:4]}
        assert item.meta["world"] not in taught and not hidden.trains(item.question)
    items = task.splits[TEST]
    maps = sorted({i.meta["world"] for i in items})
    for place in (4, 5):  # the filler, the letter that decides
        best: dict[str, collections.Counter[str]] = {}
        for item in (i for i in items if i.meta["world"] in maps[:12]):
            best.setdefault(item.question[place], collections.Counter())[item.gold] += 1
        others = [i for i in items if i.meta["world"] not in maps[:12]]
        found = accuracy(others, lambda item, c, at=place, best=best: best.get(item.question[at], {}).get(c, 0))  # type: ignore[misc]
        # 13 maps of 4 letters: 52 draws at a quarter have a standard error of 0.06.
        assert abs(found - 0.25) < 0.18, found


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A small training text, a third of it in MMLU's letter format."""
    return laptop.build(laptop.Spec(letters=0.3, tokens=150_000), tmp_path_factory.mktemp("laptop") / "small")


def documents(store: TokenStore) -> list[str]:
    """The texts of the training split."""
    offsets, tokens = store.offsets("train"), store.tokens("train")
    return [store.tokenizer.decode(tokens[a:b]) for a, b in itertools.pairwise(offsets)]


def test_no_item_is_in_the_training_text(text: TokenStore) -> None:
    """Fails when an item's question is in a document of its subject, when overlap finds it, or when overlap finds nothing: a
    suite of the text's own questions must be found whole.  The first draft of ``two_hop`` held 26 questions of ``homes``."""
    found = overlap.overlap(SUITE, text)
    assert all(o.items == 550 and o.clean for o in found), overlap.report(found)
    lines = [line for d in documents(text) for line in d.split("\n")]
    asked = {line.split(":")[0] for line in lines}
    for task in SUITE.tasks:
        assert not asked & {i.question for items in task.splits.values() for i in items}, task.name
    known = [line.split(": ") for line in lines if line.startswith("rev ") and line.count(": ") == 1][:20]
    items = tuple(Item(str(n), question, (answer,)) for n, (question, answer) in enumerate(known))
    planted = overlap.overlap(laptop_like(items), text)
    assert len(planted[0].exact) == len(planted[0].ngrams) == 20, overlap.report(planted)
    changed = tuple(Item(str(n), i.question, (i.gold + "x",)) for n, i in enumerate(items))
    assert overlap.overlap(laptop_like(changed), text)[0].clean


def laptop_like(items: tuple[Item, ...]) -> Suite:
    """A suite of one task with the laptop suite's template."""
    return Suite("planted", (Task("planted", "", {TEST: items}, template=subject.TEMPLATE),))


def test_a_long_item_is_found_by_a_part_of_it(text: TokenStore) -> None:
    """Fails when 13 words that an item shares with the text are overlooked, when 12 count, or when words of two documents are
    run together."""
    first, second = (d.split() for d in documents(text)[:2])
    items = {
        "thirteen": [*["some", "words", "that", "are", "nowhere"], *first[5:18], "then"],
        "twelve": [*["some", "words", "that", "are", "nowhere"], *first[5:17], "other"],
        "over the end": [*["some", "words", "that", "are", "nowhere"], *first[-7:], *second[:6]],
    }
    made = tuple(Item(name, " ".join(words), target="end") for name, words in items.items())
    found = overlap.overlap(laptop_like(made), text)[0]
    assert found.ngrams == ("thirteen",) and not found.exact


def test_training_text_is_what_prompts_show(text: TokenStore) -> None:
    """Fails when a document is worded otherwise than the prompts that a model is asked with, or subjects miss their shares."""
    sizes: collections.Counter[str] = collections.Counter()
    for document in documents(text):
        letter = document.startswith("The following")
        if letter:
            about = re.search(r"about (.*)\.\n", document)
            assert about is not None
            name = next(s.name for s in laptop.SUBJECTS if s.about == about[1])
            blocks = document.split("\n\n")[1:-1]
            assert all(
                re.fullmatch(r".+\nA\. .+\nB\. .+\nC\. .+\nD\. .+\nAnswer: [A-D]", b)
                for b in blocks
                if ":" not in b.split("\n")[0]
            )
        else:
            assert document.endswith("\n") and all(": " in line for line in document.splitlines())
            word = document.split()[0]
            name = {"mod": "mod_add", "rev": "reverse", "close": "brackets", "find": "lookup", "map": "hidden_map"}.get(
                word, word
            )
        sizes[name] += len(document)
    whole = sum(sizes.values())
    weights = {s.name: s.weight for s in laptop.SUBJECTS}
    for name in ("add", "mod_add", "sum", "copy", "reverse", "brackets", "sort", "lookup", "hidden_map"):
        assert sizes[name] / whole == pytest.approx(weights[name] / sum(weights.values()), abs=0.02), name
    task = next(t for t in SUITE.tasks if t.name == "reverse")
    shown = prompts.request(task, task.splits[TEST][0], "cloze", 2)
    lines = (shown.prefix + "".join(shown.options[shown.item.answer])).splitlines()
    assert len(lines) == 3 and all(re.fullmatch(r"rev [a-z]+: [a-z]+", line) for line in lines)


def test_the_same_text_every_time(tmp_path: pathlib.Path, text: TokenStore) -> None:
    """Fails when a store depends on anything but its recipe, or the items change unnoticed: runs of months apart could then not
    be compared.  A changed generator needs a new ``store.VERSION`` and these numbers."""
    again = laptop.build(laptop.Spec(letters=0.3, tokens=150_000), tmp_path / "again")
    assert again.fingerprint == text.fingerprint
    other = laptop.build(laptop.Spec(letters=0.3, tokens=150_000, seed=1), tmp_path / "other")
    assert other.fingerprint != text.fingerprint
    content = "|".join(
        f"{t.name}{i.id}{i.question}{i.choices}{i.answer}{i.cot}" for t in SUITE.tasks for x in t.splits.values() for i in x
    )
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == "cf430febe36a47c6"
    with pytest.raises(StoreError, match="another source"):
        laptop.build(laptop.Spec(tokens=150_000), tmp_path / "again")
    with pytest.raises(StoreError, match=r"--subjects copi.*--letters 2.*--tokens 10"):
        laptop.build(laptop.Spec(subjects=("copi",), letters=2, tokens=10), tmp_path / "bad")
    assert (
        corpus.is_default("tokens/laptop") and corpus.is_default("tokens/letters") and not corpus.is_default("tokens/laptops")
    )


def test_the_default_text_lasts_for_the_default_ladder() -> None:
    """Fails when the largest budget of the default ladder would see its share of the training text twice."""
    members = sweep.load("ladder.py").members
    shares = dict(members[0].config.data.mixture)
    share = shares["tokens/laptop"] / sum(shares.values())
    assert share * max(m.plan.tokens for m in members) < laptop.DEFAULTS["laptop"].tokens - 10 * CONTEXT
