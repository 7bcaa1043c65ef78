"""From items to scores: what fits, what is counted, and models whose scores are known."""

import dataclasses
import itertools

import asked
import jax
import numpy as np
import pytest

from scaling.evals import metrics, prompts, scoring
from scaling.evals.cells import FITS
from scaling.evals.engine import Engine
from scaling.evals.items import Item, Task, TaskError
from scaling.tokenizer import Tokenizer, byte_tokenizer, train_bpe


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """Splits " A" in two: it has seen no capital letter."""
    return train_bpe([f"{a} {b} {c}\n" for a in asked.WORDS for b in asked.WORDS for c in asked.WORDS], asked.VOCAB)


def reciter(text: str) -> Engine:
    """An engine of a model that says each letter of ``text`` after the one before it, whatever else was read: attention and
    feed-forward layers add nothing, a letter's embedding is a unit vector, and the head turns that into the next letter."""
    e = asked.engine(least_saved=1 << 30)
    params = jax.tree.map(np.zeros_like, e.params)
    params["final_norm"]["gain"] += 1.0
    ids = e.tokenizer.encode(text)
    assert len(set(ids.tolist())) == len(ids)
    for i, (now, then) in enumerate(itertools.pairwise(ids)):
        params["embedding"][now, i], params["head"][i, then] = 1.0, 9.0
    return dataclasses.replace(e, params=params)


def uniform(tokenizer: Tokenizer | None = None):
    """An engine of a model whose every next token has the same probability."""
    e = asked.engine(tokenizer)
    params = dict(e.params) | {"head": jax.numpy.zeros_like(e.params["head"])}
    return dataclasses.replace(e, params=params)


@pytest.mark.parametrize("format, kind", [("cloze", "bytes"), ("cloze", "bpe"), ("letter", "bpe")])
def test_scores_are_those_of_the_prompt_scored_plainly(format: str, kind: str, bpe: Tokenizer) -> None:
    """Fails when a prompt is put together or cut into tokens otherwise than whole."""
    tokenizer = bpe if kind == "bpe" else byte_tokenizer()
    e, task = asked.engine(tokenizer), asked.task(4)
    outcome = scoring.score(e, task, task.splits["test"], format, 1, fit="left_truncate")
    for item, s in zip(task.splits["test"], outcome.scored, strict=True):
        request = prompts.request(task, item, format, 1)
        for (context, continuation), nats, n in zip(request.options, s.loglikelihoods, s.tokens, strict=True):
            whole = tokenizer.encode(request.prefix + context + continuation)
            alone = tokenizer.encode(request.prefix + context)
            assert n == len(whole) - len(alone)
            assert nats == pytest.approx(asked.plainly(e, alone, whole[len(alone) :])[0], rel=1e-5, abs=1e-5)
        if format == "cloze":
            bare, _ = asked.plainly(e, tokenizer.encode("Answer:"), tokenizer.encode(request.options[0][1]))
            assert s.unconditional[0] == pytest.approx(bare, rel=1e-5, abs=1e-5)
            assert s.n_bytes == s.characters == tuple(map(len, item.choices))


def test_a_uniform_model_scores_chance() -> None:
    """Fails when a letter, a length or a place in the batch has an advantage: Brier's score of four equals is 0.75."""
    task = asked.task(16)
    outcome = scoring.score(uniform(), task, task.splits["test"], "letter")
    found = metrics.of(outcome.scored, "letter", task)
    assert found["acc"].value == 0.25 and found["brier"].value == pytest.approx(0.75, abs=1e-6)
    assert found["p_gold"].value == pytest.approx(0.25, abs=1e-6)
    assert found["letter_mass"].value == pytest.approx(4 / asked.VOCAB**2, rel=1e-4)  # a blank and a letter
    assert outcome.answer_tokens == 2 and not outcome.notes


def test_an_oracle_is_always_right_and_other_labels_leave_it_at_chance() -> None:
    """Fails when an answer is compared with another item's, an option with another option's, or another token than the next is
    scored: a model that knows the answer is right in every format and normalization, of drawn labels it is right by chance."""
    oracle, draw = reciter(": amber\n"), np.random.default_rng(0)
    items = []
    for i, place in enumerate(draw.integers(0, 4, 80).tolist()):
        choices = [str(w) for w in draw.choice(asked.WORDS[1:], 3, replace=False)]
        items.append(Item(f"q{i}", f"{i}?", (*choices[:place], "amber", *choices[place:]), place))
    task = Task("words", "words", {"test": tuple(items)}, ("cloze", "generate"))
    scored = scoring.score(oracle, task, items, "cloze").scored
    found = metrics.of(scored, "cloze", task)
    assert [found[name].value for name in ("acc", "acc_token", "acc_byte", "acc_character", "acc_centered")] == [1.0] * 5
    assert found["p_gold"].value == pytest.approx(1, abs=1e-3) and all(s.greedy[s.item.answer] for s in scored)
    wrong = [
        dataclasses.replace(s, item=dataclasses.replace(s.item, answer=int(a)))
        for s, a in zip(scored, draw.integers(0, 4, len(items)), strict=True)
    ]
    acc = metrics.of(wrong, "cloze", task)["acc"]
    assert abs(acc.value - 0.25) < 3 * acc.stderr
    written = scoring.score(oracle, task, items[:3], "generate").scored
    assert [s.generated for s in written] == [" amber"] * 3
    assert metrics.of(written, "generate", task)["exact_match"].value == 1.0


