"""Tuning laws: optima of bowls, laws through them, regrets against them."""

import numpy as np
import pytest

from analysis import intervals
from analysis.fit import Rows, fit_rows
from analysis.laws import DEEPSEEK_BATCH, DEEPSEEK_LR, STEP_BATCH, STEP_LR, TuningLaw, as_tuning_law, tuning_law
from analysis.laws.tuning import Optimum, cells, optima, optimum, regret

LRS = 2.0 ** np.arange(-13, -4)
BATCHES = 32768 * 2.0 ** np.arange(0, 8)
SIZES, TOKENS = (6e7, 1.2e8, 2.7e8, 4.3e8, 5.4e8, 1.1e9), (2e9, 8e9, 2e10)


def sweep(noise: float = 0.0, lr=STEP_LR, batch=STEP_BATCH) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A grid of rates and batches in every cell, with a tilted bowl (the best rate grows with the batch) around the laws."""
    n, d, x, y = (v.ravel() for v in np.meshgrid(SIZES, TOKENS, LRS, BATCHES, indexing="ij"))
    columns = {"N": n, "D": d, "lr": x, "batch": y}
    u, v = np.log(x / lr.at(columns)), np.log(y / batch.at(columns))
    loss = 2.5 + 1e8 / n + 0.02 * u**2 - 0.015 * u * v + 0.012 * v**2
    return columns, loss + noise * np.random.default_rng(0).standard_normal(len(loss))


def test_published_laws_at_their_own_numbers():
    """Fails when a coefficient, an exponent or C = 6ND is not what was published."""
    at = {"N": 1e9, "D": 1e11}
    assert STEP_LR.at(at) == pytest.approx(1.79 * 1e9**-0.713 * 1e11**0.307, rel=1e-12)
    assert STEP_BATCH.at({"D": 1e11}) == pytest.approx(1.107e6, rel=1e-3)
    assert DEEPSEEK_LR.at({"C": 1e20}) == pytest.approx(0.3118 * 10**-2.5, rel=1e-12)
    assert DEEPSEEK_BATCH.at(at) == pytest.approx(DEEPSEEK_BATCH.at({"C": 6e20}))
    assert DEEPSEEK_BATCH.latex == r"\mathrm{batch}^* = 0.292\,C^{0.3271}"
    assert all("arXiv" in law.source for law in (STEP_LR, STEP_BATCH, DEEPSEEK_LR, DEEPSEEK_BATCH))


def test_optima_of_exact_bowls_and_their_laws():
    """Fails when the tilt of a bowl is ignored, neighbours are another cell's, or the law's logarithms are mixed up."""
    found = [optimum(c) for c in cells(*sweep())]
    assert all(o.best for o in found) and len(found) == len(SIZES) * len(TOKENS)
    for o in found:
        assert o.best == pytest.approx({"lr": STEP_LR.at(o.at), "batch": STEP_BATCH.at(o.at)}, rel=1e-8)
        assert o.loss == pytest.approx(2.5 + 1e8 / o.at["N"], rel=1e-10)
    columns, best = optima(found, "lr")
    mine = fit_rows(Rows.of(columns, best), tuning_law("lr"), loss="squared")
    assert mine.params == pytest.approx({"c": 1.79, "p_N": -0.713, "p_D": 0.307}, rel=1e-6)
    columns, best = optima(found, "batch")
    mine = fit_rows(Rows.of({"D": columns["D"]}, best), tuning_law("batch", ("D",)), loss="squared")
    law = as_tuning_law(mine.law, mine.params)
    assert law.at({"D": 1e11}) == pytest.approx(STEP_BATCH.at({"D": 1e11}), rel=1e-6)


def test_intervals_resample_cells():
    """Fails when the noise of losses does not reach the exponents' intervals, or they miss the truth."""
    columns, best = optima([optimum(c) for c in cells(*sweep(noise=0.0008))], "lr")
    assert len(best) >= 15
    boot = intervals.bootstrap(fit_rows(Rows.of(columns, best), tuning_law("lr"), loss="squared"), 300, kind="case")
    lo, hi = boot.intervals(0.98)["p_N"]
    assert lo < -0.713 < hi and 0.005 < hi - lo < 0.3


