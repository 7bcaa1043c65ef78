"""Functional forms, composed from terms.  Here N is parameters, D is tokens, C is FLOPs and L is loss in nats per token.

A law is a sum of positive terms, each a constant or a power: the Chinchilla form (Hoffmann et al. 2022, arXiv 2203.15556) is

    L(N, D) = E + A N^-alpha + B D^-beta

In log space every term is linear in theta = (log coefficients, exponents), so log L = logsumexp(Z theta) for every law made
of such terms, and one fitter (``analysis.fit``) serves them all.  Two terms that name the same exponent share it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LATEX = {"alpha": r"\alpha", "beta": r"\beta"}


@dataclasses.dataclass(frozen=True)
class Term:
    """``coefficient``, or ``coefficient * variable^-exponent`` where a variable ('N' or 'D') is named."""

    coefficient: str
    variable: str | None = None
    exponent: str | None = None

    @property
    def latex(self) -> str:
        if self.variable is None:
            return self.coefficient
        return f"{self.coefficient}\\,{self.variable}^{{-{_LATEX[str(self.exponent)]}}}"


@dataclasses.dataclass(frozen=True)
class Law:
    """A sum of terms."""

    name: str
    terms: tuple[Term, ...]

    @property
    def coefficients(self) -> tuple[str, ...]:
        return tuple(t.coefficient for t in self.terms)

    @property
    def exponents(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(t.exponent for t in self.terms if t.exponent is not None))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the order of theta: coefficients (as logarithms there), then exponents."""
        return self.coefficients + self.exponents

    @property
    def latex(self) -> str:
        return "L(N, D) = " + " + ".join(t.latex for t in self.terms)

    def design(self, log_n: np.ndarray, log_d: np.ndarray) -> np.ndarray:
        """Z of shape (rows, terms, parameters) with log L = logsumexp over terms of Z @ theta."""
        log = {"N": log_n, "D": log_d}
        z = np.zeros((len(log_n), len(self.terms), len(self.parameters)))
        for t, term in enumerate(self.terms):
            z[:, t, t] = 1.0
            if term.variable is not None:
                z[:, t, self.parameters.index(str(term.exponent))] = -log[term.variable]
        return z

    def loss(self, params: Mapping[str, Any], n_params: Any, n_tokens: Any) -> Any:
        """L(N, D) in nats per token; numbers or arrays that broadcast."""
        log = {"N": np.log(np.asarray(n_params, float)), "D": np.log(np.asarray(n_tokens, float))}
        total = 0.0 * (log["N"] + log["D"])
        for t in self.terms:
            with np.errstate(divide="ignore"):  # a coefficient of 0 is a term that is not there
                u = np.log(params[t.coefficient])
            total = total + np.exp(u if t.variable is None else u - params[str(t.exponent)] * log[t.variable])
        return total


CHINCHILLA = Law("chinchilla", (Term("E"), Term("A", "N", "alpha"), Term("B", "D", "beta")))


@dataclasses.dataclass(frozen=True)
class Cost:
    """Training FLOPs as C = k N^g D: 6ND is ``Cost()``; exact matmul counts of small models grow slower than N (g < 1)."""

    k: float = 6.0
    g: float = 1.0

    def flops(self, n_params: Any, n_tokens: Any) -> Any:
        return self.k * np.asarray(n_params, float) ** self.g * n_tokens


def measured_cost(n_params: Sequence[float], n_tokens: Sequence[float], flops: Sequence[float]) -> Cost:
    """The ``Cost`` nearest to counted FLOPs: least squares of log(C / D) on log N, exact where C = k N^g D holds."""
    x, y = np.log(np.asarray(n_params, float)), np.log(np.asarray(flops, float) / np.asarray(n_tokens, float))
    if np.ptp(x) < 1e-9:
        return Cost(float(np.exp(np.mean(y - x))))
    g, log_k = np.polyfit(x - x.mean(), y, 1)
    g = float(g) if abs(g - 1) > 1e-9 else 1.0  # rounding must not make 6ND into 6 N^0.9999999999 D
    return Cost(float(np.exp(log_k - g * x.mean())), g)


def allocation_exponent(params: Mapping[str, Any], cost: Cost | None = None) -> Any:
    """a of N* ~ C^a under the Chinchilla law: beta / (alpha + beta) at C = k N D, beta / (alpha + g beta) at C = k N^g D."""
    g = cost.g if cost else 1.0
    return params["beta"] / (params["alpha"] + g * params["beta"])


def optimum(params: Mapping[str, Any], flops: Any, cost: Cost | None = None) -> tuple[Any, Any, Any]:
    """(N*, D*, L*) of least Chinchilla loss at a training cost of ``flops``; everything broadcasts.

    With M = N^g the constraint is C = k M D and the first-order condition alpha/g A M^(-alpha/g) = beta B D^-beta gives
    M* = G (C/k)^(beta / (alpha/g + beta)), G = (alpha/g A / (beta B))^(1 / (alpha/g + beta)) (Hoffmann et al. 2022, eq. 4).
    """
    cost = cost or Cost()
    alpha, beta = params["alpha"] / cost.g, params["beta"]
    budget = np.asarray(flops, float) / cost.k
    log_g = (np.log(alpha * params["A"]) - np.log(beta * params["B"])) / (alpha + beta)
    m = np.exp(log_g + beta / (alpha + beta) * np.log(budget))
    n, d = m ** (1 / cost.g), budget / m
    return n, d, CHINCHILLA.loss(params, n, d)
