"""The two-step law: published forecasts, coverage, refusals, run folders and tables."""

import dataclasses
import json
import math
import pathlib
import sys

import numpy as np
import pytest
import synthetic
from scipy.optimize import curve_fit

from analysis import downstream, load
from analysis.downstream import __main__ as command
from analysis.downstream import draw, sigmoid, steps, tables
from scaling import runs

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
import downstream_coverage as simulated

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "reference" / "olmo_ladder" / "olmo_ladder_mmlu.csv"


@pytest.fixture(scope="module")
def olmo():
    return {task.name: task for task in downstream.shipped()}


@pytest.fixture(scope="module")
def middle():
    return simulated.ladder(simulated.CURVES["middle"], np.random.default_rng(1))


def points(task, recipe=downstream.OLMO):
    """Forecast over measured accuracy, less 1, of both published targets, without the refits that only intervals need."""
    smaller, targets = tables.as_published(task)
    first = steps.fit(steps._step_one(smaller, recipe), delta=recipe.delta)
    loss, accuracy, owners = steps.checkpoints(smaller, recipe.window)
    curve = sigmoid.fit_sigmoid(loss, accuracy, [r.cluster for r in owners], task.chance, recipe.guess)
    at = [float(first.expected(r.n_params, r.tokens[-1])[0]) for r in targets]
    told = {r.id: float(curve.accuracy(np.array([v]))[0, 0]) for r, v in zip(targets, at, strict=True)}
    return first, curve, told, {r.id: told[r.id] / steps.ends(r, recipe.window)[1] - 1 for r in targets}


def test_published_mmlu_chain(olmo):
    """Fails when either step departs from the published fit, or the chained forecasts from .48381 and .51268."""
    first, curve, told, _ = points(olmo["MMLU"])
    assert first.params["E"] == pytest.approx(0.454093, abs=2e-3)
    assert (first.params["alpha"], first.params["beta"]) == pytest.approx((0.226216, 0.236076), abs=2e-3)
    p = curve.fit.params
    assert (p["top"] - p["floor"], p["top"], p["k"], p["x0"]) == pytest.approx((0.742064, 1.0, 4.833392, 0.615953), abs=1e-3)
    assert told == pytest.approx({"7B-4T": 0.48381, "13B-5T": 0.51268}, abs=5e-4)


def test_published_errors_of_every_task(olmo):
    """Fails when one of the sixteen published relative errors is missed by more than rounding."""
    for name, published in tables.PUBLISHED.items():
        found = points(olmo[name])[3]
        assert {k: 100 * v for k, v in found.items()} == pytest.approx(published, abs=0.11), name


def test_sigmoid_is_the_bounded_least_squares(olmo):
    """Fails when the batched Newton ends elsewhere than SciPy's bounded least squares, with the top free and at its bound."""
    for name in ("HellaSwag", "OpenBookQA"):  # a top of 0.992, and one held at 1
        smaller, _ = tables.as_published(olmo[name])
        loss, accuracy, owners = steps.checkpoints(smaller, 5)
        ours = sigmoid.fit_sigmoid(loss, accuracy, [r.cluster for r in owners], 0.25, guess=False).fit.params

        def curve(x, floor, top, k, x0):
            return top - (top - floor) / (1 + np.exp(-k * (x - x0)))

        bounds = ([0, 0, 0, 0], [1, 1, np.inf, np.inf])
        known = curve_fit(curve, [*loss, 0.0], [*accuracy, 1.0], p0=[0.25, 0.99, 3, 0.9], bounds=bounds, maxfev=10**5)[0]
        assert (ours["top"] < 1) == (name == "HellaSwag")
        assert list(ours.values()) == pytest.approx(list(known), rel=2e-3)


