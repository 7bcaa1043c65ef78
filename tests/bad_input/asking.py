"""Mistakes in what a trained model is asked: benchmarks, the tasks of a config, prompts to go on from."""

from __future__ import annotations

from .case import DECODE, EVALS, LAUNCH, ONE, TRAIN, Case
from .world import Folder, Spoil, remove, write

WIDE = "--run runs/wide"
MMLU = f"{EVALS} {WIDE} --suite mmlu --formats letter"
ANATOMY = f"{MMLU} --tasks anatomy"
PETS = f"{EVALS} {WIDE} --suite pets.jsonl"
ROW = "{0} + {0} is,{1},{2},{3},{4},B\n"
ROWS = "".join(ROW.format(n, 2 * n + 1, 2 * n, 2 * n + 2, n) for n in range(6))
LONG = '{"query": "a question of more than sixteen bytes", "choices": ["yes", "no"], "gold": 0}\n'
SCORED = '{"kind": "eval", "step": 20, "task": "anatomy"}\n'


def each(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Folder) -> None:
        for one in spoils:
            one(folder)

    return spoil


def mmlu(test: str = ROWS, dev: str = ROWS, *more: Spoil) -> Spoil:
    """One subject in MMLU's own layout, beside scores that were written before."""
    files = {"mmlu/test/anatomy_test.csv": test, "mmlu/dev/anatomy_dev.csv": dev, "runs/wide/evals.jsonl": SCORED}
    return each(*(write(path, text) for path, text in files.items()), *more)


def pets(text: str = LONG) -> Spoil:
    """A file of questions, each of which is shot to the others."""
    return write("pets.jsonl", text)


