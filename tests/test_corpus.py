"""From files to a token store: every format, every kind of bad input, kills and concurrent builds, on real files."""

import dataclasses
import fcntl
import gzip
import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from scaling import corpus, store
from scaling.corpus import build, load_store, main, open_store, split_of
from scaling.data import Stream
from scaling.mixture import Dataset
from scaling.sources import DemoSource, FileSource, SourceError, demo
from scaling.sources.demo import prose_lines
from scaling.store import StoreError
from scaling.tokenizer import EOS

ROOT = pathlib.Path(__file__).parents[1]
NEEDS_DEMO = pytest.mark.skipif(
    not all(importlib.util.find_spec(m) for m in ("botocore", "googleapiclient")),
    reason="the default corpus needs the demo extra: pip install -e '.[demo]'",
)


def rows(n: int) -> list[dict[str, str]]:
    return [
        {"id": f"doc-{i}", "text": f"Document {i} — naïve\u2028text,\u0085 {hashlib.sha256(bytes([i])).hexdigest()}\n"}
        for i in range(n)
    ]


def jsonl(items) -> bytes:
    return b"".join(json.dumps(item, ensure_ascii=False).encode() + b"\n" for item in items)


def documents_of(opened: corpus.TokenStore) -> dict[str, list[str]]:
    """Every document as text, by split, after a check that each one ends with EOS."""
    out = {}
    for split in ("train", "valid"):
        tokens, at = opened.tokens(split), opened.offsets(split)
        assert (tokens[at[1:] - 1] == EOS).all() and (tokens == EOS).sum() == len(at) - 1
        out[split] = [opened.tokenizer.decode(tokens[i:j]) for i, j in itertools.pairwise(at)]
    return out


