"""The choice among forms: what it finds in simulations, what it must not look at, and how ties are broken."""

import dataclasses
import json

import numpy as np
import pytest
import synthetic

from analysis import choice, fit, laws, load

TRUTH = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}


def isoflop(truth, law=laws.COUPLED, seed=0, noise=0.001):
    c = np.repeat(np.geomspace(6e18, 3e21, 9), 9)
    n = np.sqrt(c / 120) * np.tile(np.geomspace(0.25, 4, 9), 9)
    d = c / (6 * n)
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return load.table(n, d, law.loss(truth, n, d) * scatter)


@pytest.mark.parametrize(
    ("law", "truth"),
    [
        (laws.CHINCHILLA, TRUTH | {"alpha": 0.28, "A": 120.0, "beta": 0.42, "B": 6000.0}),
        (laws.COUPLED, TRUTH | {"k": 0.6}),
        (laws.KAPLAN, TRUTH | {"alpha": 0.3, "A": 150.0, "B": 800.0, "beta": 0.33}),
        (laws.TIED, {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.36}),
    ],
    ids=["chinchilla", "coupled", "kaplan", "tied"],
)
def test_finds_the_true_form(law, truth):
    """Fails when error, tie or penalty is turned round: then the largest form or the separable one is always chosen."""
    found = [choice.choose(isoflop(truth, law, seed), delta=1e-2).law.name for seed in range(3)]
    assert found.count(law.name) >= 2


def test_never_looks_at_held_out_rows():
    """Fails when rows that are left out of the fit are scored: their losses here are absurd and the choice stays the same."""
    table = isoflop(TRUTH | {"k": 0.6})
    cut = table.column("flops").max() / 10
    held_out = [dataclasses.replace(r, loss=99.0, excluded="held out") for r in table.rows if r.flops >= cut]
    poisoned = dataclasses.replace(table, rows=(*(r for r in table.rows if r.flops < cut), *held_out))
    clean = choice.choose(table.where(lambda r: r.flops < cut))
    assert choice.choose(poisoned).to_dict() == clean.to_dict()


def test_forms_that_ran_away_come_last():
    """Fails when a form with a parameter at an edge is chosen, or shares in the blend, while regular ones are there."""
    flat = isoflop(TRUTH | {"E": 1e-9, "k": 1.0})  # no floor to be found
    found = choice.choose(flat, delta=1e-2)
    flags = [bool(c.flags) for c in found.candidates]
    assert any(flags)
    assert flags == sorted(flags)
    if not all(flags):
        assert not {c.law.name for c in found.candidates if c.flags} & set(found.shares)
    assert any("runs to zero" in line for line in found.words())


def test_qaicc_of_squares_is_the_textbook_one():
    """Fails when the penalty or the scale is off by a factor: for squares the scale is the largest form's residual variance."""
    table = isoflop(TRUTH | {"k": 0.6}, noise=0.003)
    found = choice.choose(table, delta=10.0)
    fits = {c.law.name: c.fit for c in found.candidates}
    n, largest = len(table.rows), fits["coupled"]
    variance = np.sum(largest.residuals**2) / (n - 6)
    for c in found.candidates:
        p = len(c.law.parameters)
        assert c.qaicc == pytest.approx(np.sum(c.fit.residuals**2) / variance + 2 * p + 2 * p * (p + 1) / (n - p - 1))


def test_an_idle_parameter_gains_one_on_average():
    """Fails when the robust scale is wrong: where the separable law holds, k lowers the deviance by about 1, at any delta."""
    for delta in (1e-2, 1e-3):
        gains = []
        for seed in range(6):
            table = isoflop(TRUTH, laws.CHINCHILLA, seed, noise=0.003)
            small, large = (fit.fit(table, law, delta) for law in (laws.CHINCHILLA, laws.COUPLED))
            gains.append(2 * (small.objective - large.objective) / choice._scale(large))
        assert 0.2 < np.mean(gains) < 3


def test_blend():
    """Fails when the weights do not favour small errors, do not add up, or the blend is not between the forms."""
    table = isoflop(TRUTH | {"k": 0.6}, seed=1)
    found = choice.choose(table)
    assert sum(found.shares.values()) == pytest.approx(1)
    by_error = sorted((c for c in found.candidates if c.law.name in found.shares), key=lambda c: c.error)
    shares = [found.shares[c.law.name] for c in by_error]
    assert shares == sorted(shares, reverse=True)
    each = [float(c.fit.expected(1e10, 1e12)[0]) for c in by_error]
    assert min(each) <= float(found.blend(1e10, 1e12)[0]) <= max(each)


def test_small_ladders():
    """Fails when the default ladder (15 or 18 rows) cannot be chosen on, or a smaller one is refused and not left to QAICc."""
    for sizes in (3, 5, 6):
        n = np.repeat(np.array(synthetic.SIZES[:sizes], float), 3)
        d = n * np.tile([10.0, 20.0, 40.0], sizes)
        loss = laws.CHINCHILLA.loss(synthetic.TRUTH, n, d) * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(n)))
        found = choice.choose(load.table(n, d, loss, [str(v) for v in n]), delta=1e-2)
        content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert content["chosen"] in laws.SURFACES and len(content["candidates"]) == 4
        if sizes == 3:
            assert "QAICc decides alone" in " ".join(found.words()) and found.shares == {found.law.name: 1.0}
        else:
            assert all(c.test is not None and len(c.test) >= 3 for c in found.candidates)


def test_nothing_to_choose_from():
    """Fails when a table that carries no form is met with anything but the fitter's own refusal."""
    with pytest.raises(fit.FitError, match="needs at least"):
        choice.choose(load.table([1e7, 1e8], [1e9, 1e10], [3.0, 2.5]))


def test_rows_in_step_quote_no_numbers():
    """Fails when a form is preferred because another let a term vanish that collinear rows cannot show, or the JSON quotes
    parameters that those rows do not determine."""
    n = np.geomspace(1e7, 1e9, 12)
    loss = laws.CHINCHILLA.loss({"E": 1.7, "A": 400, "B": 2000, "alpha": 0.34, "beta": 0.37}, n, 20 * n)
    found = choice.choose(load.table(n, 20 * n, loss * np.exp(0.003 * np.cos(7 * np.arange(12)))))
    assert not any(c.flags for c in found.candidates)
    assert [c["params"] for c in found.to_dict()["candidates"]] == [None] * len(found.candidates)


def test_few_rows_are_told_once():
    """Fails when the only form that is left shows a QAICc that is no number, or the others' notes repeat the offers."""
    n, d = np.array([1e7, 1e7, 1e8, 1e8, 1e9]), np.array([1e9, 2e9, 1e9, 4e9, 2e9])
    truth = {"E": 1.7, "A": 400, "B": 2000, "alpha": 0.34, "beta": 0.37}
    found = choice.choose(load.table(n, d, laws.CHINCHILLA.loss(truth, n, d)))
    said = "\n".join(found.words())
    assert found.law.name == "tied" and "nan" not in said and "inf" not in said
    assert "the only form that the rows carry" in said and "what these rows can carry" not in said
