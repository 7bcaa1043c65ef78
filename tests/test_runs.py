"""The run directory's files: atomic, versioned, readable after a kill."""

import json
import subprocess
import sys

import pytest

from scaling import runs


def test_json_is_replaced_whole_with_its_schema(tmp_path):
    # fails when a reader can see half a file, or a leftover of the write stays
    path = tmp_path / "a" / "plan.json"
    assert runs.read_json(path) is None and runs.read_json(path / "below_a_file.json") is None
    runs.write_json(path, {"n": 1.1})
    runs.write_json(path, {"n": 0.1 + 0.2})
    assert runs.read_json(path) == {"schema": runs.SCHEMA, "n": 0.1 + 0.2}
    assert [p.name for p in path.parent.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"), (b'{"n": 1', "not valid JSON"), (b"\xff\xfe", "not valid JSON"), (b"[1]", "schema None"),
        (b'{"n": 1}', "schema None"), (b'{"schema": 99}', "schema 99, this version reads 1"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_named(tmp_path, content, message):
    # fails when a damaged file counts as missing, so that a run starts over in silence
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(runs.RunError, match=f"config.json.*{message}"):
        runs.read_json(tmp_path / "config.json")


def test_a_line_cut_by_a_kill_is_passed_over_and_an_earlier_one_is_not(tmp_path):
    # fails when a kill in the middle of a line loses the run, or damage in the middle of the file is overlooked
    path = tmp_path / runs.METRICS
    assert list(runs.read_jsonl(path)) == []
    for i in range(3):
        runs.append_jsonl(path, {"i": i, "loss": 0.1 * i})
    with open(path, "ab") as f:
        f.write(b'{"i": 3, "lo')
    assert [row["i"] for row in runs.read_jsonl(path)] == [0, 1, 2]
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], '{"i": 1, "l', text[2]]) + "\n")
    with pytest.raises(runs.RunError, match=r"metrics.jsonl:2: not a JSON line"):
        list(runs.read_jsonl(path))


def test_a_cut_line_does_not_swallow_the_next(tmp_path):
    # fails when the first row after a kill is written behind the half line and both are lost
    path = tmp_path / runs.METRICS
    runs.append_jsonl(path, {"i": 0})
    with open(path, "ab") as f:
        f.write(b'{"i": 1, "lo')
    runs.append_jsonl(path, {"i": 2})
    runs.append_jsonl(path, {"i": 3})
    assert [row["i"] for row in runs.read_jsonl(path)] == [0, 2, 3]


def test_rows_of_a_repeated_step_count_once(tmp_path):
    # fails when a step trained again after a crash counts twice, or the earlier row wins
    rows = [("train", 2, 5.0), ("train", 4, 4.0), ("val", 4, 4.5), ("train", 4, 3.0), ("train", 3, 9.0)]
    for kind, step, loss in rows:
        runs.append_jsonl(tmp_path / runs.METRICS, {"kind": kind, "step": step, "loss": loss})
    found = [(row["kind"], row["step"], row["loss"]) for row in runs.Member(tmp_path).metrics()]
    assert found == [("train", 2, 5.0), ("train", 3, 9.0), ("train", 4, 3.0), ("val", 4, 4.5)]


def test_attempts_are_numbered_and_exclusive(tmp_path):
    # fails when two processes get one number, or a number is given again
    code = (
        f"from scaling import runs\nfor _ in range(20): runs.claim_attempt({str(tmp_path)!r}, {{'seconds': {{'train': 0.5}}}})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) for _ in range(2)]
    claimed = sum(p.wait() == 0 for p in processes)
    member = runs.Member(tmp_path)
    assert len(member.attempts()) >= 20 * max(1, claimed)
    assert member.seconds() == {"train": 0.5 * len(member.attempts())}
    path = runs.claim_attempt(tmp_path, {"seconds": {"eval": 1}})
    assert path.stem == f"{len(member.attempts()) - 1:03d}"
    assert json.loads(path.read_text())["schema"] == runs.SCHEMA


def test_members_of_a_folder(tmp_path):
    # fails when the order of a sweep is not that of sweep.json, a single run is no sweep of one, or nothing is taken for none
    with pytest.raises(runs.RunError, match=r"no sweep\.json and no run"):
        runs.members(tmp_path)
    for name in ("b", "a"):
        runs.write_json(tmp_path / name / runs.PLAN, {})
    assert [m.id for m in runs.members(tmp_path)] == ["a", "b"]
    assert [m.path for m in runs.members(tmp_path / "b")] == [tmp_path / "b"]
    runs.write_json(tmp_path / runs.SWEEP, {"members": [{"id": "b"}, {"id": "c"}]})
    assert [m.id for m in runs.members(tmp_path)] == ["b", "c"]
    assert runs.members(tmp_path)[1].read(runs.PLAN) is None and runs.members(tmp_path)[1].metrics() == []


def test_a_full_disk_leaves_the_old_file_and_no_half(tmp_path):
    # fails when a write that did not fit has replaced what was there, or takes the little room that is left
    code = (
        "import resource\nfrom scaling import runs\n"
        f"runs.write_json({str(tmp_path / 'done.json')!r}, {{'n': 1}})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"runs.write_json({str(tmp_path / 'done.json')!r}, {{'n': 'x' * 5000}})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert runs.read_json(tmp_path / "done.json") == {"schema": runs.SCHEMA, "n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["done.json"]