def test_derivatives_of_the_sigmoid():
    """Fails when the Jacobian or the contracted Hessian is not that of the accuracies."""
    rng = np.random.default_rng(0)
    for top, theta in ((None, np.array([[0.2, 0.3, 1.7, 0.9]])), (1.0, np.array([[0.3, -0.5, 0.8]]))):
        model, weight, slope = sigmoid.Sigmoid(rng.standard_normal(6), top), rng.random((1, 6)), rng.standard_normal((1, 6))
        at, h = model.derivatives(theta), 1e-5
        steps_ = h * np.eye(theta.shape[1])
        slopes = np.stack([(model.log_loss(theta + e) - model.log_loss(theta - e)) / (2 * h) for e in steps_], 1)
        np.testing.assert_allclose(at.jacobian, slopes, atol=1e-9)
        both = [(model.derivatives(theta + e).jacobian, model.derivatives(theta - e).jacobian) for e in steps_]
        bent = np.stack([(up - down) @ slope[0] / (2 * h) for up, down in both], 1)
        gram = (at.jacobian * weight[:, None]) @ at.jacobian.transpose(0, 2, 1)
        np.testing.assert_allclose(at.hessian(weight, slope), gram + bent, atol=1e-8)


@pytest.mark.skipif(not SHARED.exists(), reason=f"the published table is not at {SHARED}")
def test_shipped_numbers_are_the_published_ones(olmo):
    """Fails when a shipped checkpoint differs from the table that it was reduced from."""
    import csv

    rows = [r for r in csv.DictReader(SHARED.open()) if r["run"] == "760M-5xC"]
    weights = {"stem": 0.215, "humanities": 0.335, "social_sciences": 0.219, "other": 0.231}
    for name, prefix in (("MMLU", {f"mmlu_{g}": w for g, w in weights.items()}), ("PIQA", {"piqa_val": 1.0})):
        run = next(r for r in olmo[name].runs if r.id == "760M-5xC")
        for column, values in (("bpb", run.loss), ("acc", run.accuracy)):
            known = [sum(w * float(r[f"{p}_{column}"]) for p, w in prefix.items()) for r in rows]
            np.testing.assert_allclose(values, known, atol=6e-6)
        np.testing.assert_array_equal(run.tokens, [float(r["tokens"]) for r in rows])


def test_intervals_cover():
    """Fails when 90 % intervals hold the largest size's measured accuracy, or its task loss, much more rarely."""
    found = simulated.forecasts("middle", 12, 100)
    said = simulated.shares(found)
    assert said["identified"] == 1.0 and len(found) == 36
    assert said["accuracy inside"] >= 0.85 and said["loss inside"] >= 0.7  # three runs of one trunk hit or miss together
    assert said["width"] < 0.15


def test_item_noise_is_part_of_the_interval(middle):
    """Fails when a target that is asked few items has as narrow an interval as one that is asked many."""
    smaller, targets = downstream.leave_largest_out(middle)
    fitted = downstream.chain(smaller, draws=200)
    few = dataclasses.replace(fitted, task=dataclasses.replace(smaller, items=20.0))
    wide, narrow = (downstream.predict(c, targets[0]).accuracy_interval for c in (few, fitted))
    p = downstream.predict(fitted, targets[0]).accuracy
    assert wide[1] - wide[0] > 2.5 * math.sqrt(p * (1 - p) / 20) > 1.5 * (narrow[1] - narrow[0])


def test_what_cannot_be_told_is_not(middle):
    """Fails when a task at chance, too few sizes or tokens in step with parameters get a number."""
    smaller, targets = downstream.leave_largest_out(middle)
    flat = simulated.ladder(simulated.CURVES["flat"], np.random.default_rng(2))
    few = smaller.where(lambda r: r.n_params <= 8e4)
    in_step = [dataclasses.replace(r, tokens=r.tokens / r.tokens[-1] * 20 * r.n_params) for r in smaller.runs if r.ends]
    line = dataclasses.replace(smaller, runs=tuple(in_step))
    for task, why in ((downstream.leave_largest_out(flat)[0], "flat at chance"), (few, "sizes"), (line, "in step")):
        told = downstream.predict(downstream.chain(task, draws=100), targets[0])
        assert told.accuracy is None and told.accuracy_interval is None and not told.verdict.quote
        assert why in told.verdict.reasons[0], told.verdict.reasons


