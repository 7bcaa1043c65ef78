"""The real lm-evaluation-harness and our own scoring, of the same model on the same items, agree."""

import csv
import dataclasses
import math
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from oracles import harness_tasks

from scaling import model
from scaling.config import ModelConfig, model_config
from scaling.evals import engine, harness, layouts, metrics, prompts, scoring
from scaling.evals.items import TEST, Scored, Task, TaskError
from scaling.tokenizer import EOS, ByteTokenizer

EVALS = pathlib.Path(__file__).parents[3] / "shared" / "data" / "evals"
SUBJECTS = {"anatomy": 5, "college_mathematics": 9}  # how many of their items: unequal, so that micro is not macro
TEXTS = [
    {"text": "the loss of a model falls with its size", "last": " size"},
    {"text": "größer ist besser, sagt man; " * 20 + "sagt man", "last": " man"},
]


def small(context: int) -> engine.Engine:
    """A model that is drawn so wide that its answers depend on what it reads."""
    shape = {"vocab_size": 260, "depth": 1, "width": 16, "heads": 1, "kv_heads": 1, "head_size": 16, "ff": 16}
    config = model_config(context=context, **shape)
    return engine.Engine(config, tiny.wide_params(config, std=0.5), ByteTokenizer())


@pytest.fixture(scope="module")
def mmlu() -> dict[str, Task]:
    """Some subjects of the real MMLU, cut to their first items."""
    folder = EVALS / "mmlu_hf_csv"
    if not folder.is_dir():
        pytest.skip(f"the real MMLU is not at {folder}")
    tasks = {task.name: task for task in layouts.load_folder(folder).tasks}
    return {s: dataclasses.replace(tasks[s], splits=tasks[s].splits | {TEST: tasks[s].splits[TEST][:n]}) for s, n in SUBJECTS.items()}


def rows(subject: str, split: str, limit: int | None = None) -> list[harness_tasks.Row]:
    """The same items, read by nothing of ours."""
    with open(EVALS / "mmlu_hf_csv" / split / f"{subject}_{split}.csv", newline="") as f:
        found = [(r["question"], [r[f"choice{i}"] for i in range(4)], int(r["answer"])) for r in csv.DictReader(f)]
    return found[:limit]


def lls_of(results: dict[str, Any], task: str) -> np.ndarray:
    """(items, choices) log-likelihoods as the harness logged them."""
    samples = sorted(results["samples"][task], key=lambda sample: sample["doc_id"])
    return np.array([[nats for nats, _ in sample["filtered_resps"]] for sample in samples])


@pytest.mark.parametrize("context", [2048, 512])
def test_mmlu_agrees_item_by_item_and_in_sum(mmlu, tmp_path, context):
    """Fails when a prompt differs by a byte from the harness's, a shot is another, an answer's tokens are cut elsewhere, a
    prompt longer than the context (all with 5 shots at 512) loses another part, a shared prefix leaks or is encoded at other
    positions, equal choices fall to another one, or micro accuracy, its pooled standard error or Brier's score is another
    formula."""
    harness_tasks.evaluator()
    for shots in (0, 5):
        subjects = {s: (rows(s, "dev"), rows(s, "test", n)) for s, n in SUBJECTS.items()}
        harness_tasks.write_mmlu(tmp_path, f"mmlu{shots}", subjects, shots)
    with_engine = small(context)
    results = harness.evaluate(with_engine, ["mmlu0", "mmlu5"], include_path=tmp_path)
    for shots in (0, 5):
        found = {}
        for subject, task in mmlu.items():
            theirs = results["results"][f"mmlu{shots}_{subject}"]
            scored = scoring.score(with_engine, prompts.requests(task, "letter", shots), fit="left_truncate")
            lls_IC = np.array([s.loglikelihoods for s in scored])
            np.testing.assert_allclose(lls_IC, lls_of(results, f"mmlu{shots}_{subject}"), atol=1e-5, rtol=0)
            assert [s.truncated for s in scored] == [n > context for n in lengths(task, shots)]
            found[subject] = metrics.of(scored, "letter", task)
            assert found[subject]["acc"].value == theirs["acc,none"]
            assert found[subject]["acc"].stderr == pytest.approx(theirs["acc_stderr,none"], rel=1e-12)
            assert found[subject]["brier"].value == pytest.approx(theirs["brier_score,none"], abs=1e-5)
        group = results["groups"][f"mmlu{shots}"]
        micro = metrics.aggregate(list(found.values()))["acc"]
        assert micro.value == pytest.approx(group["acc,none"], rel=1e-12)
        assert micro.stderr == pytest.approx(group["acc_stderr,none"], rel=1e-12)
        assert micro.value != pytest.approx(metrics.aggregate(list(found.values()), "macro")["acc"].value, rel=1e-3)


