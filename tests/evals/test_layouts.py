"""Benchmarks in their published layouts, and what is wrong with a file, told before anything is scored."""

import collections
import csv
import importlib.util
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.evals import groups, layouts, prompts, suites
from scaling.evals.items import DEV, TEST, VAL, TaskError

QUESTION = {"question": " What?\n", "choices": ["None", " NA", "b", "b"], "answer": 2}


def write_tree(folder, subjects=("anatomy", "virology"), splits=("dev", "test"), header=False):
    """MMLU's tree with one row a file."""
    for split in splits:
        (folder / split).mkdir(parents=True, exist_ok=True)
        for subject in subjects:
            with open(folder / split / f"{subject}_{split}.csv", "w", newline="", encoding="utf-8") as f:
                rows = csv.writer(f)
                if header:
                    rows.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
                rows.writerow([QUESTION["question"], *QUESTION["choices"], 2 if header else "C"])
    return folder


def items_of(suite):
    return {(t.name, s): [(i.question, i.choices, i.answer) for i in v] for t in suite.tasks for s, v in t.splits.items()}


WANTED = (" What?\n", ("None", " NA", "b", "b"), 2)
ONLY = ("anatomy", "virology")


def test_real_mmlu_is_whole_and_its_traps_are_counted(mmlu):
    """Fails when an item is lost, or "None" becomes missing, blanks are stripped or equal choices merged."""
    sizes = collections.Counter()
    for task in mmlu.tasks:
        sizes.update({s: len(v) for s, v in task.splits.items()})
    assert len(mmlu.tasks) == 57 and sizes == {DEV: 285, TEST: 14042}
    none = {(t.name, int(i.id.split("/")[1])) for t in mmlu.tasks for i in t.splits[TEST] if "None" in i.choices}
    assert none == {
        ("college_computer_science", 10), ("college_computer_science", 94), ("college_mathematics", 8),
        ("college_mathematics", 21), ("college_mathematics", 60), ("college_physics", 60), ("electrical_engineering", 41),
        ("electrical_engineering", 68), ("electrical_engineering", 107), ("electrical_engineering", 117),
    }  # fmt: skip
    for words in (
        "test: 10 choices are text that pandas takes for missing",
        "test: 9 items offer one choice twice",
        "test: 963 questions have blanks",
        "dev: 16 questions have blanks",
        "test: 133 choices have blanks",
    ):
        assert any(n.startswith(words) for n in mmlu.notes), words


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("below", ["", "data"])
def test_csv_trees(tmp_path, header, below):
    """Fails when the headerless tree, or that with a header, is read otherwise than the other; or auxiliary_train is taken."""
    write_tree(tmp_path / below, splits=("dev", "val", "test"), header=header)
    (tmp_path / below / "auxiliary_train").mkdir()
    (tmp_path / below / "auxiliary_train" / "race.csv").write_text("not,like,the,others\n")
    suite = layouts.load_folder(tmp_path, only=ONLY)
    assert items_of(suite) == {(t, s): [WANTED] for t in ONLY for s in (DEV, VAL, TEST)}
    assert [t.group for t in suite.tasks] == [groups.STEM, groups.OTHER]
    assert [t.group for t in layouts.load_folder(tmp_path, only=ONLY, groups="hendrycks").tasks] == [groups.OTHER] * 2
    assert suite.tasks[0].formats[0] == "letter" and suite.tasks[0].chance == 0.25


@pytest.mark.parametrize("together", [False, True])
def test_parquet_as_on_the_hub(tmp_path, together):
    """Fails when a folder per subject and ``all`` with its subject column give different items, or both are counted."""
    names = ("one", "two")  # none of the 57, so that nothing is missing
    columns = {k: [v] * 2 for k, v in QUESTION.items()} | {"subject": list(names)}
    for split in ("dev", "test", "validation"):
        table = pa.table(columns)
        (tmp_path / "all").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "all" / f"{split}-00000-of-00001.parquet")
        for i, subject in enumerate(() if together else names):
            (tmp_path / subject).mkdir(exist_ok=True)
            pq.write_table(table.slice(i, 1), tmp_path / subject / f"{split}-00000-of-00001.parquet")
    suite = layouts.load_folder(tmp_path)
    assert items_of(suite) == {(t, s): [WANTED] for t in names for s in (DEV, VAL, TEST)}
    assert [t.name for t in layouts.load_folder(tmp_path, only=("two",)).tasks] == ["two"]


