"""Verdicts: their calibration on simulated ladders, every kind, families of tasks, forecasts, seeds, loss and bad input."""

import dataclasses

import emergence_ladders as ladders
import numpy as np
import pytest

from analysis.emergence import forecast, judge, seeds
from analysis.emergence.shapes import Curves

LADDERS = 100  # of each kind; benchmarks/emergence_calibration.py judges 1000


@pytest.mark.parametrize(
    ("kind", "calls", "least"),
    [
        ("flat", {"absent", "under-powered"}, 0.95),
        ("smooth", {"absent", "smooth", "under-powered"}, 0.95),
        ("step", {"sharp-in-loss"}, 0.95),
        ("p^10, logit-linear p", {"sharp-metric-only"}, 0.95),
        ("p^10, power law", {"sharp-metric-only"}, 0.95),
        ("24 in trunks, flat", {"absent", "under-powered"}, 0.93),
        ("24 in trunks, smooth", {"absent", "smooth", "under-powered"}, 0.95),
    ],
)
def test_calibration(kind, calls, least):
    """Fails when ladders of known kind get another verdict too often: emergence out of noise, jumps out of slopes."""
    rng = np.random.default_rng(0)
    made = [ladders.KINDS[kind](rng) for _ in range(LADDERS)]
    found = judge.judge_all(made, draws=40, family=False, brief=True)
    assert np.mean([v.call in calls for v in found]) >= least


def test_steps_without_a_companion_are_sharp_but_their_cause_is_unknown():
    """Fails when a bare step is missed, or blamed on the model without evidence."""
    rng = np.random.default_rng(0)
    found = judge.judge_all([ladders.bare(ladders.step(rng)) for _ in range(100)], draws=40, family=False, brief=True)
    assert np.mean([v.sharp for v in found]) >= 0.95
    assert {v.call for v in found if v.sharp} == {"under-powered"}


def test_the_loss_axis_decides_where_no_companion_is_given():
    """Fails when a bare step over all data that is a step in pre-training loss too is not sharp in loss."""
    found = judge.judge(ladders.bare(ladders.trunks("step", np.random.default_rng(0), over=1.0)), draws=60)
    assert found.call == "sharp-in-loss"
    assert found.loss.one_curve and found.loss.sharp
    a = found.ability
    assert a.loss[a.score > 0.6].max() < found.loss.threshold < a.loss[a.score < 0.4].max()


def test_sizes_that_differ_at_one_loss_are_not_one_curve():
    """Fails when a task that depends on size beyond the loss passes for a function of the loss, or the reverse too often."""
    same = [ladders.trunks("smooth", np.random.default_rng(seed), over=1.0) for seed in range(8)]
    other = []
    for a in same:
        bonus = 0.3 * np.log10(a.n_params / a.n_params.min())
        other.append(dataclasses.replace(a, hits=np.clip(a.hits + 500 * (bonus - bonus.mean()), 0, 500)))
    one, many = (np.mean([v.loss.one_curve for v in judge.judge_all(group, draws=10)]) for group in (same, other))
    assert one >= 0.7 and many <= 0.2


def test_few_or_blind_ladders_are_under_powered():
    """Fails when four models, or fifty items, are enough to say anything."""
    four = ladders.ability(np.array([125, 130, 400, 450.0]), 0.25, x=np.array([18.0, 19, 20, 21]))
    assert judge.judge(four).call == "under-powered" and judge.judge(four).selection is None
    blind = ladders.ability(np.array([12, 13, 12, 12, 13, 12.0]), 0.25, n=50)
    found = judge.judge(blind)
    assert found.call == "under-powered" and "50 items" in found.reasons[0]


def test_a_trifle_above_zero_is_absent():
    """Fails when GPT-3's .44 % of reversed words count as an ability, though 44 of 10,000 are far beyond zero."""
    hits = 100 * np.array([0, 0.05, 0, 0.17, 0.24, 0.30, 0.42, 0.44])
    found = judge.judge(ladders.ability(hits, 0.0, x=np.linspace(20, 23.5, 8), n=10000))
    assert found.call == "absent" and found.p_present < 0.01


def test_a_slow_rise_is_no_plateau():
    """Fails when GPT-3's 3-digit sums, .15 to 8.4 % before 80 %, start from their mean; models that all guess one city do."""
    x = np.linspace(20.35, 23.5, 8)
    sums = np.array([0.15, 0.45, 0.30, 0.55, 0.75, 0.90, 8.40, 80.4]) / 100
    assert judge.plateau(x, 2000 * sums, np.full(8, 2000.0), 0.0) == 0.0
    cities = np.array([0.09, 0.05, 0.10, 0.10, 0.84, 0.99])
    assert judge.plateau(x[:6], 150 * cities, np.full(6, 150.0), 0.0) == pytest.approx(0.085)


