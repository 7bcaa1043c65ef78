"""Functional forms, composed from terms.  Here N is parameters, D is tokens, C is FLOPs and L is loss in nats per token.

    constant("E") + power("A", "N", "alpha") + power("B", "D", "beta")

is the Chinchilla form L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, arXiv 2203.15556).  Two terms that name the
same exponent share it.  The powers may be joined as one power mean instead of a sum, ``coupled(..., by="k")``:

    L(N, D) = E + ((A N^-alpha)^(1/k) + (B D^-beta)^(1/k))^k

For k = 1 that is the sum; for k < 1 the larger shortage hides the smaller one.  In this, its natural parameterization, alpha
and beta are what is seen when only parameters or only tokens are short, whatever k is.  Kaplan's law (Kaplan et al. 2020, eq.
1.5, arXiv 2001.08361, with alpha_N = alpha, alpha_D = beta) is k = beta; the form E + A (N^-a + R D^-b)^k is k free, with
alpha = a k and beta = b k.

In log space every term is linear in theta = (log coefficients, exponents, k), which is why one fitter serves them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.newton import PowerSum

VARIABLES = ("N", "D", "C")
_LATEX = {"alpha": r"\alpha", "beta": r"\beta", "gamma": r"\gamma"}


def symbol(name: str) -> str:
    """A parameter's name as LaTeX."""
    return _LATEX.get(name, name)


@dataclasses.dataclass(frozen=True)
class Term:
    """``coefficient``, or ``coefficient * variable^-exponent`` where a variable ('N', 'D' or 'C') is named."""

    coefficient: str
    variable: str | None = None
    exponent: str | None = None

    def latex(self, values: Mapping[str, str] | None = None, root: str | None = None) -> str:
        """The term, with numbers in place of names where ``values`` has them, to the power of one over ``root``."""
        shown = values or {}
        text = shown.get(self.coefficient, symbol(self.coefficient))
        if self.variable is not None:
            exponent = str(self.exponent)
            text += f"\\,{self.variable}^{{-{shown.get(exponent, symbol(exponent))}}}"
        return text if root is None else f"({text})^{{1/{root}}}"

    def __add__(self, other: Term | Law) -> Law:
        return _law((self,)) + other


