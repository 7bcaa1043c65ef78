"""Laws against numeric minimisation and published allocations."""

import numpy as np
import pytest
from scipy import optimize

from analysis import laws

PARAMS = {"E": 1.8172181, "A": 477.8259, "B": 2143.4174, "alpha": 0.3473105, "beta": 0.3671724}


def test_design_gives_the_loss():
    """Fails when a slot or a sign of the design matrix is wrong, for a law with a shared exponent too."""
    tied = laws.constant("E") + laws.power("A", "N", "alpha") + laws.power("B", "D", "alpha")
    n, d = np.array([1e8, 3e9]), np.array([2e10, 5e9])
    for law in (laws.CHINCHILLA, tied):
        theta = np.array([np.log(PARAMS[c]) for c in law.coefficients] + [PARAMS[e] for e in law.exponents])
        u = law.design({"N": np.log(n), "D": np.log(d)}) @ theta
        assert np.allclose(np.exp(u).sum(-1), law.loss(PARAMS, n, d), rtol=1e-13)
    assert tied.parameters == ("E", "A", "B", "alpha")
    assert laws.CHINCHILLA.latex == r"L(N, D) = E + A\,N^{-\alpha} + B\,D^{-\beta}"


@pytest.mark.parametrize("law", laws.SURFACES.values(), ids=lambda v: v.name)
@pytest.mark.parametrize("cost", [laws.Cost(), laws.Cost(9.5, 0.9)])
def test_optimum_is_the_numeric_minimum(cost, law):
    """Fails when the closed form forgets k, g or the coupling, or swaps alpha and beta."""
    params = PARAMS | {"k": 0.6}
    n, d, loss = laws.optimum(params, 1e21, cost, law)

    def along(log_n):
        size = np.exp(log_n)
        return float(law.loss(params, size, 1e21 / (cost.k * size**cost.g)))

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


@pytest.mark.parametrize("law", laws.SURFACES.values(), ids=lambda v: v.name)
def test_over_training_reaches_the_same_loss(law):
    """Fails when tokens_for does not invert the law, or the extra cost is not that of the tokens."""
    params, cost = PARAMS | {"k": 0.6}, laws.Cost(9.5, 0.9)
    n_best, d_best, loss = laws.optimum(params, 1e21, cost, law)
    assert np.isclose(laws.tokens_for(params, n_best, loss, law), d_best, rtol=1e-9)
    small = laws.over_training(params, 1e21, 0.5, cost, law)
    assert np.isclose(law.loss(params, small.n_params, small.n_tokens), loss, rtol=1e-10)
    assert small.n_params == pytest.approx(n_best / 2) and small.extra == pytest.approx(small.flops / 1e21 - 1)
    assert small.extra > 0 and laws.over_training(params, 1e21, 1.0, cost, law).extra == pytest.approx(0, abs=1e-9)
    assert laws.tokens_for(params, n_best / 100, loss, law) == np.inf
    assert np.isclose(laws.needed_flops(params, loss, cost, law), 1e21, rtol=1e-8)
    assert laws.needed_flops(params, params["E"], cost, law) == np.inf


def test_kaplan_is_its_published_form():
    """Fails when the power mean with k = beta is not [(Nc/N)^(aN/aD) + Dc/D]^aD of Kaplan et al. 2020."""
    n_c, d_c, a_n, a_d = 8.8e13, 5.4e13, 0.076, 0.095
    n, d = np.array([1e6, 1e8, 1e10]), np.array([1e10, 3e9, 1e9])
    params = {"A": n_c**a_n, "B": d_c**a_d, "alpha": a_n, "beta": a_d}
    assert np.allclose(laws.KAPLAN_NO_FLOOR.loss(params, n, d), ((n_c / n) ** (a_n / a_d) + d_c / d) ** a_d, rtol=1e-12)
    assert laws.KAPLAN_NO_FLOOR.latex.endswith(r"\left((A\,N^{-\alpha})^{1/\beta} + (B\,D^{-\beta})^{1/\beta}\right)^{\beta}")
