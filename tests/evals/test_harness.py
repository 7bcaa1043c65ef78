"""The real lm-evaluation-harness and our own scoring, of the same model on the same items, agree."""

import csv
import dataclasses
import math
import pathlib
import string
import sys
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from oracles import harness_tasks

from scaling import decode, model
from scaling.config import model_config
from scaling.evals import engine, harness, layouts, metrics, prompts, scoring
from scaling.evals.items import TEST, Item, Task, TaskError, Template
from scaling.tokenizer import EOS, SPECIALS, ByteTokenizer

MMLU = pathlib.Path(__file__).parents[3] / "shared" / "data" / "evals" / "mmlu_hf_csv"
# How many of their items: unequal, so that micro is not macro; with 5 shots the prompts of the second are longer than CONTEXT.
SUBJECTS = {"anatomy": 5, "college_physics": 9}
CONTEXT = 1536
SHAPE = {"vocab_size": 260, "depth": 1, "width": 16, "heads": 1, "kv_heads": 1, "head_size": 16, "ff": 16}
TEXTS = (
    {"text": "the loss of a model falls with its", "last": " size"},
    {"text": "größer ist besser, sagt man; " * 120 + "sagt", "last": " man"},
)
ROOM, STOP = 8, "QI"  # tokens to generate; what the third of the texts comes to and the others do not


class Plain:
    """A model as it is written: no cache, no prefix, no branches."""

    def __init__(self, of: engine.Engine):
        self.apply = jax.jit(lambda ids: jax.nn.log_softmax(model.apply(of.config, of.params, ids[None]))[0])
        self.tokenizer = of.tokenizer

    def log_p_TV(self, ids: list[int]) -> np.ndarray:
        """Of what follows each of ``ids``; a causal model does not see the padding behind them."""
        return np.asarray(self.apply(np.pad(np.array(ids, np.int32), (0, CONTEXT - len(ids)))))[: len(ids)]

    def answer(self, ids: list[int], last: int) -> tuple[float, bool]:
        """(nats, whether greedy decoding gives them) of the ``last`` tokens together."""
        log_p_TV, targets = self.log_p_TV(ids[:-1])[-last:], np.array(ids[-last:])
        return float(log_p_TV[np.arange(last), targets].sum(dtype=np.float64)), bool((log_p_TV.argmax(1) == targets).all())

    def goes_on(self, text: str) -> str:
        """``ROOM`` tokens, each the likeliest."""
        ids = [EOS, *self.tokenizer.encode(text).tolist()][-(CONTEXT - ROOM) :]
        for _ in range(ROOM):
            ids.append(int(self.log_p_TV(ids)[-1].argmax()))
        return self.tokenizer.decode(ids[-ROOM:])


@pytest.fixture(scope="module")
def small() -> engine.Engine:
    """A model that is drawn so wide that its answers depend on what it reads, and whose likeliest tokens are ASCII letters."""
    harness_tasks.evaluator()
    config = model_config(context=CONTEXT, **SHAPE)
    params = tiny.wide_params(config)
    letters = np.frombuffer(string.ascii_letters.encode(), np.uint8) + SPECIALS
    params["head"] *= np.isin(np.arange(260), letters)
    return engine.Engine(config, params, ByteTokenizer())


@pytest.fixture(scope="module")
def plain(small: engine.Engine) -> Plain:
    return Plain(small)


@pytest.fixture(scope="module")
def texts(plain: Plain) -> list[dict[str, str]]:
    """And one that goes on as the model does, and so is greedy."""
    return [*TEXTS, {"text": "Answer:", "last": plain.goes_on("Answer:")}]


