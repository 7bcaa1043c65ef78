"""`python -m analysis.plot_emergence`: on the shipped tables, on runs, on a CSV, and on what cannot be used."""

import dataclasses
import json
import math
import pathlib

import emergence_ladders as ladders
import numpy as np
import pytest
import scored
import synthetic

from analysis import cli, csv_table, plot_emergence
from analysis.emergence import csv_scores, draw_headline, incontext, judge, ladder
from analysis.emergence.draw import Judged, Page, label
from analysis.emergence.points import Shown
from analysis.load import DIVERGED, LoadError
from scaling import runs


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> pathlib.Path:
    """A sweep of 6 sizes and 3 budgets, one of them diverged, scored on four tasks."""
    root = tmp_path_factory.mktemp("sweep") / "ladder"
    synthetic.write_sweep(root, diverged=("causal-75K-40x",))
    return scored.score(root)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> pathlib.Path:
    """Two sizes, for what is read and refused."""
    root = tmp_path_factory.mktemp("small") / "ladder"
    synthetic.write_sweep(root, sizes=synthetic.SIZES[:2])
    return scored.score(root, tasks=("copy",), items=False)


def command(*argv: str) -> int:
    return cli.run(lambda: plot_emergence.main(list(argv)))


# ---- the command


@pytest.mark.slow
def test_without_arguments(tmp_path, capsys):
    """Fails when the shipped tables are not drawn, judged and told, or opposite verdicts on MMLU are not seen."""
    assert command("--out", str(tmp_path), "--draws", "100") == 0
    told = json.loads((tmp_path / "emergence.json").read_text())["tasks"]
    sharp = {key for key, task in told.items() if task["sharp"]}
    assert sharp == {"gpt3/2D+/50", "gpt3/3D+/50", "gpt3/3D-/50", "gpt3/4D+/50", "public/mmlu/5"}
    assert {task["verdict"] for key, task in told.items() if key.startswith("olmo")} == {"smooth"}
    assert "step" not in {task["selection"]["winner"] for task in told.values() if task["selection"]}
    assert 22 < told["public/mmlu/5"]["onset"]["log_flops"] < 23
    assert all(f["interval"][0] <= f["predicted"] <= f["interval"][1] for t in told.values() if (f := t["forecast"]))
    assert told["gpt3/3D-/50"]["onset"]["midpoint"] == pytest.approx(22.888, abs=0.01)
    for name in ("emergence.png", "emergence.svg", "emergence_shots.png"):
        assert (tmp_path / name).stat().st_size > 20_000
    words = capsys.readouterr().out
    assert "MMLU, cloze, OLMo (cloze, 5 shots, Bhagia et al. 2024 (OLMo ladder)): SMOOTH" in words
    assert "few-shot slope" in words
    assert words.startswith("sharp: model or metric? (jumps, and nothing continuous was measured")


def test_on_runs(scores, tmp_path, capsys):
    """Fails when the four behaviours of a ladder are not told apart, or a figure of what was scored is missing."""
    assert command("--runs", str(scores), "--out", str(tmp_path), "--draws", "100") == 0
    content = (tmp_path / "emergence.json").read_text()
    assert "NaN" not in content and "Infinity" not in content
    told = json.loads(content)
    verdicts = {name: task["verdict"] for name, task in told["tasks"].items()}
    assert verdicts["copy/cloze/5"] == "sharp-in-loss"
    assert verdicts["facts/generate/5"] == "sharp-metric-only"
    assert verdicts["sort/cloze/5"] == "smooth"
    assert verdicts["parity/cloze/5"] == verdicts["copy/letter/5"] == "absent"
    left = {p["why"] for p in told["tasks"]["copy/cloze/5"]["not_judged"]}
    assert left == {"diverged", "within training"}
    assert "N = 195K" in (tmp_path / "emergence.svg").read_text(), "sizes by the names of their runs"
    for name in ("", "_loss", "_shots", "_cot", "_letter"):
        assert (tmp_path / f"emergence{name}.png").exists() and (tmp_path / f"emergence{name}.svg").exists()
    sort = {(c["size"], c["format"]): c for c in told["shots"] if c["task"] == "sort"}
    assert sort["195K", "cloze"]["paired"] and not sort["195K", "generate"]["paired"]
    assert sort["195K", "cloze"]["slope"][1] > 0.05 and sort["195K", "cloze"]["shots"] == [0, 5]
    grown = {(g["task"], g["format"]): g for g in told["sizes"]}
    assert grown["sort", "cloze"]["paired"] and not grown["sort", "generate"]["paired"]
    assert len(grown["sort", "cloze"]["gains"]) == 5 and grown["sort", "cloze"]["whole"][1] > 0.1
    assert sum(g[0] for g in grown["sort", "cloze"]["gains"]) == pytest.approx(grown["sort", "cloze"]["whole"][0])
    gains = {t["size"]: t["gain"][0] for t in told["chain_of_thought"]}
    assert gains["195K"] > gains["50K"] > 0
    words = capsys.readouterr().out
    assert words.startswith("sharp-in-loss (jumps, and so does") and "SHARP-IN-LOSS" in words


