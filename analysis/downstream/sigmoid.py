"""Step 2, accuracy as a function of task loss: a sigmoid between a floor and a top, by least squares, many fits at once.

    accuracy(L) = top - (top - floor) / (1 + exp(-k (L - x0))),   top <= 1

after Bhagia et al. 2024 (arXiv 2412.04403).  Two rows that nobody measured hold what no ladder shows: at a task loss of zero
every answer is right (theirs), and at a loss far above all rows an answer is a guess (ours: in a ladder that starts well above
chance it is what the floor rests on).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from analysis.fit import LOSSES, Certificate, Fit, Rows
from analysis.laws.formula import Formula, exp
from analysis.newton import Derivatives, gram, minimise
from analysis.tables import Table

FAR = 10.0  # standard deviations of task loss above its mean where the row at chance is put
IDEAL, GUESS = "at zero loss", "far above all rows"  # the clusters of the two rows
_SLOPES, _MIDDLES = (0.7, 2.0, 6.0), (-4.0, -2.0, -0.7, 0.7)  # starts, in standard deviations of task loss

SIGMOID = Formula(
    "sigmoid", ("floor", "top", "k", "x0"), ("k",), ("L",),
    lambda p, at: p["top"] - (p["top"] - p["floor"]) / (1 + exp(-p["k"] * (at["L"] - p["x0"]))),
    lambda at, measured: {"floor": measured.min(), "top": 1.0, "k": 1.0, "x0": at["L"].mean()},
    r"\mathrm{accuracy} = t - \frac{t - f}{1 + e^{-k (L - x_0)}}",
)  # fmt: skip


def _logistic(u: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-u), which overflows nowhere."""
    return 0.5 * (1.0 + np.tanh(0.5 * u))


