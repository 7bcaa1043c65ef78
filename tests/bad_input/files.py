"""Mistakes in the files that a command is given: text, token stores, runs and checkpoints, tables."""

from __future__ import annotations

import gzip
import json
import math

from .case import COMPARE, CORPUS, DESIGN, LAUNCH, ONE, PLOT, PREDICT, REPORT, TRAIN, Case
from .world import TABLE, change, compressed, copy, copy_file, edit_table, remove, shorten, store_json, write, zstd

ONE_SIZE, ONE_BUDGET, IN_STEP = (
    write(
        "mine.csv", "params,tokens,val_loss\n" + "".join(f"{n},{d},{1 + 210 * n**-0.66 + 6649 * d**-0.72}\n" for n, d in rows)
    )
    for rows in (
        [(1e5, 1e6 * 1.5**i) for i in range(9)],
        [(5e4 * 1.5**i, 1e6) for i in range(9)],
        [(5e4 * 1.5**i, 1e6 * 1.5**i) for i in range(9)],
    )
)

CASES: dict[str, list[Case]] = {
    "Text": [
        Case(
            "a pattern that matches nothing", f"{CORPUS} --text text/lins.txt --out tokens/new",
            ("text/lins.txt", "--text", "matches no file", 'Did you mean "lines.txt"?'), process=True,
        ),
        Case(
            "a file of unknown kind", f"{CORPUS} --text text/book.pdf --out tokens/new",
            ("text/book.pdf", "format", "name", "known are .txt"), write("text/book.pdf", b"%PDF-1.7\n"),
        ),
        Case(
            "an empty file", f"{CORPUS} --text text/empty.txt --out tokens/new",
            ("text/empty.txt", "no text in 1 file", "the corpus is empty", "give other files"), write("text/empty.txt", ""),
        ),
        Case(
            "too little text", f"{CORPUS} --text text/word.txt --out tokens/new",
            ("text/word.txt", "--holdout 20", "5 bytes", "bring more text"), write("text/word.txt", "Word."),
        ),
        Case(
            "a binary file named .txt", f"{CORPUS} --text text/data.txt --out tokens/new",
            ("text/data.txt", "byte 7", "0xff", "iconv"), write("text/data.txt", b"All of \xff\xfe\x00\x01"),
        ),
        Case(
            "a line without the field", f"{CORPUS} --text text/r.jsonl --out tokens/new",
            ("text/r.jsonl:2", "'text'", "'txt'", "--field"), write("text/r.jsonl", '{"text": "a"}\n{"txt": "b"}\n'),
        ),
        Case(
            "a field that is no text", f"{CORPUS} --text text/r.jsonl --out tokens/new",
            ("text/r.jsonl:1", "'text'", "is 7,", "mend or remove it"), write("text/r.jsonl", '{"text": 7}\n'),
        ),
        Case(
            "a line that is no JSON", f"{CORPUS} --text text/r.jsonl --out tokens/new",
            ("text/r.jsonl:2", "column 1", "Expecting value", "mend or remove the line"),
            write("text/r.jsonl", '{"text": "a"}\ntext: b\n'),
        ),
        Case(
            "a gzip file cut short", f"{CORPUS} --text text/l.txt.gz --out tokens/new",
            ("text/l.txt.gz", "damaged", "cut short", "copy or compress it again"), compressed("text/l.txt.gz", gzip.compress),
        ),
        Case(
            "a zstd file cut short", f"{CORPUS} --text text/l.txt.zst --out tokens/new",
            ("text/l.txt.zst", "damaged", "cut short", "copy or compress it again"), compressed("text/l.txt.zst", zstd),
        ),
        Case(
            "a Parquet file that is none", f"{CORPUS} --text text/t.parquet --out tokens/new",
            ("text/t.parquet", "Parquet", "not a readable", "write it again"), write("text/t.parquet", "text\n" * 9),
            varies=r"\(.*\)",
        ),
        Case(
            "a vocabulary below the bytes", f"{CORPUS} --text text/lines.txt --out tokens/new --vocab 100",
            ("--vocab", "vocabulary size", "100", "such as 4096"),
        ),
        Case(
            "a vocabulary beyond the text", f"{CORPUS} --text text/lines.txt --out tokens/new --vocab 60000",
            ("--vocab", "too large for this corpus", "60000", "bring more text"),
        ),
        Case(
            "a --holdout of one", f"{CORPUS} --text text/lines.txt --out tokens/new --holdout 1",
            ("--holdout", "one document in that many", " 1:", "must be at least 2"),
        ),
        Case(
            "a place that holds another store", f"{CORPUS} --text text/rows.jsonl --out tokens/small",
            ("tokens/small", "source", "lines.txt", "choose another --out"),
        ),
        Case(
            "a place that holds something else", f"{CORPUS} --text text/lines.txt --out runs",
            ("runs: ", "--out", "no token store", "choose another"),
        ),
    ],
    "Token store": [
        Case(
            "no store", f"{TRAIN} {ONE} --config.data.store=tokens/smal",
            ("tokens/smal", "token store", "store.json is missing", "python -m scaling.corpus"),
        ),
        Case(
            "no store for a sweep", f"{LAUNCH} --sweep sweep.py --config.data.store=tokens/smal",
            ("tokens/smal", "data.store", "no such token store", "python -m scaling.corpus"),
        ),
        Case(
            "store.json cut short", f"{TRAIN} {ONE}",
            ("tokens/small/store.json", "not valid JSON", "char", "build it again"), shorten("tokens/small/store.json"),
            varies=r"\(.*\)",
        ),
        Case(
            "store.json of another version", f"{TRAIN} {ONE}",
            ("tokens/small/store.json", "schema", " 99,", "build it again"),
            change("tokens/small/store.json", '"schema": 1', '"schema": 99'),
        ),
        Case(
            "store.json without a field", f"{TRAIN} {ONE}",
            ("tokens/small/store.json", "'fingerprint'", "incomplete", "build it again"),
            change("tokens/small/store.json", '"fingerprint"', '"finger"'),
        ),
        Case(
            "a count that is no number", f"{TRAIN} {ONE}",
            ("tokens/small/store.json", "splits.train.tokens", "'many'", "build it again"),
            store_json(lambda content: content["splits"]["train"].update(tokens="many")),
        ),
        Case(
            "tokens cut short", f"{TRAIN} {ONE}",
            ("tokens/small/train.bin", "bytes", "store.json says", "build it again"), shorten("tokens/small/train.bin"),
        ),
        Case(
            "no vocabulary file", f"{TRAIN} {ONE} --config.data.store=tokens/bpe --config.data.vocab=300",
            ("tokens/bpe/", "tokenizer.model", "missing", "build it again"),
            remove("tokens/bpe/tokenizer.model"),
        ),
        Case(
            "a vocabulary file that is none", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.data.store=tokens/bpe "
            "--config.data.vocab=300",
            ("tokens/bpe/tokenizer.model", "sentencepiece model", "not", "build it again"),
            write("tokens/bpe/tokenizer.model", b"something else"),
        ),
        Case(
            "a vocabulary file of another store", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.data.store=tokens/bpe "
            "--config.data.vocab=300",
            ("tokens/bpe/tokenizer.model", "another vocabulary", "310 ids", "bring back the file"),
            copy_file("tokens/other/tokenizer.model", "tokens/bpe/tokenizer.model"), varies=r"fingerprint.*says [0-9a-f]{16}",
        ),
        Case(
            "another vocabulary than the store's", f"{TRAIN} {ONE} --config.data.store=tokens/bpe",
            ("tokens/bpe", "with vocabulary '300'", "data.vocab='bytes'", "set data.vocab='300'"),
        ),
        Case(
            "a budget longer than the text", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.budget='1M tokens'",
            ("tokens/small", "budget", "'1M tokens'", "allow repeats with data.epochs="),
        ),
        Case(
            "a window longer than the text", f"{TRAIN} {ONE} --config.run_dir=runs/new --config.model.context=1000000 "
            "--config.batch='1000000 tokens'",
            ("tokens/small", "model.context", "1000000", "lower it, or bring more text"),
        ),
        Case(
            "a budget longer than the text, in a sweep", f"{LAUNCH} --sweep sweep.py --out new --config.data.epochs=0.001",
            ("sweep.py", "data.epochs", "0.001", "bring more text"),
        ),
    ],
    "Run and checkpoint": [
        Case(
            "a run directory of another config", f"{TRAIN} {ONE} --config.optim.lr=1e-3",
            ("runs/one/config.json", "optim.lr", "0.008 -> 0.001", "choose another run_dir"),
        ),
        Case(
            "a run directory of other data", f"{TRAIN} {ONE}",
            ("runs/one/config.json", "data", "0123456789abcdef", "choose another run_dir"),
            store_json(lambda content: content.update(fingerprint="0123456789abcdef")),
            varies=r"[0-9a-f]{16} ->",
        ),
        Case(
            "a file in the place of the run directory", f"{TRAIN} {ONE} --config.run_dir=mine.csv",
            ("mine.csv", "run_dir", "a file is in the place", "choose another"),
        ),
        Case(
            "config.json cut short", f"{TRAIN} {ONE}",
            ("runs/one/config.json", "not valid JSON", "char", "restore it or remove it"), shorten("runs/one/config.json"),
            varies=r"\(.*\)",
        ),
        Case(
            "config.json of another version", f"{TRAIN} {ONE}",
            ("runs/one/config.json", "schema", " 99,", "use the version that wrote it"),
            change("runs/one/config.json", '"schema": 1', '"schema": 99'),
        ),
        Case(
            "a checkpoint of another shape", f"{TRAIN} {ONE}",
            ("runs/one/checkpoints", "blocks/attention/k of shape", "(1, 32, 4, 8)", "to start this run anew"),
            copy("runs/wide/checkpoints", "runs/one/checkpoints"),
        ),
        Case(
            "checkpoints that are damaged", f"{TRAIN} {ONE}",
            ("runs/one/checkpoints", "[20, 10]", "cannot be read", "bring the files back"),
            remove("runs/one/checkpoints/*/state"), varies=r"\(FileNotFoundError.*?\.\)",
        ),
        Case(
            "metrics with a line that is none", f"{TRAIN} {ONE}",
            ("runs/one/", "metrics.jsonl:2", "not a JSON line", "remove the line"),
            change("runs/one/metrics.jsonl", "}\n", "}\n0.25,\n"),
        ),
        Case(
            "a branch whose mark is missing", f"{TRAIN} --spec runs/sweep/causal-20steps/spec.json",
            ("runs/sweep/causal-trunk/checkpoints", "step 16", "[32]", "train the trunk to it first"),
            remove("runs/sweep/causal-trunk/checkpoints/16"),
        ),
        Case(
            "a branch whose trunk has not started", f"{TRAIN} --spec runs/sweep/causal-20steps/spec.json",
            ("causal-trunk/plan.json", "the trunk causal-trunk", "has not started", "train it first"),
            remove("runs/sweep/causal-trunk/plan.json"),
        ),
        Case(
            "a spec that is not there", f"{TRAIN} --spec runs/sweep/causal-21steps/spec.json",
            ("runs/sweep/causal-21steps/", "spec.json:", "no such file", "give the spec.json of"),
        ),
        Case(
            "a sweep with another learning rate", f"{LAUNCH} --sweep sweep.py --config.optim.lr=1e-3",
            ("runs/sweep", "optim.lr", "0.008 -> 0.001", "give a new --out"),
        ),
        Case(
            "sweep.json cut short", f"{LAUNCH} status --runs runs/sweep",
            ("runs/sweep/sweep.json", "not valid JSON", "char", "restore it or remove it"), shorten("runs/sweep/sweep.json"),
            varies=r"\(.*\)",
        ),
        Case(
            "a folder of another sweep", f"{LAUNCH} --sweep sweep.py",
            ("runs/sweep", "other.py", "another sweep", "give another --out"),
            write("runs/sweep/sweep.json", json.dumps({"schema": 1, "config_file": "other.py", "members": [{"id": "a"}]})),
        ),
    ],
    "Analysis": [
        Case(
            "a table that is not there", f"{PLOT} --csv mien.csv",
            ("mien.csv", "no such file", "Did you mean", '"mine.csv"'), process=True,
        ),
        Case(
            "a table without the loss", f"{PLOT} --csv mine.csv",
            ("mine.csv", "holds the loss", "params, tokens, val;", "--map loss=COLUMN"), change("mine.csv", "val_loss", "val"),
        ),
        Case(
            "a role that there is not", f"{PLOT} --csv mine.csv --map los=val_loss",
            ("--map", "'los=val_loss'", "must be ROLE=COLUMN", 'Did you mean "loss"?'),
        ),
        Case(
            "a column that there is not", f"{PLOT} --csv mine.csv --map loss=valloss",
            ("mine.csv", "--map loss=", "no column 'valloss'", 'Did you mean "val_loss"?'),
        ),
        Case(
            "a negative parameter count", f"{PLOT} --csv mine.csv",
            ("mine.csv:2", "params", "'-50000.0'", "correct or remove the row"), change("mine.csv", "50000.0", "-50000.0"),
        ),
        Case(
            "text among the numbers", f"{PLOT} --csv mine.csv",
            ("mine.csv:4", "tokens", "'2M'", "correct or remove the row"),
            change("mine.csv", "\n50000.0,2000000.0", "\n\n50000.0,2M"),
        ),
        Case(
            "several bad values", f"{PLOT} --csv mine.csv",
            ("mine.csv:3: val_loss=''", "mine.csv:6: val_loss='nan'", "mine.csv:8: tokens='0'", "the other 6 rows can be"),
            edit_table({3: ("val_loss", ""), 6: ("val_loss", "nan"), 8: ("tokens", "0")}),
        ),
        Case(
            "a row twice", f"{PLOT} --csv mine.csv",
            ("mine.csv:11", "val_loss=", "is line 4 again", "leave it out with --skip-bad"),
            write("mine.csv", TABLE + TABLE.splitlines(True)[3]),
        ),
        Case(
            "parameters in millions", f"{PLOT} --csv mine.csv",
            ("mine.csv:2", "params='0.05'", "no count of parameters", "say --map N=params*1e6;"),
            edit_table({2 + i: ("params", n) for i, n in enumerate(["0.05"] * 3 + ["0.1"] * 3 + ["0.2"] * 3)}),
        ),
        Case(
            "a loss in bits among nats", f"{PLOT} --csv mine.csv",
            ("mine.csv:6", "val_loss='1.87", "as bits beside nats", "say --map loss=val_loss*1"),
            edit_table({6: ("val_loss", lambda loss: str(float(loss) / math.log(2)))}),
        ),
        Case(
            "a factor that is no number", f"{PLOT} --csv mine.csv --map N=params*M",
            ("mine.csv", "--map N=params*M", "factor 'M'", "such as 1e6"),
        ),
        Case(
            "bad rows of a folder of runs", f"{PLOT} --runs runs/sweep --skip-bad",
            ("--skip-bad", "rows of a --csv", "leave it out", "run folders need none"),
        ),
        Case(
            "a table of a header", f"{PLOT} --csv mine.csv",
            ("mine.csv", "header", "no rows", "add one line per run"), write("mine.csv", "params,tokens,val_loss\n"),
        ),
        Case(
            "too few rows", f"{PREDICT} --csv mine.csv --n-params 1M --tokens 20M",
            ("mine.csv", "3 rows with 1 sizes", "at least 6 rows", "train or add more"),
            write("mine.csv", "params,tokens,val_loss\n1e6,1e7,3\n1e6,2e7,2.9\n1e6,4e7,2.8\n"),
        ),
        Case(
            "a binary file as a table", f"{PLOT} --csv mine.csv",
            ("mine.csv", "as CSV", "byte 0xff", "give a UTF-8 text file"), write("mine.csv", b"\xff\xfeN"),
        ),
        Case(
            "a target with an unknown suffix", f"{PREDICT} --csv mine.csv --n-params 7Q --tokens 20M",
            ("command line", "--n-params", "'7Q'", "such as 50K"), process=True,
        ),
        Case(
            "a target without tokens", f"{PREDICT} --csv mine.csv --n-params 1M",
            ("command line", "--tokens", "--n-params", "say what to do"),
        ),
        Case(
            "a level above one", f"{PLOT} --csv mine.csv --level 90",
            ("command line", "--level", "'90'", "such as 0.9"),
        ),
        Case(
            "a level that is no number", f"{PLOT} --csv mine.csv --level high",
            ("command line", "--level", "'high'", "such as 0.9"),
        ),
        Case(
            "too few draws", f"{PLOT} --csv mine.csv --draws 10",
            ("command line", "--draws", "'10'", "use at least 100"),
        ),
        Case(
            "a record without a sweep", f"{PREDICT} --csv mine.csv --record",
            ("command line", "--record", "a CSV has no members", "need --runs"),
        ),
        Case(
            "a folder without a run", f"{PREDICT} --runs text --record",
            ("text", "sweep.json", "no run in it", "give a folder"),
        ),
        Case(
            "a folder that is not there", f"{PREDICT} --runs runs/swep --record",
            ("runs/swep", "no such folder", "the sweep's folder", "runs/ladder"),
        ),
        Case(
            "a sweep without a result", f"{PLOT} --runs runs/sweep",
            ("runs/sweep", "final loss", "no run", "python -m scaling.launch status"),
            remove("runs/sweep/causal-trunk/done.json"),
        ),
        Case(
            "a line of predictions that is none", f"{PREDICT} --runs runs/sweep --score",
            ("runs/sweep/", "predictions.jsonl:1", "not a JSON line", "remove the line"),
            write("runs/sweep/predictions.jsonl", "{\n{}\n{}\n"),
        ),
        Case(
            "a law of parameters of one size", f"{PREDICT} --csv mine.csv --law params --n-params 1M --tokens 20M",
            ("mine.csv", "9 rows with 1 sizes", "the params law", "--law data: L(D) = E + B D^-beta"), ONE_SIZE,
        ),
        Case(
            "a law of tokens of one budget", f"{PREDICT} --csv mine.csv --law data --n-params 1M --tokens 20M",
            ("mine.csv", "9 rows with 1 token counts", "the data law", "--law params: L(N) = E + A N^-alpha"), ONE_BUDGET,
        ),
        Case(
            "a law that there is not", f"{PLOT} --csv mine.csv --law chinchila",
            ("command line", "--law", "'chinchila'", "choose from"), varies=r"choose from.*",
        ),
        Case(
            "a table against itself", f"{COMPARE} --csv mine.csv --against mine.csv",
            ("mine.csv and", "mine.csv hold", "the same rows", "needs two sweeps"),
        ),
        Case(
            "tables whose C is counted in two ways", f"{COMPARE} --csv mine.csv --against other.csv",
            ("6ND in mine.csv", "column 'C' in other.csv", "one definition", "--map C=COLUMN"),
            write("other.csv", "params,tokens,C,val_loss\n1e5,1e6,6e11,3.0\n2e5,1e6,1.2e12,2.9\n"),
        ),
        Case(
            "a folder against a table", f"{COMPARE} --csv mine.csv --against runs/sweep",
            ("runs/sweep", "cannot be read", "Is a directory", "give a UTF-8 text file"),
        ),
        Case(
            "a prior law of tokens in step with parameters", f"{DESIGN} --csv mine.csv",
            ("mine.csv", "no prior law", "tokens grow in step with parameters", "give one, such as --prior ladder"), IN_STEP,
        ),
        Case(
            "a prior law that lacks a number", f"{DESIGN} --csv mine.csv --prior E=1.7,A=400",
            ("--prior E=1.7,A=400:", "lacks B", "alpha, beta;", "such as --prior E=1.7,A=400,B=2000"),
        ),
        Case(
            "a report of a table without the loss", f"{REPORT} --csv mine.csv",
            ("mine.csv", "holds the loss", "params, tokens, val;", "--map loss=COLUMN"), change("mine.csv", "val_loss", "val"),
        ),
        Case(
            "an --out that is a file", f"{PLOT} --csv mine.csv --out one.py",
            ("--out one.py", "File exists", "give another --out", "or allow writing there"),
        ),
    ],
}  # fmt: skip
