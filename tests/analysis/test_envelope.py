"""The envelope of training curves against published slopes, other hulls and known laws."""

import dataclasses

import numpy as np
import pytest
import synthetic

from analysis import envelope, fit, laws, load

TRUTH = {"E": 1.8172, "A": 477.83, "B": 2143.4, "alpha": 0.34731, "beta": 0.36717}
# Besiroglu et al. 2024 and Hoffmann et al. 2022, as Pearce and Song (arXiv 2406.12907) use them.
EPOCH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
HOFFMANN = {"E": 1.6934, "A": 406.4, "B": 410.7, "alpha": 0.3392, "beta": 0.2849}


def points_of(n, d, loss, cost=None):
    """Curves of shape (sizes, points) as points, one run per size."""
    n = np.broadcast_to(n, d.shape)
    run = np.broadcast_to(np.arange(len(d)).astype(str)[:, None], d.shape).ravel()
    return envelope.Points(*(v.ravel() for v in (n, d, (cost or laws.Cost()).flops(n, d), loss)), run, run)


def curves(sizes=12, noise=0.0, seed=0, each=40):
    """Runs from a tenth of 60 tokens per parameter to all of them, each off by its own factor."""
    n = np.geomspace(1e7, 3e9, sizes)[:, None]
    d = 60 * n * np.geomspace(0.1, 1, each)
    off = np.exp(noise * np.random.default_rng(seed).standard_normal((sizes, 1)))
    return points_of(n, d, laws.CHINCHILLA.loss(TRUTH, n, d) * off)


def test_gemstones_hull(data):
    """Fails when the hull is not that of the logs, keeps its rising part, or points instead of runs are resampled."""
    points = envelope.from_table(load.csv(data / "gemstones_envelope_hot_477.csv", {"cluster": "run"}))
    found = envelope.estimate(points, only_free=False)
    assert len(found.frontier.flops) == 21 and found.clusters == 22
    assert found.a == pytest.approx(0.4993802161, abs=1e-6)
    assert found.d_line.slope == pytest.approx(0.4809888232, abs=1e-6)
    assert found.n_line.interval(0.95) == pytest.approx((0.472, 0.533), abs=0.006)
    assert "before a run's end they are not annealed" in found.notes[0]
    assert any("4 of 21 points of the frontier are truncated" in note for note in found.notes)
    assert "where the next smaller size has no run" in envelope.frontier(points, "bins").truncated


def test_hull_is_scipys():
    """Fails when a vertex is lost or a point above the hull is kept, on random clouds and on points in one line."""
    spatial = pytest.importorskip("scipy.spatial")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = np.sort(rng.uniform(0, 1, 200))
        y = (x - 0.7) ** 2 + 0.3 * rng.exponential(size=200)
        vertices = set(spatial.ConvexHull(np.column_stack([x, y])).vertices)
        chord = y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])
        assert set(envelope.lower_hull(x, y)) == {i for i in vertices if y[i] <= chord[i] + 1e-12}
    assert envelope.lower_hull(np.arange(5.0), np.zeros(5)).tolist() == [0, 4]


@pytest.mark.parametrize(
    ("params", "exponent", "loss_exponent", "total"), [(EPOCH, 0.7805, -0.0690, 0.5154), (HOFFMANN, 0.7388, -0.0659, 0.4577)]
)
def test_what_n_and_c_count_moves_the_exponent(params, exponent, loss_exponent, total):
    """Fails when the least loss at a budget is not found run by run, or N and C are taken from anywhere but the points.

    Pearce and Song 2024: one law in total parameters, and 20 sizes of Kaplan's range (800 to 1.6 billion non-embedding
    parameters, with 32,000 embedding rows).  Counted without embeddings, N and C give nearly Kaplan's exponent (0.73); counted
    with them, the law's own.  No noise and no data: what N and C count is part of a result.  They look up the nearest of 1,000
    stored points of a curve; with the exact loss at each budget the first slope is 0.005 lower.
    """
    small = np.geomspace(10**2.9, 10**9.2, 20)[:, None]
    whole = small + 32_000 * (small * 39.2 / 12) ** (1 / 3)
    stored = np.geomspace(1e6, 1e25, 1000)

    def slopes(n, budgets, rounded):
        d = budgets / (6 * n)
        nearest = stored[np.abs(stored[:, None, None] - d).argmin(0)] if rounded else d
        points = points_of(n, d, laws.CHINCHILLA.loss(params, whole, nearest))
        found = envelope.frontier(points.where(points.n_tokens >= stored[0]), "bins", budgets)
        return [np.polyfit(np.log(found.flops), np.log(y), 1)[0] for y in (found.n_params, found.loss)]

    kaplan, hoffmann = np.geomspace(10**12.95, 10**20.7, 100), np.geomspace(10**13.4, 10**20.7, 100)
    assert slopes(small, kaplan, True) == pytest.approx([exponent, loss_exponent], abs=5e-4)
    assert slopes(whole, hoffmann, True)[0] == pytest.approx(total, abs=0.005)
    assert slopes(small, kaplan, False) == pytest.approx([exponent, loss_exponent], abs=0.006)
    assert slopes(whole, hoffmann, False)[0] == pytest.approx(laws.allocation_exponent(params), abs=0.01)


