"""The three approaches side by side, on sweeps from a known law and where they cannot be computed."""

import json

import numpy as np
import pytest
import synthetic

from analysis import approaches, fit, intervals, laws, load

TRUTH = {"E": 1.8172, "A": 477.83, "B": 2143.4, "alpha": 0.34731, "beta": 0.36717}
SIZES = np.geomspace(2e7, 2e7 * 1.5**19, 20)


def sweep(seed, cost=None, budgets=6, noise=0.001, jitter=0.01, width=4.1):
    """An IsoFLOP grid on a common set of sizes, every run with a noisy training curve: from one law, so that any approach must
    find its exponent.
    """
    cost, rng = cost or laws.Cost(), np.random.default_rng(seed)
    rows, curves = [], []
    for c in np.geomspace(1e18, 1e21, budgets):
        best = laws.optimum(TRUTH, c, cost)[0]
        for n in SIZES[np.abs(np.log(SIZES / best)) < np.log(width)]:
            d, name, off = c / float(cost.flops(n, 1.0)), f"run {len(rows)}", np.exp(noise * rng.standard_normal())
            loss = float(laws.CHINCHILLA.loss(TRUTH, n, d) * off)
            rows.append(load.Row(name, "", float(n), d, float(c), loss, cluster=name))
            tokens = np.linspace(0, d, 301)[1:]
            along = laws.CHINCHILLA.loss(TRUTH, n, tokens) * off * np.exp(jitter * rng.standard_normal(300))
            curves.append(load.Curve(name, float(n), "", True, tokens, along, tokens[:0], along[:0]))
    return load.Table("simulated", tuple(rows)), curves


@pytest.mark.parametrize("cost", [laws.Cost(), laws.Cost(9.5, 0.85)])
def test_the_three_agree_on_a_simulated_sweep(cost):
    """Fails when any approach misreads the sweep, or one of them takes C for 6ND where it is not."""
    true = float(laws.allocation_exponent(TRUTH, cost))
    inside, agree, seeds = np.zeros(3), 0, 4
    for seed in range(seeds):
        found = approaches.side_by_side(*sweep(seed, cost), draws=150)
        assert [i.name for i in found.items] == ["envelope", "isoflop", "surface"]
        assert all(i.identified and i.missing is None for i in found.items)
        inside += [i.interval[0] <= true <= i.interval[1] for i in found.items]
        agree += found.agree
        for item in found.items:
            assert item.a == pytest.approx(true, abs=0.07)
            last = item.optima[0]
            assert last.flops == pytest.approx(1e21) and item.optima[1].flops == pytest.approx(1e22)
            n, d, _ = laws.optimum(TRUTH, last.flops, cost)
            assert last.n_params == pytest.approx(n, rel=0.5) and last.n_tokens == pytest.approx(d, rel=0.5)
            assert last.n_interval[0] < last.n_params < last.n_interval[1]
    assert agree >= seeds - 1 and (inside >= seeds - 2).all()
    assert [r.recipe for r in found.recipes] == ["cubic", "parabola", "akima"]
    assert abs(found.bias.a) < 0.002 and abs(found.bias.n_params) < 0.01
    assert "the three agree within their intervals" in approaches.in_words(found) or not found.agree


def test_json_and_words():
    """Fails when the JSON lacks what bowls and frontier are drawn from, or holds what JSON does not know."""
    table, curves = sweep(0)
    boot = intervals.bootstrap(fit.fit(table), 100)
    found = approaches.side_by_side(table, curves, boot, [1e22], level=0.8, draws=100)
    content = json.loads(json.dumps(approaches.to_json(found), allow_nan=False))
    assert [a["name"] for a in content["approaches"]] == ["envelope", "isoflop", "surface"]
    assert content["level"] == 0.8 and content["approaches"][2]["optima"][0]["flops"] == 1e22
    assert content["approaches"][2]["a"] == pytest.approx(laws.allocation_exponent(boot.fit.params))
    bowl = content["profiles"]["bowls"][2]
    assert len(bowl["n_params"]) == len(bowl["loss"]) == len(bowl["used"]) and len(bowl["curve_n"]) == len(bowl["curve_loss"])
    assert min(bowl["curve_loss"]) == pytest.approx(bowl["loss_opt"], rel=1e-4)
    assert bowl["interval"][0] < bowl["n_opt"] < bowl["interval"][1]
    frontier = content["frontier"]
    assert len(frontier["flops"]) == len(frontier["truncated"]) == len(frontier["n_params"])
    said = approaches.in_words(found)
    assert "80 % intervals" in said and "at 1.00e+22 FLOPs" in said and "the cubic on these profiles is off by" in said
    for title in ("1 envelope", "2 IsoFLOP", "3 surface"):
        assert f"{title}" in said


