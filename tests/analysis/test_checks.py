"""What rows can carry, and doubts: a corrupted column is found, and a good table never refused."""

import math

import numpy as np
import pytest

from analysis import checks, laws, load

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def offered(n_params, n_tokens) -> list[str]:
    table = load.table(n_params, n_tokens, [3.0] * len(n_params))
    return [words.removeprefix("--law ").partition(":")[0] for words in checks.offers(table)]


GRID = np.array([(n, d) for n in (1e7, 3e7, 1e8) for d in (1e9, 4e9, 2e10)])


@pytest.mark.parametrize(
    ("rows", "laws_offered"),
    [
        (GRID, ["chinchilla", "tied"]),
        (GRID[:5], ["tied"]),
        (GRID[[0, 1, 3, 4]], ["compute", "compute_power"]),
        (np.tile(GRID[[0, 1, 3, 4]], (5, 1)), ["compute", "compute_power"]),  # two sizes by two: three sums, four parameters
        (np.array([(1e7, d) for d in (1e9, 2e9, 4e9, 8e9)]), ["data", "compute_power"]),
        (np.array([(n, 1e9) for n in (1e7, 2e7, 4e7, 8e7)]), ["params", "compute_power"]),
        (np.array([(n, 20 * n) for n in np.geomspace(1e7, 1e9, 9)]), ["compute", "compute_power"]),
        (np.array([(1e7, 1e9), (1e7, 2e9), (2e7, 4e9)]), ["compute_power"]),
        (np.array([(1e7, 1e9), (2e7, 5e8), (4e7, 2.5e8), (5e7, 2e8)]), []),  # one budget
        (GRID[:2], []),
        (GRID[:1], []),
    ],
)
def test_offers(rows, laws_offered):
    """Fails when a law is offered that the rows cannot carry, or one that they can is not."""
    assert offered(*rows.T) == laws_offered


def test_offers_leave_excluded_rows_out():
    """Fails when rows that stay out of a fit count."""
    table = load.table(*GRID.T, [3.0] * len(GRID))
    out = load.Table(
        "some", tuple(r if i < 5 else load.Row(**{**vars(r), "excluded": "diverged"}) for i, r in enumerate(table.rows))
    )
    assert [words.partition(":")[0] for words in checks.offers(out)] == ["--law tied"]


def test_labels():
    """Fails when rounding splits a cell, neighbours are joined, or unknown values make cells of their own."""
    values = np.array([3e9, 1e6, 3e9 * (1 + 1e-9), np.nan, 3e9 * (1 + 1e-4), np.nan])
    same = checks.labels(values)
    assert same[0] == same[2] != same[4] and same[3] == same[5] == -1 and len(set(same.tolist())) == 4
    assert checks.labels(np.array([])).shape == (0,) and set(checks.labels(np.full(3, np.nan)).tolist()) == {-1}


