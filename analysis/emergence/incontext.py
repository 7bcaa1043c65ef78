"""What examples in the prompt, and reasoning before the answer, are worth to each size: differences with paired intervals.

Two conditions put the same items to the same model, so their difference is taken item by item where the items were kept: its
standard error is that of a mean of paired differences, for correlated conditions half of that of unpaired ones or less.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.emergence.ladder import GREEDY, Asked, ends
from analysis.emergence.points import Shown

Interval = tuple[float, float, float]  # the value and its ends


@dataclasses.dataclass(frozen=True)
class Condition:
    """One model under one condition: ``right`` holds 0 or 1 by item id, None where items were not kept."""

    score: float
    n: float
    right: Mapping[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Shots:
    """A task by one format, asked of one model with several numbers of shots.

    Attributes:
      scores: (value, low, high) of each number of shots, Wilson's.
      slope: d score / d log2(1 + shots), by least squares over the numbers of shots.
      gain: score with the most shots less that with the fewest.
      paired: whether the last two are of the same items.
    """

    task: str
    format: str
    size: str
    n_params: float
    chance: float
    shots: tuple[int, ...]
    scores: tuple[Interval, ...]
    slope: Interval
    gain: Interval
    paired: bool


@dataclasses.dataclass(frozen=True)
class Thought:
    """A task asked of one model with and without a chain of thought; ``gain`` is with less without."""

    task: str
    size: str
    n_params: float
    flops: float
    direct: Interval
    cot: Interval
    gain: Interval
    paired: bool


def wilson(score: float, n: float, level: float) -> Interval:
    """A share of ``n`` items with Wilson's interval (1927), which holds at 0 and 1 too."""
    z2 = _z(level) ** 2
    middle, half = (score + z2 / (2 * n)) / (1 + z2 / n), math.sqrt(z2 * (score * (1 - score) / n + z2 / (4 * n * n)))
    half /= 1 + z2 / n
    return score, max(0.0, min(score, middle - half)), min(1.0, max(score, middle + half))


def _z(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)


def contrast(conditions: Sequence[Condition], weights: np.ndarray, level: float) -> tuple[Interval, bool]:
    """A weighted sum of the scores of conditions, with its interval, and whether that is paired.

    Paired, the sum is taken within each item that all conditions have, and its standard error is that of a mean over items.
    Otherwise the variances of the scores add up; p of those is (hits + 1) / (n + 2), so that it is not 0 at the ends.
    """
    kept = [c.right for c in conditions if c.right is not None]
    shared = sorted(set.intersection(*(set(right) for right in kept))) if len(kept) == len(conditions) else []
    if len(shared) > 1:
        sums = weights @ np.array([[right[i] for i in shared] for right in kept])
        value, error = float(sums.mean()), float(sums.std() / math.sqrt(len(shared)))
        error = max(error, float(np.abs(weights).max()) / len(shared))  # where no item differs, one in n could
    else:
        n = np.array([c.n for c in conditions])
        score = np.array([c.score for c in conditions])
        p = (score * n + 1) / (n + 2)
        value, error = float(weights @ score), math.sqrt(float(weights**2 @ (p * (1 - p) / n)))
    half = _z(level) * error
    return (value, value - half, value + half), len(shared) > 1


def _slope_weights(shots: Sequence[int]) -> np.ndarray:
    """What turns scores into their least-squares slope over log2(1 + shots)."""
    x = np.log2(1 + np.array(shots, float))
    return (x - x.mean()) / ((x - x.mean()) ** 2).sum()


def _curve(task: str, form: str, size: str, n_params: float, chance: float, at: Mapping[int, Condition], level: float) -> Shots:
    shots = tuple(sorted(at))
    conditions = [at[k] for k in shots]
    difference = np.zeros(len(shots))
    difference[0], difference[-1] = -1.0, 1.0
    slope, paired = contrast(conditions, _slope_weights(shots), level)
    gain, _ = contrast(conditions, difference, level)
    scores = tuple(wilson(c.score, c.n, level) for c in conditions)
    return Shots(task, form, size, n_params, chance, shots, scores, slope, gain, paired)


def shots(found: Sequence[Asked], level: float) -> list[Shots]:
    """Of every task and format that was asked with several numbers of shots, a curve for each rung, ascending in size."""
    groups: dict[tuple[str, str, float], dict[int, Asked]] = collections.defaultdict(dict)
    for a in latest(found):
        groups[a.row["task"], a.row["format"], a.run.n_params][a.row["shots"]] = a
    out = []
    for (task, form, n_params), at in sorted(groups.items()):
        if len(at) > 1:
            first = next(iter(at.values()))
            conditions = {k: Condition(a.score, a.row["n"], right_items(a)) for k, a in at.items()}
            chance = float(first.row["chance"]) if form in ("cloze", "letter") else 0.0
            out.append(_curve(task, form, first.run.size, n_params, chance, conditions, level))
    return out