@dataclasses.dataclass(frozen=True)
class Law:
    """A sum of terms, of which those with a variable may be joined by a power mean.

    ``coupling`` names the parameter k of that mean: one of its own, or one of the exponents; None for a plain sum.
    """

    name: str
    terms: tuple[Term, ...]
    coupling: str | None = None

    def __add__(self, other: Term | Law) -> Law:
        terms = (other,) if isinstance(other, Term) else other.terms
        return dataclasses.replace(self, terms=self.terms + terms)

    def named(self, name: str) -> Law:
        """The law under a name."""
        return dataclasses.replace(self, name=name)

    @property
    def coefficients(self) -> tuple[str, ...]:
        return tuple(t.coefficient for t in self.terms)

    @property
    def exponents(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(t.exponent for t in self.terms if t.exponent is not None))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the order of theta: coefficients (as logarithms there), exponents, and k where it is its own."""
        own = () if self.coupling is None or self.coupling in self.exponents else (self.coupling,)
        return self.coefficients + self.exponents + own

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(v for v in VARIABLES if any(t.variable == v for t in self.terms))

    @property
    def floor(self) -> str | None:
        """The name of the constant, the loss that neither parameters nor data remove; None for a law without one."""
        return next((t.coefficient for t in self.terms if t.variable is None), None)

    @property
    def latex(self) -> str:
        return f"L({', '.join(self.variables)}) = {self.right_side()}"

    def right_side(self, values: Mapping[str, str] | None = None) -> str:
        """LaTeX of the sum, with numbers in place of names where ``values`` has them."""
        if self.coupling is None:
            return " + ".join(t.latex(values) for t in self.terms)
        k = (values or {}).get(self.coupling, symbol(self.coupling))
        inner = " + ".join(t.latex(values, k) for t in self.terms if t.variable is not None)
        return " + ".join([*(t.latex(values) for t in self.terms if t.variable is None), f"\\left({inner}\\right)^{{{k}}}"])

    def text(self, values: Mapping[str, str]) -> str:
        """The sum in plain characters, with numbers."""
        root = "" if self.coupling is None else f"^(1/{values[self.coupling]})"
        powers = [
            f"{values[t.coefficient]} {t.variable}^-{values[str(t.exponent)]}" for t in self.terms if t.variable is not None
        ]
        if self.coupling is not None:
            powers = ["(" + " + ".join(f"({p}){root}" for p in powers) + f")^{values[self.coupling]}"]
        return " + ".join([*(values[t.coefficient] for t in self.terms if t.variable is None), *powers])

    def design(self, logs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Z of shape (rows, slots, parameters): slot t < terms of Z @ theta is log of term t, a last one is k where there is
        one.  ``logs``: the logarithms of the variables, each (rows,).
        """
        rows = len(logs[self.variables[0]])
        z = np.zeros((rows, len(self.terms) + (self.coupling is not None), len(self.parameters)))
        for t, term in enumerate(self.terms):
            z[:, t, t] = 1.0
            if term.variable is not None:
                z[:, t, self.parameters.index(str(term.exponent))] = -logs[term.variable]
        if self.coupling is not None:
            z[:, -1, self.parameters.index(self.coupling)] = 1.0
        return z

    def centre(self, columns: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Mean logarithm of every variable: centring divides the condition number by a thousand."""
        return {v: float(np.log(columns[v]).mean()) for v in self.variables}

    def bind(self, columns: Mapping[str, np.ndarray], centre: Mapping[str, float]) -> PowerSum:
        """The law at given rows; ``columns``: the variables, each (rows,)."""
        z = self.design({v: np.log(columns[v]) - centre[v] for v in self.variables})
        joined = tuple(t for t, term in enumerate(self.terms) if term.variable is not None)
        return PowerSum(z, joined if self.coupling is not None else ())

    def to_params(self, theta: np.ndarray, centre: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Parameters by name, an array over the first axis of ``theta``, with the centring undone."""
        position = {name: i for i, name in enumerate(self.parameters)}
        out = {}
        for t, term in enumerate(self.terms):
            shift = theta[:, position[str(term.exponent)]] * centre[term.variable] if term.variable else 0.0
            out[term.coefficient] = np.exp(np.minimum(theta[:, t] + shift, 700.0))  # 1e304 says as much as infinity, and sorts
        return out | {name: theta[:, position[name]].copy() for name in self.parameters[len(self.terms) :]}

    def loss(self, params: Mapping[str, Any], n_params: Any, n_tokens: Any, flops: Any = None) -> Any:
        """L in nats per token; numbers or arrays that broadcast.  ``flops`` is C where the law has it, by default 6ND."""
        n, d = np.asarray(n_params, float), np.asarray(n_tokens, float)
        values = {"N": n, "D": d, "C": 6 * n * d if flops is None else np.asarray(flops, float)}
        floor: Any = sum(0.0 * values[v] for v in self.variables)
        powers = []
        with np.errstate(divide="ignore", over="ignore"):  # a coefficient of 0 is a term that is not there
            for t in self.terms:
                log = np.log(params[t.coefficient])
                if t.variable is None:
                    floor = floor + np.exp(log)
                else:
                    powers.append(log - params[str(t.exponent)] * np.log(values[t.variable]))
            if self.coupling is None:
                return floor + sum(np.exp(u) for u in powers)
            k = params[self.coupling]
            return floor + np.exp(k * np.logaddexp.reduce(np.broadcast_arrays(*(u / k for u in powers)), axis=0))


def constant(coefficient: str) -> Term:
    """A loss that nothing removes."""
    return Term(coefficient)


def power(coefficient: str, variable: str, exponent: str) -> Term:
    """``coefficient * variable^-exponent``.

    Raises:
      ValueError: for another variable than N, D or C.
    """
    if variable not in VARIABLES:
        raise ValueError(f"power({coefficient!r}, {variable!r}, …): the variable must be one of {', '.join(VARIABLES)}")
    return Term(coefficient, variable, exponent)


def coupled(law: Law, by: str) -> Law:
    """The law with its powers joined by a power mean of parameter ``by``."""
    return dataclasses.replace(law, coupling=by)


def _law(terms: tuple[Term, ...]) -> Law:
    return Law("+".join(t.coefficient for t in terms), terms)


CHINCHILLA = (constant("E") + power("A", "N", "alpha") + power("B", "D", "beta")).named("chinchilla")
# Gadre et al. 2024 (arXiv 2403.08540): one exponent for both, so over-training by M = D/N shifts the curve and never bends it.
TIED = (constant("E") + power("A", "N", "alpha") + power("B", "D", "alpha")).named("tied")
KAPLAN = coupled(CHINCHILLA, "beta").named("kaplan")  # with a floor
KAPLAN_NO_FLOOR = coupled(power("A", "N", "alpha") + power("B", "D", "beta"), "beta").named("kaplan_no_floor")
COUPLED = coupled(CHINCHILLA, "k").named("coupled")
PARAMS = (constant("E") + power("A", "N", "alpha")).named("params")
DATA = (constant("E") + power("B", "D", "beta")).named("data")
COMPUTE = (constant("E") + power("K", "C", "gamma")).named("compute")
COMPUTE_POWER = Law("compute_power", (power("K", "C", "gamma"),))

SURFACES = {law.name: law for law in (CHINCHILLA, TIED, KAPLAN, COUPLED)}  # forms of L(N, D) with a floor, to choose from
LAWS = SURFACES | {law.name: law for law in (KAPLAN_NO_FLOOR, PARAMS, DATA, COMPUTE, COMPUTE_POWER)}
