"""The training text of the laptop suite, as a token store: documents of questions with their answers.  Imports no jax.

    python -m scaling.evals.laptop --out tokens/laptop

A document holds several lines of one subject, as few-shot prompts have them: direct, with their steps, or as MMLU puts them.
Every question in it belongs to the training split by its hash, so no item of the suite is in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from random import Random
from typing import Any

import numpy as np

from scaling import tokenizer as tokenizers
from scaling.building import Progress, make_store, sync, write_record
from scaling.evals.items import LETTERS
from scaling.evals.laptop.subject import TRAIN, Draw, Question, Subject
from scaling.evals.laptop.subjects import SUBJECTS
from scaling.store import SCHEMA, SPLITS, Split, StoreError, TokenStore

OUT = "tokens/laptop"
VERSION = 1  # of the generators: another one is another store
VALID_PART = 20
DOCUMENT_BYTES = 190  # of answered questions; a document in the letter format has a header besides, and three times as much


@dataclasses.dataclass(frozen=True)
class Spec:
    """What decides a text.

    Attributes:
      subjects: names, in order; '' is all of them.
      letters: the share of documents in MMLU's letter format.
      tokens: of training text.
      seed: of the text; the world that it speaks of is always the same.
    """

    subjects: tuple[str, ...] = ()
    letters: float = 0.0
    tokens: int = 1_500_000
    seed: int = 0

    def problems(self) -> list[str]:
        """Why no such text can be made, each with field, value and remedy."""
        known = [s.name for s in SUBJECTS]
        out = [
            f"--subjects {name}: there is no such subject; there are {', '.join(known)}"
            for name in self.subjects
            if name not in known
        ]
        if not 0 <= self.letters <= 1:
            out.append(f"--letters {self.letters:g}: must be a share from 0 to 1")
        if self.tokens < 1000:
            out.append(f"--tokens {self.tokens:,}: must be at least 1,000")
        if self.seed < 0:
            out.append(f"--seed {self.seed}: must not be negative")
        return out

    def chosen(self) -> tuple[Subject, ...]:
        """The subjects."""
        return tuple(s for s in SUBJECTS if not self.subjects or s.name in self.subjects)


# Stores that are built when they are missing: folder -> text.
DEFAULTS = {
    pathlib.Path(OUT).name: Spec(),
    "letters": Spec(("codes", "homes"), letters=0.8, tokens=4_000_000),
}


def build(spec: Spec, out: str | os.PathLike[str] = OUT) -> TokenStore:
    """The store of ``spec`` at ``out``, generated where it is missing.

    Raises:
      StoreError: for a spec that cannot be, or an ``out`` that cannot be written or holds something else.
    """
    problems = spec.problems()
    if problems:
        raise StoreError("; ".join(problems))
    subjects = {s.name: {"weight": s.weight, "cot": s.cot} for s in spec.chosen()}
    recipe = {"source": {"kind": "laptop", "version": VERSION} | dataclasses.asdict(spec) | {"subjects": subjects}}
    return make_store(pathlib.Path(out), recipe, lambda folder: _write(spec, folder, recipe))


def document(random: Random, subject: Subject, letters: float) -> str:
    """One document of ``subject``."""
    draw = training_world(random, subject)
    format = "letter" if random.random() < letters else "cot" if random.random() < subject.cot else "cloze"
    parts = [letter_header(subject)] if format == "letter" else []
    size = 0
    while size < DOCUMENT_BYTES * (3 if format == "letter" else 1):
        if subject.lesson and random.random() < subject.lessons:
            part = subject.lesson(random).line()
        else:
            question = of_training(random, subject, draw)
            part = letter(question) if format == "letter" else question.line(cot=format == "cot")
        parts.append(part)
        size += len(part)
    return "".join(parts)


def training_world(random: Random, subject: Subject) -> Draw:
    """What a training document's questions have in common."""
    while True:
        draw = subject.world(random)
        if subject.split(draw(random)) == TRAIN:
            return draw


def of_training(random: Random, subject: Subject, draw: Draw) -> Question:
    """A question of the training split."""
    for _ in range(10_000):
        question = draw(random)
        if subject.split(question) == TRAIN:
            return question
    raise RuntimeError(f"{subject.name}: draws no question of the training split")


def letter_header(subject: Subject) -> str:
    return f"The following are multiple choice questions (with answers) about {subject.about}.\n\n"


def letter(question: Question) -> str:
    options = "".join(f"{LETTERS[i]}. {c}\n" for i, c in enumerate(question.choices))
    return f"{question.text}\n{options}Answer: {LETTERS[question.answer]}\n\n"


def _write(spec: Spec, folder: pathlib.Path, recipe: dict[str, Any]) -> None:
    subjects = spec.chosen()
    tokenizer = tokenizers.byte_tokenizer()
    lengths = {"train": spec.tokens, "valid": max(100_000, spec.tokens // VALID_PART)}
    splits = {}
    with Progress("generating", sum(lengths.values()), unit="million tokens") as progress:
        for split in SPLITS:
            random = Random(f"{spec.seed}/{split}")
            debt = {s.name: 0.0 for s in subjects}
            texts, offsets = [], [0]
            while offsets[-1] < lengths[split]:
                # The subject that is furthest behind its share, in bytes: shares are exact at every length of the text.
                subject = min(subjects, key=lambda s: debt[s.name])
                text = document(random, subject, spec.letters)
                debt[subject.name] += (len(text) + 1) / subject.weight
                texts.append(text)
                offsets.append(offsets[-1] + len(text) + 1)
                progress.advance(len(text) + 1)
            raw = np.frombuffer(("\0".join(texts) + "\0").encode(), np.uint8)
            ids = np.where(raw == 0, tokenizers.EOS, raw.astype("<u2") + tokenizers.SPECIALS).astype("<u2")
            data = ids.tobytes()
            (folder / f"{split}.bin").write_bytes(data)
            np.save(folder / f"{split}.idx.npy", np.array(offsets, np.int64))
            sync(folder / f"{split}.bin")
            sync(folder / f"{split}.idx.npy")
            splits[split] = Split(len(ids), len(ids) - len(texts), len(texts), hashlib.sha256(data).hexdigest())
    what = [*(split.sha256 for split in splits.values()), tokenizer.fingerprint]
    names = ", ".join(s.name for s in subjects)
    content = {
        "schema": SCHEMA,
        "description": f"generated: questions of the laptop suite with their answers ({names}), {100 * spec.letters:g} % of "
        f"documents in MMLU's letter format, seed {spec.seed}",
        "vocab": "bytes",
        "vocab_size": tokenizer.vocab_size,
        "dtype": "<u2",
        "fingerprint": hashlib.sha256("|".join(what).encode()).hexdigest()[:16],
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        "split": {"by": "documents"},
        "splits": {name: dataclasses.asdict(split) for name, split in splits.items()},
        "recipe": recipe,
        "found": {},
    }
    write_record(folder, content)
