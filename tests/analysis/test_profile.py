"""Profiles, standard errors and the sweep of delta against published numbers, the bootstrap and scipy."""

import json

import numpy as np
import pytest
from scipy import optimize

from analysis import fit, intervals, laws, load, profile

PARAMS = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}


@pytest.fixture(scope="module")
def squares():
    """A least-squares fit of a 9 x 8 grid, noise 0.5 %."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 9), np.geomspace(1e9, 1e12, 8)))
    loss = laws.CHINCHILLA.loss(PARAMS, n, d) * np.exp(0.005 * np.random.default_rng(3).standard_normal(len(n)))
    return fit.fit(load.table(n, d, loss), loss="squared")


def test_chinchilla_profile_of_e(chinchilla):
    """Fails when the other parameters are not minimised over, or alpha does not move along the ridge while a hardly does."""
    p = profile.profile(fit.fit(chinchilla), "E", np.array([1.75, 1.8, 1.85, 1.9]))
    assert p.values == pytest.approx([1.75, 1.8, 1.8172181, 1.85, 1.9])
    assert p.objective == pytest.approx([1.0573e-3, 1.0210e-3, 1.01827e-3, 1.0293e-3, 1.0891e-3], abs=6e-8)
    assert p.params["alpha"][[0, -1]] == pytest.approx([0.3135, 0.3824], abs=1e-4)
    assert (p.params["a"][1:] > 0.5105).all() and (p.params["a"][1:] < 0.5195).all()


def test_chinchilla_profile_intervals(chinchilla):
    """Fails when the threshold is not the bootstrap's: ends then leave those of its percentiles (1.7694, 1.8712 published)."""
    f = fit.fit(chinchilla)
    boot = intervals.bootstrap(f, 500)
    for name, ends in {"E": (1.7694, 1.8712), "alpha": (0.3168, 0.3733), "a": (0.4805, 0.5561)}.items():
        found = profile.profile(f, name, level=0.95, boot=boot).interval
        assert found == pytest.approx(ends, abs=0.2 * (ends[1] - ends[0])), name
    alone = profile.profile(f, "E", level=0.95).interval
    assert 0.5 < (alone[1] - alone[0]) / (1.8712 - 1.7694) < 0.8


@pytest.mark.parametrize("name", ["E", "A", "B", "alpha", "beta", "a"])
def test_least_squares_intervals_are_normal_theory(squares, name):
    """Fails when a held coordinate is not the parameter (A centred, a mistaken), or the F threshold is off by its factor."""
    p = profile.profile(squares, name, level=0.9)
    boot = intervals.bootstrap(squares, 20)
    error = profile.standard_errors(squares, boot)[0][name].hessian
    value = p.values[np.argmin(p.objective)]
    shift = np.log(p.interval) - np.log(value) if name in "AB" else np.array(p.interval) - value
    half = 1.668 * (error / value if name in "AB" else error)  # t quantile of 67 degrees of freedom
    assert shift == pytest.approx([-half, half], rel=0.12)
    assert p.params[name] == pytest.approx(p.values, rel=1e-9)
    assert p.objective.min() == pytest.approx(squares.objective, rel=1e-9)


@pytest.mark.parametrize("name", ["A", "a"])
def test_scipy_finds_nothing_lower_on_the_profile(squares, name):
    """Fails when a point of the profile is not the minimum over the other parameters."""
    p = profile.profile(squares, name, points=5)
    n, d = (np.log(squares.rows.columns[v]) - squares.centre[v] for v in "ND")
    target = np.log(squares.rows.measured)

    def objective(free, value):
        e, b, alpha, beta = free
        if name == "a":
            a, beta = beta, alpha * value / (1 - value)
        else:
            a = np.log(value) - alpha * squares.centre["N"]
        return 1e4 * np.sum((np.logaddexp(np.logaddexp(e, a - alpha * n), b - beta * d) - target) ** 2) / 2

    for i in (0, 4):
        at = {k: v[i] for k, v in p.params.items()}
        a, b = (np.log(at[c]) - at[x] * squares.centre[v] for c, x, v in (("A", "alpha", "N"), ("B", "beta", "D")))
        start = np.array([np.log(at["E"]), b, at["alpha"], a if name == "a" else at["beta"]])
        ours = objective(start, p.values[i])
        best = min(
            optimize.minimize(objective, start + shift, args=(p.values[i],), method="BFGS").fun
            for shift in (np.zeros(4), np.array([0.05, -0.1, 0.02, 0.03]))
        )
        assert 1e4 * p.objective[i] == pytest.approx(ours, rel=1e-8)
        assert ours <= best * (1 + 1e-7)


