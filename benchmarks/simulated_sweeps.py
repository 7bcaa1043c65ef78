"""Simulated sweeps whose truth is not always the law that is fitted: where the calibration of bands was worked out.

Five designs (IsoFLOP grid, scattered points, runs with checkpoints, a grid of tokens per parameter, a small ladder of trunks),
each under four truths (the separable law, a coupled one, power laws whose exponents fade with scale, tuning that drifts off),
with noise that grows with the loss, is partly shared by the rows of a run, and has a few outliers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis import load

DESIGNS = ("isoflop", "points", "runs", "grid", "ladder")
TRUTHS = ("separable", "coupled", "curved", "drift")


def design(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, tokens and the run that each row belongs to."""
    if kind == "isoflop":
        c = np.repeat(np.geomspace(6e18, 3e21, 9), 11)
        n = np.sqrt(c / 120) * np.tile(np.geomspace(0.25, 4, 11), 9) * np.exp(0.1 * rng.standard_normal(len(c)))
        return n, c / (6 * n), np.arange(len(c))
    if kind == "points":
        c = np.exp(rng.uniform(np.log(1e18), np.log(3e21), 180))
        n = np.sqrt(c / 120) * np.exp(0.8 * rng.standard_normal(len(c)))
        return n, c / (6 * n), np.arange(len(c))
    if kind == "runs":
        n, d = np.repeat(np.geomspace(5e7, 2e9, 16), 8), np.tile(np.linspace(1e10, 1.2e11, 8), 16)
        return n, d, np.repeat(np.arange(16), 8)
    if kind == "grid":
        n = np.repeat(np.geomspace(2e7, 1e9, 8), 5)
        return n, n * np.tile([5.0, 10.0, 20.0, 40.0, 80.0], 8), np.arange(40)
    n = np.repeat(np.geomspace(1e7, 8e7, 6), 3)
    return n, n * np.tile([10.0, 20.0, 40.0], 6), np.repeat(np.arange(6), 3)


def losses(truth: str, n: np.ndarray, d: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noiseless; at the middle of the design each shortage costs 0.3 to 0.6 nats over a floor of 1.3 to 2."""
    x, y = np.log(n) - np.log(n).mean(), np.log(d) - np.log(d).mean()
    alpha, beta = rng.uniform(0.22, 0.45, 2)
    floor, of_n, of_d = rng.uniform(1.3, 2.0), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.6)
    bend = rng.uniform(0.01, 0.03) if truth == "curved" else 0.0
    short_n, short_d = of_n * np.exp(-alpha * x + bend * x**2), of_d * np.exp(-beta * y + bend * y**2)
    k = rng.uniform(0.3, 0.7) if truth == "coupled" else 1.0
    out = floor + (short_n ** (1 / k) + short_d ** (1 / k)) ** k
    if truth == "drift":
        scale = (x + y - (x + y).min()) / np.ptp(x + y)
        out = out * (1 + rng.uniform(0.005, 0.02) * scale**2)
    return np.asarray(out)


def sweep(kind: str, truth: str, seed: int, noise: float | None = None) -> load.Table:
    """One table; ``noise`` is the sd of log loss, by default 0.1 to 0.8 % (at most 0.3 % in a ladder)."""
    rng = np.random.default_rng([seed, DESIGNS.index(kind), TRUTHS.index(truth)])
    n, d, run = design(kind, rng)
    exact = losses(truth, n, d, rng)
    sd = (rng.uniform(0.001, 0.003) if kind == "ladder" else rng.uniform(0.001, 0.008)) if noise is None else noise
    shared = rng.standard_normal(run.max() + 1)[run] if len(set(run)) < len(run) else 0.0
    single = rng.standard_normal(len(n)) * np.where(rng.random(len(n)) < 0.03, 5.0, 1.0)
    spread = sd * exact / np.median(exact)
    return load.table(n, d, exact * np.exp(spread * (0.6 * shared + 0.8 * single)), [f"run {r}" for r in run])


def sweeps(seeds: range) -> Iterator[tuple[str, load.Table]]:
    """Every design under every truth."""
    for seed in seeds:
        for kind in DESIGNS:
            for truth in TRUTHS:
                yield f"{kind}, {truth}, {seed}", sweep(kind, truth, seed)
