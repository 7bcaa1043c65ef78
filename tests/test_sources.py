"""Text from elsewhere: addresses of fsspec, ArrayRecord files, hub datasets; on real files and real file systems."""

import gzip
import hashlib
import importlib
import importlib.util
import io
import json
import pathlib
import zipfile

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from array_record.python.array_record_module import ArrayRecordWriter
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from oracles import require

from scaling.corpus import build, main, open_store
from scaling.sources import FileSource, HubSource, SourceError, files, records


def rows(n: int = 90) -> list[dict[str, str]]:
    return [
        {"id": f"doc-{i}", "text": f"Document {i} — naïve\u2028text {hashlib.sha256(b'%d' % i).hexdigest()}\n"}
        for i in range(n)
    ]


def jsonl(items) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def parquet(items) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(items), sink, row_group_size=16)
    return sink.getvalue()


def array_record(path: pathlib.Path, contents) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:7")
    for content in contents:
        writer.write(content)
    writer.close()


def array_record_bytes(tmp_path: pathlib.Path, contents) -> bytes:
    array_record(tmp_path / "written", contents)
    return (tmp_path / "written").read_bytes()


@pytest.fixture
def memory():
    """fsspec's memory file system, empty before and after."""
    system = fsspec.filesystem("memory")
    yield system
    for path in system.find("/"):
        system.rm(path)


def texts(source) -> dict[str, str]:
    return {d.id: "".join(d.pieces(1 << 16)) for d in source.documents(lambda n: None)}


# ---- addresses

