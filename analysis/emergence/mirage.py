"""Is a jump in the model or in the metric?  A smooth law of a continuous metric, pushed through the metric, predicts it or not.

The law: a monotone parabola in log compute, through exp (a power law with a bend) or softplus for nats per token, through the logistic
function for shares (probability of the answer, Brier score, edit distance).  The link from companion to score has two more
parameters and is fitted to the measured pairs: exact match = exp(−e^a nll^b) (p^L has b = 1, e^a = L; items of unequal
difficulty bend it), multiple choice = chance + (1 − chance) s(a + b z).  No step can be hidden in either: a step in the companion
is no parabola, and a step in the score alone is a steep link, which is what a sharp metric means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from analysis.emergence.ability import Ability
from analysis.emergence.selection import BROAD
from analysis.emergence.shapes import lapsed, likelihood, logistic
from analysis.emergence.verdict import Mirage, Selection

Form: TypeAlias = Callable[[np.ndarray], np.ndarray]

BOUNDED = ("p_gold", "p_gold_raw", "brier", "edit", "letter_mass")  # companions that are shares of 1 (Brier: of 2)
EXPLAINED = 0.15  # root mean square error of the pushed law, in rises, up to which it explains a curve whatever the noise
WELL = 0.05  # the same of the law about the companion itself
SHARPER = 1.5  # factor by which a jump's residual sum of squares has to be below the smooth law's
A_TENTH = 0.1
IMPLIED = "implied nll"  # −log of an exact match: only a plain power law of it says anything, since it is the score itself
FEWEST = 5  # models with both score and companion


def companion_of(ability: Ability) -> tuple[str, np.ndarray] | None:
    """The continuous metric of an ability: the first companion, or −log of an exact match; None for multiple choice alone."""
    for name, values in ability.companions.items():
        if np.isfinite(values).sum() >= FEWEST:
            return name, np.asarray(values, float)
    if ability.chance == 0:
        with np.errstate(invalid="ignore"):
            return IMPLIED, -np.log(lapsed(ability.score)) / (ability.length or 1.0)
    return None


def examine(ability: Ability, selection: Selection, least_lead: float = 0.0) -> Mirage | None:
    """The mirage test of one ability whose shapes are compared; None where there is too little to test.

    Args:
      ability: what was measured.
      selection: its shapes.
      least_lead: None is returned for a smaller ``lead``, before anything is pushed through the metric.
    """
    found = companion_of(ability)
    if found is None:
        return None
    name, companion = found
    use = np.isfinite(companion) & np.isfinite(ability.hits) & (ability.n > 0)
    if use.sum() < FEWEST or np.ptp(companion[use]) <= 0:
        return None
    x, c, hits, n = np.log10(ability.flops[use]), companion[use], ability.hits[use], ability.n[use]
    law = smooth_law(name, x, c)
    smooth_x = np.linspace(x[0], x[-1], 201)
    lead = _lead(law(smooth_x), selection.curve(smooth_x))
    if lead < least_lead:
        return None
    predicted = pushed(name, c, law(x), hits, n, selection.floor)
    fitted = selection.curve(x)
    rise = max(np.ptp(fitted), 1e-9)
    error = float(np.sqrt(np.mean((hits / n - predicted) ** 2)) / rise)
    p_value = _goodness(hits, n, predicted, selection.phi)
    step, share = jump(x, c)
    residual = float(np.sum((c - law(x)) ** 2))
    sharp = bool(np.sqrt(residual / len(c)) > WELL * np.ptp(c) and residual > SHARPER * step)
    r2, slope = loglog(x, hits / n) if ability.chance == 0 else (None, None)
    line, broken = bigbench(x, hits / n)
    index = abs(broken) / max(abs(bigbench(x, c)[1]), 1e-12)
    full = np.full((2, len(companion)), np.nan)
    full[:, use] = law(x), predicted
    fits = error <= EXPLAINED or p_value > 0.05
    return Mirage(
        name, full[0], full[1], error, p_value, share, sharp, lead,
        bool(fits and not sharp), line, broken, index, r2, slope,
    )  # fmt: skip


# ---- the law and the link


def smooth_law(name: str, x: np.ndarray, c: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function of log10 FLOPs: the best smooth monotone law of companion values c (P,) at x (P,)."""
    middle, half = (x[0] + x[-1]) / 2, (np.ptp(x) or 1.0) / 2
    top = 2.0 if name == "brier" else 1.0
    ways: list[tuple[Form, Form]]
    if name in BOUNDED:
        ways = [(lambda q: top * logistic(q), lambda y: _logit(np.clip(y / top, 1e-3, 1 - 1e-3)))]
    else:
        ways = [(lambda q: np.exp(np.clip(q, -50, 50)), lambda y: np.log(np.maximum(y, 1e-3)))]
        if name != IMPLIED:
            ways.append((lambda q: np.logaddexp(0.0, q), lambda y: np.log(np.expm1(np.maximum(y, 1e-3)))))
    best: tuple[float, Form, np.ndarray] | None = None
    for forward, back in ways:
        theta = _least_squares((x - middle) / half, c, forward, back(c), name != IMPLIED)
        residual = float(np.sum((c - forward(_bent((x - middle) / half, theta))) ** 2))
        if best is None or residual < best[0]:
            best = residual, forward, theta
    assert best is not None
    _, form, found = best
    return lambda at: form(_bent((np.asarray(at, float) - middle) / half, found))


