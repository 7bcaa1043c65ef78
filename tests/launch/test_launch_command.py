"""The command line: what it refuses, in which words, and that it is quick."""

import json
import pathlib
import shlex
import subprocess
import sys

import pytest
from launching import REPO, SWEEP

from scaling.config import ConfigError
from scaling.launch.__main__ import parse
from scaling.launch.folder import LaunchError


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scaling.launch", *arguments], cwd=REPO, capture_output=True, text=True, timeout=60
    )


def refused(*arguments: str) -> str:
    """What is printed; fails unless it is one message with exit status 2."""
    done = command(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stderr.startswith("error: ")
    return done.stderr


def test_no_jax_is_imported() -> None:
    """Fails when the launcher takes an accelerator from its members, or starts slowly."""
    code = "import scaling.launch.__main__, sys; print([m for m in ('jax', 'flax', 'grain', 'orbax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True).stdout.strip() == "[]"


def test_plan_shows_all_that_is_decided_and_writes_nothing(tmp_path: pathlib.Path) -> None:
    """Fails when the plan needs a store, writes anything, or leaves a part out."""
    done = command("plan", "--sweep", SWEEP, "--out", str(tmp_path / "runs"), "--config.data.store=tokens/apidocs-none")
    assert done.returncode == 0, done.stderr
    words = (
        "causal-trunk",
        "FLOPs",
        "lr",
        "disk",
        "saved",
        "size rule",
        "warm-up",
        "time:",
        "prediction: none",
        "nothing waits",
        "watchdog: a member that trains no step for 10 minutes",
        "--hang-minutes",
    )
    assert [w for w in words if w not in done.stdout] == []
    assert list(tmp_path.iterdir()) == []


def test_plan_prices_the_devices_that_a_batch_can_use(tmp_path: pathlib.Path) -> None:
    """Fails when devices beyond the batch are counted as working, or a plan for devices speaks of this machine's cores."""
    words = f"plan --sweep {SWEEP} --out {tmp_path} --config.data.store=tokens/apidocs-none --device H100 --mfu 1e-9".split()
    few, many = command(*words, "--devices", "4"), command(*words, "--devices", "256")
    assert few.returncode == many.returncode == 0, few.stderr + many.stderr
    assert "note: batch of 4 windows splits over at most 4 of 256 devices (causal-trunk and 2 more)" in many.stdout
    assert "splits over" not in few.stdout and "cores" not in few.stdout + many.stdout

    def price(printed: str) -> tuple[str, str]:
        line = printed.partition("time: ")[2].partition("\n")[0]
        return line.partition(" one member")[0], line.partition("MFU: ")[2]

    assert price(few.stdout) == price(many.stdout) and "device-hours" in price(few.stdout)[1]


def test_missing_sweep_and_store() -> None:
    """Fails when the remedy is not told."""
    assert "nosuch.py" in refused("--sweep", "nosuch.py")
    text = refused("--sweep", SWEEP, "--config.data.store=/nowhere/store")
    assert "/nowhere/store" in text and "scaling.corpus" in text


def test_all_problems_come_at_once(tmp_path: pathlib.Path) -> None:
    """Fails when the user mends one problem only to meet the next."""
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "runs")
    slips = ("--slots", "999", "--hang-minutes", "0.01")
    text = refused("--sweep", SWEEP, "--config.optim.lr=-1", "--config.evals=0", "--out", out, *slips)
    assert all(w in text for w in ("optim.lr=-1", "evals=0", out, "--slots 999", "--hang-minutes 0.01: must be at least 0.2"))
    text = refused("--sweep", SWEEP, "--config.model.widht=3")
    assert 'Did you mean "model.width"?' in text


def test_budget_beyond_the_stream(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    """Fails when repeats begin in silence, or something is written first."""
    out = tmp_path / "runs"
    text = refused("--sweep", SWEEP, "--out", str(out), f"--config.data.store={store}", "--config.data.epochs=0.01")
    assert "data.epochs" in text and "causal-trunk" in text and "its trunk" not in text
    assert not list(out.glob("*/*/spec.json"))


def test_folder_of_another_sweep(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    """Fails when two sweeps of one name mix in one folder."""
    folder = tmp_path / "seconds"
    folder.mkdir()
    old = {"schema": 1, "config_file": "other/seconds.py", "data_fingerprint": "x", "members": [{"id": "mine"}]}
    (folder / "sweep.json").write_text(json.dumps(old))
    text = refused("--sweep", SWEEP, "--out", str(tmp_path), f"--config.data.store={store}")
    assert "another sweep" in text and "other/seconds.py" in text and "--out" in text
    (folder / "sweep.json").write_text("{")
    assert "sweep.json" in refused("--sweep", SWEEP, "--out", str(tmp_path), f"--config.data.store={store}")


def test_file_in_the_place_of_the_sweep(tmp_path: pathlib.Path, store: pathlib.Path) -> None:
    """Fails when the sweep's own folder is not looked at, or an error of the system ends in a traceback."""
    (tmp_path / "seconds").write_text("mine")
    text = refused("--sweep", SWEEP, "--out", str(tmp_path), f"--config.data.store={store}")
    assert f"{tmp_path / 'seconds'}: cannot be written (File exists)" in text and "--out" in text
    (tmp_path / "folder" / ".launch.lock").mkdir(parents=True)
    (tmp_path / "folder" / "sweep.json").write_text(json.dumps({"schema": 1, "name": "x", "members": []}))
    assert ".launch.lock: Is a directory" in refused("status", "--runs", str(tmp_path / "folder"))


def test_status_without_a_sweep(tmp_path: pathlib.Path) -> None:
    """Fails when an empty folder gives a traceback."""
    assert "no sweep was launched here" in refused("status", "--runs", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "told"),
    [(["pln", "--sweep", "x"], 'Did you mean "plan"?'), (["--swep", "x"], 'Did you mean "--sweep"?'), ([], "--sweep"),
     (["--sweep", "x", "--retries", "two"], "--retries")],
)  # fmt: skip
def test_slips_of_the_command_line(words: list[str], told: str) -> None:
    """Fails when a slip is taken for something else."""
    with pytest.raises((LaunchError, ConfigError)) as error:
        parse(words)
    assert told in str(error.value)


def test_parsing() -> None:
    """Fails when run is not the default verb, or overrides lose their type."""
    verb, request, folder = parse(["--sweep", "ladder.py:quick", "--config.model.depth=6", "--config.budget=20 tokens/param"])
    assert (verb, folder) == ("run", None)
    assert request.overrides == {"model.depth": 6, "budget": "20 tokens/param"}
    more = ["--slots", "1", "--use", "gpu:1", "--retries", "5", "--hang-minutes", "0.5"]
    for given in (request, parse(["--sweep", "ladder.py", *more])[1]):
        _, again, _ = parse(shlex.split(given.command("run"))[3:])
        assert again == given
