"""Noise from seeds: recovered where it is known, not invented where it is not, and weights that help."""

import dataclasses

import numpy as np
import pytest

from analysis import laws, load, noise

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
SD, AT = 0.004, 3.0  # standard deviation of log loss at this loss


def repeated(rng, cells: int, seeds: int, power: float, sd: float = SD, **fields) -> load.Table:
    """A table of ``cells`` sizes at 20 tokens per parameter, each with ``seeds`` seeds; noise sd (L / 3)^power."""
    rows = []
    for i, n in enumerate(np.geomspace(1e7, 1e10, cells)):
        loss = float(laws.CHINCHILLA.loss(TRUTH, n, 20 * n))
        for s in range(seeds):
            value = loss * np.exp(sd * (loss / AT) ** power * rng.standard_normal())
            rows.append(load.Row(f"{i}-{s}", str(i), n, 20 * n, 120 * n * n, value, cluster=f"{i}-{s}", seed=s, **fields))
    return load.Table("simulated", tuple(rows))


def change(table: load.Table, **columns) -> load.Table:
    """The table with columns replaced: a value for every row."""
    changes = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    rows = tuple(dataclasses.replace(row, **new) for row, new in zip(table.rows, changes, strict=True))
    return dataclasses.replace(table, rows=rows)


def test_pooled_variance():
    """Fails when degrees of freedom or the pooling differ from the textbook's, on cells of two, three and one rows."""
    losses = [3.0, 3.1, 2.5, 2.6, 2.55, 2.0]
    table = load.table([1e6, 1e6, 2e6, 2e6, 2e6 * (1 + 1e-9), 3e6], [1e8] * 6, losses)
    found = noise.estimate(table)
    assert found is not None and (found.degrees_of_freedom, found.cells, found.told_by_seed) == (3, 2, False)
    squares = sum(np.sum((x - x.mean()) ** 2) for x in (np.log(losses[:2]), np.log(losses[2:5])))
    assert found.sd == pytest.approx(np.sqrt(squares / 3), rel=1e-12)
    assert noise.estimate(load.table([1e6, 2e6], [1e8] * 2, [3.0, 2.0])) is None


def test_what_is_a_repeat():
    """Fails when rows that differ in more than their seeds are taken for repeats, or equal seeds for different ones."""
    table = repeated(np.random.default_rng(0), 4, 3, 0.0)
    assert noise.estimate(table).degrees_of_freedom == 8
    for name in ("unique_tokens", "lr", "batch_tokens"):  # of each cell, one row is of its own
        assert noise.estimate(change(table, **{name: [1e-3, 1e-3, 2e-3] * 4})).degrees_of_freedom == 4
    assert noise.estimate(change(table, seed=[0, 1, 1] * 4)) is None  # something else differs
    unknown = change(table, seed=[None] * 12)
    assert noise.estimate(unknown).degrees_of_freedom == 8 and "no seeds are given" in noise.estimate(unknown).words()
    assert noise.estimate(change(unknown, cluster=["a", "b", "b"] * 4)) is None  # branches of one trunk
    assert noise.estimate(change(table, excluded=["diverged"] * 6 + [None] * 6)).degrees_of_freedom == 4


def test_trend_is_recovered():
    """Fails when s0 or g of sd = s0 (L / 3)^g are biased, or the standard error is not that of the estimates."""
    rng = np.random.default_rng(1)
    found = [noise.estimate(repeated(rng, 25, 4, 3.0)) for _ in range(60)]
    power, sd = np.array([f.power for f in found]), np.array([float(f.at(np.array(AT))) for f in found])
    assert power.mean() == pytest.approx(3.0, abs=0.15) and sd.mean() == pytest.approx(SD, rel=0.03)
    assert np.mean([f.power_error for f in found]) == pytest.approx(power.std(), rel=0.3)
    ends = found[0].at(np.array([1.0, found[0].span[0], found[0].span[1], 50.0]))
    assert ends[0] == ends[1] < ends[2] == ends[3]  # not carried on beyond the cells


