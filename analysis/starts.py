"""Where Newton starts for a law of powers: variable projection over a grid of exponents (Golub and Pereyra 1973)."""

from __future__ import annotations

import numpy as np

from analysis.laws.terms import Law
from analysis.newton import PowerSum

EXPONENT_GRID = np.geomspace(0.02, 1.5, 32)
COUPLINGS = (1.0, 0.4)  # of a law whose k is free; at 1 it is the sum, so that no fit of it ends above the sum's
_APART = 4  # grid cells


def starting_points(law: Law, model: PowerSum, target: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """theta of the ``count`` best grid cells that lie apart, (starts, parameters).

    For given exponents the coefficients of a plain sum are a linear least-squares problem of L with weights 1/L^2, all of them
    solved in one batch.  A coupled law starts where the sum does.
    """
    first, exponents = len(law.terms), law.exponents
    if not exponents:
        return np.full((1, first), float(np.average(target, weights=weights)))
    grid = np.array(np.meshgrid(*[range(len(EXPONENT_GRID))] * len(exponents), indexing="ij")).reshape(len(exponents), -1)
    features, cells = [], []
    for t, term in enumerate(law.terms):
        slot = exponents.index(term.exponent) if term.exponent else None
        column = np.zeros((1, 1)) if slot is None else EXPONENT_GRID[:, None]
        x = model.z[:, t, first + slot] if slot is not None else np.zeros(len(target))
        features.append(np.sqrt(weights) * np.exp(column * x - target))  # over L: relative residuals
        cells.append(np.zeros(grid.shape[1], int) if slot is None else grid[slot])
    gram = np.stack(
        [np.stack([(features[s] @ features[t].T)[cells[s], cells[t]] for t in range(first)], -1) for s in range(first)], -2
    )
    right = np.stack([(features[t] @ np.sqrt(weights))[cells[t]] for t in range(first)], -1)
    ridge = 1e-12 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(first)
    coefficients = np.linalg.solve(gram + ridge, right[..., None])[..., 0]
    # A cell with a negative coefficient stays a candidate, with that term at 1e-4 of the loss, and is judged as such.
    coefficients = np.maximum(coefficients, 1e-4 * weights.sum() / right)
    misfit = np.einsum("ci,cij,cj->c", coefficients, gram, coefficients) - 2 * np.sum(coefficients * right, -1)
    theta = np.hstack([np.log(coefficients), EXPONENT_GRID[grid.T]])
    chosen: list[int] = []
    for cell in np.argsort(misfit):
        if all(np.abs(grid[:, cell] - grid[:, c]).max() >= _APART for c in chosen):
            chosen.append(int(cell))
        if len(chosen) == count:
            break
    return _with_coupling(law, theta[chosen])


def _with_coupling(law: Law, theta: np.ndarray) -> np.ndarray:
    if law.coupling is None or law.coupling in law.exponents:
        return theta
    return np.vstack([np.hstack([theta, np.full((len(theta), 1), k)]) for k in COUPLINGS])
