"""From log-likelihoods and generated text to numbers."""

import dataclasses
import functools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from scaling.evals import metrics
from scaling.evals.items import Item, Scored, Task, TaskError, Template
from scaling.evals.metrics import Metric

TASK = Task("t", "", {})


def scored(id="a", lls=(-1.0, -2.0), answer=0, lengths=None, **fields):
    """An item with these log-likelihoods; ``lengths`` in tokens, twice that in bytes, three times in characters."""
    lengths = lengths or (1,) * len(lls)
    item = Item(id, "q", tuple(f"c{i}" for i in range(len(lls))), answer)
    whole = {"greedy": (False,) * len(lls), "shots": 0} | fields
    return Scored(
        item, tuple(lls), tokens=tuple(lengths), n_bytes=tuple(2 * n for n in lengths),
        characters=tuple(3 * n for n in lengths), **whole,
    )  # fmt: skip


def generated(text, target, id="a", cot=""):
    return dataclasses.replace(scored(id, (-1.0,)), item=Item(id, "q", target=target, cot=cot), generated=text)


def values(s, format="letter", task=TASK):
    return {k: float(v[0]) for k, v in metrics.values([s], format, task).items()}


def test_brier_and_probabilities_of_an_example(golden):
    """Fails when Brier, the probability of the right letter or that of all letters differ from the reference."""
    known = golden["brier_4choice"]
    found = values(scored(lls=known["lls"], answer=known["gold"]))
    assert found["brier"] == pytest.approx(known["brier"], rel=1e-12)
    assert found["p_gold"] == pytest.approx(known["p_gold"], rel=1e-12)
    assert found["nll"] == -known["lls"][1] and found["p_gold_raw"] == pytest.approx(math.exp(known["lls"][1]))
    assert found["letter_mass"] == pytest.approx(sum(map(math.exp, known["lls"]))) and found["acc"] == 0
    assert values(scored(lls=(-5.0,) * 4))["brier"] == pytest.approx(known["uniform_brier"])


def test_lengths_choose_otherwise():
    """Fails when a normalisation divides by another length, or PMI adds where it should subtract."""
    item = scored(lls=(-4.0, -6.0), answer=1, lengths=(1, 2))
    item = dataclasses.replace(item, n_bytes=(4, 5), characters=(4, 7), unconditional=(-1.0, -4.0))
    found = values(item, "cloze")
    assert [found[f"acc{k}"] for k in ("", "_token", "_byte", "_character", "_pmi")] == [0, 1, 0, 1, 1]
    assert (found["nll"], found["nll_token"], found["nll_byte"]) == (6, 3, 1.2)
    assert "letter_mass" not in found and "acc_pmi" not in values(dataclasses.replace(item, unconditional=()), "cloze")


def test_the_first_of_equals_is_chosen():
    """Fails when a tie goes to another choice than in lm-evaluation-harness."""
    assert metrics.choices_made([scored(lls=(-2.0, -1.0, -1.0)), scored(lls=(-1.0, -1.0))]).tolist() == [1, 0]


def test_items_may_have_different_numbers_of_choices():
    """Fails when what fills up a short row counts as a choice, or chance is not the mean of 1 / choices."""
    items = [scored("a", (-3.0, -1.0), 1), scored("b", (-1.0,) * 4, 3)]
    found = metrics.of(items, "letter", TASK)
    assert found["acc"].value == 0.5 and metrics.chance(items) == 0.375
    assert found["p_gold"].value == pytest.approx((1 / (1 + math.exp(-2)) + 0.25) / 2)
    assert found["acc_centered"].value == pytest.approx((0.5 - 0.375) / 0.625)
    assert found["acc_centered"].low == pytest.approx((found["acc"].low - 0.375) / 0.625)


def test_one_continuation_is_right_when_it_is_greedy():
    """Fails when LAMBADA's accuracy is that of a choice among one, or it has a chance level."""
    items = [dataclasses.replace(scored(i, (-1.0,)), greedy=(g,)) for i, g in (("a", True), ("b", False), ("c", False))]
    found = metrics.of(items, "cloze", TASK)
    assert found["acc"].value == pytest.approx(1 / 3) and found["acc"].n == 3
    assert metrics.chance(items) == 0 and not {"acc_centered", "brier", "p_gold", "acc_token"} & set(found)


@pytest.mark.parametrize(
    ("text", "target", "match"),
    [
        (" 42", "42", True), ("42.", "42", True), ("1,200", "1200", True), ("a  b\tc", "a b c", True), ("(A)", "(A)", True),
        ("Yes", "yes", False), ("-4", "4", False), ("1,20", "120", False), ("4.5", "45", False), ("", "4", False),
    ],
)  # fmt: skip
def test_exact_match(text, target, match):
    """Fails when the documented rule forgives more or less: blanks, a final full stop, commas between thousands."""
    assert values(generated(text, target), "generate")["exact_match"] == match


def test_worked_answers_are_extracted():
    """Fails when the answer of a chain of thought is not what follows its marker, or none is found where none is."""
    task = Task("t", "", {}, template=Template(cot="{cot} So the answer is"))
    for text, match in [
        (" 1 and 1 make 2. So the answer is 2.\nQuestion: and", 1), ("so the answer is  2", 1), (" 2", 0),
        (" So the answer is 3. So the answer is 2.", 1), (" So the answer is 2.\n\nQuestion: So the answer is 3.", 1),
        (" So the answer is\n2", 1), (" So the answer is 3\n2", 0),
    ]:  # fmt: skip
        assert values(generated(text, "2"), "cot", task)["exact_match"] == match, text
    school = Task("t", "", {}, template=Template(cot="{cot}\n####"))
    assert values(generated("1 + 1\n#### 1,200", "1200"), "cot", school)["exact_match"] == 1


