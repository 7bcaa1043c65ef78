"""Calibrated bands: what they cover when the form is wrong, what they cost when it is right, and where they refuse."""

import json

import numpy as np
import pytest
import synthetic

from analysis import backtest, calibrate, fit, intervals, laws, load

TRUTH = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}
DRAWS = 60


def isoflop(rng, k=1.0, noise=0.002):
    """Nine budgets with nine sizes each, from a separable law (k = 1) or a coupled one."""
    c = np.repeat(np.geomspace(6e18, 3e21, 9), 9)
    n = np.sqrt(c / 120) * np.tile(np.geomspace(0.25, 4, 9), 9)
    d = c / (6 * n)
    exact = laws.COUPLED.loss(TRUTH | {"k": k}, n, d)
    return load.table(n, d, exact * np.exp(noise * rng.standard_normal(len(n))))


def bands(table):
    """Coverage of the top decade by the plain and the calibrated band, and the calibration."""
    cut = table.column("flops").max() / 10
    train, test = table.where(lambda r: r.flops < cut), table.where(lambda r: r.flops >= cut)
    boot = intervals.bootstrap(fit.fit(train, delta=1e-2), DRAWS)
    calibration = calibrate.calibrate(boot, draws=DRAWS)
    hits = []
    for r in test.rows:
        p = intervals.predict(boot, r.n_params, r.n_tokens, r.flops)
        lo, hi = calibration.interval(p)
        assert lo <= p.interval[0] < p.interval[1] <= hi
        hits.append((p.interval[0] <= r.loss <= p.interval[1], lo <= r.loss <= hi))
    return (*np.mean(hits, axis=0), calibration)


def test_a_wrong_form_is_covered():
    """Fails when bands are not widened by what was missed inside the training range: plain ones hold a third of these rows."""
    found = [bands(isoflop(np.random.default_rng(seed), k=0.5)) for seed in range(4)]
    plain, widened = np.mean([f[:2] for f in found], axis=0)
    assert plain < 0.6
    assert widened >= 0.85
    assert all(f[2].widening(1.0) > 1.2 for f in found)


def test_a_right_form_costs_little():
    """Fails when bands are widened whatever the back-test says."""
    found = [bands(isoflop(np.random.default_rng(seed))) for seed in range(4)]
    assert np.mean([f[1] for f in found]) >= 0.88
    assert np.median([f[2].widening(1.0) for f in found]) <= 1.3
    assert np.median([f[2].widening(10.0) for f in found]) <= 2.0


def made(reach, distance, origin, half=0.01):
    """A back-test with a given reach of every prediction."""
    reach, distance = np.asarray(reach, float), np.asarray(distance, float)
    nothing = np.zeros(len(reach))
    mask = np.ones(1, bool)
    origins = tuple(backtest.Origin("", mask, mask) for _ in set(origin))
    half = np.full(len(reach), half)
    args = (np.array(origin), np.zeros(len(reach), int), distance, nothing, reach * half, nothing, half)
    return backtest.BackTest(laws.CHINCHILLA, "expanding", 0.9, origins, *args)


def test_factor():
    """Fails when rows count and not origins, Student's t is left out, or the growth with distance is not taken out."""
    from scipy import stats

    t = stats.t.ppf(0.95, 2)
    assert calibrate.factor(made([1.0] * 9 + [2.0], [0.0] * 10, [0] * 9 + [1]), 0.0) == pytest.approx(t * np.sqrt((1 + 4) / 2))
    far = made([1.0, 2.0], [np.e - 1, np.e - 1], [0, 1])
    assert calibrate.factor(far, 0.0) == pytest.approx(t * np.sqrt(2.5) * np.exp(-calibrate.GROWTH))
    # A band of no width is held against the scatter of single runs: a miss by one such half-width is a reach of 1.
    assert calibrate.factor(made([1e9] * 2, [0.0] * 2, [0, 1], half=1e-12), 1e-3) == pytest.approx(t, rel=1e-6)


def test_widening():
    """Fails when the band is not widened about its middle in log loss, grows nearer than the rows, or shrinks."""
    calibration = calibrate.Calibration(0.9, 1.5, made([1.0], [0.0], [0]), ())
    lo, hi = calibration.widen(2.0, 2.2, 1.0)
    assert np.log(hi / lo) == pytest.approx(1.5 * np.log(2.2 / 2.0)) and lo * hi == pytest.approx(2.0 * 2.2)
    assert calibration.widening(0.01) == calibration.widening(1.0) == 1.5
    assert calibration.widening(10.0) == pytest.approx(1.5 * (1 + np.log(10)) ** calibrate.GROWTH)
    assert calibrate.Calibration(0.9, 0.3, calibration.test, ()).widening(1.0) == 1.0


def test_default_ladder():
    """Fails when 15 or 18 rows of five or six trunks cannot be calibrated, or few origins are passed over in silence."""
    rng = np.random.default_rng(3)
    for sizes, origins in ((5, 2), (6, 3)):
        n = np.repeat(np.array(synthetic.SIZES[:sizes], float), 3)
        d = n * np.tile([10.0, 20.0, 40.0], sizes)
        loss = laws.CHINCHILLA.loss(synthetic.TRUTH, n, d) * np.exp(0.003 * rng.standard_normal(len(n)))
        boot = intervals.bootstrap(fit.fit(load.table(n, d, loss, [str(v) for v in n]), delta=1e-2), DRAWS)
        calibration = calibrate.calibrate(boot, draws=DRAWS)
        assert len(calibration.test.origins) == origins and 1 <= calibration.widening(1.5) < 6
        assert f"calibrated on {origins} origins only" in calibration.cautions[0]
        content = json.loads(json.dumps(calibration.to_dict()))
        assert content["back_test"]["predictions"] == len(calibration.test)
        assert f"widened {calibration.widening(1.0):.2f} times" in " ".join(calibration.words())


def test_too_few_rows():
    """Fails when a table without a back-test is refused, or its plain band is passed off as calibrated."""
    n = np.repeat([1e7, 3e7, 9e7], 3)
    d = n * np.tile([10.0, 20.0, 40.0], 3)
    loss = laws.CHINCHILLA.loss(TRUTH, n, d) * np.exp(0.003 * np.random.default_rng(0).standard_normal(9))
    boot = intervals.bootstrap(fit.fit(load.table(n, d, loss, [str(v) for v in n])), DRAWS)
    calibration = calibrate.calibrate(boot)
    p = intervals.predict(boot, 2e8, 4e9)
    assert calibration.interval(p) == pytest.approx(p.interval)
    assert "not calibrated" in calibration.words()[0] and calibration.to_dict()["back_test"] is None
    with pytest.raises(ValueError, match=r"level 0\.5 cannot be widened by a calibration at 0\.9"):
        calibration.interval(intervals.predict(boot, 2e8, 4e9, level=0.5))
