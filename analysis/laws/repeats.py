"""Data-constrained scaling: what tokens are worth that were seen before (Muennighoff et al. 2023, arXiv 2305.16264).

    L = E + A N'^-alpha + B D'^-beta
    D' = U_D + U_D R_D* (1 - exp(-R_D / R_D*)),  U_D = min(U, D),         R_D = D / U_D - 1
    N' = U_N + U_N R_N* (1 - exp(-R_N / R_N*)),  U_N = min(N, N*(U_D)),   R_N = N / U_N - 1

N' and D' are the parameters and fresh tokens of the same worth: a token is worth less each time that it is seen again, and so
is a parameter beyond N*(U), the compute-optimal size of U tokens.  Here U is unique tokens; without repeats, U = D, only N'
departs from Chinchilla's form, and that only beyond N*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.laws.formula import Columns, Formula, exp, expm1, log1p
from analysis.laws.terms import CHINCHILLA

# Muennighoff et al.: the five constants of their fit to runs without repeats on C4, which they then held
# (``REPEATS.freeze``) to fit the two of repetition.
MUENNIGHOFF = {
    "E": float(np.exp(0.6254804)), "A": float(np.exp(6.255414)), "B": float(np.exp(7.3049974)),
    "alpha": 0.3526596, "beta": 0.3526596, "RD": 15.387756, "RN": 5.309743,
}  # fmt: skip
_START_RD, _START_RN = (5.0, 50.0), 5.0


def _log_worth(log_unique: Any, repeats: Any, scale: Any) -> Any:
    """log of U (1 + R* (1 - exp(-R / R*))); R* runs from nothing (repeats are worthless) to infinity (as good as new)."""
    return log_unique + log1p(scale * -expm1(-repeats / scale))


def _log_optimal_size(params: Mapping[str, Any], log_unique: Any) -> Any:
    """log of N*(U) = G (U G)^(beta / alpha), G = (alpha A / (beta B))^(1 / (alpha + beta))."""
    alpha, beta = params["alpha"], params["beta"]
    log_g = (np.log(alpha / beta) + np.log(params["A"]) - np.log(params["B"])) / (alpha + beta)
    return log_g + beta / alpha * (log_unique + log_g)


def _value(params: Mapping[str, Any], columns: Columns) -> Any:
    n, d = columns["N"], columns["D"]
    unique = np.minimum(columns["U"], d)
    base = _log_optimal_size(params, np.log(unique))
    base = np.where(np.log(n) < np.real(base), np.log(n), base)
    log_size = _log_worth(base, expm1(np.log(n) - base), params["RN"])
    log_tokens = _log_worth(np.log(unique), d / unique - 1, params["RD"])
    terms = exp(np.log(params["A"]) - params["alpha"] * log_size) + exp(np.log(params["B"]) - params["beta"] * log_tokens)
    return params["E"] + terms


def _guesses(columns: Columns, measured: np.ndarray) -> dict[str, Any]:
    """Chinchilla's form of N and the worth of D, for a few guesses of how fast it falls."""
    from analysis.starts import starting_points  # it imports analysis.laws

    unique = np.minimum(columns["U"], columns["D"])
    found: dict[str, list[float]] = {name: [] for name in REPEATS.parameters}
    for rd in _START_RD:
        worth = np.exp(_log_worth(np.log(unique), columns["D"] / unique - 1, rd))
        seen = {"N": columns["N"], "D": worth}
        centre = CHINCHILLA.centre(seen)
        model = CHINCHILLA.bind(seen, centre)
        theta = starting_points(CHINCHILLA, model, np.log(measured), np.ones(len(measured)), 2)
        for name, values in (CHINCHILLA.to_params(theta, centre) | {"RD": [rd] * 2, "RN": [_START_RN] * 2}).items():
            found[name].extend(values)
    return found


REPEATS = Formula(
    name="repeats",
    parameters=("E", "A", "B", "alpha", "beta", "RD", "RN"),
    positive=("E", "A", "B", "RD", "RN"),
    variables=("N", "D", "U"),
    value=_value,
    guesses=_guesses,
    latex=r"L(N, D, U) = E + A\,{N'}^{-\alpha} + B\,{D'}^{-\beta},\; D' = U\,(1 + R_D^*(1 - e^{-R_D/R_D^*}))",
)


def effective_tokens(params: Mapping[str, float], n_tokens: Any, unique_tokens: Any) -> Any:
    """D': fresh tokens of the same worth as ``n_tokens`` drawn from ``unique_tokens``."""
    tokens = np.asarray(n_tokens, float)
    unique = np.minimum(np.asarray(unique_tokens, float), tokens)
    return np.exp(_log_worth(np.log(unique), tokens / unique - 1, params["RD"]))


def worth_of_next(params: Mapping[str, float], epochs: Any) -> Any:
    """What one more token is worth after ``epochs`` passes, in fresh tokens: dD'/dD = exp(-(epochs - 1) / R_D*)."""
    return np.exp(-np.maximum(np.asarray(epochs, float) - 1, 0.0) / params["RD"])


def epochs_until(params: Mapping[str, float], worth: Any) -> Any:
    """Passes after which one more token is worth no more than ``worth`` (a part of a fresh one)."""
    return 1 + params["RD"] * np.log(1 / np.asarray(worth, float))
