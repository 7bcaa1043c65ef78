"""Bootstraps against published standard errors, coverage on simulated sweeps, and prediction intervals."""

import dataclasses
import time

import numpy as np
import pytest
import synthetic

from analysis import fit, intervals, laws, load

LARGE = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}


def ladder(rng, sizes=synthetic.SIZES[:5], shared=0.0, single=0.003):
    """Five trunks with three branches from the known law; ``shared`` noise is common to a trunk."""
    n = np.repeat(np.array(sizes, float), 3)
    d = n * np.tile([10.0, 20.0, 40.0], len(sizes))
    group = np.repeat(np.arange(len(sizes)), 3)
    noise = shared * rng.standard_normal(len(sizes))[group] + single * rng.standard_normal(len(n))
    return load.table(n, d, laws.CHINCHILLA.loss(synthetic.TRUTH, n, d) * np.exp(noise), [str(g) for g in group])


def test_chinchilla_standard_errors(chinchilla):
    """Fails when rows are not resampled, refits stop early, or exponents are no longer paired with their coefficients."""
    start = time.process_time()
    boot = intervals.bootstrap(fit.fit(chinchilla), 2000)
    seconds = time.process_time() - start
    assert boot.kind == "case" and boot.unconverged == 0
    errors = {name: values.std() for name, values in boot.params.items()}
    expected = {"A": 124.49, "E": 0.02566, "alpha": 0.0154, "beta": 0.02059}
    assert {k: errors[k] for k in expected} == {
        k: pytest.approx(v, rel=0.08 if k == "A" else 0.06) for k, v in expected.items()
    }
    assert errors["B"] == pytest.approx(1293.17, rel=0.25)
    lo, hi = boot.interval(boot.values["a"], 0.95)  # the published ends are plain percentiles
    assert (lo, hi) == (pytest.approx(0.4805, abs=0.006), pytest.approx(0.5561, abs=0.006))
    assert seconds < 8  # 0.9 on a quiet core: 2,000 refits are batched


def test_refits_are_exact(chinchilla):
    """Fails when a warm-started refit ends above what a global fit of the same resample finds."""
    f = fit.fit(chinchilla)
    boot = intervals.bootstrap(f, 20, seed=5)
    rng = np.random.default_rng(5)
    weights = rng.multinomial(len(f.residuals), np.full(len(f.residuals), 1 / len(f.residuals)), size=20)[:, f.rows.groups]
    rows = chinchilla.fitted
    for draw in (0, 7, 13):
        chosen = [rows[i] for i in np.repeat(np.arange(len(rows)), weights[draw])]
        whole = fit.fit(load.Table("resample", tuple(chosen)), delta=f.delta)
        assert boot.params["beta"][draw] == pytest.approx(whole.params["beta"], abs=1e-5)


def test_wild_weights_are_shared_within_a_trunk():
    """Fails when branches of one trunk are redrawn apart: two trunks then have more than 6 x 6 different draws."""
    two = tuple(dataclasses.replace(r, cluster=str(i < 7)) for i, r in enumerate(ladder(np.random.default_rng(2)).rows))
    boot = intervals.bootstrap(fit.fit(load.Table("arrays", two), delta=1e-2), 200)
    assert 20 < len(np.unique(boot.params["beta"].round(9))) <= 36
    table = ladder(np.random.default_rng(2), shared=0.004, single=1e-5)
    f = fit.fit(table, delta=1e-2)
    apart = fit.fit(load.Table("arrays", tuple(dataclasses.replace(r, cluster=r.id) for r in table.rows)), delta=1e-2)
    together, single = (intervals.bootstrap(x, 300, kind="wild") for x in (f, apart))
    assert together.clusters == 5 and single.clusters == 15
    assert len(np.unique(together.theta.round(9), axis=0)) > 250  # six-point weights: two-point ones have 32 draws
    width = [np.ptp(np.quantile(np.log(b.fit.losses(b.theta, 195e3, 3.9e6)), [0.05, 0.95])) for b in (together, single)]
    assert width[0] > 1.2 * width[1]


@pytest.mark.parametrize(("shared", "single"), [(0.0, 0.003), (0.003, 0.0015)])
def test_coverage_on_ladders(shared, single):
    """Fails when residuals are not corrected for what the fit absorbs: coverage of 90 % intervals falls to about 60 to 75 %."""
    rng = np.random.default_rng(7)
    runs, hits, exponent = 25, 0, 0
    for _ in range(runs):
        boot = intervals.bootstrap(fit.fit(ladder(rng, shared=shared, single=single), delta=1e-2), 80)
        p = intervals.predict(boot, 195e3, 195e3 * 20)
        noise = shared * rng.standard_normal() + single * rng.standard_normal()
        measured = laws.CHINCHILLA.loss(synthetic.TRUTH, 195e3, 195e3 * 20) * np.exp(noise)
        hits += p.interval[0] <= measured <= p.interval[1]
        lo, hi = boot.intervals()["alpha"]
        exponent += lo <= synthetic.TRUTH["alpha"] <= hi
    assert hits / runs >= 0.8
    assert exponent / runs >= 0.8


