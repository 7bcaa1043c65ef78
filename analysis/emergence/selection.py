"""Which shape a curve has: QAICc, and parametric bootstraps of the comparisons that it cannot settle.

QAICc = −2 log L / phi + 2 k + 2 k (k + 1) / (N − k − 1), where k counts the shape's parameters and phi (Burnham & Anderson
2002, section 2.5).  Scores of models from many families scatter far more than counting does (phi = 436 over 120 public models,
against 1.1 over one family's ladder): without phi every comparison would be falsely decisive.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.emergence import shapes
from analysis.emergence.shapes import Curves, Fitted
from analysis.emergence.verdict import Selection

BROAD = 0.4  # share of the ladder that the middle 80 % of a gradual rise takes at least: half of a straight line's
DRAWS = 200
POINTS = 101  # at which a fitted curve's rise is followed
SAME = 2.0  # of QAICc: below, two shapes are not told apart
PLAIN = 12.0  # log-likelihood over phi beyond which no bootstrap is needed: chi2 of 24, p = 1e-6 of one parameter


def compare(curves: Curves, draws: int = DRAWS, counted: bool = True, brief: bool = False, seed: int = 0) -> list[Selection]:
    """Fits and compares all shapes, of every curve.

    Args:
      curves: B curves of at least four different x.
      draws: simulated curves per comparison and curve.
      counted: whether n is the true number of items; else the scatter alone says what a score is worth.
      brief: leave out the p-values of a step and of a hinge, which are then NaN.
      seed: of the draws.
    """
    fits = shapes.fit(curves)
    if not counted:  # as many items as the scatter about the best shape says
        worth = dispersion(curves, fits, counted)[:, None]
        curves = Curves(curves.x, curves.hits / worth, curves.n / worth, curves.floor)
        fits = shapes.fit(curves)
    phi = dispersion(curves, fits)
    models = (curves.n > 0).sum(1)
    qaicc = np.stack([penalised(f, phi, models) for f in fits.values()])  # (shapes, B)
    delta = qaicc - qaicc.min(0)
    weights = np.exp(-delta / 2)
    weights /= weights.sum(0)
    rng = np.random.default_rng(seed)
    middle, p_broad = _broad(curves, fits, np.argmin(qaicc, axis=0), phi, draws, rng)
    if brief:
        p_step = p_hinge = np.full(len(phi), np.nan)
    else:
        p_step = _nested(curves, fits, "step", ("sigmoid", "sigmoid_top"), draws, rng)
        p_hinge = _nested(curves, fits, "linear", ("hinge",), draws, rng)
    out = []
    for i in range(len(curves.hits)):
        of = {name: float(d) for name, d in zip(fits, delta[:, i], strict=True)}
        winner = min(of, key=lambda name: (round(of[name], 2), list(fits).index(name)))
        out.append(
            Selection(
                {name: f.theta[i] for name, f in fits.items()}, of,
                {name: float(w) for name, w in zip(fits, weights[:, i], strict=True)},
                float(phi[i]), int(models[i]), winner, said(of, winner), float(p_step[i]), float(p_hinge[i]),
                float(middle[i]), float(p_broad[i]), curves.floor,
            )
        )  # fmt: skip
    return out


def said(delta: dict[str, float], winner: str) -> str:
    """The winner as it may be said; a straight line and a hinge that QAICc does not tell apart are one class."""
    pair = ("linear", "hinge")
    if winner in pair and abs(delta["linear"] - delta["hinge"]) < SAME:
        return "linear or hinge"
    return winner.replace("_", " with free ")


def dispersion(curves: Curves, fits: dict[str, Fitted], counted: bool = True) -> np.ndarray:
    """(B,) phi: the least Pearson chi2 / (models − parameters) of the shapes."""
    models = (curves.n > 0).sum(1)
    ratios = [f.chi2 / np.where(models > f.theta.shape[1], models - f.theta.shape[1], np.nan) for f in fits.values()]
    phi = np.fmin.reduce(ratios)
    return np.maximum(np.nan_to_num(phi, nan=1.0), 1.0 if counted else 1e-6)


def penalised(f: Fitted, phi: np.ndarray, models: np.ndarray) -> np.ndarray:
    """QAICc (B,) of a shape; infinite where it has too many parameters for the models."""
    k = f.theta.shape[1] + 1
    left = models - k - 1
    return np.where(left > 0, 2 * f.nll / phi + 2 * k + 2 * k * (k + 1) / np.maximum(left, 1), np.inf)


def simulated(p: np.ndarray, n: np.ndarray, phi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts about p (B, P) of n items each, with over-dispersion phi (B,): binomial, beta-binomial from phi 1.01 on."""
    items = np.maximum(np.round(n), 0).astype(int)
    spread = np.clip(phi[:, None], 1.0, np.maximum(n / 2, 1.01))
    more = spread > 1.01
    if more.any():
        both = np.where(more, (np.maximum(n, 2) - spread) / np.maximum(spread - 1, 1e-3), 1e9)
        p = np.where(more, rng.beta(np.maximum(p * both, 1e-12), np.maximum((1 - p) * both, 1e-12)), p)
    return rng.binomial(items, p).astype(float)


