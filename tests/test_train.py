"""The trainer as processes: resumed runs, refusals, bad input, divergence."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny
from training import Trainer, contents, results, wait_for, write_sweep

from scaling import checkpoint, config, partition, runs, step

# The undisturbed run that others are compared with: long enough to be stopped in its middle.
LONG = {"budget": "4000 steps", "marks": "'2000 steps'", "evals": 3}


@pytest.fixture(scope="session")
def undisturbed(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory):
    """The folder of a finished run."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    printed = trainer.run(run_dir, **LONG)
    assert "finished: 512,000 tokens" in printed
    return run_dir


def state_of(run_dir, at: int):
    """A checkpoint's arrays by path."""
    c = config.from_resolved(runs.read_json(run_dir / runs.CONFIG)["config"])
    abstract = step.make_programs(c, partition.make_mesh(c.machine)).abstract_state
    return tiny.by_path(checkpoint.Checkpoints(run_dir, read_only=True).restore(at, abstract)[0])


def assert_same_states(a, b):
    assert a.keys() == b.keys() and len(a) > 20
    assert not [name for name in a if not np.array_equal(a[name], b[name])]


def test_a_finished_run_holds_what_the_contract_lists(undisturbed):
    # fails when a file or field that the launcher or the analysis reads is missing, or numbers disagree between files
    plan, done = (runs.read_json(undisturbed / name) for name in (runs.PLAN, runs.DONE))
    stored, env = (runs.read_json(undisturbed / name) for name in (runs.CONFIG, runs.ENV))
    assert done["status"] == "finished" and done["cause"] is None and done["digest"] == stored["digest"]
    assert done["steps"] == plan["steps"] == 4000 and done["tokens"] == plan["tokens"] == 512_000
    assert done["flops"] == plan["flops"] and done["val_loss_stderr"] > 0 and done["annealed"]
    assert len(env["devices"]) == 1 and "jax" in env["packages"]
    member = runs.Member(undisturbed)
    rows = member.metrics()
    val = [row for row in rows if row["kind"] == "val"]
    assert [row["step"] for row in val] == [1333, 2667, 4000]
    assert (val[-1]["loss"], val[-1]["bpb"]) == (done["val_loss"], done["val_bpb"])
    assert done["val_loss"] < val[0]["loss"] < 5.5
    train = [row for row in rows if row["kind"] == "train"]
    assert 200 <= len(train) <= 400 and train[-1]["step"] == 4000 and train[-1]["loss"] == done["train_loss"]
    for row in train:
        assert row["tokens"] == row["step"] * 128 and int(row["ids_hash"], 16) > 0
        assert {"lr", "grad_norm", "tokens_per_second", "mfu", "flops", "epoch"} <= row.keys()
    (attempt,) = member.attempts()
    assert attempt["exit"] == "done" and attempt["from_step"] == 0 and attempt["to_step"] == 4000
    assert {"compile", "train", "eval", "checkpoint", "idle"} <= attempt["seconds"].keys()
    folder = undisturbed / runs.CHECKPOINTS
    assert {"2000", "4000"} <= {p.name for p in folder.iterdir()}


@pytest.mark.slow
def test_stopped_and_resumed_is_undisturbed_to_the_bit(trainer, undisturbed, tmp_path):
    # fails when a resumed run repeats or skips a batch, restarts a schedule, forgets a moment, or loses or doubles a row
    run_dir = tmp_path / "run"
    for how in (signal.SIGTERM, signal.SIGINT):
        before = len(runs.Member(run_dir).metrics())
        process = trainer.start(*trainer.words(run_dir, **LONG))
        wait_for(lambda n=before: len(list(runs.read_jsonl(run_dir / runs.METRICS))) > n + 20, "twenty rows more")
        process.send_signal(how)
        printed = trainer.finish(process, runs.PREEMPTED)
        assert "run the same command to go on" in printed
        assert runs.read_json(run_dir / runs.DONE) is None
    trainer.run(run_dir, **LONG)
    assert results(run_dir) == results(undisturbed)
    attempts = runs.Member(run_dir).attempts()
    assert [a["exit"] for a in attempts] == ["preempted", "preempted", "done"]
    assert 0 == attempts[0]["from_step"] < attempts[1]["from_step"] < attempts[2]["from_step"] < 4000
    assert [a["to_step"] for a in attempts[:2]] == [a["from_step"] for a in attempts[1:]]
    for at in (2000, 4000):
        assert_same_states(state_of(run_dir, at), state_of(undisturbed, at))


@pytest.mark.slow
def test_killed_while_it_trains_and_resumed_is_undisturbed_to_the_bit(trainer, undisturbed, tmp_path):
    # fails when rows written after the last checkpoint stay, or a checkpoint that was being written is believed
    run_dir = tmp_path / "run"
    often = LONG | {"machine__checkpoint_minutes": 0.01}
    process = trainer.start(*trainer.words(run_dir, **often))
    folder = run_dir / runs.CHECKPOINTS

    def rows_beyond_a_checkpoint() -> bool:
        saved = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
        rows = list(runs.read_jsonl(run_dir / runs.METRICS))
        return bool(saved and rows) and rows[-1]["step"] > max(saved)

    wait_for(rows_beyond_a_checkpoint, "rows of steps after a checkpoint")
    process.kill()
    process.communicate()
    trainer.run(run_dir, **often)
    assert results(run_dir) == results(undisturbed)
    assert len(list(runs.read_jsonl(run_dir / runs.METRICS))) == len(runs.Member(run_dir).metrics())
    last = runs.Member(run_dir).attempts()[-1]
    assert last["from_step"] > 0 and last["exit"] == "done"


