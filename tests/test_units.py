"""Counts, durations and batches written as text."""

import hypothesis
import pytest
from hypothesis import strategies as st

from scaling import units
from scaling.config import MachineConfig

WHERE = {"batch_tokens": 512, "n_params": 1000, "flops_per_token": 2.0e4, "stream_tokens": 5e5, "total": 1e6}


@pytest.mark.parametrize(
    ("text", "value"),
    [("50K", 50e3), ("1.2M", 1.2e6), ("3e9", 3e9), ("2b", 2e9), (" 7 ", 7), ("1T", 1e12), ("1.5E", 1.5e18), (12, 12)],
)
def test_counts(text, value):
    # fails when a suffix means another power, or M and m differ
    assert units.parse_count(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["", "K", "-5", "0", "1.2.3M", "5 apples", "nan", "inf", "1e999", ".", "1,000"])
def test_what_is_no_count_is_refused_with_an_example(text):
    # fails when a bad number passes, or raises something that no command catches
    with pytest.raises(ValueError, match=r"positive number such as 50K"):
        units.parse_count(text)


@hypothesis.given(st.floats(1, 1e20))
def test_a_formatted_count_reads_back(value):
    # fails when a rounding crosses a suffix (999.9K as '1000K') or loses digits
    text = units.format_count(value)
    assert units.parse_count(text) == pytest.approx(value, rel=5.1e-3)
    assert "e" not in text or value >= 1e21


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("2000 steps", 2000 * 512),
        ("20 tokens/param", 20_000),
        ("1e9 flops", 5e4),
        ("1G flops", 5e4),
        ("10%", 1e5),
        ("3M tokens", 3e6),
        ("0.5 epochs", 2.5e5),
        ("600K tokens", 6e5),
        ("7steps", 7 * 512),
    ],
)
def test_a_duration_in_every_unit(text, tokens):
    # fails when a unit is converted by the wrong quantity, or '1e15 flops' loses its exponent to a suffix
    assert units.parse_duration(text).tokens(**WHERE) == pytest.approx(tokens)


@pytest.mark.parametrize("text", ["20", "20 token", "steps", "twenty steps", "-5 steps", "0%", "", "5 %%", "nan tokens"])
def test_what_is_no_duration_is_refused(text):
    # fails when a duration without unit or of no length passes
    with pytest.raises(ValueError, match=r"must be a (number and one of the units|positive number)"):
        units.parse_duration(text)


def test_batches_by_hand_and_by_rule():
    # fails when a batch of a broken window passes, the rule's constants move, or a rule's batch is not a power of two windows
    units.check_batch("1536 tokens", 192, MachineConfig())
    for text, message in (
        ("1500 tokens", "multiple of model.context=192, such as '1536 tokens'"),
        ("100 tokens", "'192 tokens'"),
        ("10 steps", "must be in tokens"),
        ("lots", "or a rule: porian"),
    ):
        with pytest.raises(ValueError, match=message):
            units.check_batch(text, 192, MachineConfig())
    with pytest.raises(ValueError, match=r"8 windows.*micro_batches=3 = 6 does not divide; use a batch of 6 windows"):
        units.check_batch("1536 tokens", 192, MachineConfig(data=2, micro_batches=3))
    assert units.BATCH_RULES["porian"].tokens(108_000_000) == 2048 * 160
    assert units.BATCH_RULES["porian"].tokens(864_000_000) == pytest.approx(4 * 2048 * 160)
    windows = [units.batch_windows("porian", 2048, n) for n in (10**4, 25_000_000, 108_000_000, 10**9)]
    assert windows == [4, 64, 128, 512]
    assert units.batch_windows("1536 tokens", 192, 10**9) == 8
    assert "25M to 110M" in (units.batch_warning("porian", 10**6) or "") and units.batch_warning("porian", 50_000_000) is None
    assert units.batch_warning("1536 tokens", 10**8) and units.batch_warning("1536 tokens", 200_000) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (75, "1m15s"), (3599.7, "1h00m"), (7260, "2h01m")]
)
def test_seconds_in_words(seconds, text):
    # fails when a rounding gives '60s' or '59m60s'
    assert units.format_seconds(seconds) == text


def test_did_you_mean():
    # fails when a typo gets no hint, or nonsense gets one
    assert units.did_you_mean("widht", ["width", "depth"]) == ' Did you mean "width"?'
    assert units.did_you_mean("zzz", ["width", "depth"]) == ""
