"""What is wrong with the numbers of a table, and which laws its rows can carry.

Everything here is arithmetic on columns; ``csv_table`` says where in the file it is.  A good table must never be refused, so a
doubt is raised only where no published table comes near: tokens per parameter reach from 0.006 to 64,000 in single rows of
nine of them and C / (6ND) from 0.7 to 1.7, while a column in another unit is off by a thousand or more.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analysis.tables import Table

MAX_COLLINEAR = 0.995  # |correlation| of log N and log D from which the two cannot be told apart

# ---- which laws the rows can carry


@dataclasses.dataclass(frozen=True)
class Need:
    """A law that may be offered, and what it is a law of: 'N', 'D', 'C', or 'ND' for both."""

    law: str
    formula: str
    parameters: int
    of: str


# In the order in which they are offered: what tells most comes first.
NEEDS = (
    Need("chinchilla", "L(N, D) = E + A N^-alpha + B D^-beta", 5, "ND"),
    Need("tied", "L(N, D) = E + A N^-alpha + B D^-alpha", 4, "ND"),
    Need("params", "L(N) = E + A N^-alpha", 3, "N"),
    Need("data", "L(D) = E + B D^-beta", 3, "D"),
    Need("compute", "L(C) = E + K C^-gamma", 3, "C"),
    Need("compute_power", "L(C) = K C^-gamma, without a floor", 2, "C"),
)


def offers(table: Table) -> list[str]:
    """The laws that the table's fitted rows can carry, as options with their formulas, the one that tells most first.

    Each needs one row more than it has parameters, so that something is left to judge it by.  A law of N alone is offered where
    there is one token count, of D alone where there is one size.  L(C) is offered where the rows lie on one line of tokens
    against parameters, or are too few for a law of both; nothing where not even K C^-gamma can be fitted.
    """
    n, d, c = (table.column(name) for name in ("n_params", "n_tokens", "flops"))
    count = {"N": distinct(n), "D": distinct(d), "C": distinct(c)}
    good = [need for need in NEEDS if len(n) > need.parameters]
    # s sizes by b token counts have s + b - 1 sums to fit: a law of both may have no more parameters.
    of_both = [x for x in good if x.of == "ND" and count["N"] + count["D"] > x.parameters and min(count["N"], count["D"]) > 1]
    of_both = [] if collinear(n, d) else of_both
    of_one = [x for x in good if (x.of, 1) in (("N", count["D"]), ("D", count["N"])) and count[x.of] >= 3]
    of_compute = [x for x in good if x.of == "C" and count["C"] >= 3 and not (of_one and x.parameters > 2)]
    return [f"--law {need.law}: {need.formula}" for need in of_both or of_one + of_compute]


def distinct(values: np.ndarray) -> int:
    """How many different values there are, to a millionth."""
    return len(set(labels(values).tolist()))


def labels(values: np.ndarray) -> np.ndarray:
    """The same whole number for positive values that are equal to a millionth (NaN for NaN)."""
    order = np.argsort(values, kind="stable")
    with np.errstate(invalid="ignore"):
        step = np.diff(np.log(values[order])) > 1e-6
    out = np.empty(len(values), int)
    out[order] = np.concatenate([[0], np.cumsum(step)]) if len(values) else 0
    return np.where(np.isnan(values), -1, out)


def collinear(n_params: np.ndarray, n_tokens: np.ndarray) -> bool:
    """Whether tokens are a power of parameters to all intents; where one of them does not change, they are not."""
    if min(distinct(n_params), distinct(n_tokens)) < 2:
        return False
    return bool(abs(np.corrcoef(np.log(n_params), np.log(n_tokens))[0, 1]) > MAX_COLLINEAR)


# ---- rows that are there twice

COPY_DIGITS = 6  # seeds differ by some 0.3 %: two of a hundred pairs agree in four digits by chance, 1 of 10,000 in six


def copies(rows: Iterable[tuple[Hashable, Hashable, int]]) -> dict[int, int]:
    """Position → position of the earlier row that it repeats.

    Args:
      rows: of each, the whole line; its numbers (N, D, loss and what else is known); the significant digits of its loss.
        Lines that are equal are copies, and so are rows of equal numbers with six digits or more.
    """
    lines: dict[Hashable, int] = {}
    numbers: dict[Hashable, int] = {}
    out = {}
    for i, (line, number, digits) in enumerate(rows):
        first = lines.setdefault(line, i)
        if digits >= COPY_DIGITS:
            first = min(first, numbers.setdefault(number, i))
        if first != i:
            out[i] = first
    return out


# ---- counts in millions

UNITS = {
    "N": {1.0: "", 1e3: "thousands", 1e6: "millions", 1e9: "billions"},
    "D": {1.0: "", 1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"},
    "C": {1.0: "", 1e9: "gigaflops", 1e12: "teraflops", 1e15: "petaflops", 1e18: "exaflops", 1e21: "zettaflops",
          8.64e19: "petaflop/s-days"},
}  # fmt: skip
_TOKENS_PER_PARAM = (1e-4, 1e6)  # of the median row
_ROW_TOKENS_PER_PARAM = (1e-6, 1e8)  # of any row
_WHOLE = 1e3  # a parameter count below this is a whole number
_MODEL = 1e5  # the largest model of a table whose unit is guessed is at least so large
_LEAST_TOKENS = 1e4  # a table whose longest run is shorter is not in tokens
_FLOPS_RATIO = 300.0  # C / (6ND) further than this from 1 is no convention: sparse models reach 1/128
_USUAL = 20.0  # tokens per parameter


@dataclasses.dataclass(frozen=True)
class Unit:
    """Columns that seem to be in another unit: what is absurd, and the factor of each role that mends it."""

    why: str
    factors: tuple[dict[str, float], ...]  # more than one where two columns may be scaled together


def other_unit(n: np.ndarray, d: np.ndarray | None, c: np.ndarray | None, told: Iterable[str] = ()) -> Unit | None:
    """Whether N, D or C must be scaled to make sense together; None where they do, and where no unit would mend it.

    Of the units that would, those count that change fewest columns, and then bring tokens per parameter nearest to 20.

    Args:
      n, d, c: of the rows, positive; D or C may be missing, C / (6N) or 6ND takes its place.
      told: roles whose unit the user has stated; they are left alone.
    """
    why = _absurd(n, d, c, _FLOPS_RATIO)
    if why is None:
        return None
    roles = [r for r, column in (("N", n), ("D", d), ("C", c)) if column is not None and r not in set(told)]
    ranked: dict[tuple[int, float], list[dict[str, float]]] = {}
    for choice in itertools.product(*(UNITS[r] for r in roles)):
        factors = {r: f for r, f in zip(roles, choice, strict=True) if f != 1.0}
        by_n, by_d, by_c = (factors.get(r, 1.0) for r in "NDC")
        scaled = n * by_n, None if d is None else d * by_d, None if c is None else c * by_c
        small = "N" in roles and scaled[0].max() < _MODEL
        if factors and not small and not _absurd(*scaled, 10.0) and _is_steady(n, d, c):
            off = abs(math.log10(float(np.median(_tokens(*scaled) / scaled[0])) / _USUAL))
            ranked.setdefault((len(factors), round(off, 6)), []).append(factors)
    return Unit(why, tuple(ranked[min(ranked)])) if ranked else None


def _tokens(n: np.ndarray, d: np.ndarray | None, c: np.ndarray | None) -> np.ndarray:
    if d is not None:
        return d
    assert c is not None
    return c / (6 * n)


def _absurd(n: np.ndarray, d: np.ndarray | None, c: np.ndarray | None, flops_ratio: float) -> str | None:
    """What cannot be true of these columns as they are, in words."""
    tokens = _tokens(n, d, c)
    per_param = float(np.median(tokens / n))
    if d is not None and c is not None and (doubt := flops_doubt(n, d, c, flops_ratio)):
        return doubt
    if np.median(n) < _WHOLE and _broken(n).any():
        return f"N = {n[_broken(n)][0]:g} is no count of parameters"
    if tokens.max() < _LEAST_TOKENS:
        return f"D is {tokens.max():.3g} at most"
    if not _TOKENS_PER_PARAM[0] <= per_param <= _TOKENS_PER_PARAM[1]:
        return f"D / N is {per_param:.2g} on the median row"
    return None


def flops_doubt(n: np.ndarray, d: np.ndarray, c: np.ndarray, limit: float = _FLOPS_RATIO) -> str | None:
    """What is wrong with C as the FLOPs of whole runs, in words."""
    ratio = float(np.median(c / (6 * n * d)))
    return None if 1 / limit < ratio < limit else f"C / (6ND) is {ratio:.2g} on the median row"


def _is_steady(n: np.ndarray, d: np.ndarray | None, c: np.ndarray | None) -> bool:
    """Whether C / (6ND) is about the same in nine of ten rows: FLOPs per token or per second are no unit of C."""
    if d is None or c is None:
        return True
    lo, hi = np.quantile(c / (n * d), [0.1, 0.9])
    return bool(hi < 10 * lo)


def _broken(n: np.ndarray) -> np.ndarray:
    """Where a parameter count so small that it cannot be rounded is no whole number."""
    return (n < _WHOLE) & (n % 1 > 0)


def odd_rows(n: np.ndarray, d: np.ndarray, c: np.ndarray | None, told: Iterable[str] = ()) -> dict[int, str]:
    """Rows whose N, D or C is in another unit than that of the others, with what is absurd about them; ``told`` as above."""
    told = set(told)
    out: dict[int, str] = {}
    if "N" not in told:
        out |= {int(i): f"N = {n[i]:g} is no count of parameters" for i in np.flatnonzero(_broken(n))}
    if not told & {"N", "D"}:
        lo, hi = _ROW_TOKENS_PER_PARAM
        for i in np.flatnonzero((d / n < lo) | (d / n > hi)):
            out[int(i)] = f"D / N is {d[i] / n[i]:.2g}"
    if c is not None and not told >= {"N", "D", "C"}:
        ratio = c / (6 * n * d)
        middle = float(np.median(ratio))
        for i in np.flatnonzero(np.abs(np.log(ratio / middle)) > math.log(_FLOPS_RATIO)):
            out[int(i)] = f"C / (6ND) is {ratio[i]:.2g}, and {middle:.2g} on the median row"
    return out


# ---- losses in bits beside nats

BITS = 1 / math.log(2)  # bits per nat
_GRID = np.geomspace(0.1, 1.0, 6)
_LEAST_ROWS = 8  # three coefficients and two exponents on a grid, and some to judge by
_MOST_ROWS = 400  # are fitted of a longer table; all are held against the fit
_NEAR = math.log(4)  # a law is not followed further than this beyond its rows
_SPREAD = 0.1  # rows of one unit may lie this far off a law, in log loss; beyond, nothing can be said of 0.3665
_MATCH = 0.03  # and how near to log(1.4427) those of the other must lie


@dataclasses.dataclass(frozen=True)
class OtherLossUnit:
    """Rows whose losses are 1.4427 times, or 1 / 1.4427 of, those of the others."""

    rows: tuple[int, ...]
    in_bits: bool  # these rows are in bits and the others in nats; False: the reverse


def bits_beside_nats(n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> OtherLossUnit | None:
    """The minority of rows that lie a factor of 1.4427 off the law of the others; None where that is not plain.

    Plain means: the majority lies within 10 % of E + A N^-alpha + B D^-beta, fitted to it alone; every row of the minority lies
    within 3 % (or three standard deviations, 5 % at most) of 1.4427 times it, or all of its reciprocal, at sizes and token
    counts to which that law can be followed.  The split is found by fitting with and without the factor in turn, from several
    starts.
    """
    if len(loss) < _LEAST_ROWS:
        return None
    target, jump = np.log(loss), math.log(BITS)
    half = np.arange(len(loss)) < len(loss) / 2
    first = target - np.log(_law(n, d, loss))
    if np.abs(first).max() < _SPREAD:
        return None  # one law for all
    for start in (np.zeros(len(loss), bool), np.ones(len(loss), bool), first > 0, half, ~half):
        high = start
        for _ in range(8):
            off = target - np.log(_law(n, d, np.exp(target - jump * high)))
            if ((off > jump / 2) == high).all():
                break
            high = off > jump / 2
        for rows, in_bits in ((high, True), (~high, False)):
            if 0 < rows.sum() <= len(loss) / 2 and _is_plain(n, d, target, rows, jump if in_bits else -jump):
                return OtherLossUnit(tuple(np.flatnonzero(rows).tolist()), in_bits)
    return None


def _is_plain(n: np.ndarray, d: np.ndarray, target: np.ndarray, rows: np.ndarray, jump: float) -> bool:
    """Whether ``rows`` lie ``jump`` off the law of the others, and these on it."""
    rest = ~rows
    if rest.sum() < _LEAST_ROWS or not _among(n, d, rows, jump):
        return False
    off = target - np.log(_law(n, d, np.exp(target), rest))
    spread = float(np.sqrt(np.sum(off[rest] ** 2) / (rest.sum() - 5)))
    near = min(max(_MATCH, 3 * spread), _SPREAD / 2)
    return bool(np.abs(off[rest]).max() < _SPREAD and np.abs(off[rows] - jump).max() < near)


def _among(n: np.ndarray, d: np.ndarray, rows: np.ndarray, jump: float) -> bool:
    """Whether the law of the others can be followed to ``rows``: none far outside their sizes and token counts, and no more
    than half of them on the side where runs do leave the law that way.  Small and short ones lie above it; large ones below."""
    far, odd = np.zeros(len(n)), np.zeros(len(n))
    for x in (np.log(n), np.log(d)):
        below, above = x[~rows].min() - x, x - x[~rows].max()
        far = np.maximum(far, np.maximum(below, above))
        odd = np.maximum(odd, below if jump > 0 else above)
    return bool(far[rows].max() <= _NEAR and np.median(odd[rows]) <= 1e-9)


def _law(n: np.ndarray, d: np.ndarray, loss: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """E + A N^-a + B D^-b of least absolute relative error over ``rows`` (all), exponents from a small grid, at every row.

    Least absolute deviations by reweighting, so that a minority does not pull: this is to find rows that do not belong.
    """
    keep = np.arange(len(loss)) if rows is None else np.flatnonzero(rows)
    keep = keep[:: -(-len(keep) // _MOST_ROWS)]
    x, y = (v[:, None] ** -_GRID / np.exp(-_GRID * np.log(v).mean()) for v in (n, d))  # (rows, exponents)
    cells = np.array(list(np.ndindex(len(_GRID), len(_GRID)))).T
    relative = np.stack([np.ones((len(keep), cells.shape[1])), x[keep][:, cells[0]], y[keep][:, cells[1]]]).T / loss[keep, None]
    weights = np.ones(relative.shape[:2])
    for _ in range(8):
        gram = np.einsum("cri,cr,crj->cij", relative, weights, relative, optimize=True)
        ridge = 1e-9 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(3)  # of one size two columns are alike
        coefficients = np.linalg.solve(gram + ridge, np.einsum("cri,cr->ci", relative, weights)[..., None])
        off = np.abs((relative @ coefficients)[..., 0] - 1)
        weights = 1 / np.maximum(off, 1e-4)
    for cell in np.argsort(off.sum(1)):
        at_all = np.stack([np.ones(len(loss)), x[:, cells[0, cell]], y[:, cells[1, cell]]], -1) @ coefficients[cell, :, 0]
        if (at_all > 0).all():
            return at_all
    return loss


# ---- numbers that are no loss in nats per token


def loss_doubts(flops: np.ndarray, loss: np.ndarray) -> list[str]:
    """What a column of losses seems to be instead, in words; for a note, since a fit of it is still a fit."""
    out = []
    if len(loss) >= _LEAST_ROWS and loss.max() > loss.min() and flops.max() > flops.min():
        grows = _rank_correlation(flops, loss)
        if grows > 0.5:
            out.append(f"it grows with compute (rank correlation {grows:.2f}): an accuracy? The laws are of a loss that falls")
    if loss.min() > 12:
        out.append(
            f"it is {loss.min():.3g} at least, more than a guess among 160,000 tokens costs: a perplexity? "
            f"Its logarithm is the loss"
        )
    return out


def _rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, ties in the order in which they come."""
    ranks = [np.argsort(np.argsort(v, kind="stable"), kind="stable") for v in (x, y)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def significant_digits(text: str) -> int:
    """Of a number as it is written, without zeros at either end: 6 of ``'3.14159'``, 3 of ``'3.210000'``."""
    mantissa = text.lower().partition("e")[0].replace("_", "").lstrip("+-")
    return len(mantissa.replace(".", "").strip("0") if "." in mantissa else mantissa.lstrip("0"))


def listed(items: Sequence[str], most: int) -> list[str]:
    """The first ``most`` of them, and how many more there are."""
    return [*items[:most], f"and {len(items) - most} more"] if len(items) > most + 1 else list(items)
