"""Predictions on the record: first, once, never rewritten, scored."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import synthetic

from analysis import cli, laws, load, predict
from analysis.estimate import Settings
from scaling import runs

SMALL = synthetic.SIZES[:5]


@pytest.fixture
def ladder(tmp_path):
    return synthetic.write_sweep(tmp_path / "ladder", trained=SMALL, curves=False)


def lines(root):
    return list(runs.read_jsonl(root / runs.PREDICTIONS))


def train_largest(root, status="finished"):
    for m in json.loads((root / runs.SWEEP).read_text())["members"]:
        if m["size"] == "195K":
            loss = float(laws.CHINCHILLA.loss(synthetic.TRUTH, 195e3, m["tokens"]))
            synthetic.finish(root, m, loss, status, curves=False)


def test_record_score(ladder):
    """Fails when a prediction uses the largest size, is rewritten or repeated, or its score is."""
    predict.main(["--runs", str(ladder), "--record", "--draws", "200"])
    first = (ladder / runs.PREDICTIONS).read_bytes()
    recorded = lines(ladder)
    assert [p["member"] for p in recorded] == [f"causal-195K-{r}x" for r in (10, 20, 40)]
    for p in recorded:
        truth = float(laws.CHINCHILLA.loss(synthetic.TRUTH, p["n_params"], p["n_tokens"]))
        assert p["loss"] == pytest.approx(truth, rel=0.02) and p["interval"][0] < p["loss"] < p["interval"][1]
        assert p["n_rows"] == 15 and p["sizes"] == list(SMALL) and len(p["table_hash"]) == 64
    assert recorded[2]["extrapolation"] == pytest.approx(7.8 / 6.4 * (195 / 160) ** 0.98, rel=1e-3)
    predict.main(["--runs", str(ladder), "--record", "--draws", "200"])
    assert (ladder / runs.PREDICTIONS).read_bytes() == first
    predict.main(["--runs", str(ladder), "--score"])
    assert (ladder / runs.PREDICTIONS).read_bytes() == first  # nothing has been trained

    train_largest(ladder)
    predict.main(["--runs", str(ladder), "--score"])
    predict.main(["--runs", str(ladder), "--score", "--record"])
    assert (ladder / runs.PREDICTIONS).read_bytes().startswith(first)
    scores = lines(ladder)[3:]
    assert [s["kind"] for s in scores] == ["score"] * 3
    for s, p in zip(scores, recorded, strict=True):
        assert s["error_percent"] == pytest.approx(100 * (p["loss"] / s["measured"] - 1))
        assert s["hit"] == (p["interval"][0] <= s["measured"] <= p["interval"][1])


def test_a_prediction_must_come_first(ladder, tmp_path):
    """Fails when a run that has begun can still be 'predicted'."""
    train_largest(ladder)
    with pytest.raises(load.LoadError, match="must come first"):
        predict.record(load.runs(ladder), ladder, Settings(draws=200))
    other = synthetic.write_sweep(tmp_path / "started", trained=SMALL, curves=False)
    (other / "causal-195K-20x").mkdir()
    (other / "causal-195K-20x" / runs.METRICS).write_text('{"kind": "train", "step": 1, "tokens": 1536, "loss": 5.5}\n')
    recorded = predict.record(load.runs(other), other, Settings(draws=200))
    assert [p["member"] for p in recorded] == ["causal-195K-10x", "causal-195K-40x"]


def test_new_rows_give_a_new_line(tmp_path):
    """Fails when a later prediction from more rows overwrites the earlier one, or is not the one that is scored."""
    root = synthetic.write_sweep(tmp_path / "s", trained=synthetic.SIZES[:4], curves=False)
    assert len(predict.record(load.runs(root), root, Settings(draws=200))) == 3
    member = next(m for m in json.loads((root / runs.SWEEP).read_text())["members"] if m["id"] == "causal-160K-40x")
    synthetic.finish(root, member, 1.15, curves=False)
    assert len(predict.record(load.runs(root), root, Settings(draws=200))) == 3
    assert len(lines(root)) == 6 and len({p["table_hash"] for p in lines(root)}) == 2
    train_largest(root)
    scores = predict.score(load.runs(root), root)
    assert {s["table_hash"] for s in scores} == {lines(root)[5]["table_hash"]} and len(scores) == 3


def test_diverged_members_are_kept_without_a_score(ladder):
    """Fails when a diverged largest rung is dropped in silence or counted as a miss."""
    predict.record(load.runs(ladder), ladder, Settings(draws=200))
    train_largest(ladder, "diverged")
    (score, *_) = predict.score(load.runs(ladder), ladder)
    assert score["hit"] is None and score["excluded"].startswith("diverged")


def test_live_uses_strictly_smaller_sizes(ladder):
    """Fails when a member's own loss leaks into its live prediction."""
    before = predict.live(load.runs(ladder))
    assert set(before) == {f"causal-{n}K-{r}x" for n in (130, 160, 195) for r in (10, 20, 40)}
    member = next(m for m in json.loads((ladder / runs.SWEEP).read_text())["members"] if m["id"] == "causal-130K-20x")
    synthetic.finish(ladder, member, 9.0, curves=False)
    after = predict.live(load.runs(ladder))
    assert after["causal-130K-20x"] == before["causal-130K-20x"] and after["causal-160K-20x"] != before["causal-160K-20x"]
    predict.main(["--runs", str(ladder), "--live"])
    assert runs.read_json(ladder / "live_predictions.json")["members"] == after


