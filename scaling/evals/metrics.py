"""From what a model made of items to numbers with intervals; names are those of ``evals.jsonl``.

Of items with choices (formats ``cloze`` and ``letter``):
  acc             the choice with the largest log-likelihood is the right one, the first of equals as in lm-evaluation-harness;
                  of items with one continuation (LAMBADA): greedy decoding gives it
  acc_token, acc_byte, acc_character, acc_pmi   (cloze) the same by log-likelihood per token, UTF-8 byte and character of the
                  choice, and less its unconditional log-likelihood; acc_character and acc_byte are the harness's acc_norm and
                  acc_bytes, without the delimiter
  acc_centered    (acc - c) / (1 - c), c the accuracy of a guess
  p_gold, brier   probability of the right choice among the choices, and sum_c (p_c - 1[c is right])^2; 0.75 for four equals
  letter_mass     (letter) probability that the model gives to the letters together
  exact_match     (cloze) what greedy decoding begins with is the right answer, from the same logits as ``acc``
Of the right answer in every format (in ``cot``: of the worked answer, where the item has one):
  nll             nats, summed over its tokens
  nll_token, nll_byte   the same per token and per UTF-8 byte, item by item, then averaged
  p_gold_raw      exp(-nll), not normalised over choices
Of generated text (``generate``, ``cot``):
  exact_match     what was generated is the answer, after ``normal`` on both; in ``cot`` what follows its marker
  edit            Levenshtein distance in tokens over the longer length: 0 for equal, 1 for nothing in common

Accuracies and exact match have Wilson's interval, all others that of the item bootstrap; standard errors are those of the
harness (``uncertainty``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scaling.evals import uncertainty
from scaling.evals.items import Scored, Task, TaskError

Encode = Callable[[str], Sequence[Any]]
BINARY = ("acc", "acc_token", "acc_byte", "acc_character", "acc_pmi", "exact_match")
_SPACES = re.compile(r"\s+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A mean over ``n`` items, its standard error and 95 % interval."""

    value: float
    stderr: float
    low: float
    high: float
    n: int


def of(scored: Sequence[Scored], format: str, task: Task, encode: Encode = str.encode) -> dict[str, Metric]:
    """All metrics of a task in a format.

    Args:
      scored: its items.
      format: in which they were asked.
      task: whose template says where a worked answer ends.
      encode: text to tokens, for ``edit``; UTF-8 bytes by default.

    Raises:
      TaskError: where there is nothing scored, or a log-likelihood is not a number.
    """
    columns = values(scored, format, task, encode)
    if not columns:
        raise TaskError(f"{task.name}: {format} was scored with neither log-likelihoods nor generated text")
    names = [n for n in columns if n not in BINARY]
    found = {n: _binary(columns[n]) for n in columns if n in BINARY}
    table_IM = np.stack([columns[n] for n in names], axis=1)
    ends = uncertainty.bootstrap(table_IM, uncertainty.seed_of([s.item.id for s in scored]))
    for n, low, high in zip(names, *ends, strict=True):
        found[n] = Metric(float(columns[n].mean()), uncertainty.stderr(columns[n]), float(low), float(high), len(scored))
    if "acc" in found and (guess := chance(scored)) > 0:
        a = found["acc"]
        value, low, high = (centered(x, guess) for x in (a.value, a.low, a.high))
        found["acc_centered"] = Metric(value, a.stderr / (1 - guess), low, high, a.n)
    return found


def values(scored: Sequence[Scored], format: str, task: Task, encode: Encode = str.encode) -> dict[str, np.ndarray]:
    """By metric: (I,) one value per item, whose mean is the metric; ``acc_centered`` has none of its own.

    Raises:
      TaskError: as ``of``.
    """
    if not scored:
        raise TaskError(f"{task.name}: no item was scored in {format}; nothing to report")
    columns: dict[str, np.ndarray] = {}
    if format in ("cloze", "letter"):
        columns |= _choice(scored, format, task)
        gold = np.array([s.item.answer if len(s.loglikelihoods) > 1 else 0 for s in scored])
        if format == "cloze":
            columns["exact_match"] = np.array([s.greedy[g] for s, g in zip(scored, gold, strict=True)], float)
    else:
        gold = np.zeros(len(scored), int)
        if all(s.generated is not None for s in scored):
            columns |= _generated(scored, format, task, encode)
    if not all(s.loglikelihoods for s in scored):
        return columns
    nll = -np.array([s.loglikelihoods[g] for s, g in zip(scored, gold, strict=True)], float)
    _finite(nll, scored, task)
    columns["nll"] = nll
    columns["nll_token"] = nll / np.array([s.tokens[g] for s, g in zip(scored, gold, strict=True)])
    columns["nll_byte"] = nll / np.array([s.n_bytes[g] for s, g in zip(scored, gold, strict=True)])
    columns["p_gold_raw"] = np.exp(-nll)
    return columns


