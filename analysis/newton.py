"""Damped Newton with exact Hessians for the Huber loss of log loss, on many problems (lanes) at once; float64 NumPy.

A ``Model`` predicts the log loss of fixed rows from theta and differentiates it twice.  ``PowerSum`` does so in closed form for
every law of powers; ``Numeric`` for any formula that is written in NumPy and accepts complex numbers.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

# A coefficient with at least this share of the loss on some row may be stepped in its value; one that vanishes may not.
_LINEAR_SHARE = 1e-4
_WORTH_A_THREAD = 100_000  # lanes x rows
_AT_ONCE = 20_000  # lanes x rows: what fits in cache


@dataclasses.dataclass(frozen=True, eq=False)
class Derivatives:
    """Of log loss at the rows, for lanes of theta.

    Attributes:
      predicted: (lanes, rows).
      jacobian: (lanes, parameters, rows).
      hessian: of weights and slopes, both (lanes, rows): the sum over rows of weight x J J^T + slope x the Hessian of log loss,
        (lanes, parameters, parameters).
      linear: (lanes, parameters), whether theta there is the log of a coefficient that carries a share of the loss.
    """

    predicted: np.ndarray
    jacobian: np.ndarray
    hessian: Callable[[np.ndarray, np.ndarray], np.ndarray]
    linear: np.ndarray


class Model(Protocol):
    """What ``minimise`` needs to know of a law at given rows."""

    @property
    def n_parameters(self) -> int: ...

    def log_loss(self, theta: np.ndarray) -> np.ndarray:
        """(lanes, rows) of theta (lanes, parameters); infinite where theta lies outside of the law's domain."""

    def derivatives(self, theta: np.ndarray) -> Derivatives:
        """Of log_loss."""

    def revived(self, theta: np.ndarray) -> np.ndarray:
        """``theta`` with parts that had vanished raised so far that a gradient leads back."""


