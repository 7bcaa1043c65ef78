"""Weighted mixtures of stores: one order of windows, a pure function of (seed, index), with counts and losses per source."""

import hashlib
import math
import pickle
import shutil
import signal

import grain
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from training import Trainer, wait_for

from scaling import config, corpus, data, markov, mixture, partition, runs, step, sweep
from scaling.data import Mixture, Rows, StreamError, Validation, ids_hash, loader, open_stream
from scaling.launch.__main__ import main as launch
from scaling.mixture import Dataset, counts, epoch_windows, whole_weights
from scaling.sources import FileSource
from scaling.store import StoreError

CONTEXT = 16
WEIGHTS = [(3, 1), (1, 3), (1, 1), (5, 3, 2), (7, 1, 1, 1)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[corpus.TokenStore]:
    """Three stores of different sizes and kinds; no window of one is a window of another."""
    folder = tmp_path_factory.mktemp("mixture")
    for name, lines in (("digests", 400), ("small", 600)):
        text = "\n\n".join(hashlib.sha256(f"{name} {i}".encode()).hexdigest() for i in range(lines))
        (folder / f"{name}.txt").write_text(text)
        corpus.build(FileSource([str(folder / f"{name}.txt")]), folder / name, holdout=4)
    markov.build(markov.Spec(order=1, symbols=40, concentration=5.0, tokens=30_000), folder / "generated")
    return [corpus.open_store(folder / name) for name in ("digests", "small", "generated")]


@pytest.fixture(scope="module")
def dataset(stores) -> Dataset:
    return Dataset.of(stores, (5, 1, 2))


@pytest.fixture(scope="module")
def stream(dataset) -> Mixture:
    opened = open_stream(dataset, CONTEXT, seed=7, epochs=3)
    assert isinstance(opened, Mixture)
    return opened


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def sources_of(ids: np.ndarray) -> np.ndarray:
    return ids >> data.SOURCE_BITS


# ---- proportions


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_the_order_is_that_of_grain(weights):
    # fails when sources alternate by another rule than grain.MapDataset.mix, or a source's windows come out of order
    parts = [grain.MapDataset.source([(i, k) for k in range(4000)]) for i in range(len(weights))]
    theirs = [grain.MapDataset.mix(parts, weights)[k] for k in range(1000)]
    seen = counts(np.arange(1001), weights)
    ours = [(int(i), int(seen[i, k])) for k, i in enumerate(np.diff(seen).argmax(axis=0))]
    assert ours == theirs


@hypothesis.given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.integers(0, 2**33))
def test_counts_are_the_share_of_any_start(weights, n):
    # fails when proportions drift, or large counts overflow
    seen = counts(n, weights)
    assert seen.sum() == n and (seen >= 0).all()
    for i, weight in enumerate(weights):
        assert abs(int(seen[i]) - n * weight / sum(weights)) < i + 1.001
    assert (np.diff(counts(np.array([n, n + 1]), weights)) >= 0).all()


@hypothesis.given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 50)), min_size=1, max_size=5), st.integers(2, 50))
def test_an_epoch_ends_when_the_first_source_has_been_seen(parts, epochs):
    # fails when a source is seen more than once in an epoch, or the epoch could have been longer; and over several epochs, when
    # one is seen more often than that by more windows an epoch than there are sources
    available, weights = zip(*parts, strict=True)
    n = epoch_windows(available, weights)
    assert (counts(n, weights) <= available).all() and (counts(n + 1, weights) > available).any()
    assert (counts(epochs * n, weights) <= epochs * (np.array(available) + len(parts))).all()


def test_weights_are_proportions():
    # fails when 0.1 is taken for its binary neighbour, or the same proportions are two datasets
    assert whole_weights((0.75, 0.25)) == whole_weights((3, 1)) == whole_weights((6.0, 2.0)) == (3, 1)
    assert whole_weights((0.7, 0.2, 0.1)) == (7, 2, 1) and whole_weights((5,)) == (1,)
    for bad, message in (((1, 0), "positive"), ((1, math.nan), "positive"), ((1 / 3, 1), "round them")):
        with pytest.raises(ValueError, match=message):
            whole_weights(bad)