def test_no_trend_is_invented():
    """Fails when more than about one in twenty tables of even noise gets a trend, or it counts with too few repeats."""
    rng = np.random.default_rng(2)
    trends = [noise.estimate(repeated(rng, 12, 3, 0.0)).power != 0 for _ in range(200)]
    assert np.mean(trends) <= 0.09  # 95 % of binomial(200, 0.05) are below
    assert all(noise.estimate(repeated(rng, 9, 2, 4.0)).power == 0 for _ in range(20))  # 9 degrees of freedom


def test_weights():
    """Fails when weights do not follow the known variance, are not of mean 1, or come from nothing."""
    table = repeated(np.random.default_rng(3), 30, 5, 4.0)
    weights, words = noise.weights(table)
    right = table.column("loss") ** -8.0
    assert weights.mean() == pytest.approx(1) and np.corrcoef(np.log(weights), np.log(right))[0, 1] > 0.999
    assert np.polyfit(np.log(right), np.log(weights), 1)[0] == pytest.approx(1, abs=0.15) and "growing as L^" in words
    for plain, said in (
        (repeated(np.random.default_rng(3), 30, 5, 0.0), "without a trend"),
        (repeated(np.random.default_rng(3), 30, 1, 0.0), "no run is repeated"),
        (repeated(np.random.default_rng(3), 30, 5, 4.0, sd=0.2), "more than seeds do"),
        (change(table, loss=[3.0] * 150), "scatter by 0 %"),
    ):
        even, words = noise.weights(plain)
        assert (even == 1).all() and len(even) == len(plain.fitted) and said in words, words


def test_standard_errors():
    """Fails when errors of a CSV give no weights, a tiny one rules the fit, or those of one sweep's runs are noise."""
    table = repeated(np.random.default_rng(4), 5, 1, 0.0)
    errors = [0.01 * r.loss for r in table.rows[:3]] + [1e-9, None]
    weights, words = noise.weights(change(table, loss_stderr=errors))
    np.testing.assert_allclose(weights / weights[0], [1, 1, 1, 2, 1], rtol=1e-6)
    assert "standard errors" in words
    assert (noise.weights(change(table, loss_stderr=[0.01] + [None] * 4))[0] == 1).all()
    assert (noise.weights(dataclasses.replace(change(table, loss_stderr=errors), kind="runs"))[0] == 1).all()
    both = repeated(np.random.default_rng(4), 10, 3, 0.0)
    weights, words = noise.weights(
        change(both, loss_stderr=[r.loss * (0.1 if i == 7 else 1e-4) for i, r in enumerate(both.rows)])
    )
    assert "and the scatter of seeds" in words
    assert weights[7] / weights[0] == pytest.approx((noise.estimate(both).sd / 0.1) ** 2)


def test_weights_sharpen_a_fit():
    """Fails when a weighted fit of uneven noise is not closer to the truth: the slope of log L on log C, variance halved."""
    rng = np.random.default_rng(5)
    even, weighted = [], []
    x = np.repeat(np.linspace(-1, 1, 15), 3)
    for _ in range(150):
        loss = np.exp(1.0 - 0.4 * x)
        loss *= np.exp(SD * (loss / AT) ** 4 * rng.standard_normal(45))
        table = load.table(np.exp(x) * 1e8, np.exp(x) * 2e9, loss)
        weights, _ = noise.weights(table)
        even.append(np.polyfit(x, np.log(loss), 1)[0])
        weighted.append(np.polyfit(x, np.log(loss), 1, w=np.sqrt(weights))[0])
    assert np.mean(weighted) == pytest.approx(-0.4, abs=4 * np.std(weighted) / np.sqrt(150))
    assert np.var(weighted) < 0.5 * np.var(even)


def test_datablations_has_no_seeds(data):
    """Fails when rows that differ in their unique tokens are taken for seeds: of 30 repeated cells none is one."""
    table = load.csv(data / "datablations_fit182.csv")
    assert noise.estimate(table) is None and np.isfinite(table.column("unique_tokens")).all()
    without = change(table, unique_tokens=[None] * 182)
    assert noise.estimate(without).cells == 30 and "more than seeds do" in noise.weights(without)[1]