@dataclasses.dataclass(frozen=True, eq=False)
class PowerSum:
    """Rows of a ``laws.Law``: log L = logsumexp of its slots, in which powers may be coupled by k.

    Attributes:
      z: ``Law.design``, (rows, slots, parameters).
      coupled: which slots are joined by the power mean whose k is the last slot; empty for a plain sum.
    """

    z: np.ndarray
    coupled: tuple[int, ...] = ()

    @functools.cached_property
    def _flat(self) -> np.ndarray:
        """Z as (parameters, slots x rows)."""
        return np.ascontiguousarray(self.z.transpose(2, 1, 0)).reshape(self.n_parameters, -1)

    @functools.cached_property
    def _outer(self) -> np.ndarray:
        """Z Z^T of every slot and row, (slots x rows, parameters x parameters)."""
        pairs = self.z[..., :, None] * self.z[..., None, :]
        return np.ascontiguousarray(pairs.transpose(1, 0, 2, 3).reshape(-1, self.n_parameters**2))

    @functools.cached_property
    def _entries(self) -> list[tuple[int, int, np.ndarray]]:
        """Slot, parameter and Z (rows,) wherever Z is not zero."""
        return [(int(t), int(j), np.ascontiguousarray(self.z[:, t, j])) for t, j in np.argwhere(self.z.any(0))]

    @property
    def n_parameters(self) -> int:
        return self.z.shape[2]

    @property
    def terms(self) -> int:
        """Slots that are terms."""
        return self.z.shape[1] - bool(self.coupled)

    def _slots(self, theta: np.ndarray) -> np.ndarray:
        """(slots, lanes, rows)."""
        n, slots, _ = self.z.shape
        return (theta @ self._flat).reshape(-1, slots, n).transpose(1, 0, 2)

    def shares(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """log L (lanes, rows), and each term's share of it (terms, lanes, rows): its derivative by the log of the term."""
        u = self._slots(theta)
        if not self.coupled:
            return _softmax(u)
        mean, within, _ = self._power_mean(u)
        groups = np.stack([*(u[t] for t in range(self.terms) if t not in self.coupled), mean])
        total, of_group = _softmax(groups)
        share = np.empty((self.terms, *total.shape))
        free = [t for t in range(self.terms) if t not in self.coupled]
        share[free] = of_group[:-1]
        share[list(self.coupled)] = within * of_group[-1]
        return total, share

    def _power_mean(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log of the coupled powers together, the weight of each in it, and k (lanes, 1)."""
        k = u[-1][:, :1]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            total, within = _softmax(u[list(self.coupled)] / np.where(k > 0, k, np.nan))
        return k * total, within, k

    def log_loss(self, theta: np.ndarray) -> np.ndarray:
        out = self.shares(theta)[0]
        return np.where(np.isnan(out), np.inf, out) if self.coupled else out

    def derivatives(self, theta: np.ndarray) -> Derivatives:
        predicted, share = self.shares(theta)
        linear = np.zeros((len(theta), self.n_parameters), bool)
        with np.errstate(invalid="ignore"):
            linear[:, : self.terms] = share.max(-1).T > _LINEAR_SHARE
        if not self.coupled:
            jacobian = self._to_theta(share)
            return Derivatives(predicted, jacobian, lambda w, slope: self._hessian(share, jacobian, w, slope), linear)
        slots, second = self._coupled_derivatives(theta, share)
        predicted, by_theta = np.where(np.isnan(predicted), np.inf, predicted), self._to_theta(slots)
        return Derivatives(predicted, by_theta, lambda w, slope: gram(by_theta, w) + self._curved_pairs(second, slope), linear)

    def _to_theta(self, by_slot: np.ndarray) -> np.ndarray:
        """Derivatives by theta from those by slot (slots, lanes, rows)."""
        _, lanes, n = by_slot.shape
        jacobian = np.zeros((lanes, self.n_parameters, n))
        for t, j, z in self._entries:
            if t == j < self.terms:  # the log of a term's own coefficient
                jacobian[:, j] = by_slot[t]
            else:
                jacobian[:, j] += by_slot[t] * z
        return jacobian

    def _hessian(self, share: np.ndarray, jacobian: np.ndarray, weight: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """With shares q of the terms, log L has gradient J = Z^T q and Hessian Z^T diag(q) Z - J J^T."""
        terms, lanes, n = share.shape
        p = self.n_parameters
        curved = (share * slope).transpose(1, 0, 2).reshape(lanes, terms * n) @ self._outer
        return gram(jacobian, weight - slope) + curved.reshape(lanes, p, p)

    def _coupled_derivatives(
        self, theta: np.ndarray, share: np.ndarray
    ) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray]]:
        """First derivatives of log L by slot, (slots, lanes, rows), and second ones by pair of slots.

        G = k logsumexp(u / k) has dG/du = q, dG/dk = H(q) (its entropy), and second derivatives (diag q - q q^T) / k by u,
        -q (u - mean u) / k^2 by u and k, Var_q(u) / k^3 by k.
        """
        u = self._slots(theta)
        _, q, k = self._power_mean(u)
        powers, last = list(self.coupled), self.z.shape[1] - 1
        inside = u[powers]
        centred = inside - np.sum(q * inside, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.sum(np.where(q > 0, q * np.log(q), 0.0), 0)
        whole = share[powers].sum(0)
        first = np.zeros((last + 1, *whole.shape))
        first[: self.terms] = share
        first[last] = whole * entropy
        of_mean = {s: q[i] for i, s in enumerate(powers)} | {last: entropy}  # dG / dslot
        second = {}
        for s in range(last + 1):
            for t in range(s + 1):
                value = -first[s] * first[t]
                if s in of_mean and t in of_mean:
                    value = value + whole * of_mean[s] * of_mean[t]
                if s == t and s not in of_mean:
                    value = value + first[s]
                second[s, t] = value
        for i, s in enumerate(powers):
            for j, t in enumerate(powers[: i + 1]):
                second[s, t] = second[s, t] + whole * q[i] * ((i == j) - q[j]) / k
            second[last, s] = second[last, s] - whole * q[i] * centred[i] / k**2
        second[last, last] = second[last, last] + whole * np.sum(q * centred**2, 0) / k**3
        return first, second

    def _curved_pairs(self, second: dict[tuple[int, int], np.ndarray], slope: np.ndarray) -> np.ndarray:
        """The contracted Hessian from second derivatives by pairs of slots."""
        out = np.zeros((len(slope), self.n_parameters, self.n_parameters))
        for (s, t), value in second.items():
            weighted = value * slope
            for a in np.flatnonzero(self.z[:, s].any(0)):
                for b in np.flatnonzero(self.z[:, t].any(0)):
                    part = weighted @ (self.z[:, s, a] * self.z[:, t, b])
                    out[:, a, b] += part
                    if s != t:
                        out[:, b, a] += part
        return out

    def revived(self, theta: np.ndarray) -> np.ndarray:
        """With terms that had vanished raised to a hundredth of the loss: from nothing, no gradient leads back."""
        share = self.shares(theta)[1].max(-1).T
        out = theta.copy()
        out[:, : share.shape[1]] += np.where(share < 1e-3, np.log(1e-2 / np.maximum(share, 1e-300)), 0.0)
        return out


def gram(jacobian: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The sum over rows of weight (lanes, rows) x J J^T, (lanes, parameters, parameters)."""
    return np.matmul(jacobian * weight[:, None], jacobian.transpose(0, 2, 1))


def _softmax(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """logsumexp over the first axis, and the share of each."""
    top = u.max(0)
    share = np.exp(u - top)
    total = share.sum(0)
    share /= total
    return top + np.log(total), share


@dataclasses.dataclass(frozen=True, eq=False)
class Numeric:
    """Any formula: first derivatives by complex steps, exact to rounding; second ones by differences of those.

    Attributes:
      formula: complex theta (lanes, parameters) → complex log loss (lanes, rows); analytic in theta where it matters, so
        comparisons are made on real parts.
      n_parameters: of theta.
    """

    formula: Callable[[np.ndarray], np.ndarray]
    n_parameters: int

    def log_loss(self, theta: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            out = self.formula(theta.astype(complex)).real
        return np.where(np.isnan(out), np.inf, out)

    def _jacobian(self, theta: np.ndarray) -> np.ndarray:
        lanes, p = theta.shape
        step = 1e-30
        shifted = (theta[:, None, :] + 1j * step * np.eye(p)).reshape(lanes * p, p)
        with np.errstate(all="ignore"):
            return (self.formula(shifted).imag / step).reshape(lanes, p, -1)

    def derivatives(self, theta: np.ndarray) -> Derivatives:
        lanes, p = theta.shape

        jacobian_here = self._jacobian(theta)

        def hessian(weight: np.ndarray, slope: np.ndarray) -> np.ndarray:
            step = 1e-5
            moved = theta[:, None, None, :] + step * np.stack([np.eye(p), -np.eye(p)])  # (lanes, 2, p, p)
            jacobian = self._jacobian(moved.reshape(-1, p)).reshape(lanes, 2, p, p, -1)
            both = np.matmul(jacobian, slope[:, None, None, :, None])[..., 0]
            out = (both[:, 0] - both[:, 1]) / (2 * step)
            return gram(jacobian_here, weight) + (out + out.transpose(0, 2, 1)) / 2

        return Derivatives(self.log_loss(theta), jacobian_here, hessian, np.zeros((lanes, p), bool))

    def revived(self, theta: np.ndarray) -> np.ndarray:
        return theta


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum:
    """Where every lane ended."""

    theta: np.ndarray
    objective: np.ndarray
    gradient: np.ndarray
    convex: np.ndarray
    converged: np.ndarray
    iterations: int


def minimise(
    model: Model, targets: np.ndarray, weights: np.ndarray, theta: np.ndarray, delta: float,
    max_iterations: int = 200, tolerance: float = 1e-19, fixed: Any = None,
) -> Minimum:  # fmt: skip
    """The least sum over rows of weight x Huber_delta(predicted - target), from each lane's start.

    The step solves (H + damping * diag(G)) step = -gradient with the exact Hessian H and the diagonal of the iteratively
    reweighted Gauss-Newton matrix G; where that is not positive definite or the objective rises, damping grows.  A coefficient
    c is stepped as c (1 + s), whose second derivative is that of log c less the first, or as c exp(s): the valley in which E
    and A trade against each other is straight in coefficients, that of A against alpha in the logarithm, and a lane whose step
    fails changes from one to the other.

    Args:
      model: of the rows, shared by all lanes.
      targets: log loss, (lanes, rows).
      weights: (lanes, rows); counts of a resample, or ones.
      theta: (lanes, parameters).
      delta: of the Huber loss.
      max_iterations: of a lane.
      tolerance: a lane stops at a squared gradient, measured in G, of this part of its objective.
      fixed: (parameters,) true where theta stays as it is.
    """
    held = np.zeros(theta.shape[1], bool) if fixed is None else np.asarray(fixed, bool)
    workers = min(cores(), targets.size // _WORTH_A_THREAD)
    if workers < 2:
        return _minimise(model, targets, weights, theta, delta, max_iterations, tolerance, held)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:  # NumPy lets go of the interpreter in its loops
        parts = list(
            pool.map(
                lambda some: _minimise(
                    model, targets[some], weights[some], theta[some], delta, max_iterations, tolerance, held
                ),
                np.array_split(np.arange(len(theta)), workers),
            )
        )
    fields = [f.name for f in dataclasses.fields(Minimum) if f.name != "iterations"]
    together = {name: np.concatenate([getattr(p, name) for p in parts]) for name in fields}
    return Minimum(**together, iterations=max(p.iterations for p in parts))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _minimise(
    model: Model, targets: np.ndarray, weights: np.ndarray, theta: np.ndarray, delta: float, max_iterations: int,
    tolerance: float, held: np.ndarray,
) -> Minimum:  # fmt: skip
    theta = theta.copy()
    lanes, p = theta.shape
    many = max(1, _AT_ONCE // targets.shape[1])
    state = _State.empty(lanes, p)
    for first in range(0, lanes, many):
        some = slice(first, min(first + many, lanes))
        state.put(some, _derivatives(model, targets[some], weights[some], theta[some], delta, held))
    damping, by_coefficient = np.full(lanes, 1e-3), np.ones(lanes, bool)
    waiting, converged, steps = np.arange(lanes), np.zeros(lanes, bool), np.zeros(lanes, int)
    identity = np.eye(p)
    while len(waiting):
        now, waiting = waiting[:many], waiting[many:]  # a lane that ends makes room for one that waits
        done = state.size(now) <= tolerance * state.value[now] + 1e-31
        converged[now[done]] = True
        # Damping beyond 1e14: no step lowers it any more, rounding has the last word.
        now = now[~done & (damping[now] < 1e14) & (steps[now] < max_iterations)]
        if not len(now):
            continue
        steps[now] += 1
        straight = state.linear[now] & by_coefficient[now, None]
        diagonal = damping[now, None] * state.scale[now] - np.where(straight, state.gradient[now], 0.0)
        step, good = _solve_positive(state.hessian[now] + diagonal[..., None] * identity, -state.gradient[now])
        trial = theta[now] + _bounded(step, straight)
        new = _derivatives(model, targets[now], weights[now], trial, delta, held)
        # Near the minimum the objective no longer tells steps apart, its gradient still does.
        level = np.abs(new.value - state.value[now]) <= 1e-14 * state.value[now]
        better = good & ((new.value < state.value[now]) | (level & (new.size() < 0.5 * state.size(now))))
        theta[now[better]] = trial[better]
        state.put(now[better], new.of(better))
        by_coefficient[now] ^= ~better
        damping[now] = np.where(better, np.maximum(damping[now] / 5, 1e-12), damping[now] * 4)
        waiting = np.concatenate([now, waiting])
    # A lane that stalled is as low as rounding lets it: it counts as converged when its gradient is small all the same.
    converged |= state.size() <= 1e-9 * state.value + 1e-28
    convex = _solve_positive(state.hessian, state.gradient)[1]
    return Minimum(theta, state.value, state.gradient, convex, converged, int(steps.max(initial=0)))


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """Per lane: objective, gradient, Hessian, the diagonal scale, and which coefficients carry a share of the loss."""

    value: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray
    scale: np.ndarray
    linear: np.ndarray

    @classmethod
    def empty(cls, lanes: int, p: int) -> _State:
        return cls(
            np.empty(lanes), np.empty((lanes, p)), np.empty((lanes, p, p)), np.empty((lanes, p)), np.empty((lanes, p), bool)
        )

    def put(self, at: Any, other: _State) -> None:
        for old, fresh in zip(self._arrays(), other._arrays(), strict=True):
            old[at] = fresh

    def of(self, lanes: np.ndarray) -> _State:
        return _State(*(a[lanes] for a in self._arrays()))

    def size(self, lanes: Any = slice(None)) -> np.ndarray:
        """The squared gradient, measured in the scale."""
        return np.sum(self.gradient[lanes] ** 2 / self.scale[lanes], -1)

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.value, self.gradient, self.hessian, self.scale, self.linear


def _derivatives(
    model: Model, targets: np.ndarray, weights: np.ndarray, theta: np.ndarray, delta: float, held: np.ndarray
) -> _State:
    at = model.derivatives(theta)
    r = at.predicted - targets
    size = np.abs(r)
    inside = size <= delta
    with np.errstate(invalid="ignore"):  # a row of weight 0 whose loss is infinite: such a lane is outside
        value = np.sum(weights * np.where(inside, 0.5 * r * r, delta * (size - 0.5 * delta)), -1)
    outside = ~np.isfinite(value)
    value[outside] = np.inf
    slope = weights * np.clip(r, -delta, delta)
    jacobian = at.jacobian
    gradient = np.matmul(jacobian, slope[..., None])[..., 0]
    hessian = at.hessian(weights * inside, slope)
    irls = weights * delta / np.maximum(size, delta)
    # The addition lets a term that vanishes come to rest: its own scale vanishes with its gradient.
    scale = np.matmul(jacobian**2, irls[..., None])[..., 0] + 1e-6 * irls.sum(-1, keepdims=True)
    if held.any():
        gradient[:, held] = 0.0
        hessian[:, held], hessian[:, :, held] = 0.0, 0.0
        hessian[:, held, held] = 1.0
    for part in (gradient, hessian, scale):
        part[outside] = 1.0
    return _State(value, gradient, hessian, scale, at.linear & ~held)


def _bounded(step: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """The step in theta, cut so that no coefficient loses over 99.9 % or triples, and nothing else moves by more than 1."""
    limit = np.where(linear, np.where(step < 0, 0.999, 2.0), 1.0)
    step = step * np.minimum(1.0, np.min(limit / np.maximum(np.abs(step), 1e-300), -1, keepdims=True))
    return np.where(linear, np.log1p(np.where(linear, step, 0.0)), step)


_FEW = 8  # lanes, up to which all are likely to be positive definite at once


def _solve_positive(matrix: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solution of every lane, and which matrices are positive definite (LAPACK's Cholesky refuses all of them for one)."""
    p = matrix.shape[-1]
    if len(matrix) <= _FEW:
        with contextlib.suppress(np.linalg.LinAlgError):
            np.linalg.cholesky(matrix)
            return np.linalg.solve(matrix, right[..., None])[..., 0], np.ones(len(matrix), bool)
    left = matrix.copy()
    good = np.ones(len(matrix), bool)
    for j in range(p - 1):
        good &= left[:, j, j] > 1e-14 * np.abs(matrix[:, j, j])
        factor = left[:, j + 1 :, j] / np.where(good, left[:, j, j], 1.0)[:, None]
        left[:, j + 1 :, j + 1 :] -= factor[:, :, None] * left[:, None, j, j + 1 :]
    good &= left[:, -1, -1] > 1e-14 * np.abs(matrix[:, -1, -1])
    x = np.linalg.solve(np.where(good[:, None, None], matrix, np.eye(p)), right[..., None])[..., 0]
    good &= np.isfinite(x).all(-1)
    return np.where(good[:, None], x, 0.0), good