# ---- the stream


def test_every_window_is_of_its_source(dataset, stream):
    # fails when rows are read from another store than their ids say, or a source is over- or under-represented
    ids = stream.window_ids(0, 400)
    rows = stream.windows(ids)
    assert rows.shape == (400, CONTEXT + 1) and rows.dtype == np.int32
    for i, store in enumerate(dataset.stores):
        mine = sources_of(ids) == i
        assert mine.sum() == 400 * dataset.weights[i] / 8
        tokens = store.tokens("train")
        for row, window in zip(rows[mine], ids[mine] & data.MAX_WINDOWS, strict=True):
            assert row.tolist() == tokens[window * CONTEXT : (window + 1) * CONTEXT + 1].tolist()


def test_batches_and_hosts_only_cut_the_stream(stream):
    # fails when the batch size or the number of hosts changes what is seen
    whole = np.concatenate(take(loader(stream, 32), 6))
    assert (np.concatenate(take(loader(stream, 64), 3)) == whole).all()
    assert (whole == stream.windows(stream.window_ids(0, 192))).all()
    parts = [take(loader(stream, 32, 0, p, 4), 6) for p in range(4)]
    assert (np.concatenate([np.concatenate([part[s] for part in parts]) for s in range(6)]) == whole).all()


@pytest.mark.parametrize("step", [1, 17, 300])
def test_resume_is_exact_anywhere(stream, step):
    # fails when a restart loses or repeats a window, also after a source has begun again (step 300 is past the first epoch)
    straight = loader(stream, 8)
    take(straight, step)
    assert straight.get_state() == {"next_index": step}
    resumed = loader(pickle.loads(pickle.dumps(stream)), 8, start_step=step)
    for _ in range(3):
        assert (next(straight) == next(resumed)).all()


