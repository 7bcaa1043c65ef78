"""Scores of recorded predictions, against scipy's exact binomial interval and files written here."""

import json
import pathlib

import pytest

from analysis import scorecard
from scaling import runs


def _score(hit: bool | None, measured: float = 2.0, predicted: float = 2.02) -> dict:
    return {"kind": "score", "member": "top", "predicted": predicted, "interval": [1.9, 2.1], "level": 0.9,
            "measured": measured, "hit": hit}  # fmt: skip


def _write(folder: pathlib.Path, lines: list[dict]) -> pathlib.Path:
    folder.mkdir()
    (folder / runs.PREDICTIONS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (3, 3), (0, 7), (7, 9), (40, 50)])
def test_the_share_is_clopper_and_pearsons(tmp_path, hits, n):
    """Fails when the interval of the share is another one than scipy's exact binomial interval, at its ends too."""
    from scipy.stats import binomtest

    found = scorecard.scores(_write(tmp_path / "sweep", [_score(i < hits) for i in range(n)]))
    together = scorecard.record(found)
    exact = binomtest(hits, n).proportion_ci(scorecard.LEVEL, method="exact")
    assert together is not None and (together.n, together.hits) == (n, hits)
    assert together.share == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_errors_and_bias_keep_their_signs(tmp_path):
    """Fails when errors of opposite sign do not cancel in the bias, do cancel in the mean error, or are relative to the
    prediction instead of to what was measured."""
    lines = [_score(True, predicted=2.2), _score(True, predicted=1.9)]
    together = scorecard.record(scorecard.scores(_write(tmp_path / "sweep", lines)))
    assert together is not None
    assert (together.mean_error, together.bias, together.nominal) == pytest.approx((0.075, 0.025, 0.9))


def test_what_was_left_out_has_no_score(tmp_path):
    """Fails when a diverged member counts as hit or miss, or a prediction that is not scored yet counts."""
    left_out = _score(None) | {"excluded": "diverged (loss is not finite)"}
    prediction = {"kind": "prediction", "member": "top", "loss": 2.0}
    found = scorecard.scores(_write(tmp_path / "sweep", [prediction, left_out, _score(False)]))
    assert [s.hit for s in found] == [False]
    assert scorecard.record([]) is None and scorecard.to_json([]) == {"record": None, "scores": []}


def test_sweeps_beside_it_are_counted_together(tmp_path):
    """Fails when a sibling's record is missed, its name lost, or one in a folder further down counted."""
    first = _write(tmp_path / "first", [_score(True)])
    _write(tmp_path / "second", [_score(False), _score(True)])
    _write(first / "inner", [_score(False)])
    (tmp_path / "empty").mkdir()
    assert sorted((s.sweep, s.hit) for s in scorecard.around(first)) == [("first", True), ("second", False), ("second", True)]
    assert scorecard.scores(tmp_path / "empty") == []
