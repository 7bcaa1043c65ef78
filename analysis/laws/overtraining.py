"""Over-training in the terms of Gadre et al. 2024 (arXiv 2403.08540), and downstream error as a function of loss.

With M = D / N tokens per parameter, the tied form E + A N^-alpha + B D^-alpha (``TIED``) reads

    L = E + a N^eta + b 6^(eta/2) (M N)^eta,    eta = -alpha,  a = A,  b = B 6^(alpha/2)

so that at a given M loss is one power law of N, and over-training only raises its coefficient.  What it costs in FLOPs is
``allocation.over_training``.  The mean error of a set of tasks follows loss as Err = eps - k exp(-gamma L).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.laws.formula import Columns, Formula, exp

_START_GAMMAS = (0.3, 0.7, 1.5, 3.0)
_START_EXCESS = (1.02, 1.1, 1.3)  # eps over the largest error


def gadre_form(params: Mapping[str, Any]) -> dict[str, Any]:
    """{'a', 'b', 'eta', 'E'} of parameters of ``TIED``."""
    alpha = params["alpha"]
    return {"a": params["A"], "b": params["B"] * 6 ** (alpha / 2), "eta": -alpha, "E": params["E"]}


def tied_form(gadre: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of ``TIED`` from published {'a', 'b', 'eta', 'E'}."""
    return {"E": gadre["E"], "A": gadre["a"], "B": gadre["b"] * 6 ** (gadre["eta"] / 2), "alpha": -gadre["eta"]}


def _value(params: Mapping[str, Any], columns: Columns) -> Any:
    return params["eps"] - exp(np.log(params["k"]) - params["gamma"] * columns["L"])


def _guesses(columns: Columns, measured: np.ndarray) -> dict[str, np.ndarray]:
    """log(eps - Err) is linear in L once eps is given; of a few, the best four."""
    loss, found = columns["L"], []
    for excess in _START_EXCESS:
        eps = excess * measured.max()
        slope, level = np.polyfit(loss, np.log(eps - measured), 1)
        for gamma in (max(-slope, 0.05), *_START_GAMMAS):
            k = np.exp(np.mean(np.log(eps - measured) + gamma * loss)) if gamma != -slope else np.exp(level)
            misfit = np.sum((eps - k * np.exp(-gamma * loss) - measured) ** 2)
            found.append((misfit, [eps, k, gamma]))
    found.sort(key=lambda cell: cell[0])
    return dict(zip(("eps", "k", "gamma"), np.array([start for _, start in found[:4]]).T, strict=True))


ERROR = Formula(
    name="error",
    parameters=("eps", "k", "gamma"),
    positive=("eps", "k", "gamma"),
    variables=("L",),
    value=_value,
    guesses=_guesses,
    latex=r"\mathrm{Err}(L) = \epsilon - k\,e^{-\gamma L}",
)