def test_csv_prediction(tmp_path, capsys):
    """Fails when --n-params and --tokens do not take units, or the words lack the rows, what was noted of them, the interval,
    the extrapolation or the file."""
    n, d = (v.ravel() for v in np.meshgrid([1e7, 1e8, 1e9], [1e9, 1e10, 1e11]))
    params = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}
    loss = laws.CHINCHILLA.loss(params, n, d) * np.exp(0.002 * np.random.default_rng(0).standard_normal(9))
    rows = "\n".join(f"{a},{b},{c}" for a, b, c in zip(n, d, loss, strict=True))
    (tmp_path / "mine.csv").write_text("params,tokens,val_loss\n" + rows + "\n")
    words = f"--csv {tmp_path / 'mine.csv'} --n-params 2B --tokens 2e11 --out {tmp_path / 'out'} --draws 200"
    predict.main(words.split())
    said = capsys.readouterr().out
    assert "2B parameters on 200B tokens" in said
    assert "4 times the largest fitted compute" in said
    assert said.startswith(f"{tmp_path / 'mine.csv'}: 9 rows fitted\nnote: no column for C: C = 6ND\n")
    assert said.endswith(f"wrote {tmp_path / 'out' / 'prediction.json'}\n")
    written = runs.read_json(tmp_path / "out" / "prediction.json")
    assert written["loss"] == pytest.approx(float(laws.CHINCHILLA.loss(params, 2e9, 2e11)), rel=0.01)
    assert written["flops"] == pytest.approx(6 * 2e9 * 2e11, rel=1e-6)


@pytest.mark.parametrize(
    ("trained", "sizes", "words"),
    [
        (synthetic.SIZES[:2], synthetic.SIZES, "train them first"),
        (synthetic.SIZES[:2], synthetic.SIZES[:3], "at least four sizes"),
    ],
)
def test_too_few_sizes(tmp_path, trained, sizes, words):
    """Fails when a ladder of three sizes predicts its top, or the refusal is a traceback."""
    root = synthetic.write_sweep(tmp_path / "s", sizes=sizes, trained=trained, curves=False)
    done = subprocess.run(
        [sys.executable, "-m", "analysis.predict", "--runs", str(root), "--record"],
        capture_output=True, text=True, cwd=pathlib.Path(cli.__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr and not lines(root)