# ---- bootstraps


def _nested(
    curves: Curves, fits: dict[str, Fitted], simple: str, rich: Sequence[str], draws: int, rng: np.random.Generator
) -> np.ndarray:
    """(B,) shares of curves simulated from the simple shape in which the rich ones gain as much over it as in the data."""
    gains = _gain(fits[simple], [fits[name] for name in rich], dispersion(curves, {n: fits[n] for n in (simple, *rich)}))
    values = np.where(gains >= PLAIN, 1 / (draws + 1), 1.0)
    rows = np.flatnonzero((gains > 1e-3) & (gains < PLAIN))
    if len(rows):
        phi = dispersion(curves, fits)[rows]
        again = _redrawn(
            curves.take(rows), shapes.scores(simple, fits[simple].theta[rows], curves.x, curves.floor), phi, draws, rng
        )
        new = shapes.fit(again, (simple, *rich), starts=1)
        found = _gain(new[simple], [new[name] for name in rich], dispersion(again, new)).reshape(len(rows), draws)
        values[rows] = (1 + np.sum(found >= gains[rows, None] - 1e-9, axis=1)) / (draws + 1)
    return values


def _gain(simple: Fitted, rich: Sequence[Fitted], phi: np.ndarray) -> np.ndarray:
    return (simple.nll - np.min([f.nll for f in rich], axis=0)) / phi


def _redrawn(curves: Curves, p: np.ndarray, phi: np.ndarray, draws: int, rng: np.random.Generator) -> Curves:
    """(B × draws) curves about p (B, P)."""
    n = np.repeat(np.round(curves.n), draws, axis=0)
    hits = simulated(np.repeat(p, draws, axis=0), n, np.repeat(phi, draws), rng)
    return Curves(curves.x, hits, n, curves.floor)


def _broad(
    curves: Curves, fits: dict[str, Fitted], best: np.ndarray, phi: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(B,) shares of the ladder that the middle 80 % of the best shape's rise takes, and of redraws in which it is broad.

    Each redraw chooses its own shape anew, so that not knowing the shape counts.
    """
    names = list(fits)
    at = np.linspace(curves.x[0], curves.x[-1], POINTS)
    share = shapes.middle_share(_of_best(names, fits, best, at, curves.floor))
    values = np.ones(len(share))
    rows = np.flatnonzero(share < BROAD)
    if draws and len(rows):
        p = _of_best(names, {k: _rows(f, rows) for k, f in fits.items()}, best[rows], curves.x, curves.floor)
        again = _redrawn(curves.take(rows), p, phi[rows], draws, rng)
        new = shapes.fit(again, starts=1, exact=False)
        models = (again.n > 0).sum(1)
        chosen = np.argmin([penalised(f, dispersion(again, new), models) for f in new.values()], axis=0)
        wide = shapes.middle_share(_of_best(names, new, chosen, at, curves.floor)) >= BROAD
        values[rows] = (1 + wide.reshape(len(rows), draws).sum(1)) / (draws + 1)
    return share, values


def _rows(f: Fitted, rows: np.ndarray) -> Fitted:
    return Fitted(f.shape, f.theta[rows], f.nll[rows], f.chi2[rows])


def _of_best(names: list[str], fits: dict[str, Fitted], best: np.ndarray, x: np.ndarray, floor: float) -> np.ndarray:
    """(B, len(x)) scores, each curve by its own shape, numbered in ``best``."""
    out = np.empty((len(best), len(x)))
    for i, name in enumerate(names):
        rows = np.flatnonzero(best == i)
        out[rows] = shapes.scores(name, fits[name].theta[rows], x, floor)
    return out
