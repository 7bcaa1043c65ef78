"""The watchdog: only training steps count, and only time in which the launcher itself was awake."""

import pytest

from scaling.launch.watchdog import LOOKS, MOST_PER_LOOK, Watchdog, progress

LIMIT = 600.0
INTERVAL = LIMIT / LOOKS
TRAINS = {"pid": 7, "started_at": 1.0, "to_step": 5, "exit": None, "doing": "train"}


def bites_after(marks: list, limit: float = LIMIT) -> int | None:
    """At which look of one every interval a member with these marks is said to hang."""
    dog, now = Watchdog(limit), 100.0
    dog.due(now)
    for i, mark in enumerate(marks):
        now += INTERVAL
        if dog.hangs("m", mark, dog.due(now)):
            return i
    return None


def test_no_step_for_the_limit_is_a_hang() -> None:
    """Fails when a worker without progress is waited for ever, ended before its time, or one that makes steps is ended."""
    assert bites_after([(1.0, 5)] * 40) == LOOKS
    assert bites_after([(1.0, i // (LOOKS - 1)) for i in range(200)]) is None
    assert bites_after([(1.0, 5)] * 40, limit=0) is None


@pytest.mark.parametrize(
    "change", [{"doing": "compile"}, {"doing": "eval"}, {"doing": "checkpoint"}, {"doing": None}, {"pid": 8}, {"exit": "done"}]
)
def test_only_training_counts(change: dict) -> None:
    """Fails when compiling, validating, saving, or a start whose record is still its predecessor's, counts as a hang."""
    assert progress(7, TRAINS | change) is None and progress(7, None) is None
    still = progress(7, TRAINS)
    assert still is not None and bites_after([still, None] * (2 * LOOKS)) is None


def test_a_new_attempt_at_the_same_step_is_progress() -> None:
    """Fails when a worker that goes on from a checkpoint inherits the time that its predecessor hung."""
    assert progress(7, TRAINS) != progress(7, TRAINS | {"started_at": 2.0})


def test_time_asleep_does_not_count() -> None:
    """Fails when a closed laptop, or a clock that jumps to either side, ends workers that stood still with the launcher."""
    dog = Watchdog(LIMIT)
    dog.due(0.0)
    assert not dog.hangs("m", (1.0, 5), dog.due(INTERVAL))
    assert dog.due(INTERVAL + 9e6) == MOST_PER_LOOK * INTERVAL
    assert dog.due(10.0) == 0.0 and dog.due(10.0 + INTERVAL) == INTERVAL
    assert dog.due(10.0 + 1.5 * INTERVAL) == 0.0