def test_a_dataset_by_name_is_read_like_its_files(tmp_path, monkeypatch):
    """Fails when ``datasets`` gives other items than the folder that it reads, or a missing package or name is not told."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / ".hf"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    rows = [QUESTION | {"subject": s} for s in ONLY]
    for split in ("test", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}-00000-of-00001.parquet")
    suite = suites.find(f"hf:{tmp_path}", only=ONLY)
    assert items_of(suite) == {(t, s): [WANTED] for t in ONLY for s in (VAL, TEST)}
    with pytest.raises(TaskError, match=r"hf:.*nowhere: cannot be loaded \(.*check the name, its config, the network"):
        suites.find(f"hf:{tmp_path / 'nowhere'}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"hf:cais/mmlu: needs the package datasets, which is not installed: pip install"):
        suites.find("hf:cais/mmlu")


ROWS = {
    "query": ({"query": "q", "choices": ["x", "y"], "gold": 1}, ("q", ("x", "y"), 1, "", ())),
    "schema": ({"context_options": ["x", "y"], "continuation": "z", "gold": 0}, ("", (), 0, "z", ("x", "y"))),
    "lambada": ({"context": "c", "continuation": "z"}, ("c", (), 0, "z", ())),
    "endings": ({"ctx": "c", "endings": ["x", "y", "z"], "label": "2"}, ("c", ("x", "y", "z"), 2, "", ())),
    "hellaswag": (
        {"ctx": "-", "ctx_a": "He", "ctx_b": "she", "activity_label": "Run", "endings": ["a [title] b", "[x]y"], "label": 0},
        ("Run: He She", ("a. b", "y"), 0, "", ()),
    ),
    "arc": (
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        ("q", ("x", "y"), 1, "", ()),
    ),
    "piqa": ({"goal": "q", "sol1": "x", "sol2": "y", "label": 1}, ("q", ("x", "y"), 1, "", ())),
    "winogrande": (
        {"sentence": "A or B: _ won.", "option1": "A", "option2": "B", "answer": "2"},
        ("", (), 1, "won.", ("A or B: A", "A or B: B")),
    ),
    "gsm8k": ({"question": "q", "answer": "1+1=2\nso 2\n#### 2"}, ("q", (), 0, "2", ())),
    "svamp": ({"context": "q", "chain_of_thought": "( 1 + 1 )", "answer": "2"}, ("q", (), 0, "2", ())),
    "bbh": ({"input": "q", "target": "(A)"}, ("q", (), 0, "(A)", ())),
}


@pytest.mark.parametrize("name", ROWS)
def test_kinds_of_rows(tmp_path, name):
    """Fails when a published kind of row is taken for another, or its answer for another choice."""
    row, wanted = ROWS[name]
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n\n" + json.dumps(row) + "\n")
    (task,) = layouts.load_folder(tmp_path / f"{name}.jsonl").tasks
    item = task.splits[TEST][1]
    assert (item.question, item.choices, item.answer, item.target, item.contexts) == wanted
    assert task.name == name and item.id == "test/1"
    for format in task.formats:  # every format that a task claims can be asked, with a shot from the rest of the file
        assert prompts.request(task, item, format, 1).shots == 1


def test_real_files_of_every_kind(evals_data):
    """Fails when one of the shared benchmarks cannot be read, or is asked with a wrong delimiter or a wrong chance."""
    found = {t.name: t for f in ("arc", "lambada", "core_small") for t in layouts.load_folder(evals_data / f).tasks}
    sizes = {n: len(found[n].splits[TEST]) for n in ("arc_easy", "arc_challenge", "lambada_openai", "piqa", "winogrande")}
    assert sizes == {"arc_easy": 2376, "arc_challenge": 1172, "lambada_openai": 5153, "piqa": 1838, "winogrande": 1267}
    assert found["piqa"].chance == found["winogrande"].chance == 0.5 and found["lambada_openai"].chance == 0
    last = {n: prompts.request(t, t.splits[TEST][0], t.formats[0], 0).options[0] for n, t in found.items()}
    assert last["arc_easy"][0].endswith("food webs?\nAnswer:") and last["arc_easy"][1].startswith(" Sunlight")
    assert last["piqa"][0].endswith("occupants?\nAnswer:")
    assert last["simple_arithmetic_withspaces"] == ("25 - 759 =", " -734")  # its answers bring their blank
    assert last["simple_arithmetic_nospaces"] == ("25-759=", " -734")
    assert last["bigbench_logical_deduction"][0].endswith("\nAnswer:")
    assert "letter" not in found["commonsense_qa"].formats  # its choices are letters already


def test_train_gives_shots_and_validation_stands_in(tmp_path):
    """Fails when GSM8K's shots are not from its training file, or a task without test items is lost."""
    for split in ("train", "test"):
        row = {"question": split, "answer": "so\n#### 1,200"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    (task,) = layouts.load_folder(tmp_path).tasks
    assert (task.name, task.seed) == (tmp_path.name, None)
    request = prompts.request(task, task.splits[TEST][0], "cot", 1)
    assert request.prefix == "Question: train\nAnswer: so\n#### 1,200\n\n"
    (tmp_path / "test.jsonl").rename(tmp_path / "validation.jsonl")
    suite = layouts.load_folder(tmp_path)
    assert suite.tasks[0].splits[TEST][0].question == "test" and "validation items are asked instead" in suite.notes[0]


def spoil(folder, what):
    """Real trees with one thing wrong."""
    file = folder / "test" / "anatomy_test.csv"
    match what:
        case "three choices":
            file.write_text("q,a,b,c,d,A\nq,a,b,c,A\n")
        case "answer E":
            file.write_text("q,a,b,c,d,A\nq,a,b,c,d,E\n")
        case "answer 4":
            file.write_text("question,choice0,choice1,choice2,choice3,answer\nq,a,b,c,d,4\n")
        case "choice gone":
            file.write_text("question,choice0,choice1,choice2,choice3,answer\nq,a,b,,d,3\n")
        case "latin-1":
            file.write_bytes(b"q,a,b,c,d,A\nq\xe9,a,b,c,d,A\n")
        case "empty":
            file.write_text("")
        case "header alone":
            file.write_text("question,choice0,choice1,choice2,choice3,answer\n")
        case "open quote":
            file.write_text('q,a,b,c,d,A\n"q,a,b,c,d,A\n')
        case "no dev":
            (folder / "dev" / "anatomy_dev.csv").unlink()
        case "no test":
            file.unlink()
        case "empty dev":
            (folder / "dev" / "anatomy_dev.csv").write_text("\n")
        case "no subject":
            for split in ("dev", "test"):
                (folder / split / f"anatomy_{split}.csv").unlink()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("three choices", r"anatomy_test.csv: row 2: 5 cells .*so 3 choices where there must be 4"),
        ("answer E", r"anatomy_test.csv: row 2: answer='E'; must be one of A to D, or of 0 to 3"),
        ("answer 4", r"anatomy_test.csv: row 1: answer='4'; must be one of A to D"),
        ("choice gone", r"anatomy_test.csv: row 1: 3 choices .*choice2 is missing"),
        ("latin-1", r"anatomy_test.csv: line 2: byte 0xe9 is not UTF-8"),
        ("empty", r"anatomy_test.csv: is empty"),
        ("header alone", r"anatomy_test.csv: is empty: it has no rows"),
        ("open quote", r"anatomy_test.csv: line \d: not valid CSV"),
        ("no dev", r"anatomy has no dev file \(it has test\)"),
        ("no test", r"anatomy has no test file \(it has dev\)"),
        ("empty dev", r"anatomy_dev.csv: is empty"),
        ("no subject", r"1 of MMLU's 57 subjects are missing: anatomy; bring its file"),
    ],
)
def test_a_spoiled_tree_is_told(tmp_path, what, told):
    """Fails when a broken MMLU is loaded, or the message lacks the file, the row, the value or the remedy."""
    write_tree(tmp_path, groups.SUBJECTS)
    spoil(tmp_path, what)
    with pytest.raises(TaskError, match=told):
        layouts.load_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.jsonl", '{"query": "q", "choices": ["a"], "gold": 0}', r"x.jsonl: row 1: 1 choices \['a'\]; there must be two or"),
        ("x.jsonl", '{"query": "q", "choices": ["a", "b"], "gold": 2}', r"row 1: gold=2; must be one of A to B, or of 0 to 1"),
        ("x.jsonl", '{"query": "q", "choices": ["a", "b"], "gold": true}', r"row 1: gold=True; must be one of"),
        ("x.jsonl", '{"query": "q", "choices": ["a", 0], "gold": 1}\n{"query": "q"}', r"row 2: no field 'choices'"),
        ("x.jsonl", '{"query": null, "choices": ["a", "b"], "gold": 1}', r"row 1: query=None; must be text"),
        ("x.jsonl", '{"text": "a"}', r"row 1: fields 'text' are of no known kind of item; known are"),
        ("x.jsonl", '{"text": ', r"x.jsonl: row 1: not valid JSON"),
        ("x.jsonl", "[1]", r"x.jsonl: row 1: \[1\] is no object with named fields"),
        ("x.json", '{"rows": []}', r"x.json: holds neither a list nor 'examples'"),
        ("x.parquet", "no", r"x.parquet: not a Parquet file"),
        ("x.tsv", "no", r"x.tsv: ends in '.tsv'; known are .csv"),
        ("x.jsonl", '{"question": "q", "choices": ["a", "b", "c"], "answer": 0}', r"3 choices .* there must be 4"),
        (
            "x.csv",
            "question,choices,answer\nq,\"['a' 'b' 'c' 'd']\",1\n",
            r"x.csv: row 1: 1 choices .*; there must be 4",
        ),
    ],
)
def test_a_spoiled_file_is_told(tmp_path, name, content, told):
    """Fails when a broken file is loaded, or the message lacks the file, the row, the value or the remedy."""
    (tmp_path / name).write_text(content)
    with pytest.raises(TaskError, match=told):
        layouts.load_folder(tmp_path / name)


