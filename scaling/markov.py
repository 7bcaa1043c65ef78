"""A generated language whose entropy is known: a seeded Markov source of order k, as a token store.  Imports no jax.

    python -m scaling.markov --out tokens/markov                                     the default language
    python -m scaling.markov --out tokens/m3 --order 3 --symbols 16 --concentration 0.1 --zipf 0 --tokens 20e6 --seed 1

The loss that no model can beat is computed, not estimated, for windows of T targets as training and validation cut them: a
window x_0 ... x_T lies anywhere in one long stationary stream, without marks of beginning or end, and target x_t is predicted
from x_0 ... x_{t-1}.  While fewer than k symbols are known, nothing predicts better than the stationary distribution given
those; from k on, nothing predicts better than the source's own row.  So with h_j = H(X_j | X_0 ... X_{j-1}), the entropies of
the stationary source (Cover and Thomas, Elements of Information Theory, 4.2),

    ideal_loss(T) = (h_1 + ... + h_{k-1} + (T - k + 1) h_k) / T        nats per token

h_0 is not in it: the first symbol of a window is never a target.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import os
import pathlib
import sys
from bisect import bisect_right
from typing import Any

import numpy as np

from scaling import cli, config
from scaling import tokenizer as tokenizers
from scaling.building import Progress, make_store, sync, write_record
from scaling.store import SCHEMA, SPLITS, Split, StoreError, TokenStore, mean_entropy

OUT = "tokens/markov"
FIRST_BYTE = ord("!")  # symbol s is the printable byte '!' + s, so that a store of it is a store of bytes like any other
MAX_SYMBOLS = ord("~") - FIRST_BYTE + 1
MAX_ENTRIES = 1 << 22  # of the table: 32 MB, and 0.2 GB as the lists that generation walks
MIXING = 0.01  # of every row is that of no context: any symbol can follow any context, so there is one stationary distribution
MAX_STEPS = 5000  # to rest, to 14 digits: what a source remembers fades by half at least every 107 tokens
VALID_PART = 20  # validation tokens are one part in so many of the training tokens
MIN_VALID_TOKENS = 200_000  # a run looks at no more than 512 windows
CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Spec:
    """What decides a language and the text drawn from it.

    Attributes:
      order: k, how many symbols the next one depends on.
      symbols: V, at most 94.
      concentration: the mean parameter of the Dirichlet distributions that rows are drawn from: small ones give rows with
        few likely symbols and a low entropy.
      zipf: s; frequencies fall about as rank^-s, and contexts' with them, so that there is something to learn at every scale
        of data and size; at 0 all symbols are about as frequent.
      seed: of the language and of its text.
      tokens: of training text.
    """

    order: int = 2
    symbols: int = 32
    concentration: float = 0.3
    zipf: float = 1.0
    seed: int = 0
    tokens: int = 8_000_000

    def problems(self) -> list[str]:
        """Why no such language can be made, each with field, value and remedy."""
        out = []
        if self.order < 1:
            out.append(f"--order {self.order}: must be at least 1")
        if not 2 <= self.symbols <= MAX_SYMBOLS:
            out.append(f"--symbols {self.symbols}: must be from 2 to {MAX_SYMBOLS}")
        if not 0.01 <= self.concentration <= 1000:
            out.append(f"--concentration {self.concentration:g}: must be from 0.01 (sharp rows) to 1000 (flat ones)")
        if not 0 <= self.zipf <= 4:
            out.append(f"--zipf {self.zipf:g}: must be from 0 (all symbols alike) to 4")
        if self.seed < 0:
            out.append(f"--seed {self.seed}: must not be negative")
        if self.tokens < 1000:
            out.append(f"--tokens {self.tokens:,}: must be at least 1,000")
        if not out and self.symbols ** (self.order + 1) > MAX_ENTRIES:
            fits = int(math.log(MAX_ENTRIES) / math.log(self.symbols) - 1 + 1e-9)
            out.append(
                f"--order {self.order} --symbols {self.symbols}: a table of {self.symbols ** (self.order + 1):,} entries, at "
                f"most {MAX_ENTRIES:,}; use --order {max(1, fits)} or fewer symbols"
            )
        return out


@dataclasses.dataclass(frozen=True)
class Language:
    """A stationary Markov source; contexts are numbered with their oldest symbol as the most significant digit.

    Attributes:
      order: k.
      rows: (V^k, V) the distribution of the next symbol after each context.
      stationary: (V^k,) the distribution of contexts.
    """

    order: int
    rows: np.ndarray
    stationary: np.ndarray

    @property
    def symbols(self) -> int:
        """V."""
        return self.rows.shape[1]

    def joint(self, known: int) -> np.ndarray:
        """(V^j, V) the probability of ``known`` = j symbols in a row, at most k of them, and the one after."""
        if known == self.order:
            return self.stationary[:, None] * self.rows
        return self.stationary.reshape(self.symbols**known, self.symbols, -1).sum(axis=2)

    def predictions(self, known: int) -> np.ndarray:
        """(V^j, V) the best prediction of a symbol from the j = ``known`` before it, at most k."""
        joint = self.joint(known)
        return joint / joint.sum(axis=1, keepdims=True)

    def entropies(self) -> tuple[float, ...]:
        """h_0 ... h_k: nats of a symbol when 0 ... k of those before it are known; more help no further."""
        out = []
        for known in range(self.order + 1):
            joint, best = self.joint(known), self.predictions(known)
            out.append(-float(np.sum(joint * np.log(best, where=joint > 0, out=np.zeros_like(best)))))
        return tuple(out)

    def window_nats(self, windows: np.ndarray) -> np.ndarray:
        """(n,) nats that the best predictor, which knows the source, loses on the targets of ``windows`` (n, T + 1) symbols."""
        total = np.zeros(len(windows))
        context = np.zeros(len(windows), np.int64)
        for t in range(windows.shape[1]):
            if t:
                total -= np.log(self.predictions(min(t, self.order))[context, windows[:, t]])
            context = context * self.symbols + windows[:, t]
            if t >= self.order:
                context %= self.symbols**self.order
        return total


def make_language(spec: Spec) -> Language:
    """The language of ``spec``.

    The row of a context is Dirichlet around the row of the context without its oldest symbol, down to no context at all, whose
    row is r^-zipf over ranks r (a hierarchical Dirichlet language: MacKay and Peto 1995).  So a shorter context predicts too,
    if less well, and a small model has something to learn before the large one's last digits.

    Raises:
      StoreError: for a source whose text depends on its beginning for long.
    """
    random = np.random.default_rng([spec.seed, 0])
    root = np.arange(1, spec.symbols + 1) ** -spec.zipf
    root /= root.sum()
    rows = root[None]
    for _ in range(spec.order):
        parents = np.tile(rows, (spec.symbols, 1))  # the oldest symbol is the first digit
        drawn = random.standard_gamma(spec.concentration * spec.symbols * parents)
        total = drawn.sum(axis=1, keepdims=True)
        rows = np.where(total > 0, drawn / np.where(total > 0, total, 1), parents)
    rows = (1 - MIXING) * rows + MIXING * root
    stationary = _stationary(rows)
    if stationary is None:
        fields = dataclasses.asdict(spec)
        what = " ".join(f"--{name} {fields[name]:g}" for name in ("order", "symbols", "concentration", "zipf", "seed"))
        raise StoreError(
            f"{what}: this source forgets its beginning too slowly (not at rest after {MAX_STEPS:,} steps), so that no text of "
            f"it would be typical; use a larger --concentration, a smaller --order or another --seed"
        )
    return Language(spec.order, rows, stationary)


def _stationary(rows: np.ndarray) -> np.ndarray | None:
    """(V^k,) the distribution that a step of the source leaves as it is, to rounding; None where it is not soon reached."""
    contexts, symbols = rows.shape
    now = np.full(contexts, 1 / contexts)
    with Progress("bringing the source to rest, at most", MAX_STEPS * rows.size, unit="million terms") as progress:
        for _ in range(MAX_STEPS):
            after = (now[:, None] * rows).reshape(symbols, -1).sum(axis=0)  # sums the oldest symbol out
            after /= after.sum()
            if np.abs(after - now).sum() < 1e-14:
                return after
            now = after
            progress.advance(rows.size)
    return None


def sample(language: Language, n: int, random: np.random.Generator, progress: Progress | None = None) -> np.ndarray:
    """(n,) uint8 symbols of one stationary stream: 3 million a second, in plain Python, as every step needs the last."""
    symbols, contexts = language.symbols, len(language.rows)
    cumulative = np.cumsum(language.rows, axis=1)
    cumulative[:, -1] = 1.0
    table: list[list[float]] = cumulative.tolist()
    start = np.cumsum(language.stationary)
    context = min(int(np.searchsorted(start, random.random() * start[-1], side="right")), contexts - 1)
    out = bytearray((context // symbols ** (language.order - 1 - i)) % symbols for i in range(language.order))
    while len(out) < n:
        count = min(CHUNK, n - len(out))
        for u in random.random(count).tolist():
            symbol = bisect_right(table[context], u)
            context = (context * symbols + symbol) % contexts
            out.append(symbol)
        if progress:
            progress.advance(count)
    return np.frombuffer(bytes(out[:n]), np.uint8)


# ---- the store


def build(spec: Spec, out: str | os.PathLike[str] = OUT, context: int = config.ModelConfig.context) -> TokenStore:
    """The store of ``spec`` at ``out``, generated where it is missing: one stream for training, another for validation.

    Args:
      spec: of the language.
      out: the folder to make.
      context: T of the windows that ``ideal_loss`` in store.json is for; a run computes its own from the entropies beside it.

    Raises:
      StoreError: for a spec that cannot be, or an ``out`` that cannot be written or holds something else.
    """
    problems = spec.problems() + ([] if context >= 1 else [f"--context {context}: must be at least 1"])
    if problems:
        raise StoreError("; ".join(problems))
    fields = dataclasses.asdict(spec)
    if not spec.zipf:
        del fields["zipf"]  # as stores said it before there was a choice
    recipe = {"source": {"kind": "markov", "mixing": MIXING} | fields, "context": context}
    return make_store(pathlib.Path(out), recipe, lambda folder: _write(spec, folder, recipe))


def _write(spec: Spec, folder: pathlib.Path, recipe: dict[str, Any]) -> None:
    language = make_language(spec)
    lengths = {"train": spec.tokens, "valid": max(MIN_VALID_TOKENS, spec.tokens // VALID_PART)}
    splits, context = {}, recipe["context"]
    with Progress("generating", sum(lengths.values()), unit="million tokens") as progress:
        for number, split in enumerate(SPLITS, 1):
            symbols = sample(language, lengths[split], np.random.default_rng([spec.seed, number]), progress)
            data = (symbols.astype("<u2") + (FIRST_BYTE + tokenizers.SPECIALS)).tobytes()
            (folder / f"{split}.bin").write_bytes(data)
            np.save(folder / f"{split}.idx.npy", np.array([0, len(symbols)], np.int64))
            sync(folder / f"{split}.bin")
            sync(folder / f"{split}.idx.npy")
            splits[split] = Split(len(symbols), len(symbols), 1, hashlib.sha256(data).hexdigest())
    tokenizer = tokenizers.byte_tokenizer()
    what = [*(split.sha256 for split in splits.values()), tokenizer.fingerprint]
    entropies = language.entropies()
    content = {
        "schema": SCHEMA,
        "description": f"generated: a Markov source of order {spec.order} over {spec.symbols} symbols, concentration "
        f"{spec.concentration:g}, Zipf exponent {spec.zipf:g}, seed {spec.seed}; entropy {entropies[-1]:.6f} nats per token",
        "vocab": "bytes",
        "vocab_size": tokenizer.vocab_size,
        "dtype": "<u2",
        "fingerprint": hashlib.sha256("|".join(what).encode()).hexdigest()[:16],
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        "split": {"by": "streams"},
        "splits": {name: dataclasses.asdict(split) for name, split in splits.items()},
        "ideal_loss": mean_entropy(entropies, context),
        "ideal_context": context,
        "entropies": entropies,
        "recipe": recipe,
        "found": {},
    }
    write_record(folder, content)


def language_of(store: TokenStore) -> Language:
    """The language of a store that ``build`` made.

    Raises:
      StoreError: for a store of something else, or of a language that this version of NumPy draws otherwise.
    """
    if store.source.get("kind") != "markov":
        raise StoreError(f"{store.path}: holds no generated language; make one with python -m scaling.markov")
    source = {"zipf": 0.0} | store.source
    language = make_language(Spec(**{f.name: source[f.name] for f in dataclasses.fields(Spec)}))
    if not np.allclose(language.entropies(), store.entropies, rtol=0, atol=1e-12):
        raise StoreError(f"{store.path}: this version of NumPy draws another language; generate the store again")
    return language


def loss_of_the_best(store: TokenStore, windows: np.ndarray) -> float:
    """Nats per target that the best predictor, which knows the source, loses on ``windows`` (n, T + 1) of token ids; raises
    what ``language_of`` raises."""
    return float(language_of(store).window_nats(symbols_of(windows)).mean() / (windows.shape[1] - 1))


def symbols_of(tokens: np.ndarray) -> np.ndarray:
    """Symbols of token ids."""
    return tokens.astype(np.int64) - (FIRST_BYTE + tokenizers.SPECIALS)


# ---- the command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit status is 0, or 2 for what cannot be made."""

    def run() -> int:
        args = vars(_parser().parse_args(arguments))
        out, context = args.pop("out"), args.pop("context")
        store = build(Spec(**args), out, context)
        train, valid = store.splits["train"].tokens, store.splits["valid"].tokens
        print(f"{store.path}: {train:,} training tokens, {valid:,} validation tokens; fingerprint {store.fingerprint}")
        print(store.description)
        print(f"no model can do better than {store.ideal_loss(context):.6f} nats per token over windows of {context} targets")
        return 0

    try:
        return cli.guarded(run, StoreError)
    except KeyboardInterrupt:
        print("stopped; nothing was left behind", file=sys.stderr)
        return 130


