"""What the commands share: the law that is chosen or named, and both bands of a prediction."""

import dataclasses

import numpy as np
import pytest
import synthetic

from analysis import laws, load
from analysis.estimate import Settings, estimate


def grid(noise: float, seeds: int = 1) -> load.Table:
    """The tests' law over sizes and token counts, each cell with ``seeds`` runs."""
    n, d = (v.ravel().repeat(seeds) for v in np.meshgrid(np.geomspace(5e4, 2e6, 6), np.geomspace(5e5, 2e7, 5)))
    scatter = np.exp(noise * np.random.default_rng(1).standard_normal(len(n)))
    return load.table(n, d, laws.CHINCHILLA.loss(synthetic.TRUTH, n, d) * scatter)


def test_the_law_is_chosen_or_named():
    """Fails when --law is not followed, or the Chinchilla form is not kept beside another."""
    table = grid(0.002)
    chosen = estimate(table, Settings(draws=100))
    assert chosen.choice is not None and chosen.boot.fit.law is chosen.choice.law
    named = estimate(table, Settings(law="tied", draws=100))
    assert named.choice is None and named.boot.fit.law is laws.TIED
    assert named.chinchilla is not None and named.chinchilla.fit.law is laws.CHINCHILLA
    assert estimate(table, Settings(law="chinchilla", draws=100)).chinchilla.fit.params["alpha"] == pytest.approx(
        0.66, abs=0.03
    )


def test_without_rows_for_the_chinchilla_form_there_is_none():
    """Fails when rows of one size, which can carry L(D), end in an error because the Chinchilla form cannot be fitted."""
    table = grid(0.002)
    one = table.where(lambda r: r.n_params == table.sizes()[0])
    found = estimate(dataclasses.replace(one), Settings(law="data", draws=100))
    assert found.chinchilla is None and found.boot.fit.law is laws.DATA


def test_a_prediction_has_both_bands():
    """Fails when the calibrated band is narrower than the plain one, or the JSON calls the plain one the interval."""
    found = estimate(grid(0.004), Settings(law="chinchilla", draws=200))
    forecast = found.predict(1e7, 1e8)
    lo, hi = forecast.plain.interval
    low, high = forecast.calibrated
    assert low <= lo < forecast.plain.loss < hi <= high
    told = forecast.to_dict()
    assert told["interval"] == [low, high] and told["plain_interval"] == [lo, hi] and told["all_forms"] is None
    assert estimate(grid(0.004), Settings(draws=100)).predict(1e7, 1e8).blend == pytest.approx(forecast.plain.loss, rel=0.03)


def test_weights_come_from_seeds():
    """Fails when --weighted changes nothing where seeds tell that noise grows with the loss."""
    table = grid(0.0, seeds=3)
    rng = np.random.default_rng(2)
    rows = tuple(
        dataclasses.replace(r, seed=i % 3, loss=float(r.loss * np.exp(0.004 * (r.loss / 2) ** 4 * rng.standard_normal())))
        for i, r in enumerate(table.rows)
    )
    noisy = dataclasses.replace(table, rows=rows)
    weighted = estimate(noisy, Settings(law="chinchilla", weighted=True, draws=100))
    assert weighted.weights and np.ptp(weighted.boot.fit.rows.weights) > 0.5
    assert np.ptp(estimate(noisy, Settings(law="chinchilla", draws=100)).boot.fit.rows.weights) == 0


def test_the_floor_is_quoted_over_all_forms():
    """Fails when E comes with the interval of the chosen form alone: other forms that fit regularly allow other floors."""
    found = estimate(grid(0.002), Settings(draws=100))
    assert set(found.floors) <= set(laws.SURFACES) and len(found.floors) >= 2
    assert found.floor == (
        min(f.interval[0] for f in found.floors.values()),
        max(f.interval[1] for f in found.floors.values()),
    )
    assert found.floor[0] <= synthetic.TRUTH["E"] <= found.floor[1]
    assert estimate(grid(0.002), Settings(law="tied", draws=100)).floor is None
