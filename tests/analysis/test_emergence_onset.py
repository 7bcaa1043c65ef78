"""Presence, onset, midpoint and width, against SciPy's distributions and simulated truth."""

import dataclasses

import emergence_ladders as ladders
import numpy as np
import pytest
from scipy import stats

from analysis.emergence import judge, onset, selection, shapes
from analysis.emergence.shapes import Curves


def test_binomial_tails_are_those_of_scipy():
    """Fails when a one-sided p-value is off: 33 of 100 is the critical count at chance 1/4, 3596 of 14042 for MMLU."""
    for hits, n, p in ((33, 100, 0.25), (3596, 14042, 0.25), (0, 50, 0.25), (1, 2000, 1e-4)):
        assert onset.at_least(hits, n, p) == pytest.approx(stats.binom.sf(hits - 1, n, p))
    for critical, n in ((33, 100), (142, 500), (3596, 14042)):
        assert onset.at_least(critical, n, 0.25) <= 0.05 < onset.at_least(critical - 1, n, 0.25)


@pytest.mark.parametrize(("n", "p"), [(2948, 0.27), (483, 0.30), (125, 0.35), (57, 0.40), (21, 0.50)])
def test_detectable_effect(n, p):
    """Fails when the least score told from chance with 80 % power is not the one of the sample-size formula."""
    assert onset.min_effect(n, 0.25) == pytest.approx(p, abs=0.003)


def test_holm():
    """Fails when the correction over tasks is not Holm's."""
    assert onset.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_guessing_is_present_in_at_most_one_ladder_of_twenty():
    """Fails when the test of presence is not of its size, or not even when all models are lucky together."""
    rng = np.random.default_rng(0)
    n = np.full((2000, 6), 500.0)
    alone = onset.present(rng.binomial(500, 0.25, (2000, 6)).astype(float), n, 0.25)
    together = onset.present(np.repeat(rng.binomial(500, 0.25, (2000, 1)).astype(float), 6, axis=1), n, 0.25)
    assert 0.03 < np.mean(alone <= 0.05) < 0.065
    assert np.mean(together <= 0.05) < 0.065


def test_the_onset_is_where_scores_leave_chance_for_good():
    """Fails when a lucky early model or a later fall back to chance is overlooked."""
    x, n = np.arange(6.0), np.full(6, 500.0)
    hits = np.array([125, 160, 125, 170, 200, 300.0])
    test = onset.above_chance(x, hits, n, 0.25)
    assert onset.onsets([test]) == [3.0]
    assert onset.onsets([onset.above_chance(x, np.full(6, 125.0), n, 0.25)]) == [None]
    many = onset.onsets([test] * 50)  # 170 of 500 has p = 4e-6
    assert many == [3.0] * 50
    barely = onset.above_chance(x, np.array([125, 125, 125, 125, 125, 145.0]), n, 0.25)  # p = .025
    assert onset.onsets([barely]) == [5.0]
    assert onset.onsets([barely] * 4) == [None] * 4


def test_intervals_cover_midpoint_and_width():
    """Fails when 95 % profile intervals of simulated sigmoids cover the truth in under 88 or over 99 % of 200 ladders."""
    rng = np.random.default_rng(1)
    x = np.linspace(18, 21, 10)
    p = 0.25 + 0.75 / (1 + np.exp(-(x - 19.4) / 0.3))
    hits = rng.binomial(300, p, size=(200, 10)).astype(float)
    c = Curves(x, hits, np.full_like(hits, 300.0), 0.25)
    theta = shapes.fit(c, ("sigmoid",))["sigmoid"].theta
    fits = shapes.fit(c)
    quantile = stats.t.ppf(0.975, 8) * np.sqrt(selection.dispersion(c, fits))
    for which, truth in ((0, 19.4), (1, 0.3)):
        ends = shapes.profile("sigmoid", theta, c, which, quantile)
        assert 0.88 < np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) <= 1.0


def test_a_rise_between_two_sizes_is_unresolved():
    """Fails when a width below the spacing of models is given as if it had been measured."""
    hits = np.array([125, 120, 130, 450, 445, 455.0])
    found = judge.judge(ladders.ability(hits, 0.25), draws=40).onset
    assert not found.resolved and found.spacing == pytest.approx(0.5)
    assert 19.0 < found.midpoint < 19.5
    wide = judge.judge(ladders.ability(np.array([130, 150, 240, 330, 430, 470.0]), 0.25), draws=40).onset
    assert wide.resolved


def test_checkpoints_of_one_trunk_are_redrawn_together():
    """Fails when a trunk's shared luck does not widen the interval of the midpoint."""
    a = ladders.trunks("smooth", np.random.default_rng(0))
    hits = a.n * np.clip(a.score + 0.05 * (np.array(a.clusters).astype(int) - 2.5), 0, 1)  # whole trunks off the curve
    a = dataclasses.replace(a, hits=hits)
    apart = dataclasses.replace(a, clusters=tuple(map(str, range(24))))
    widths = [np.ptp(judge.judge(one, draws=100).onset.midpoint_interval) for one in (a, apart)]
    assert widths[0] > 0 and widths[0] != pytest.approx(widths[1])
