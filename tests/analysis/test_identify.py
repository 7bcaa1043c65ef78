"""Verdicts: what rows identify, and what must not be quoted at all."""

import dataclasses
import json

import numpy as np
import pytest
from test_intervals import ladder

from analysis import fit, identify, intervals, laws, load, story, words
from analysis.estimate import Settings, estimate

PARAMS = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}


def in_step(jitter=0.0, noise=0.002, rows=12):
    """D = 20 N in all rows."""
    n = np.geomspace(1e7, 1e9, rows)
    d = 20 * n * np.exp(jitter * np.random.default_rng(1).standard_normal(rows))
    loss = laws.CHINCHILLA.loss(PARAMS, n, d)
    return load.table(n, d, loss * np.exp(noise * np.random.default_rng(2).standard_normal(rows)))


def test_ladder_pins_the_prediction_and_not_e():
    """Fails when the two are judged together: the default ladder predicts the next size and leaves E and alpha open."""
    loose = 0
    for seed in range(6):
        boot = intervals.bootstrap(fit.fit(ladder(np.random.default_rng(seed)), delta=1e-2), 100)
        assert intervals.predict(boot, 195e3, 195e3 * 40).verdict.identified
        verdicts = identify.judge_parameters(boot)
        loose += not verdicts["E"].identified and not verdicts["exponents"].identified
        assert verdicts["E"].identified or any("E may lie" in r for r in verdicts["E"].reasons)
        assert verdicts["E"].quote
    assert loose >= 3  # a lucky draw of the noise can pin them


def test_chinchilla_is_identified(chinchilla):
    """Fails when the rules are so strict that even 240 points over two decades do not pass, or the condition number is off."""
    boot = intervals.bootstrap(fit.fit(chinchilla), 300)
    assert all(v.identified and v.quote for v in identify.judge_parameters(boot).values())
    assert identify.condition(boot.fit) == pytest.approx(1.1e3, rel=0.05)
    far = intervals.predict(boot, 70e9, 1.4e12)
    assert far.far and far.extrapolation == pytest.approx(6 * 70e9 * 1.4e12 / chinchilla.column("flops").max())


def test_the_ridge_is_named(chinchilla):
    """Fails when correlations are paired with the wrong names: E trades against A and alpha, and leaves a alone."""
    boot = intervals.bootstrap(fit.fit(chinchilla), 300)
    found = identify.correlations(boot)
    assert found["A", "alpha"] > 0.95 and found["B", "beta"] > 0.95
    assert found["E", "alpha"] > 0.45 and abs(found["E", "a"]) < 0.2
    assert found["alpha", "beta"] == pytest.approx(_spearman(boot.params["alpha"], boot.params["beta"]), abs=1e-9)
    assert "A and alpha +0.9" in words.ridge(boot) or "A and alpha +1.00" in words.ridge(boot)


def _spearman(x, y):
    from scipy.stats import spearmanr

    return float(spearmanr(x, y).statistic)


@pytest.mark.parametrize("jitter", [0.0, 0.005])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_collinear_rows_are_refused(jitter, noise):
    """Fails when D = 20 N in all rows yields exponents, or a prediction off that line; those on it must remain."""
    boot = intervals.bootstrap(fit.fit(in_step(jitter, noise), delta=1e-2), 100)
    for verdict in identify.judge_parameters(boot).values():
        assert not verdict.identified and not verdict.quote and "in step with parameters" in " ".join(verdict.reasons)
    on_line = intervals.predict(boot, 1.5e9, 30e9)
    assert on_line.verdict.identified
    assert on_line.loss == pytest.approx(float(laws.CHINCHILLA.loss(PARAMS, 1.5e9, 30e9)), rel=0.02)
    assert not intervals.predict(boot, 1.5e9, 300e9).verdict.identified


