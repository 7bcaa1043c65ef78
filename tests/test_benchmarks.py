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
    said = run("step_speed.py", "--sizes", "100K", "--rounds", "1", "--seconds", "0.1", "--contenders", "ours-gpt2", "nanoGPT")
    ours, peer = (line.split() for line in said.splitlines()[-2:])
    assert ours[0] == "ours-gpt2" and peer[0] == "nanoGPT" and peer[3] == "1.00"
    assert all(re.fullmatch(r"[\d,.]+%?", cell) for cell in ours[1:])


@pytest.mark.slow
def test_parity_prints_a_difference_both_ways_and_of_mistakes():
    # fails when a benchmark rots
    require("torch"), require("transformers")
    whole, mistakes = run("parity.py", "--cases", "GPT-2").split("\n\n")
    assert re.fullmatch(r"\| GPT-2 \| [\d.]+( \| \d\.\de-\d\d){2} \|", whole.splitlines()[-1])
    assert len(mistakes.splitlines()) > 3


@pytest.mark.slow
def test_layout_prints_both_layouts():
    # fails when a benchmark rots
    said = run("layout.py", "--sizes", "13K", "--rounds", "1", "--seconds", "0.1")
    assert re.fullmatch(r" +13K( +[\d,]+ \([\d,]+-[\d,]+\)){2} +[\d.]+", said.splitlines()[-1])


@pytest.mark.slow
def test_overheads_prints_its_four_measures(text_store):
    # fails when a benchmark rots
    said = run("overheads.py", "--sizes", "13K", "--store", str(text_store.path))
    for what in ("with a cold cache", "with a warm cache", "peak memory", "of CPU", "stops the loop"):
        assert what in said
