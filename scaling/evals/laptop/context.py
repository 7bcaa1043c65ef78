"""In context: what is asked about was said a moment ago, in the question or in the examples before it.  Imports no jax."""

from __future__ import annotations

from random import Random

from scaling.evals.items import WORLD
from scaling.evals.laptop.subject import Draw, Question, Subject, alone, hashed, square

GROUP = "context"
LETTERS = "abcdefghkmpt"
PAIRS = 4
LABELS = "1234"
FILLERS = "abcdefghijklmnopqrstuvwxyz"


def sort(random: Random) -> Question:
    """``sort 58213: 12358``.  All choices are sorted; two of their digits differ, by one each."""
    length = random.randint(4, 6)
    base = sorted(random.sample(range(9), length))  # different ones, so that one more keeps the order
    i, j = random.sample(range(length), 2)
    corners, answer = square(random, (0, 1), (0, 1))
    rows = []
    for a, b in corners:
        row = list(base)
        row[i] += a
        row[j] += b
        rows.append("".join(map(str, row)))
    shown = list(rows[answer])
    random.shuffle(shown)
    return Question(f"sort {''.join(shown)}", tuple(rows), answer, difficulty=length)


def lookup(random: Random) -> Question:
    """``find k3 d7 m1 p9 d: 7``: the value of a key among four pairs (multi-query associative recall, one query)."""
    keys = random.sample(LETTERS, PAIRS)
    values = random.sample("0123456789", PAIRS)
    pairs = list(zip(keys, values, strict=True))
    answer = random.randrange(PAIRS)
    key = pairs[answer][0]
    order = random.sample(range(PAIRS), PAIRS)
    shown = " ".join(pairs[i][0] + pairs[i][1] for i in order)
    return Question(f"find {shown} {key}", tuple(values), answer, difficulty=order.index(answer))


def hidden_map(random: Random) -> Draw:
    """``map ok: 3``: the label of a word's last letter, by a map that holds for one document and is never told.

    Four letters have four labels, which are the choices, so that without examples nothing is better than a guess; the shots
    of an item have its map (``meta["world"]``).
    """
    letters = random.sample(LETTERS, PAIRS)
    labels = random.sample(LABELS, PAIRS)
    name = " ".join(sorted(a + b for a, b in zip(letters, labels, strict=True)))
    side = hashed(f"map|{name}") < 0.6

    def draw(random: Random) -> Question:
        i = random.randrange(PAIRS)
        word = random.choice(FILLERS) + letters[i]
        return Question(f"map {word}", tuple(labels), i, side=side, meta={WORLD: name})

    return draw


SUBJECTS = (
    Subject("sort", GROUP, "sorting digits", alone(sort), weight=0.75),
    Subject("lookup", GROUP, "looking up a value", alone(lookup), weight=0.25),
    Subject("hidden_map", GROUP, "a map shown by examples", hidden_map, weight=2.0),
)
