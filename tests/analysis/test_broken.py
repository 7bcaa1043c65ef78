"""Broken power laws: known parameters, a published fit, and sharp breaks without overflow."""

import csv

import numpy as np
import pytest

from analysis.fit import Rows, fit_rows
from analysis.laws import broken_power

TRUTH = {"a": 0.4, "b": 30.0, "c0": 0.2, "c1": 0.5, "d1": 2e3, "f1": 0.3, "c2": -0.4, "d2": 3e5, "f2": 0.5}


def test_it_is_the_published_product():
    """Fails when a softplus, a width or a sign departs from the paper's product."""
    x = np.geomspace(10, 1e7, 50)
    product = TRUTH["a"] + TRUTH["b"] * x ** -TRUTH["c0"] * np.prod(
        [(1 + (x / TRUTH[f"d{i}"]) ** (1 / TRUTH[f"f{i}"])) ** (-TRUTH[f"c{i}"] * TRUTH[f"f{i}"]) for i in (1, 2)], axis=0
    )
    assert np.allclose(broken_power(2).loss(TRUTH, N=x), product, rtol=1e-12)
    assert broken_power(1, "D").latex == r"y = a + b\,D^{-c_0}\left(1 + (D/d_1)^{1/f_1}\right)^{-c_1 f_1}"


def test_a_sharp_break_does_not_overflow():
    """Fails when (x / d)^(1 / f) is computed as such: 1e3^1000."""
    law = broken_power(1)
    params = {"a": 0.1, "b": 2.0, "c0": 0.1, "c1": 0.3, "d1": 1e3, "f1": 1e-3}
    x = np.array([1e2, 1e6])
    assert np.allclose(law.loss(params, N=x), 0.1 + 2 * x**-0.1 * np.array([1, (1e6 / 1e3) ** -0.3]), rtol=1e-10)


@pytest.mark.parametrize("breaks", [0, 1])
def test_known_parameters_come_back(breaks):
    """Fails when no start leads to the truth, or a guess is in other units than the law."""
    law = broken_power(breaks, "D")
    truth = {name: TRUTH[name] for name in law.parameters}
    x = np.geomspace(30, 1e6, 40)
    found = fit_rows(Rows.of({"D": x}, law.loss(truth, D=x)), law, loss="squared")
    assert found.params == pytest.approx(truth, rel=1e-5)
    with pytest.raises(ValueError, match="breaks=-1"):
        broken_power(-1)


def test_the_published_addition_set(data):
    """Fails when the fit, by squares of log(y + 1), leaves Caballero et al.'s 14 points or the three beyond."""
    with open(data / "bnsl_4digit_addition.csv", newline="") as f:
        lines = list(csv.DictReader(f))
    x, y = (np.array([float(line[k]) for line in lines]) for k in "xy")
    train = np.array([line["split"] == "train" for line in lines])
    found = fit_rows(Rows.of({"x": x[train]}, y[train]), broken_power(1, "x", shift=1.0), loss="squared")
    published = {"a": 0.4139, "b": 2.2773, "c0": 0.0551, "c1": 5.6629, "d1": 612.58, "f1": 0.0592}
    assert found.params == pytest.approx(published, rel=1e-3)
    assert found.objective == pytest.approx(1.13373e-6, rel=1e-4)
    assert found.certificate.agreeing >= 10
    off = np.log(found.at({"x": x})[0]) - np.log(y)  # of log y, as their RMSLE
    assert np.sqrt(np.mean(off[train] ** 2)) == pytest.approx(0.00060, abs=5e-6)
    assert np.sqrt(np.mean(off[~train] ** 2)) <= 0.011