def _bent(t: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """level + slope (t + tanh(bend) t² / 2): a parabola without its vertex in [−1, 1]."""
    return theta[0] + theta[1] * (t + np.tanh(theta[2]) * t * t / 2)


def _least_squares(t: np.ndarray, c: np.ndarray, forward: Form, start: np.ndarray, bent: bool) -> np.ndarray:
    """Parameters (3,) of forward(_bent) nearest to c, by damped Gauss–Newton from a straight line through the transformed c."""
    slope, level = np.polyfit(t, start, 1)
    theta = np.array([level, slope, 0.0])
    value, damping = np.sum((c - forward(_bent(t, theta))) ** 2), 1e-3
    free = 3 if bent else 2
    for _ in range(60):
        q, bend = _bent(t, theta), np.tanh(theta[2])
        gain = (forward(q + 1e-6) - forward(q - 1e-6)) / 2e-6
        jac = gain[:, None] * np.stack([np.ones_like(t), t + bend * t * t / 2, theta[1] * (1 - bend**2) * t * t / 2], 1)[:, :free]
        normal = jac.T @ jac
        move = np.zeros(3)
        move[:free] = np.linalg.solve(normal + np.diag(damping * np.diag(normal) + 1e-9), jac.T @ (c - forward(q)))
        tried = np.sum((c - forward(_bent(t, theta + np.clip(move, -2, 2)))) ** 2)
        if tried < value:
            done, theta, value, damping = value - tried < 1e-5 * value, theta + np.clip(move, -2, 2), tried, damping / 5
            if done:
                break
        else:
            damping *= 8
            if damping > 1e6:
                break
    return theta


def pushed(name: str, c: np.ndarray, law: np.ndarray, hits: np.ndarray, n: np.ndarray, floor: float) -> np.ndarray:
    """Scores (P,) that the law's values give, through the link fitted to measured companions and counts."""
    links = []
    if name not in BOUNDED:
        z = np.log(np.maximum(c, 1e-4)), np.log(np.maximum(law, 1e-4))
        links.append((lambda a: np.exp(-np.exp(np.clip(a, -50, 50))), z))
        links.append((logistic, (-c, -law)))
    else:
        sign = 1.0 if name.startswith(("p_", "letter")) else -1.0
        top = 2.0 if name == "brier" else 1.0
        z = tuple(sign * _logit(np.clip(v / top, 1e-4, 1 - 1e-4)) for v in (c, law))
        links.append((logistic, z))
    best = None
    for form, (measured, smooth) in links:
        theta, nll = _link(form, measured, hits, n, floor)
        if best is None or nll < best[0]:
            best = nll, _at(form, theta, smooth, floor)
    return best[1]


def _at(form: Form, theta: np.ndarray, z: np.ndarray, floor: float) -> np.ndarray:
    return lapsed(floor + (1 - floor) * form(theta[0] + theta[1] * z))


def _link(form: Form, z: np.ndarray, hits: np.ndarray, n: np.ndarray, floor: float) -> tuple[np.ndarray, float]:
    """(offset, slope) of floor + (1 − floor) form(offset + slope z), by Fisher scoring from the best of a grid."""
    scale = z.std() or 1.0
    unit = (z - z.mean()) / scale
    starts = np.stack(np.meshgrid(np.linspace(-6, 6, 25), np.geomspace(0.2, 20, 12)), -1).reshape(-1, 2)
    p = lapsed(floor + (1 - floor) * form(starts[:, :1] + starts[:, 1:] * unit))
    theta, nll = _scored(form, unit, hits, n, floor, starts[np.argmin(likelihood(p, hits, n))])
    return np.array([theta[0] - theta[1] * z.mean() / scale, theta[1] / scale]), nll


def _scored(form: Form, z: np.ndarray, hits: np.ndarray, n: np.ndarray, floor: float, theta: np.ndarray) -> tuple[np.ndarray, float]:
    columns = np.stack([np.ones_like(z), z], 1)
    p = _at(form, theta, z, floor)
    nll, damping = float(likelihood(p, hits, n)), 1e-3
    for _ in range(40):
        slope = (_at(form, theta + [1e-5, 0], z, floor) - _at(form, theta - [1e-5, 0], z, floor)) / 2e-5
        jac = slope[:, None] * columns
        weight = 1 / (p * (1 - p))
        fisher = jac.T @ (jac * (n * weight)[:, None])
        fisher += damping * np.diag(np.diag(fisher)) + 1e-6 * np.eye(2)
        move = np.clip(np.linalg.solve(fisher, jac.T @ ((hits - n * p) * weight)), -2, 2)
        tried = _at(form, theta + move, z, floor)
        new = float(likelihood(tried, hits, n))
        if new < nll:
            done, theta, p, nll, damping = nll - new < 1e-7 * nll, theta + move, tried, new, damping / 5
            if done:
                break
        else:
            damping *= 8
            if damping > 1e6:
                break
    return theta, nll


def _goodness(hits: np.ndarray, n: np.ndarray, p: np.ndarray, phi: float) -> float:
    """Tail of Pearson's chi2 / phi; two parameters were fitted to the counts."""
    from scipy.special import chdtrc

    value = np.sum((hits - n * p) ** 2 / (n * p * (1 - p))) / phi
    return float(chdtrc(max(len(p) - 2, 1), value))


# ---- how sudden the companion is, and what the score hid


def jump(x: np.ndarray, c: np.ndarray) -> tuple[float, float]:
    """Of values c (P,) at ascending x: the residual sum of squares of the best jump, and the share of the whole change, of the
    monotone curve nearest to c, that falls within a third of the range of x.

    A jump is a logistic function between two levels whose 10 to 90 % take at most a third of the range.
    """
    span = np.ptp(x) or 1.0
    where = np.linspace(x[0], x[-1], 61)
    scales = np.array([1e-4, 0.02, 0.04, BROAD / 4.394]) * span
    s = logistic((x[None, None] - where[:, None, None]) / scales[:, None]).reshape(-1, len(x))
    s_c = s - s.mean(1, keepdims=True)
    d = c - c.mean()
    power = np.sum(s_c**2, 1)
    residual = float(np.sum(d**2) - np.max(np.where(power > 1e-9, (s_c @ d) ** 2 / np.maximum(power, 1e-9), 0.0)))
    rising = isotonic(c if np.polyfit(x, c, 1)[0] > 0 else -c)
    whole = rising[-1] - rising[0]
    if whole <= 0:
        return residual, float("nan")
    ends = np.interp(np.minimum(x + BROAD * span, x[-1]), x, rising)
    return residual, float(np.max(ends - rising) / whole)


def isotonic(values: np.ndarray) -> np.ndarray:
    """The rising sequence nearest to values (P,) by least squares (pool adjacent violators)."""
    blocks: list[list[float]] = []  # mean, count
    for v in values:
        blocks.append([float(v), 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, na), (b, nb) = blocks[-2:]
            blocks[-2:] = [[(a * na + b * nb) / (na + nb), na + nb]]
    return np.concatenate([np.full(int(count), mean) for mean, count in blocks])


def _lead(law: np.ndarray, score: np.ndarray) -> float:
    """Share of the law's change made where the fitted score has made a tenth of its own; both (points,) along x."""
    rise, change = score[-1] - score[0], law[-1] - law[0]
    if rise <= 0 or change == 0:
        return 0.0
    at = int(np.argmax(score - score[0] >= A_TENTH * rise))
    return float(np.clip((law[at] - law[0]) / change, 0.0, 1.0))


def bigbench(x: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Linearity and breakthroughness of BIG-bench (Srivastava et al. 2022, appendix B) of values (P,) at ascending x.

    I = sign(argmax − argmin) (max − min); L = I / root mean square of the steps, B = I / root of their median square.
    """
    values = np.asarray(values, float)[np.argsort(x, kind="stable")]
    size = np.sign(np.argmax(values) - np.argmin(values)) * np.ptp(values)
    steps = np.diff(values) ** 2
    return float(size / max(np.sqrt(steps.mean()), 1e-12)), float(size / max(np.sqrt(np.median(steps)), 1e-12))


def loglog(x: np.ndarray, score: np.ndarray) -> tuple[float | None, float | None]:
    """R2 and slope of log(−log score) against x over scores within (0, 1): a straight line where per-token loss is a power law."""
    use = (score > 0) & (score < 1)
    if use.sum() < 3:
        return None, None
    y = np.log(-np.log(score[use]))
    slope, level = np.polyfit(x[use], y, 1)
    return float(1 - np.sum((y - level - slope * x[use]) ** 2) / max(np.sum((y - y.mean()) ** 2), 1e-12)), float(slope)


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