@hypothesis.given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_edit_distance_against_its_definition(a, b):
    """Fails when the distance is not the least number of insertions, deletions and substitutions over the longer length."""

    @functools.cache
    def least(i, j):
        if not i or not j:
            return i + j
        return min(least(i - 1, j) + 1, least(i, j - 1) + 1, least(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    assert metrics.edit_distance(a, b) == pytest.approx(least(len(a), len(b)) / max(len(a), len(b), 1))


def test_edit_counts_tokens_of_the_given_tokenizer():
    """Fails when the distance is always in bytes."""
    item = generated("one two three", "one two four")
    assert values(item, "generate")["edit"] == pytest.approx(5 / 13)
    assert metrics.of([item], "generate", TASK, str.split)["edit"].value == pytest.approx(1 / 3)
    assert "exact_match" not in values(dataclasses.replace(item, generated=None), "generate")


def test_intervals_belong_to_their_metric():
    """Fails when accuracy has no Wilson interval, or a continuous metric none that holds its value."""
    rng = np.random.default_rng(0)
    items = [scored(str(i), rng.normal(-3, 1, 4), int(rng.integers(4))) for i in range(200)]
    found = metrics.of(items, "letter", TASK)
    hits = round(found["acc"].value * 200)
    assert (found["acc"].low, found["acc"].high) == pytest.approx(metrics.uncertainty.wilson(hits, 200))
    for name in ("brier", "nll", "p_gold"):
        m = found[name]
        assert m.low < m.value < m.high and (m.high - m.low) / (2 * 1.96 * m.stderr) == pytest.approx(1, abs=0.15), name


def test_micro_and_macro_of_four_subjects():
    """Fails when the mean over items or over subjects, or the pooled standard error, differs from lm-evaluation-harness's."""
    tasks = []
    for hits, n in ((46, 135), (25, 100), (30, 100), (70, 270)):
        items = [scored(str(i), (-1.0, -2.0), int(i >= hits)) for i in range(n)]
        tasks.append(metrics.of(items, "letter", TASK))
    micro, macro = metrics.aggregate(tasks), metrics.aggregate(tasks, "macro")
    assert micro["acc"].value == pytest.approx(0.28264462809917357, rel=1e-12)
    assert micro["acc"].stderr == pytest.approx(0.01831202640693332, rel=1e-12)
    assert macro["acc"].value == pytest.approx(0.2875, abs=5e-5) and micro["acc"].n == 605
    assert (micro["acc"].low, micro["acc"].high) == pytest.approx(metrics.uncertainty.wilson(171, 605))
    assert micro["nll"].low < micro["nll"].value < micro["nll"].high
    with pytest.raises(ValueError, match="must be 'micro' or 'macro'"):
        metrics.aggregate(tasks, "mean")


def test_pass_at_k_groups_samples_by_item():
    """Fails when samples of one item count as items, or too few samples pass."""
    samples = [generated(t, "2", id) for id, texts in (("a", "2333"), ("b", "3333")) for t in texts]
    found = metrics.pass_at_k(samples, "generate", TASK, 2)
    assert found.value == pytest.approx(0.25) and found.n == 2
    with pytest.raises(TaskError, match=r"'a' has 4 samples, pass@5 needs 5"):
        metrics.pass_at_k(samples, "generate", TASK, 5)


def test_models_are_compared_item_by_item():
    """Fails when items are paired by their place instead of their id, or unpaired items are compared."""
    first = [scored(str(i), (-1.0, -2.0), int(i >= 120)) for i in range(200)]
    second = [scored(str(i), (-1.0, -2.0), int(not (15 <= i < 120 or i >= 195))) for i in range(200)]
    test = metrics.compare(first, second[::-1], "letter", TASK)
    assert (test.first, test.second, test.n, test.chi2) == (15, 5, 200, 4.05)
    paired = metrics.difference(first, second[::-1], "acc", "letter", TASK)
    assert paired.value == pytest.approx(0.05) and paired.stderr == pytest.approx(0.0220794, rel=0.01)
    assert paired.low < 0.05 < paired.high
    with pytest.raises(TaskError, match=r"item '0' was scored on one side alone \(1 such\)"):
        metrics.compare(first, second[1:], "letter", TASK)


def test_scores_that_are_no_numbers_are_told():
    """Fails when a diverged model gets an accuracy, or nothing scored gets a mean."""
    with pytest.raises(TaskError, match=r"t: item 'b': log-likelihoods \(nan, -1.0\), and of 1 of 2 items are not finite"):
        metrics.of([scored("a"), scored("b", (math.nan, -1.0))], "letter", TASK)
    with pytest.raises(TaskError, match="no item was scored in cloze"):
        metrics.of([], "cloze", TASK)
    with pytest.raises(TaskError, match="neither log-likelihoods nor generated text"):
        metrics.of([dataclasses.replace(scored(), loglikelihoods=())], "generate", TASK)


def test_metrics_are_plain_numbers():
    """Fails when a NumPy scalar reaches the rows that are written as JSON."""
    for m in metrics.of([scored("a"), scored("b", answer=1)], "letter", TASK).values():
        assert isinstance(m, Metric) and all(type(x) in (float, int) for x in dataclasses.astuple(m))