def test_folders_that_are_no_benchmark_are_told(tmp_path):
    """Fails when an empty or a mixed folder, an unknown layout or a missing task gives anything but a message."""
    with pytest.raises(TaskError, match=r"no .* file in it"):
        layouts.load_folder(tmp_path)
    write_tree(tmp_path)
    with pytest.raises(TaskError, match=r"layout 'mmlu-tsv'.*Did you mean .mmlu-csv"):
        layouts.load_folder(tmp_path, "mmlu-tsv")
    with pytest.raises(TaskError, match=r"no task 'anatomi'; it has .*Did you mean .anatomy"):
        layouts.load_folder(tmp_path, only=("anatomi",))
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(TaskError, match=r"holds .csv and .jsonl files"):
        layouts.load_folder(tmp_path)
    assert len(layouts.load_folder(tmp_path, "mmlu-csv", only=ONLY).tasks) == 2
    shutil.rmtree(tmp_path / "dev")
    assert prompts.requests(layouts.load_folder(tmp_path, "mmlu-csv", only=ONLY).tasks[0], "letter", 0)
    with pytest.raises(TaskError, match="1 shots asked for, but its dev split is missing or empty"):
        prompts.check(layouts.load_folder(tmp_path, "mmlu-csv", only=ONLY).tasks[0], "letter", 1)
    with pytest.raises(TaskError, match=r"no suite or folder 'laptopp'.*Did you mean .laptop.*hf:NAME"):
        suites.find("laptopp")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"x\n-----\nDo.\n\nQ: a\nA: b.", r"t.txt: example 1: 'a\\nA: b.' is not 'Q: "),
        (b"x\n-----\nDo.", r"t.txt: no example 'Q: "),
    ],
)
def test_worked_shots_that_are_written_otherwise_are_told(tmp_path, content, told):
    """Fails when BIG-bench-hard's worked shots are read halfway, or left out in silence."""
    (tmp_path / "cot-prompts").mkdir()
    (tmp_path / "cot-prompts" / "t.txt").write_bytes(content)
    (tmp_path / "t.json").write_text(json.dumps({"examples": [{"input": "q", "target": "a"}]}))
    with pytest.raises(TaskError, match=told):
        layouts.load_folder(tmp_path)