PACKED = {
    "a.jsonl": lambda folder: jsonl(rows()),
    "a.jsonl.gz": lambda folder: gzip.compress(jsonl(rows())),
    "a.jsonl.zst": lambda folder: zstandard.compress(jsonl(rows())),
    "a.parquet": lambda folder: parquet(rows()),
    "a.array_record": lambda folder: array_record_bytes(folder, [r["text"].encode() for r in rows()]),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_store_does_not_depend_on_where_the_text_lies(tmp_path, memory, name):
    # fails when a remote file is read otherwise than a local one, is named or fingerprinted by its address, or told twice
    content = PACKED[name](tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / name).write_bytes(content)
    memory.pipe(f"/bucket/books/{name}", content)
    here = build(FileSource([str(tmp_path / "here" / name)]), tmp_path / "one")
    for i, address in enumerate((f"memory://bucket/**/{name}", f"file://{tmp_path}/here/{name}")):
        source = FileSource([address])
        assert (source.total_bytes, [f.name for f in source.files]) == (len(content), [name])
        told = []
        for document in source.documents(told.append):
            assert len("".join(document.pieces(100))) > 60
        assert sum(told) == len(content)
        there = build(source, tmp_path / f"there{i}")
        assert there.fingerprint == here.fingerprint
        recipes = [json.loads((s.path / "store.json").read_text())["recipe"] for s in (here, there)]
        assert recipes[0] == recipes[1]


def test_globs_and_members_of_archives(tmp_path, memory, capsys):
    # fails when a remote glob misses folders, takes folders for files, or members of an archive cannot be named
    for i in range(30):
        memory.pipe(f"/b/deep/er/{i:02d}.txt", f"text {i} of many, some words\n".encode() * 20)
    memory.pipe("/b/notes.pdf", b"x")
    memory.mkdir("/b/deep/er/folder.txt")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as z:
        for path in sorted(memory.glob("/b/deep/er/??.txt")):
            z.writestr(f"in/{path.rsplit('/', 1)[1]}", memory.cat(path))
    memory.pipe("/b/all.zip", packed.getvalue())
    loose = FileSource(["memory://b/**/*.txt", "memory://b/deep/er/0*.txt"])
    member = FileSource(["zip://in/*.txt::memory://b/all.zip"])
    assert len(loose.files) == 30 and texts(loose) == texts(member)
    assert member.files[3].shown == "zip://in/03.txt::memory://b/all.zip" and loose.files[3].shown.startswith("memory://")
    cached = FileSource(["simplecache::memory://b/deep/er/*.txt"])
    assert texts(cached) == texts(loose)
    assert main(["--text", "memory://b/**/*.txt", "--out", str(tmp_path / "out"), "--holdout", "5"]) == 0
    assert open_store(tmp_path / "out").splits["train"].docs + open_store(tmp_path / "out").splits["valid"].docs == 30


BAD_ADDRESSES = {
    "nothing there": ("memory://b/none.txt", "memory://b/none.txt': matches no file"),
    "glob": ("memory://b/*.md", "matches no file; check the address, and quote it"),
    "protocol": ("gopher://b/a.txt", "Protocol not known: gopher"),
    "format": ("memory://b/a.pdf", "memory:///b/a.pdf: cannot tell its format from its name"),
    "json": ("memory://b/bad.jsonl", "memory:///b/bad.jsonl:91: not valid JSON"),
    "latin1": ("memory://b/bad.txt", "memory:///b/bad.txt: not UTF-8 at byte 3"),
    "gz": ("memory://b/bad.txt.gz", "memory:///b/bad.txt.gz: damaged or cut short"),
    "parquet": ("memory://b/bad.parquet", "memory:///b/bad.parquet: not a readable Parquet file"),
    "array_record": ("memory://b/bad.array_record", "memory:///b/bad.array_record: no ArrayRecord file, or damaged"),
}


@pytest.mark.parametrize("name", BAD_ADDRESSES)
def test_bad_addresses(tmp_path, memory, capsys, name):
    # fails when a remote problem is a traceback, does not name its place, or leaves a folder
    memory.pipe("/b/a.pdf", b"x")
    memory.pipe("/b/bad.jsonl", jsonl(rows()) + b"oops\n")
    memory.pipe("/b/bad.txt", b"caf\xe9 au lait")
    memory.pipe("/b/bad.txt.gz", gzip.compress(b"text " * 1000)[:-10])
    memory.pipe("/b/bad.parquet", parquet(rows())[:-100])
    memory.pipe("/b/bad.array_record", b"no such thing" * 1000)
    address, message = BAD_ADDRESSES[name]
    assert main(["--text", address, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == []


def test_an_address_whose_package_is_missing(monkeypatch):
    # fails when the missing extra is a traceback, or the pip command is not named
    known = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(known.known_implementations, "gs", {"class": "no_such_package.System", "err": "install gcsfs"})
    monkeypatch.setattr(known, "_registry", {k: v for k, v in known._registry.items() if k != "gs"})
    with pytest.raises(SourceError, match=r"gs:// needs a package \(install gcsfs.*pip install -e '\.\[cloud\]'"):
        FileSource(["gs://bucket/a.txt"])


def test_a_system_that_fails_is_told_with_its_words(monkeypatch, memory):
    # fails when an exception of some system's own kind comes through as a traceback
    class NoCredentials(Exception):
        pass

    def refuse(self, path, **options):
        raise NoCredentials("Unable to locate credentials\nmore lines")

    memory.pipe("/b/a.txt", b"text")
    source = FileSource(["memory://b/a.txt"])
    monkeypatch.setattr(type(memory), "_open", refuse)
    with pytest.raises(SourceError, match=r"a\.txt: cannot be read \(NoCredentials: Unable to locate credentials\); check the"):
        source.record()
    monkeypatch.setattr(type(memory), "info", refuse)
    with pytest.raises(SourceError, match="NoCredentials: Unable to locate credentials"):
        FileSource(["memory://b/a.txt"])


# ---- ArrayRecord


def example_class():
    """tf.train.Example, described to the protobuf library, which is not ours."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields):
        m = file.message_type.add(name=name)
        for number, (field, kind, label, type_name) in enumerate(fields, 1):
            m.field.add(name=field, number=number, type=kind, label=label, **({"type_name": type_name} if type_name else {}))
        return m

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    message("BytesList", ("value", kinds.TYPE_BYTES, many, ""))
    message("FloatList", ("value", kinds.TYPE_FLOAT, many, ""))
    message("Int64List", ("value", kinds.TYPE_INT64, many, ""))
    message(
        "Feature",
        ("bytes_list", kinds.TYPE_MESSAGE, one, ".t.BytesList"),
        ("float_list", kinds.TYPE_MESSAGE, one, ".t.FloatList"),
        ("int64_list", kinds.TYPE_MESSAGE, one, ".t.Int64List"),
    )
    features = message("Features", ("feature", kinds.TYPE_MESSAGE, many, ".t.Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=one)
    entry.field.add(name="value", number=2, type=kinds.TYPE_MESSAGE, label=one, type_name=".t.Feature")
    message("Example", ("features", kinds.TYPE_MESSAGE, one, ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def example(**features) -> bytes:
    made = example_class()()
    for name, value in features.items():
        feature = made.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, float):
            feature.float_list.value.extend([value] * 3)
        else:
            feature.int64_list.value.extend(value)
    return made.SerializeToString()


def test_array_records_of_texts_and_of_examples(tmp_path):
    # fails when records are lost or reordered, an Example is taken for text, or its id is not used
    plain = [row["text"].encode() for row in rows(600)]
    array_record(tmp_path / "a.array_record", plain)
    assert list(texts(FileSource([str(tmp_path / "a.array_record")])).items()) == [
        (f"a.array_record#{i}", text.decode()) for i, text in enumerate(plain, 1)
    ]
    made = [example(text=r["text"].encode(), id=r["id"].encode(), label=[i, -1], score=0.5) for i, r in enumerate(rows())]
    array_record(tmp_path / "c4-train.array_record-00000-of-00002", made)
    found = texts(FileSource([str(tmp_path / "c4-*")]))
    assert found == {f"c4-train.array_record-00000-of-00002#{r['id']}": r["text"] for r in rows()}
    numbered = [example(text=r["text"].encode(), id=[i * 1000 - 7]) for i, r in enumerate(rows())]
    array_record(tmp_path / "n.array_record", numbered)
    array_record(tmp_path / "m.array_record", [example(text=b"x", id=[1, 2])])  # no id: two numbers
    found = texts(FileSource([str(tmp_path / "?.array_record")], "text"))
    assert {k: v for k, v in found.items() if k[0] in "nm"} == {"m.array_record#1": "x"} | {
        f"n.array_record#{i * 1000 - 7}": r["text"] for i, r in enumerate(rows())
    }
    titles = [example(title=b"A title", text=b"x" * 300)]
    array_record(tmp_path / "t.arrayrecord", titles)
    assert list(texts(FileSource([str(tmp_path / "t.arrayrecord")], "title")).values()) == ["A title"]


def test_what_is_no_example_is_text():
    # fails when ordinary text is taken for a protocol buffer
    for text in ("", "\n", "\n\n\n", "\n\x05hello", "A line\nand another", "\n\x02\n", "0\x0a"):
        assert records.example(text.encode()) is None, text
    whole = example(text=b"some text", n=[1, 2, 3], one=[-(2**63)], none=[])
    assert records.example(whole) == {"text": b"some text", "one": -(2**63)}
    for end in range(1, len(whole)):
        assert records.example(whole[:end]) is None


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        (b"caf\xe9", "text", "record 1: not UTF-8 at byte 3; records must be texts or tf.train.Example"),
        (example(content=b"x"), "contents", "no text feature 'contents' (it has 'content'); name the text with --field."),
        (example(content=b"x"), "contents", 'Did you mean "content"?'),
        (example(content=b"x", n=[1]), "n", "no text feature 'n' (it has 'content'); name the text with --field."),
    ],
    ids=("bytes", "feature", "hint", "number"),
)
def test_bad_records(tmp_path, content, field, message):
    # fails when pickled or encoded records become text, or the message does not tell the record and the remedy
    array_record(tmp_path / "a.array_record", [content])
    with pytest.raises(SourceError) as caught:
        texts(FileSource([str(tmp_path / "a.array_record")], field))
    assert "a.array_record" in str(caught.value) and message in str(caught.value)


def test_a_cut_array_record_is_refused(tmp_path):
    # fails when a copy that was cut short is trained on
    array_record(tmp_path / "a.array_record", [row["text"].encode() for row in rows(600)])
    whole = (tmp_path / "a.array_record").read_bytes()
    (tmp_path / "a.array_record").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"a\.array_record: no ArrayRecord file, or damaged"):
        texts(FileSource([str(tmp_path / "a.array_record")]))


def test_formats_by_name():
    # fails when a shard's number hides its format, or a folder of anything is taken for text
    kinds = {"a.txt": "text", "b.jsonl.zst": "jsonl", "c.array_record-00001-of-01024": "array_record", "d.parquet": "parquet"}
    assert {name: files.kind_of(name) for name in kinds} == kinds
    assert files.kind_of("a.txt.bz2") is files.kind_of("array_record") is files.kind_of("x-00000-of-00002") is None


# ---- hub datasets; a local folder stands for a name, since the code beyond ``load_dataset`` is the same


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = require("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "stories"
    folder.mkdir()
    (folder / "train-00000.parquet").write_bytes(parquet(rows()))
    (folder / "test-00000.parquet").write_bytes(parquet(rows(20)))
    return folder


def test_a_dataset_becomes_a_store(dataset, tmp_path, capsys):
    # fails when rows are lost, ids or the fingerprint depend on the folder's place, or changed text goes unnoticed
    words = ["--dataset", str(dataset), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "split train, 90 rows" in capsys.readouterr().out
    opened = open_store(tmp_path / "out")
    assert opened.splits["train"].docs + opened.splits["valid"].docs == 90
    source = HubSource(str(dataset))
    assert texts(source) == {f"stories/train#{r['id']}": r["text"] for r in rows()}
    moved = dataset.rename(dataset.with_name("elsewhere")) / "stories"
    moved.mkdir()
    for file in moved.parent.glob("*.parquet"):
        file.rename(moved / file.name)
    assert HubSource(str(moved)).record() == source.record()
    assert main(["--dataset", str(moved), "--out", str(tmp_path / "out")]) == 0
    assert "already built" in capsys.readouterr().out
    (moved / "train-00000.parquet").write_bytes(parquet([*rows(89), {"id": "doc-89", "text": rows()[89]["text"].upper()}]))
    assert main(["--dataset", str(moved), "--out", str(tmp_path / "out")]) == 2
    assert "holds a store of another source" in capsys.readouterr().err
    assert len(texts(HubSource(str(moved), split="test"))) == 20


def test_bad_datasets(dataset, tmp_path, capsys):
    # fails when a wrong name, split or column is a traceback, or is told without remedy
    cases = {
        "no such split": ([str(dataset), "--dataset-split", "dev"], "dev: cannot be loaded ("),
        "no such folder": ([str(tmp_path / "none")], "cannot be loaded ("),
        "column": ([str(dataset), "--field", "texts"], "no column 'texts' (it has 'id', 'text'); name the text with --field."),
    }
    for words, message in cases.values():
        assert main(["--dataset", *words, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_dataset_is_asked_for_as_the_command_says(tmp_path, capsys, monkeypatch):
    # fails when configuration, split or revision do not reach load_dataset, ids lack the dataset or split, or its error is a
    # traceback
    datasets = require("datasets")
    asked = []

    def load_dataset(*words, **options):
        asked.append((words, options))
        if len(asked) > 2:
            raise ConnectionError("Couldn't reach the hub\nmore lines")
        return datasets.Dataset.from_list(rows())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    words = ["--dataset", "org/name", "--dataset-config", "small", "--dataset-split", "dev", "--dataset-revision", "v2"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert asked == [(("org/name", "small"), {"split": "dev", "revision": "v2"})]
    capsys.readouterr()
    assert texts(HubSource("org/name", split="dev")) == {f"org/name/dev#{r['id']}": r["text"] for r in rows()}
    assert asked[1] == (("org/name", None), {"split": "dev", "revision": None})
    assert main([*words, "--out", str(tmp_path / "other")]) == 2
    told = "error: --dataset org/name small dev: cannot be loaded (Couldn't reach the hub); check the name, --dataset-config"
    assert capsys.readouterr().err.startswith(told) and not (tmp_path / "other").exists()


def test_datasets_without_the_extra(tmp_path, capsys, monkeypatch):
    # fails when the missing extra is a traceback, or the pip command is not named
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["--dataset", "org/name", "--out", str(tmp_path / "out")]) == 2
    assert "--dataset org/name: needs the package datasets" in (error := capsys.readouterr().err)
    assert "pip install -e '.[datasets]'" in error


# ---- vocabularies


def test_a_store_with_the_vocabulary_of_another(tmp_path, capsys):
    # fails when stores of a mixture cannot agree on tokens, or a store made with other tokens is taken for the same
    from scaling.mixture import Dataset

    for name, items in (("a", rows()), ("b", rows(70)[20:])):
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl(items))
    first = build(FileSource([str(tmp_path / "a.jsonl")]), tmp_path / "a", vocab="300")
    words = ["--text", str(tmp_path / "b.jsonl"), "--out", str(tmp_path / "b"), "--vocab"]
    assert main([*words, str(tmp_path / "a")]) == 0
    second = open_store(tmp_path / "b")
    assert second.vocab == "300" and second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert Dataset.of([first, second], (2, 1)).mixed
    assert main([*words, "300"]) == 2
    assert "holds a store of another tokenizer (" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "c")]) == 2
    assert "or a store whose vocabulary to take" in capsys.readouterr().err