def test_what_is_missing_says_why():
    """Fails when an approach that cannot be computed is silent, raises, or is counted as agreeing."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 1e9, 3), np.geomspace(2e9, 2e10, 6)))
    loss = laws.CHINCHILLA.loss(TRUTH, n, d) * np.exp(0.001 * np.random.default_rng(0).standard_normal(len(n)))
    found = approaches.side_by_side(load.table(n, d, loss), draws=100)
    first, second, third = found.items
    assert "no training curves" in first.missing and first.a is None
    assert "no IsoFLOP grid" in second.missing and third.missing is None
    assert found.agree is None and found.bias is None and not found.recipes
    said = approaches.in_words(found)
    assert "1 envelope  none: no training curves" in said and "agree" not in said
    json.dumps(approaches.to_json(found), allow_nan=False)
    few = approaches.side_by_side(load.table(n[:5], d[:5], loss[:5]), draws=100)
    assert "5 rows with 3 sizes" in few.items[2].missing and few.boot is None


def test_exponents_that_are_not_identified_are_not_quoted():
    """Fails when a ladder with tokens in step with parameters yields an a that is printed or compared."""
    n = np.geomspace(1e7, 1e9, 12)
    d = 20 * n * np.exp(0.005 * np.random.default_rng(1).standard_normal(12))
    loss = laws.CHINCHILLA.loss(TRUTH, n, d) * np.exp(0.002 * np.random.default_rng(2).standard_normal(12))
    found = approaches.side_by_side(load.table(n, d, loss), draws=100)
    surface = found.items[2]
    assert not surface.identified and "in step with parameters" in surface.notes[-1]
    said = approaches.in_words(found)
    assert "3 surface   no a" in said and " a = " not in said and found.agree is None


def test_a_sweep_with_curves_and_no_grid():
    """Fails when profiles are not read off the curves where no rows share a budget."""
    rng, rows, curves = np.random.default_rng(1), [], []
    for n in np.geomspace(2e7, 5e9, 14):
        name, tokens = f"run {n:.0f}", 60 * n * np.linspace(0, 1, 301)[1:]
        loss = laws.CHINCHILLA.loss(TRUTH, n, tokens) * np.exp(0.001 * rng.standard_normal())
        rows.append(load.Row(name, "", n, tokens[-1], 6 * n * tokens[-1], float(loss[-1]), cluster=name))
        curves.append(load.Curve(name, n, "", True, tokens, loss, tokens[:0], loss[:0]))
    found = approaches.side_by_side(load.Table("curves", tuple(rows)), curves, draws=100)
    assert found.by_profiles is not None and found.by_profiles.profiles.source == "curves"
    assert found.items[1].a == pytest.approx(laws.allocation_exponent(TRUTH), abs=0.05)


def test_a_ladder_of_run_folders(tmp_path):
    """Fails when the curves of a real sweep's folder do not fit its table."""
    folder = synthetic.write_sweep(tmp_path / "ladder")
    table = load.runs(folder)
    found = approaches.side_by_side(table, load.curves(folder, table), draws=100)
    assert "of the smallest size" in found.items[0].missing
    assert "curves: " in found.items[1].missing and found.items[2].a is not None
    assert any("constant-rate trunks" in note for note in found.items[0].notes)


def test_disagreement_is_said(data):
    """Fails when estimates that lie apart count as agreeing: the first points of every curve are outside of the surface's form,
    and Gemstones' whole curves give it an exponent of 0.74 where their envelope has 0.53.
    """
    table = load.csv(data / "gemstones_envelope_hot_477.csv", {"cluster": "run"})
    found = approaches.side_by_side(table, draws=100)
    assert found.agree is False and any("1 envelope and 3 surface" in text for text in found.disagreements)
    assert "they do NOT agree within their intervals" in approaches.in_words(found)