def test_regret_of_the_truth_is_small_and_of_another_law_is_not():
    """Fails when the nearest point is not nearest in logarithms, or its loss is compared with another cell's minimum."""
    found = cells(*sweep())
    at_truth = regret(found, {"lr": STEP_LR, "batch": STEP_BATCH})
    assert max(r.distance for r in at_truth) <= np.log(2) / 2 + 1e-9  # half a step of the grid
    assert 0 <= np.mean([r.part for r in at_truth]) < 0.002
    off = TuningLaw("lr", 8 * STEP_LR.coefficient, STEP_LR.exponents, "eight times as high")
    worse = regret(found, {"lr": off, "batch": STEP_BATCH})
    one = worse[0]
    expected = 0.02 * np.log(one.nearest["lr"] / STEP_LR.at(one.at)) ** 2
    assert np.mean([r.part for r in worse]) > 10 * np.mean([r.part for r in at_truth])
    assert one.part == pytest.approx(expected / (2.5 + 1e8 / one.at["N"]), rel=0.3)
    with pytest.raises(ValueError, match="laws of batch: the cells tuned lr"):
        regret(cells({"N": [1, 1], "lr": [1, 2]}, [3.0, 2.0]), {"batch": STEP_BATCH})


def test_a_law_into_divergence_regrets_infinitely():
    """Fails when a diverged point is passed over in silence for a finite one."""
    found = cells({"N": [1e8] * 3, "D": [1e9] * 3, "lr": [1e-3, 2e-3, 4e-3]}, [2.5, 2.4, np.nan])
    (one,) = regret(found, {"lr": TuningLaw("lr", 4e-3, {}, "constant")})
    assert one.part == np.inf and one.best == {"lr": 2e-3}
    assert optimum(found[0]) == Optimum(found[0].at, {}, 2.4, "has too few finite neighbours of its lowest loss")


@pytest.mark.parametrize(
    ("rates", "losses", "why"),
    [
        ([1, 2, 4, 8], [2.0, 2.1, 2.3, 2.6], "its lowest loss is at the edge of the grid of lr (1)"),
        ([1, 2, 4], [2.0, 2.0, 2.0], "edge"),
        ([3], [2.0], "has one grid point"),
    ],
)
def test_cells_without_an_optimum_say_why(rates, losses, why):
    """Fails when a vertex is quoted at the edge of a grid, or of points that bend no way."""
    (cell,) = cells({"N": [1.0] * len(rates), "lr": rates}, losses)
    assert optimum(cell).best == {} and why in optimum(cell).why
    with pytest.raises(ValueError, match="no cell has an optimum of lr"):
        optima([optimum(cell)], "lr")


def test_seeds_are_averaged_and_bad_columns_are_named():
    """Fails when the last of two seeds wins, or a zero rate is taken by its logarithm."""
    (cell,) = cells({"N": [1, 1, 1, 1], "lr": [1, 2, 4, 2]}, [2.0, 1.0, 2.0, 1.4])
    assert np.allclose(cell.loss, [2.0, 1.2, 2.0])
    assert optimum(cell).best["lr"] == pytest.approx(2.0)
    with pytest.raises(ValueError, match="column lr, row 1: 0 must be positive"):
        cells({"N": [1, 1], "lr": [1, 0]}, [2.0, 2.0])
    with pytest.raises(ValueError, match="one must be lr or batch"):
        cells({"N": [1]}, [2.0])
    with pytest.raises(ValueError, match="no run of N=1 has a finite loss"):
        cells({"N": [1], "lr": [1]}, [np.inf])