def latest(found: Sequence[Asked]) -> list[Asked]:
    """The rungs, each at the last step that it was scored at in this way."""
    last: dict[tuple[Any, ...], Asked] = {}
    for a in ends(found):
        key = (*a.key, a.run.id)
        if key not in last or a.row["step"] >= last[key].row["step"]:
            last[key] = a
    return list(last.values())


def published_shots(tables: Sequence[Shown], level: float) -> list[Shots]:
    """The same of published tables, one ``Shown`` for each number of shots; unpaired, since their items were not kept."""
    groups: dict[tuple[str, str, float], dict[int, Condition]] = collections.defaultdict(dict)
    sizes: dict[float, str] = {}
    for s in tables:
        for i, n_params in enumerate(s.ability.n_params):
            groups[s.task, s.format, n_params][s.shots or 0] = Condition(float(s.ability.score[i]), float(s.ability.n[i]))
            sizes[n_params] = s.ability.clusters[i]
    return [
        _curve(task, form, sizes[n_params], n_params, 0.0, at, level) for (task, form, n_params), at in groups.items()
    ]  # fmt: skip


def thoughts(found: Sequence[Asked], level: float) -> list[Thought]:
    """Of every task that was asked both ways with equally many shots: each rung's exact match and what reasoning adds."""
    rungs = latest(found)
    by_key = {(*a.key, a.run.n_params): a for a in rungs}
    out = []
    for task in dict.fromkeys(a.row["task"] for a in rungs):
        both = [k for k in {a.key[2] for a in rungs} if any((task, "cot", k, a.run.n_params) in by_key for a in rungs)]
        ways = [form for form in ("generate", GREEDY) if any((task, form) == a.key[:2] for a in rungs)]
        both = [k for k in both if any((task, form, k, a.run.n_params) in by_key for a in rungs for form in ways[:1])]
        for n_params in sorted({a.run.n_params for a in rungs}) if both else ():
            direct, cot = (by_key.get((task, form, max(both), n_params)) for form in (ways[0], "cot"))
            if direct is not None and cot is not None:
                out.append(_thought(task, direct, cot, level))
    return out


def _thought(task: str, direct: Asked, cot: Asked, level: float) -> Thought:
    conditions = [Condition(a.score, a.row["n"], right_items(a)) for a in (direct, cot)]
    gain, paired = contrast(conditions, np.array([-1.0, 1.0]), level)
    ends_of = [wilson(c.score, c.n, level) for c in conditions]
    return Thought(task, direct.run.size, direct.run.n_params, float(cot.row["flops"]), ends_of[0], ends_of[1], gain, paired)


def right_items(asked: Asked) -> dict[str, float] | None:
    """Whether each item was answered right, by its id; None where its items were not kept.

    Of choices the largest log-likelihood decides, the first of equals; of generations the file must say it (column 'right').
    """
    if asked.items is None:
        return None
    return _rights(asked.items, asked.items.stat().st_mtime_ns, asked.row["format"]).get(asked.row["task"])


@functools.lru_cache(maxsize=256)
def _rights(path: pathlib.Path, _written: int, form: str) -> dict[str, dict[str, float]]:
    """By task and item, of a file of all tasks that were asked by one format; empty where it does not tell."""
    from pyarrow import parquet

    names = set(parquet.read_schema(path).names)
    if form in ("generate", "cot") and "right" not in names:
        return {}
    kept = (
        ["task", "item", "right"]
        if "right" in names and form != GREEDY
        else ["task", "item", "gold", "loglikelihoods", "greedy"]
    )
    out: dict[str, dict[str, float]] = collections.defaultdict(dict)
    for row in parquet.read_table(path, columns=kept).to_pylist():
        right = row["right"] if "right" in kept else _greedy_right(row) if form == GREEDY else _chosen_right(row)
        if right is not None:  # of an item that was left out
            out[row["task"]][row["item"]] = float(right)
    return out


def _greedy_right(row: Mapping[str, Any]) -> bool:
    return bool(row["greedy"][row["gold"] if len(row["greedy"]) > 1 else 0])


def _chosen_right(row: Mapping[str, Any]) -> bool:
    if len(row["loglikelihoods"]) == 1:
        return bool(row["greedy"][0])
    return int(np.argmax(row["loglikelihoods"])) == row["gold"]
