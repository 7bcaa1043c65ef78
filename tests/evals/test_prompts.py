"""What a model reads, word for word."""

import dataclasses
import hashlib

import pytest

from scaling.evals import layouts, prompts
from scaling.evals.items import DEV, TEST, Item, Task, TaskError, Template


def whole(request, option=0):
    return request.prefix + request.options[option][0]


def sums(**fields):
    """Five dev items and two of the test split: '1 + 2 = ?' with three choices."""
    items = [
        Item(f"i{i}", f" {i} + 2 =\n", (str(i), str(i + 1), str(i + 2)), 2, cot=f"{i}, {i + 1}, {i + 2}.") for i in range(7)
    ]
    return Task("sums", "small sums", {DEV: items[:5], TEST: items[5:]}, **fields)


@pytest.mark.parametrize(("style", "name"), [("harness", "lm_eval"), ("hendrycks", "hendrycks"), ("helm", "helm")])
def test_mmlu_prompts_are_those_of_three_implementations(mmlu, golden, style, name):
    """Fails when a blank, a line or a shot of MMLU's prompt differs from lm-evaluation-harness's, the authors' or HELM's."""
    task = dataclasses.replace(next(t for t in mmlu.tasks if t.name == "abstract_algebra"), style=style)
    item = task.splits[TEST][0]
    five = whole(prompts.request(task, item, "letter", 5))
    assert hashlib.sha256(five.encode()).hexdigest() == golden["prompts"][name]["sha256_5shot"]
    one = prompts.request(task, item, "letter", 1)
    assert whole(one) == golden["prompts"][name]["one_shot"]
    assert [c for _, c in one.options] == [" A", " B", " C", " D"]


def test_letters_run_to_the_number_of_choices():
    """Fails when the letter format assumes four choices or does not strip the question, or its subject's blank."""
    request = prompts.request(sums(), sums().splits[TEST][0], "letter", 1)
    header = "The following are multiple choice questions (with answers) about small sums.\n\n"
    assert request.prefix == header + "0 + 2 =\nA. 0\nB. 1\nC. 2\nAnswer: C\n\n"
    assert request.options == tuple(("5 + 2 =\nA. 5\nB. 6\nC. 7\nAnswer:", c) for c in (" A", " B", " C"))
    assert prompts.request(sums(style="plain"), request.item, "letter", 0).prefix == ""


def test_cloze_scores_the_text_of_each_choice():
    """Fails when the cloze prompt is not mmlu_continuation's, or nothing is there for the unconditional probability."""
    request = prompts.request(sums(), sums().splits[TEST][0], "cloze", 1)
    assert request.prefix == "Question: 0 + 2 =\nAnswer: 2\n\n"
    assert request.options == tuple(("Question: 5 + 2 =\nAnswer:", c) for c in (" 5", " 6", " 7"))
    assert (request.bare, request.delimiter, request.generate) == ("Answer:", " ", "")


def test_generation_stops_and_knows_its_answer():
    """Fails when a generated answer is asked in another context than the one its shots show."""
    request = prompts.request(sums(), sums().splits[TEST][0], "generate", 2)
    assert request.prefix == "Question: 0 + 2 =\nAnswer: 2\n\nQuestion: 1 + 2 =\nAnswer: 3\n\n"
    assert request.generate == "Question: 5 + 2 =\nAnswer:"
    assert request.options == (("Question: 5 + 2 =\nAnswer:", " 7"),)
    assert request.stop == ("\n",)


def test_worked_answers_come_before_the_answer():
    """Fails when a chain-of-thought shot lacks its steps, or a generation ends before the answer."""
    request = prompts.request(sums(), sums().splits[TEST][0], "cot", 1)
    assert request.prefix == "Question: 0 + 2 =\nAnswer: 0, 1, 2. So the answer is 2\n\n"
    assert request.options == (("Question: 5 + 2 =\nAnswer:", " 5, 6, 7. So the answer is 7"),)
    assert request.generate == "Question: 5 + 2 =\nAnswer:" and request.stop == ("\n\n",)


def test_big_bench_hard_prompts_are_the_published_files(evals_data):
    """Fails when a chain-of-thought prompt of BIG-bench-hard differs from its file in a character."""
    suite = layouts.load_folder(evals_data / "bbh")
    assert len(suite.tasks) == 27
    for task in suite.tasks:
        published = (evals_data / "bbh" / "cot-prompts" / f"{task.name}.txt").read_text().partition("\n-----\n")[2]
        request = prompts.request(task, task.splits[TEST][0], "cot", 3)
        assert request.prefix == published.rstrip("\n") + "\n\n", task.name
        assert request.generate.startswith(f"Q: {task.splits[TEST][0].question.strip()}\nA: Let's think step by step.")


