"""Nothing loses work: real trainers and launchers are killed, and every loss is bit for bit that of an undisturbed sweep."""

import hashlib
import os
import pathlib
import shlex
import shutil
import signal
import sys

import pytest
from launching import TRUNK, Launches, is_worker, results, wait_for

from scaling import runs

pytestmark = pytest.mark.slow


def test_undisturbed_sweep_is_trained_once_and_whole(undisturbed: pathlib.Path) -> None:
    """Fails when a member is missing, runs twice, or learns nothing at all."""
    found = results(undisturbed)
    longest = max(found, key=lambda name: found[name][-1][-1])
    assert len(found) == 3 and TRUNK in found and longest != TRUNK
    assert all(len(m.attempts()) == 1 for m in runs.members(undisturbed))
    assert found[longest][-1][1] < 2.0 < found[TRUNK][0][2]
    sweep = runs.read_json(undisturbed / runs.SWEEP)
    assert sweep is not None and {m["cluster"] for m in sweep["members"]} == {TRUNK}
    assert (undisturbed / "scaling.png").exists()


def test_killed_worker(launches: Launches, undisturbed: pathlib.Path) -> None:
    """Fails when a kill is counted as a failure, the member starts from zero, or a row differs after the resume."""
    launcher = launches.start()
    launches.wait_for_checkpoint()
    os.kill(launches.pid(), signal.SIGKILL)
    printed = launches.finish(launcher)
    first, second = launches.attempts()[TRUNK]
    assert first.get("exit") is None and second["exit"] == "done" and second["from_step"] > 0
    assert "SIGKILL" in printed and launches.state()["tally"] == launches.state()["tally"] | {"failures": 0, "kills": 1}
    assert results(launches.folder) == results(undisturbed)


def test_killed_launcher(launches: Launches, undisturbed: pathlib.Path) -> None:
    """Fails when workers die with the launcher, or the next one does not take them over and runs a member twice."""
    launcher = launches.start()
    launches.wait_for_checkpoint()
    worker = launches.pid()
    launcher.kill()
    launcher.wait()
    assert is_worker(worker, launches.out)
    (launches.folder / TRUNK / runs.STATE).unlink()  # a cache: losing it must not matter
    printed = launches.run()
    assert f"{TRUNK}: still running, taken over" in printed
    assert {name: len(a) for name, a in launches.attempts().items()} == dict.fromkeys(results(undisturbed), 1)
    assert results(launches.folder) == results(undisturbed)


def test_killed_launcher_and_worker(launches: Launches, undisturbed: pathlib.Path) -> None:
    """Fails when a dead worker is taken for a living one, or its end without a witness counts as a failure."""
    launcher = launches.start()
    launches.wait_for_checkpoint()
    worker = launches.pid()
    launcher.kill()
    launcher.wait()
    os.kill(worker, signal.SIGKILL)
    launches.run()
    assert len(launches.attempts()[TRUNK]) == 2 and launches.state()["tally"]["failures"] == 0
    assert results(launches.folder) == results(undisturbed)


def test_sigterm_saves_and_the_printed_command_goes_on(launches: Launches, undisturbed: pathlib.Path) -> None:
    """Fails when SIGTERM or cancel leaves workers behind, loses their state, or the printed command is not the one."""
    launcher = launches.start()
    launches.wait_for_checkpoint()
    launcher.terminate()
    printed = launches.finish(launcher, 128 + signal.SIGTERM)
    (attempt,) = launches.attempts()[TRUNK]
    assert attempt["exit"] == "preempted" and not is_worker(attempt["pid"], launches.out)
    command = shlex.split(printed.rpartition("to go on: ")[2].strip())
    again = launches.start(words=[sys.executable, *command[1:]])
    wait_for(lambda: len(launches.attempts()[TRUNK]) == 2, "a second attempt")
    cancelled = launches.run("cancel")
    assert f"asked launcher {again.pid} to stop" in cancelled
    launches.finish(again, 128 + signal.SIGTERM)
    launches.run()
    assert [a["exit"] for a in launches.attempts()[TRUNK]] == ["preempted", "preempted", "done"]
    assert results(launches.folder) == results(undisturbed)


def test_second_launcher_is_refused(launches: Launches, undisturbed: pathlib.Path) -> None:
    """Fails when two launchers share a sweep, or the second disturbs the first."""
    first = launches.start()
    launches.wait_for_checkpoint()
    refused = launches.run(status=runs.BAD_CONFIG)
    assert "another launcher runs this sweep" in refused and str(first.pid) in refused and "Traceback" not in refused
    seen = launches.run("status")
    assert f"launcher {first.pid} runs it" in seen and TRUNK in seen
    launches.finish(first)
    assert all(len(a) == 1 for a in launches.attempts().values())
    assert results(launches.folder) == results(undisturbed)


def _files(folder: pathlib.Path) -> dict[str, str]:
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != ".launch.lock"]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_changed_config_is_refused_with_the_difference(launches: Launches, undisturbed: pathlib.Path) -> None:
    """Fails when a changed config trains over old results, touches any file, or the message hides what changed."""
    shutil.copytree(undisturbed, launches.folder)
    before = _files(launches.folder)
    refused = launches.run("--config.optim.lr=0.004", status=runs.BAD_CONFIG)
    assert "optim.lr: 0.008 -> 0.004" in refused and "--out" in refused and "Traceback" not in refused
    assert _files(launches.folder) == before


def test_same_command_again_trains_nothing(launches: Launches, undisturbed: pathlib.Path) -> None:
    """Fails when a finished member is trained again."""
    shutil.copytree(undisturbed, launches.folder)
    printed = launches.run()
    assert "3 of 3 over" in printed and all(len(a) == 1 for a in launches.attempts().values())