def test_long_prompts_drop_shots_lose_their_left_or_are_skipped() -> None:
    """Fails when shots are dropped that would fit, a prompt is cut though shots could go, or a skipped item is counted."""
    task = asked.task(6, pad=18)  # two shots fit the short ones alone
    e, items = asked.engine(), task.splits["test"]
    found = {fit: scoring.score(e, task, items, "cloze", 2, fit) for fit in FITS}
    dropped, cut, skipped = (found[fit] for fit in FITS)

    def longest(item: Item, shots: int) -> int:
        request = prompts.request(task, item, "cloze", shots)
        return max(len((request.prefix + c + k).encode()) for c, k in request.options)

    fitting = [max([k for k in range(3) if longest(i, k) <= asked.CONTEXT], default=0) for i in items]
    assert [s.shots for s in dropped.scored] == fitting and len(set(fitting)) > 1
    assert not any(s.truncated for s in dropped.scored)
    assert [s.truncated for s in cut.scored] == [k < 2 for k in fitting] and {s.shots for s in cut.scored} == {2}
    assert list(skipped.skipped) == [i.id for i, k in zip(items, fitting, strict=True) if k < 2]
    assert sum(dropped.shots_effective.values()) == 6 and dropped.shots_effective != cut.shots_effective
    request = prompts.request(task, items[0], "cloze", 2)  # what is left of a cut one is its right part
    ids = [e.tokenizer.encode(request.prefix + request.options[0][0]), e.tokenizer.encode(request.options[0][1])]
    assert cut.scored[0].loglikelihoods[0] == pytest.approx(asked.plainly(e, *ids)[0], rel=1e-5)


def test_a_prompt_too_long_without_shots_is_cut() -> None:
    """Fails when ``drop_shots`` loops for ever, or leaves out an item that it could score."""
    task = asked.task(3, pad=80)
    outcome = scoring.score(asked.engine(), task, task.splits["test"], "cloze", 1)
    assert (outcome.scored[0].shots, outcome.scored[0].truncated) == (0, True)
    with pytest.raises(TaskError, match="words: none of its 1 prompts fits the model's context of 96 tokens"):
        scoring.score(asked.engine(), task, task.splits["test"][:1], "cloze", 1, "skip")


def test_letters_of_two_tokens_are_added_and_told(bpe: Tokenizer) -> None:
    """Fails when a vocabulary that splits " A" is scored by half a letter, or nobody hears of it."""
    task = asked.task(3)
    outcome = scoring.score(uniform(bpe), task, task.splits["test"], "letter")
    assert outcome.notes == ("the vocabulary writes a letter as up to 2 tokens; their log-probabilities are added",)
    assert outcome.scored[0].loglikelihoods[0] == pytest.approx(-2 * np.log(asked.VOCAB), rel=1e-5)


def test_an_unknown_fit_is_refused_with_the_known_ones() -> None:
    """Fails when a misspelt fit is taken for another."""
    task = asked.task(1)
    with pytest.raises(TaskError, match=r'choose of drop_shots, left_truncate, skip.* Did you mean "drop_shots"'):
        scoring.score(asked.engine(), task, task.splits["test"], "cloze", 0, "drop_shot")


def test_generation_is_greedy_and_stops() -> None:
    """Fails when a generated token is not the likeliest, the stop string is kept, or texts are given to other items."""
    e, task = asked.engine(), asked.task(3)
    items = task.splits["test"]
    scored = scoring.score(e, task, items, "generate").scored
    for item, s in zip(items, scored, strict=True):
        assert s.generated is not None and "\n" not in s.generated and len(s.loglikelihoods) == 1
        ids = e.tokenizer.encode(prompts.request(task, item, "generate", 0).generate)
        first = s.generated.encode()[:1]
        best = asked.logs(e, asked.asked(ids, ids[:1], asked.CONTEXT))[0][: e.tokenizer.vocab_size].argmax()
        assert e.tokenizer.decode_bytes([int(best)]).rstrip(b"\n") == first
