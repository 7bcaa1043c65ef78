"""Tables: every problem is named with file, row, column, value and remedy."""

import json
import math

import numpy as np
import pytest
import synthetic

from analysis import laws, load
from scaling import runs


def write(path, text):
    path.write_text(text)
    return path


def test_runs_table(tmp_path):
    """Fails when unfinished, diverged or un-annealed members enter a fit, or vanish instead of being kept with the reason."""
    root = synthetic.write_sweep(tmp_path / "s", trained=synthetic.SIZES[:5], diverged=("causal-75K-40x",), curves=False)
    (root / "causal-195K-trunk").mkdir()
    (root / "causal-195K-trunk" / runs.METRICS).write_text('{"kind": "train", "step": 1, "tokens": 1536, "loss": 5.5}\n')
    table = load.runs(root)
    assert len(table.rows) == 24 and len(table.fitted) == 14
    assert all(r.annealed and r.state == "finished" for r in table.fitted)
    by_id = {r.id: r for r in table.rows}
    assert by_id["causal-75K-40x"].excluded == "diverged (loss is not finite at step 900)"
    assert by_id["causal-50K-trunk"].excluded == "not annealed"
    assert by_id["causal-195K-trunk"].state == load.STARTED
    assert by_id["causal-195K-10x"].state == load.PLANNED and by_id["causal-195K-10x"].loss is None
    assert by_id["causal-50K-10x"].cluster == by_id["causal-50K-20x"].cluster == "causal-50K-trunk"
    assert by_id["causal-195K-10x"] not in table.excluded  # planned, not left out


def test_definitions_of_n_and_flops(tmp_path):
    """Fails when N is counted with another definition than asked for and recorded."""
    root = synthetic.write_sweep(tmp_path / "s", curves=False)
    total = load.runs(root, "total", "6N")
    row = total.rows[1]
    assert row.n_params > load.runs(root).rows[1].n_params == 50_000
    assert row.flops == pytest.approx(6 * row.n_params * row.n_tokens)
    assert (total.n_definition, total.flops_convention) == ("total", "6N")


def test_one_run_without_a_sweep(tmp_path):
    """Fails when a folder of scaling.train alone needs a launcher's files."""
    root = synthetic.write_sweep(tmp_path / "s", curves=False)
    (root / runs.SWEEP).unlink()
    runs.write_json(root / "causal-50K-10x" / runs.CONFIG, {"digest": "0" * 16, "config": {"seed": 7}})
    (one,) = load.runs(root / "causal-50K-10x").rows
    assert one.cluster == "causal-50K-trunk" and one.loss is not None and one.size == "50K" and one.seed == 7


def test_digest_is_of_the_rows(tmp_path):
    """Fails when the hash changes with the order of rows, or does not change with a loss."""
    a, b = (load.table([1e6, 2e6], [1e7, 1e7], [3.0, last]) for last in (2.0, 2.0001))
    c = load.Table("reversed", a.rows[::-1])
    assert a.digest() == c.digest() != b.digest()


def test_csv_without_mapping(tmp_path):
    """Fails when obvious names are not recognised, or D and C are not derived as said."""
    table = load.csv(write(tmp_path / "a.csv", "params,flops,val_loss\n1e6,6e13,3.0\n"))
    assert table.fitted[0].n_tokens == pytest.approx(1e7) and "D = C / (6N)" in table.notes[0]
    table = load.csv(write(tmp_path / "b.csv", "N,D,loss,outlier\n1e6,1e7,3.0,1\n"))
    assert table.fitted[0].flops == pytest.approx(6e13)
    assert any("--map exclude=outlier" in note for note in table.notes)  # offered, never done unasked


def test_csv_mapping_and_exclusion(tmp_path):
    """Fails when a mapped column is ignored or an excluded row is fitted."""
    path = write(tmp_path / "a.csv", "size,D,y,bad,trunk_id\n1e6,1e7,3.0,0,t\n2e6,1e7,2.9,1,t\n")
    table = load.csv(path, load.parse_mapping("N=size, loss=y, exclude=bad, cluster=trunk_id"))
    assert [r.excluded for r in table.rows] == [None, "marked in column 'bad'"] and len(table.fitted) == 1
    assert table.rows[0].cluster == "t"