def test_truncated_points_bias_the_slope():
    """Fails when points of the smallest or largest size, or of a size's first or last tokens, enter the slope."""
    true = laws.allocation_exponent(TRUTH)
    every, free = (envelope.estimate(curves(), only_free=only, draws=0) for only in (False, True))
    assert every.a - true < -0.03
    assert abs(free.a - true) < 1e-3 and abs(free.d_line.slope - (1 - true)) < 1e-3
    reasons = set(free.frontier.truncated[~free.frontier.free])
    assert reasons == {"of the smallest size", "of the largest size"}
    short = curves()
    # D below 5 tokens per parameter only: no size reaches its optimum, and each hands over to the next at its end.
    with pytest.raises(fit.FitError, match="at the end of their size's runs"):
        envelope.estimate(short.where(short.n_tokens < 9 * short.n_params), draws=0)
    binned = envelope.estimate(curves(40), "bins", draws=0)
    assert abs(binned.a - true) < 0.006 and not binned.frontier.free.all()


def test_the_rising_part_is_cut_off():
    """Fails when the hull goes on past the least loss, where a run that came apart is the only one with so much compute."""
    points = curves()
    worse = np.where(points.flops > np.median(points.flops), points.flops / np.median(points.flops), 1.0) ** 0.3
    found = envelope.frontier(dataclasses.replace(points, loss=points.loss * worse))
    assert (np.diff(found.loss) < 0).all() and found.flops[-1] < 0.9 * points.flops.max()


def test_interval_covers():
    """Fails when draws do not resample runs or reuse the frontier of all of them: 90 % intervals then cover far less."""
    hits, widths = 0, []
    for seed in range(20):
        found = envelope.estimate(curves(16, 0.003, seed, 20), draws=100, seed=seed)
        lo, hi = found.n_line.interval(0.9)
        hits += lo <= laws.allocation_exponent(TRUTH) <= hi
        widths.append(hi - lo)
        assert found.clusters == 16 and found.lost < 15
    assert hits >= 15 and np.mean(widths) < 0.15


def test_all_runs_of_a_trunk_move_together():
    """Fails when runs instead of clusters are drawn: with three clusters there are only seven different sets."""
    points = curves(12)
    points = dataclasses.replace(points, cluster=(points.run.astype(int) % 3).astype(str))
    found = envelope.estimate(points, draws=200)
    assert found.clusters == 3 and len(np.unique(found.n_line.slopes.round(12))) <= 7


def test_curves_of_a_sweep(tmp_path):
    """Fails when branches or diverged runs enter, FLOPs are not the table's convention, or N is not its definition."""
    folder = synthetic.write_sweep(tmp_path / "ladder", diverged=("causal-75K-trunk",))
    for n_definition, convention in (("non_embedding", "matmul_causal"), ("total", "6N")):
        table = load.runs(folder, n_definition, convention)
        points = envelope.from_curves(load.curves(folder, table), table)
        rows = {r.id: r for r in table.rows}
        assert set(points.run) == {r for r in rows if r.endswith("trunk")} - {"causal-75K-trunk"}
        assert set(points.cluster) == set(points.run)
        for run in set(points.run):
            at = points.run == run
            assert set(points.n_params[at]) == {rows[run].n_params}
            assert points.flops[at] / points.n_tokens[at] == pytest.approx(rows[run].flops / rows[run].n_tokens)
            assert points.n_tokens[at].max() == pytest.approx(rows[run].n_tokens)
    assert "5 constant-rate trunks" in points.notes[0]
    few = [c for c in load.curves(folder, table) if c.size in ("50K", "100K")]
    with pytest.raises(fit.FitError, match="2 sizes have a training curve"):
        envelope.from_curves(few, table)


def test_smoothing_follows_the_curve():
    """Fails when smoothing lags behind a falling loss, at the end of a run above all, or leaves the noise in."""
    tokens = np.linspace(0, 2e9, 1001)[1:]
    loss = laws.CHINCHILLA.loss(TRUTH, 1e8, tokens)
    at, value = envelope.smoothed(tokens, loss)
    exact = laws.CHINCHILLA.loss(TRUTH, 1e8, at)
    assert at[-1] == pytest.approx(2e9) and at[0] == pytest.approx(1e8)
    assert np.abs(np.log(value / exact)).max() < 3e-4
    noisy = envelope.smoothed(tokens, loss * np.exp(0.02 * np.random.default_rng(0).standard_normal(1000)))[1]
    assert np.std(np.log(noisy / exact)) < 0.004
    sparse = envelope.smoothed(tokens[::100], loss[::100])
    assert np.isfinite(sparse[1]).all() and len(sparse[0]) == 9


def test_no_curves():
    """Fails when the rows of a table without curves are taken for some."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    with pytest.raises(fit.FitError, match="no training curves: 0 runs have 5 or more rows"):
        envelope.from_table(load.table(n, d, laws.CHINCHILLA.loss(TRUTH, n, d)))
    with pytest.raises(ValueError, match="one of hull, bins"):
        envelope.frontier(curves(), "chain")
