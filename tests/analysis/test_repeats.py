"""Repeated data: published law values, the objective of the published fit, and what it does not identify."""

import csv

import numpy as np
import pytest

from analysis import intervals, laws
from analysis.fit import Fit, Rows, fit_rows
from analysis.laws import MUENNIGHOFF, REPEATS

FIVE = {name: MUENNIGHOFF[name] for name in ("E", "A", "B", "alpha", "beta")}
TWO = REPEATS.freeze(FIVE)


@pytest.fixture(scope="module")
def rows(data) -> Rows:
    """The 182 runs that Muennighoff et al. fitted."""
    with open(data / "datablations_fit182.csv", newline="") as f:
        lines = list(csv.DictReader(f))
    columns = {v: [float(line[v]) for line in lines] for v in "NDU"}
    return Rows.of(columns, [float(line["loss"]) for line in lines])


@pytest.fixture(scope="module")
def refit(rows) -> Fit:
    """R_D* and R_N* with the other five held, as published."""
    return fit_rows(rows, TWO, 1e-3, bumps=48)


def huber(residuals: np.ndarray, delta: float = 1e-3) -> float:
    size = np.abs(residuals)
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum())


@pytest.mark.parametrize(
    ("n", "d", "u", "loss"), [(6.34e9, 242e9, 25e9, 2.2256440889984477), (8.67e9, 178e9, 25e9, 2.2269634075087867)]
)
def test_published_values(n, d, u, loss):
    """Fails when the worth of a repeated token or of an excess parameter, or N*(U), is another one (both runs exceed it)."""
    assert REPEATS.loss(MUENNIGHOFF, N=n, D=d, U=u) == pytest.approx(loss, rel=1e-12)


def test_without_repeats_it_is_chinchilla():
    """Fails when U = D does not give D' = D, or a model below N*(U) is discounted."""
    n, d = np.array([1e8, 1e9]), np.array([1e11, 3e10])
    plain = laws.CHINCHILLA.loss(MUENNIGHOFF, n, d)
    assert np.allclose(REPEATS.loss(MUENNIGHOFF, N=n, D=d, U=d), plain, rtol=1e-13)
    assert np.allclose(REPEATS.loss(MUENNIGHOFF, N=n, D=d, U=2 * d), plain, rtol=1e-13)


def test_limits_of_repetition():
    """Fails when a token never loses worth at R* → 0, does at R* → infinity, or rounds to nothing there (no expm1)."""
    d, u = 40e9, 10e9
    for scale, worth in ((1e-6, u), (1e14, d), (3.0, u * (1 + 3 * (1 - np.exp(-1))))):
        assert laws.effective_tokens({"RD": scale}, d, u) == pytest.approx(worth, rel=1e-5)
    epochs = laws.epochs_until(MUENNIGHOFF, 0.25)
    assert laws.worth_of_next(MUENNIGHOFF, epochs) == pytest.approx(0.25)
    step = 1e-4  # the worth of the next token is the slope of D'
    ends = laws.effective_tokens(MUENNIGHOFF, np.array([epochs - step, epochs + step]) * u, u)
    assert np.diff(ends)[0] / (2 * step * u) == pytest.approx(0.25, rel=1e-6)
    assert laws.worth_of_next(MUENNIGHOFF, 1.0) == 1.0


def test_derivatives_are_those_of_the_law(rows):
    """Fails when a comparison looks at the imaginary part of a complex step, or a lifted function has a wrong slope."""
    theta = np.array([[*np.log([MUENNIGHOFF[k] for k in "EAB"]), 0.34, 0.37, np.log(15.0), np.log(5.0)]])
    model = REPEATS.bind(rows.columns, {})
    exact = model.derivatives(theta).jacobian[0]
    for j in range(7):
        step = 1e-6 * np.eye(7)[j]
        numeric = (model.log_loss(theta + step) - model.log_loss(theta - step))[0] / 2e-6
        assert np.allclose(exact[j], numeric, atol=1e-8)


def test_the_published_fit_is_no_global_optimum(rows, refit):
    """Fails when the objective at the published pair is not the published one, or ours does not reach the lowest known."""
    published = np.log(rows.measured / REPEATS.loss(MUENNIGHOFF, **rows.columns))
    assert huber(published) == pytest.approx(0.0158259353, rel=1e-8)
    assert refit.objective <= 0.0158047 * (1 + 1e-5)
    assert refit.params["RD"] == pytest.approx(95.4, rel=0.02) and refit.params["RN"] == pytest.approx(1.706, rel=0.02)
    assert huber(refit.residuals) == pytest.approx(refit.objective, rel=1e-12)


def test_the_profile_is_flat(rows):
    """Fails when freezing a parameter changes another one's place, or the fit over the rest is not the least."""
    for rd, objective in ((5, 0.016160), (10, 0.015910), (30, 0.015821), (200, 0.015816), (1e5, 0.015923)):
        held = fit_rows(rows, TWO.freeze({"RD": float(rd)}), 1e-3, bumps=12)
        assert tuple(held.params) == ("RN",)
        assert held.objective <= objective * (1 + 5e-5)
    with pytest.raises(ValueError, match=r"has no parameter gamma; it has E, A"):
        REPEATS.freeze({"gamma": 1.0})


def test_nothing_of_repetition_is_identified(refit):
    """Fails when an interval over eleven decades passes as a value: bootstrap 95 % of R_D* is [6.6, 4e9] in the literature."""
    ranges = intervals.bootstrap(refit, 60).intervals(0.95)
    reasons = laws.not_identified(TWO, ranges)
    assert "RD may lie anywhere from" in reasons["RD"] and "factor of 10" in reasons["RD"]
    assert ranges["RD"][0] < 15.387756 < ranges["RD"][1] and ranges["RD"][1] > 1e6
    assert laws.not_identified(TWO, {"RD": (10.0, 20.0), "RN": (1.0, 9.0)}) == {}


def test_all_seven_together(rows):
    """Fails when starts of the joint fit miss the basin of the lowest known objective, where R_N* runs to infinity."""
    found = fit_rows(rows, REPEATS, 1e-3)
    assert found.objective <= 0.006566 * (1 + 1e-4)
    assert found.params["RD"] == pytest.approx(25.2, rel=0.01) and found.params["RN"] > 1e3
