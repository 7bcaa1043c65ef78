"""Two processes train one run over loopback: the same as one, through stops and kills, and clear when they cannot start."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest
from training import Trainer, results, wait_for

from scaling import processes, runs
from scaling.checkpoint import SET_ASIDE
from scaling.config import ConfigError

# Long enough that a busy machine, where this process may be kept waiting for seconds, still signals a run in its middle.
RUN = {
    "budget": "300 steps", "model.width": 32, "model.heads": 4, "model.kv_heads": 4, "machine.data": 2, "machine.fsdp": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        ({"SLURM_NTASKS": "8"}, False),  # a shell of an allocation: the launcher and its workers are one process each
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"TPU_WORKER_HOSTNAMES": "one"}, False),
        ({"TPU_WORKER_HOSTNAMES": "one,two"}, True),
    ],
)
def test_which_environments_mean_several_processes(monkeypatch, environment, joins):
    # fails when a lone process waits for others that are not there, or several train apart
    joined = []
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda **_: joined.append(True))
    processes.start(environment)
    assert bool(joined) == joins


def start(trainer: Trainer, run_dir, count: int, fields=({}, {}), **common) -> list[subprocess.Popen[str]]:
    """``count`` processes with four virtual devices in all; ``fields`` are those of each process alone."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = []
    for i in range(count):
        flags = f"--xla_force_host_platform_device_count={4 // count} --xla_backend_optimization_level=0"
        env = os.environ | {"XLA_FLAGS": flags}
        if count > 1:
            env |= {"SCALING_COORDINATOR": address, "SCALING_NUM_PROCESSES": str(count), "SCALING_PROCESS_ID": str(i)}
        words = trainer.words(run_dir, **RUN | common | fields[i])
        command = [sys.executable, "-m", "scaling.train", *words]
        pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, cwd=trainer.repo, env=env, **pipes))
    return started


def finish(trainer: Trainer, started, *status: int) -> list[str]:
    try:
        return [trainer.finish(p, s) for p, s in zip(started, status, strict=True)]
    finally:
        for process in started:
            process.kill()


@pytest.fixture(scope="module")
def together(trainer, tmp_path_factory):
    """The folder of an undisturbed run of two processes."""
    run_dir = tmp_path_factory.mktemp("together") / "run"
    finish(trainer, start(trainer, run_dir, 2), 0, 0)
    return run_dir


@pytest.mark.slow
def test_two_processes_give_the_same_as_one(trainer, together, tmp_path):
    # fails when a process trains or validates on another's rows, counts them twice, or both write the run's files
    finish(trainer, start(trainer, tmp_path / "one", 1), 0)
    one, two = (runs.Member(d).metrics() for d in (tmp_path / "one", together))
    assert len(one) == len(two) > 300
    for a, b in zip(one, two, strict=True):
        assert [a.get(k) for k in ("kind", "step", "lr", "ids_hash")] == [b.get(k) for k in ("kind", "step", "lr", "ids_hash")]
        # Sums in another order differ in the last bits, and training amplifies that: 2e-6 after 140 steps was seen.
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-6 if a["step"] <= 100 else 1e-4), a["step"]
    assert len(runs.Member(together).attempts()) == 1
    assert runs.read_json(together / runs.ENV)["processes"] == 2