def test_csv_with_gaps_in_an_optional_column(tmp_path):
    """Fails when a column that nobody named refuses the table, or one that was named is passed over."""
    path = write(tmp_path / "a.csv", "N,D,loss,loss_stderr\n1e6,1e7,3.0,\n2e6,1e7,2.9,0\n3e6,1e7,2.8,0.01\n")
    assert [r.loss_stderr for r in load.csv(path).fitted] == [None, None, 0.01]
    with pytest.raises(load.LoadError, match=r"a\.csv:3: loss_stderr='0'"):
        load.csv(path, {"stderr": "loss_stderr"})


@pytest.mark.parametrize(
    ("text", "mapping", "words"),
    [
        ("N,D,loss\n1e6,1e7,-3\n", {}, ["a.csv:2", "loss='-3'", "positive"]),
        ("N,D,loss\n1e6,1e7,3\n1e6,many,3\n", {}, ["a.csv:3", "D='many'", "used as D"]),
        ("N,D,loss\n1e6,,3\n", {}, ["a.csv:2", "D=''"]),
        ("N,D,loss\n1e6,1e7,nan\n", {}, ["a.csv:2", "loss='nan'"]),
        ("N,D,final\n1e6,1e7,3\n", {}, ["which column holds the loss", "N, D, final", "--map loss=COLUMN"]),
        ("N,loss\n1e6,3\n", {}, ["the tokens (or C"]),
        ("N,D,val_loss\n1e6,1e7,3\n", {"loss": "val_los"}, ["no column 'val_los'", 'Did you mean "val_loss"?']),
        ("N,D,loss,keep\n1e6,1e7,3,maybe\n", {"exclude": "keep"}, ["keep='maybe'", "true or false"]),
        ("N,D,loss\n1e6,1e7,3\n", {"N": "N*M"}, ["--map N=N*M", "factor 'M'", "such as 1e6"]),
        ("N,D,loss,id\n1e6,1e7,3,a\n", {"id": "id*2"}, ["--map id=id*2", "only numbers are scaled", "id=id"]),
        ("N,D,loss,loss\n1e6,1e7,3,4\n", {}, ["two columns are called 'loss'"]),
        ("N,D,loss\n1,000,000,1e7,3\n1e6,1e7,3\n", {}, ["a.csv:2", "more cells", "quotes"]),
        ("N,D,loss\n", {}, ["no rows"]),
        ("", {}, ["is empty"]),
    ],
)
def test_csv_errors(tmp_path, text, mapping, words):
    """Fails when a bad value is passed over, or its message does not say where it is."""
    with pytest.raises(load.LoadError) as error:
        load.csv(write(tmp_path / "a.csv", text), mapping)
    for word in words:
        assert word in str(error.value)


TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def good_lines(with_flops: bool = False, seed: int = 0) -> list[str]:
    """A table of 6 sizes by 4 token counts that follows a law to 0.3 %, as lines of a CSV."""
    rng = np.random.default_rng(seed)
    out = ["params,tokens,flops,val_loss" if with_flops else "params,tokens,val_loss"]
    for n in np.geomspace(7e7, 1.6e10, 6):
        for d in np.geomspace(2e9, 4e11, 4):
            loss = laws.CHINCHILLA.loss(TRUTH, n, d) * np.exp(0.003 * rng.standard_normal())
            cells = [f"{n:.0f}", f"{d:.0f}", *([f"{6.6 * n * d:.6g}"] if with_flops else []), f"{loss:.6f}"]
            out.append(",".join(cells))
    return out


def spoiled(line: str, column: int, change) -> str:
    """The line with one cell changed."""
    cells = line.split(",")
    cells[column] = change(cells[column])
    return ",".join(cells)


def scaled(factor: float):
    """A change of unit."""
    return lambda cell: f"{float(cell) * factor:.8g}"


