"""The scores of a user's own runs: evals.jsonl beside the losses of metrics.jsonl → what was asked of which checkpoint."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis import load
from analysis.emergence.points import ACCURACY, EXACT, WITHIN, Point, Shown, ability
from scaling import runs
from scaling.units import did_you_mean

EVALS = "evals.jsonl"
TEST = "test"
FEWEST = 3  # models that can show a shape at all
SMOOTHED = 0.05  # of the tokens so far: training losses that stand for a missing validation loss
GREEDY = "greedy"  # exact match of cloze rows, whose logits tell what greedy decoding would begin with
FORMATS = {"cloze": ACCURACY, "letter": ACCURACY, "generate": EXACT, GREEDY: EXACT, "cot": EXACT}  # and what counts as a hit
_SCORE = {ACCURACY: "acc", EXACT: "exact_match"}
_COMPANIONS = {  # the first is the one of the mirage test; format → companion: metric
    "cloze": {
        "nll": "nll_token", "p_gold": "p_gold", "brier": "brier", "bits_per_byte": "nll_byte", "p_gold_raw": "p_gold_raw",
    },
    "letter": {"nll": "nll", "p_gold": "p_gold", "brier": "brier", "letter_mass": "letter_mass"},
    "generate": {"nll": "nll_token", "edit": "edit", "p_gold_raw": "p_gold_raw"},
    GREEDY: {"nll": "nll_token", "p_gold_raw": "p_gold_raw"},
    "cot": {"nll": "nll_token", "edit": "edit"},
}  # fmt: skip
_KEY = ("step", "suite", "task", "split", "format", "shots", "average")  # of rows with the same the last counts
_NEEDED = {"step": int, "flops": (int, float), "task": str, "format": str, "shots": int, "n": int, "chance": (int, float),
           "metrics": dict}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Asked:
    """One row of evals.jsonl with its run.

    Attributes:
      run: the run as ``analysis.load`` tells of it.
      path: its folder.
      final: whether this is the end of its training.
      loss: nats per token at this step on held-out text, NaN where nothing is known.
      row: as it was written.
    """

    run: load.Row
    path: pathlib.Path
    final: bool
    loss: float
    row: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, int]:
        """Task, format and shots."""
        return self.row["task"], self.row["format"], self.row["shots"]

    @property
    def score(self) -> float:
        return _value(self.row, _SCORE[FORMATS[self.row["format"]]])

    @property
    def items(self) -> pathlib.Path | None:
        """The Parquet file of its items, None where there is none."""
        name = self.row.get("items_file")
        return self.path / name if name and (self.path / name).is_file() else None


def _value(row: Mapping[str, Any], metric: str) -> float:
    value = (row["metrics"].get(metric) or {}).get("value")
    return float(value) if isinstance(value, int | float) else math.nan


def read(path: str | os.PathLike[str], n_definition: str = load.N_DEFINITIONS[0], most: int | None = None) -> list[Asked]:
    """Every score of a sweep's folder, or of one run's; of more tasks than ``most`` their groups, where there are any.

    Raises:
      LoadError: no such folder, no scores in it, or a row that cannot be used, with its file, place and remedy.
      RunError: a folder without runs, or a file in it that cannot be read.
    """
    root = pathlib.Path(path)
    table = {row.id: row for row in load.runs(root, n_definition).rows}
    members = runs.members(root)
    found = [asked for member in members for asked in _member(member, table[member.id], "eval")]
    if most is not None and len(tasks(found)) > most:
        groups = [asked for member in members for asked in _member(member, table[member.id], "eval_group")]
        found = [a for a in groups if a.row.get("average") == "micro"] or found
    if not found:
        raise load.LoadError(
            f"{root}: none of its {len(members)} runs has an {EVALS} with a score; score them first: "
            f"python -m scaling.evals --run {root}"
        )
    tests = [a for a in found if a.row.get("split", TEST) == TEST]
    return tests or found


def _member(member: runs.Member, run: load.Row, kind: str) -> list[Asked]:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, row in enumerate(runs.read_jsonl(member.path / EVALS), 1):
        if not isinstance(row, dict) or row.get("kind", "eval") != kind:
            continue
        _check(member, number, row)
        rows[(*(row.get(name) for name in _KEY),)] = row
    if not rows:
        return []
    rows = _with_greedy(rows)
    metrics, done = member.metrics(), member.read(runs.DONE) or {}
    losses = {step: _loss_at(metrics, step, done) for step in {r["step"] for r in rows.values()}}
    return [Asked(run, member.path, r["step"] == done.get("steps"), losses[r["step"]], r) for r in rows.values()]


def _with_greedy(rows: Mapping[tuple[Any, ...], dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """``rows`` with the exact match that cloze rows hold as rows of their own, where the task was not also generated."""
    out = dict(rows)
    at = _KEY.index("format")
    for key, row in rows.items():
        if row["format"] == "cloze" and math.isfinite(_value(row, "exact_match")):
            generated, greedy = ((*key[:at], form, *key[at + 1 :]) for form in ("generate", GREEDY))
            if generated not in rows:
                out[greedy] = row | {"format": GREEDY, "chance": 0.0}
    return out


def _check(member: runs.Member, number: int, row: Mapping[str, Any]) -> None:
    where = f"{member.path / EVALS}: score {number}"
    remedy = f"remove the line and score again: python -m scaling.evals --run {member.path}"
    for name, kind in _NEEDED.items():
        if not isinstance(row.get(name), kind):  # type: ignore[arg-type]
            raise load.LoadError(f"{where}: '{name}' is {row.get(name)!r}; {remedy}")
    if row["format"] not in FORMATS:
        raise load.LoadError(f"{where}: format {row['format']!r} is none of {', '.join(FORMATS)}; {remedy}")
    metric = _SCORE[FORMATS[row["format"]]]
    score = _value(row, metric)
    if not 0 <= score <= 1:
        raise load.LoadError(f"{where}: {row['task']} by {row['format']}: '{metric}' is {score}, not within 0 and 1; {remedy}")


def _loss_at(metrics: Sequence[Mapping[str, Any]], step: int, done: Mapping[str, Any]) -> float:
    """Validation loss at a step; else the mean of the training losses just before it; NaN without either."""
    if step == done.get("steps") and isinstance(done.get("val_loss"), float):
        return float(done["val_loss"])
    for row in metrics:
        if row["kind"] == "val" and row["step"] == step:
            return float(row["loss"])
    near = [float(r["loss"]) for r in metrics if r["kind"] == "train" and (1 - SMOOTHED) * step <= r["step"] <= step]
    return sum(near) / len(near) if near else math.nan


def tasks(found: Iterable[Asked]) -> list[str]:
    """Names of the tasks in the order of their first score."""
    return list(dict.fromkeys(a.row["task"] for a in found))


def only(found: Sequence[Asked], wanted: Sequence[str], formats: Sequence[str], shots: int | None) -> list[Asked]:
    """The scores that were asked for; what is empty or None does not choose.

    Raises:
      LoadError: for one that is not there, naming what is.
    """
    for what, names, there in (("tasks", wanted, tasks(found)), ("format", formats, _each(found, "format"))):
        for name in names:
            if name not in there:
                near = did_you_mean(name, there)
                raise load.LoadError(f"--{what} {name}: was not scored; there are {', '.join(there)}.{near}")
    if shots is not None and str(shots) not in (there := _each(found, "shots")):
        raise load.LoadError(f"--shots {shots}: was not scored; there are {', '.join(there)}")
    return [
        a for a in found
        if a.row["task"] in (wanted or [a.row["task"]]) and a.row["format"] in (formats or [a.row["format"]])
        and a.row["shots"] == (a.row["shots"] if shots is None else shots)
    ]  # fmt: skip


def _each(found: Iterable[Asked], name: str) -> list[str]:
    return [str(v) for v in dict.fromkeys(a.row[name] for a in found)]


def most_shots(found: Iterable[Asked]) -> dict[tuple[str, str], int]:
    """The largest number of shots, of those that most models of a task and format were asked with."""
    count: dict[tuple[str, str], collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for a in found:
        count[a.key[:2]][a.key[2]] += 1
    return {key: max(k for k, times in of.items() if 2 * times >= max(of.values())) for key, of in count.items()}


def shown(found: Sequence[Asked], checkpoints: bool = False) -> tuple[list[Shown], list[str]]:
    """An ability for each task and format, with the most shots that it was asked with; and notes on those left out.

    Judged are the ends of annealed runs; where there are fewer than three, all ends; with ``checkpoints``, or where there are
    not even three ends, every checkpoint, those of one trunk as one cluster.  The others are drawn small.

    Raises:
      LoadError: for fewer than three models of every task.
    """
    shots, out, few = most_shots(found), [], []
    order = {task: i for i, task in enumerate(tasks(found))}
    for task, form in sorted(shots, key=lambda key: (order[key[0]], list(FORMATS).index(key[1]))):
        asked = [a for a in found if a.key == (task, form, shots[task, form])]
        points = _points(asked, checkpoints)
        if sum(p.excluded is None for p in points) < FEWEST:
            few.append(f"{task} by {form}: {len(asked)} models were scored, a shape needs {FEWEST} or more")
            continue
        lengths = [v for a in asked if (v := a.row.get("answer_tokens"))] if FORMATS[form] == EXACT else []
        first = asked[0].row
        made = ability(
            points, f"{task}, {form}", FORMATS[form], float(first["chance"]) if FORMATS[form] == ACCURACY else 0.0,
            length=float(lengths[0]) if lengths else None, group=first.get("group") or "",
            source=str(first.get("suite") or ""), loss_name="loss on held-out text, nats per token",
        )  # fmt: skip
        rest = tuple(p for p in points if p.excluded is not None)
        out.append(Shown(f"{task}/{form}/{shots[task, form]}", task, form, shots[task, form], made, rest))
    if not out:
        raise load.LoadError(f"{'; '.join(few[:FEWEST])}; score more runs of the ladder: python -m scaling.evals --run FOLDER")
    return out, [f"left out, {words}" for words in few]


def _points(asked: Sequence[Asked], checkpoints: bool) -> list[Point]:
    reasons = {id(a): _why(a) for a in asked}
    hard = {id(a) for a in asked if a.run.state == load.DIVERGED}
    ends = [a for a in asked if a.final and id(a) not in hard]
    if checkpoints or len(ends) < FEWEST:
        reasons = {k: why if k in hard else None for k, why in reasons.items()}
    elif sum(why is None for why in reasons.values()) < FEWEST:
        reasons |= {id(a): None for a in ends}
    return [
        Point(
            float(a.row["flops"]), a.score, a.row["n"], a.run.n_params, a.loss, a.run.cluster, a.run.seed or 0,
            {to: v for to, name in _COMPANIONS[a.row["format"]].items() if math.isfinite(v := _companion(a.row, to, name))},
            reasons[id(a)], a.run.size,
        )
        for a in asked
    ]  # fmt: skip


def _companion(row: Mapping[str, Any], name: str, metric: str) -> float:
    value = _value(row, metric)
    return value / math.log(2) if name == "bits_per_byte" else value


def _why(a: Asked) -> str | None:
    """Why a score is not judged with the ends of annealed runs, None where it is."""
    if a.run.state == load.DIVERGED:
        return "diverged"
    if not a.final:
        return WITHIN
    return None if a.run.annealed else "not annealed"


def ends(found: Iterable[Asked]) -> list[Asked]:
    """Of every size the run with the most compute, at its end (or at its last checkpoint, where no run has ended): a rung."""
    listed = [a for a in found if a.run.state != load.DIVERGED]
    listed = [a for a in listed if a.final and a.run.annealed] or [a for a in listed if a.final] or listed
    best: dict[float, tuple[float, str]] = {}
    for a in listed:
        size = a.run.n_params
        best[size] = max(best.get(size, (0.0, "")), (float(a.row["flops"]), a.run.id))
    return [a for a in listed if (float(a.row["flops"]), a.run.id) == best[a.run.n_params]]