def test_refused_numbers_appear_nowhere():
    """Fails when words, JSON, equation or caption of a collinear sweep still show an exponent, a coefficient or E."""
    table = in_step(0.005)
    boot = intervals.bootstrap(fit.fit(table, delta=1e-2), 100)
    said = "\n".join(words.law(boot, 0.9)) + words.equation(boot) + words.latex(boot)
    content = words.law_json(boot, 0.9)
    told = story.tell(table, [], [], Settings(law="chinchilla", delta=1e-2, draws=100))
    caption = story.caption(told) + story.caption(told, plain=True)
    assert "not quoted" in said and "not quoted" in caption and content["quoted"] is False
    assert set(content["params"].values()) == set(content["intervals"].values()) == {None}
    band = story.frontier(told, np.array([1e18]))
    assert np.isnan(band["n_params"]).all() and np.isnan(band["loss"]).all()
    for name, value in boot.fit.params.items():
        for digits in (3, 4):
            assert words.number(value, digits) not in said + caption + json.dumps(content), name


def test_a_parameter_at_an_edge_leaves_the_rest_quoted():
    """Fails when E that runs to zero (its column of the normal matrix is empty then) silences the exponents too."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e11, 5)))
    f = fit.fit(load.table(n, d, 9.0 * n**-0.1 + 30 * d**-0.2 - 0.3))
    assert any("E runs to zero" in e for e in f.edges) and words.quoted(f)
    verdicts = identify.judge_parameters(intervals.bootstrap(f, 50))
    assert verdicts["exponents"].quote and not verdicts["exponents"].identified


def test_one_variable_laws_stand_on_the_line():
    """Fails when L(N) of a ladder with D = 20 N is refused too: it is the law that such a ladder can carry."""
    n = np.geomspace(1e6, 1e10, 30)
    loss = laws.PARAMS.loss(PARAMS, n, 20 * n) * np.exp(0.001 * np.random.default_rng(0).standard_normal(30))
    f = fit.fit(load.table(n, 20 * n, loss), laws.PARAMS)
    assert not identify.inseparable(f)
    assert identify.judge_parameters(intervals.bootstrap(f, 100))["exponents"].identified


def one_size(law=laws.DATA):
    d = np.geomspace(1e9, 3e10, 10)
    loss = 2.3 + 700 * d**-0.31 * np.exp(0.002 * np.cos(np.arange(10)))
    table = load.table(np.full(10, 1e8), d, loss)
    return intervals.bootstrap(fit.fit(table, law, bumps=0), 100)


@pytest.mark.parametrize("law", [laws.DATA, laws.COMPUTE], ids=lambda law: law.name)
def test_one_size_says_nothing_of_others(law):
    """Fails when a law of D or C alone, of runs of one size, claims to know a run of another size, or disowns its own."""
    boot = one_size(law)
    assert intervals.predict(boot, 1e8, 6e10).verdict.identified
    other = intervals.predict(boot, 7e9, 6e10).verdict
    assert not other.identified and "all rows have 100M parameters" in other.reasons[-1]


def test_two_texts_in_one_table_follow_no_law(chinchilla):
    """Fails when the parameters of rows that lie far off their own law are called identified."""
    half = dataclasses.replace(
        chinchilla, rows=tuple(dataclasses.replace(r, loss=r.loss / 3) if i % 2 else r for i, r in enumerate(chinchilla.rows))
    )
    verdicts = identify.judge_parameters(intervals.bootstrap(fit.fit(half, bumps=0), 100))
    assert all("they follow no one law" in " ".join(v.reasons) for v in verdicts.values())
    assert not any(v.identified for v in verdicts.values())


def test_a_refusal_offers_what_can_be_fitted():
    """Fails when rows on one line are refused without the law that they can carry."""
    boot = intervals.bootstrap(fit.fit(in_step(), bumps=0), 100)
    assert "--law compute: " in words.verdicts(boot, 0.9)[-1]


def test_a_far_prediction_is_flagged_on_a_line_of_its_own(chinchilla):
    """Fails when a prediction beyond 10 times the fitted compute reads like any other, or a near one is flagged."""
    found = estimate(chinchilla, Settings("tied", draws=100))
    lines = {n: words.forecast(found.predict(n, 20 * n)).splitlines() for n in (1e9, 1e12)}
    assert [line.startswith("CAUTION: ") for line in lines[1e12]].count(True) == 1
    assert not any("CAUTION" in line for line in lines[1e9])
    assert any(line.startswith("  a = 1/2 at C = k N D") for line in words.law(found.boot, 0.9))
