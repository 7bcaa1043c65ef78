"""`python -m scaling.evals` as a user runs it: a whole sweep, twice, and what it refuses."""

import json
import pathlib
import shutil

import pytest
import tiny
import written

from scaling import runs
from scaling.evals import records
from scaling.evals.__main__ import main


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A member of random parameters, a copy of it, and one that has not ended."""
    folder = tmp_path_factory.mktemp("sweep")
    written.member(folder / "a", tiny.train_config(model_context=64, budget="10 steps"), steps=(10,))
    for name in ("b", "open"):
        shutil.copytree(folder / "a", folder / name)
    (folder / "open" / runs.DONE).unlink()
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two tasks with choices, of which the questions of one are longer than the context; each is shot to the others."""
    folder = tmp_path_factory.mktemp("suite") / "pets"
    folder.mkdir()
    for name, more in (("cats", ""), ("dogs", "x" * 60)):
        rows = [{"query": f"{more}{i}", "choices": ["miaow", "woof"], "gold": i % 2} for i in range(6)]
        (folder / f"{name}_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def words(run: pathlib.Path, suite: pathlib.Path, *more: str) -> list[str]:
    return ["--run", str(run), "--suite", str(suite), *more]


def test_a_sweep_is_scored_once(sweep: pathlib.Path, suite: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when a member is left out or touched before it has ended, or the second command asks again."""
    assert main(words(sweep, suite, "--formats", "cloze")) == 0
    told = capsys.readouterr().out
    assert "open: not finished (done.json is missing)" in told and not (sweep / "open" / records.EVALS).exists()
    assert "6 cut at the left" in told and "items/s" in told
    for name in ("a", "b"):
        rows = records.rows(sweep / name)
        assert [(r["task"], r["n"], r["truncated"]) for r in rows[:2]] == [("cats", 6, 0), ("dogs", 6, 6)]
        assert rows[0]["step"] == 10 and rows[0]["tokens"] == 1280 and (sweep / name / rows[0]["items_file"]).exists()
    before = (sweep / "a" / records.EVALS).read_bytes()
    assert main(words(sweep / "a", suite)) == 0
    assert "all of it was recorded already" in capsys.readouterr().out
    assert (sweep / "a" / records.EVALS).read_bytes() == before


@pytest.mark.parametrize(
    "more, message",
    [
        (["--run", "nowhere"], "nowhere: no such folder; give the folder of a member or of a sweep"),
        (["--suite", "laptp"], "no suite or folder 'laptp'. Did you mean \"laptop\"?"),
        (["--tasks", "cat"], "no task 'cat'; it has cats, dogs. Did you mean \"cats\"?"),
        (["--formats", "lettre"], "format 'lettre'; choose of cloze, letter, generate, cot. Did you mean \"letter\"?"),
        (["--shots", "0,6"], "cats: 6 shots asked for, but its dev split has 6 items, of which 5 may stand before 'test/0'"),
        (["--shots", "few"], "--shots: 'few' must be whole numbers, such as 0,1,5"),
        (["--step", "7"], "no checkpoint of step '7'; there are [10]; or say newest or all"),
        (["--limit", "none"], "--limit: 'none' must be a whole number"),
        (["--fit", "drop"], "--fit: invalid choice: 'drop'"),
    ],
)
def test_what_cannot_be_used_is_one_message(
    more: list[str], message: str, sweep: pathlib.Path, suite: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when bad input is found after a model was loaded, ends otherwise than with status 2, or is told in a traceback."""
    before = (sweep / "b" / records.EVALS).exists()
    assert main(words(sweep / "b", suite, *more)) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and message in told.err and not told.out
    assert (sweep / "b" / records.EVALS).exists() == before


def test_a_run_that_has_not_ended_is_refused(
    sweep: pathlib.Path, suite: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when two processes could write one member's rows."""
    assert main(words(sweep / "open", suite)) == 2
    assert "open: not finished (done.json is missing)" in capsys.readouterr().err
