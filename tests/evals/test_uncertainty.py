"""Intervals, tests and the bootstrap against closed forms and numbers computed elsewhere."""

import itertools

import numpy as np
import pytest
from scipy import stats

from scaling.evals import uncertainty as u


def test_intervals_of_proportions(golden):
    """Fails when Wilson's or Clopper and Pearson's interval, or the harness's standard error, differs from the reference."""
    for name, wanted in golden["binom_ci"].items():
        hits, n = map(int, name.split("/"))
        assert u.wilson(hits, n) == pytest.approx(wanted["wilson"], rel=1e-9, abs=1e-12), name
        assert u.clopper_pearson(hits, n) == pytest.approx(wanted["clopper_pearson"], rel=1e-6, abs=1e-12), name
        values = np.repeat([1.0, 0.0], [hits, n - hits])
        assert u.stderr(values) == pytest.approx(wanted["lm_eval_stderr"], rel=1e-9), name
    assert u.wilson(100, 100) == pytest.approx([1 - u.wilson(0, 100)[1], 1.0]) and u.clopper_pearson(5, 5)[1] == 1.0


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_against_scipy(level):
    """Fails when another level than 95 % is not what it says."""
    for hits, n in [(0, 7), (3, 7), (7, 7), (60, 400)]:
        test = stats.binomtest(hits, n)
        assert u.wilson(hits, n, level) == pytest.approx(test.proportion_ci(level, "wilson"), abs=1e-9)
        assert u.clopper_pearson(hits, n, level) == pytest.approx(test.proportion_ci(level, "exact"), abs=1e-9)


def test_hits_that_are_not_chance(golden):
    """Fails when the hits that a guess seldom reaches, or the items that a test needs, are off by one."""
    known = golden["chance"]
    for n, hits in known["critical_hits_p0.25_onesided5pct"].items():
        assert u.critical_hits(int(n), 0.25) == hits
    for n, hits in known["bonferroni57_critical_hits"].items():
        assert u.critical_hits(int(n), 0.25, 0.05 / 57) == hits
    for accuracy, n in known["n_for_80pct_power_detect"].items():
        assert u.items_to_detect(float(accuracy), 0.25) == n
    assert u.critical_hits(2, 0.5) == 3  # two of two are a quarter


def test_pooled_standard_error_of_four_subjects():
    """Fails when a group's standard error is not lm-evaluation-harness's: 0.0183120 for four subjects of MMLU."""
    hits, sizes = (46, 25, 30, 70), (135, 100, 100, 270)
    errors = [u.stderr(np.repeat([1.0, 0.0], [k, n - k])) for k, n in zip(hits, sizes, strict=True)]
    assert u.pooled_stderr(errors, sizes) == pytest.approx(0.01831202640693332, rel=1e-12)


def test_mcnemar(golden):
    """Fails when the exact p, the chi-square or the paired standard error differs from the reference."""
    known = golden["mcnemar"]
    found = u.mcnemar(known["b"], known["c"], known["n"])
    assert found.exact_p == pytest.approx(known["exact_p"]) and found.chi2 == pytest.approx(known["chi2_cc"])
    assert (found.difference, found.stderr) == pytest.approx((known["diff"], known["se_diff"]))
    assert u.mcnemar(0, 0, 10).exact_p == u.mcnemar(4, 4, 10).exact_p == 1.0


def test_pass_at_k(golden):
    """Fails when pass@k is not the share of all subsets of k samples that hold a right one."""
    wanted = {
        (10, 3, 1): "n10c3k1",
        (10, 3, 5): "n10c3k5",
        (200, 13, 10): "n200c13k10",
        (8, 0, 4): "n8c0k4",
        (8, 8, 1): "n8c8k1",
    }
    for ask, name in wanted.items():
        assert u.pass_at_k(*ask) == pytest.approx(golden["pass_at_k"][name], abs=1e-12)
    subsets = list(itertools.combinations([1, 1, 0, 0, 0, 0], 3))
    assert u.pass_at_k(6, 2, 3) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))
    with pytest.raises(ValueError, match="pass@9 of 8 samples: k must be 1 to 8"):
        u.pass_at_k(8, 1, 9)


def test_item_bootstrap_covers():
    """Fails when fewer than 93 or more than 97 % of 1000 intervals of 200 items at 0.3 hold the truth."""
    hits = (np.random.default_rng(0).random((200, 1000)) < 0.3).astype(float)
    # One resampling serves all thousand experiments: they are independent columns.
    low, high = u.bootstrap(hits, seed=1)
    assert 0.93 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.97


def test_the_bootstrap_is_paired_by_items():
    """Fails when two metrics or models on the same items are resampled apart, or draws change with their number."""
    values = np.random.default_rng(0).normal(size=(300, 2))
    both = u.resampled_means(values, 5)
    assert np.allclose(both[:, :1], u.resampled_means(values[:, :1], 5), atol=1e-12)
    shifted = u.resampled_means(values[:, :1] + 3, 5) - both[:, :1]
    assert np.allclose(shifted, 3, atol=1e-12)
    assert np.std(both[:, 0]) == pytest.approx(np.std(values[:, 0]) / np.sqrt(300), rel=0.1)
    assert u.seed_of(["a", "b"]) != u.seed_of(["b", "a"])


def test_large_sets_are_resampled_in_parts(monkeypatch):
    """Fails when a resampling that does not fit in memory at once gives a wrong number of draws or repeats them."""
    monkeypatch.setattr(u, "_HELD", 300)
    means = u.resampled_means(np.arange(100.0)[:, None], 0, draws=10)
    assert means.shape == (10, 1) and len(np.unique(means)) == 10


def test_whole_tasks_are_drawn_for_claims_about_others():
    """Fails when an interval over tasks does not show how they differ."""
    low, high = u.over_tasks([0.2, 0.8] * 10)
    assert low < 0.45 and high > 0.55 and u.over_tasks([0.5] * 5) == (0.5, 0.5)
