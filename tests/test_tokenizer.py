"""Both tokenizers: nothing is lost, bytes are counted exactly, and the same text gives the same vocabulary."""

import pickle
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from scaling import tokenizer as tokenizers
from scaling.tokenizer import (
    BYTE_VOCAB,
    EOS,
    SPACE,
    BPETokenizer,
    VocabularyError,
    byte_tokenizer,
    cut,
    lines,
    load_bpe,
    train_bpe,
)

TEXT = (
    "The quick brown fox jumps over the lazy dog.\n\n  Indented\tand tabbed; naïve café, 한국어 ㅋㅋ, ﬁne full-width ＡＢＣ.\n"
    "Numbers such as 1234567890 and signs (){}[]<>=+-*/ follow; then the fox jumps over the dog again and again.\n"
) * 20

any_text = st.text(st.characters(exclude_categories=["Cs"])) | st.text(alphabet=" \n\t\r\0ab▁\u2585\u2047ﬁㅋ\ufeff\u2028👍🏽")


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return train_bpe([TEXT], 400)


@hypothesis.given(any_text)
def test_bytes_round_trip(text):
    # fails when an id is shifted, or text is normalised
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(text)
    assert ids.tolist() == [byte + 4 for byte in text.encode()]
    assert tokenizer.decode(ids) == text


@hypothesis.given(any_text)
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_bpe_round_trip(bpe, text):
    # fails when a sentencepiece default (normalisation, dummy prefix, squeezed blanks) or the U+2581 substitution comes back
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert bpe.token_bytes[ids].sum() == len(text.encode())
    assert not np.isin(ids, range(tokenizers.SPECIALS)).any()


@pytest.mark.parametrize("text", [SPACE, f"a{SPACE}b {SPACE}{SPACE}", "▁▁\n▁", "a  b\t\tc", "\n\n\n", "x" * 5000, " y" * 3000])
def test_known_lossy_cases_are_lossless(bpe, text):
    # fails when the literal U+2581 becomes a blank, or a long line loses something where it is cut
    assert bpe.decode(bpe.encode(text)) == text


def test_bpe_compresses_and_keeps_newlines_apart(bpe):
    # fails when the merges are not used, or newlines fall back to bytes and cost extra
    ids = bpe.encode(TEXT)
    assert len(ids) < 0.6 * len(TEXT.encode())
    newline = bpe.encode("\n").tolist()
    assert len(newline) == 1 and (ids == newline[0]).sum() == TEXT.count("\n")


def test_specials_stand_for_nothing(bpe):
    # fails when the end of a document counts as text in bits per byte, or shows in a sample
    for tokenizer in (bpe, byte_tokenizer()):
        assert tokenizer.token_bytes[:4].tolist() == [0, 0, 0, 0]
        assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
        assert (tokenizer.token_bytes[4:] > 0).all()
        assert tokenizer.decode([EOS, *tokenizer.encode("hé"), EOS]) == "hé"
    assert byte_tokenizer().vocab_size == BYTE_VOCAB == 260
    assert bpe.vocab_size == 400


def test_decode_survives_any_model_output(bpe):
    # fails when a sample that ends inside a character, or an id of another vocabulary, gives a traceback or silent nonsense
    assert byte_tokenizer().decode(byte_tokenizer().encode("é")[:1]) == "\ufffd"
    for tokenizer, bad in ((bpe, 400), (byte_tokenizer(), 260), (bpe, -1)):
        with pytest.raises(ValueError, match=f"id {bad} is outside"):
            tokenizer.decode([5, bad])


def test_lone_surrogates_are_refused(bpe):
    # fails when half a character is replaced in silence
    for tokenizer in (bpe, byte_tokenizer()):
        with pytest.raises(UnicodeEncodeError):
            tokenizer.encode("a\ud800")


def test_training_is_repeatable(bpe, tmp_path):
    # fails when threads, paths or sampling leak into the model
    again = train_bpe([TEXT], 400)
    assert again.model == bpe.model and again.fingerprint == bpe.fingerprint
    assert train_bpe([TEXT], 410).fingerprint != bpe.fingerprint
    (tmp_path / "m").write_bytes(bpe.model)
    loaded, sent = load_bpe(tmp_path / "m"), pickle.loads(pickle.dumps(bpe))
    assert loaded.fingerprint == sent.fingerprint == bpe.fingerprint != byte_tokenizer().fingerprint
    assert (loaded.encode(TEXT) == sent.encode(TEXT)).all()


def test_impossible_vocabularies_name_the_number_to_use():
    # fails when sentencepiece's own message, a C++ source line, reaches the user; the number named must work
    with pytest.raises(VocabularyError, match=r"--vocab 30000: too large .* use --vocab (\d+)") as error:
        train_bpe([TEXT], 30_000)
    largest = int(str(error.value).split("use --vocab ")[1].split()[0])
    assert train_bpe([TEXT], largest).vocab_size == largest
    with pytest.raises(VocabularyError, match="too small"):
        train_bpe([TEXT], 270)


def test_other_models_are_refused(tmp_path):
    # fails when a lossy model, or a file that is none, is taken for a tokenizer of ours
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n")), model_writer=model, vocab_size=120, model_type="bpe", minloglevel=2
    )
    with pytest.raises(VocabularyError, match="pad, eos, bos, unk"):
        BPETokenizer(model.getvalue())
    (tmp_path / "m").write_bytes(b"nonsense")
    with pytest.raises(VocabularyError, match=str(tmp_path / "m")):
        load_bpe(tmp_path / "m")
    with pytest.raises(VocabularyError, match="cannot be read"):
        load_bpe(tmp_path / "missing")


@hypothesis.given(st.text(alphabet="ab \n", max_size=300), st.integers(1, 40))
def test_cut_loses_nothing_and_keeps_the_limit(text, limit):
    # fails when a separator is dropped, a piece is empty or too long
    pieces = list(cut(text, limit))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)


def test_cut_prefers_paragraphs_then_lines_then_words():
    # fails when a document is cut inside a word although a better place was near
    assert list(cut("aaaa bbb\n\nccc ddd", 12)) == ["aaaa bbb\n\n", "ccc ddd"]
    assert list(cut("aaaa bbb\nccc ddd", 12)) == ["aaaa bbb\n", "ccc ddd"]
    assert list(cut("aaaa bbb ccc ddd", 12)) == ["aaaa bbb", " ccc ddd"]
    assert list(cut("a" * 25, 12)) == ["a" * 12, "a" * 12, "a"]


@hypothesis.given(st.text(alphabet="ab \n▁\r\x85", max_size=50))
def test_lines_end_at_newlines_alone(text):
    # fails when str.splitlines cuts at U+0085 and the like
    assert "".join(lines(text)) == text
    assert all("\n" not in line[:-1] for line in lines(text))


def test_import_is_light():
    # fails when planning has to load sentencepiece or jax to know that bytes have 260 ids
    code = "import sys, scaling.tokenizer; sys.exit(bool({'sentencepiece', 'jax', 'grain'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