@dataclasses.dataclass(frozen=True, eq=False)
class Sigmoid:
    """The sigmoid at rows, a ``newton.Model`` whose "log loss" is the accuracy itself.

    theta is (floor, a, b) or, where the top is free, (floor, a, b, top), with k (L - x0) = a + b z: in these the Hessian is
    short.

    Attributes:
      z: (rows,) task loss, centred and scaled.
      top: 1 where the top is held there, None where it is fitted.
    """

    z: np.ndarray
    top: float | None

    @property
    def n_parameters(self) -> int:
        return 3 if self.top is not None else 4

    def _parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Floor and top (lanes, 1), and the share of the floor (lanes, rows)."""
        top = np.full((len(theta), 1), self.top) if self.top is not None else theta[:, 3:]
        return theta[:, :1], top, _logistic(theta[:, 1:2] + theta[:, 2:3] * self.z)

    def log_loss(self, theta: np.ndarray) -> np.ndarray:
        """Accuracy, (lanes, rows)."""
        floor, top, s = self._parts(theta)
        return top + (floor - top) * s

    def derivatives(self, theta: np.ndarray) -> Derivatives:
        floor, top, s = self._parts(theta)
        z, rise = self.z, floor - top
        first = s * (1 - s)  # of s by a + b z
        bent = first * (1 - 2 * s)
        columns = [s, rise * first, rise * first * z] + ([1 - s] if self.top is None else [])
        jacobian = np.stack(columns, 1)

        def hessian(weight: np.ndarray, slope: np.ndarray) -> np.ndarray:
            out = gram(jacobian, weight)
            by_line = (slope * first) @ np.stack([np.ones_like(z), z], 1)
            by_pair = rise * ((slope * bent) @ np.stack([np.ones_like(z), z, z * z], 1))
            for i in (1, 2):
                out[:, i, 1] += by_pair[:, i - 1]
                out[:, i, 2] += by_pair[:, i]
                for end, sign in ((0, 1.0), (3, -1.0))[: self.n_parameters - 2]:
                    out[:, i, end] += sign * by_line[:, i - 1]
                    out[:, end, i] += sign * by_line[:, i - 1]
            return out

        return Derivatives(top + rise * s, jacobian, hessian, np.zeros(theta.shape, bool))

    def revived(self, theta: np.ndarray) -> np.ndarray:
        return theta


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A fitted sigmoid.

    Attributes:
      fit: as the one fitter's, of which ``intervals.bootstrap`` makes refits; its model, residuals and objective are of
        accuracy where a loss law's are of log loss.  The rows that nobody measured come last.
      centre, scale: task loss = centre + scale z.
    """

    fit: Fit
    centre: float
    scale: float

    def accuracy(self, loss: np.ndarray, theta: np.ndarray | None = None) -> np.ndarray:
        """(lanes, losses) at task losses (losses,) under theta (lanes, parameters), or the fitted one."""
        model = Sigmoid((np.asarray(loss, float) - self.centre) / self.scale, self._model.top)
        return np.clip(model.log_loss(self.fit.theta[None] if theta is None else theta), 0.0, 1.0)

    def accuracy_of_draws(self, loss: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """(draws,) each draw's accuracy at its own task loss."""
        z = (loss - self.centre) / self.scale
        top = theta[:, 3] if self._model.top is None else self._model.top
        return np.clip(top + (theta[:, 0] - top) * _logistic(theta[:, 1] + theta[:, 2] * z), 0.0, 1.0)

    def params(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """floor, top, k and x0, an array over the first axis of ``theta``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            x0 = self.centre - self.scale * theta[:, 1] / theta[:, 2]
        top = theta[:, 3] if self._model.top is None else np.full(len(theta), self._model.top)
        return {"floor": theta[:, 0], "top": top, "k": theta[:, 2] / self.scale, "x0": x0}

    @property
    def _model(self) -> Sigmoid:
        assert isinstance(self.fit.model, Sigmoid)
        return self.fit.model


def fit_sigmoid(loss: np.ndarray, accuracy: np.ndarray, clusters: Sequence[str], chance: float, guess: bool = True) -> Curve:
    """The least squares of accuracy over rows (rows,) of task loss and those that nobody measured.

    The top is fitted freely first and held at 1 where it came out above: the bound of the published recipe.

    Args:
      loss, accuracy: (rows,).
      clusters: a name per row; rows of one are redrawn together.
      chance: accuracy of a guess.
      guess: whether the row at chance is added; the published recipe has none.
    """
    centre, scale = float(loss.mean()), float(loss.std()) or 1.0
    x = np.concatenate([loss, [0.0, centre + FAR * scale][: 1 + guess]])
    y = np.concatenate([accuracy, [1.0, chance][: 1 + guess]])
    rows = Rows.of({"L": x}, y, [*clusters, IDEAL, GUESS][: len(x)])
    model = Sigmoid((x - centre) / scale, None)
    slopes, middles = (g.ravel() for g in np.meshgrid(_SLOPES, _MIDDLES))
    starts = np.stack([np.full(len(slopes), chance), -slopes * middles, slopes, np.ones(len(slopes))], 1)
    found = _least(model, starts, rows)
    if found.params["top"] > 1.0:
        found = _least(dataclasses.replace(model, top=1.0), starts[:, :3], rows)
    curve = Curve(found, centre, scale)
    params = {name: float(v[0]) for name, v in curve.params(found.theta[None]).items()}
    return dataclasses.replace(curve, fit=dataclasses.replace(found, params=params))


def _least(model: Sigmoid, starts: np.ndarray, rows: Rows) -> Fit:
    many, delta = len(starts), LOSSES["squared"]
    assert delta is not None
    targets, weights = (np.broadcast_to(v, (many, len(rows))) for v in (rows.measured, rows.weights))
    ends = minimise(model, targets, weights, starts, delta)
    best = int(np.argmin(ends.objective))
    value, theta = float(ends.objective[best]), ends.theta[best]
    agreeing = int(np.sum(ends.objective <= value * (1 + 1e-6) + 1e-24))
    residuals = rows.measured - model.log_loss(theta[None])[0]
    gradient = float(np.linalg.norm(ends.gradient[best]) / max(np.std(residuals), 1e-12) / np.sqrt(len(rows)))
    certificate = Certificate(many, agreeing, gradient, bool(ends.convex[best]), ends.iterations, 0, False)
    params = {"top": model.top if model.top is not None else float(theta[3])}
    return Fit(
        SIGMOID, params, delta, value, residuals, certificate, (), Table("task loss and accuracy", ()), rows, theta, {}, model
    )  # fmt: skip
