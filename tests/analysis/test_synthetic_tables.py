"""Tables made from known laws: what went in must come out, of every form, of ragged tables, and under weights."""

import dataclasses
import warnings

import numpy as np
import pytest

from analysis import fit, identify, laws, load

# B = 3e4 was named as the case that loses digits: D^-beta is then 1e-5 of B at the largest D.
SETS = {
    "hoffmann": {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28, "k": 0.6},
    "large_b": {"E": 2.0, "A": 300.0, "B": 3e4, "alpha": 0.35, "beta": 0.45, "k": 0.45},
    "small_models": {"E": 0.9, "A": 9000.0, "B": 12000.0, "alpha": 0.66, "beta": 0.5, "k": 0.8},
}
ONE = {"K": 2e3, "gamma": 0.17}


def grid(sizes=7, tokens=6):
    """An identifiable grid: every size with every token count."""
    n, d = np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e9, 1e12, tokens))
    return n.ravel(), d.ravel()


def made(law, params, n, d, noise=0.0):
    loss = law.loss(params, n, d, 6 * n * d) * np.exp(noise * np.random.default_rng(0).standard_normal(len(n)))
    return load.table(n, d, loss)


@pytest.mark.parametrize("delta", [1e-3, 1e-2])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("law", laws.LAWS.values(), ids=lambda v: v.name)
def test_noiseless_recovery(law, name, delta):
    """Fails when any form stops before its parameters are right to 1e-6, or starts in another basin."""
    params = SETS[name] | ONE
    n, d = grid()
    if law.name == "params":
        d = np.full_like(n, 1e11)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f = fit.fit(made(law, params, n, d), law, delta=delta)
    assert f.params == {k: pytest.approx(params[k], rel=1e-6) for k in law.parameters}
    assert not f.edges and f.certificate.convex


def test_sixteen_random_couplings():
    """Fails when k is found only near its two starting values: drawn at random with everything else."""
    rng = np.random.default_rng(5)
    n, d = grid()
    for _ in range(16):
        params = {
            "E": rng.uniform(0.5, 2.5),
            "alpha": rng.uniform(0.2, 0.6),
            "beta": rng.uniform(0.2, 0.6),
            "k": rng.uniform(0.2, 1.4),
        }
        params["A"], params["B"] = rng.uniform(0.3, 3) * 3e8 ** params["alpha"], rng.uniform(0.3, 3) * 3e10 ** params["beta"]
        f = fit.fit(made(laws.COUPLED, params, n, d), laws.COUPLED, delta=1e-2)
        assert f.params == {k: pytest.approx(params[k], rel=1e-6) for k in laws.COUPLED.parameters}


def test_the_collinear_design_is_refused():
    """Fails when noiseless rows with D = 20 N are fitted exactly and therefore believed, under any law of both variables."""
    n = np.geomspace(1e7, 1e10, 14)
    for law in (laws.CHINCHILLA, laws.TIED, laws.COUPLED, laws.KAPLAN):
        f = fit.fit(made(law, SETS["hoffmann"], n, 20 * n), law, delta=1e-2)
        assert any("in step with parameters" in reason for reason in identify.inseparable(f)), law.name
    crossed = fit.fit(made(laws.CHINCHILLA, SETS["hoffmann"], *grid()), delta=1e-2)
    assert not identify.inseparable(crossed)


def test_one_token_count_of_a_surface_is_refused():
    """Fails when a law of N and D is fitted to rows that all have one D: its beta would be an artefact of the start."""
    n = np.geomspace(1e7, 1e10, 14)
    with pytest.raises(fit.FitError, match="1 token counts"):
        fit.fit(made(laws.CHINCHILLA, SETS["hoffmann"], n, np.full(14, 1e10)))


def test_ragged_tables():
    """Fails when rows are taken to form a full grid: cells are missing, sizes have one to six rows, and all in disorder."""
    n, d = grid()
    rng = np.random.default_rng(2)
    keep = rng.permutation(np.flatnonzero(rng.random(len(n)) < 0.5))
    params = SETS["large_b"]
    found = fit.fit(made(laws.CHINCHILLA, params, n[keep], d[keep])).params
    assert len({np.sum(n[keep] == size) for size in n}) > 2
    assert found == {k: pytest.approx(params[k], rel=1e-6) for k in found}


def test_diverged_members_do_not_reach_the_fit():
    """Fails when a row that is excluded (here 50 % off, and one without a loss) changes any number of the fit."""
    n, d = grid()
    clean = made(laws.CHINCHILLA, SETS["hoffmann"], n, d, noise=0.005)
    bad = [
        dataclasses.replace(
            clean.rows[3], id="late", loss=1.5 * clean.rows[3].loss, state=load.DIVERGED, excluded="diverged (loss spike)"
        ),
        dataclasses.replace(clean.rows[9], id="gone", loss=None, state=load.DIVERGED, excluded="diverged (not finite)"),
    ]
    mixed = dataclasses.replace(clean, rows=(bad[0], *clean.rows, bad[1]))
    f, g = fit.fit(clean), fit.fit(mixed)
    assert f.params == g.params and len(g.residuals) == len(n) and len(mixed.excluded) == 2


@pytest.mark.parametrize("how", [{"delta": 1e-3}, {"loss": "squared"}])
def test_whole_weights_are_repeated_rows(how):
    """Fails when weights enter the objective other than as counts, in starts or Newton."""
    n, d = grid()
    counts = np.random.default_rng(1).integers(1, 5, len(n))
    table = made(laws.CHINCHILLA, SETS["hoffmann"], n, d, noise=0.005)
    repeated = dataclasses.replace(table, rows=tuple(r for r, c in zip(table.rows, counts, strict=True) for _ in range(c)))
    weighted, whole = fit.fit(table, weights=counts, **how), fit.fit(repeated, **how)
    assert weighted.params == {k: pytest.approx(v, rel=1e-7) for k, v in whole.params.items()}
    assert weighted.objective * counts.mean() == pytest.approx(whole.objective, rel=1e-10)
    assert weighted.certificate.agreeing == weighted.certificate.starts


def test_weights_tell_noise_levels_apart():
    """Fails when weights are ignored or inverted: rows of a tenth of the noise must decide."""
    n, d = grid(8, 8)
    rng = np.random.default_rng(7)
    sd = np.where(rng.random(len(n)) < 0.5, 0.001, 0.02)
    params, off = SETS["hoffmann"], []
    for _ in range(8):
        loss = laws.CHINCHILLA.loss(params, n, d) * np.exp(sd * rng.standard_normal(len(n)))
        fits = [fit.fit(load.table(n, d, loss), loss="squared", weights=w) for w in (None, sd**-2, sd**2)]
        off.append([abs(f.params["alpha"] - params["alpha"]) for f in fits])
    equal, right, inverted = np.mean(off, 0)
    assert 2 * right < equal < 2 * inverted
