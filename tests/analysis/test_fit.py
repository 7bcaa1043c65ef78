"""The fitter against published optima, scipy on the same objective, and tables made from a known law."""

import csv
import time

import numpy as np
import pytest
import synthetic
from scipy import optimize

from analysis import fit, laws, load, newton


def grid(params, sizes=(5e7, 1e8, 3e8, 1e9, 3e9), ratios=(5, 20, 80), noise=0.0, seed=0):
    n, r = (v.ravel() for v in np.meshgrid(sizes, ratios))
    d = n * r
    loss = laws.CHINCHILLA.loss(params, n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return load.table(n, d, loss)


def test_chinchilla_optimum(chinchilla):
    """Fails when the objective is a mean, when a start or Newton stops early, or when the outliers come back."""
    f = fit.fit(chinchilla)
    assert f.objective == pytest.approx(0.0010182740178006, rel=1e-9)
    for name, value in {"E": 1.8172181, "alpha": 0.3473105, "beta": 0.3671724}.items():
        assert f.params[name] == pytest.approx(value, abs=1e-5)
    assert f.params["A"] == pytest.approx(477.8259, rel=1e-5)
    assert f.params["B"] == pytest.approx(2143.4174, rel=1e-5)
    assert f.certificate.agreeing == f.certificate.starts == fit.STARTS
    assert f.certificate.gradient < 1e-8 and f.certificate.convex and not f.edges


def test_other_published_optima(data, chinchilla):
    """Fails when delta is not what the argument says, or rows are dropped in silence."""
    everything = fit.fit(load.csv(data / "chinchilla_epoch245.csv"))
    assert everything.objective == pytest.approx(0.00182601052307, rel=1e-8)
    assert everything.params["beta"] == pytest.approx(0.453049, abs=1e-4)
    wide = fit.fit(chinchilla, delta=1e-2).params
    assert [wide[k] for k in ("E", "alpha", "beta")] == pytest.approx([1.838079, 0.354416, 0.381538], abs=1e-5)
    squares = fit.fit(chinchilla, delta=1.0).params
    assert [squares[k] for k in ("E", "A", "B", "alpha", "beta")] == pytest.approx(
        [1.86455, 593.3221, 4875.638, 0.360253, 0.405883], rel=1e-4
    )


@pytest.mark.parametrize("name", ["hot", "cool_end", "hot_sampled_like_chinchilla"])
def test_gemstones_never_worse_than_published(data, name):
    """Fails when the search ends in a local minimum: these near-LAD objectives have several."""
    with open(data / "gemstones_approach3_reference.csv") as f:
        references = [r for r in csv.DictReader(f) if r["file"].endswith(f"_{name}") and r["no_embeds"] == "False"]
    references = [r for r in references if r["file"] == f"wandb_df_for_fitting_{name}"]
    table = load.csv(data / f"gemstones_{name}.csv")
    assert references
    for r in references:
        objective = fit.fit(table, delta=float(r["delta"])).objective
        assert objective <= float(r["pub_obj"]) * (1 + 1e-6)
        assert objective <= float(r["best_obj"]) * (1 + 1e-6)


@pytest.mark.parametrize(
    "params",
    [
        {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
        {"E": 2.0, "A": 300.0, "B": 3e4, "alpha": 0.35, "beta": 0.45},
        {"E": 0.9, "A": 9000.0, "B": 12000.0, "alpha": 0.66, "beta": 0.5},
    ],
)
@pytest.mark.parametrize("delta", [1e-3, 1e-2])
def test_noiseless_recovery(params, delta):
    """Fails when a tolerance is met before the parameters are right, B = 3e4 included."""
    found = fit.fit(grid(params), delta=delta).params
    assert found == {k: pytest.approx(v, rel=1e-6) for k, v in params.items()}


def test_scipy_finds_nothing_better():
    """Fails when our minimum of the same objective is beaten by L-BFGS-B from many starts."""
    table = grid({"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}, noise=0.01, seed=3)
    f = fit.fit(table)
    n, d, loss = (np.log(table.column(c)) for c in ("n_params", "n_tokens", "loss"))

    def objective(theta):
        e, a, b, alpha, beta = theta
        r = np.abs(np.logaddexp(np.logaddexp(e, a - alpha * (n - n.mean())), b - beta * (d - d.mean())) - loss)
        return 1e4 * np.sum(np.where(r <= 1e-3, r * r / 2, 1e-3 * (r - 5e-4)))

    rng = np.random.default_rng(0)
    best = min(
        optimize.minimize(objective, rng.uniform([-1, -3, -3, 0.1, 0.1], [1, 0, 0, 1, 1]), method="L-BFGS-B").fun
        for _ in range(15)
    )
    assert 1e4 * f.objective <= best * (1 + 1e-9)
    assert 1e4 * f.objective == pytest.approx(objective(f.theta), rel=1e-9)


@pytest.mark.parametrize(
    "law", [laws.CHINCHILLA, laws.TIED, laws.COUPLED, laws.KAPLAN, laws.KAPLAN_NO_FLOOR], ids=lambda v: v.name
)
def test_derivatives_match_finite_differences(law):
    """Fails when a first or second derivative of a form has a wrong term or sign."""
    rng = np.random.default_rng(1)
    columns = {v: np.exp(rng.normal(size=7)) for v in law.variables}
    model = law.bind(columns, dict.fromkeys(law.variables, 0.0))
    start = {"E": 0.1, "A": -0.4, "B": -0.9, "alpha": 0.4, "beta": 0.6, "k": 0.7}
    theta = np.array([[start[name] for name in law.parameters]])
    slope, steps = rng.normal(size=(1, 7)), 1e-6 * np.eye(model.n_parameters)
    at = model.derivatives(theta)
    natural = {k: v[0] for k, v in law.to_params(theta, dict.fromkeys(law.variables, 0.0)).items()}
    assert np.allclose(np.exp(at.predicted[0]), law.loss(natural, columns["N"], columns["D"]), rtol=1e-12)
    first = [(model.log_loss(theta + s) - model.log_loss(theta - s))[0] / 2e-6 for s in steps]
    assert np.allclose(at.jacobian[0], first, atol=1e-8)
    moved = [(model.derivatives(theta + s).jacobian - model.derivatives(theta - s).jacobian)[0] / 2e-6 for s in steps]
    assert np.allclose(at.hessian(0 * slope, slope)[0], [(m * slope).sum(-1) for m in moved], atol=1e-8)


def test_numeric_derivatives_match_closed_ones():
    """Fails when complex steps or their differences are off: a formula then descends to another minimum."""
    rng = np.random.default_rng(2)
    columns = {v: np.exp(rng.normal(size=9)) for v in "ND"}
    closed = laws.CHINCHILLA.bind(columns, {"N": 0.0, "D": 0.0})
    numeric = newton.Numeric(
        lambda t: np.log(
            np.exp(t[:, :1]) + np.exp(t[:, 1:2]) * columns["N"] ** -t[:, 3:4] + np.exp(t[:, 2:3]) * columns["D"] ** -t[:, 4:]
        ),
        5,
    )
    theta, slope = np.array([[0.1, -0.4, -0.9, 0.4, 0.6]]), rng.normal(size=(1, 9))
    one, other = closed.derivatives(theta), numeric.derivatives(theta)
    assert np.allclose(one.jacobian, other.jacobian, rtol=1e-12)
    weight = rng.normal(size=(1, 9))
    assert np.allclose(one.hessian(weight, slope), other.hessian(weight, slope), atol=1e-8)


def test_runaway_parameters_are_reported():
    """Fails when a bound hides that E runs to zero, or that an exponent has left the range of power laws."""
    n, d = np.meshgrid([1e7, 1e8, 1e9, 1e10], [1e9, 1e10, 1e11])
    n, d = n.ravel(), d.ravel()
    without = fit.fit(load.table(n, d, 9.0 * n**-0.1 + 30 * d**-0.2 - 0.3))
    assert any("E runs to zero" in e for e in without.edges) and without.params["E"] < 1e-6
    steep = fit.fit(load.table(n, d, 2.0 + (n / 1e7) ** -4 + 30 * d**-0.3))
    assert any(e.startswith("alpha") for e in steep.edges)


def test_too_few_rows_are_refused():
    """Fails when five rows 'fit' five parameters, or two sizes give an exponent."""
    params = synthetic.TRUTH
    with pytest.raises(fit.FitError, match=r"5 rows.*at least 6 rows, 3 sizes"):
        fit.fit(grid(params, sizes=(5e4, 7e4, 9e4, 2e5, 3e5), ratios=(20,)))
    with pytest.raises(fit.FitError, match="2 sizes"):
        fit.fit(grid(params, sizes=(5e4, 7e4), ratios=(5, 10, 20, 40)))


def test_point_fit_is_fast(chinchilla):
    """Fails when a point fit takes much more than its 12 ms of CPU (a grid of starts, or a compile, would)."""
    fit.fit(chinchilla)
    times = []
    for _ in range(5):
        start = time.process_time()
        fit.fit(chinchilla)
        times.append(time.process_time() - start)
    assert min(times) < 0.05