def test_contexts_that_differ_share_their_continuation():
    """Fails when a Winograd item is scored on its options instead of on what follows them."""
    item = Item("w", "", contexts=("The cup fell because the cup", "The cup fell because the man"), target="was wet.", answer=1)
    request = prompts.request(
        Task("w", "", {DEV: [dataclasses.replace(item, id="d")]}, template=Template("{q}")), item, "cloze", 1
    )
    assert request.options == tuple((c, " was wet.") for c in item.contexts)
    assert request.prefix == "The cup fell because the man was wet.\n\n" and request.bare == ""


def test_a_context_with_one_continuation():
    """Fails when LAMBADA's items are not one context and one word."""
    item = Item("l", "He went to the", target="docks")
    request = prompts.request(Task("l", "", {}, template=Template("{q}")), item, "cloze", 0)
    assert request.options == (("He went to the", " docks"),) and request.bare == ""


def test_first_shots_are_shared_and_fewer_are_a_beginning():
    """Fails when items of a task do not share one prefix, or dropping a shot changes those that stay."""
    task = sums()
    made = prompts.requests(task, "letter", 3)
    assert len({id(r.prefix) for r in made}) == 1
    assert made[0].prefix.startswith(prompts.requests(task, "letter", 2)[0].prefix)


def test_seeded_shots_depend_on_the_item_alone():
    """Fails when a draw depends on the order of items, repeats one, or fewer shots are others."""
    task = sums(seed=7)
    draws = {i.id: [s.id for s in prompts.shots_of(task, i, 4)] for i in task.splits[TEST]}
    again = {i.id: [s.id for s in prompts.shots_of(task, i, 4)] for i in reversed(task.splits[TEST])}
    assert draws == again == {"i5": ["i1", "i4", "i2", "i0"], "i6": ["i3", "i1", "i4", "i2"]}
    assert all(len(set(d)) == 4 for d in draws.values())
    assert all([s.id for s in prompts.shots_of(task, i, 2)] == draws[i.id][:2] for i in task.splits[TEST])


@pytest.mark.parametrize("seed", [None, 3])
def test_an_item_is_never_its_own_example(seed):
    """Fails when an item of the dev split sees itself with its answer."""
    task = sums(seed=seed)
    for item in task.splits[DEV]:
        assert item.id not in {s.id for s in prompts.shots_of(task, item, 4)}


@pytest.mark.parametrize(
    ("change", "ask", "told"),
    [
        ({}, ("letters", 0), r"format 'letters'; choose of .* Did you mean \"letter\""),
        ({}, ("cloze", 6), r"sums: 6 shots asked for, but its dev split has 5 items"),
        ({"splits": {TEST: [Item("a", "q", ("x", "y"))]}}, ("cloze", 1), r"its dev split is missing or empty"),
        ({"splits": {DEV: []}}, ("cloze", 0), r"no items in split 'test'; it has: none"),
        ({"splits": {TEST: [Item("a", "q", target="x")]}}, ("letter", 0), r"'a' has 0 choices; letter needs 2 to 26"),
        ({"splits": {TEST: [Item("a", "q", ("x", "y"), 2)]}}, ("cloze", 0), r"answer 2; there are 2 options"),
        ({"splits": {TEST: [Item("a", "q")]}}, ("cloze", 0), r"neither choices nor a target"),
        ({"splits": {TEST: [Item("a", "", contexts=("x", "y"), target="z")]}}, ("generate", 0), r"only cloze can ask that"),
        ({"splits": {k: [Item(k, "q", target="x")] for k in (DEV, TEST)}}, ("cot", 1), r"no worked answer"),
        ({"style": "hendricks"}, ("letter", 0), r"Did you mean \"hendrycks\""),
        ({}, ("cloze", -1), r"shots=-1; must be 0 or more"),
    ],
)
def test_what_cannot_be_asked_is_told(change, ask, told):
    """Fails when a task that cannot be asked so is asked, or its message lacks the name, the value or the remedy."""
    with pytest.raises(TaskError, match=told):
        prompts.check(dataclasses.replace(sums(), **change), *ask)