def test_named_tasks_get_rows_of_detail(tmp_path, capsys):
    """Fails when --tasks does not choose, or the row of a task without companions and loss cannot be drawn."""
    assert command("--tasks", "gpt3/RI/100", "--out", str(tmp_path), "--draws", "100") == 0
    assert list(json.loads((tmp_path / "emergence.json").read_text())["tasks"]) == ["gpt3/RI/100"]
    assert not (tmp_path / "emergence_shots.png").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--tasks", "hellaswog"), 'Did you mean "HellaSwag"'),
        (("--format", "essay"), "--format essay: there are cloze, generate, letter"),
        (("--shots", "7"), "--shots 7: there are 0, 1, 100, 5, 50"),
        (("--map", "score=acc"), "names columns of a --csv"),
        (("--runs", "nowhere"), "nowhere: no such folder"),
        (("--csv", "nothing.csv"), "nothing.csv: no such file"),
        (("--level", "2"), "must lie between 0 and 1"),
    ],
)
def test_refusals(argv, words, capsys, tmp_path, monkeypatch):
    """Fails when a mistake of the command line is not told in one message with status 2, before anything is written."""
    monkeypatch.chdir(tmp_path)
    assert command(*argv) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


# ---- runs


def test_runs_without_scores_name_the_command(tmp_path, capsys):
    """Fails when a trained sweep that was never scored ends in anything but the command that scores it."""
    synthetic.write_sweep(tmp_path / "ladder", sizes=synthetic.SIZES[:1])
    assert command("--runs", str(tmp_path / "ladder")) == 2
    assert f"python -m scaling.evals --run {tmp_path / 'ladder'}" in capsys.readouterr().err


def test_unknown_tasks_and_shots_of_runs(small):
    """Fails when what was not scored is not named beside what was."""
    found = ladder.read(small)
    with pytest.raises(LoadError, match=r'--tasks cpoy: was not scored; there are copy\. Did you mean "copy"'):
        ladder.only(found, ["cpoy"], [], None)
    with pytest.raises(LoadError, match="--shots 3: was not scored; there are 0, 5"):
        ladder.only(found, [], [], 3)


def test_losses_are_those_of_the_step(small):
    """Fails when a checkpoint gets the loss of another step, or an end not that of done.json."""
    by_run = {(a.run.id, a.row["step"]): a for a in ladder.read(small)}
    done = runs.read_json(small / "causal-50K-40x" / runs.DONE)
    assert by_run["causal-50K-40x", done["steps"]].loss == done["val_loss"]
    trunk = [a for (run, _), a in by_run.items() if run == "causal-50K-trunk"]
    assert all(not a.final and 1 < a.loss < 5.6 for a in trunk) and trunk[0].loss > trunk[-1].loss


def test_later_rows_replace_earlier_ones_and_groups_stand_for_many_tasks(small):
    """Fails when a score that was written again counts twice, or an average over tasks is taken for a task."""
    one = runs.members(small)[1]
    row = next(r for r in runs.read_jsonl(one.path / "evals.jsonl") if r["format"] == "cloze" and r["shots"] == 5)
    before = (one.path / "evals.jsonl").read_text()
    again = row | {"metrics": row["metrics"] | {"acc": {"value": 0.875}}}
    group = row | {"kind": "eval_group", "task": "STEM", "average": "micro"}
    try:
        lines = [json.dumps(r) + "\n" for r in (again, group, group | {"average": "macro"})]
        (one.path / "evals.jsonl").write_text(before + "".join(lines))
        mine = [a for a in ladder.read(small) if a.run.id == one.id and a.key[1:] == ("cloze", 5)]
        groups = ladder.read(small, most=0)
    finally:
        (one.path / "evals.jsonl").write_text(before)
    assert [(a.row["task"], a.score) for a in mine] == [("copy", 0.875)]
    assert [(a.row["task"], a.row["average"]) for a in groups] == [("STEM", "micro")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": "many"}, "score 1: 'n' is 'many'"),
        ({"format": "essay"}, "format 'essay' is none of"),
        ({"metrics": {"acc": {"value": 44.6}}}, "'acc' is 44.6, not within 0 and 1"),
        ({"metrics": {}}, "'acc' is nan"),
    ],
)
def test_malformed_scores(small, change, words):
    """Fails when a row that cannot be used is not told with its file, place, value and remedy."""
    one = runs.members(small)[0]
    before = (one.path / "evals.jsonl").read_text()
    row = next(r for r in runs.read_jsonl(one.path / "evals.jsonl") if r["format"] == "cloze")
    try:
        (one.path / "evals.jsonl").write_text(json.dumps(row | change) + "\n")
        with pytest.raises(LoadError) as refusal:
            ladder.read(small)
    finally:
        (one.path / "evals.jsonl").write_text(before)
    assert words in str(refusal.value) and f"{one.path / 'evals.jsonl'}: score 1" in str(refusal.value)
    assert "python -m scaling.evals --run" in str(refusal.value)