def test_presence_is_corrected_over_tasks():
    """Fails when the luckiest of forty flat tasks is called an ability in a family of forty."""
    rng = np.random.default_rng(0)
    tasks = [dataclasses.replace(ladders.bare(ladders.flat(rng)), task=str(i)) for i in range(40)]
    lucky = dataclasses.replace(tasks[0], hits=np.array([125, 125, 125, 125, 125, 148.0]), task="lucky")
    alone, among = judge.judge(lucky), judge.judge_all([*tasks, lucky], brief=True)[-1]
    assert alone.p_present < 0.05 and alone.onset.log_flops == 20.5
    assert among.p_adjusted > 0.2 and among.call == "absent"


def test_order_and_company_do_not_change_a_verdict():
    """Fails when batching over abilities mixes up their rows."""
    rng = np.random.default_rng(7)
    made = [ladders.step(rng), ladders.flat(rng), ladders.power(rng), ladders.smooth(rng), ladders.trunks("step", rng)]
    together = judge.judge_all(made, draws=10, family=False)
    for a, v in zip(made, together, strict=True):
        one = judge.judge_all([a], draws=10, family=False)[0]
        assert (one.call, one.ability is a, one.selection.said) == (v.call, v.ability is a, v.selection.said)
        assert one.selection.phi == pytest.approx(v.selection.phi)
        assert len(v.reasons) >= 2


def test_a_constant_above_chance_is_no_emergence():
    """Fails when a score that all models share is called sharp or absent; or an exact match that may be a guess an ability."""
    hits = np.array([240, 250, 245, 255, 251, 243.0])
    half, tenth, most = (judge.judge(ladders.ability(h, c), 20) for h, c in ((hits, 0.25), (hits / 5, 0.0), (hits * 1.8, 0.0)))
    assert [v.call for v in (half, tenth, most)] == ["smooth", "absent", "smooth"]
    assert all("no change with scale" in v.reasons[0] for v in (half, tenth, most))


def test_forecasts_cover_the_largest_model():
    """Fails when 90 % intervals of the largest of eight sizes hold it in under 80 % of 150 smooth ladders."""
    rng = np.random.default_rng(0)
    x = np.linspace(18, 21.5, 8)
    start, end = rng.uniform(-1.5, -0.5, 150), rng.uniform(0.5, 3.0, 150)
    p = 1 / (1 + np.exp(-(start[:, None] + (end - start)[:, None] * np.linspace(0, 1, 8))))
    hits = rng.binomial(500, 0.25 + 0.75 * p).astype(float)
    found = forecast.largest(Curves(x, hits, np.full_like(hits, 500.0), 0.25), draws=60)
    assert np.mean([f.inside for f in found]) >= 0.8
    assert abs(np.mean([f.predicted - f.observed for f in found])) < 0.03
    assert np.median([np.ptp(f.interval) for f in found]) < 0.25, "an interval that says nothing covers everything"
    assert forecast.largest(Curves(x[:5], hits[:, :5], hits[:, :5] * 0 + 500, 0.25)) is None


@pytest.mark.parametrize(
    ("scores", "two"),
    [((0.01, 1, 1), True), ((0.84, 0.18, 0.19), True), ((0.82, 0.87, 0.97), False), ((0.51, 0.61, 0.36), False)],
)
def test_heaps_over_seeds(scores, two):
    """Fails when the four triples of seeds that were measured are not told apart: two learnt by some seeds only."""
    assert seeds.bimodal(np.array(scores), np.full(3, 150.0)) is two


def test_spread_over_seeds():
    """Fails when repeats are not found, or their spread is not compared with counting's."""
    x = np.repeat(ladders.DECADES, 3)
    score = np.clip(np.repeat([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 3) + np.tile([-0.1, 0.0, 0.1], 6), 0, 1)
    a = ladders.ability(500 * score, 0.25, x=x, seeds=(0, 1, 2) * 6)
    found = seeds.spread(a)
    assert (found.repeats, found.bimodal) == (6, ())
    assert found.deviation == pytest.approx(0.1)
    assert found.ratio == pytest.approx(0.01 / np.mean([p * (1 - p) for p in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]) * 500, rel=0.01)
    assert seeds.spread(ladders.flat(np.random.default_rng(0))) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hits": np.array([1, 2, 3.0])}, "hits has 3 entries for 6 models"),
        ({"flops": 10 ** np.array([18.0, 19, 18.5, 20, 21, 22])}, "ascending"),
        ({"hits": np.full(6, 501.0)}, "between 0 and n"),
        ({"companions": {"nll": np.zeros(5)}}, "nll has 5 entries"),
    ],
)
def test_arrays_that_do_not_fit(change, message):
    """Fails when an ability that cannot be right is judged."""
    good = ladders.ability(np.full(6, 125.0), 0.25)
    with pytest.raises(ValueError, match=message):
        judge.judge(dataclasses.replace(good, **change))
