"""Loss weights of targets inside and outside of answers."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from scaling import config, objectives, tokenizer

TEXT = "of a thing\nadd 1+2: 3\nno answer\nfind a1 b2 a: 1\nA. x\nAnswer: B\n\nlast: z"


def test_answers_reach_from_a_colon_to_the_end_of_the_line() -> None:
    """Fails when a target's weight is another than what a walk through the text gives: the newline after an answer belongs to
    it, as it ends a generation, and the one after that does not."""
    ids = tokenizer.byte_tokenizer().encode(TEXT)
    windows = np.stack([ids[:60], ids[8:68]])
    example = objectives.next_token(jnp.asarray(windows), 0.25)
    for row, window in zip(np.asarray(example.weights_BT), windows, strict=True):
        text = tokenizer.byte_tokenizer().decode(window)
        inside, expected = False, []
        for shown in text[:-1]:
            inside = shown == ":" or (inside and shown != "\n")
            expected.append(1.0 if inside else 0.25)
        assert row.tolist() == expected
    whole = objectives.next_token(jnp.asarray(windows))
    assert np.all(np.asarray(whole.weights_BT) == 1)


def test_the_weight_of_the_rest_is_checked_and_a_part_of_the_digest() -> None:
    """Fails when a weight that cannot be is accepted, when runs with and without one share a digest, or when a run of before
    there was a choice has another digest than now."""
    plain, weighted = tiny.train_config(), tiny.train_config(data_rest=0.1)
    assert config.digest(plain, "x") != config.digest(weighted, "x")
    assert "rest" not in config.identity(plain)["data"] and config.identity(weighted)["data"]["rest"] == 0.1
    with pytest.raises(config.ConfigError, match=r"data\.rest=0: must be above 0"):
        tiny.train_config(data_rest=0.0)
    with pytest.raises(config.ConfigError, match=r"data\.rest=0\.1: answers are told by their bytes"):
        tiny.train_config(data_rest=0.1, data_vocab="512")
