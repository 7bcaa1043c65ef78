"""IsoFLOP profiles against published exponents, closed forms and simulated grids."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from analysis import fit, isoflop, laws, load

TRUTH = {"E": 1.8172, "A": 477.83, "B": 2143.4, "alpha": 0.34731, "beta": 0.36717}
HOFFMANN = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
ASYMMETRIC = HOFFMANN | {"alpha": 0.465, "beta": 0.155}
SYMMETRIC = {"E": 1.69, "A": 400.0, "B": 400.0, "alpha": 0.31, "beta": 0.31}
CONFIGURATION = ("hparams", "warmup", "decay", "param_count", "val")


@pytest.fixture(scope="module")
def porian(data):
    """Published exponents and N* of Porian et al. 2024, each with its profiles."""
    with open(data / "porian_isoflop_rw.csv", encoding="utf-8") as f:
        points = list(csv.DictReader(f))
    with open(data / "porian_reference_rw.csv", encoding="utf-8") as f:
        references = list(csv.DictReader(f))
    with open(data / "porian_optima_rw.csv", encoding="utf-8") as f:
        optima = list(csv.DictReader(f))
    out = []
    for reference in references:
        rows, best = ([p for p in each if all(p[k] == reference[k] for k in CONFIGURATION)] for each in (points, optima))
        n, d, c, loss = (np.array([float(p[k]) for p in rows]) for k in ("N", "D", "flops", "loss"))
        each = {float(b["flops"]): float(b["n"]) for b in best if b["n"]}
        out.append((reference | {"optima": each}, isoflop.by_budget(table_of(n, d, c, loss))))
    return out


def table_of(n, d, c, loss, cluster=None):
    names = [str(i) for i in range(len(n))] if cluster is None else [str(k) for k in cluster]
    each = zip(n, d, c, loss, names, strict=True)
    return load.Table("arrays", tuple(load.Row(f"row {i}", "", *map(float, v[:4]), cluster=v[4]) for i, v in enumerate(each)))


def grid(rng, noise=0.002, budgets=7, sizes=9, width=4.0, drift=1.0, params=TRUTH, cost=None):
    """An IsoFLOP grid from a known law; the middle of the sizes moves from 1 to ``drift`` times the optimum."""
    cost = cost or laws.Cost()
    c = np.repeat(np.geomspace(1e18, 1e21, budgets), sizes)
    off = np.repeat(drift ** np.linspace(0, 1, budgets), sizes)
    n = off * laws.optimum(params, c, cost)[0] * np.tile(np.geomspace(1 / width, width, sizes), budgets)
    d = c / cost.flops(n, 1.0)
    return table_of(n, d, c, laws.CHINCHILLA.loss(params, n, d) * np.exp(noise * rng.standard_normal(len(n))))


def test_porian_exponents(porian):
    """Fails when the noise is not redrawn, N* is not its median, budgets are not weighted, or edges are not rejected."""
    assert len(porian) == 10
    for reference, profiles in porian:
        found = isoflop.estimate(profiles, "akima", noise=0.002, level=0.95, draws=500)
        assert found.a == pytest.approx(float(reference["a"]), abs=0.004)
        assert found.interval == pytest.approx((float(reference["a_lo"]), float(reference["a_hi"])), abs=0.008)
        good = [b for b in found.bowls if b.reason is None]
        assert len(good) == int(reference["n_budgets"])
        for bowl in good:
            published = [n for c, n in reference["optima"].items() if abs(np.log(c / bowl.flops)) < 0.01]
            assert bowl.n_opt == pytest.approx(published[0], rel=0.06)
            assert np.log(bowl.n_opt) == pytest.approx(np.nanmedian(bowl.draws), abs=1e-9)


def test_parabola_misses_on_real_data(porian):
    """Fails when the parabola is not of raw loss in log N, the window is not measured from the best row, or a vertex outside
    counts: these are the exponents that a parabola makes of the same rows, up to 0.07 from the published ones.
    """
    expected = [
        (0.8652, 0.8584, 0.8414, 3), (0.7795, 0.6955, 0.6874, 3), (0.6590, 0.5982, 0.5928, 0),
        (0.5630, 0.5473, 0.5511, 0), (0.5137, 0.5087, 0.5014, 0),
    ]  # fmt: skip
    for (_, profiles), (*exponents, outside) in zip(porian, expected, strict=False):
        found = [isoflop.estimate(profiles, "parabola", window, draws=0) for window in (None, 4, 2.5)]
        assert [f.a for f in found] == pytest.approx(exponents, abs=1e-4)
        assert sum(b.reason is not None for b in found[0].bowls) == outside
    akima, parabola = (isoflop.estimate(porian[1][1], recipe, noise=0.002, draws=300) for recipe in ("akima", "parabola"))
    assert len(isoflop.disagreements([akima, parabola])) == 1
    assert not isoflop.disagreements([akima, akima])


def test_noise_free_bias(data):
    """Fails when the vertex, the grid or the extrapolation is off in the sixth digit."""
    reference = json.loads((data / "references.json").read_text())["approach2_bias_noisefree"]
    assert reference["tol_pct"] == 1e-4
    table = reference["rel_err_pct_Dstar_1e24"]
    for name, params in (("chinchilla(.34,.28,406.4,410.7)", HOFFMANN), ("asymmetric(.465,.155)", ASYMMETRIC)):
        for width, percent in table[name].items():
            bias = isoflop.noise_free_bias(params, float(width.rstrip("x")))
            assert 100 * bias.n_tokens == pytest.approx(percent, abs=1e-4)
            assert (1 + bias.n_params) * (1 + bias.n_tokens) == pytest.approx(1, abs=1e-12)  # N* D* is C / 6
            assert bias.a == pytest.approx(0, abs=1e-9)
    for width in (2, 4, 8, 16):
        assert 100 * isoflop.noise_free_bias(SYMMETRIC, width).n_tokens == pytest.approx(0, abs=1e-4)
    off = isoflop.noise_free_bias(SYMMETRIC, 2, 1 / 3, reach=4)
    assert 100 * off.n_tokens == pytest.approx(table["symmetric, grid centre N*/3, 2x"], abs=1e-4)
    assert isoflop.noise_free_bias(SYMMETRIC, 2, 1 / 3) is None  # the optimum lies outside of every grid


def test_drifting_grids_bias_the_exponent():
    """Fails when a centre per budget is not used; the cubic takes most of the bias away where the sizes surround N*."""
    drift = np.geomspace(1, 3, 5)
    a = [isoflop.noise_free_bias(SYMMETRIC, 2, drift, reach=4).a, isoflop.noise_free_bias(HOFFMANN, 16, drift).a]
    assert a == pytest.approx([0.0041, 0.4491 - 0.28 / 0.62], abs=5e-5)
    parabola, cubic = (isoflop.noise_free_bias(ASYMMETRIC, 8, drift, recipe=recipe).a for recipe in ("parabola", "cubic"))
    assert abs(parabola) > 0.015 and abs(cubic) < 0.2 * abs(parabola)


def test_scatter_and_bias_of_the_recipes():
    """Fails when a recipe changes so much that the module's advice no longer holds: on grids with noise of 0.2 % the scatter
    of a grows from parabola to cubic to akima, and only the parabola is biased far out.
    """
    rng, far = np.random.default_rng(0), 1e23
    true_a, true_n = laws.allocation_exponent(ASYMMETRIC), float(laws.optimum(ASYMMETRIC, far)[0])
    a, n = {r: [] for r in isoflop.RECIPES}, {r: [] for r in isoflop.RECIPES}
    for _ in range(30):
        profiles = isoflop.by_budget(grid(rng, width=8.0, params=ASYMMETRIC))
        for recipe in isoflop.RECIPES:
            found = isoflop.estimate(profiles, recipe, draws=60 if recipe == "akima" else 0)
            a[recipe].append(found.a - true_a)
            n[recipe].append(np.log(found.n_line.at(far) / true_n))
    sd = {recipe: np.std(v) for recipe, v in a.items()}
    assert 2 * sd["parabola"] < 1.3 * sd["cubic"] < sd["akima"]
    assert np.mean(n["parabola"]) > 0.1 > 3 * abs(np.mean(n["cubic"]))


@pytest.mark.parametrize(("recipe", "drift"), [("parabola", 1.0), ("cubic", 1.0), ("cubic", 2.0), ("akima", 1.0)])
def test_coverage(recipe, drift):
    """Fails when the noise is estimated too small, or is not redrawn: 90 % intervals then cover far fewer truths."""
    rng, hits, runs = np.random.default_rng(3), 0, 40
    for _ in range(runs):
        found = isoflop.estimate(isoflop.by_budget(grid(rng, 0.003, 5, 7, 3.0, drift)), recipe, isoflop.MAX_WIDTH, draws=150)
        lo, hi = found.interval
        hits += lo <= laws.allocation_exponent(TRUTH) <= hi
    assert hits / runs >= 0.8


def test_noise_is_told_from_the_rows():
    """Fails when degrees of freedom are lost, or the far ends of a wide grid (which no cubic fits) count as noise."""
    rng = np.random.default_rng(5)
    for width in (4.0, 60.0):
        table = grid(rng, 0.003, 6, 15, width)
        sd, freedom = isoflop.residual_noise(isoflop.by_budget(table))
        bottom = laws.optimum(TRUTH, np.geomspace(1e18, 1e21, 6))[2]
        assert sd == pytest.approx(0.003 * bottom.mean(), rel=0.2)
        assert 20 < freedom <= 6 * (15 - 4)


def test_budgets_read_off_the_same_curves_are_no_new_evidence():
    """Fails when a run's noise is redrawn at every budget: three times as many budgets then narrow the interval by a third."""
    rng = np.random.default_rng(1)
    n = np.repeat(np.geomspace(1e8, 6e9, 12), 30)
    d = 10.0 * np.tile(np.geomspace(0.2, 20, 30), 12) * np.sqrt(n * 1e9)
    loss = laws.CHINCHILLA.loss(TRUTH, n, d) * np.exp(0.003 * np.repeat(rng.standard_normal(12), 30))
    run = np.repeat(np.arange(12), 30).astype(str)
    points = isoflop.Points(n, d, 6 * n * d, loss, run, run)
    widths = []
    for count in (6, 18):
        profiles = isoflop.interpolated(points, "curves", "arrays", np.geomspace(3e19, 1e21, count))
        widths.append(np.ptp(isoflop.estimate(profiles, noise=0.006, draws=300).interval))
    assert widths[1] > 0.85 * widths[0]


