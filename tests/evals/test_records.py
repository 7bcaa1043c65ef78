"""What is kept of an evaluation, and what is not asked again."""

import dataclasses
import pathlib

import asked
import pytest
from pyarrow import parquet

from scaling.evals import asking, records
from scaling.evals.cells import Ask
from scaling.evals.items import Suite, TaskError
from scaling.evals.records import Position

POSITION = Position(10, 640, 1e6)


def suite(n: int = 4) -> Suite:
    """Two tasks in one group."""
    return Suite("pair", tuple(dataclasses.replace(asked.task(n), name=name, group="both") for name in ("one", "two")))


def run(folder: pathlib.Path, ask: Ask, keep: bool = True) -> list[asking.Done]:
    return list(asking.run(asked.engine(), ask, POSITION, folder, keep))


def test_rows_hold_what_the_analysis_reads(tmp_path: pathlib.Path) -> None:
    """Fails when a field of the contract is missing, or an average is not that of its tasks."""
    run(tmp_path, Ask(suite(), ("letter",), (0, 1)))
    rows = records.rows(tmp_path)
    tasks = [row for row in rows if row["kind"] == "eval"]
    assert [(row["task"], row["shots"]) for row in tasks] == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    fields = {
        "kind", "step", "tokens", "flops", "suite", "task", "group", "split", "format", "shots", "shots_effective", "fit", "n",
        "skipped", "truncated", "chance", "answer_tokens", "items_digest", "items_file", "at", "metrics",
    }  # fmt: skip
    assert set(tasks[0]) == fields and tasks[0]["metrics"]["acc"].keys() == {"value", "stderr", "low", "high"}
    assert (tasks[0]["step"], tasks[0]["n"], tasks[0]["chance"]) == (10, 4, 0.25)
    groups = [row for row in rows if row["kind"] == "eval_group" and row["shots"] == 0]
    assert [(row["task"], row["average"]) for row in groups] == [(g, a) for g in ("both", "all") for a in ("micro", "macro")]
    mean = sum(row["metrics"]["nll"]["value"] for row in tasks[:2]) / 2
    assert groups[0]["metrics"]["nll"]["value"] == pytest.approx(mean) and groups[0]["n"] == 8


def test_items_are_kept_by_task(tmp_path: pathlib.Path) -> None:
    """Fails when one task's items replace another's, scoring again doubles them, or ``right`` is not what accuracy counts."""
    run(tmp_path, Ask(suite()))
    run(tmp_path, Ask(suite(3)))
    (row,) = [r for r in records.rows(tmp_path) if r["task"] == "two"]
    table = parquet.read_table(tmp_path / row["items_file"]).to_pylist()
    assert [(r["task"], r["item"]) for r in table] == [(t, f"q{i}") for t in ("one", "two") for i in range(3)]
    assert len(table[0]["loglikelihoods"]) == len(table[0]["unconditional"]) == 4 and table[0]["gold"] == 0
    right = [r["right"] for r in table if r["task"] == "two"]
    assert sum(right) / 3 == row["metrics"]["acc"]["value"]
    assert right == [max(range(4), key=r["loglikelihoods"].__getitem__) == r["gold"] for r in table if r["task"] == "two"]
    assert list((tmp_path / "items").iterdir()) == [tmp_path / row["items_file"]]


def test_what_is_recorded_is_not_asked_again(tmp_path: pathlib.Path) -> None:
    """Fails when a second run scores the same items, adds rows, or takes changed items for the same."""
    run(tmp_path, Ask(suite()))
    before = (tmp_path / "evals.jsonl").read_bytes()
    assert all(done.before for done in run(tmp_path, Ask(suite())))
    assert (tmp_path / "evals.jsonl").read_bytes() == before
    first, second = suite().tasks
    items = second.splits["test"]
    changed = dataclasses.replace(items[0], answer=3)
    other = dataclasses.replace(second, splits={**second.splits, "test": (changed, *items[1:])})
    again = run(tmp_path, Ask(Suite("pair", (first, other))))
    assert [done.before for done in again] == [True, False]
    rows = records.rows(tmp_path)
    assert sum(row["task"] == "two" for row in rows) == 1 and rows[1]["items_digest"] != rows[0]["items_digest"]


def test_an_evaluation_that_ends_early_leaves_what_it_had(tmp_path: pathlib.Path) -> None:
    """Fails when rows are written at the end alone, or a failure takes back earlier ones."""
    steps = asking.run(asked.engine(), Ask(suite()), POSITION, tmp_path)
    next(steps)
    steps.close()
    assert [row["task"] for row in records.rows(tmp_path)] == ["one"]
    assert [done.before for done in run(tmp_path, Ask(suite()))] == [True, False]


def test_the_trainer_scores_what_it_has_in_hand(tmp_path: pathlib.Path) -> None:
    """Fails when a later step replaces an earlier one, or the parameters at hand are not those that are scored."""
    e = asked.engine()
    ask, halves = Ask(suite(), ("letter",)), dict(e.params) | {"head": 0 * e.params["head"]}
    first = asking.score_now(e.config, e.params, e.tokenizer, ask, POSITION, tmp_path, keep_items=False)
    second = asking.score_now(e.config, halves, e.tokenizer, ask, Position(20, 1280, 2e6), tmp_path, keep_items=False)
    assert first[0]["metrics"]["nll"] != second[0]["metrics"]["nll"] and first[0]["items_file"] is None
    assert sorted({row["step"] for row in records.rows(tmp_path)}) == [10, 20]


def test_a_task_of_which_nothing_fits_is_told_before_others_are_scored(tmp_path: pathlib.Path) -> None:
    """Fails when the first task is scored and recorded, and the second then ends the command."""
    short, long = (dataclasses.replace(asked.task(1, pad=pad), name=name) for name, pad in (("short", 0), ("long", 80)))
    with pytest.raises(TaskError, match="long: none of its 1 prompts fits the model's context of 96 tokens"):
        run(tmp_path, Ask(Suite("pair", (short, long)), fit="skip"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"formats": ("clozes",)}, "format 'clozes'; choose of .* Did you mean \"cloze\""),
        ({"formats": ("cot",)}, "pair: no task can be asked in format 'cot'; there are cloze, letter"),
        ({"shots": (0, 3)}, "one: 3 shots asked for, but its dev split has 2 items"),
        ({"split": "val"}, "one: no items in split 'val'; it has: dev .2., test .4."),
        ({"limit": 0}, "limit=0; must be 1 or more"),
        ({"fit": "drop"}, "fit 'drop'; choose of drop_shots"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_scored(fields: dict, message: str, tmp_path: pathlib.Path) -> None:
    """Fails when a part is scored first, or the message does not name what to change."""
    with pytest.raises(TaskError, match=message):
        run(tmp_path, dataclasses.replace(Ask(suite()), **fields))
    assert not list(tmp_path.iterdir())
