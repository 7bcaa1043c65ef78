"""What the end of a worker means."""

import pytest

from scaling.launch.outcome import FRESH, KILL_CAP, STALL_CAP, End, Ended, judge


@pytest.mark.parametrize(
    ("status", "end"),
    [(75, End.SAVED), (2, End.REFUSED), (1, End.ERROR), (0, End.ERROR), (-9, End.KILLED), (-15, End.KILLED), (137, End.KILLED),
     (143, End.KILLED), (-11, End.ERROR), (250, End.ERROR)],
)  # fmt: skip
def test_exit_statuses(status: int, end: End) -> None:
    """Fails when preemption is counted, a refusal retried, or exit 0 without done.json taken for success."""
    assert judge(status, False, None).end is end
    assert judge(status, True, None).end is End.DONE


@pytest.mark.parametrize(
    ("attempt", "end"),
    [(None, End.KILLED), ({}, End.KILLED), ({"exit": None}, End.KILLED), ({"exit": "preempted"}, End.SAVED),
     ({"exit": "done"}, End.KILLED), ({"exit": "error", "cause": "boom"}, End.ERROR)],
)  # fmt: skip
def test_end_that_nobody_saw(attempt: dict | None, end: End) -> None:
    """Fails when the files of a worker that outlived its launcher are misread, or one killed before its done.json is blamed."""
    assert judge(None, False, attempt) == Ended(end, "boom" if end is End.ERROR else "ended unseen")


def test_errors_are_counted_to_the_limit() -> None:
    """Fails when a member gets more or fewer than 1 + retries tries."""
    tally = FRESH
    for _ in range(2):
        tally = tally.after(Ended(End.ERROR, "boom"), 1, retries=2)
        assert not tally.failed
    assert "boom" in tally.after(Ended(End.ERROR, "boom"), 1, retries=2).failed


def test_kills_are_free_while_there_is_progress() -> None:
    """Fails when a preemptible machine uses up a member's tries, or kills go on for ever."""
    tally = FRESH
    for step in range(KILL_CAP - 1):
        tally = tally.after(Ended(End.KILLED, "SIGKILL"), step, retries=0)
        assert not tally.failed
    assert tally.after(Ended(End.KILLED, "SIGKILL"), 999, retries=0).failed


def test_kills_without_progress_end_soon() -> None:
    """Fails when a member that runs out of memory at its first step is started a hundred times."""
    tally, tries = FRESH, 0
    while not tally.failed:
        tally, tries = tally.after(Ended(End.KILLED, "SIGKILL"), 5, retries=0), tries + 1
    assert tries == STALL_CAP + 1 and "memory" in tally.failed


def test_refusal_is_final() -> None:
    """Fails when a bad config is tried again."""
    assert FRESH.after(Ended(End.REFUSED, "bad"), 0, retries=5).failed == "bad"