def test_profiles_of_a_table():
    """Fails when rows that share a budget up to whole batches are torn apart, or given budgets are not used."""
    table = grid(np.random.default_rng(0), budgets=4, sizes=5)
    jitter = np.random.default_rng(1).uniform(-0.02, 0.02, 20)
    n, d, c, loss = (table.column(name) for name in ("n_params", "n_tokens", "flops", "loss"))
    near = table_of(n, d, c * np.exp(jitter), loss)
    profiles = isoflop.by_budget(near)
    assert [len(p.loss) for p in profiles.items] == [5] * 4 and not profiles.notes
    assert [p.flops for p in profiles.items] == pytest.approx(np.geomspace(1e18, 1e21, 4), rel=0.02)
    few = load.Table("arrays", near.rows[:18])
    assert "3 of 18 rows are not used" in isoflop.by_budget(few).notes[0]
    assert len(isoflop.by_budget(near, [1e18, 1e19, 1e20]).items) == 3
    with pytest.raises(fit.FitError, match="no IsoFLOP grid: 2 budgets"):
        isoflop.by_budget(load.Table("arrays", near.rows[:10]))


def test_ladder_between_its_budgets():
    """Fails when a ladder's rows are extrapolated, or interpolated by more than a hair: noise-free, a comes out to 0.002."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 6.4e9, 10), np.geomspace(2e9, 1.3e11, 8)))
    table = load.table(n, d, laws.CHINCHILLA.loss(TRUTH, n, d))
    with pytest.raises(fit.FitError, match="no IsoFLOP grid"):
        isoflop.by_budget(load.table(n, d * n**0.05, table.column("loss")))
    profiles = isoflop.by_size(table)
    assert profiles.source == "rows between budgets" and "interpolated" in profiles.notes[-1]
    for p in profiles.items:
        assert p.loss == pytest.approx(laws.CHINCHILLA.loss(TRUTH, p.n_params, p.n_tokens), rel=1e-4)
        assert 6 * p.n_params * p.n_tokens == pytest.approx(p.flops, rel=1e-9)
        assert p.n_tokens.min() >= 2e9 * (1 - 1e-9) and p.n_tokens.max() <= 1.3e11 * (1 + 1e-9)
    assert isoflop.estimate(profiles, draws=0).a == pytest.approx(laws.allocation_exponent(TRUTH), abs=0.002)
    n = np.geomspace(1e8, 1e10, 8)
    with pytest.raises(fit.FitError, match="the curves of 4 sizes meet nowhere"):
        isoflop.by_size(load.table(n, 20 * n, laws.CHINCHILLA.loss(TRUTH, n, 20 * n)))


def test_chinchilla_points_by_size(chinchilla):
    """Fails when digitised sizes, equal but for 1e-7, are not brought together: then half of them are alone on their curve.
    Nor are the few rows that happen to share a budget a grid.
    """
    with pytest.raises(fit.FitError, match="53 of 240 rows; 3 budgets and half the rows are needed"):
        isoflop.by_budget(chinchilla)
    found = isoflop.estimate(isoflop.by_size(chinchilla), window=isoflop.MAX_WIDTH)
    sizes = np.unique(np.concatenate([p.n_params for p in found.profiles.items]))
    assert len(sizes) == 38 and np.diff(np.log(sizes)).min() > 0.01
    assert found.a == pytest.approx(0.5139, abs=0.03)  # the surface of the same points
    assert found.interval[0] < 0.5139 < found.interval[1] and np.ptp(found.interval) < 0.12


def test_seeds_share_a_size():
    """Fails when rows of one size are not averaged: no curve goes through two losses of one size."""
    rng = np.random.default_rng(2)
    one, two = grid(rng, 0.002), grid(rng, 0.002)
    both = load.Table("arrays", one.rows + tuple(dataclasses.replace(r, cluster=r.cluster + "b") for r in two.rows))
    for recipe in isoflop.RECIPES:
        bowl = isoflop.estimate(isoflop.by_budget(both), recipe, draws=20).bowls[0]
        assert len(bowl.n_params) == 9 and len(bowl.draws) == 20
        assert bowl.loss == pytest.approx((one.column("loss")[:9] + two.column("loss")[:9]) / 2)


def test_what_a_profile_is_warned_of():
    """Fails when a profile without a least loss counts, or a sparse, wide or off-centre one passes in silence."""
    wide = isoflop.estimate(isoflop.by_budget(grid(np.random.default_rng(0), width=16.0)), draws=100)
    assert all("reach a factor of 16 to either side" in " ".join(b.warnings) for b in wide.bowls)
    off = isoflop.estimate(isoflop.by_budget(grid(np.random.default_rng(0), 5e-4, drift=2.0)), draws=100)
    assert not off.bowls[0].warnings
    assert off.bowls[-1].off_centre == pytest.approx(2, rel=0.15)
    assert "centred a factor of 2" in " ".join(off.bowls[-1].warnings)
    sparse = isoflop.estimate(isoflop.by_budget(grid(np.random.default_rng(0), sizes=5, noise=1e-4)), draws=100).bowls[0]
    assert sparse.sides in ((2, 3), (3, 2)) and "only 2 sizes" in sparse.warnings[0]
    beside = isoflop.estimate(isoflop.by_budget(grid(np.random.default_rng(0), drift=30.0)), draws=100)
    assert beside.bowls[-1].reason == "the curve is least at the smallest size used" and np.isnan(beside.bowls[-1].n_opt)
    assert beside.n_line is not None and any("show no least loss" in n for n in beside.notes)
    table = grid(np.random.default_rng(0))
    for shape, end in (
        (-(np.abs(np.tile(np.linspace(-1, 1.1, 9), 7)) ** 2), "largest"),
        (np.tile(np.linspace(0, 1, 9), 7), "smallest"),
    ):
        hopeless = table_of(*(table.column(c) for c in ("n_params", "n_tokens", "flops")), 3 + shape)
        for recipe in isoflop.RECIPES:
            found = isoflop.estimate(isoflop.by_budget(hopeless), recipe, draws=0)
            assert found.n_line is None and f"at 7 the curve is least at the {end} size used" in found.missing


def test_bias_on_the_tables_own_grid():
    """Fails when the closed computation is not what the recipe does to noise-free rows, or forgets the cost's exponent."""
    cost = laws.Cost(9.5, 0.9)
    table = grid(np.random.default_rng(0), 0.0, width=8.0, drift=2.0, params=ASYMMETRIC, cost=cost)
    for recipe in isoflop.RECIPES:
        found = isoflop.estimate(isoflop.by_budget(table), recipe, draws=0)
        bias = isoflop.bias_on_grid(ASYMMETRIC, found, 1e23, cost)
        n, d, _ = laws.optimum(ASYMMETRIC, 1e23, cost)
        assert found.a - bias.a == pytest.approx(laws.allocation_exponent(ASYMMETRIC, cost), abs=1e-9)
        assert found.n_line.at(1e23) == pytest.approx(n * (1 + bias.n_params), rel=1e-9)
        assert found.d_line.at(1e23) == pytest.approx(d * (1 + bias.n_tokens), rel=1e-9)
        assert [b.n_opt for b in found.bowls] == pytest.approx(
            [laws.optimum(ASYMMETRIC, b.flops, cost)[0] * (1 + e) for b, e in zip(found.bowls, bias.each, strict=True)]
        )
        assert (abs(bias.a) > 0.006) == (recipe == "parabola")
