"""The real lm-evaluation-harness and our own scoring, of the same model on the same items, agree."""

import csv
import dataclasses
import functools
import math
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from oracles import harness_tasks

from scaling import model
from scaling.config import model_config
from scaling.evals import engine, harness, layouts, metrics, prompts, scoring
from scaling.evals.items import TEST, Item, Task, TaskError, Template
from scaling.tokenizer import EOS, ByteTokenizer

MMLU = pathlib.Path(__file__).parents[3] / "shared" / "data" / "evals" / "mmlu_hf_csv"
# How many of their items: unequal, so that micro is not macro; with 5 shots the prompts of the second are longer than CONTEXT.
SUBJECTS = {"anatomy": 5, "college_physics": 9}
CONTEXT = 1536
SHAPE = {"vocab_size": 260, "depth": 1, "width": 16, "heads": 1, "kv_heads": 1, "head_size": 16, "ff": 16}
TEXTS = (
    {"text": "the loss of a model falls with its", "last": " size"},
    {"text": "größer ist besser, sagt man; " * 120 + "sagt", "last": " man"},
)


@pytest.fixture(scope="module")
def small() -> engine.Engine:
    """A model that is drawn so wide that its answers depend on what it reads."""
    harness_tasks.evaluator()
    config = model_config(context=CONTEXT, **SHAPE)
    return engine.Engine(config, tiny.wide_params(config, std=0.5), ByteTokenizer())


@pytest.fixture(scope="module")
def results(small: engine.Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the harness found, in one run over tasks of every kind."""
    folder = tmp_path_factory.mktemp("tasks")
    harness_tasks.write_task(
        folder, "last_words", TEXTS, output_type="loglikelihood", doc_to_text="{{text}}", doc_to_target="{{last}}",
        target_delimiter="", metric_list=[{"metric": "perplexity"}, {"metric": "acc"}],
    )  # fmt: skip
    harness_tasks.write_task(
        folder, "documents", TEXTS, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    tasks = ["last_words", "documents"]
    if MMLU.is_dir():
        for shots in (0, 5):
            subjects = {s: (rows(s, "dev"), rows(s, "test")[:n]) for s, n in SUBJECTS.items()}
            harness_tasks.write_mmlu(folder, f"mmlu{shots}", subjects, shots)
            tasks.append(f"mmlu{shots}")
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
        requests = prompts.requests(task, "letter", shots)
        scored = scoring.score(small, requests, fit="left_truncate")
        lls_IC = np.array([s.loglikelihoods for s in scored])
        np.testing.assert_allclose(lls_IC, loglikelihoods(results, f"mmlu{shots}_{subject}"), atol=1e-5, rtol=0)
        too_long = [len((r.prefix + r.options[0][0]).encode()) + 2 > CONTEXT for r in requests]  # and a begin and a blank
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


@pytest.fixture(scope="module")
def plainly(small: engine.Engine) -> Any:
    """The model as it is written: (nats, greedy) of the ``last`` tokens of ``ids`` together."""
    apply = jax.jit(functools.partial(model.apply, small.config))

    def answer(ids: list[int], last: int) -> tuple[float, bool]:
        padded = np.zeros((1, CONTEXT), np.int32)
        padded[0, : len(ids) - 1] = ids[:-1]
        log_p_TV = np.asarray(jax.nn.log_softmax(apply(small.params, padded)[0]))[len(ids) - 1 - last : len(ids) - 1]
        nats = log_p_TV[np.arange(last), ids[-last:]].sum(dtype=np.float64)
        return float(nats), bool((log_p_TV.argmax(1) == ids[-last:]).all())

    return answer


def test_continuations_agree_with_the_plain_model_and_with_ours(small, results, plainly):
    """Fails when the adapter scores other tokens than the continuation's, a text longer than the context loses its right end,
    or another token is taken for greedy; and when ours differs from it on LAMBADA's kind of item."""
    found = results["results"]["last_words"]
    ids = [[EOS, *small.tokenizer.encode(row["text"] + row["last"]).tolist()][-(CONTEXT + 1) :] for row in TEXTS]
    expected = [plainly(i, len(row["last"])) for i, row in zip(ids, TEXTS, strict=True)]
    assert len(ids[1]) == CONTEXT + 1
    assert found["perplexity,none"] == pytest.approx(math.exp(-np.mean([x for x, _ in expected])), rel=1e-5)
    assert found["acc,none"] == np.mean([greedy for _, greedy in expected])
    items = [Item(str(i), row["text"], target=row["last"].strip()) for i, row in enumerate(TEXTS)]
    task = Task("last_words", "", {TEST: items}, formats=("cloze",), template=Template(question="{q}"))
    scored = scoring.score(small, prompts.requests(task, "cloze", 0), fit="left_truncate")
    assert [s.loglikelihoods[0] for s in scored] == pytest.approx([x for x, _ in expected], abs=1e-5)


def test_bits_per_byte_of_texts_longer_than_the_context(small, results, plainly):
    """Fails when a token is scored twice or not at all, a window begins elsewhere, or the first has no end-of-document token
    before it."""
    total, n_bytes = 0.0, 0
    for row in TEXTS:
        ids = [EOS, *small.tokenizer.encode(row["text"]).tolist()]
        n_bytes += len(ids) - 1
        for start in range(0, len(ids) - 1, CONTEXT):
            end = min(start + CONTEXT, len(ids) - 1)  # the last window reaches back, so that it is as long as the others
            total += plainly(ids[max(0, end - CONTEXT) : end + 1], end - start)[0]
    assert n_bytes == sum(len(row["text"].encode()) for row in TEXTS) > 2 * CONTEXT
    assert results["results"]["documents"]["bits_per_byte,none"] == pytest.approx(-total / math.log(2) / n_bytes, rel=1e-5)


def test_what_cannot_be_asked_is_told(small, tmp_path, monkeypatch):
    """Fails when an unknown task, a missing folder or file, or the missing package ends in another error than ours."""
    harness_tasks.write_task(tmp_path, "mine", TEXTS, output_type="loglikelihood", doc_to_text="{{text}}", doc_to_target="size")
    with pytest.raises(TaskError, match=r"--tasks mien: not among .*; there are mine\. Did you mean \"mine\"\?"):
        harness.evaluate(small, ["mien"], include_path=tmp_path)
    (tmp_path / "mine.jsonl").unlink()
    with pytest.raises(TaskError, match=r"--tasks mine: data cannot be loaded \(.*mine\.jsonl"):
        harness.evaluate(small, ["mine"], include_path=tmp_path)
    with pytest.raises(TaskError, match="--include-path .*nowhere: no such folder"):
        harness.evaluate(small, ["mine"], include_path=tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(TaskError, match=r"pip install 'scalingladder\[harness\]'"):
        harness.evaluate(small, ["mine"], include_path=tmp_path)