def test_coupled_profile_of_k():
    """Fails when k cannot be profiled: it tells the sum (k = 1) from the power mean that the rows were made with."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 7), np.geomspace(1e9, 1e12, 7)))
    loss = laws.COUPLED.loss(PARAMS | {"k": 0.5}, n, d) * np.exp(0.002 * np.random.default_rng(3).standard_normal(len(n)))
    p = profile.profile(fit.fit(load.table(n, d, loss), laws.COUPLED, loss="squared"), "k", level=0.99)
    assert p.interval[0] < 0.5 < p.interval[1] < 1.0


def test_unbounded_profiles_stay_open():
    """Fails when an interval is closed where the objective never rises: E of rows far above it."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e4, 1e5, 5), np.geomspace(1e6, 1e7, 5)))
    law = {"E": 0.02, "A": 40.0, "B": 40.0, "alpha": 0.2, "beta": 0.2}
    loss = laws.CHINCHILLA.loss(law, n, d) * np.exp(0.004 * np.random.default_rng(0).standard_normal(len(n)))
    p = profile.profile(fit.fit(load.table(n, d, loss), loss="squared"), "E")
    assert p.interval[0] == 0.0 and p.interval[1] > 0.02
    with pytest.raises(fit.FitError, match=r"profile of 'gamma': the chinchilla law has E, A, B, alpha, beta, a"):
        profile.profile(fit.fit(load.table(n, d, loss)), "gamma")


def test_standard_errors_compared(chinchilla):
    """Fails when the sandwich is not HC0 (on squares .0208 for beta, the bootstrap's .0206), or Huber's carries no warning."""
    f = fit.fit(chinchilla)
    errors, note = profile.standard_errors(f, intervals.bootstrap(f, 1000))
    assert errors["beta"].bootstrap == pytest.approx(0.0206, rel=0.08)
    assert errors["beta"].sandwich == pytest.approx(0.0160, abs=2e-4)
    assert note is not None and "39 of 240 residuals" in note
    wide = fit.fit(chinchilla, loss="squared")
    errors, note = profile.standard_errors(wide, intervals.bootstrap(wide, 10))
    assert errors["beta"].sandwich == pytest.approx(0.0208, abs=1e-4) and note is None


def test_errors_agree_where_all_is_well(squares):
    """Fails when one of the three has a wrong scale: with equal noise, many rows and least squares they are one number."""
    errors, _ = profile.standard_errors(squares, intervals.bootstrap(squares, 400))
    for name, e in errors.items():
        assert e.hessian == pytest.approx(e.bootstrap, rel=0.35) and e.sandwich == pytest.approx(e.bootstrap, rel=0.35), name


def test_clusters_enter_the_sandwich(squares):
    """Fails when scores are not summed by cluster: every row four times is no more evidence than once."""
    columns = {k: np.repeat(v, 4) for k, v in squares.rows.columns.items()}
    measured = np.repeat(squares.rows.measured, 4)
    clusters = [str(i) for i in np.repeat(np.arange(72), 4)]
    f = fit.fit_rows(fit.Rows.of(columns, measured, clusters), laws.CHINCHILLA, loss="squared")
    four, once = (profile.standard_errors(x, intervals.bootstrap(x, 5))[0]["alpha"] for x in (f, squares))
    assert four.sandwich == pytest.approx(once.sandwich, rel=1e-6)
    assert four.hessian == pytest.approx(once.hessian * np.sqrt(67 / (288 - 5)), rel=1e-6)


def test_delta_sweep(chinchilla, data):
    """Fails when a loss is not the one that its name says, or a local minimum is kept: published optima of each."""
    fits = profile.delta_sweep(chinchilla)
    known = json.loads((data / "references.json").read_text())
    lad, squares = known["chinchilla_LAD_240"], known["chinchilla_L2log_240"]
    least = fits["absolute values"]
    assert np.abs(least.residuals).sum() == pytest.approx(lad["min_objective"], rel=2e-6)
    for name, tolerance in {"E": 2e-4, "alpha": 3e-4, "beta": 3e-4}.items():
        assert least.params[name] == pytest.approx(lad[name], abs=tolerance)
        assert fits["squares"].params[name] == pytest.approx(squares[name], abs=squares["tol"][name])
    assert least.params["A"] == pytest.approx(lad["A"], rel=lad["tol"]["A_rel"])
    assert least.params["B"] == pytest.approx(lad["B"], rel=lad["tol"]["B_rel"])
    betas = {name: round(f.params["beta"], 3) for name, f in fits.items() if name != "Huber(1e-4)"}
    assert list(betas.values()) == [0.366, 0.367, 0.382, 0.406]
    lines = profile.delta_lines(fits)
    assert len(lines) == 6 and lines[3].split() == ["Huber(1e-3)", "1.8172", "477.83", "2143.4", "0.34731", "0.36717", "0.5139"]