CASES: dict[str, list[Case]] = {
    "Evals": [
        Case(
            "a suite that there is not", f"{EVALS} {WIDE} --suite laptp",
            ("no suite or folder", "'laptp'", 'Did you mean "laptop"?', "There are: "),
        ),
        Case(
            "subjects of MMLU that are missing", MMLU,
            ("mmlu: ", "56 of MMLU's 57 subjects", "abstract_algebra", "bring its file, or name the tasks"), mmlu(),
        ),
        Case(
            "a subject without a test file", f"{MMLU} --tasks anatomy,virology",
            ("mmlu: ", "virology has no test file", "(it has dev)", "bring its file"),
            mmlu(ROWS, ROWS, write("mmlu/dev/virology_dev.csv", ROWS)),
        ),
        Case(
            "a task that there is not", f"{MMLU} --tasks anatmy",
            ("mmlu: ", "no task 'anatmy'", "it has anatomy", 'Did you mean "anatomy"?'), mmlu(),
        ),
        Case(
            "a row with three choices", ANATOMY,
            ("anatomy_test.csv: row 7", "5 cells ['7 + 7 is', '14'", "so 3 choices", "there must be 4"),
            mmlu(ROWS + "7 + 7 is,14,15,16,A\n"),
        ),
        Case(
            "an answer outside A to D", ANATOMY,
            ("anatomy_test.csv: row 7", "answer=", "'E'", "must be one of A to D"),
            mmlu(ROWS + ROW.format(7, 14, 15, 16, 17).replace(",B", ",E")),
        ),
        Case(
            "an empty choice", ANATOMY,
            ("anatomy_test.csv: row 7", "3 choices", "there must be 4", "C is missing"),
            mmlu(ROWS + ROW.format(7, 14, 15, "", 17)),
        ),
        Case(
            "an empty test file", ANATOMY,
            ("mmlu/", "anatomy_test.csv", "is empty", "restore it"), mmlu(""),
        ),
        Case(
            "shots without a dev split", f"{ANATOMY} --shots 5",
            ("anatomy: ", "5 shots asked for", "its dev split is missing or empty", "ask for fewer, or bring dev items"),
            mmlu(ROWS, ROWS, remove("mmlu/dev")),
        ),
        Case(
            "an empty dev file", f"{ANATOMY} --shots 5",
            ("mmlu/", "anatomy_dev.csv", "is empty", "restore it"), mmlu(ROWS, "\n"),
        ),
        Case(
            "more shots than dev items", f"{ANATOMY} --shots 0,7",
            ("anatomy: ", "7 shots asked for", "its dev split has 6 items", "ask for fewer"), mmlu(),
        ),
        Case(
            "prompts longer than the context, to be skipped", f"{PETS} --fit skip",
            ("pets: ", "none of its 1 prompts fits", "context of 16 tokens", "take fewer shots, another fit"), pets(),
        ),
        Case(
            "a line that is no JSON", PETS,
            ("pets.jsonl: row 2", "not valid JSON", "Expecting value", "at character 0"), pets(LONG + "query: b\n"),
        ),
        Case(
            "fields of no known kind", PETS,
            ("pets.jsonl: row 1", "'ask'", "are of no known kind", "known are"), pets(LONG.replace('"query"', '"ask"')),
        ),
        Case(
            "a format that there is not", f"{EVALS} {WIDE} --formats lettre",
            ("format ", "'lettre'", "choose of cloze, letter", 'Did you mean "letter"?'),
        ),
        Case(
            "a format that the task cannot be asked in", f"{PETS} --formats cot",
            ("pets: ", "no task can be asked", "'cot'", "there are cloze, letter"), pets(),
        ),
        Case(
            "a way with long prompts that there is not", f"{EVALS} {WIDE} --fit drop",
            ("command line", "--fit", "'drop'", "drop_shots"),
        ),
        Case(
            "shots that are no number", f"{EVALS} {WIDE} --shots few",
            ("command line", "--shots", "'few'", "must be whole numbers"),
        ),
        Case(
            "a map of groups that there is not", f"{MMLU} --tasks anatomy --groups helm",
            ("groups ", "'helm'", "choose of harness", "hendrycks"), mmlu(),
        ),
        Case(
            "held-out text of no token store", f"{EVALS} {WIDE} --suite prose:tokens/smal",
            ("tokens/smal", "no token store", "store.json is missing", "python -m scaling.corpus"),
        ),
        Case(
            "held-out text that is too little", f"{EVALS} {WIDE} --suite prose:tokens/small",
            ("prose_word", "of 5 dev items", "validation split is too small", "--holdout"),
        ),
        Case(
            "a run that has not ended", f"{EVALS} --run runs/one",
            ("runs/one", "not finished", "done.json is missing", "finish it, or set probe.suite in its config"),
        ),
        Case(
            "no such run", f"{EVALS} --run runs/on",
            ("runs/on: ", "no such folder", "give the folder of a member", "such as runs/ladder"),
        ),
        Case(
            "no such checkpoint", f"{EVALS} {WIDE} --step 7",
            ("runs/wide/checkpoints", "no checkpoint of step", "'7'; there are [10, 20]", "or say newest or all"),
        ),
        Case(
            "scores that are no JSON", PETS,
            ("runs/wide/evals.jsonl", ":1: ", "not a JSON line", "remove the line"),
            each(pets(), write("runs/wide/evals.jsonl", "scores\n\n")),
        ),
    ],
    "Evals while training": [
        Case(
            "a suite that there is not", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.probe.suite=laptp",
            ("no suite or folder", "'laptp'", 'Did you mean "laptop"?', "There are: "),
        ),
        Case(
            "a suite that there is not, in a sweep", f"{LAUNCH} --sweep sweep.py --out new --config.probe.suite=laptp",
            ("probe: ", "no suite or folder 'laptp'", 'Did you mean "laptop"?', "There are: "),
        ),
        Case(
            "a task that there is not", f"{LAUNCH} --sweep sweep.py --out new --config.probe.suite=laptop "
            "--config.probe.tasks=\"('reverce',)\"",
            ("probe: laptop: ", "no task 'reverce'", "it has add", 'Did you mean "reverse"?'),
        ),
        Case(
            "a format that there is not", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.probe.suite=laptop "
            "--config.probe.formats=\"('lettre',)\"",
            ("one.py", "probe.formats", "'lettre'", 'Did you mean "letter"?'),
        ),
        Case(
            "no format", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.probe.suite=laptop --config.probe.formats=\"()\"",
            ("one.py", "probe.formats", "=()", "must name at least one"),
        ),
        Case(
            "a negative number of shots", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.probe.suite=laptop "
            "--config.probe.shots=\"(0,-1)\"",
            ("one.py", "probe.shots", "(0, -1)", "must be whole numbers, none negative"),
        ),
        Case(
            "more shots than there are examples", f"{LAUNCH} --sweep sweep.py --out new --config.probe.suite=laptop "
            "--config.probe.shots=\"(0,6)\"",
            ("probe: add: ", "6 shots asked for", "its dev split has 5 items", "ask for fewer"),
        ),
        Case(
            "no items", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.probe.suite=laptop --config.probe.items=0",
            ("one.py", "probe.items", "=0: must be at least 1", "leave probe.suite empty"),
        ),
        Case(
            "a field that there is not", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.probe.shot=5",
            ("command line: ", "probe.shot=5", "no such field", 'Did you mean "probe.shots"?'),
        ),
        Case(
            "held-out text of no token store", f"{LAUNCH} --sweep sweep.py --out new --config.probe.suite=prose:tokens/smal",
            ("probe.suite=", "tokens/smal: no token store", "store.json is missing", "python -m scaling.corpus"),
        ),
    ],
    "Decoding": [
        Case(
            "no such run", f"{DECODE} --run runs/on --prompt a",
            ("runs/on: ", "no such folder", "give the folder", "of a member"),
        ),
        Case(
            "a sweep instead of a member", f"{DECODE} --run runs/sweep --prompt a",
            ("runs/sweep: ", "a whole sweep", "choose one of its members", "causal-trunk"),
        ),
        Case(
            "no such checkpoint", f"{DECODE} {WIDE} --step 7 --prompt a",
            ("runs/wide", "no checkpoint of step 7", "there are", "[10, 20]"),
        ),
        Case(
            "no prompt", f"{DECODE} {WIDE}", ("decode", "no prompt", "give --prompt", "--prompts-file"),
        ),
        Case(
            "an empty prompt", f"{DECODE} {WIDE} --prompt ''",
            ("decode", "prompt: empty", "give at least one character", "such as a newline"),
        ),
        Case(
            "a prompt that fills the context", f"{DECODE} {WIDE} --prompt 'sixteen letters,'",
            ("prompt: ", "16 tokens", "the context of 16 must hold one more", "shorten it"),
        ),
        Case(
            "more tokens than the context holds", f"{DECODE} {WIDE} --prompt 'ten letter' --max-tokens 7",
            ("max_tokens=7", "a prompt of 10 tokens", "the context of 16", "holds 6"),
        ),
        Case(
            "a negative temperature", f"{DECODE} {WIDE} --prompt a --temperature -1",
            ("decode", "temperature", "=-1.0", "must be a number from 0"),
        ),
        Case(
            "a temperature that is no number", f"{DECODE} {WIDE} --prompt a --temperature warm",
            ("command line", "--temperature", "'warm'", "must be a number"),
        ),
        Case(
            "a share of more than all", f"{DECODE} {WIDE} --prompt a --temperature 1 --top-p 1.5",
            ("decode", "top_p", "=1.5", "must be above 0 and at most 1"),
        ),
        Case(
            "a filter where nothing is drawn", f"{DECODE} {WIDE} --prompt a --top-k 3",
            ("decode", "top_k", "temperature=0 draws none", "set a temperature"),
        ),
        Case(
            "a stop string of nothing", f"{DECODE} {WIDE} --prompt a --stop ''",
            ("decode", "stop=''", "every text ends there", "give at least one character"),
        ),
        Case(
            "a file of prompts that is not there", f"{DECODE} {WIDE} --prompts-file promts.txt",
            ("--prompts-file", "promts.txt", "No such file", "give a file with a prompt on each line"),
        ),
        Case(
            "two prompts to stream", f"{DECODE} {WIDE} --prompt a --prompt b --stream",
            ("--stream", "prints one text as it comes", "there are 2 prompts", "command line"),
        ),
    ],
}  # fmt: skip
