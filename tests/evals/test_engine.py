"""The engine against one forward per option; what it shares, and what it compiles."""

import asked
import numpy as np
import pytest
import tiny

from scaling.evals import trees
from scaling.evals.engine import Engine, encode_pair
from scaling.tokenizer import EOS, Tokenizer, byte_tokenizer, train_bpe

HEADER = "Name the word that comes next.\n\n"


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """Learnt on words in small letters, so that a capital letter after a blank is two tokens."""
    return train_bpe([f"{a} {b} {c}\n" for a in asked.WORDS for b in asked.WORDS for c in asked.WORDS], asked.VOCAB)


def pairs_of(tokenizer: Tokenizer) -> list[tuple[np.ndarray, np.ndarray]]:
    """Letters and words after a shared header, after a context of its own, after none, twice the same, and too long."""
    out = []
    for i, item in enumerate(asked.items(7, pad=12)):
        context = (HEADER if i % 2 else "") + item.question + " "
        out += [encode_pair(tokenizer, context, c) for c in (("A", "B", "C", "D") if i % 3 == 1 else item.choices)]
    out += [encode_pair(tokenizer, "", "amber"), encode_pair(tokenizer, HEADER * 3, " cedar"), out[0]]
    return [*out, encode_pair(tokenizer, "basin", " delta"), encode_pair(tokenizer, HEADER * 3 + "b", " grove delta")]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_scores_are_those_of_one_forward_per_option(kind: str, bpe: Tokenizer) -> None:
    """Fails when a branch sees another, a prefix is cut at the wrong token, or a bucket's padding is read."""
    tokenizer = byte_tokenizer() if kind == "bytes" else bpe
    lengths = {"shape_worth": 512} if kind == "bytes" else {}
    e, pairs = asked.engine(tokenizer, **lengths), pairs_of(tokenizer)
    got, plain = e.loglikelihoods(pairs), [asked.plainly(e, *pair) for pair in pairs]
    np.testing.assert_allclose([nats for nats, _ in got], [nats for nats, _ in plain], rtol=1e-5, atol=1e-5)
    assert [greedy for _, greedy in got] == [greedy for _, greedy in plain]


def test_what_is_greedy_is_found() -> None:
    """Fails when greedy is asked of another token than the one that was scored."""
    e = asked.engine()
    context = e.tokenizer.encode("next")
    best = int(asked.logs(e, asked.asked(context, context, e.config.context))[0].argmax())
    one, two, other = (np.array(ids, np.int32) for ids in ([best], [best, 70], [best - 1]))
    found = e.loglikelihoods([(context, one), (context, two), (context, other)])
    assert [greedy for _, greedy in found] == [True, asked.plainly(e, context, two)[1], False]


def test_letters_take_one_row_and_words_a_branch_each() -> None:
    """Fails when options are scored in rows of their own: the tokens that were fed are counted."""
    e = asked.engine()
    context = e.tokenizer.encode("Answer:")
    e.loglikelihoods([(context, e.tokenizer.encode(f" {letter}")) for letter in "ABCD"])
    assert e.fed == 1 + len("Answer:") + 1  # the end-of-document token before, the blank after
    e.fed = 0
    e.loglikelihoods([(context, e.tokenizer.encode(word)) for word in (" amber", " ab", " delta")])
    assert e.fed == 1 + len("Answer: ") + len("ambe") + len("a") + len("delt")  # they part after the blank


def test_a_prefix_is_read_once() -> None:
    """Fails when a shared beginning is read with each row."""
    e = asked.engine()
    pairs = [(e.tokenizer.encode(f"{HEADER}{i}?"), e.tokenizer.encode(" A")) for i in range(10, 30)]
    e.loglikelihoods(pairs)
    assert e.fed <= 1 + len(HEADER) + 20 * len("10? ")
    alone = asked.engine(least_saved=1 << 30)
    assert np.allclose(e.loglikelihoods(pairs), alone.loglikelihoods(pairs), rtol=1e-5, atol=1e-5)
    assert alone.fed == 20 * (1 + len(HEADER) + len("10? "))