def test_prediction_interval_includes_single_run_noise():
    """Fails when the interval is only the band of the mean: with 60 rows that would be several times narrower."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 12), np.geomspace(1e9, 1e11, 10)))
    loss = laws.CHINCHILLA.loss({"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}, n, d)
    table = load.table(n, d, loss * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(n))))
    p = intervals.predict(intervals.bootstrap(fit.fit(table, delta=0.1), 400), 1e8, 1e10)
    half = (p.interval[1] - p.interval[0]) / 2 / p.loss
    assert half == pytest.approx(1.645 * 0.01, rel=0.25)


def test_noise_follows_the_weights():
    """Fails when a heavy row's residual is redrawn for a light run: rows of a tenth of the noise have 100 times the weight."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 12), np.geomspace(1e9, 1e11, 10)))
    sd = np.where(n > 1e8, 0.001, 0.01)
    loss = laws.CHINCHILLA.loss(LARGE, n, d) * np.exp(sd * np.random.default_rng(0).standard_normal(len(n)))
    weights = sd**-2.0
    boot = intervals.bootstrap(fit.fit(load.table(n, d, loss), loss="squared", weights=weights), 400)
    for weight, expected in ((1e4 / weights.mean(), 0.01), (1e6 / weights.mean(), 0.001)):
        p = intervals.predict(boot, 1e8, 1e10, weight=weight)
        assert (p.interval[1] - p.interval[0]) / 2 / p.loss == pytest.approx(1.645 * expected, rel=0.25)


def test_whole_clusters_are_resampled():
    """Fails when rows of one run are resampled apart: what a run's four rows share then counts four times."""
    rng = np.random.default_rng(0)
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e10, 1e12, 5)))
    n, d, run = np.repeat(n, 4), np.repeat(d, 4) * np.tile([0.25, 0.5, 0.75, 1.0], 40), np.repeat(np.arange(40), 4)
    loss = laws.CHINCHILLA.loss(LARGE, n, d) * np.exp(0.005 * rng.standard_normal(40)[run] + 0.0005 * rng.standard_normal(160))
    f = fit.fit(load.table(n, d, loss, [str(r) for r in run]))
    boot = intervals.bootstrap(f, 200)
    assert boot.kind == "case" and boot.clusters == 40 and boot.unconverged == 0
    apart = intervals.bootstrap(fit.fit(load.table(n, d, loss)), 200)
    assert boot.values["a"].std() > 1.4 * apart.values["a"].std()


@pytest.mark.parametrize(
    ("sizes", "tokens", "absolute", "squares"), [(4, 3, "wild", "wild"), (5, 5, "case", "wild"), (9, 8, "case", "case")]
)
def test_kind_follows_the_rows(sizes, tokens, absolute, squares):
    """Fails when nearly absolute fits of 15 rows or more are redrawn wild (88 % where 95 is claimed), or few rows resampled."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e9, 1e12, tokens)))
    loss = laws.CHINCHILLA.loss(LARGE, n, d) * np.exp(0.005 * np.random.default_rng(0).standard_normal(len(n)))
    table = load.table(n, d, loss)
    assert intervals.default_kind(fit.fit(table)) == absolute
    assert intervals.default_kind(fit.fit(table, loss="squared")) == squares


def test_given_multipliers_are_used():
    """Fails when two fits that share their wild weights are redrawn apart: a comparison then loses its pairing."""
    f = fit.fit(ladder(np.random.default_rng(1)), delta=1e-2)
    names = intervals.cluster_names(f)
    drawn = intervals.wild_multipliers(np.random.default_rng(3), 40, len(names))
    one, other = (intervals.bootstrap(f, seed=s, multipliers=drawn) for s in (0, 1))
    assert one.kind == "wild" and len(one.theta) == 40 and np.array_equal(one.theta, other.theta)
    flipped = intervals.bootstrap(f, multipliers=-drawn)
    shift, back = (b.fit.losses(b.theta, 1e5, 2e6) / f.expected(1e5, 2e6) - 1 for b in (one, flipped))
    assert np.corrcoef(shift, back)[0, 1] < -0.9


def test_bias_correction_moves_the_median_to_the_fit():
    """Fails when the correction has the wrong sign, or is made for a wild bootstrap or at an edge."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 7), np.geomspace(1e9, 1e11, 6)))
    loss = laws.CHINCHILLA.loss(LARGE, n, d) * np.exp(0.005 * np.random.default_rng(4).standard_normal(len(n)))
    boot = intervals.bootstrap(fit.fit(load.table(n, d, loss)), 300)
    values = boot.params["alpha"]
    for quantile in (0.35, 0.5, 0.6):
        point = float(np.quantile(values, quantile))
        assert np.median(boot.unbiased(values, point)) == pytest.approx(
            np.quantile(values, 2 * quantile - 0.5), abs=0.15 * values.std()
        )
        wild = dataclasses.replace(boot, kind="wild")
        assert wild.interval(values, 0.9, point) == wild.interval(values, 0.9)
    plain = boot.unbiased(values, float(np.median(values)))
    assert np.allclose(np.quantile(plain, [0.1, 0.9]), np.quantile(values, [0.1, 0.9]), atol=0.05 * values.std())
