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

BROAD = 1 / 3  # share of the ladder that a rise from 10 to 90 % takes at least, if it is to be called gradual
DRAWS = 200
SAME = 2.0  # of QAICc: below, two shapes are not told apart
PLAIN = 40.0  # log-likelihood over phi beyond which no bootstrap is needed
_ALL = ("linear", "hinge", "step", "sigmoid", "sigmoid_top")
_GRADUAL = ("linear", "hinge", "sigmoid", "sigmoid_top")


def compare(curves: Curves, draws: int = DRAWS, counted: bool = True, seed: int = 0) -> list[Selection]:
    """Fits and compares all shapes, of every curve.

    Args:
      curves: B curves of at least four different x.
      draws: simulated curves per comparison and curve; 0: no bootstrap, p-values are NaN.
      counted: whether n is the true number of items, so that phi is at least 1.
      seed: of the draws.
    """
    fits = shapes.fit(curves)
    phi = dispersion(curves, fits, counted)
    models = (curves.n > 0).sum(1)
    qaicc = np.stack([_qaicc(f, phi, models) for f in fits.values()])  # (shapes, B)
    delta = qaicc - qaicc.min(0)
    weights = np.exp(-delta / 2)
    weights /= weights.sum(0)
    p_step, p_hinge, p_broad = _bootstraps(curves, fits, phi, draws, np.random.default_rng(seed))
    out = []
    for i in range(len(curves.hits)):
        of = {name: float(d) for name, d in zip(fits, delta[:, i], strict=True)}
        winner = min(of, key=lambda name: (round(of[name], 2), list(fits).index(name)))
        out.append(
            Selection(
                {name: f.theta[i] for name, f in fits.items()}, of,
                {name: float(w) for name, w in zip(fits, weights[:, i], strict=True)},
                float(phi[i]), int(models[i]), winner, said(of, winner), float(p_step[i]), float(p_hinge[i]),
                float(p_broad[i]), curves.floor,
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


def _qaicc(f: Fitted, phi: np.ndarray, models: np.ndarray) -> np.ndarray:
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


def _bootstraps(
    curves: Curves, fits: dict[str, Fitted], phi: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p-values (B,) of: a step against sigmoids; a straight line against a hinge; a broad rise against any."""
    broad = shapes.fit(curves, _GRADUAL, broad=BROAD)
    best = np.argmin(np.stack([f.nll for f in broad.values()]), axis=0)
    p_broad = np.stack([shapes.scores(name, f.theta, curves.x, curves.floor) for name, f in broad.items()])
    tests = [
        (("step",), ("sigmoid", "sigmoid_top"), 0.0, _curve("step", fits["step"], curves), fits),
        (("linear",), ("hinge",), 0.0, _curve("linear", fits["linear"], curves), fits),
        (_GRADUAL, _ALL, BROAD, p_broad[best, np.arange(len(best))], broad),
    ]
    out = []
    for simple, rich, width, p, null in tests:
        gains = _gain([null[name] for name in simple], [fits[name] for name in rich], phi)
        open_ = np.flatnonzero((gains > 1e-3) & (gains < PLAIN))
        values = np.where(gains >= PLAIN, 1 / (draws + 1), 1.0) if draws else np.full(len(gains), np.nan)
        if draws and len(open_):
            values[open_] = _p_values(curves.take(open_), simple, rich, width, p[open_], phi[open_], gains[open_], draws, rng)
        out.append(values)
    return out[0], out[1], out[2]


def _curve(name: str, f: Fitted, curves: Curves) -> np.ndarray:
    return shapes.scores(name, f.theta, curves.x, curves.floor)


def _gain(simple: Sequence[Fitted], rich: Sequence[Fitted], phi: np.ndarray) -> np.ndarray:
    return (np.min([f.nll for f in simple], axis=0) - np.min([f.nll for f in rich], axis=0)) / phi


def _p_values(
    curves: Curves, simple: Sequence[str], rich: Sequence[str], width: float, p: np.ndarray, phi: np.ndarray,
    gains: np.ndarray, draws: int, rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Shares of curves simulated from p (B, P) in which the rich shapes gain as much over the simple ones as in the data."""
    b = len(p)
    n = np.repeat(curves.n, draws, axis=0)
    hits = simulated(np.repeat(p, draws, axis=0), n, np.repeat(phi, draws), rng)
    again = Curves(curves.x, hits, np.round(n), curves.floor)
    richer = shapes.fit(again, rich, starts=2)
    simpler = shapes.fit(again, simple, starts=2, broad=width) if width else {name: richer[name] for name in simple if name in richer}
    simpler |= shapes.fit(again, [name for name in simple if name not in simpler], starts=2)
    found = _gain(list(simpler.values()), list(richer.values()), dispersion(again, simpler | richer)).reshape(b, draws)
    return (1 + np.sum(found >= gains[:, None] - 1e-9, axis=1)) / (draws + 1)
