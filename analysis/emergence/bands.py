"""The band about a fitted shape: refits to scores redrawn from it with the scatter that was found."""

from __future__ import annotations

import numpy as np

from analysis.emergence import shapes
from analysis.emergence.verdict import Verdict


def band(verdict: Verdict, x: np.ndarray, level: float, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the pointwise interval of the winning shape at log10 FLOPs ``x`` (X,).

    Scores are redrawn about the shape with phi times the variance of counting and the same shape is fitted to every redraw, so
    the band is that of the shape's parameters, given the shape.

    Raises:
      ValueError: for a verdict without a shape.
    """
    a, s = verdict.ability, verdict.selection
    if s is None:
        raise ValueError(f"{a.task}: no shape was fitted")
    known = np.isfinite(a.hits)
    at, n = np.log10(a.flops[known]), a.n[known]
    p = s.curve(at)
    noise = np.random.default_rng(0).standard_normal((draws, len(at))) * np.sqrt(max(1.0, s.phi) * p * (1 - p) / n)
    curves = shapes.Curves(at, np.clip(p + noise, 0.0, 1.0) * n, np.broadcast_to(n, noise.shape), s.floor)
    theta = shapes.fit(curves, (s.winner,), starts=1, exact=False)[s.winner].theta
    ends = np.quantile(shapes.scores(s.winner, theta, x, s.floor), [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return ends[0], ends[1]