def test_what_is_judged(small):
    """Fails when checkpoints of trunks are judged unasked, or not as one cluster when asked for."""
    found = ladder.only(ladder.read(small), [], ["cloze"], 5)
    ends, every = (ladder.shown(found, checkpoints)[0][0] for checkpoints in (False, True))
    assert len(ends.ability.flops) == 6 and len(ends.rest) == 4
    assert len(every.ability.flops) == 10 and not every.rest
    assert set(every.ability.clusters) == {"causal-50K-trunk", "causal-75K-trunk"}
    assert (np.diff(every.ability.flops) >= 0).all() and every.ability.companions["nll"].shape == (10,)
    two = [a for a in found if a.final][:2]
    with pytest.raises(LoadError, match="2 models were scored, a shape needs 3"):
        ladder.shown(two)
    rest = [dataclasses.replace(a, row=a.row | {"task": "rare"}) for a in two]
    some, notes = ladder.shown([*found, *rest])
    assert [s.task for s in some] == ["copy"] and notes == [
        "left out, rare by cloze: 2 models were scored, a shape needs 3 or more"
    ]


def test_rungs(scores):
    """Fails when the in-context curves of a size are not those of its longest run that did not diverge."""
    rungs = {a.run.size: a.run.id for a in ladder.ends(ladder.read(scores))}
    assert rungs["50K"] == "causal-50K-40x" and rungs["75K"] == "causal-75K-20x" and len(rungs) == 6
    assert any(a.run.state == DIVERGED for a in ladder.read(scores))


def test_one_example_of_each_kind_leads_the_page():
    """Fails when the row of examples lacks a kind, takes one task for two, or a steep rise for a gradual one."""
    rng = np.random.default_rng(0)
    made = [
        ladders.flat(rng),
        ladders.smooth(rng),
        ladders.power(rng),
        ladders.step(rng),
        ladders.step(rng),
        ladders.smooth(rng),
    ]
    found = judge.judge_all(made, draws=20, brief=True)
    judged = [Judged(Shown(str(i), str(i), "cloze", 5, v.ability), v, None) for i, v in enumerate(found)]
    row = draw_headline.examples(judged)
    assert [label(j) for j in row] == list(draw_headline.KINDS) and len({j.shown.task for j in row}) == 4
    gradual = sorted((j for j in judged if label(j) == "smooth"), key=lambda j: j.verdict.selection.middle)
    assert row[2] is gradual[-1]
    shown = dataclasses.replace(gradual[-1].shown, task=row[0].shown.task)  # another format of the task that jumps
    same = [dataclasses.replace(j, shown=shown) if j is gradual[-1] else j for j in judged]
    assert draw_headline.examples(same)[2] is gradual[0]
    assert draw_headline.page(judged[:2], Page.of(judged, 0.9, "")) is None


# ---- intervals


def test_wilson():
    """Fails when the interval is not Wilson's: 25 of 100, none of 100, one of 2,000, at 95 %."""
    assert incontext.wilson(0.25, 100, 0.95)[1:] == pytest.approx((0.17545, 0.34304), abs=1e-5)
    assert incontext.wilson(0.0, 100, 0.95)[1:] == pytest.approx((0.0, 0.036993), abs=1e-6)
    assert incontext.wilson(1 / 2000, 2000, 0.95)[1:] == pytest.approx((8.83e-5, 0.0028269), rel=1e-3)


