"""Knowledge: people who do not exist, their codes, homes and bosses.  Imports no jax.

A fact is learnt from some ways to ask for it and tested in others (``pin dake``, ``dake key``, ...): the question is new, the
knowledge is not.
"""

from __future__ import annotations

import functools
from random import Random

from scaling.evals.laptop.subject import Question, Subject, alone

GROUP = "knowledge"
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SEED = 20220207
PEOPLE = 48
CITIES = 12
CODE_LETTERS = "abcdefghijklmnopqrstuvwxyz"
CODE_LENGTH = 4
CODE_WORDS = ("pin", "key", "tag", "id", "code", "sign", "pass", "no", "mark", "seal", "word", "lock")
HOME_WORDS = ("home", "city", "town", "base", "seat", "in", "at", "flat", "lives", "port", "road", "from")
BOSS_WORDS = ("boss", "head", "chief", "lead", "over", "top")


class World:
    """Everything that is true."""

    def __init__(self, seed: int, people: int, cities: int, code_length: int):
        random = Random(seed)
        names = [a + b + c + d for a in CONSONANTS for b in VOWELS for c in CONSONANTS for d in VOWELS]
        random.shuffle(names)
        self.people, self.cities = names[:people], names[people : people + cities]
        self.code = {p: "".join(random.choices(CODE_LETTERS, k=code_length)) for p in self.people}
        homes = [c for c, _ in zip(self.cities * (people // cities + 1), self.people, strict=False)]  # as many in each city
        random.shuffle(homes)
        self.home = dict(zip(self.people, homes, strict=True))
        bosses = list(self.people)
        random.shuffle(bosses)
        self.boss = dict(zip(self.people, bosses[1:] + bosses[:1], strict=True))
        self.people_of = {c: [p for p in self.people if self.home[p] == c] for c in self.cities}
        self.works_for = {b: p for p, b in self.boss.items()}
        # Of half the people of whom ``two_hop`` can be asked, it is asked in training: of as many for every city, or else
        # what is right in training would be wrong in the test.
        half = [self.people_of[c][: len(self.people_of[c]) // 2] for c in self.cities]
        self.taught = {self.works_for[b] for bosses in half for b in bosses}


@functools.cache
def world() -> World:
    """The one that the suite asks about."""
    return World(SEED, PEOPLE, CITIES, CODE_LENGTH)


def asked(random: Random, words: tuple[str, ...], person: str) -> str:
    """One of the ways to ask for something of a person."""
    word = random.choice(words)
    return f"{word} {person}" if random.random() < 0.5 else f"{person} {word}"


def codes(random: Random) -> Question:
    """``pin dake: wfhq``: four random letters, so that exact match needs them all."""
    people = random.sample(world().people, 4)
    answer = random.randrange(4)
    return Question(asked(random, CODE_WORDS, people[answer]), tuple(world().code[p] for p in people), answer, difficulty=1)


def homes(random: Random) -> Question:
    """``home dake: kora``: one of 12 cities."""
    cities = random.sample(world().cities, 4)
    answer = random.randrange(4)
    person = random.choice(world().people_of[cities[answer]])
    return Question(asked(random, HOME_WORDS, person), tuple(cities), answer, difficulty=1)


def bosses(random: Random) -> Question:
    """``boss dake: mira``: a lesson that ``two_hop`` builds on."""
    people = random.sample(world().people, 4)
    answer = random.randrange(4)
    return Question(asked(random, BOSS_WORDS, people[answer]), tuple(world().boss[p] for p in people), answer)


def two_hop(random: Random) -> Question:
    """``home boss dake: kora``, in steps ``mira =``: the home of the boss of somebody of whom it was never asked."""
    cities = random.sample(world().cities, 4)
    answer = random.randrange(4)
    boss = random.choice(world().people_of[cities[answer]])
    person = world().works_for[boss]
    # The word for a home comes first, so that no question of ``homes`` is part of one of these.
    text = f"{random.choice(HOME_WORDS)} {asked(random, BOSS_WORDS, person)}"
    return Question(text, tuple(cities), answer, boss, 2, side=person in world().taught)


SUBJECTS = (
    Subject("codes", GROUP, "codes of people", alone(codes), weight=1.25, train=0.4),
    Subject("homes", GROUP, "homes of people", alone(homes), weight=1.25, train=0.4),
    Subject("two_hop", GROUP, "homes of bosses", alone(two_hop), weight=0.25, cot=0.5, lesson=bosses, lessons=0.5),
)
