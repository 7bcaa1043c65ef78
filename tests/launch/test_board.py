"""The board, drawn into text; and the metrics that it follows."""

import io
import json
import os
import pathlib

import rich.console

from scaling.launch.board import LiveBoard, PlainBoard, Row, fitting, table
from scaling.launch.follow import Progress, Tail
from scaling.launch.schedule import Phase

DONE = Row("causal-50K-20x", Phase.FINISHED, 1.0, 1.5, 1.52)
RUNNING = Row("causal-75K-20x", Phase.RUNNING, 0.5, 1.7, 1.4, 123456.0, 0.41, 75.0, "core 1")
WAITING = Row("causal-100K-20x", Phase.WAITS_PREDICTION)


def drawn(rows: list[Row], height: int = 40, width: int = 110) -> str:
    console = rich.console.Console(file=io.StringIO(), width=width, height=height)
    console.print(table("ladder", rows, "1 of 3 over", height))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_shows_bar_losses_speed_and_time() -> None:
    """Fails when a column of the board is lost."""
    text = drawn([DONE, RUNNING, WAITING])
    done, running, waiting = (next(line for line in text.splitlines() if r.id in line) for r in (DONE, RUNNING, WAITING))
    assert "1.5000" in done and "1.5200" in done and "+1.3%" in done
    assert all(word in running for word in ("━", "1.7000", "1.4000", "123,456", "41.0%", "1m15s", "core 1"))
    assert "waits for its prediction" in waiting


def test_twenty_four_members_fit_thirty_lines_of_eighty_columns() -> None:
    """Fails when the board outgrows a common terminal."""
    text = drawn([RUNNING] * 2 + [DONE] * 22, height=29, width=80)
    assert len(text.splitlines()) <= 30 and text.count("causal") == 24


def test_more_members_than_lines() -> None:
    """Fails when running members are cut off, or the cut is not told."""
    rows = [DONE] * 50 + [RUNNING] + [WAITING] * 50
    shown, left = fitting(rows, 20)
    assert RUNNING in shown and len(shown) + left == 101 and len(shown) < 20
    assert "more members" in drawn(rows, height=24)


def test_plain_board_tells_each_change_once() -> None:
    """Fails when a log is flooded by repeated lines, or a change is missing."""
    text = io.StringIO()
    board = PlainBoard(rich.console.Console(file=text, width=200))
    for _ in range(5):
        board.show("ladder", [RUNNING, WAITING], "")
    for _ in range(5):
        board.show("ladder", [Row(RUNNING.id, Phase.FINISHED, 1.0, 1.41, 1.4), WAITING], "")
    board.close()
    lines = [line for line in text.getvalue().splitlines() if RUNNING.id in line]
    assert len(lines) == 2 and "running" in lines[0] and "1.4100 predicted 1.4000 -0.7%" in lines[1]


def test_live_board_leaves_its_last_state() -> None:
    """Fails when the final losses are not on the screen after the run."""
    text = io.StringIO()
    board = LiveBoard(rich.console.Console(file=text, width=110, height=30, force_terminal=True))
    board.show("ladder", [RUNNING], "one")
    board.show("ladder", [DONE], "two")
    board.close()
    last = text.getvalue().rpartition("ladder")[2]
    assert "causal-50K-20x" in last and "1.5000" in last and "two" in last


def test_tail_reads_whole_new_lines_once(tmp_path: pathlib.Path) -> None:
    """Fails when rows are read twice, half a line is read, or a file replaced by a resumed trainer is missed."""
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.rows() == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert [r["a"] for r in tail.rows()] == [1, 2] and tail.rows() == []
    with open(path, "a") as f:
        f.write(": 3}\n")
    assert [r["a"] for r in tail.rows()] == [3]
    other = tmp_path / "other"
    other.write_text('{"a": 1}\n{"a": 9}\n{"a": 10}\n{"a": 11}\n')
    os.replace(other, path)
    assert [r["a"] for r in tail.rows()] == [1, 9, 10, 11]


def test_progress_takes_the_last_training_row() -> None:
    """Fails when validation rows are taken for training."""
    rows = [
        json.loads(t)
        for t in ('{"kind": "train", "step": 3, "tokens": 30, "loss": 2.0}', '{"kind": "val", "step": 9, "loss": 1}')
    ]
    assert Progress().after(rows) == Progress(3, 30, 2.0)
    assert Progress(1).after([]) == Progress(1)