def lengths(task: Task, shots: int) -> list[int]:
    """Tokens that a model must read before the last one of an answer: a begin, the prompt, and a blank."""
    return [1 + len((r.prefix + r.options[0][0]).encode()) + 1 for r in prompts.requests(task, "letter", shots)]


def plainly(of: engine.Engine, ids: list[int]) -> np.ndarray:
    """(len(ids) - 1, V) log-probabilities after each token, by the model as it is written."""
    return np.asarray(jax.nn.log_softmax(model.apply(of.config, of.params, np.array([ids[:-1]], np.int32))))[0]


def nats(of: engine.Engine, ids: list[int], last: int) -> tuple[float, bool]:
    """Of the ``last`` tokens together, and whether each is the likeliest."""
    log_p, after = plainly(of, ids)[-last:], ids[-last:]
    return float(log_p[np.arange(last), after].sum(dtype=np.float64)), bool((log_p.argmax(1) == after).all())


def test_continuations_agree_with_the_plain_model(tmp_path):
    """Fails when the adapter scores other tokens than the continuation's, drops the right end of a long text instead of the
    left, or takes another token for greedy."""
    harness_tasks.evaluator()
    with_engine = small(64)
    encode = with_engine.tokenizer.encode
    metric_list = [{"metric": "perplexity"}, {"metric": "acc"}]
    harness_tasks.write_task(
        tmp_path, "last_words", TEXTS, output_type="loglikelihood", doc_to_text="{{text}}", doc_to_target="{{last}}",
        target_delimiter="", metric_list=metric_list,
    )  # fmt: skip
    found = harness.evaluate(with_engine, ["last_words"], include_path=tmp_path)["results"]["last_words"]
    ids = [[EOS, *encode(row["text"] + row["last"]).tolist()][-65:] for row in TEXTS]
    expected = [nats(with_engine, i, len(row["last"].encode())) for i, row in zip(ids, TEXTS, strict=True)]
    assert found["perplexity,none"] == pytest.approx(math.exp(-np.mean([x for x, _ in expected])), rel=1e-5)
    assert found["acc,none"] == np.mean([greedy for _, greedy in expected])


def test_bits_per_byte_of_texts_longer_than_the_context(tmp_path):
    """Fails when a token is scored twice or not at all, a window begins elsewhere, or the first has no end-of-document token
    before it."""
    harness_tasks.evaluator()
    with_engine = small(64)
    harness_tasks.write_task(
        tmp_path, "documents", TEXTS, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    found = harness.evaluate(with_engine, ["documents"], include_path=tmp_path)["results"]["documents"]
    total, n_bytes = 0.0, 0
    for row in TEXTS:
        ids = [EOS, *with_engine.tokenizer.encode(row["text"]).tolist()]
        n_bytes += len(ids) - 1
        for start in range(0, len(ids) - 1, 64):
            end = min(start + 64, len(ids) - 1)  # predicts ids[start + 1 : end + 1] from the 64 tokens before each end
            total += nats(with_engine, ids[max(0, end - 64) : end + 1], end - start)[0]
    assert n_bytes == sum(len(row["text"].encode()) for row in TEXTS) > 3 * 64
    assert found["bits_per_byte,none"] == pytest.approx(-total / math.log(2) / n_bytes, rel=1e-5)
