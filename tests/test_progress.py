"""Seconds by kind, and the rule of divergence."""

import json
import math
import time

import pytest

from scaling.progress import SPIKE_NATS, SPIKE_WINDOW, Chrono, LossTrack, process_age


def fed(losses, track=None):
    """The track after ``losses``, and the first cause that it gave."""
    track = track or LossTrack()
    for i, loss in enumerate(losses, 1):
        cause = track.add(i, loss, 1.0)
        if cause:
            return track, cause
    return track, None


def test_seconds_add_up_to_the_age_of_the_run():
    # fails when a kind is counted twice or the rest is lost
    chrono = Chrono()
    with chrono("train"):
        time.sleep(0.02)
    with chrono("train"), pytest.raises(KeyError):
        raise KeyError
    with chrono("eval"):
        time.sleep(0.01)
    seconds = chrono.seconds()
    assert set(seconds) == {"train", "eval", "idle"}
    assert seconds["train"] >= 0.02 and seconds["eval"] >= 0.01
    assert sum(seconds.values()) >= process_age() - 0.1
    assert process_age() >= 0


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_what_is_not_finite_has_diverged(loss, norm):
    # fails when a NaN passes a comparison
    cause = LossTrack().add(17, loss, norm)
    assert cause is not None and cause.startswith("step 17") and "not finite" in cause and "optim.lr" in cause


def test_a_rise_of_a_nat_for_long_has_diverged_and_a_spike_has_not():
    # fails when one bad batch ends a run, a lasting rise does not, or a slow fall counts as one
    falling = [6 - 0.01 * i for i in range(300)]
    assert fed(falling)[1] is None
    assert fed([*falling, 40.0, *[3.0] * 100])[1] is None
    best = sum(falling[-SPIKE_WINDOW:]) / SPIKE_WINDOW
    cause = fed([*falling, *[best + SPIKE_NATS + 0.01] * 200])[1]
    assert cause is not None and f"over {SPIKE_WINDOW} steps" in cause
    assert fed([*falling, *[best + SPIKE_NATS - 0.01] * 200])[1] is None
    assert fed([2.0, *[9.0] * (SPIKE_WINDOW - 1)])[1] is None  # nothing to compare with before a whole window


def test_means_between_rows():
    # fails when a step is counted in two rows or in none
    track, _ = fed([1.0, 2.0, 6.0])
    assert track.take_mean() == 3.0
    fed([5.0], track)
    assert track.take_mean() == 5.0


def test_a_restored_track_goes_on_as_the_old_one():
    # fails when the rule forgets, over a restart, losses that it has seen
    losses = [6 - 0.01 * i for i in range(120)] + [7.0] * 100
    whole, cause = fed(losses)
    half, _ = fed(losses[:100])
    half = LossTrack(**json.loads(json.dumps(half.to_dict())))
    for i, loss in enumerate(losses[100:], 101):
        again = half.add(i, loss, 1.0)
        if again:
            break
    assert cause is not None and again == cause and half == whole
