"""Scheduling decisions, without processes."""

from scaling.launch import schedule
from scaling.launch.schedule import Facts, Phase, Task

TRUNK = Task("trunk", seconds=10)
EARLY = Task("early", seconds=2, parent="trunk", mark_after=4)
LATE = Task("late", seconds=4, parent="trunk", mark_after=10)
TOP = Task("top", slots=2, seconds=7, gated=True)
ALL = (TRUNK, EARLY, LATE, TOP)
FRESH = {"trunk": Facts(), "early": Facts(mark=False), "late": Facts(mark=False), "top": Facts()}


def test_phases_of_a_fresh_sweep() -> None:
    """Fails when a branch starts before its mark, or the largest before its prediction."""
    now = schedule.phases(ALL, FRESH, gate_open=False)
    assert now == {
        "trunk": Phase.READY, "early": Phase.WAITS_TRUNK, "late": Phase.WAITS_TRUNK, "top": Phase.WAITS_PREDICTION,
    }  # fmt: skip
    assert schedule.phases(ALL, FRESH, gate_open=True)["top"] is Phase.READY


def test_branch_of_an_ended_trunk_runs_only_from_a_mark_that_is_there() -> None:
    """Fails when a branch waits for ever on a trunk that will not come back, or a committed mark is ignored."""
    for facts in (Facts(failed=True), Facts("diverged")):
        now = schedule.phases(ALL, FRESH | {"trunk": facts, "early": Facts(mark=True)}, gate_open=False)
        assert (now["early"], now["late"]) == (Phase.READY, Phase.BLOCKED)


def test_prediction_is_due_when_all_smaller_are_over_even_failed() -> None:
    """Fails when a failed small member keeps the largest waiting, or a running one does not."""
    over = {"trunk": Facts("finished"), "early": Facts(failed=True), "late": Facts("diverged"), "top": Facts()}
    assert schedule.prediction_due(ALL, schedule.phases(ALL, over, False))
    running = over | {"late": Facts(running=True)}
    assert not schedule.prediction_due(ALL, schedule.phases(ALL, running, False))


def test_simulated_time_counts_marks_cores_and_the_gate() -> None:
    """Worked by hand: trunk 0-10, early 4-6, late 10-14, then the largest on both cores 14-21."""
    assert schedule.simulate(ALL, FRESH, 2, ALL) == 21
    assert schedule.simulate(ALL, FRESH, 1, ALL) == 10 + 2 + 4 + 7
    assert (
        schedule.simulate(ALL, FRESH | {"trunk": Facts("finished"), "early": Facts(), "late": Facts("finished")}, 2, ALL) == 9
    )


def test_running_members_hold_their_cores_in_the_simulation() -> None:
    """Fails when a member that runs already is counted twice or its core as free."""
    tasks = (Task("a", seconds=5), Task("b", seconds=5), Task("c", seconds=5))
    facts = {"a": Facts(running=True), "b": Facts(), "c": Facts()}
    assert schedule.simulate(tasks, facts, 2, tasks) == 10


def test_order_follows_the_played_out_times() -> None:
    """Fails when cheapest first is taken where it leaves cores idle, or given up where it costs nothing."""
    uneven = tuple(Task(name, seconds=s) for name, s in (("a", 1), ("b", 1), ("c", 8)))
    fresh = {t.id: Facts() for t in uneven}
    choice = schedule.choose_order(uneven, fresh, 2)
    assert (choice.name, choice.expected) == ("longest chain first", 8)
    assert schedule.choose_order(uneven, fresh, 1).name == "cheapest first"


def test_longest_chain_counts_what_hangs_on_a_trunk() -> None:
    """Fails when a short trunk with a long branch is put last."""
    chain = (Task("trunk", seconds=3), Task("branch", seconds=9, parent="trunk", mark_after=2), Task("solo", seconds=10))
    assert schedule.longest_path(chain)["trunk"] == 11
    assert [t.id for t in schedule.longest_first(chain)] == ["trunk", "solo", "branch"]


def test_ready_keeps_the_order() -> None:
    """Fails when a running or waiting member is offered."""
    now = schedule.phases(ALL, FRESH | {"early": Facts(), "late": Facts(running=True)}, gate_open=True)
    assert [t.id for t in schedule.ready(ALL, now)] == ["trunk", "early", "top"]