@pytest.fixture(scope="module")
def results(small: engine.Engine, texts: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the harness found, in one run over tasks of every kind."""
    folder = tmp_path_factory.mktemp("tasks")
    harness_tasks.write_task(
        folder, "last_words", texts, output_type="loglikelihood", doc_to_text="{{text}}", doc_to_target="{{last}}",
        target_delimiter="", metric_list=[{"metric": "perplexity"}, {"metric": "acc"}],
    )  # fmt: skip
    harness_tasks.write_task(
        folder, "documents", TEXTS, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    harness_tasks.write_task(
        folder, "generated", [{"text": row["text"]} for row in texts], output_type="generate_until", doc_to_text="{{text}}",
        doc_to_target="", generation_kwargs={"until": [STOP], "max_gen_toks": ROOM}, metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    tasks = ["last_words", "documents", "generated"]
    if MMLU.is_dir():
        for shots in (0, 5):
            subjects = {s: (rows(s, "dev"), rows(s, "test")[:n]) for s, n in SUBJECTS.items()}
            harness_tasks.write_mmlu(folder, f"mmlu{shots}", subjects, shots)
            tasks.append(f"mmlu{shots}")
    with pytest.MonkeyPatch.context() as patch:  # its report on the machine imports torch and asks pip: 5 CPU-seconds
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        return harness.evaluate(small, tasks, include_path=folder)


def rows(subject: str, split: str) -> list[harness_tasks.Row]:
    """The items of a subject, read by nothing of ours."""
    with open(MMLU / split / f"{subject}_{split}.csv", newline="") as f:
        return [(r["question"], [r[f"choice{i}"] for i in range(4)], int(r["answer"])) for r in csv.DictReader(f)]


def loglikelihoods(results: dict[str, Any], task: str) -> np.ndarray:
    """(items, choices) as the harness logged them."""
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return np.array([[nats for nats, _ in sample["filtered_resps"]] for sample in samples])


@pytest.fixture(scope="module")
def mmlu() -> dict[str, Task]:
    """The same subjects and items, as ours are read."""
    if not MMLU.is_dir():
        pytest.skip(f"the real MMLU is not at {MMLU}")
    tasks = {task.name: task for task in layouts.load_folder(MMLU, only=list(SUBJECTS)).tasks}
    return {s: dataclasses.replace(t, splits={**t.splits, TEST: t.splits[TEST][: SUBJECTS[s]]}) for s, t in tasks.items()}


@pytest.mark.parametrize("shots", [0, 5])
def test_mmlu_agrees_item_by_item_and_in_sum(small, results, mmlu, shots):
    """Fails when a prompt differs by a byte from the harness's, a shot is another, an answer's tokens are cut elsewhere, a
    prompt longer than the context loses another part, a shared prefix leaks or is encoded at other positions, or micro
    accuracy, its pooled standard error or Brier's score is by another formula."""
    found = {}
    for subject, task in mmlu.items():
        theirs = results["results"][f"mmlu{shots}_{subject}"]
        scored = scoring.score(small, task, task.splits[TEST], "letter", shots, fit="left_truncate").scored
        lls_IC = np.array([s.loglikelihoods for s in scored])
        np.testing.assert_allclose(lls_IC, loglikelihoods(results, f"mmlu{shots}_{subject}"), atol=1e-5, rtol=0)
        asked = [r.prefix + r.options[0][0] for r in prompts.requests(task, "letter", shots)]
        too_long = [len(text.encode()) + 2 > CONTEXT for text in asked]  # with the token that it begins with, and a blank
        assert [s.truncated for s in scored] == too_long
        found[subject] = metrics.of(scored, "letter", task)
        assert found[subject]["acc"].value == theirs["acc,none"]
        assert found[subject]["acc"].stderr == pytest.approx(theirs["acc_stderr,none"], rel=1e-12)
        assert found[subject]["brier"].value == pytest.approx(theirs["brier_score,none"], abs=1e-5)
        assert all(too_long) if (subject, shots) == ("college_physics", 5) else not any(too_long)
    group = results["groups"][f"mmlu{shots}"]
    micro, macro = (metrics.aggregate(list(found.values()), how)["acc"] for how in ("micro", "macro"))
    assert micro.value == pytest.approx(group["acc,none"], rel=1e-12) and micro.value != macro.value
    assert micro.stderr == pytest.approx(group["acc_stderr,none"], rel=1e-12)


def test_continuations_agree_with_the_plain_model_and_with_ours(small, plain, texts, results):
    """Fails when the adapter scores other tokens than the continuation's, a text longer than the context loses its right end,
    or another token is taken for greedy; and when ours differs from it on LAMBADA's kind of item."""
    found = results["results"]["last_words"]
    ids = [[EOS, *small.tokenizer.encode(row["text"] + row["last"]).tolist()][-(CONTEXT + 1) :] for row in texts]
    expected = [plain.answer(i, len(row["last"])) for i, row in zip(ids, texts, strict=True)]
    assert [len(i) > CONTEXT for i in ids] == [False, True, False]
    assert [greedy for _, greedy in expected] == [False, False, True]
    assert found["perplexity,none"] == pytest.approx(math.exp(-np.mean([nats for nats, _ in expected])), rel=1e-5)
    assert found["acc,none"] == pytest.approx(1 / 3)
    items = [Item(str(i), row["text"], target=row["last"]) for i, row in enumerate(texts)]
    task = Task("last_words", "", {TEST: items}, formats=("cloze",), template=Template(question="{q}", delimiter=""))
    scored = scoring.score(small, task, items, "cloze", fit="left_truncate").scored
    assert [s.loglikelihoods[0] for s in scored] == pytest.approx([nats for nats, _ in expected], abs=1e-5)
    assert [s.greedy[0] for s in scored] == [greedy for _, greedy in expected]


def test_bits_per_byte_of_texts_longer_than_the_context(small, plain, results):
    """Fails when a token is scored twice or not at all, a window begins elsewhere, or the first has no end-of-document token
    before it."""
    total, n_bytes = 0.0, 0
    for row in TEXTS:
        ids = [EOS, *small.tokenizer.encode(row["text"]).tolist()]
        n_bytes += len(ids) - 1
        for start in range(0, len(ids) - 1, CONTEXT):
            end = min(start + CONTEXT, len(ids) - 1)  # the last window reaches back, so that it is as long as the others
            total += plain.answer(ids[max(0, end - CONTEXT) : end + 1], end - start)[0]
    assert n_bytes == sum(len(row["text"].encode()) for row in TEXTS) > 2 * CONTEXT
    assert results["results"]["documents"]["bits_per_byte,none"] == pytest.approx(-total / math.log(2) / n_bytes, rel=1e-5)


def test_generations_agree_with_the_plain_model(plain, texts, results):
    """Fails when a generation goes on from another prompt or another end of a long one, is not greedy, runs on behind a stop
    string or stops without one, or comes back in another order."""
    samples = sorted(results["samples"]["generated"], key=lambda sample: sample["doc_id"])
    whole = [plain.goes_on(row["text"]) for row in texts]
    assert [STOP in text for text in whole] == [False, False, True]
    assert [sample["resps"][0][0] for sample in samples] == [text.partition(STOP)[0] for text in whole]


def test_what_a_generation_is_asked_for():
    """Fails when a name or a default of the harness's is taken for another, or a setting that we do not have is passed over."""
    harness_tasks.evaluator()
    assert harness.rule_of({"until": "\n", "max_new_tokens": 4}, 64) == decode.Rule(4, stop=("\n",))
    drawn = {"until": ["a", ""], "max_gen_toks": 4, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
    assert harness.rule_of(drawn, 64) == decode.Rule(4, 0.7, None, 0.9, ("a",))
    assert harness.rule_of(drawn | {"do_sample": False}, 64) == decode.Rule(4, stop=("a",))
    with pytest.raises(TaskError, match=r"max_gen_toks=256: leaves no room .* context of 64; .*--gen-kwargs max_gen_toks=16"):
        harness.rule_of({"until": ["a"]}, 64)
    with pytest.raises(TaskError, match=r"{'num_beams': 4}: not among until"):
        harness.rule_of({"num_beams": 4, "max_gen_toks": 4}, 64)


def test_what_cannot_be_asked_is_told(small, tmp_path, monkeypatch):
    """Fails when an unknown task, a missing folder or file, or the missing package ends in another error than ours."""
    harness_tasks.write_task(tmp_path, "mine", TEXTS, output_type="loglikelihood", doc_to_text="{{text}}", doc_to_target="size")
    with pytest.raises(TaskError, match=r"--tasks mien: not among .*; there are mine\. Did you mean \"mine\"\?"):
        harness.evaluate(small, ["mien"], include_path=tmp_path)
    (tmp_path / "mine.jsonl").unlink()
    with pytest.raises(TaskError, match=r"--tasks mine: data cannot be loaded \(.*mine\.jsonl"):
        harness.evaluate(small, ["mine"], include_path=tmp_path)
    with pytest.raises(TaskError, match=r"--include-path .*nowhere: no such folder"):
        harness.evaluate(small, ["mine"], include_path=tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(TaskError, match=r"pip install 'scalingladder\[harness\]'"):
        harness.evaluate(small, ["mine"], include_path=tmp_path)