def test_an_empty_context_is_the_end_of_a_document() -> None:
    """Fails when nothing, or something else, stands before the first token."""
    e = asked.engine()
    empty, word = np.zeros(0, np.int32), e.tokenizer.encode("amber")
    first, second = e.loglikelihoods([(empty, word), (np.array([EOS], np.int32), word)])
    assert first == second and first[0] == pytest.approx(asked.plainly(e, empty, word)[0], abs=1e-5)


def test_other_parameters_compile_nothing() -> None:
    """Fails when parameters are part of a program."""
    first = asked.engine()
    pairs = pairs_of(first.tokenizer)
    first.loglikelihoods(pairs)
    other = Engine(first.config, tiny.wide_params(first.config, 1), first.tokenizer, 128, 1 << 20, 16)
    before = other._score._cache_size()
    assert other.loglikelihoods(pairs) != first.loglikelihoods(pairs)
    assert other._score._cache_size() == before


def test_what_is_too_long_loses_its_left() -> None:
    """Fails when another part of a sequence is cut off than the left one, or a token less or more is kept than T + 1, of which
    the last is predicted and not read: (context + continuation)[-(T + 1):]."""
    context, continuation = np.arange(10, 20, dtype=np.int32), np.array([30, 31], np.int32)
    whole = asked.asked(context, continuation, 12)
    assert whole.ids.tolist() == [EOS, *range(10, 20), 30, 31] and whole.start == 11
    cut = asked.asked(context, continuation, 5)
    assert cut.ids.tolist() == [16, 17, 18, 19, 30, 31] and cut.start == 4
    assert asked.asked(np.array([EOS, 10], np.int32), continuation, 12).ids.tolist() == [EOS, 10, 30, 31]


def test_a_continuation_beyond_the_context_is_refused() -> None:
    """Fails when tokens that nothing predicts are left out of a sum in silence."""
    e = asked.engine()
    with pytest.raises(ValueError, match="a continuation of 97 tokens; the model's context of 96"):
        e.loglikelihoods([(e.tokenizer.encode("a"), e.tokenizer.encode("b" * 97))])


@pytest.mark.parametrize("context, continuation", [("a b", " c"), ("a b ", "c"), ("Question:\n", " c"), ("", "c")])
def test_pairs_are_cut_as_the_harness_cuts_them(context: str, continuation: str, bpe: Tokenizer) -> None:
    """Fails when the blank before an answer is left in the context, where a BPE vocabulary would never put it."""
    before, after = encode_pair(bpe, context, continuation)
    assert bpe.decode(before) == context.rstrip()
    assert bpe.decode(np.concatenate([before, after])) == context + continuation


def test_prefixes_save_the_most() -> None:
    """Fails when a short beginning that all share hides the longer ones of a part, or a single sequence is given one."""
    long, other = "abcdefgh" * 4, "abcdefgh" * 2 + "zyxwvuts" * 2
    keys = [np.frombuffer((k + str(i)).encode(), np.uint8) for i, k in enumerate([long] * 4 + [other] * 4 + ["q"])]
    assert trees.prefixes(keys, least=16) == [(0, [8]), (32, [0, 1, 2, 3]), (32, [4, 5, 6, 7])]
    assert trees.prefixes(keys, least=1000) == [(0, list(range(9)))]
    assert trees.prefixes(keys[:1] + keys[4:5], least=16) == [(16, [0, 1])]


def test_batches_hold_every_row_once_in_few_shapes() -> None:
    """Fails when a row is lost or doubled, does not fit its shape, or a shape is compiled for a few rows."""
    lengths = [5] * 100 + [20] * 3 + [40] * 50
    rows = [trees.make_row([trees.Asked(np.arange(n + 1, dtype=np.int32), n, i)]) for i, n in enumerate(lengths)]
    found = list(trees.batches(rows, budget=96, shape_worth=200))
    assert sorted(int(row.owner[0]) for _, _, part in found for row in part) == list(range(len(rows)))
    assert all(len(part) <= size and row.length <= T for size, T, part in found for row in part)
    assert {T for _, T, _ in found} == {16, 48}  # the three of 20 saved less than a program costs
    assert sum(len(part) < size for size, _, part in found) <= 1


def test_buckets_waste_at_most_a_third() -> None:
    """Fails when a length has no shape, or one that is far too long."""
    sizes = [trees.bucket(n) for n in range(1, 2000)]
    assert all(n <= size and (size - n) * 3 <= max(size, 48) for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) <= 15
