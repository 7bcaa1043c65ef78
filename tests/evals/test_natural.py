"""Natural-text cloze: from held-out documents alone, with negatives that cannot be told without the passage."""

import math
from random import Random

import pytest

from scaling import corpus
from scaling.evals import natural, overlap, suites
from scaling.evals.items import DEV, TEST, VAL, Suite, TaskError
from scaling.sources import FileSource
from scaling.store import StoreError, TokenStore

COUNTS = {DEV: 5, VAL: 12, TEST: 100}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """45 documents of generated sentences over a vocabulary of 900 words, each document about words of its own; and one
    sentence that all of them share."""
    folder = tmp_path_factory.mktemp("natural")
    random = Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    words = ["".join(random.choices(syllables, k=random.randint(2, 4))) + random.choice(("", "s", "ing")) for _ in range(900)]
    shared = "Every document of this corpus repeats the same long sentence about words that are common to all and end on words."
    for number in range(45):
        topic = random.sample(words, 120)
        lines = []
        for _ in range(60):
            sentences = []
            for _ in range(4):
                run = random.choices(topic, k=random.randint(4, 18))
                sentences.append(" ".join(run).capitalize() + ".")
            lines.append(" ".join(sentences))
        (folder / f"{number}.txt").write_text("\n".join([shared, *lines]))
    return corpus.build(FileSource([str(folder / "*.txt")]), folder / "store", holdout=5)


@pytest.fixture(scope="module")
def suite(store: TokenStore) -> Suite:
    """Both tasks, smaller."""
    return natural.suite(store, COUNTS)


def test_items_are_of_held_out_text(store: TokenStore, suite: Suite) -> None:
    """Fails when a right answer does not follow its passage in a validation document, an item shares a 13-gram with the
    training split, or the sentence that all documents repeat is asked about."""
    texts = list(natural._texts(store, "valid"))
    for task in suite.tasks:
        assert {split: len(items) for split, items in task.splits.items()} == COUNTS
        for items in task.splits.values():
            for item in items:
                assert len(set(item.choices)) == 4
                assert f"{item.question} {item.gold}" in texts[item.meta["document"]]
                assert all(choice in texts[item.meta["document"]] for choice in item.choices)
                assert "Every document" not in item.question and len(item.question.encode()) <= natural.PASSAGE_BYTES
    assert all(o.clean for o in overlap.overlap(suite, store))


def test_answers_alone_say_nothing(store: TokenStore, suite: Suite) -> None:
    """Fails when the answer-only scorer, or length, does better or worse than a guess, or the contextual scorer solves more
    than the quarter of the items that were left to it."""
    scorers = natural.learn(store)
    for task in suite.tasks:
        items = task.splits[TEST]
        within = 3 * math.sqrt(0.25 * 0.75 / len(items))
        best = [max(range(4), key=lambda i, item=item: scorers.answer_only(item.choices[i])) for item in items]  # type: ignore[misc]
        assert sum(b == i.answer for b, i in zip(best, items, strict=True)) == len(items) // 4
        longest = [[len(c) == max(map(len, i.choices)) for c in i.choices] for i in items]
        found = sum(x[i.answer] / sum(x) for x, i in zip(longest, items, strict=True)) / len(items)
        assert abs(found - 0.25) < within, (task.name, found)
        solved = [
            max(range(4), key=lambda i, item=item: scorers.contextual(item.question, item.choices[i])) == item.answer  # type: ignore[misc]
            for item in items
        ]
        assert sum(solved) <= len(items) // 4
        positions = [sum(i.answer == p for i in items) / len(items) for p in range(4)]
        assert max(abs(p - 0.25) for p in positions) < within


def test_the_same_items_every_time(store: TokenStore, suite: Suite) -> None:
    """Fails when items depend on anything but the store."""
    assert natural.suite(store, COUNTS) == suite


def test_it_is_found_by_name_and_made_once(store: TokenStore, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when ``prose:STORE`` gives other items than the generator, makes them again though nothing has changed, or keeps
    what an earlier version or another text had."""
    makes: list[TokenStore] = []
    monkeypatch.setattr(natural, "suite", lambda of: makes.append(of) or suite)
    assert suites.find(f"prose:{store.path}") == suite == suites.find(f"prose:{store.path}")
    assert len(makes) == 1
    assert [t.name for t in suites.find(f"prose:{store.path}", ["prose_word"]).tasks] == ["prose_word"]
    monkeypatch.setattr(natural, "VERSION", 0)
    assert suites.find(f"prose:{store.path}") == suite and len(makes) == 2
    (store.path / natural.KEPT).write_text("{")
    assert suites.find(f"prose:{store.path}") == suite and len(makes) == 3
    with pytest.raises(StoreError, match=r"tokens/none: no token store"):
        suites.find("prose:tokens/none")


def test_too_little_text_is_told(store: TokenStore, suite: Suite) -> None:
    """Fails when a suite of fewer items than asked for is made in silence."""
    with pytest.raises(TaskError, match=r"prose_word: \d+ of 100000 test items.*--holdout"):
        natural.suite(store, COUNTS | {TEST: 100_000})
