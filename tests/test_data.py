"""The order of the data: a pure function of (seed, index), whatever cuts it into batches, hosts, runs and epochs."""

import dataclasses
import hashlib
import math
import pickle

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from scaling import corpus, data
from scaling.data import Rows, Stream, StreamError, ids_hash, loader, order_seed, validation, window_view
from scaling.mixture import Dataset
from scaling.sources import FileSource

CONTEXT = 16
PINNED_FIRST, PINNED_SECOND = [650, 18, 461, 673, 609, 483], [464, 798, 427, 729, 229, 155]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> corpus.TokenStore:
    """Real text, in which every window is different."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "digests.txt").write_text(
        "\n\n".join(hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(1500))
    )
    return corpus.build(FileSource([str(folder / "digests.txt")]), folder / "store", holdout=4)


@pytest.fixture(scope="module")
def stream(store) -> Stream:
    return Stream.open(store, CONTEXT, seed=7, epochs=3)


def take(iterator, n):
    return [next(iterator) for _ in range(n)]


def test_an_epoch_is_a_permutation_and_later_ones_reshuffle_it(store, stream):
    # fails when windows repeat or are left out within an epoch, or a later epoch has the same order
    n = stream.epoch_windows
    assert n == (store.splits["train"].tokens - 1) // CONTEXT and stream.budget_windows == 3 * n
    epochs = [stream.window_ids(e * n, (e + 1) * n) for e in range(3)]
    assert all(sorted(ids) == list(range(n)) for ids in epochs)
    assert (np.diff(epochs[0]) != 1).mean() > 0.9
    for i, j in ((0, 1), (1, 2), (0, 2)):
        assert (epochs[i] == epochs[j]).mean() < 0.02
    assert stream.epoch(n // 2) == pytest.approx(0.5, abs=1e-3)


def test_a_budget_is_a_prefix(store, stream):
    # fails when the order depends on how much of it is used, so that rungs of a ladder see other data
    for windows in (100, 500):
        short = Stream.open(store, CONTEXT, seed=7, budget_tokens=windows * CONTEXT)
        assert short.budget_windows == windows
        assert (short.window_ids(0, windows) == stream.window_ids(0, windows)).all()
        assert len(take(loader(short, 50), windows // 50)) == windows // 50


def test_the_loader_stops_at_the_budget(store):
    # fails when grain goes on into a next epoch that nobody asked for
    short = Stream.open(store, CONTEXT, seed=7, budget_tokens=100 * CONTEXT)
    assert len(list(loader(short, 32))) == 3
    assert list(loader(short, 32, start_step=3)) == []


def test_budget_guard(store):
    # fails when a budget beyond the stream repeats text in silence
    one_epoch = Dataset.of([store]).stream_tokens(CONTEXT)
    Stream.open(store, CONTEXT, 0, budget_tokens=one_epoch)
    with pytest.raises(StreamError, match=r"data\.epochs=1 x .*data\.epochs=1\.1"):
        Stream.open(store, CONTEXT, 0, budget_tokens=one_epoch + 1)
    Stream.open(store, CONTEXT, 0, budget_tokens=one_epoch + CONTEXT, epochs=1.1)
    stream = Stream.open(store, CONTEXT, 0, budget_tokens=160)
    with pytest.raises(StreamError, match="outside the budget of 10"):
        stream.window_ids(8, 11)
    with pytest.raises(StreamError, match="less than one batch"):
        loader(stream, 11)
    with pytest.raises(StreamError, match="outside the budget of 2 steps"):
        loader(stream, 5, start_step=3)


def test_rows_are_the_text_and_neighbours_share_one_token(store, stream):
    # fails when windows overlap by more than the one token, or are cast wrongly
    tokens = store.tokens("train")
    ids = stream.window_ids(0, 8)
    batch = next(loader(stream, 8))
    assert batch.dtype == np.int32 and batch.shape == (8, CONTEXT + 1)
    for row, i in zip(batch, ids, strict=True):
        assert row.tolist() == tokens[i * CONTEXT : (i + 1) * CONTEXT + 1].tolist()
    whole = window_view(tokens, CONTEXT)
    assert whole.shape == (stream.epoch_windows, CONTEXT + 1)
    assert whole[:, 1:].ravel().tolist() == tokens[1 : stream.epoch_windows * CONTEXT + 1].tolist()  # each target once


def test_batches_only_cut_the_stream(stream):
    # fails when the batch size changes what is seen
    small, large = take(loader(stream, 32), 6), take(loader(stream, 64), 3)
    assert (np.concatenate(small) == np.concatenate(large)).all()


@pytest.mark.parametrize("processes", [2, 4])
def test_hosts_only_share_the_batch(stream, processes):
    # fails when the number of hosts changes what is seen, or hands out other rows than JAX's layout of the batch axis
    whole = take(loader(stream, 32), 3)
    parts = [take(loader(stream, 32, 0, p, processes), 3) for p in range(processes)]
    for step, batch in enumerate(whole):
        assert (np.concatenate([part[step] for part in parts]) == batch).all()


def test_an_uneven_share_is_refused(stream):
    # fails when some rows would be dropped
    with pytest.raises(StreamError, match="32 windows does not split over 3"):
        loader(stream, 32, 0, 0, 3)


@pytest.mark.parametrize("step", [0, 1, 17, 60])
def test_resume_is_exact_anywhere(stream, step):
    # fails when a restart loses or repeats a batch, also in a later epoch (step 60 is past the first)
    straight = loader(stream, 32)
    skipped = take(straight, step)
    assert len(skipped) == step and straight.get_state() == {"next_index": step}
    resumed = loader(stream, 32, start_step=step)
    for _ in range(3):
        assert (next(straight) == next(resumed)).all()


def test_resume_at_another_batch_size(stream):
    # fails when the state is more than the number of windows seen
    rest = np.concatenate(take(loader(stream, 32, start_step=8), 2))
    assert (next(loader(stream, 64, start_step=4)) == rest).all()


def test_seeds_give_other_orders(store, stream):
    # fails when the seed is not used, or neighbouring seeds share an order
    n = stream.epoch_windows
    orders = [Stream.open(store, CONTEXT, seed, epochs=2).window_ids(0, 2 * n) for seed in range(4)]
    parts = [order[s] for order in orders for s in (slice(0, n), slice(n, 2 * n))]
    for i, a in enumerate(parts):
        for b in parts[:i]:
            assert (a == b).mean() < 0.02
    assert order_seed(0) != order_seed(1) and order_seed(0) == order_seed(0) < 2**32
    assert order_seed(3) != data.fold(3, "init")


def test_the_order_is_pinned(stream):
    # fails when an update changes the order: published runs could then not be repeated
    pinned = dataclasses.replace(stream, seed=order_seed(0), epoch_windows=1000, budget_windows=2000)
    assert pinned.window_ids(0, 6).tolist() == PINNED_FIRST
    assert pinned.window_ids(1000, 1006).tolist() == PINNED_SECOND


def test_streams_travel(stream):
    # fails when an open file is pickled, or a copy has another order
    next(loader(stream, 4))  # the file is open now
    raw = pickle.dumps(stream)
    assert len(raw) < 1000
    copy = pickle.loads(raw)
    assert copy == stream and (Rows(copy, 8)[2] == Rows(stream, 8)[2]).all()


@hypothesis.given(st.lists(st.integers(0, 2**40), max_size=60), st.data())
def test_ids_hash_ignores_batches(ids, cuts):
    # fails when two rungs with the same tokens and other batches have other hashes
    whole = ids_hash(0, np.array(ids, np.int64))
    at = cuts.draw(st.integers(0, len(ids)))
    assert ids_hash(ids_hash(0, np.array(ids[:at], np.int64)), np.array(ids[at:], np.int64)) == whole
    assert 0 <= whole < 2**53  # exact in JSON readers that know floats only


@hypothesis.given(st.lists(st.integers(0, 2**32), min_size=2, max_size=30, unique=True))
def test_ids_hash_sees_order_and_content(ids):
    # fails when swapped, changed or missing windows go unnoticed
    whole = ids_hash(0, np.array(ids, np.int64))
    others = [[ids[1], ids[0], *ids[2:]], ids[:-1], [*ids, 0], [ids[0] ^ 1, *ids[1:]]]
    assert all(ids_hash(0, np.array(other, np.int64)) != whole for other in others if other != ids)


def test_validation_is_fixed(store):
    # fails when validation depends on anything but the store and the context, or windows overlap
    windows = validation(store, CONTEXT, 64)
    assert windows.shape == (64, CONTEXT + 1) and windows.dtype == np.int32
    assert (windows == validation(store, CONTEXT, 64)).all()
    everything = validation(store, CONTEXT, 10**9)
    assert len(everything) == (store.splits["valid"].tokens - 1) // CONTEXT
    rows = {row.tobytes(): i for i, row in enumerate(everything)}
    places = [rows[row.tobytes()] for row in windows]
    assert len(set(places)) == 64
    assert np.ptp(np.diff(places)) <= 1 and places[-1] > 0.95 * len(everything)  # evenly, to the end


def test_target_bytes_count_text_alone(store):
    # fails when the first token of a row or the end of a document counts as text
    windows = validation(store, CONTEXT, 10**9)
    targets = windows[:, 1:].ravel()
    assert data.target_bytes(store, windows) == len(store.tokenizer.decode_bytes(targets))
    assert data.target_bytes(store, windows) == targets.size - (targets == 1).sum()
    assert data.bits_per_byte(8 * math.log(2) * 10, 10) == pytest.approx(8)  # uniform over bytes: eight bits each


def test_too_little_text_for_a_window(store):
    # fails when a context longer than the text gives an empty array, and a loss of nan
    with pytest.raises(StreamError, match="a smaller model"):
        validation(store, 10**6, 4)
    with pytest.raises(StreamError, match="less than one window"):
        Stream.open(store, 10**6, 0)