@pytest.mark.slow
def test_stopped_by_one_killed_in_one_and_resumed_is_undisturbed_to_the_bit(trainer, together, tmp_path):
    # fails when a stop asked of one process does not reach the other, when the death of one leaves the other waiting (it would
    # be aborted by a timeout, status -6, not leave by itself), or when what they saved is not what they go on with
    run_dir = tmp_path / "run"

    def rows_more(n: int) -> None:
        there = len(list(runs.read_jsonl(run_dir / runs.METRICS)))
        wait_for(lambda: len(list(runs.read_jsonl(run_dir / runs.METRICS))) >= there + n, f"{n} rows more")

    pair = start(trainer, run_dir, 2)
    rows_more(12)
    pair[1].send_signal(signal.SIGTERM)
    printed = finish(trainer, pair, runs.PREEMPTED, runs.PREEMPTED)
    assert all("run the same command to go on" in text for text in printed)
    pair = start(trainer, run_dir, 2)
    rows_more(12)
    pair[1].kill()
    finish(trainer, pair, 1, -signal.SIGKILL)
    finish(trainer, start(trainer, run_dir, 2), 0, 0)
    assert results(run_dir) == results(together)
    attempts = runs.Member(run_dir).attempts()
    assert [a["exit"] for a in attempts] == ["preempted", "error", "done"]
    assert 0 == attempts[0]["from_step"] < attempts[1]["from_step"] == attempts[2]["from_step"]


@pytest.mark.slow
def test_a_checkpoint_that_one_process_cannot_read_is_used_by_none(trainer, tmp_path):
    # fails when the processes go on from two steps, or wait for each other, where a file is damaged that one alone needs
    run_dir, split = tmp_path / "run", {"machine.data": 1, "machine.fsdp": 4, "marks": "100 steps"}
    pair = start(trainer, run_dir, 2, **split)
    wait_for(lambda: (runs.Member(run_dir).metrics() or [{"step": 0}])[-1]["step"] > 120, "120 steps")
    pair[0].send_signal(signal.SIGTERM)
    finish(trainer, pair, runs.PREEMPTED, runs.PREEMPTED)
    mark, newest = sorted((run_dir / runs.CHECKPOINTS).iterdir(), key=lambda p: int(p.name))
    for path in (newest / "state" / "ocdbt.process_1" / "d").iterdir():
        os.truncate(path, path.stat().st_size // 2)
    first, second = finish(trainer, start(trainer, run_dir, 2, **split), 0, 0)
    assert f"warning: {newest} cannot be used by process 1" in first and f"warning: {newest} cannot be read" in second
    assert [a["from_step"] for a in runs.Member(run_dir).attempts()] == [0, int(mark.name)]
    assert [p.name for p in (run_dir / SET_ASIDE).iterdir()] == [f"{newest.name}.0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"seed": 1}, ["process 1 was started to train another run", "process 0 was started to train another run"]),
        ({"data.store": "/nowhere/tokens"}, ["process 1 cannot start: ", "/nowhere/tokens"]),
        (
            {"machine.fsdp": 1},
            ["process 1 cannot start: ", "machine.data, fsdp, tensor = [2, 1, 1]: 2 of 4 devices leave process 1"],
        ),
    ],
)
def test_what_one_process_cannot_use_is_told_by_both(trainer, tmp_path, second, said):
    # fails when the other process waits for ever, ends in a traceback, or trains
    printed = finish(trainer, start(trainer, tmp_path / "run", 2, ({}, second)), runs.BAD_CONFIG, runs.BAD_CONFIG)
    for text, part in zip(printed, said, strict=True):
        assert part in text and "Traceback" not in text, text
    assert not (tmp_path / "run" / runs.ATTEMPTS).exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("here", "2", "0"), "SCALING_COORDINATOR='here': must be host:port"),
        ((None, "2", "0"), "SCALING_COORDINATOR=''"),
        (("here:1", "two", "0"), "SCALING_NUM_PROCESSES='two': must be the number of processes"),
        (("here:1", "2", "2"), "SCALING_PROCESS_ID='2': must be from 0 to 1"),
        (("here:1", "2", None), "SCALING_PROCESS_ID=''"),
    ],
)
def test_an_environment_that_cannot_be_meant_is_refused(given, said):
    # fails when a variable that is missing or wrong ends in a traceback, or in a run of its own that shares the directory
    environment = {name: value for name, value in zip(processes.NAMES, given, strict=True) if value is not None}
    with pytest.raises(ConfigError, match="environment: ") as caught:
        processes.start(environment)
    assert said in str(caught.value)
