"""Language: strings copied, reversed and closed.  What induction and position make possible.  Imports no jax."""

from __future__ import annotations

from random import Random

from scaling.evals.laptop.subject import Question, Subject, alone, square

GROUP = "language"
LETTERS = "abcdefghkmpt"
CLOSERS = {"(": ")", "[": "]", "{": "}", "<": ">"}
OPENERS = {closer: opener for opener, closer in CLOSERS.items()}


def altered(random: Random, length: int, alphabet: str) -> tuple[tuple[str, ...], int]:
    """Four strings that differ in two places, where each has one of two letters, and the index of the right one."""
    base = random.choices(alphabet, k=length)
    i, j = random.sample(range(length), 2)
    (a, b), (c, d) = random.sample(alphabet, 2), random.sample(alphabet, 2)
    corners, answer = square(random, (a, b), (c, d))
    out = []
    for corner in corners:
        base[i], base[j] = corner
        out.append("".join(base))
    return tuple(out), answer


def copy(random: Random) -> Question:
    """``copy kdwpa: kdwpa``."""
    length = random.randint(4, 6)
    choices, answer = altered(random, length, LETTERS)
    return Question(f"copy {choices[answer]}", choices, answer, difficulty=length)


def reverse(random: Random) -> Question:
    """``rev kdwpa: apwdk``."""
    length = random.randint(4, 5)
    choices, answer = altered(random, length, LETTERS)
    return Question(f"rev {choices[answer][::-1]}", choices, answer, difficulty=length)


def brackets(random: Random) -> Question:
    """``close (<>[{: }])``: the closing brackets of a Dyck-4 prefix, with up to two pairs that are closed already."""
    depth, pairs = random.randint(3, 5), random.randint(0, 2)
    choices, answer = altered(random, depth, ")]}>")
    parts = [OPENERS[closer] for closer in reversed(choices[answer])]
    for _ in range(pairs):
        opener = random.choice("([{<")
        parts.insert(random.randint(0, len(parts)), opener + CLOSERS[opener])
    return Question(f"close {''.join(parts)}", choices, answer, difficulty=depth + pairs)


SUBJECTS = (
    Subject("copy", GROUP, "copying strings", alone(copy), weight=0.75),
    Subject("reverse", GROUP, "reversing strings", alone(reverse), weight=1.25),
    Subject("brackets", GROUP, "closing brackets", alone(brackets), weight=0.75),
)