def _count(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, such as 4e6")
    return int(value)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m scaling.markov",
        description="Makes a token store of a generated language: a Markov source whose best possible loss is known exactly.",
        epilog="then train with --config.data.store=tokens/markov; a ladder: python -m scaling.launch --sweep known_entropy.py",
    )
    default = Spec()
    parser.add_argument("--out", default=OUT, help=f"folder to make (default: {OUT})")
    parser.add_argument("--order", type=int, default=default.order, help="symbols that the next one depends on (default: 2)")
    parser.add_argument(
        "--symbols", type=int, default=default.symbols, help=f"size of the alphabet, at most {MAX_SYMBOLS} (default: 32)"
    )
    parser.add_argument(
        "--concentration", type=float, default=default.concentration,
        help="mean Dirichlet parameter of a row; smaller is sharper (default: 0.3)",
    )  # fmt: skip
    parser.add_argument(
        "--zipf", type=float, default=default.zipf,
        help=f"frequencies fall as rank to minus this; 0: all alike (default: {default.zipf:g})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=default.seed, help="of the language and its text (default: 0)")
    parser.add_argument("--tokens", type=_count, default=default.tokens, help="of training text (default: 8e6)")
    parser.add_argument(
        "--context", type=int, default=config.ModelConfig.context,
        help="targets per window that store.json's ideal_loss is for (default: that of the default model)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
