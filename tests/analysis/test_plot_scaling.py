"""The figure's files, its words, and what it must not touch."""

import json
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import synthetic

from analysis import figure, load, plot_scaling, predict, story
from analysis.estimate import Settings

ROOT = pathlib.Path(plot_scaling.__file__).parents[1]


def test_ladder_files(tmp_path, capsys):
    """Fails when a file is missing, or the numbers are not in the JSON and the words."""
    root = synthetic.write_sweep(tmp_path / "s", diverged=("causal-75K-40x",))
    plot_scaling.main(["--runs", str(root), "--draws", "150"])
    said = capsys.readouterr().out
    assert (root / "scaling.png").read_bytes()[:4] == b"\x89PNG"
    svg = (root / "scaling.svg").read_text()
    assert "Training curves" in svg and "left out (see caption)" in svg and "diverged" in svg
    content = json.loads((root / "scaling.json").read_text())
    assert content["law"]["params"]["E"] > 0 and content["law"]["n_rows"] == 17 and content["n_definition"] == "non_embedding"
    assert "1 diverged (loss is not finite at step 900)" in content["caption"] and "6 not annealed" in content["caption"]
    assert content["largest_rung"]["source"] == "computed afterwards"
    assert "at C = k N D" in said and "irreducible loss E:" in said and "N \\ tokens" in said


def test_recorded_predictions_are_shown(tmp_path):
    """Fails when the figure predicts anew although a prediction is on the record."""
    root = synthetic.write_sweep(tmp_path / "s", trained=synthetic.SIZES[:5], curves=False)
    (line, *_) = predict.record(load.runs(root), root, Settings(draws=150))
    plot_scaling.main(["--runs", str(root), "--draws", "150", "--out", str(tmp_path / "out")])
    rung = json.loads((tmp_path / "out" / "scaling.json").read_text())["largest_rung"]
    assert rung["source"] == "recorded"
    assert rung["members"][0]["predicted"] == line["loss"] and rung["members"][0]["measured"] is None


def test_frontier_is_below_every_size(tmp_path):
    """Fails when the frontier is computed under another cost than the points: some fixed size would then lie below it."""
    table = load.runs(synthetic.write_sweep(tmp_path / "s", curves=False, noise=1e-6))
    told = story.tell(table, [], [], Settings(draws=150))
    flops = np.geomspace(1e11, 1e13, 9)
    band = story.frontier(told, flops)
    law = told.boot.fit.law
    for n in table.sizes():
        per_token = next(r.flops / r.n_tokens for r in table.rows if r.n_params == n)
        assert (law.loss(told.boot.fit.params, n, flops / per_token) >= band["loss"] * (1 - 1e-6)).all()
    assert told.cost.g == pytest.approx(0.98, abs=1e-3)


def test_too_few_rows_still_draw(tmp_path, capsys):
    """Fails when a ladder in its first minutes gives an error instead of its points and the reason why there is no law."""
    root = synthetic.write_sweep(tmp_path / "s", trained=synthetic.SIZES[:1])
    plot_scaling.main(["--runs", str(root)])
    assert "no fit:" in capsys.readouterr().out and (root / "scaling.png").exists()
    content = json.loads((root / "scaling.json").read_text())
    assert content["law"] is None and "rows with 1 sizes" in content["no_fit"] and "--law compute_power" in content["no_fit"]


@pytest.mark.filterwarnings("error")
def test_one_row_is_drawn_without_a_warning(tmp_path):
    """Fails when the axes of a single run have no extent."""
    (tmp_path / "one.csv").write_text("N,D,loss\n1e6,1e7,3\n")
    plot_scaling.main(["--csv", str(tmp_path / "one.csv"), "--out", str(tmp_path)])


def test_csv_of_many_sizes(chinchilla, data, tmp_path, capsys):
    """Fails when a table without curves or clusters cannot be drawn, or its words lose the exact optimum."""
    words = f"--csv {data / 'chinchilla_epoch245.csv'} --map exclude=outlier --out {tmp_path} --draws 150"
    plot_scaling.main(words.split())
    content = json.loads((tmp_path / "scaling.json").read_text())
    assert content["chinchilla"]["objective"] == pytest.approx(0.0010182740178006, rel=1e-9)
    assert content["choice"]["chosen"] == content["law"]["form"] != "chinchilla"
    assert content["cost"]["g"] == 1.0 and content["cost"]["k"] == pytest.approx(6.0)
    assert "1.817 + 477.8 N^-0.3473" in capsys.readouterr().out


def test_refusals(tmp_path):
    """Fails when a wrong command line ends in a traceback or in another status than 2."""
    empty = synthetic.write_sweep(tmp_path / "s", trained=())
    (tmp_path / "bad.csv").write_text("N,D,loss\n1e6,1e7,x\n")
    (tmp_path / "good.csv").write_text("N,D,loss\n1e6,1e7,3\n")
    for arguments, word in (
        (["--runs", str(empty)], "nothing to draw"),
        (["--csv", str(tmp_path / "bad.csv")], "bad.csv:2"),
        (["--csv", str(tmp_path / "bad.csv"), "--map", "M=x"], "role"),
        (["--csv", str(tmp_path / "good.csv"), "--out", str(tmp_path / "bad.csv")], "bad.csv: File exists"),
        (["--csv", str(tmp_path / "good.csv"), "--out", "/dev/null/x"], "/dev/null/x: Not a directory"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "analysis.plot_scaling", *arguments], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 2 and word in done.stderr and "Traceback" not in done.stderr


def test_imports_stay_light():
    """Fails when importing the analysis pulls in matplotlib, scipy or jax: the launcher's children must start at once."""
    code = (
        "import sys; from analysis import load, fit, laws, predict, plot_scaling; "
        "print(*(m for m in ('matplotlib', 'scipy', 'jax') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""


def test_no_global_state(tmp_path):
    """Fails when drawing loads pyplot or leaves matplotlib's settings changed, or the same numbers give another file."""
    import matplotlib

    before = dict(matplotlib.rcParams)
    table = load.runs(synthetic.write_sweep(tmp_path / "s", trained=synthetic.SIZES[:1]))
    drawn = []
    for _ in range(2):
        figure.save(story.tell(table, [], [], Settings(draws=150)), tmp_path)
        drawn.append((tmp_path / "scaling.svg").read_text())
    assert dict(matplotlib.rcParams) == before
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("law", ["data", "compute", "compute_power"])
def test_what_is_offered_for_one_size_works(tmp_path, capsys, law):
    """Fails when a command that a refusal offers fails, warns, or speaks of a frontier that the law does not have."""
    d = np.geomspace(1e9, 3e10, 10)
    rows = "".join(f"1e8,{x:.6g},{2.3 + 700 * x**-0.31 + 0.002 * np.cos(i):.6f}\n" for i, x in enumerate(d))
    (tmp_path / "mine.csv").write_text("params,tokens,loss\n" + rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        command = ["--csv", str(tmp_path / "mine.csv"), "--law", law, "--out", str(tmp_path / "out"), "--draws", "100"]
        assert plot_scaling.main(command) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert found["law"]["form"] == law and f"L({'D' if law == 'data' else 'C'}) = " in capsys.readouterr().out
    assert all((v is None) == (law == "data") for v in found["frontier"]["loss"])
    assert ("dark band" in found["caption"]) == (law != "data") and "exponents and a" not in found["caption"]
