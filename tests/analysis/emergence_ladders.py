"""Simulated ladders whose verdict is known, with companions that agree with the truth."""

from __future__ import annotations

import numpy as np

from analysis.emergence.ability import Ability

SIZES = 6
ITEMS = 500
CHANCE = 0.25
DECADES = np.linspace(18.0, 20.5, SIZES)  # log10 FLOPs of the six sizes


def ability(
    hits: np.ndarray, chance: float, nll: np.ndarray | None = None, x: np.ndarray = DECADES, n: int = ITEMS, **more
) -> Ability:
    """An ability of counts (P,) at log10 FLOPs x; loss falls as a power law unless given."""
    count = len(x)
    known = {
        "flops": 10.0**x, "n": np.full(count, float(n)), "loss": 1.0 + 3.0 * 10 ** (-0.15 * (x - 18)),
        "n_params": 10 ** (x / 2), "clusters": tuple(map(str, range(count))), "seeds": (0,) * count,
        "companions": {} if nll is None else {"nll": nll},
    }  # fmt: skip
    return Ability("simulated", "exact match" if chance == 0 else "accuracy", chance, hits=hits.astype(float), **(known | more))


def flat(rng: np.random.Generator) -> Ability:
    """At chance everywhere, and so is the probability of the right answer."""
    return ability(rng.binomial(ITEMS, CHANCE, SIZES), CHANCE, _noisy(rng, np.full(SIZES, np.log(4))))


def smooth(rng: np.random.Generator) -> Ability:
    """Logit-linear in log compute, from .25–.4 to .5–.95; the nats of the right answer are −log of it."""
    start, end = rng.uniform(0.25, 0.4), rng.uniform(0.5, 0.95)
    p = 1 / (1 + np.exp(-np.linspace(np.log(start / (1 - start)), np.log(end / (1 - end)), SIZES)))
    return ability(rng.binomial(ITEMS, p), CHANCE, _noisy(rng, -np.log(p)))


def step(rng: np.random.Generator) -> Ability:
    """.25, then .9 from some size on; the nats jump with it."""
    p = np.where(np.arange(SIZES) < rng.integers(1, SIZES), CHANCE, 0.9)
    return ability(rng.binomial(ITEMS, p), CHANCE, _noisy(rng, -np.log(p)))


def power(rng: np.random.Generator) -> Ability:
    """Exact match of ten tokens, p^10 with p logit-linear from .4–.55 to .95–.99."""
    start, end = rng.uniform(0.4, 0.55), rng.uniform(0.95, 0.99)
    p = 1 / (1 + np.exp(-np.linspace(np.log(start / (1 - start)), np.log(end / (1 - end)), SIZES)))
    return ability(rng.binomial(ITEMS, p**10), 0.0, _noisy(rng, -np.log(p)), length=10.0)


def power_law(rng: np.random.Generator) -> Ability:
    """Exact match of ten tokens, p^10 with −log p a power law of compute, from 1–.5 to .08–.02 nats (Schaeffer et al. 2023)."""
    nll = np.geomspace(rng.uniform(0.5, 1.0), rng.uniform(0.02, 0.08), SIZES)
    return ability(rng.binomial(ITEMS, np.exp(-10 * nll)), 0.0, _noisy(rng, nll), length=10.0)


def _noisy(rng: np.random.Generator, nll: np.ndarray) -> np.ndarray:
    return nll * np.exp(0.01 * rng.standard_normal(len(nll)))


def bare(a: Ability) -> Ability:
    """The same without its companions."""
    import dataclasses

    return dataclasses.replace(a, companions={})


def trunks(kind: str, rng: np.random.Generator, over: float = 3.0) -> Ability:
    """Six sizes with four budgets each, checkpoints of one trunk per size: scores follow the loss, which follows N and D.

    Args:
      kind: 'flat', 'smooth' or 'step', in the loss.
      over: variance of a run's score over counting's, all of a trunk's checkpoints moving half together.
    """
    n_params = np.repeat(np.geomspace(5e4, 6e5, 6), 4)
    n_tokens = np.tile(np.array([0.3e6, 0.6e6, 1.2e6, 2.4e6]), 6)
    loss = 0.8 + 20 / n_params**0.3 + 30 / n_tokens**0.3
    order = np.argsort(n_params * n_tokens, kind="stable")
    n_params, n_tokens, loss = n_params[order], n_tokens[order], loss[order]
    t = (loss.max() - loss) / np.ptp(loss)
    p = {"flat": 0 * t + CHANCE, "smooth": CHANCE + 0.6 * t, "step": np.where(t < 0.6, CHANCE, 0.9)}[kind]
    trunk = np.unique(n_params, return_inverse=True)[1]
    scale = 0.0 if kind == "flat" else np.sqrt(over - 1) * np.sqrt(p * (1 - p) / ITEMS)
    run = scale * (rng.standard_normal(6)[trunk] + rng.standard_normal(24)) / np.sqrt(2)
    p = np.clip(p + run, 0.0, 1.0)
    nll = -np.log(np.maximum(p, 1e-3))
    return ability(
        rng.binomial(ITEMS, p), CHANCE, _noisy(rng, nll), x=np.log10(6 * n_params * n_tokens), loss=loss, n_params=n_params,
        clusters=tuple(str(i) for i in trunk),
    )  # fmt: skip