def test_left_out_means_left_out(middle):
    """Fails when a run of the largest size has a say in its own forecast, or an unfinished one is a target."""
    told = downstream.forecast([middle], draws=100)
    assert [f.n_params for f in told] == [6e5] * 3 and all(f.hit is not None for f in told)
    ruined = [r if r.n_params < 6e5 else dataclasses.replace(r, accuracy=0 * r.accuracy, loss=9 * r.loss) for r in middle.runs]
    again = downstream.forecast([dataclasses.replace(middle, runs=tuple(ruined))], draws=100)
    assert [(f.accuracy, f.accuracy_interval) for f in again] == [(f.accuracy, f.accuracy_interval) for f in told]
    bigger = dataclasses.replace(middle.runs[-1], n_params=1e7, ends=False)
    with_trunk = dataclasses.replace(middle, runs=(*middle.runs, bigger))
    assert [f.accuracy for f in downstream.forecast([with_trunk], draws=100)] == [f.accuracy for f in told]


def score(root):
    """evals.jsonl for every trained member, in the trainer's and scaling.evals' form: one task that rises, one at chance."""
    rng = np.random.default_rng(3)
    known = {row.id: row for row in load.runs(root).rows}
    for member in runs.members(root):
        row = known[member.id]
        for tokens in np.linspace(0.8 if row.annealed else 0.2, 1, 4) * row.n_tokens:
            nll = float((row.loss or 1.5) * (row.n_tokens / tokens) ** 0.2)
            for task, p in (("copy", float(simulated.accuracy(np.array(nll), (8.0, 1.5)))), ("maze", 0.25)):
                value = {"value": rng.binomial(500, p) / 500}
                runs.append_jsonl(member.path / tables.EVALS, {
                    "kind": "eval", "step": 1, "tokens": int(tokens), "suite": "laptop", "task": task, "split": "test",
                    "format": "cloze", "shots": 1, "n": 500, "chance": 0.25,
                    "metrics": {"acc": {"value": 0.0} if tokens < 0 else value, "nll_token": {"value": nll}},
                })  # fmt: skip
        last = list(runs.read_jsonl(member.path / tables.EVALS))[-2:]
        for old in last:  # scored again: the later row counts
            runs.append_jsonl(member.path / tables.EVALS, old)


def test_a_run_folder_from_end_to_end(tmp_path, capsys):
    """Fails when the command cannot read a ladder's evals.jsonl, forgets a file or a task, or ends otherwise than with 0."""
    root = synthetic.write_sweep(tmp_path / "ladder", curves=False)
    assert command.main(["--runs", str(root)]) != 0 and "scaling.evals" in capsys.readouterr().err
    score(root)
    assert command.main(["--runs", str(root), "--draws", "100"]) == 0
    said = capsys.readouterr().out
    assert "copy (cloze, 1-shot): chance 0.25, 500 items; 15 finished runs of 50K to 160K" in said
    assert "maze (cloze, 1-shot)" in said and "no forecast, step 2: flat at chance" in said
    written = json.loads((root / "downstream.json").read_text())
    by_run = {f["run"]: f for f in written["forecasts"] if f["task"].startswith("copy")}
    assert set(by_run) == {f"causal-195K-{r}x" for r in (10, 20, 40)}
    for f in by_run.values():
        assert abs(f["accuracy"] - f["measured_accuracy"]) < 0.08 and f["n_params"] == 195_000
    assert (root / "downstream.svg").exists() and (root / "downstream.png").stat().st_size > 20_000
    assert command.main(["--runs", str(root), "--task", "nothing"]) != 0
    assert "there are copy (cloze, 1-shot), maze" in capsys.readouterr().err