def right(scored: Sequence[Scored], format: str, task: Task) -> list[bool]:
    """Whether each item counts as right in the task's accuracy, or in exact matches of what was generated.

    Raises:
      TaskError: as ``of``.
    """
    name = "acc" if format in ("cloze", "letter") else "exact_match"
    return [bool(hit) for hit in values(scored, format, task, encode=lambda text: ())[name]]


def chance(scored: Sequence[Scored]) -> float:
    """Accuracy of a uniform guess on these items: the mean of 1 / options, 0 where there is but one."""
    return float(np.mean([1 / len(s.loglikelihoods) if len(s.loglikelihoods) > 1 else 0.0 for s in scored]))


def centered(accuracy: float, guess: float) -> float:
    """(a - c) / (1 - c): 0 for a guess, 1 for all right."""
    return (accuracy - guess) / (1 - guess)


def choices_made(scored: Sequence[Scored]) -> np.ndarray:
    """(I,) index of the choice with the largest log-likelihood, the first of equals."""
    return _padded([s.loglikelihoods for s in scored], -np.inf).argmax(1)


# ---- by kind


def _choice(scored: Sequence[Scored], format: str, task: Task) -> dict[str, np.ndarray]:
    """Metrics of choosing; of items with one continuation, its being greedy."""
    options = np.array([len(s.loglikelihoods) for s in scored])
    single = options == 1
    greedy = np.array([s.greedy[0] for s in scored])
    answer = np.array([s.item.answer for s in scored])
    ll_IC = _padded([s.loglikelihoods for s in scored], -np.inf)
    _finite(np.where(np.isneginf(ll_IC), 0.0, ll_IC).sum(1), scored, task)

    def right(scores_IC: np.ndarray) -> np.ndarray:
        return np.where(single, greedy, scores_IC.argmax(1) == answer).astype(float)

    columns = {"acc": right(ll_IC)}
    if single.any():
        return columns
    if format == "cloze":
        for name, lengths in (("token", "tokens"), ("byte", "n_bytes"), ("character", "characters")):
            columns[f"acc_{name}"] = right(ll_IC / np.maximum(1, _padded([getattr(s, lengths) for s in scored], 1)))
        if all(s.unconditional for s in scored):
            columns["acc_pmi"] = right(ll_IC - _padded([s.unconditional for s in scored], 0))
    p_IC = np.exp(ll_IC - ll_IC.max(1, keepdims=True))
    p_IC /= p_IC.sum(1, keepdims=True)
    gold_IC = np.arange(p_IC.shape[1]) == answer[:, None]
    columns |= {"p_gold": p_IC[gold_IC], "brier": ((p_IC - gold_IC) ** 2).sum(1)}
    if format == "letter":
        columns["letter_mass"] = np.exp(ll_IC).sum(1)
    return columns


def _generated(
    scored: Sequence[Scored], format: str, task: Task, encode: Callable[[str], Sequence[Any]]
) -> dict[str, np.ndarray]:
    given = [answer_of(s.generated or "", format, task) for s in scored]
    gold = [normal(s.item.gold) for s in scored]
    edits = [edit_distance(encode(g), encode(t)) for g, t in zip(given, gold, strict=True)]
    return {"exact_match": np.array([g == t for g, t in zip(given, gold, strict=True)], float), "edit": np.array(edits, float)}


def answer_of(generated: str, format: str, task: Task) -> str:
    """The answer in generated text, normal; in ``cot`` what follows the last marker (the end of ``Template.cot``) on its line,
    before the ``separator`` that ends an example, '' without a marker."""
    if format == "cot":
        generated = generated.partition(task.template.separator)[0]
        marker = task.template.cot.rpartition("{cot}")[2].strip()
        ends = [found.end() for found in re.finditer(re.escape(marker), generated, re.IGNORECASE)]
        generated = generated[ends[-1] :].strip().partition("\n")[0] if ends else ""
    return normal(generated)


def normal(text: str) -> str:
    """Text as answers are compared: outer blanks, a final full stop and commas between thousands dropped, inner blanks one
    each; case, signs and all else as they are."""
    return _THOUSANDS.sub("", _SPACES.sub(" ", text).strip().removesuffix(".").rstrip())


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Levenshtein's distance (1966) over the longer length; 0 for two empty ones."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1] / max(len(a), len(b), 1)


def _binary(hits_I: np.ndarray) -> Metric:
    low, high = uncertainty.wilson(float(hits_I.sum()), len(hits_I))
    return Metric(float(hits_I.mean()), uncertainty.stderr(hits_I), low, high, len(hits_I))


