"""How far a score is to be trusted: intervals of proportions, the item bootstrap, paired tests, what a test can see.

Items are the unit that is resampled.  Draws are decided by the ids of the items, so two models that answered the same items
are resampled alike and their difference is a paired one: at 200 items a difference of 0.05 has a standard error of 0.022
paired and 0.046 unpaired.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Sequence

import numpy as np
from scipy import special

LEVEL = 0.95
Z = float(special.ndtri((1 + LEVEL) / 2))  # standard errors to either side
DRAWS = 1000
_HELD = 1 << 21  # indices held at once while resampling, 16 MB


def wilson(hits: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion (1927); never of no width, unlike Wald's at 0 and n."""
    z = float(special.ndtri((1 + level) / 2))
    p, scale = hits / n, 1 / (1 + z * z / n)
    centre, half = scale * (p + z * z / (2 * n)), scale * z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == n else centre + half)


def clopper_pearson(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson 1934), which covers at least ``level``."""
    tail = (1 - level) / 2
    low = float(special.betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    return low, float(special.betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0


def stderr(values_I: np.ndarray) -> float:
    """Of a mean, as lm-evaluation-harness has it: sample standard deviation (ddof 1) over sqrt(n); NaN for one value."""
    return float(np.std(values_I, ddof=1) / math.sqrt(len(values_I))) if len(values_I) > 1 else math.nan


def pooled_stderr(errors: Sequence[float], sizes: Sequence[int]) -> float:
    """Of a mean over all items of several tasks, as lm-evaluation-harness pools it: tasks are fixed, items are drawn.

    sqrt(sum((n - 1) se^2 n) / (N - G) / N) over G tasks with N items in all; how tasks differ is not in it.
    """
    e, n = np.asarray(errors, float), np.asarray(sizes, float)
    return float(np.sqrt(np.sum((n - 1) * e**2 * n) / (n.sum() - len(n)) / n.sum()))


def critical_hits(n: int, chance: float, alpha: float = 0.05) -> int:
    """The fewest of ``n`` hits that a guess reaches with a probability of at most ``alpha`` (one-sided, exact); n + 1 where it
    may well reach all."""
    tails = special.bdtrc(np.arange(n), n, chance)  # of more than 0, 1, … n - 1 hits
    return int(np.argmax(np.append(tails, 0.0) <= alpha)) + 1


def items_to_detect(accuracy: float, chance: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items with which a true ``accuracy`` above ``chance`` is seen as such (one-sided) in ``power`` of all cases; normal
    approximation of both binomials."""
    z = special.ndtri([1 - alpha, power]) @ np.sqrt([chance * (1 - chance), accuracy * (1 - accuracy)])
    return math.ceil((z / (accuracy - chance)) ** 2)


# ---- the bootstrap


def seed_of(ids: Sequence[str]) -> int:
    """Of the resampling of these items, in this order."""
    return zlib.crc32("\n".join(ids).encode())


def resampled_means(values_IM: np.ndarray, seed: int, draws: int = DRAWS) -> np.ndarray:
    """(draws, M) means of M quantities over items that are drawn with replacement, the same items for all of them."""
    n = len(values_IM)
    rng, means, rows = np.random.default_rng(seed), [], max(1, _HELD // n)
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        picked = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        times = np.bincount(picked.ravel(), minlength=count * n).reshape(count, n)
        means.append(times @ values_IM / n)
    return np.concatenate(means)


def bootstrap(values_IM: np.ndarray, seed: int, level: float = LEVEL, draws: int = DRAWS) -> np.ndarray:
    """(2, M) percentile intervals of the means of M quantities over items."""
    return np.quantile(resampled_means(values_IM, seed, draws), [(1 - level) / 2, (1 + level) / 2], axis=0)


def over_tasks(values: Sequence[float], seed: int = 0, level: float = LEVEL, draws: int = DRAWS) -> tuple[float, float]:
    """Interval of a mean over tasks when whole tasks are drawn: for what is claimed of tasks that were not asked."""
    low, high = bootstrap(np.asarray(values, float)[:, None], seed, level, draws)[:, 0]
    return float(low), float(high)


# ---- two models on the same items


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Two models on the same items, hit or miss.

    Attributes:
      first, second: items that only the first, only the second has right.
      n: items.
      difference: of their accuracies, the first's less the second's, with its standard error.
      exact_p: two-sided, binomial on the items where they differ.
      chi2: with continuity correction (Edwards 1948), one degree of freedom.
    """

    first: int
    second: int
    n: int
    difference: float
    stderr: float
    exact_p: float
    chi2: float


def mcnemar(first: int, second: int, n: int) -> McNemar:
    """McNemar's test (1947) of ``first`` against ``second`` items on which one of two models alone is right."""
    discordant = first + second
    difference = (first - second) / n
    error = math.sqrt(max(0.0, discordant / n - difference**2) / n)
    exact = min(1.0, 2 * float(special.bdtr(min(first, second), discordant, 0.5))) if discordant else 1.0
    chi2 = max(0, abs(first - second) - 1) ** 2 / discordant if discordant else 0.0
    return McNemar(first, second, n, difference, error, exact, chi2)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that one of ``k`` samples is right, of ``n`` samples of which ``correct`` are: 1 - C(n - c, k) / C(n, k),
    the unbiased estimate (Chen et al. 2021, arXiv 2107.03374).

    Raises:
      ValueError: for k above n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples: k must be 1 to {n}; draw more samples")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)