def tree(folder: pathlib.Path) -> list[str]:
    """What lies in a folder, lock files apart."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


# ---- every format gives the same documents


def write_parquet(path: pathlib.Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows(90)), path, row_group_size=16)


WRITERS = {
    "a.jsonl": lambda p: p.write_bytes(jsonl(rows(90))),
    "a.jsonl.gz": lambda p: p.write_bytes(gzip.compress(jsonl(rows(40))) + gzip.compress(jsonl(rows(90)[40:]))),
    "a.jsonl.zst": lambda p: p.write_bytes(
        zstandard.compress(jsonl(rows(40))) + zstandard.compress(b"\n" + jsonl(rows(90)[40:]))
    ),
    "a.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_formats_agree(tmp_path, name):
    # fails when a format loses rows or frames, cuts lines at U+2028 or U+0085, or names documents by something unstable
    WRITERS[name](tmp_path / name)
    opened = build(FileSource([str(tmp_path / "a.*")]), tmp_path / "out")
    expected = {"train": [], "valid": []}
    for row in rows(90):
        expected[split_of(f"{name}#{row['id']}")].append(row["text"])
    assert documents_of(opened) == expected and expected["valid"]
    assert opened.split_by == "documents" and opened.dtype == np.dtype("<u2")
    for split, texts in expected.items():
        counts = opened.splits[split]
        data = (tmp_path / "out" / f"{split}.bin").read_bytes()
        assert counts.docs == len(texts) and counts.bytes == sum(len(t.encode()) for t in texts)
        assert counts.tokens == counts.bytes + counts.docs and counts.sha256 == hashlib.sha256(data).hexdigest()


def test_text_files_are_documents(tmp_path):
    # fails when line ends are translated, the byte-order mark stays, a character is cut where blocks of reading meet
    texts = {f"{i:02d}.txt": f"Chapter {i}\r\n" + "é€👍" * 10 for i in range(60)}
    texts["long.txt"] = "".join(f"{i} 한국어 단어 naïve\n" for i in range(60_000))  # over one block of reading, over one piece
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode("utf-8-sig"))
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(texts["long.txt"].encode()))
    opened = build(FileSource([str(tmp_path / "*.txt"), str(tmp_path / "*.txt.gz")]), tmp_path / "out")
    found = documents_of(opened)
    assert sorted(found["train"] + found["valid"]) == sorted([*texts.values(), texts["long.txt"]])


def test_bpe_store(tmp_path):
    # fails when the vocabulary sees validation text, pieces lose text, or the model is not found again
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows(200)))
    opened = build(FileSource([str(tmp_path / "a.jsonl")]), tmp_path / "out", vocab="320")
    assert (opened.vocab, opened.vocab_size, len(opened.token_bytes)) == ("320", 320, 320)
    found = documents_of(opened)
    assert sorted(found["train"] + found["valid"]) == sorted(row["text"] for row in rows(200))
    train = opened.splits["train"]
    assert train.bytes == opened.token_bytes[opened.tokens("train")].sum() and train.tokens < 0.9 * train.bytes
    # another validation text leaves vocabulary and training tokens as they are
    changed = [r | {"text": "Ganz anders! ÄÖÜ " * 20} if split_of(f"a.jsonl#{r['id']}") == "valid" else r for r in rows(200)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(changed))
    other = build(FileSource([str(tmp_path / "a.jsonl")]), tmp_path / "other", vocab="320")
    assert other.tokenizer.fingerprint == opened.tokenizer.fingerprint and other.splits["train"] == opened.splits["train"]
    assert other.fingerprint != opened.fingerprint


def test_bpe_sample_is_bounded_and_ignores_order(tmp_path, monkeypatch):
    # fails when a large corpus is held whole, or the sample depends on the order of files
    monkeypatch.setattr(corpus, "BPE_SAMPLE_CHARACTERS", 2000)
    samples = []
    for items in (rows(200), rows(200)[::-1]):
        (tmp_path / "a.jsonl").write_bytes(jsonl(items))
        samples.append(corpus._bpe_sample(FileSource([str(tmp_path / "a.jsonl")]), 20, None, lambda n: None))
    assert samples[0] == samples[1] and 1000 < sum(map(len, samples[0])) <= 2000


def test_large_vocabularies_need_four_bytes(tmp_path, monkeypatch):
    # fails when ids above 65,535 wrap around
    from scaling import tokenizer as tokenizers

    class Wide(tokenizers.ByteTokenizer):
        def __init__(self):
            tokenizers.Tokenizer.__init__(self, [b""] * 4 + [b"x"] * 70_000 + [bytes([b]) for b in range(256)])

        def encode(self, text):
            return super().encode(text) + 70_000

    (tmp_path / "a.jsonl").write_bytes(jsonl(rows(90)))
    monkeypatch.setattr(tokenizers, "byte_tokenizer", Wide)
    opened = build(FileSource([str(tmp_path / "a.jsonl")]), tmp_path / "out")
    assert opened.dtype == np.dtype("<u4") and opened.tokens("train").max() > 65_535
    assert rows(90)[0]["text"] in documents_of(opened)["train"]


# ---- the split


def test_one_long_document_is_cut_into_parts(tmp_path, capsys):
    # fails when one big .txt leaves a side empty, loses text, or the store hides that parts were used
    text = "\n\n".join(f"Paragraph {i}: " + hashlib.sha256(bytes([i % 256])).hexdigest() for i in range(3000))
    (tmp_path / "book.txt").write_text(text)
    assert main(["--text", str(tmp_path / "book.txt"), "--out", str(tmp_path / "out")]) == 0
    assert "their loss flatters the model" in capsys.readouterr().out
    opened = open_store(tmp_path / "out")
    assert opened.split_by == "parts"
    found = documents_of(opened)
    assert sum(map(len, found["train"] + found["valid"])) == len(text)
    assert all(part.endswith("\n\n") for part in found["valid"] if not text.endswith(part))
    assert 0.02 < opened.splits["valid"].bytes / len(text) < 0.12


def test_a_split_does_not_depend_on_the_rest(tmp_path):
    # fails when adding or moving text moves a document from training to validation
    (tmp_path / "b").mkdir()
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows(90)))
    (tmp_path / "b" / "a.jsonl").write_bytes(jsonl(rows(90)))
    (tmp_path / "b" / "more.jsonl").write_bytes(jsonl({"text": f"more {i}"} for i in range(50)))
    one = documents_of(build(FileSource([str(tmp_path / "a.jsonl")]), tmp_path / "one"))
    two = documents_of(build(FileSource([str(tmp_path / "b" / "*.jsonl")]), tmp_path / "two"))
    assert set(one["valid"]) < set(two["valid"]) and set(one["train"]) < set(two["train"])
    shares = [split_of(f"x{i}", 10) == "valid" for i in range(5000)]
    assert 0.08 < np.mean(shares) < 0.12


# ---- bad input: one message, status 2, nothing left behind

ROWS = jsonl(rows(90))
BAD = {
    "no match": ({}, ["--text", "{}/*.txt"], "matches no file"),
    "near match": ({"books.txt": b"x"}, ["--text", "{}/bookz.txt"], 'Did you mean "books.txt"'),
    "no folder": ({}, ["--text", "{}/nowhere/*.txt"], "there is no folder"),
    "extension": ({"a.pdf": b"x"}, ["--text", "{}/a.pdf"], "a.pdf: cannot tell its format"),
    "empty": ({"a.txt": b""}, ["--text", "{}/a.txt"], "the corpus is empty"),
    "empty texts": ({"a.jsonl": jsonl({"text": ""} for _ in range(90))}, ["--text", "{}/a.jsonl"], "the corpus is empty"),
    "latin1 txt": ({"a.txt": b"caf\xe9 au lait"}, ["--text", "{}/a.txt"], "a.txt: not UTF-8 at byte 3 (value 0xe9)"),
    "cut character": ({"a.txt": b"x" * (1 << 20) + b"\xe2\x82"}, ["--text", "{}/a.txt"], "not UTF-8 at byte 1048576"),
    "bad json": ({"a.jsonl": ROWS + b'{"text": oops}\n'}, ["--text", "{}/a.jsonl"], "a.jsonl:91: not valid JSON"),
    "no object": ({"a.jsonl": ROWS + b"[1]\n"}, ["--text", "{}/a.jsonl"], "a.jsonl:91: holds a list"),
    "latin1 json": ({"a.jsonl": ROWS + b'{"text": "\xe9"}'}, ["--text", "{}/a.jsonl"], "a.jsonl:91: not UTF-8 at byte 10"),
    "surrogate": ({"a.jsonl": b'{"text": "x\\ud800"}'}, ["--text", "{}/a.jsonl"], "half a surrogate pair at character 1"),
    "field": ({"a.jsonl": b'{"texts": "x"}'}, ["--text", "{}/a.jsonl"], "no field 'text' (it has 'texts')"),
    "near field": ({"a.jsonl": b'{"texts": "x"}'}, ["--text", "{}/a.jsonl"], '--field. Did you mean "texts"?'),
    "not text": ({"a.jsonl": b'{"text": null}'}, ["--text", "{}/a.jsonl"], "field 'text' is None, not a string"),
    "gz": ({"a.jsonl.gz": gzip.compress(ROWS)[:-20]}, ["--text", "{}/a.jsonl.gz"], "a.jsonl.gz: damaged or cut short"),
    "no gz": ({"a.jsonl.gz": ROWS}, ["--text", "{}/a.jsonl.gz"], "a.jsonl.gz: damaged or cut short"),
    "zst": ({"a.txt.zst": zstandard.compress(ROWS * 9)[:-20]}, ["--text", "{}/a.txt.zst"], "a.txt.zst: damaged or cut short"),
    "no zst": ({"a.txt.zst": ROWS}, ["--text", "{}/a.txt.zst"], "a.txt.zst: damaged or cut short"),
    "parquet": ({"a.parquet": ROWS}, ["--text", "{}/a.parquet"], "a.parquet: not a readable Parquet file"),
    "vocab": ({"a.jsonl": ROWS}, ["--text", "{}/a.jsonl", "--vocab", "50000"], "too large for this corpus"),
    "vocab word": ({"a.jsonl": ROWS}, ["--text", "{}/a.jsonl", "--vocab", "bpe"], "--vocab bpe: must be 'bytes', a BPE"),
    "little": ({"a.txt": b"A few words."}, ["--text", "{}/a.txt"], "too little text for a validation split"),
    "holdout": ({"a.jsonl": ROWS}, ["--text", "{}/a.jsonl", "--holdout", "1"], "--holdout 1: must be at least 2"),
    "no place": ({"a.jsonl": ROWS}, ["--text", "{}/a.jsonl", "--out", "{}/a.jsonl/out"], "cannot be written"),
    "no such device": ({"a.jsonl": ROWS}, ["--text", "{}/a.jsonl", "--out", "/proc/tokens"], "cannot be written"),
    "no name": ({"a.jsonl": ROWS}, ["--text", "{}/a.jsonl", "--out", "."], "--out .: has no name of its own; name a folder"),
    "home": ({}, ["--text", "~/books/*.txt"], "no folder /nowhere/books"),
    "file in the way": ({"a.jsonl": ROWS, "out": b"x"}, ["--text", "{}/a.jsonl"], "out: exists and is no token store"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(tmp_path, capsys, monkeypatch, name):
    # fails when bad input gives a traceback, another status, a message without place or remedy, or leaves a folder
    monkeypatch.setenv("HOME", "/nowhere")
    files, arguments, message = BAD[name]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    arguments = [a.replace("{}", str(tmp_path)) for a in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert tree(tmp_path) == sorted(files)


def test_parquet_column(tmp_path, capsys):
    # fails when a missing column shows only in the middle of the work, or numbers are taken for text
    pq.write_table(pa.table({"content": ["x"], "n": [1]}), tmp_path / "a.parquet")
    for field, message in (("contents", 'Did you mean "content"?'), ("n", "column 'n' holds int64, not strings")):
        assert main(["--text", str(tmp_path / "a.parquet"), "--field", field, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert tree(tmp_path) == ["a.parquet"]


def test_command_as_a_process(tmp_path):
    # fails when `python -m scaling.corpus` does not run, teach, or exit with status 2
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "scaling.corpus", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )

    taught = run("--help")
    assert taught.returncode == 0 and "--vocab 4096" in taught.stdout
    for arguments in (
        [],
        ["--text", "x.txt"],
        ["--text", "x.txt", "--demo"],
        ["--text", str(tmp_path / "x.txt"), "--out", "y"],
    ):
        failed = run(*arguments)
        assert failed.returncode == 2 and "Traceback" not in failed.stderr and failed.stderr


def test_corpus_needs_no_jax():
    # fails when building a store (or pricing a sweep) has to load jax, grain or sentencepiece
    heavy = {"sentencepiece", "jax", "grain", "pyarrow", "fsspec", "datasets", "array_record"}
    code = f"import sys, scaling.corpus; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- built once, atomically


def test_same_command_builds_once(tmp_path, capsys):
    # fails when a second run builds again, a moved copy of the same text counts as another, or other text overwrites
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    command = ["--text", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = (tmp_path / "out" / "train.bin").stat()
    assert "already built" not in capsys.readouterr().out
    os.utime(tmp_path / "a.jsonl", (0, 0))
    assert main(command) == 0
    assert "already built" in capsys.readouterr().out
    for extra in (["--vocab", "300"], ["--holdout", "10"]):
        assert main([*command, *extra]) == 2
        assert f"holds a store of another {extra[0][2:]}" in capsys.readouterr().err
    (tmp_path / "a.jsonl").write_bytes(ROWS + jsonl([{"text": "one more"}]))
    assert main(command) == 2
    assert "another source" in capsys.readouterr().err
    after = (tmp_path / "out" / "train.bin").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


KILLED = """
import sys, time
from scaling import corpus, sources
class Slow(sources.FileSource):
    def documents(self, advance):
        for number, document in enumerate(super().documents(advance)):
            if number == 80: print("half-way", flush=True); time.sleep(60)
            yield document