def _padded(rows: Sequence[Sequence[float]], fill: float) -> np.ndarray:
    """(I, C) rows of unequal length, filled up."""
    out = np.full((len(rows), max(len(r) for r in rows)), fill, float)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _finite(sums_I: np.ndarray, scored: Sequence[Scored], task: Task) -> None:
    bad = np.flatnonzero(~np.isfinite(sums_I))
    if len(bad):
        first = scored[bad[0]]
        raise TaskError(
            f"{task.name}: item {first.item.id!r}: log-likelihoods {first.loglikelihoods}, and of {len(bad)} of {len(scored)} "
            f"items are not finite: the model has diverged, or its logits are masked"
        )


# ---- over tasks, samples and models


def aggregate(by_task: Sequence[Mapping[str, Metric]], how: str = "micro") -> dict[str, Metric]:
    """Metrics over tasks, of the names that all of them have.

    'micro' weighs tasks by their items, as MMLU's own average and lm-evaluation-harness's group do (``weight_by_size``), with
    its pooled standard error; 'macro' weighs them alike, as HELM does.  In both the tasks are fixed: ``uncertainty.over_tasks``
    is for claims about other tasks.

    Raises:
      ValueError: for another ``how``.
    """
    if how not in ("micro", "macro"):
        raise ValueError(f"how={how!r}; must be 'micro' or 'macro'")
    out = {}
    for name in [n for n in by_task[0] if all(n in m for m in by_task)]:
        parts = [m[name] for m in by_task]
        sizes = np.array([p.n for p in parts])
        points, errors = np.array([p.value for p in parts]), [p.stderr for p in parts]
        n = int(sizes.sum())
        if how == "micro":
            value, error = float(points @ sizes / n), uncertainty.pooled_stderr(errors, sizes.tolist())
        else:
            value, error = float(points.mean()), float(np.linalg.norm(errors) / len(parts))
        if how == "micro" and name in BINARY:
            low, high = uncertainty.wilson(round(value * n), n)
        else:
            half = uncertainty.Z * error
            low, high = value - half, value + half
        out[name] = Metric(value, error, low, high, n)
    return out


def pass_at_k(samples: Sequence[Scored], format: str, task: Task, k: int) -> Metric:
    """pass@k of items that were generated several times: ``samples`` holds an entry per sample, told apart by their item's id.

    Raises:
      TaskError: where an item has fewer than ``k`` samples.
    """
    hits: dict[str, list[float]] = {}
    for s, hit in zip(samples, values(samples, format, task)["exact_match"], strict=True):
        hits.setdefault(s.item.id, []).append(float(hit))
    short = next((i for i, h in hits.items() if len(h) < k), None)
    if short is not None:
        raise TaskError(f"{task.name}: item {short!r} has {len(hits[short])} samples, pass@{k} needs {k}; generate more")
    passes = np.array([uncertainty.pass_at_k(len(h), int(sum(h)), k) for h in hits.values()])
    low, high = uncertainty.bootstrap(passes[:, None], uncertainty.seed_of(list(hits)))[:, 0]
    return Metric(float(passes.mean()), uncertainty.stderr(passes), float(low), float(high), len(passes))


def difference(first: Sequence[Scored], second: Sequence[Scored], name: str, format: str, task: Task) -> Metric:
    """A metric of one model less that of another (or of another number of shots) on the same items, resampled together.

    Raises:
      TaskError: where the items are not the same.
    """
    _same_items(first, second, task)
    by_id = {s.item.id: v for s, v in zip(second, values(second, format, task)[name], strict=True)}
    paired = values(first, format, task)[name] - np.array([by_id[s.item.id] for s in first])
    low, high = uncertainty.bootstrap(paired[:, None], uncertainty.seed_of([s.item.id for s in first]))[:, 0]
    return Metric(float(paired.mean()), uncertainty.stderr(paired), float(low), float(high), len(paired))


def compare(
    first: Sequence[Scored], second: Sequence[Scored], format: str, task: Task, name: str | None = None
) -> uncertainty.McNemar:
    """McNemar's test of two models on the same items; by accuracy, or exact match of generated text.

    Raises:
      TaskError: where the items are not the same.
    """
    _same_items(first, second, task)
    name = name or ("acc" if format in ("cloze", "letter") else "exact_match")
    by_id = {s.item.id: v for s, v in zip(second, values(second, format, task)[name], strict=True)}
    pairs = [(a, by_id[s.item.id]) for s, a in zip(first, values(first, format, task)[name], strict=True)]
    return uncertainty.mcnemar(sum(a > b for a, b in pairs), sum(a < b for a, b in pairs), len(pairs))


def _same_items(first: Sequence[Scored], second: Sequence[Scored], task: Task) -> None:
    odd = {s.item.id for s in first} ^ {s.item.id for s in second}
    if odd:
        raise TaskError(f"{task.name}: item {min(odd)!r} was scored on one side alone ({len(odd)} such); score the same items")
