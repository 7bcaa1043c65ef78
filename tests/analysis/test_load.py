"""Tables: every problem is named with file, row, column, value and remedy."""

import json
import math

import pytest
import synthetic

from analysis import load
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
    with pytest.raises(load.LoadError, match=r"a\.csv:2: loss_stderr=''"):
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
