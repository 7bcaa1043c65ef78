"""Arithmetic: what is hard in one step and easy in several.  Imports no jax."""

from __future__ import annotations

from itertools import accumulate
from random import Random

from scaling.evals.laptop.subject import Question, Subject, alone, square

GROUP = "arithmetic"
MODULUS = 97


def add(random: Random) -> Question:
    """``add 47+85: 132``, in steps ``12 13 =``: the ones, then the tens with what they carry.  Wrong by 1, 10 or both."""
    low = random.randint(20, 187)
    corners, answer = square(random, (0, 1), (0, 10))
    sums = [low + a + b for a, b in corners]
    total = sums[answer]
    a = random.randint(max(10, total - 99), min(99, total - 10))
    b = total - a
    ones = a % 10 + b % 10
    return Question(
        f"add {a}+{b}", tuple(map(str, sums)), answer, f"{ones:02} {a // 10 + b // 10 + ones // 10:02}", 1 + (ones > 9)
    )


def mod_add(random: Random) -> Question:
    """``mod 45+83: 31``: addition modulo 97, wrong by 1, 10 or both; grokked late or never (Power et al. 2022)."""
    low, a = random.randrange(MODULUS), random.randrange(MODULUS)
    corners, answer = square(random, (0, 1), (0, 10))
    sums = [(low + i + j) % MODULUS for i, j in corners]
    b = (sums[answer] - a) % MODULUS
    return Question(f"mod {a:02}+{b:02}", tuple(f"{s:02}" for s in sums), answer, difficulty=1)


def digit_sum(random: Random) -> Question:
    """``sum 3845: 0``: of 3 to 5 digits, modulo 10; in steps ``3 1 5 0 =``, the running sum."""
    length = random.randint(3, 5)
    choices = random.sample(range(10), 4)
    answer = random.randrange(4)
    digits = random.choices(range(10), k=length - 1)
    digits.append((choices[answer] - sum(digits)) % 10)
    steps = " ".join(str(s % 10) for s in accumulate(digits))
    return Question(f"sum {''.join(map(str, digits))}", tuple(map(str, choices)), answer, steps, length)


SUBJECTS = (
    Subject("add", GROUP, "adding two numbers", alone(add), weight=3.0, cot=0.7),
    Subject("mod_add", GROUP, "adding modulo 97", alone(mod_add), weight=0.25),
    Subject("sum", GROUP, "the last digit of a sum", alone(digit_sum), weight=0.25, cot=0.5),
)