def test_a_finished_run_is_not_trained_again(trainer, undisturbed):
    # fails when the same command trains twice or touches a finished run
    before = contents(undisturbed)
    assert "already done" in trainer.run(undisturbed, **LONG)
    assert contents(undisturbed) == before


def test_a_directory_of_another_run_is_refused_with_the_difference(trainer, undisturbed):
    # fails when a changed config overwrites a run, or goes on from its checkpoint
    before = contents(undisturbed)
    printed = trainer.run(undisturbed, runs.BAD_CONFIG, **LONG | {"optim.lr": 0.001, "seed": 3})
    assert "another run lives here" in printed and "optim.lr: 0.008 -> 0.001" in printed and "seed: 0 -> 3" in printed
    assert "Traceback" not in printed
    assert contents(undisturbed) == before


def test_two_trainers_on_one_directory(trainer, tmp_path):
    # fails when two processes write one run: the second is told and leaves
    run_dir = tmp_path / "run"
    forever = LONG | {"budget": "40000 steps"}
    first = trainer.start(*trainer.words(run_dir, **forever))
    wait_for(lambda: (run_dir / runs.METRICS).exists(), "the first row")
    printed = trainer.run(run_dir, runs.BAD_CONFIG, **forever)
    assert "another process trains this run" in printed
    first.send_signal(signal.SIGTERM)
    trainer.finish(first, runs.PREEMPTED)
    assert len(runs.Member(run_dir).attempts()) == 1


def test_divergence_is_a_result(trainer, tmp_path):
    # fails when a run that blew up goes on to its end, is retried for ever, or leaves no cause
    run_dir = tmp_path / "run"
    printed = trainer.run(run_dir, **{"optim.lr": 1e6, "optim.warmup": "'1 steps'", "budget": "400 steps"})
    done = runs.read_json(run_dir / runs.DONE)
    assert done["status"] == "diverged" and "step" in done["cause"] and done["steps"] < 400 and done["val_loss"] is None
    assert "diverged" in printed and done["cause"] in printed
    assert runs.Member(run_dir).attempts()[0]["cause"] == done["cause"]
    assert "already done" in trainer.run(run_dir, **{"optim.lr": 1e6, "optim.warmup": "'1 steps'", "budget": "400 steps"})


@pytest.mark.slow
def test_a_branch_goes_on_from_its_trunks_mark(trainer, text_store, tmp_path):
    # fails when a branch starts afresh, from the trunk's end, or with another stream: before the fork everything is the
    # trunk's, so a branch must equal a run of its own that was never cut
    from scaling import sweep

    path = write_sweep(
        tmp_path / "two.py", "sweep.fork(config, ['150 steps', '300 steps'])", model__depth=1, model__width=16,
        model__context=16, batch="128 tokens", evals=1, data__store=str(text_store.path), data__val_windows=16,
        data__epochs=100,
        machine__compile_cache=os.environ["JAX_COMPILATION_CACHE_DIR"],
    )  # fmt: skip
    loaded = sweep.load(str(path))
    for m in loaded.members:
        digest = config.digest(m.config, text_store.fingerprint, m.parent, m.mark_tokens)
        spec = {
            "id": m.id, "digest": digest, "config": config.to_dict(m.config), "parent": m.parent, "cluster": m.parent or m.id,
            "parent_dir": f"../{m.parent}" if m.parent else None, "fork_steps": m.plan.fork_steps,
        }  # fmt: skip
        runs.write_json(tmp_path / m.id / runs.SPEC, spec)
    early = trainer.finish(trainer.start("--spec", str(tmp_path / "causal-150steps" / runs.SPEC)), runs.BAD_CONFIG)
    assert "the trunk causal-trunk has not started" in early
    for m in loaded.members:
        trainer.finish(trainer.start("--spec", str(tmp_path / m.id / runs.SPEC)))
    trainer.run(tmp_path / "alone", **{"budget": "150 steps", "evals": 1, "optim.warmup": "'20 steps'"})
    branch, alone = runs.Member(tmp_path / "causal-150steps"), runs.Member(tmp_path / "alone")
    assert branch.attempts()[0]["from_step"] == 120 == branch.metrics()[0]["step"] - 1
    keys = ("kind", "step", "loss", "lr", "grad_norm", "ids_hash", "bpb")
    rows = [[tuple(row.get(k) for k in keys) for row in m.metrics() if row["step"] > 120] for m in (branch, alone)]
    assert len(rows[0]) == 31 and rows[0] == rows[1]
    assert branch.read(runs.PLAN)["cluster"] == "causal-trunk"


# --------------------------------------------------------------------------------------------- bad input


def test_no_permission_to_write(trainer, tmp_path):
    # fails when a folder that cannot be written gives a traceback
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    command = [sys.executable, "-m", "scaling.train", *trainer.words(locked / "run")]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to give that right up")
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    done = subprocess.run(command, cwd=trainer.repo, capture_output=True, text=True, check=False)
    assert done.returncode == runs.BAD_CONFIG, done.stderr
    assert "no permission to write" in done.stderr and str(locked) in done.stderr and "Traceback" not in done.stderr
