"""Back-tests: what may take part in a prediction, where the origins lie, and what is said of it."""

import dataclasses
import json

import numpy as np
import pytest
import synthetic

from analysis import backtest, fit, laws, load

TRUTH = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}


def ladder(sizes=5, noise=0.002, seed=0):
    """Trunks of one size with three branches each."""
    n = np.repeat(np.array(synthetic.SIZES[:sizes], float), 3)
    d = n * np.tile([10.0, 20.0, 40.0], sizes)
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return load.table(n, d, laws.CHINCHILLA.loss(synthetic.TRUTH, n, d) * scatter, [f"trunk {v:g}" for v in n])


def grid(noise=0.002, seed=0, run=False):
    """A grid of sizes and six token counts: 60 runs, or the checkpoints of 14."""
    n, d = (
        v.ravel() for v in np.meshgrid(np.geomspace(2e7, 2e9, 14 if run else 10), np.geomspace(1e9, 1e11, 6), indexing="ij")
    )
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    clusters = [f"run {v:g}" for v in n] if run else None
    return load.table(n, d, laws.CHINCHILLA.loss(TRUTH, n, d) * scatter, clusters)


def with_losses(table, losses):
    rows = tuple(dataclasses.replace(r, loss=float(v)) for r, v in zip(table.rows, losses, strict=True))
    return dataclasses.replace(table, rows=rows)


def test_rows_beyond_take_no_part():
    """Fails when a row beyond an origin is fitted: absurd losses beyond the last origin would move its predictions."""
    table = grid()
    last = backtest.origins(table)[-1]
    test = backtest.expanding(table, splits=[last])
    losses = np.where(last.beyond, 77.0, table.column("loss"))
    again = backtest.expanding(with_losses(table, losses), splits=[last])
    np.testing.assert_array_equal(again.predicted, test.predicted)
    assert again.mean_error > 3 > 0.01 > test.mean_error
    assert again.bias == pytest.approx(again.mean_error)  # measured above predicted


def test_exact_rows_are_predicted_exactly():
    """Fails when predictions, rows or distances are paired wrongly."""
    table = grid(noise=0.0)
    test = backtest.expanding(table)
    assert test.mean_error < 1e-6
    c = table.column("flops")
    for o, origin in enumerate(test.origins):
        mine = test.origin == o
        assert set(test.row[mine]) == set(np.flatnonzero(origin.beyond))
        np.testing.assert_allclose(test.distance[mine], np.log(c[test.row[mine]] / c[origin.below].max()))
    below = [int(o.below.sum()) for o in test.origins]
    assert below == [24, 33, 42, 51]  # 40, 55, 70 and 85 % of 60


def test_a_run_is_predicted_without_itself():
    """Fails when checkpoints of a run help to predict its later ones: here one run lies 5 % above all others."""
    table = grid(run=True)
    odd = table.rows[30].cluster  # rows 30 to 35
    losses = [r.loss * (1.05 if r.cluster == odd else 1.0) for r in table.rows]
    table = with_losses(table, losses)
    test = backtest.expanding(table, delta=1e-2)
    o = next(i for i, origin in enumerate(test.origins) if 0 < sum(origin.below[30:36]) < 6)
    below = table.where(lambda r: r.flops <= table.column("flops")[test.origins[o].below].max())
    others = fit.fit(below.where(lambda r: r.cluster != odd), delta=1e-2)
    mine = [i for i in range(len(test)) if test.origin[i] == o and table.rows[test.row[i]].cluster == odd]
    assert mine and any(r.cluster == odd for r in below.rows)
    for i in mine:
        r = table.rows[test.row[i]]
        assert test.predicted[i] == pytest.approx(np.log(others.expected(r.n_params, r.n_tokens)[0]), abs=1e-8)


def test_a_ladder_is_split_by_size():
    """Fails when trunks are torn apart, or the default ladder has no back-test."""
    table = ladder()
    found = backtest.origins(table)
    assert [o.words for o in found] == ["up to 100K parameters", "up to 130K parameters"]
    assert [(int(o.below.sum()), int(o.beyond.sum())) for o in found] == [(9, 6), (12, 3)]
    test = backtest.expanding(table, delta=1e-2, draws=60)
    assert len(test) == 9 and test.mean_error < 0.02 and test.coverage >= 0.5
    top = backtest.leave_largest_out(table, delta=1e-2, draws=60)
    assert top.kind == "largest" and {table.rows[i].n_params for i in top.row} == {160_000.0} and len(top) == 3
    assert "the largest size left out: 3 predictions" in top.words() and "90 % bands hold" in top.words()


def test_bands_hold_white_noise():
    """Fails when bands leave out the scatter of single runs (they would hold a third), or are centred on something else."""
    tests = [backtest.expanding(grid(seed=s), delta=1e-2, draws=80) for s in range(4)]
    assert 0.75 <= np.mean([t.coverage for t in tests]) <= 0.99
    assert all(np.abs(t.middle - t.predicted).max() < t.half.max() for t in tests)


def test_numbers_are_those_of_the_rows():
    """Fails when the summary or the JSON disagree with the predictions."""
    table = grid()
    test = backtest.expanding(table, draws=40)
    content = json.loads(json.dumps(test.to_dict(table)))
    by_id = {r.id: r for r in table.rows}
    errors = [np.log(p["measured"] / p["predicted"]) for p in content["predictions"]]
    assert content["mean_abs_log_error"] == pytest.approx(np.abs(errors).mean())
    inside = [p["lower"] <= p["measured"] <= p["upper"] for p in content["predictions"]]
    assert content["coverage"] == pytest.approx(np.mean(inside))
    assert all(p["measured"] == pytest.approx(by_id[p["id"]].loss) for p in content["predictions"])
    assert backtest.expanding(table).to_dict(table)["coverage"] is None


def test_too_few_rows():
    """Fails when a back-test is made of nothing, or the refusal does not say what is missing."""
    with pytest.raises(fit.FitError, match=r"9 rows of 3 sizes are too few for a back-test.* 8 rows with 3 sizes"):
        backtest.expanding(ladder(3))
    one_size = load.table([1e8] * 12, np.geomspace(1e9, 1e11, 12), np.linspace(4, 3, 12))
    with pytest.raises(fit.FitError, match="too few"):
        backtest.leave_largest_out(one_size)
