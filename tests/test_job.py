"""What a run makes sure of before it trains."""

import os
import subprocess
import sys

from scaling import config, job, runs

DRIVER = """
import contextlib, sys
from scaling import runs, train
spec_path = sys.argv[-1]
take = train.jobs.exclusive

@contextlib.contextmanager
def exclusive(run_dir):  # a launcher that rewrites the spec in the last moment in which it may
    spec = runs.read_json(spec_path)
    runs.write_json(spec_path, spec | {"digest": "another"})
    with take(run_dir):
        yield

train.jobs.exclusive = exclusive
sys.exit(train.main(["--spec", spec_path]))
"""


def test_a_worker_whose_spec_was_rewritten_under_it_trains_nothing(trainer, text_store, tmp_path):
    # fails when a worker that read its spec before a changed launch rewrote it trains the old config under the new one's name
    tree = config.default_dict()
    tree["model"] |= {"depth": 1, "width": 16, "context": 16}
    tree["data"] |= {"store": str(text_store.path), "epochs": 100.0}
    tree |= {"batch": "128 tokens", "budget": "20 steps"}
    spec = {"config": config.to_dict(config.resolve(tree)), "digest": "one", "parent": None, "cluster": "m", "fork_steps": 0}
    path = tmp_path / "m" / runs.SPEC
    runs.write_json(path, spec)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(path)], cwd=trainer.repo, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == runs.PREEMPTED, done.stderr
    assert "was given another config while this process started" in done.stdout
    assert not (path.parent / runs.ATTEMPTS).exists() and not (path.parent / runs.CONFIG).exists()


def test_rows_are_counted_up_to_the_checkpoint(tmp_path):
    # fails when a hole before a checkpoint is overlooked, or rows after it (of a killed attempt) make up for one
    for step in (1, 3, 4):
        runs.append_jsonl(tmp_path / runs.METRICS, {"kind": "train", "step": step, "loss": 1.0})
    assert job.rows_lost(tmp_path, 3, {"rows": 2}) is None and job.rows_lost(tmp_path, 3, {}) is None
    assert "2 of 3 rows up to step 3" in str(job.rows_lost(tmp_path, 3, {"rows": 3}))


def test_rows_beyond_the_checkpoint_go(tmp_path):
    # fails when rows that a killed attempt wrote after its last checkpoint stay, or ones before it go
    for step in (1, 3, 4):
        runs.append_jsonl(tmp_path / runs.METRICS, {"kind": "train", "step": step, "loss": 1.0})
    job.drop_rows_after(tmp_path, 3)
    assert [row["step"] for row in runs.read_jsonl(tmp_path / runs.METRICS)] == [1, 3]
    job.drop_rows_after(tmp_path, 0)
    assert not (tmp_path / runs.METRICS).exists()


def test_rows_are_on_disk_before_they_replace_the_old_ones(tmp_path, monkeypatch):
    # fails when a power cut right after the replacement may leave an empty file in the place of all rows
    runs.append_jsonl(tmp_path / runs.METRICS, {"kind": "train", "step": 1, "loss": 1.0})
    done, replace = [], os.replace
    monkeypatch.setattr(runs, "sync", lambda path: done.append(path.name))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("replaced"), replace(old, new)))
    job.drop_rows_after(tmp_path, 3)
    assert done == [f".{runs.METRICS}.tmp", "replaced"]
