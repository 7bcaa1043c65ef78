"""Scorers without a model on the real MMLU, through its prompts and the metrics."""

import collections

import pytest

from scaling.evals import baselines, metrics, prompts
from scaling.evals.items import DEV, TEST, Item, Task


@pytest.fixture(scope="module")
def asked(mmlu):
    """A fifth of the subjects, 1-shot in the letter format, by task."""
    return [(t, prompts.requests(t, "letter", 1)) for t in mmlu.tasks[::5]]


def errors(asked, n):
    """So many standard errors of a guess at 1/4."""
    return n * (0.25 * 0.75 / sum(len(requests) for _, requests in asked)) ** 0.5


def overall(asked, scorer):
    return metrics.aggregate([metrics.of(scorer(requests), "letter", task) for task, requests in asked])


def test_a_uniform_model_scores_chance(asked):
    """Fails when equal probabilities give another Brier score than 0.75, another p than 1/4 or an accuracy far from it."""
    found = overall(asked, baselines.uniform)
    assert found["brier"].value == pytest.approx(0.75, abs=1e-8) and found["p_gold"].value == pytest.approx(0.25, abs=1e-8)
    assert found["letter_mass"].value == pytest.approx(1, abs=1e-8)
    assert found["acc"].value == pytest.approx(0.25, abs=errors(asked, 3))
    guesses = collections.Counter(int(c) for _, r in asked for c in metrics.choices_made(baselines.uniform(r)))
    assert max(guesses.values()) < 1.15 * min(guesses.values()) and len(guesses) == 4
    assert found["acc_centered"].value == pytest.approx((found["acc"].value - 0.25) / 0.75)


def test_an_oracle_scores_all(asked):
    """Fails when certainty of the right letter is not 100 %, or an answer was read for another letter."""
    found = overall(asked, baselines.oracle)
    assert found["acc"].value == found["acc_centered"].value == 1
    assert found["brier"].value == pytest.approx(0, abs=1e-12) and found["nll"].value == pytest.approx(0, abs=1e-7)


def test_shuffled_labels_score_chance(asked):
    """Fails when certainty of drawn labels is far from chance: then something of the answer is in the item's place."""
    assert overall(asked, baselines.shuffled)["acc"].value == pytest.approx(0.25, abs=errors(asked, 3))


def test_answering_without_the_question(mmlu, asked):
    """Fails when the majority letter is not the one that it is, or the choices alone score otherwise than they were seen to."""
    dev = [i for t in mmlu.tasks for i in t.splits[DEV]]
    most = collections.Counter(i.answer for i in dev).most_common(1)[0][0]
    right = [i.answer == most for t in mmlu.tasks for i in t.splits[TEST]]
    assert most == 3 and (sum(right), len(right)) == (3776, 14042)  # D in 78 of 285 dev items
    answers = [r.item.answer for _, requests in asked for r in requests]
    majority = overall(asked, lambda r: baselines.majority(r, dev))["acc"]
    assert majority.value == pytest.approx(answers.count(most) / len(answers)) and majority.n == len(answers)
    texts = [c for i in dev for c in i.choices]
    unigram = overall(asked, lambda r: baselines.unigram(r, texts))
    assert unigram["acc"].value == pytest.approx(0.25, abs=errors(asked, 3))
    longest = overall(asked, baselines.longest)
    assert longest["acc"].value > 0.25 + errors(asked, 2)  # right answers are longer: 28 % over all of MMLU


@pytest.mark.parametrize("format", ["cloze", "generate", "cot"])
def test_an_oracle_is_right_in_every_format(format):
    """Fails when the answer that a prompt asks for is not the one that is counted as right."""
    items = [Item(str(i), f"{i} + 1 =", (str(i), str(i + 1)), 1, cot=f"{i}, {i + 1}.") for i in range(12)]
    task = Task("sums", "", {DEV: items[:2], TEST: items[2:]})
    requests = prompts.requests(task, format, 2)
    found = metrics.of(baselines.oracle(requests), format, task)
    assert found["acc" if format == "cloze" else "exact_match"].value == 1
    if format == "cloze":
        assert all(found[f"acc_{k}"].value == 1 for k in ("token", "byte", "character"))
    else:
        assert found["edit"].value == 0
        assert metrics.of(baselines.uniform(requests), format, task)["exact_match"].value == 0