ROW_FAULTS = {
    "nan": (-1, lambda cell: "nan", "val_loss='nan' must be a positive number"),
    "zero": (-1, lambda cell: "0", "val_loss='0' must be a positive number"),
    "negative": (-1, lambda cell: "-" + cell, "val_loss='-"),
    "empty": (-1, lambda cell: "", "val_loss='' must be a positive number"),
    "text": (1, lambda cell: "2B", "tokens='2B' must be a positive number"),
    "infinite": (0, lambda cell: "inf", "params='inf' must be a positive number"),
    "bits": (-1, scaled(1 / math.log(2)), "is 1.44 times what the other rows lead one to expect"),
    "N in millions": (0, scaled(1e-6), "C / (6ND) is 1.1e+06, and 1.1 on the median row"),
    "D in billions": (1, scaled(1e-9), "C / (6ND) is 1.1e+09, and 1.1 on the median row"),
    "C in PF-days": (2, scaled(1 / 8.64e19), "on the median row"),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_bad_row_is_named_and_can_be_skipped(tmp_path, fault, seed):
    """Fails when a spoiled row is passed over, another one is named beside it, or leaving it out loses or alters other rows."""
    column, change, words = ROW_FAULTS[fault]
    lines = good_lines(with_flops=True, seed=seed)
    at = 2 + int(np.random.default_rng(seed).integers(len(lines) - 2))
    bad = [*lines[: at - 1], spoiled(lines[at - 1], column, change), *lines[at:]]
    path = write(tmp_path / "a.csv", "\n".join(bad))
    with pytest.raises(load.LoadError) as error:
        load.csv(path)
    told = str(error.value).splitlines()
    assert len(told) == 2 and told[0].startswith(f"{path}:{at}: ") and words in told[0], told
    assert "correct or remove the row, or leave it out with --skip-bad: the other 23 rows can be fitted" in told[1]
    table = load.csv(path, skip_bad=True)
    others = [(r.id, r.n_params, r.loss) for r in load.csv(write(tmp_path / "good.csv", "\n".join(lines))).rows]
    del others[at - 2]
    assert [(r.id, r.n_params, r.loss) for r in table.fitted] == others
    kept = [r for r in table.rows if r.excluded is not None]
    if column in (0, 1, 2):
        assert not kept and any(f"line {at}" in note for note in table.notes)
    else:
        assert [r.id for r in kept] == [f"line {at}"] and kept[0].excluded.startswith("with a ")


def test_all_problems_are_told_at_once(tmp_path):
    """Fails when the second problem is told only after the first was corrected, or thirty fill the screen."""
    lines = good_lines()
    lines[3], lines[5] = spoiled(lines[3], 0, lambda cell: "?"), spoiled(lines[5], -1, lambda cell: "nan")
    path = write(tmp_path / "a.csv", "\n".join([*lines, lines[7]]))
    with pytest.raises(load.LoadError) as error:
        load.csv(path)
    told = str(error.value).splitlines()
    assert [line.split(" ")[0].removeprefix(f"{path}:") for line in told[:3]] == ["4:", "6:", "26:"]
    assert "is line 8 again" in told[2] and "correct or remove these 3 rows" in told[3] and "the other 22 rows" in told[3]
    assert [r.excluded for r in load.csv(path, skip_bad=True).excluded] == [
        "with a bad value in column 'val_loss'", "a copy of another row"
    ]  # fmt: skip
    with pytest.raises(load.LoadError, match="and 16 more\ncorrect these 24 rows"):
        load.csv(
            write(tmp_path / "b.csv", "\n".join([lines[0], *(spoiled(x, -1, lambda cell: "nan") for x in good_lines()[1:])]))
        )


@pytest.mark.parametrize(
    ("factors", "with_flops", "fix"),
    [
        ({0: 1e-6}, False, "--map N=params*1e6"),
        ({0: 1e-9}, False, "--map N=params*1e9"),
        ({1: 1e-9}, False, "--map D=tokens*1e9"),
        ({0: 1e-9, 1: 1e-9}, False, "--map N=params*1e9,D=tokens*1e9"),
        ({0: 1e-6, 1: 1e-9}, False, "--map N=params*1e6,D=tokens*1e9"),
        ({0: 1e-3}, True, "--map N=params*1e3"),
        ({0: 1e-6}, True, "--map N=params*1e6"),
        ({1: 1e-6}, True, "--map D=tokens*1e6"),
        ({0: 1e-6, 1: 1e-9}, True, "--map N=params*1e6,D=tokens*1e9"),
        ({2: 1e-18}, True, "--map C=flops*1e18"),
        ({2: 1 / 8.64e19}, True, "--map C=flops*8.64e19"),
    ],
)
def test_a_column_in_another_unit(tmp_path, factors, with_flops, fix):
    """Fails when N in millions and the like is fitted as it is, the remedy is not the right one, or cannot be followed."""
    lines = good_lines(with_flops)
    bad = lines[1:]
    for column, factor in factors.items():
        bad = [spoiled(line, column, scaled(factor)) for line in bad]
    path = write(tmp_path / "a.csv", "\n".join([lines[0], *bad]))
    with pytest.raises(load.LoadError) as error:
        load.csv(path)
    message = str(error.value)
    assert message.startswith(f"{path}:2: params=") and (f"{fix}; or" in message or f"{fix}, or" in message), message
    assert message.count("--map") == 2 or (len(factors) == 2 and not with_flops)  # one remedy, unless both may be scaled alike
    good = load.csv(write(tmp_path / "good.csv", "\n".join(lines)))
    mended = load.csv(path, load.parse_mapping(fix.removeprefix("--map ")))
    for name in ("n_params", "n_tokens", "flops"):
        np.testing.assert_allclose(mended.column(name), good.column(name), rtol=1e-5)
    as_it_is = load.csv(path, load.parse_mapping(message.rpartition("--map ")[2]))
    assert len(as_it_is.fitted) == 24 and as_it_is.column("n_params")[0] == float(bad[0].split(",")[0])


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
def test_bits_beside_nats(tmp_path, share):
    """Fails when a table of two units of loss is fitted, its rarer rows are not named, or a factor does not settle it."""
    lines = good_lines()
    in_bits = np.random.default_rng(1).permutation(24) < round(24 * share)
    bad = [spoiled(x, -1, scaled(1 / math.log(2))) if b else x for x, b in zip(lines[1:], in_bits, strict=True)]
    path = write(tmp_path / "a.csv", "\n".join([lines[0], *bad]))
    table = load.csv(path, skip_bad=True)
    named = np.array([r.excluded == "with a loss in another unit" for r in table.rows])
    assert named.sum() == min(in_bits.sum(), 24 - in_bits.sum())
    assert (named == in_bits).all() or (named == ~in_bits).all()
    with pytest.raises(load.LoadError, match=r"right as they are, say --map loss=val_loss\*1$"):
        load.csv(path)
    assert len(load.csv(path, {"loss": "val_loss*1"}).fitted) == 24


def test_repeats_are_not_copies(tmp_path):
    """Fails when seeds of one cell are taken for copies, or a run that was pasted under another name is not."""
    head = "run,N,D,val_loss,seed\n"
    seeds = "a,1e6,1e8,3.21,0\nb,1e6,1e8,3.21,1\nc,1e6,1e8,3.214159,2\n"
    assert len(load.csv(write(tmp_path / "a.csv", head + seeds)).fitted) == 3
    with pytest.raises(load.LoadError, match=r"a\.csv:5: N='1e6', D='1e8', val_loss='3\.2141590' is line 4 again"):
        load.csv(write(tmp_path / "a.csv", head + seeds + "d,1e6,1e8,3.2141590,3\n"))
    with pytest.raises(load.LoadError, match=r"a\.csv:5: .* is line 2 again"):
        load.csv(write(tmp_path / "a.csv", head + seeds + "a,1e6,1e8,3.21,0\n"))


def test_what_else_the_losses_may_be(tmp_path):
    """Fails when an accuracy, a perplexity or bits by name are fitted without a word, or a good table is given one."""
    lines = [line.split(",") for line in good_lines()]
    for name, change, words in (
        ("loss", lambda v: v, None),
        ("acc", lambda v: 1 - v / 10, "grows with compute"),
        ("ppl", lambda v: math.exp(v) + 5, "a perplexity?"),
        ("val_bpb", lambda v: v / 3, "in bits by its name"),
        ("bitter", lambda v: v, None),
    ):
        text = "\n".join([f"N,D,{name}", *(f"{n},{d},{change(float(v))}" for n, d, v in lines[1:])])
        notes = [x for x in load.csv(write(tmp_path / "a.csv", text), {"loss": name}).notes if x != "no column for C: C = 6ND"]
        assert (len(notes) == 1 and words in notes[0]) if words else notes == [], (name, notes)


def test_flops_that_are_not_of_whole_runs(tmp_path):
    """Fails when FLOPs per token are taken for those of whole runs without a word, or for another unit of them."""
    lines = [line.split(",") for line in good_lines()]
    text = "\n".join(["N,D,flops,loss", *(f"{n},{d},{6 * float(n)},{v}" for n, d, v in lines[1:])])
    (note,) = load.csv(write(tmp_path / "a.csv", text)).notes
    assert note.startswith("C / (6ND) is ") and note.endswith("column 'flops' is taken as the FLOPs of whole runs")
    assert load.csv(write(tmp_path / "a.csv", text), {"C": "flops*1"}).notes == ()


def test_optional_columns(tmp_path):
    """Fails when unique tokens, batch or rate are lost, an empty cell of them refuses a row, or a factor misses the errors."""
    head = "N,D,C,bits,loss_stderr,U,batch_tokens,lr,seed\n"
    text = head + "1e6,1e8,6e14,4.1,0.01,5e7,512,1e-3,1\n2e6,,1.2e15,4.0,,,,,\n3e6,1e8,,3.9,,,,,\n"
    path = write(tmp_path / "a.csv", text)
    table = load.csv(path, {"loss": "bits*0.5"})
    first, second, third = table.fitted
    assert (first.unique_tokens, first.batch_tokens, first.lr, first.seed) == (5e7, 512, 1e-3, 1)
    assert (first.loss, first.loss_stderr) == (2.05, 0.005)
    assert (second.unique_tokens, second.batch_tokens, second.lr, second.loss_stderr) == (None,) * 4
    assert second.n_tokens == pytest.approx(1e8) and third.flops == pytest.approx(1.8e15)
    assert [n for n in table.notes if " without " in n] == [
        "D = C / (6N) in 1 row without D",
        "C = 6ND in 1 row without C",
    ]
    np.testing.assert_array_equal(table.column("lr"), [1e-3, np.nan, np.nan])
    assert table.column("unique_tokens").dtype == table.column("seed").dtype == np.float64
    with pytest.raises(load.LoadError, match=r"a\.csv:2: lr='-1' must be"):
        load.csv(write(tmp_path / "a.csv", text.replace("1e-3", "-1")), {"loss": "bits*0.5", "lr": "lr"})
    assert load.csv(path, {"loss": "bits*0.5"}).rows[0].lr is None  # a column that nobody named


def test_a_row_that_stays_out_may_lack_its_loss(tmp_path):
    """Fails when a diverged run that its table marks refuses the table."""
    table = load.csv(write(tmp_path / "a.csv", "N,D,loss,bad\n1e6,1e8,nan,1\n,1e8,,1\n2e6,1e8,3,0\n"), {"exclude": "bad"})
    assert [(r.loss, r.excluded) for r in table.rows] == [(None, "marked in column 'bad'"), (3.0, None)]
    assert any("line 3" in note for note in table.notes)
    lines = good_lines()
    odd = [lines[4], spoiled(lines[5], -1, scaled(1 / math.log(2))), spoiled(lines[6], 0, scaled(1e-6))]
    text = "\n".join([lines[0] + ",bad", *(f"{x},0" for x in lines[1:]), *(f"{x},1" for x in odd)])
    assert len(load.csv(write(tmp_path / "b.csv", text), {"exclude": "bad"}).fitted) == 24  # nor is it doubted


PUBLIC = [
    ("chinchilla_epoch245.csv", "", 245), ("datablations_fit182.csv", "", 182), ("gemstones_cool_end.csv", "", 199),
    ("gemstones_hot.csv", "", 220), ("gemstones_hot_sampled_like_chinchilla.csv", "", 24),
    ("gemstones_envelope_hot_477.csv", "C=FLOPs", 1100), ("isoflop_llama3_marin_apple.csv", "", 427),
    ("olmo_ladder_final.csv", "loss=bpb_ma5", 72), ("olmo_ladder_step2.csv", "loss=bpb_ma5", 5604),
    ("porian_isoflop_rw.csv", "", 1164),
    *(("gadre_c4_rpj.csv", f"loss={c}", 69) for c in ("loss_openlm", "loss_c4_val", "loss_paloma_ptb", "err_avg")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mapping", "rows"), PUBLIC)
def test_published_tables_raise_no_doubt(data, name, mapping, rows):
    """Fails when a good table is refused, or a note doubts what is right: several experiments in one file among them."""
    table = load.csv(data / name, load.parse_mapping(mapping))
    assert len(table.fitted) == len(table.rows) == rows
    expected = ("no column for", "the column 'outlier'", "column 'bpb_ma5' is in bits by its name", "column 'run' holds")
    assert [note for note in table.notes if not note.startswith(expected)] == []


def test_published_tables_with_faults(data):
    """Fails when three budgets without an optimum or a loss that stands there once per task is fitted as it is."""
    with pytest.raises(load.LoadError, match=r"csv:13: n=''(.|\n)*csv:62: loss=''(.|\n)*the other 115 rows can be fitted"):
        load.csv(data / "porian_optima_rw.csv", {"N": "n", "D": "t"})
    with pytest.raises(
        load.LoadError, match=r"csv:20: .* is line 2 again(.|\n)*and 46 more\n.*the other 18 rows can be fitted"
    ):
        load.csv(data / "olmo_ladder_final.csv", {"loss": "c4_loss_ma5"})


def test_missing_things(tmp_path):
    """Fails when a wrong path or role gives a traceback instead of advice."""
    write(tmp_path / "mine.csv", "N\n")
    with pytest.raises(load.LoadError, match=r'Did you mean "mine\.csv"'):
        load.csv(tmp_path / "mien.csv")
    with pytest.raises(load.LoadError, match="no such folder"):
        load.runs(tmp_path / "nothing")
    with pytest.raises(runs.RunError, match="no run in it"):
        load.runs(tmp_path)
    with pytest.raises(load.LoadError, match='Did you mean "loss"'):
        load.parse_mapping("los=val_loss")


def _as_trained(folder, epochs: float, seen: str, **done) -> load.Row:
    """A run's row, with what the trainer writes of its data."""
    plan = runs.read_json(folder / runs.PLAN)
    runs.write_json(folder / runs.PLAN, plan | {"epochs": epochs, "lr": 8e-3})
    config = {"model": {"context": 192}, "seed": 3}
    runs.write_json(folder / runs.CONFIG, {"digest": "0" * 16, "data_fingerprint": "f" * 16, "config": config})
    runs.write_json(folder / runs.DONE, runs.read_json(folder / runs.DONE) | done)
    with open(folder / runs.METRICS, "a") as f:
        for kind, text in (("train", "old"), ("train", seen), ("val", None)):
            f.write(
                json.dumps({"kind": kind, "step": 9, "tokens": 9, "loss": 2.0} | ({"ids_hash": text} if text else {})) + "\n"
            )
        f.write('{"kind": "train", "ids_ha')
    (row,) = load.runs(folder).rows
    return row


def test_what_a_run_was_trained_on(tmp_path):
    """Fails when repeated tokens count as unique, the order is not the last one seen, or it is equal for other data."""
    root = synthetic.write_sweep(tmp_path / "s", sizes=(50_000,))
    folder = root / "causal-50K-10x"
    tokens = load.runs(folder).rows[0].n_tokens
    assert load.runs(folder).rows[0].unique_tokens is load.runs(folder).rows[0].order is None  # nothing is recorded
    once, twice = _as_trained(folder, 0.5, "aa"), _as_trained(folder, 2.5, "bb")
    assert (once.unique_tokens, twice.unique_tokens) == (tokens, pytest.approx(tokens / 2.5))
    assert (once.order, twice.order) == (f"{'f' * 16}/192/aa", f"{'f' * 16}/192/bb")
    assert (once.lr, once.batch_tokens, once.seed) == (8e-3, synthetic.BATCH, 3)
    sources = {"a": {"tokens": 300, "epochs": 3.0}, "b": {"tokens": 500, "epochs": 0.1}}
    assert _as_trained(folder, 2.0, "aa", sources=sources).unique_tokens == 600
    assert load.runs(root).column("lr").shape == load.runs(root).column("unique_tokens").shape == (3,)


def test_curves(tmp_path):
    """Fails when a null or infinite loss reaches a figure, or a branch's tokens do not count from the trunk's start."""
    root = synthetic.write_sweep(tmp_path / "s")
    path = root / "causal-50K-10x" / runs.METRICS
    extra = {"kind": "train", "step": 10**6, "tokens": 10**9, "loss": None}
    path.write_text(
        path.read_text() + json.dumps(extra) + "\n" + json.dumps(extra | {"step": 10**6 + 1, "loss": math.nan}) + "\n"
    )
    table = load.runs(root)
    curve = next(c for c in load.curves(root, table) if c.id == "causal-50K-10x")
    assert curve.tokens[0] > 0.75 * 500_000 and curve.tokens[-1] < 10**9 and len(curve.val_loss) == 1


def test_several_rows_of_one_run_are_told(tmp_path):
    """Fails when checkpoints of one run are taken for independent rows without a word, or a table with clusters is doubted."""
    rows = "".join(f"{i // 3},{1e7 * 2 ** (i // 3)},{1e9 * 2 ** (i % 3)},{3 - 0.1 * i}\n" for i in range(9))
    (tmp_path / "runs.csv").write_text("run,N,D,loss\n" + rows)
    notes = load.csv(tmp_path / "runs.csv").notes
    assert any("column 'run' holds 3 names in 9 rows" in n and "--map cluster=run" in n for n in notes)
    assert not any("3 names" in n for n in load.csv(tmp_path / "runs.csv", {"cluster": "run"}).notes)
