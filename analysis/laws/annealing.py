"""A law over whole training curves, under any schedule of the learning rate (Tissue et al. 2024, arXiv 2408.11029).

    L(s) = E + A S1^-alpha - G S2          and, over sizes,          L(s) = E + A S1^-alpha + B N^-beta - G S2

S1 is the sum of the learning rates up to step s, how far training has come; S2 is the annealing area, what lowering the rate
has gained so far.  With rates eta_i and a momentum lambda (0.99 to 0.999 in the paper):

    m_i = lambda m_(i-1) + eta_(i-1) - eta_i          S1 = sum_i eta_i          S2 = sum_i m_i

The paper calls E and G L0 and C; here C is compute.  One fit holds for every schedule of a size, so that some branches of a
trunk predict the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.laws.formula import Columns, Formula, exp

MOMENTUM = 0.999
_START_ALPHAS = np.geomspace(0.05, 3, 12)
_START_BETAS = (0.1, 0.3, 1.0)


def schedule_areas(rates: Sequence[float] | np.ndarray, momentum: float = MOMENTUM) -> tuple[np.ndarray, np.ndarray]:
    """(S1, S2) after every step, each of the shape of ``rates``, the learning rate of every step from the first.

    Steps of the initial warm-up count at the peak rate, as in the paper (its section 3.4): a rise from nothing is no negative
    annealing.  A later rise is one.

    Raises:
      ValueError: for rates that are negative or not finite, or a momentum outside of [0, 1).
    """
    eta = np.array(rates, float)
    if eta.ndim != 1 or not len(eta) or not (np.isfinite(eta).all() and (eta >= 0).all()):
        raise ValueError("rates: must be one learning rate per step, each finite and not negative")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}: must be at least 0 and below 1")
    risen = np.flatnonzero(np.diff(eta) <= 0)
    peak = int(risen[0]) if len(risen) else len(eta) - 1
    eta[:peak] = eta[peak]
    gained = -np.diff(eta, prepend=eta[0])
    window = 1  # gained[i] holds sum_{j < window} momentum^j drop[i - j]; doubling it takes log2(steps) passes
    while window < len(eta):
        gained[window:] += momentum**window * gained[:-window].copy()
        window *= 2
    return np.cumsum(eta), np.cumsum(gained)


def _value(params: Mapping[str, Any], columns: Columns) -> Any:
    out = params["E"] + exp(np.log(params["A"]) - params["alpha"] * np.log(columns["S1"])) - params["G"] * columns["S2"]
    if "B" in params:
        out = out + exp(np.log(params["B"]) - params["beta"] * np.log(columns["N"]))
    return out


def _guesses(columns: Columns, measured: np.ndarray) -> dict[str, np.ndarray]:
    """Least squares of the coefficients at each of some exponents: the three best of those, best first."""
    sizes = "N" in columns
    names = ("E", "A", "G", "B", "alpha", "beta") if sizes else ("E", "A", "G", "alpha")
    found = []
    for alpha in _START_ALPHAS:
        for beta in _START_BETAS if sizes else (0.0,):
            features = [np.ones_like(measured), columns["S1"] ** -alpha, -columns["S2"]]
            features += [columns["N"] ** -beta] if sizes else []
            over_loss = np.stack(features, 1) / measured[:, None]
            length = np.linalg.norm(over_loss, axis=0).clip(1e-300)
            solved = np.linalg.lstsq(over_loss / length, np.ones(len(measured)), rcond=None)[0] / length
            least = 1e-3 / np.abs(over_loss).max(0).clip(
                1e-300
            )  # a coefficient that came out negative: a thousandth of the loss
            start = np.maximum(solved, least)
            misfit = np.sum((over_loss @ start - 1) ** 2)
            found.append((misfit, [*start, alpha, *([beta] if sizes else [])]))
    found.sort(key=lambda cell: cell[0])
    return dict(zip(names, np.array([start for _, start in found[:3]]).T, strict=True))


ANNEALING = Formula(
    name="annealing",
    parameters=("E", "A", "alpha", "G"),
    positive=("E", "A", "G"),
    variables=("S1", "S2"),
    value=_value,
    guesses=_guesses,
    latex=r"L(s) = E + A\,S_1^{-\alpha} - G\,S_2",
)
ANNEALING_SIZES = Formula(
    name="annealing_sizes",
    parameters=("E", "A", "alpha", "B", "beta", "G"),
    positive=("E", "A", "B", "G"),
    variables=("S1", "S2", "N"),
    value=_value,
    guesses=_guesses,
    latex=r"L(s, N) = E + A\,S_1^{-\alpha} + B\,N^{-\beta} - G\,S_2",
)
