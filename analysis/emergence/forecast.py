"""Leave-largest-out: what all models but those of the largest compute said about these."""

from __future__ import annotations

import numpy as np

from analysis.emergence import selection, shapes
from analysis.emergence.shapes import Curves
from analysis.emergence.verdict import Forecast

LEVEL = 0.9
DRAWS = 200
FEWEST = 5  # different values of compute that are left


def largest(curves: Curves, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> list[Forecast] | None:
    """A forecast for every curve's largest compute, from the others; None where fewer than five x are left.

    The interval holds three doubts: which shape (each is drawn by its QAICc weight), its parameters (refitted to a redrawn
    curve) and the scatter of the new model's own score, with an over-dispersion that is itself in doubt.
    """
    last = curves.x == curves.x[-1]
    if len(np.unique(curves.x[~last])) < FEWEST:
        return None
    known = Curves(curves.x[~last], curves.hits[:, ~last], curves.n[:, ~last], curves.floor)
    fits = shapes.fit(known)
    phi = selection.dispersion(known, fits)
    models = (known.n > 0).sum(1)
    qaicc = np.stack([selection.penalised(f, phi, models) for f in fits.values()], axis=1)  # (B, shapes)
    weights = np.exp(-(qaicc - qaicc.min(1, keepdims=True)) / 2)
    weights /= weights.sum(1, keepdims=True)
    at, b, rng = curves.x[last][:1], len(qaicc), np.random.default_rng(seed)
    shape = (rng.random((b, draws, 1)) > np.cumsum(weights, axis=1)[:, None, :-1]).sum(-1).ravel()
    row = np.repeat(np.arange(b), draws)
    left = np.maximum(models - 2, 1)
    spread = np.maximum(phi[row] * left[row] / rng.chisquare(left[row]), 1.0)  # phi is known from few models only
    predicted = np.empty(b * draws)
    for i, (name, f) in enumerate(fits.items()):
        mine = np.flatnonzero(shape == i)
        if not len(mine):
            continue
        p = shapes.scores(name, f.theta, known.x, known.floor)[row[mine]]
        n = np.round(known.n[row[mine]])
        again = Curves(known.x, selection.simulated(p, n, spread[mine], rng), n, known.floor)
        refit = shapes.fit(again, (name,), starts=1, exact=False)[name]
        predicted[mine] = shapes.scores(name, refit.theta, at, known.floor)[:, 0]
    hits, n = curves.hits[:, last].sum(1), curves.n[:, last].sum(1)
    items = np.maximum(np.round(n), 1)
    measured = selection.simulated(predicted[:, None], np.repeat(items, draws)[:, None], spread, rng)[:, 0]
    ends = np.quantile((measured / np.repeat(items, draws)).reshape(b, draws), [(1 - level) / 2, (1 + level) / 2], axis=1)
    middle = np.median(predicted.reshape(b, draws), axis=1)  # as the interval's ends: a mean over shapes may lie beyond them
    return [
        Forecast(float(at[0]), float(hits[i] / max(n[i], 1)), float(middle[i]), (float(ends[0, i]), float(ends[1, i])), level)
        for i in range(b)
    ]
