"""What a run is asked while it trains: rows at its marks and its end, of a suite checked before anything is written."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from training import Trainer

from scaling import config, members, runs
from scaling.evals import asking, cells, records

FIELDS = {
    "model__context": 64, "budget": "40 steps", "marks": "('50%',)", "evals": 1,
    "probe__formats": "('cloze','letter')", "probe__shots": "(0,1)", "probe__items": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A file of eight items, in the form that ARC is published in, and a dev file for shots."""
    folder = tmp_path_factory.mktemp("suite")
    for name, numbers in (("colours.jsonl", range(8)), ("colours_dev.jsonl", range(8, 11))):
        rows = [{"query": f"q{i}:", "choices": ["red", "blue"], "gold": i % 2} for i in numbers]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "colours.jsonl"


@pytest.fixture(scope="module")
def run(trainer: Trainer, suite, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("probed") / "run"
    said = trainer.run(run_dir, probe__suite=suite, **FIELDS)
    return run_dir, said


def test_a_run_is_asked_at_its_marks_and_its_end(run):
    """Fails when a mark or the end has no rows, more items are asked than the config says, a way of asking is left out, or the
    tokens of a row are not the checkpoint's."""
    run_dir, said = run
    rows = [row for row in records.rows(run_dir) if row["kind"] == records.TASK]
    asked = {(row["step"], row["format"], row["shots"]) for row in rows}
    assert asked == set(itertools.product((20, 40), ("cloze", "letter"), (0, 1))) and len(rows) == 8
    assert all(row["n"] == 5 and row["tokens"] == row["step"] * 128 for row in rows)
    assert all((run_dir / row["items_file"]).exists() for row in rows)
    assert "step 40  " in said and "(cloze, 1 shot)" in said


def test_what_generates_is_asked_with_the_most_shots_alone():
    """Fails when decoding, which costs most, is done for every number of shots."""
    asks = cells.of_config(config.ProbeConfig("laptop", ("add",), ("cloze", "generate", "cot"), (0, 5), 3))
    ways = [(cell.way.format, cell.way.shots, len(cell.items)) for ask in asks for cell in ask.cells()]
    assert ways == [("cloze", 0, 3), ("cloze", 5, 3), ("generate", 5, 3), ("cot", 5, 3)]


def test_what_was_asked_is_what_the_checkpoint_answers(run, suite):
    """Fails when the parameters that are asked are not those that are saved: the checkpoint of the mark, opened again."""
    run_dir, _ = run
    member = members.open_member(run_dir, 20)
    (ask, *_) = cells.of_config(dataclasses.replace(member.config.probe, formats=("cloze",)))
    position = records.Position(member.step, member.tokens, member.flops)
    copy = run_dir.with_name("again")
    again = asking.score_now(member.config.model, member.params, member.tokenizer, ask, position, copy)
    before = {records.key(row): row for row in records.rows(run_dir)}
    for row in again:
        was = before[records.key(row)]
        np.testing.assert_allclose(row["metrics"]["nll"]["value"], was["metrics"]["nll"]["value"], rtol=1e-5)
        assert row["flops"] == was["flops"] and row["items_digest"] == was["items_digest"]


def test_asking_is_no_part_of_what_a_run_is(run):
    """Fails when a run that is asked otherwise counts as another run, so that a question more means training anew."""
    spec = config.from_resolved((runs.read_json(run[0] / runs.CONFIG) or {})["config"])
    other = dataclasses.replace(spec, probe=config.ProbeConfig())
    assert config.digest(spec, "x") == config.digest(other, "x") and spec.probe.shots == (0, 1)


def test_a_suite_that_is_not_there_is_told_before_anything_is_written(trainer: Trainer, tmp_path):
    """Fails when training starts and the missing suite shows at the first mark."""
    said = trainer.run(tmp_path / "run", status=runs.BAD_CONFIG, probe__suite=tmp_path / "none.jsonl", **FIELDS)
    assert "no suite or folder" in said and not (tmp_path / "run" / runs.CONFIG).exists()
