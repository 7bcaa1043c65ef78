"""What follows from a fitted L(N, D) in closed form: the best N and D of a budget, and what it costs to depart from them.

At a cost C = k N^g D all of it is one formula for every law of two powers, summed or coupled: minimising
((A N^-alpha)^(1/c) + (B D^-beta)^(1/c))^c at fixed C is minimising the plain sum with A^(1/c), alpha/c, B^(1/c), beta/c.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.laws.terms import CHINCHILLA, Law


@dataclasses.dataclass(frozen=True)
class Cost:
    """Training FLOPs as C = k N^g D: 6ND is ``Cost()``; exact matmul counts of small models grow slower than N (g < 1)."""

    k: float = 6.0
    g: float = 1.0

    def flops(self, n_params: Any, n_tokens: Any) -> Any:
        return self.k * np.asarray(n_params, float) ** self.g * n_tokens

    def tokens(self, n_params: Any, flops: Any) -> Any:
        """Tokens that ``flops`` pay for at ``n_params``."""
        return flops / (self.k * np.asarray(n_params, float) ** self.g)


def measured_cost(n_params: Sequence[float], n_tokens: Sequence[float], flops: Sequence[float]) -> Cost:
    """The ``Cost`` nearest to counted FLOPs: least squares of log(C / D) on log N, exact where C = k N^g D holds."""
    x, y = np.log(np.asarray(n_params, float)), np.log(np.asarray(flops, float) / np.asarray(n_tokens, float))
    if np.ptp(x) < 1e-9:
        return Cost(float(np.exp(np.mean(y - x))))
    g, log_k = np.polyfit(x - x.mean(), y, 1)
    g = float(g) if abs(g - 1) > 1e-9 else 1.0  # rounding must not make 6ND into 6 N^0.9999999999 D
    return Cost(float(np.exp(log_k - g * x.mean())), g)


def _powers(params: Mapping[str, Any], law: Law) -> tuple[Any, Any, Any, Any, Any]:
    """log A, alpha, log B, beta and the coupling of a law of one power of N and one of D.

    Raises:
      ValueError: for a law of other terms.
    """
    found = {t.variable: t for t in law.terms if t.variable is not None}
    if sorted(found) != ["D", "N"]:
        raise ValueError(f"the {law.name} law has no allocation: it must have one power of N and one of D")
    n, d = found["N"], found["D"]
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(params[n.coefficient]), np.log(params[d.coefficient])
    return log_a, params[str(n.exponent)], log_b, params[str(d.exponent)], params[law.coupling] if law.coupling else 1.0


def has_allocation(law: Law) -> bool:
    """Whether ``law`` trades N against D, so that a budget has an optimum."""
    return sorted(str(t.variable) for t in law.terms if t.variable is not None) == ["D", "N"]


def allocation_exponent(params: Mapping[str, Any], cost: Cost | None = None, law: Law = CHINCHILLA) -> Any:
    """a of N* ~ C^a: beta / (alpha + beta) at C = k N D, beta / (alpha + g beta) at C = k N^g D; the same however coupled."""
    g = cost.g if cost else 1.0
    _, alpha, _, beta, _ = _powers(params, law)
    return beta / (alpha + g * beta)


def optimum(params: Mapping[str, Any], flops: Any, cost: Cost | None = None, law: Law = CHINCHILLA) -> tuple[Any, Any, Any]:
    """(N*, D*, L*) of least loss at a training cost of ``flops``; everything broadcasts.

    With M = N^g the constraint is C = k M D and the first-order condition alpha/g A M^(-alpha/g) = beta B D^-beta gives
    M* = G (C/k)^(beta / (alpha/g + beta)), G = (alpha/g A / (beta B))^(1 / (alpha/g + beta)) (Hoffmann et al. 2022, eq. 4); a
    coupling c divides alpha, beta and the logarithms of A and B by itself.

    Raises:
      ValueError: for a law without a power of N or of D.
    """
    cost = cost or Cost()
    log_a, alpha, log_b, beta, c = _powers(params, law)
    alpha, beta, log_a, log_b = alpha / cost.g / c, beta / c, log_a / c, log_b / c
    budget = np.asarray(flops, float) / cost.k
    log_g = (np.log(alpha) + log_a - np.log(beta) - log_b) / (alpha + beta)
    m = np.exp(log_g + beta / (alpha + beta) * np.log(budget))
    n, d = m ** (1 / cost.g), budget / m
    return n, d, law.loss(params, n, d)


def needed_flops(params: Mapping[str, Any], loss: Any, cost: Cost | None = None, law: Law = CHINCHILLA) -> Any:
    """Training FLOPs with which the best N and D reach ``loss``; infinite where none do.  Everything broadcasts.

    Along the frontier L* less the floor is a power of C, of exponent alpha beta / (alpha + g beta), however coupled.
    """
    cost = cost or Cost()
    _, alpha, _, beta, _ = _powers(params, law)
    floor = params[law.floor] if law.floor else 0.0
    at_one = optimum(params, 1e20, cost, law)[2] - floor
    with np.errstate(divide="ignore"):
        ratio = at_one / np.maximum(np.asarray(loss, float) - floor, 0.0)
    return 1e20 * ratio ** ((alpha + cost.g * beta) / (alpha * beta))


def tokens_for(params: Mapping[str, Any], n_params: Any, loss: Any, law: Law = CHINCHILLA) -> Any:
    """Tokens after which ``n_params`` reach ``loss``; infinite where they never do.  Everything broadcasts."""
    log_a, alpha, log_b, beta, c = _powers(params, law)
    floor = params[law.floor] if law.floor else 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        left = np.maximum(np.asarray(loss, float) - floor, 0.0) ** (1 / c) - np.exp((log_a - alpha * np.log(n_params)) / c)
        return np.where(left > 0, np.exp((log_b - c * np.log(np.maximum(left, 0))) / beta), np.inf)


@dataclasses.dataclass(frozen=True)
class OverTraining:
    """A model smaller than optimal, trained longer to the same loss."""

    n_params: float
    n_tokens: float
    flops: float
    extra: float  # its training FLOPs over the optimal ones, less 1
    saved: float  # part of the parameters, and so of the FLOPs of every generated token, that is saved


def over_training(
    params: Mapping[str, float], flops: float, shrink: float, cost: Cost | None = None, law: Law = CHINCHILLA
) -> OverTraining:
    """What it costs to reach the best loss of ``flops`` with ``shrink`` times the optimal parameters (0.5: half of them)."""
    cost = cost or Cost()
    n_best, _, loss = optimum(params, flops, cost, law)
    n = float(shrink * n_best)
    d = float(tokens_for(params, n, loss, law))
    used = float(cost.flops(n, d))
    return OverTraining(n, d, used, used / flops - 1, 1 - shrink)


def tokens_per_param(params: Mapping[str, Any], flops: Any, cost: Cost | None = None, law: Law = CHINCHILLA) -> Any:
    """D*/N* at a training cost of ``flops``."""
    n, d, _ = optimum(params, flops, cost, law)
    return d / n