corpus.build(Slow([sys.argv[1]]), sys.argv[2])
"""


def test_a_killed_build_leaves_nothing_that_looks_finished(tmp_path):
    # fails when files are written in place, or leftovers of a kill stop or spoil the next build
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    out = tmp_path / "stores" / "out"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "a.jsonl"), str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "half-way\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    (leftover,) = tree(out.parent)
    assert leftover.startswith(".out.") and not (out.parent / leftover / "store.json").exists()
    with pytest.raises(StoreError, match=r"no token store .* build one with"):
        open_store(out)
    living = out.parent / f".out.{leftover.split('.')[2]}.{os.getppid()}.tmp"
    living.mkdir()  # of a process that lives: not ours to remove
    opened = build(FileSource([str(tmp_path / "a.jsonl")]), out)
    assert opened.splits["train"].docs + opened.splits["valid"].docs == 90
    assert tree(out.parent) == [living.name, "out"]


def test_a_second_builder_waits_and_finds_it_done(tmp_path):
    # fails when two members of a sweep that start together build the same store twice, or spoil it
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    command = [sys.executable, "-m", "scaling.corpus", "--text", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out")]
    with open(tmp_path / ".out.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "another process is building it, waiting" in second.stderr.readline()
        assert second.poll() is None and tree(tmp_path) == ["a.jsonl"]
    _, error = second.communicate(timeout=30)
    assert second.returncode == 0, error
    inode = (tmp_path / "out" / "train.bin").stat().st_ino
    assert build(FileSource([str(tmp_path / "a.jsonl")]), tmp_path / "out").splits["train"].docs > 0
    assert (tmp_path / "out" / "train.bin").stat().st_ino == inode


def test_an_interrupted_build_cleans_up(tmp_path, capsys, monkeypatch):
    # fails when Ctrl-C leaves a hidden folder or a traceback
    (tmp_path / "a.jsonl").write_bytes(ROWS)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "_check_splits", interrupt)
    assert main(["--text", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out")]) == 130
    assert tree(tmp_path) == ["a.jsonl"] and "Traceback" not in capsys.readouterr().err


# ---- opening


@pytest.fixture
def built(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(ROWS)
    return build(FileSource([str(tmp_path / "a.jsonl")]), tmp_path / "out", vocab="300")


def test_damaged_stores_are_refused(built):
    # fails when a copy that was cut short is trained on, or the message does not name the file and the remedy
    damages = {
        "train.bin": lambda p: p.write_bytes(p.read_bytes()[:-2]),
        "valid.idx.npy": lambda p: p.write_bytes(p.read_bytes()[:-8]),
        "valid.bin": pathlib.Path.unlink,
        "tokenizer.model": pathlib.Path.unlink,
        "store.json": lambda p: p.write_text(p.read_text()[:-9]),
    }
    for name, damage in damages.items():
        path = built.path / name
        good = path.read_bytes()
        damage(path)
        with pytest.raises(StoreError, match=rf"{path}.*build it again"):
            open_store(built.path)
        path.write_bytes(good)
    content = json.loads((built.path / "store.json").read_text())
    for change, message in (({"schema": 99}, "schema 99"), ({"splits": {}}, "incomplete")):
        (built.path / "store.json").write_text(json.dumps(content | change))
        with pytest.raises(StoreError, match=message):
            open_store(built.path)
    (built.path / "store.json").write_text(json.dumps(content))
    assert dataclasses.asdict(open_store(built.path)) == dataclasses.asdict(built)
    (built.path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"tokenizer\.model"):
        _ = open_store(built.path).tokenizer


def test_stream_tokens(built):
    # fails when the planner and the stream disagree about what one epoch holds
    tokens, planned = built.splits["train"].tokens, Dataset.of([built]).stream_tokens
    assert planned(16) == Stream.open(built, 16, 0).epoch_windows * 16 == (tokens - 1) // 16 * 16
    assert planned(tokens) == 0


def test_load_store(built, tmp_path):
    # fails when a typo in a path builds the default corpus, or a store of another vocabulary is trained on
    assert load_store(built.path, "300").fingerprint == built.fingerprint
    with pytest.raises(StoreError, match=r"set data\.vocab='300'"):
        load_store(built.path, "bytes")
    with pytest.raises(StoreError, match="no token store"):
        load_store(tmp_path / "tokens" / "apidoc", "bytes")
    assert not (tmp_path / "tokens").exists()


# ---- progress


def test_progress_speaks_late_and_in_lines(capsys, monkeypatch):
    # fails when quick builds chatter, or a log file is filled with bars
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with corpus.Progress("encoding", 100_000_000) as progress:
        for second in range(40):
            now[0] = second / 2
            progress.advance(2_000_000)
    out = capsys.readouterr().err.splitlines()
    assert out == ["encoding: 10.0 of 100.0 MB, about 18 s left", "encoding: 50.0 of 100.0 MB, about 12 s left"]


# ---- the default corpus


def test_prose_lines():
    # fails when markup stays, block tags do not end lines, or names count as prose
    markup = (
        "<p>Creates a <code>Bucket</code>&#39;s   policy for you.</p><ul><li>short</li><li>This one\nis broken off.</li></ul>"
    )
    assert prose_lines(markup) == ["Creates a Bucket's policy for you."]
    assert prose_lines("A plain   line that is long enough") == ["A plain line that is long enough"]


def test_demo_without_the_extra(tmp_path, capsys, monkeypatch):
    # fails when the missing extra is a traceback, or the pip command is not named
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["--demo", "--out", str(tmp_path / "apidocs")]) == 2
    assert "pip install -e '.[demo]'" in capsys.readouterr().err
    with pytest.raises(SourceError, match="pip install"):
        load_store(tmp_path / "apidocs")


@NEEDS_DEMO
def test_default_corpus(tmp_path, capsys):
    # fails when the extraction changes: the published ladder would have been trained on another text
    opened = load_store(tmp_path / "apidocs")
    train, valid = opened.splits["train"], opened.splits["valid"]
    assert (train.docs + valid.docs, train.bytes + valid.bytes) == (demo.DEMO_DOCUMENTS, demo.DEMO_BYTES)
    assert opened.source["sha256"].startswith(demo.DEMO_SHA256) and "warning" not in capsys.readouterr().err
    assert opened.split_by == "documents" and valid.docs >= 30
    assert "Apache-2.0" in opened.description and "not comparable" in opened.description
    # a store that is there needs no wheels and no time, and another vocabulary is refused
    assert corpus.ensure_demo(tmp_path / "apidocs").fingerprint == opened.fingerprint
    with pytest.raises(StoreError, match="holds another store"):
        corpus.ensure_demo(tmp_path / "apidocs", "1024")


@NEEDS_DEMO
def test_another_default_corpus_is_named(tmp_path, capsys, monkeypatch):
    # fails when other wheel versions pass in silence, or are refused
    few = [(f"botocore/{i}", f"Some prose about service {i}, long enough.") for i in range(90)]
    monkeypatch.setattr(demo, "api_documents", lambda: iter(few))
    opened = build(DemoSource(), tmp_path / "apidocs")
    error = capsys.readouterr().err
    assert "warning: the default corpus is not the usual one: 90 documents" in error and error.count("warning") == 1
    assert opened.source["documents"] == 90 and opened.source["versions"].keys() == demo.DEMO_PINS.keys()


def test_real_books(tmp_path):
    # fails when a large compressed file of real books is read wrongly; reads only its first documents
    books = ROOT.parent / "shared" / "data" / "corpus" / "books_en.jsonl.zst"
    if not books.exists():
        pytest.skip(f"{books} is not there")
    documents = FileSource([str(books)]).documents(lambda n: None)
    first = next(documents)
    pieces = list(first.pieces(1 << 16))
    assert first.id.startswith("books_en.jsonl.zst#") and len(pieces) > 1
    assert all(piece.endswith("\n") for piece in pieces[:-1])
    assert store.SPLITS == ("train", "valid")