def random_table(rng: np.random.Generator, sd: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and loss of a grid, its size, ranges and exponents drawn."""
    low = 10 ** rng.uniform(4.7, 8)
    n = np.repeat(np.geomspace(low, low * 10 ** rng.uniform(1, 2.5), rng.integers(4, 9)), per := int(rng.integers(3, 7)))
    ratio = rng.uniform(3, 30) * np.geomspace(1, 10 ** rng.uniform(0.6, 1.5), per)
    d = n * np.tile(ratio, len(n) // per)
    truth = {"E": rng.uniform(1, 2), "alpha": rng.uniform(0.2, 0.6), "beta": rng.uniform(0.2, 0.6)}
    # so that the terms are of the size of real ones: excess of 0.3 to 2 nats at the smallest
    truth |= {"A": rng.uniform(0.3, 2) * low ** truth["alpha"], "B": rng.uniform(0.3, 2) * d.min() ** truth["beta"]}
    return n, d, laws.CHINCHILLA.loss(truth, n, d) * np.exp(sd * rng.standard_normal(len(n)))


def test_good_tables_raise_no_doubt():
    """Fails when a table without a fault is said to be in another unit: 200 of them, noise up to 2 %."""
    rng = np.random.default_rng(0)
    for i in range(200):
        n, d, loss = random_table(rng, rng.uniform(0, 0.02))
        c = 6 * n * d * np.exp(rng.uniform(-0.5, 0.5, len(n))) * rng.choice([1 / 128, 1 / 3, 1, 3])
        assert checks.other_unit(n, d, c) is checks.other_unit(n, d, None) is checks.other_unit(n, None, c) is None, i
        assert checks.odd_rows(n, d, c) == {} == checks.odd_rows(n, d, None), i
        assert checks.bits_beside_nats(n, d, loss) is None, i
        assert checks.loss_doubts(c, loss) == [], i


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.9])
def test_bits_are_found_where_they_are(share):
    """Fails when other rows than those in the rarer unit are named in any of 12 tables, or they are missed in most."""
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(12):
        n, d, loss = random_table(rng, 0.003)
        n, d, loss = (np.tile(x, 2) if len(x) < 20 else x for x in (n, d, loss))
        in_bits = np.zeros(len(n), bool)
        in_bits[rng.permutation(len(n))[: max(1, round(share * len(n)))]] = True
        doubt = checks.bits_beside_nats(n, d, np.where(in_bits, loss / math.log(2), loss))
        if doubt is None:
            continue
        named = np.isin(np.arange(len(n)), doubt.rows)
        assert (named == (in_bits if doubt.in_bits else ~in_bits)).all()
        found += 1
    assert found >= 8


def test_outliers_are_not_bits():
    """Fails when rows that are merely bad, by anything from -60 to 60 % but 1.44, are said to be in bits."""
    rng = np.random.default_rng(3)
    for _ in range(30):
        n, d, loss = random_table(rng, 0.005)
        bad = rng.permutation(len(n))[: 1 + len(n) // 10]
        off = rng.uniform(-0.9, 0.5, len(bad))
        off[np.abs(np.abs(off) - 0.3665) < 0.06] = 0.2
        loss[bad] *= np.exp(off)
        assert checks.bits_beside_nats(n, d, loss) is None


def test_an_edge_off_the_law_is_not_bits():
    """Fails when the smallest, shortest run, above the law as such runs are, is said to be in bits, or the largest is not."""
    n = np.repeat(np.geomspace(1e8, 1e10, 6), 4)
    d = n * np.tile([5, 10, 20, 40], 6)
    loss, row = laws.CHINCHILLA.loss(TRUTH, n, d), np.arange(24)
    assert checks.bits_beside_nats(n, d, np.where(row == 0, loss / math.log(2), loss)) is None
    assert checks.bits_beside_nats(n, d, np.where(row >= 22, loss / math.log(2), loss)) == checks.OtherLossUnit((22, 23), True)
    assert checks.bits_beside_nats(n, d, np.where(row == 0, loss, loss / math.log(2))) == checks.OtherLossUnit((0,), False)


def test_copies():
    """Fails when rounded repeats are copies, the same line is not, or the first of three is not the one that is told."""
    line = ("1", "2", "3.2")
    assert checks.copies([(line, 1, 2), (("1", "2", "3.20"), 1, 2), (line, 1, 2), (line, 1, 2)]) == {2: 0, 3: 0}
    assert checks.copies([("a", 1, 6), ("b", 1, 6), ("c", 2, 6), ("b", 3, 6)]) == {1: 0, 3: 1}
    assert checks.copies([("a", 1, 5), ("b", 1, 6), ("c", 1, 5)]) == {}


@pytest.mark.parametrize(
    ("text", "digits"),
    [("3.14159", 6), ("3.210000", 3), ("0.00321", 3), ("1_000", 4), ("-2.5e-10", 2), ("3.000001E3", 7), ("0", 0)],
)
def test_significant_digits(text, digits):
    """Fails when zeros that say nothing count."""
    assert checks.significant_digits(text) == digits


def test_listed():
    """Fails when the one that is left is counted instead of told, or the count is wrong."""
    assert checks.listed(list("abc"), 2) == list("abc") and checks.listed(list("abcd"), 2) == ["a", "b", "and 2 more"]
