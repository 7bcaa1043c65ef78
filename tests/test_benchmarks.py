"""The benchmarks run, at toy length: what they print is for people and is not judged here."""

import pathlib
import re
import subprocess
import sys

import pytest
from oracles import require

REPO = pathlib.Path(__file__).parents[1]


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(REPO / "benchmarks" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_step_speed_prints_a_ratio():
    # fails when a benchmark rots: an import, a signature or a field that it uses has changed
    require("torch")
    require("transformers")
    said = run("step_speed.py", "--sizes", "100K", "--rounds", "1", "--seconds", "0.1")
    row = said.splitlines()[-1].split()
    assert row[0] == "100K" and all(re.fullmatch(r"[\d,.]+%?", cell) for cell in row[1:])


@pytest.mark.slow
def test_overheads_prints_its_four_measures(text_store):
    # fails when a benchmark rots
    said = run("overheads.py", "--sizes", "13K", "--store", str(text_store.path))
    for what in ("with a cold cache", "with a warm cache", "peak memory", "of CPU", "stops the loop"):
        assert what in said
