"""The benchmarks run, at toy length: what they print is for people and is not judged here."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from oracles import require

from analysis import laws

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


def test_fit_speed_prints_ratios(tmp_path):
    # fails when a benchmark rots
    rng = np.random.default_rng(0)
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e12, 5)))
    loss = laws.CHINCHILLA.loss({"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}, n, d)
    rows = [f"{a},{b},{c}" for a, b, c in zip(n, d, loss * np.exp(0.005 * rng.standard_normal(25)), strict=True)]
    (tmp_path / "runs.csv").write_text("\n".join(["N,D,loss", *rows]))
    said = run("fit_speed.py", "--csv", str(tmp_path / "runs.csv"), "--starts", "3")
    lines = {line.strip().split("  ")[0]: line for line in said.splitlines()}
    for name in ("ours, 1 start", "scipy L-BFGS-B, exact gradient, started at the fit"):
        assert re.search(r" [\d,.]+ x", lines[name])


@pytest.mark.slow
def test_eval_speed_prints_a_ratio_and_equal_choices():
    """Fails when the benchmark rots, or its three contenders choose differently."""
    require("lm_eval")
    said = run("eval_speed.py", "--size", "13K", "--context", "256", "--subjects", "1", "--items", "2")
    rows = {line[:16].strip(): line for line in said.splitlines()[-3:]}
    assert list(rows) == ["harness", "ours", "harness, engine"]
    assert all(re.search(r" [\d.]+ +2 of 2 ", line) for line in rows.values())
