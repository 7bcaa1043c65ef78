"""Laws against numeric minimisation and published allocations."""

import numpy as np
import pytest
from scipy import optimize

from analysis import laws

PARAMS = {"E": 1.8172181, "A": 477.8259, "B": 2143.4174, "alpha": 0.3473105, "beta": 0.3671724}


def test_design_gives_the_loss():
    """Fails when a slot or a sign of the design matrix is wrong, for a law with a shared exponent too."""
    tied = laws.Law("tied", (laws.Term("E"), laws.Term("A", "N", "alpha"), laws.Term("B", "D", "alpha")))
    n, d = np.array([1e8, 3e9]), np.array([2e10, 5e9])
    for law in (laws.CHINCHILLA, tied):
        theta = np.array([np.log(PARAMS[c]) for c in law.coefficients] + [PARAMS[e] for e in law.exponents])
        u = law.design(np.log(n), np.log(d)) @ theta
        assert np.allclose(np.exp(u).sum(-1), law.loss(PARAMS, n, d), rtol=1e-13)
    assert tied.parameters == ("E", "A", "B", "alpha")
    assert laws.CHINCHILLA.latex == r"L(N, D) = E + A\,N^{-\alpha} + B\,D^{-\beta}"


@pytest.mark.parametrize("cost", [laws.Cost(), laws.Cost(9.5, 0.9)])
def test_optimum_is_the_numeric_minimum(cost):
    """Fails when the closed form forgets k or g, or swaps alpha and beta."""
    n, d, loss = laws.optimum(PARAMS, 1e21, cost)

    def along(log_n):
        size = np.exp(log_n)
        return float(laws.CHINCHILLA.loss(PARAMS, size, 1e21 / (cost.k * size**cost.g)))

    found = optimize.minimize_scalar(along, bounds=(np.log(1e6), np.log(1e13)), method="bounded", options={"xatol": 1e-10})
    assert np.isclose(np.log(n), found.x, atol=1e-4)
    assert np.isclose(loss, found.fun, rtol=1e-12)
    assert np.isclose(cost.flops(n, d), 1e21, rtol=1e-12)


def test_published_allocation():
    """Fails when the optimum leaves the published one (72.4 to 73.2 B parameters at Chinchilla's own budget)."""
    n, d, loss = laws.optimum(PARAMS, 5.76e23)
    assert np.allclose([n, d, loss], [73.19e9, 1.312e12, 1.97391], rtol=1e-3)
    assert np.isclose(laws.allocation_exponent(PARAMS), 0.5139, atol=1e-4)


def test_measured_cost_recovers_its_form():
    """Fails when the slope of FLOPs per token over N is lost, or 6ND does not come back exactly as 6ND."""
    n, d = np.array([5e4, 1e5, 2e5]), np.array([1e6, 3e6, 2e6])
    assert laws.measured_cost(n, d, 6 * n * d) == laws.Cost(pytest.approx(6.0), 1.0)
    cost = laws.measured_cost(n, d, 9.5 * n**0.9 * d)
    assert np.allclose([cost.k, cost.g], [9.5, 0.9], rtol=1e-10)
    assert laws.measured_cost([7.0, 7.0], [1.0, 2.0], [70.0, 140.0]).k == pytest.approx(10.0)