def test_an_unfinished_run_has_no_end(tmp_path):
    """Fails when a run that was scored half way, or a trunk, enters step 1; or prompts with fewer examples come first."""
    root = synthetic.write_sweep(tmp_path / "ladder", curves=False)
    score(root)
    path = root / "causal-50K-10x" / tables.EVALS
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    top = max(r["tokens"] for r in rows)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows if r["tokens"] < top))
    (copy, _) = downstream.of_runs(root, load.runs(root))
    assert sorted(r.id for r in copy.runs if not r.ends) == sorted(
        ["causal-50K-10x", *(f"causal-{n // 1000}K-trunk" for n in synthetic.SIZES)]
    )
    assert {len(r.tokens) for r in copy.runs} == {3, 4}  # a row that was written twice counts once
    runs.append_jsonl(path, rows[0] | {"shots": 5})
    assert [t.name for t in downstream.of_runs(root, load.runs(root))][:2] == ["copy (cloze, 5-shot)", copy.name]


HEADER = "task,run,n_params,tokens,loss,accuracy,n,chance\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("task,run,n_params,tokens,loss\na,b,1,1,1\n", "no column accuracy"),
        (HEADER, "no rows"),
        (HEADER + "a,r,1e6,1e7,2.0,0.3,500,0.25\na,r,1e6,2e7,1.9,31,500,0.25\n", "line 3, column accuracy: '31'"),
        ("# a note\n" + HEADER + "a,r,1e6,1e7,,0.3,500,0.25\n", "line 3, column loss: ''"),
        (HEADER + "a,r,1e6,1e7,2.0,0.3,,\na,r,2e6,2e7,1.9,0.3,,\n", "line 3: run r has 2e+06 parameters"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, capsys, text, named):
    """Fails when a table's fault is met by a traceback, or told without line, column and value."""
    (tmp_path / "mine.csv").write_text(text)
    assert command.main(["--csv", str(tmp_path / "mine.csv"), "--out", str(tmp_path)]) != 0
    said = capsys.readouterr().err
    assert named in said and "mine.csv" in said and "Traceback" not in said


def test_a_table_of_ones_own(tmp_path, capsys, middle):
    """Fails when a CSV without items and chance, and with FLOPs of its own, is read otherwise than as arrays."""
    lines = [
        f"mine,{r.id},{r.n_params},{t},{loss},{a},{r.cluster},{int(r.ends)},{7 * r.n_params * t}"
        for r in middle.runs
        for t, loss, a in zip(r.tokens, r.loss, r.accuracy, strict=True)
    ]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["task,run,n_params,tokens,loss,accuracy,cluster,annealed,flops", *lines]))
    (task,) = downstream.of_csv(path)
    assert math.isnan(task.items) and task.chance == 0 and [r.ends for r in task.runs] == [r.ends for r in middle.runs]
    assert task.runs[3].flops[-1] == pytest.approx(7 * task.runs[3].n_params * task.runs[3].tokens[-1])
    assert command.main(["--csv", str(path), "--out", str(tmp_path / "out"), "--draws", "100"]) == 0
    assert "NaN" not in (tmp_path / "out" / "downstream.json").read_text()


def test_figure_shows_what_was_forecast(middle):
    """Fails when a panel lacks the points, the curve or a target, or a task without a forecast takes a panel."""
    smaller, targets = downstream.leave_largest_out(middle)
    fitted = downstream.chain(smaller, draws=100)
    told = [downstream.predict(fitted, r) for r in targets]
    flat = dataclasses.replace(fitted, problem="step 2: flat at chance")
    one, two = draw.figure([(fitted, told), (flat, [])], "title").axes
    assert len(two.collections[0].get_offsets()) == len(fitted.loss)
    stars = [line for line in one.lines if line.get_marker() == "*"]
    assert [line.get_ydata()[0] for line in stars] == [f.measured_loss for f in told]
    assert sum(line.get_marker() == "D" for line in two.lines) == len(told)