def test_paired_differences_are_mcnemars():
    """Fails when items are not paired: 15 gained and 5 lost of 200 have a standard error of .0220794, unpaired .0458."""
    first = {str(i): float(i < 60) for i in range(200)}
    second = {str(i): float(5 <= i < 75) for i in range(200)}
    weights = np.array([-1.0, 1.0])
    both = [incontext.Condition(0.3, 200, first), incontext.Condition(0.35, 200, second)]
    (value, low, high), paired = incontext.contrast(both, weights, 0.95)
    assert paired and value == pytest.approx(0.05) and (high - low) / 2 / 1.959964 == pytest.approx(0.0220794, abs=1e-6)
    alone = [incontext.Condition(0.3, 200), incontext.Condition(0.3, 200)]
    (_, low, high), paired = incontext.contrast(alone, weights, 0.95)
    assert not paired and (high - low) / 2 / 1.959964 == pytest.approx(0.0458, abs=2e-4)


def test_slope_is_per_doubling():
    """Fails when the few-shot slope is not that over log2(1 + shots)."""
    at = {k: incontext.Condition(0.2 + 0.1 * math.log2(1 + k), 500) for k in (0, 1, 3, 7)}
    curve = incontext._curve("t", "cloze", "1M", 1e6, 0.25, at, 0.9)
    assert curve.slope[0] == pytest.approx(0.1) and curve.gain[0] == pytest.approx(0.3)


def test_right_items(tmp_path):
    """Fails when an item's answer is not read from the column 'right', the choices or greedy decoding, by format."""
    from pyarrow import Table, parquet

    rows = [
        {"task": "t", "item": "a", "gold": 1, "loglikelihoods": [-2.0, -1.0], "greedy": [True, False], "right": False},
        {"task": "t", "item": "b", "gold": 0, "loglikelihoods": [-2.0, -1.0], "greedy": [True, False], "right": None},
        {"task": "u", "item": "a", "gold": 0, "loglikelihoods": [-1.0], "greedy": [True], "right": True},
    ]
    parquet.write_table(Table.from_pylist(rows), tmp_path / "told.parquet")
    parquet.write_table(Table.from_pylist(rows).drop_columns("right"), tmp_path / "old.parquet")

    def rights(file: str, form: str):
        row = {"items_file": f"{file}.parquet", "format": form, "task": "t"}
        return incontext.right_items(ladder.Asked(None, tmp_path, True, math.nan, row))

    assert rights("told", "cot") == rights("told", "cloze") == {"a": 0.0}
    assert rights("old", "cloze") == {"a": 1.0, "b": 0.0} and rights("old", "cot") is None
    assert rights("told", "greedy") == rights("old", "greedy") == {"a": 0.0, "b": 1.0}


# ---- anybody's table


def table(path: pathlib.Path, *lines: str) -> pathlib.Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_csv(tmp_path):
    """Fails when a table in percent with its own names is not read through --map, or what was assumed is not noted."""
    rows = [f"hop,{20 + 10 * i},{10.0 ** (18 + i)},{0.9 / (i + 1)}" for i in range(5)]
    path = table(tmp_path / "mine.csv", "bench,percent,compute,nll", *rows)
    shown, notes = csv_scores.read(path, csv_table.parse_mapping("task=bench,score=percent*0.01", csv_scores.ROLES))
    assert [s.key for s in shown] == ["hop"]
    assert shown[0].ability.score == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6]) and not shown[0].ability.counted
    assert shown[0].ability.companions["nll"][0] == 0.9 and len(notes) == 2


@pytest.mark.parametrize(
    ("lines", "mapping", "words"),
    [
        (("task,score,flops", "a,44.6,1e18"), "", "for percent say --map score=score*0.01"),
        (("task,score,flops", "a,0.4,-1"), "", "must be a positive number of FLOPs"),
        (("task,score,flops,n", "a,0.4,1e18,0"), "", "must be a count of items"),
        (("task,score,flops", "a,much,1e18"), "", "column 'score' is 'much': must be a number"),
        (("task,result,flops", "a,0.4,1e18"), "", "which column holds the score?"),
        (("task,score,flops", "a,0.4,1e18"), "C=flop", 'Did you mean "flops"'),
        (("task,score,flops", "a,0.4,1e18", "a,0.5,1e19"), "", "no task has three models"),
        (("task,score,flops",), "", "holds no rows"),
    ],
)
def test_bad_csv(tmp_path, lines, mapping, words):
    """Fails when a table that cannot be used is not told with its place, value and remedy."""
    with pytest.raises(LoadError) as refusal:
        csv_scores.read(table(tmp_path / "t.csv", *lines), csv_table.parse_mapping(mapping, csv_scores.ROLES))
    assert words in str(refusal.value)


def test_unknown_role():
    """Fails when a misspelt role of --map is taken."""
    with pytest.raises(LoadError, match='Did you mean "score"'):
        csv_table.parse_mapping("scor=acc", csv_scores.ROLES)