def test_a_budget_is_a_prefix(dataset, stream):
    # fails when the order depends on how much of it is used, so that rungs of a ladder see other data
    one = stream.epoch_windows
    assert 8 * 300 > one > 100
    for windows in (100, one):
        short = open_stream(dataset, CONTEXT, seed=7, budget_tokens=windows * CONTEXT)
        assert (short.window_ids(0, windows) == stream.window_ids(0, windows)).all()
        hashes = [ids_hash(0, s.window_ids(0, windows)) for s in (short, stream)]
        assert hashes[0] == hashes[1]
        assert len(take(loader(short, 50), windows // 50)) == windows // 50
    other = open_stream(dataset, CONTEXT, seed=8)
    assert (other.window_ids(0, 100) != stream.window_ids(0, 100)).mean() > 0.9


def test_a_source_keeps_its_order_in_every_mixture(stores, stream):
    # fails when adding a source or changing weights reshuffles the others
    ids = stream.window_ids(0, 400)
    pair = open_stream(Dataset.of([stores[2], stores[0]], (1, 1)), CONTEXT, seed=7)
    again = pair.window_ids(0, 400)
    for there, here in ((0, 1), (2, 0)):
        a, b = ids[sources_of(ids) == there], again[sources_of(again) == here]
        n = min(len(a), len(b))
        assert n >= 100 and ((a & data.MAX_WINDOWS)[:n] == (b & data.MAX_WINDOWS)[:n]).all()


def test_no_source_repeats_unless_asked(dataset, stream):
    # fails when a small source is seen again and again in silence, or the message does not name it and the number to set
    one = stream.epoch_windows
    ids = stream.window_ids(0, one)
    assert len(set(ids.tolist())) == one
    first = {name: seen["epochs"] for name, seen in dataset.seen(one, CONTEXT).items()}
    limiting = max(first, key=lambda name: first[name])
    assert first[limiting] == pytest.approx(1, abs=0.02) and sum(v > 0.9 for v in first.values()) == 1
    with pytest.raises(
        StreamError, match=rf"see '{limiting}' 1\.5 times, data\.epochs=1; allow repeats with data\.epochs=1\.5"
    ):
        open_stream(dataset, CONTEXT, 7, budget_tokens=round(1.499 * one) * CONTEXT)
    repeated = open_stream(dataset, CONTEXT, 7, budget_tokens=round(1.499 * one) * CONTEXT, epochs=1.5)
    assert repeated.epoch(one) == 1 and repeated.budget_windows == round(1.499 * one)
    twice = stream.window_ids(0, 2 * one)
    for i, store in enumerate(dataset.stores):
        mine = twice[sources_of(twice) == i]
        have = (store.splits["train"].tokens - 1) // CONTEXT
        assert np.unique(mine, return_counts=True)[1].max() == -(-len(mine) // have)
    with pytest.raises(StreamError, match="outside the budget"):
        stream.window_ids(0, 3 * one + 10)


def test_the_epochs_that_a_refusal_names_are_enough(stores):
    # fails when the remedy is refused in its turn: 9 windows hold 6 of the first source, which has 3, but 2 epochs are 8
    context = (stores[0].splits["train"].tokens - 1) // 3
    pair = Dataset.of(stores[:2], (2, 1))
    assert pair.available(context)[0] == 3 and pair.stream_tokens(context) == 4 * context
    for epochs in (1, 2):
        with pytest.raises(StreamError, match=r"allow repeats with data\.epochs=2\.3"):
            open_stream(pair, context, 7, budget_tokens=9 * context, epochs=epochs)
    assert open_stream(pair, context, 7, budget_tokens=9 * context, epochs=2.3).budget_windows == 9


def test_rows_tell_what_they_are(stream):
    # fails when a mixture of other weights or stores looks the same in a log
    assert "weights=(5, 1, 2)" in repr(Rows(stream, 8)) and "generated" in repr(Rows(stream, 8))


# ---- datasets


def test_one_store_is_as_before(stores):
    # fails when the order, the fingerprint or the result of a run on one store changes because mixtures exist
    single = Dataset.of(stores[:1])
    assert single.fingerprint == stores[0].fingerprint and not single.mixed
    alone = data.Stream.open(stores[0], CONTEXT, 7)
    assert single.stream_tokens(CONTEXT) == alone.epoch_windows * CONTEXT
    assert open_stream(single, CONTEXT, 7) == alone
    tree = config.default_dict()
    assert "weights" not in config.identity(config.resolve(tree))["data"]


def test_weights_and_tokens_are_a_run_s_identity_and_paths_are_not(stores):
    # fails when a run goes on with other proportions or other text, or a moved store is taken for another
    def digest(pairs, prints="x"):
        tree = config.default_dict()
        tree["data"]["mixture"] = pairs
        return config.digest(config.resolve(tree), prints)

    assert digest([("a", 3), ("b", 1)]) == digest((("c/d", 3.0), ("e", 1))) != digest([("a", 1), ("b", 3)])
    assert digest([("a", 3), ("b", 1)]) == digest([("a", 6), ("b", 2)]) == digest([("a", 0.75), ("b", 0.25)])
    prints = {Dataset.of(part, (1, 1)).fingerprint for part in (stores[:2], stores[1::-1], stores[1:])}
    assert len(prints) == 3


def test_other_vocabularies_are_refused(stores, tmp_path):
    # fails when the same id means two things in one run
    (tmp_path / "a.txt").write_text("\n".join(f"some words of line {i}" for i in range(5000)))
    bpe = corpus.build(FileSource([str(tmp_path / "a.txt")]), tmp_path / "bpe", vocab="300")
    with pytest.raises(StoreError, match=r"have different tokens; build one with the vocabulary of the other"):
        Dataset.of([stores[0], bpe], (1, 1))


def test_the_same_tokens_twice_are_refused(stores, tmp_path):
    # fails when a copy or another spelling of a path is a source of its own: both have one order, so the same windows come
    # twice in an epoch, and of two sources with one name the counts of one are lost
    shutil.copytree(stores[0].path, tmp_path / "copy")
    copy = corpus.open_store(tmp_path / "copy")
    for twin in (copy, stores[0], corpus.open_store(stores[1].path / ".." / stores[0].path.name)):
        with pytest.raises(StoreError, match=r"digests and .* hold the same tokens .*; name one and add the weights"):
            Dataset.of([stores[1], stores[0], twin], (1, 2, 1))
    with pytest.raises(ValueError, match="2 stores and 1 weights"):
        Dataset.of(stores[:2])


def test_validation_weighs_the_sources_as_training_does(dataset):
    # fails when the sources' validation windows are pooled by their number, or bits per byte by windows instead of bytes
    opened = Validation.open(dataset, CONTEXT, 50)
    assert len(opened.windows) == sum(opened.sizes) and opened.sizes[0] == 50
    for i, store in enumerate(dataset.stores):
        at = sum(opened.sizes[:i])
        assert (opened.windows[at : at + opened.sizes[i]] == data.validation(store, CONTEXT, 50)).all()
    nats = np.random.default_rng(0).gamma(5.0, size=len(opened.windows)) + 10 * np.repeat([1, 2, 3], opened.sizes)
    row = opened.losses(nats)
    means = [part.mean() / CONTEXT for part in np.split(nats, np.cumsum(opened.sizes)[:-1])]
    assert [row["sources"][name]["loss"] for name in dataset.names] == pytest.approx(means)
    assert row["loss"] == pytest.approx(np.dot(means, (5, 1, 2)) / 8)
    errors = [source["loss_stderr"] for source in row["sources"].values()]
    assert row["loss_stderr"] == pytest.approx(math.sqrt(sum((w / 8 * e) ** 2 for w, e in zip((5, 1, 2), errors, strict=True))))
    # a long text drawn in these proportions has so many nats for so many bytes
    per_window = [n / size for n, size in zip(opened.n_bytes, opened.sizes, strict=True)]
    expected = np.dot(means, (5, 1, 2)) * CONTEXT / np.dot(per_window, (5, 1, 2)) / math.log(2)
    assert row["bpb"] == pytest.approx(expected)
    one = Validation.open(Dataset.of(dataset.stores[:1]), CONTEXT, 50)
    assert "sources" not in one.losses(nats[:50]) and one.losses(nats[:50])["loss"] == nats[:50].mean() / CONTEXT


# ---- the commands


def pairs_of(dataset: Dataset) -> str:
    return repr(tuple((str(store.path), weight) for store, weight in zip(dataset.stores, dataset.weights, strict=True)))


def test_a_run_tells_tokens_and_losses_of_each_source(trainer: Trainer, dataset, tmp_path):
    # fails when a mixture cannot be trained on, or its sources' tokens and losses are not in the files that others read
    said = trainer.run(
        tmp_path / "run", data__store="tokens/apidocs", data__mixture=pairs_of(dataset), data__val_windows=16,
        data__epochs=1, budget="160 steps", evals=1,
    )  # fmt: skip
    done = runs.read_json(tmp_path / "run" / runs.DONE) or {}
    rows = runs.Member(tmp_path / "run").metrics()
    last, val = rows[-2], rows[-1]
    tokens = {name: seen["tokens"] for name, seen in last["sources"].items()}
    assert tokens == {"digests": 12_800, "small": 2_560, "generated": 5_120} and sum(tokens.values()) == done["tokens"]
    assert {name: source["tokens"] for name, source in done["sources"].items()} == tokens
    for row in rows[:-1]:
        assert sum(seen["tokens"] for seen in row["sources"].values()) == row["tokens"]
    assert last["sources"]["digests"]["epochs"] == pytest.approx(last["epoch"], abs=1e-3)  # the one that runs out first
    losses = {name: source["loss"] for name, source in done["sources"].items()}
    assert losses == {name: source["loss"] for name, source in val["sources"].items()} and len(set(losses.values())) == 3
    assert done["val_loss"] == pytest.approx((5 * losses["digests"] + losses["small"] + 2 * losses["generated"]) / 8)
    assert "small: 2,560 tokens" in said and f"generated: {losses['generated']:.4f} nats/token" in said
    assert (runs.read_json(tmp_path / "run" / runs.PLAN) or {})["ideal_loss"] is None
    stream = open_stream(dataset, CONTEXT, seed=0)
    assert last["ids_hash"] == f"{ids_hash(0, stream.window_ids(0, 1280)):012x}"


@pytest.mark.parametrize("micro", (1, 2))
def test_the_loss_of_one_source(trainer: Trainer, dataset, tmp_path, micro):
    # fails when the run's losses are not those of the source that data.loss_of names: the step's against the evaluation of the
    # same windows before it, micro-batches or not; the validation's against that source's own
    chosen = dataset.stores[2]
    trainer.run(
        tmp_path / "run", data__store="tokens/apidocs", data__mixture=pairs_of(dataset), data__loss_of=chosen.path, evals=1,
        data__val_windows=16, data__epochs=1, budget="40 steps", machine__micro_batches=micro,
    )  # fmt: skip
    done = runs.read_json(tmp_path / "run" / runs.DONE) or {}
    assert done["val_loss"] == done["sources"]["generated"]["loss"] != done["sources"]["small"]["loss"]
    spec = config.from_resolved((runs.read_json(tmp_path / "run" / runs.CONFIG) or {})["config"])
    programs = step.make_programs(spec, partition.make_mesh(spec.machine, 8))
    stream = open_stream(dataset, CONTEXT, spec.seed)
    ids = stream.window_ids(0, 8)
    windows = stream.windows(ids)
    state = programs.init(step.named_key(spec.seed, "init"))
    nats = np.asarray(programs.evaluate(state.params, windows)) / CONTEXT
    _, metrics = programs.train(state, windows, np.float32(0))
    np.testing.assert_allclose(np.asarray(metrics.loss_B), nats, rtol=1e-5)
    told = nats[stream.of_source(ids, 2)].mean()
    assert runs.Member(tmp_path / "run").metrics()[0]["loss"] == pytest.approx(told, rel=1e-5) and told != nats.mean()


def test_the_loss_of_one_source_is_part_of_what_a_run_is():
    # fails when a run of another reported loss has the digest of this one, or one without any has another than before
    tree = config.default_dict()
    tree["data"] |= {"mixture": (("a", 1), ("b", 1))}
    whole = config.resolve(tree)
    tree["data"]["loss_of"] = "a"
    digests = {config.digest(config.resolve(tree | {"data": tree["data"] | {"loss_of": of}}), "x") for of in ("a", "b")}
    assert len({config.digest(whole, "x"), *digests}) == 3 and "loss_of" not in config.identity(whole)["data"]
    tree["data"]["loss_of"] = "c"
    with pytest.raises(config.ConfigError, match=r"data.loss_of='c': must be a store of data.mixture; there is 'a', 'b'"):
        config.resolve(tree)


@pytest.mark.slow
def test_a_stopped_run_goes_on_in_the_same_order(trainer: Trainer, dataset, tmp_path):
    # fails when a mixture's place is not restored: the hash of all windows, from their pure function, would differ
    run_dir, fields = tmp_path / "run", {"data__store": "tokens/apidocs", "data__mixture": pairs_of(dataset), "evals": 1}
    fields |= {"data__epochs": 20, "budget": "3000 steps"}
    process = trainer.start(*trainer.words(run_dir, **fields))
    wait_for(lambda: len(list(runs.read_jsonl(run_dir / runs.METRICS))) > 20, "twenty rows")
    process.send_signal(signal.SIGTERM)
    trainer.finish(process, runs.PREEMPTED)
    stopped = runs.Member(run_dir).metrics()[-1]["step"]
    assert 0 < stopped < 3000
    trainer.run(run_dir, **fields)
    stream = open_stream(dataset, CONTEXT, seed=0, epochs=20)
    last = [row for row in runs.Member(run_dir).metrics() if row["kind"] == "train"][-1]
    assert last["step"] == 3000 and last["ids_hash"] == f"{ids_hash(0, stream.window_ids(0, 24_000)):012x}"
    assert {name: seen["tokens"] for name, seen in last["sources"].items()} == {
        "digests": 240_000, "small": 48_000, "generated": 96_000,
    }  # fmt: skip
    assert last["sources"]["digests"]["epochs"] > 10


SWEEP = """
import ml_collections
from scaling import sweep
from scaling.config import default_dict
def get_config(arg=""):
    config = ml_collections.ConfigDict(default_dict())
    config.model.update(context=16, depth=1, width=16)
    config.update(batch="128 tokens", budget="100 steps", evals=1)
    config.data.mixture = {pairs}
    return config
def get_sweep(config):
    return sweep.seeds(config, 2)
"""


def test_the_launcher_plans_and_refuses_mixtures(dataset, tmp_path, capsys):
    # fails when the plan hides what is mixed, or a missing store or too long a budget shows only when training starts
    file = tmp_path / "mixed.py"
    file.write_text(SWEEP.format(pairs=pairs_of(dataset)))
    words = ["plan", "--sweep", str(file), "--out", str(tmp_path / "runs")]
    assert launch(words) == 0
    said = capsys.readouterr().out
    assert f"{dataset.stores[0].path} 62.5 %" in said and dataset.fingerprint in said
    assert launch([*words, "--config.budget=2000 steps"]) == 2
    error = capsys.readouterr().err
    assert "until its first store has been seen once" in error and "data.epochs=" in error
    missing = repr(((str(dataset.stores[0].path), 1), (str(tmp_path / "none"), 1)))
    assert launch(["run", *words[1:], f"--config.data.mixture={missing}"]) == 2
    assert f"data.mixture='{tmp_path}/none': there is no such token store" in capsys.readouterr().err


def test_the_packaged_ladders_load():
    # fails when a config of the data page asks for what is no longer there
    mixed, generated = (sweep.load(name).members for name in ("mixture.py", "known_entropy.py"))
    assert len(mixed) == 8 and {m.config.data.sources for m in mixed} == {(("tokens/apidocs", 3.0), ("tokens/markov", 1.0))}
    assert len(generated) == 50 and all(corpus.is_default(path) for m in generated for path, _ in m.config.data.sources)


BAD = {
    "a word": ("tokens/a", "must be pairs of a store and its weight"),
    "triples": ((("a", 1, 2),), "must be pairs"),
    "text": ((("a", "1"),), "must be pairs"),
    "zero": ((("a", 1), ("b", 0)), "weights must be positive"),
    "fine": ((("a", 1 / 3), ("b", 1)), "round them, to 0.333"),
    "twice": ((("a", 1), ("b", 1), ("a", 2)), "'a' is named twice; add its weights"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_mixtures(name):
    # fails when a mixture that cannot be is a traceback, or is told without field, value and remedy
    value, message = BAD[name]
    tree = config.default_dict()
    tree["data"]["mixture"] = value
    with pytest.raises(config.ConfigError, match=r"data\.mixture") as caught:
        config.resolve(tree)
    assert message in str(caught.value) and len(caught.value.problems) == 1
    tree["data"] |= {"mixture": (("a", 1), ("b", 1)), "store": "tokens/c"}
    with pytest.raises(config.ConfigError, match=r"data\.store='tokens/c' and data\.mixture are both given"):
        config.resolve(tree)


def test_names_of_sources_are_distinct(stores, tmp_path):
    # fails when two folders of one name share a row
    other = tmp_path / stores[0].path.name
    other.symlink_to(stores[1].path)
    names = Dataset.of([stores[0], corpus.open_store(other)], (1, 1)).names
    assert len(set(names)) == 2 and mixture.Dataset.of(stores, (1, 1, 1)).names == ("digests", "small", "generated")
