"""One table under every FLOP convention: which way exponents move, and that equal conventions agree."""

import json

import numpy as np
import pytest
import synthetic

from analysis import conventions, fit, laws, load
from scaling import flops, runs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A folder whose losses follow the law in non-embedding N, without noise; total N grows slower."""
    return synthetic.write_sweep(tmp_path_factory.mktemp("sweep") / "ladder", noise=0.0, curves=False)


def rewritten(root, out, change):
    """A copy of the folder with ``change(n_params, flops, tokens)`` applied to every member."""
    import shutil

    shutil.copytree(root, out)
    sweep = json.loads((out / runs.SWEEP).read_text())
    for m in sweep["members"]:
        change(m["n_params"], m["flops"], m["tokens"])
        done = json.loads((out / m["id"] / runs.DONE).read_text())
        (out / m["id"] / runs.DONE).write_text(json.dumps(done | {"flops": m["flops"]}))
    (out / runs.SWEEP).write_text(json.dumps(sweep))
    return out


def by_name(found):
    return {r.name: r for r in found.rows}


def test_direction_of_every_convention(sweep):
    """Fails when N or C of one convention reaches another, or a does not move as Pearce and Song 2024 derive.

    N and total N are related by a local slope s = d log N_total / d log N < 1, so alpha of total N is alpha / s, and
    a = beta / (alpha / s + beta) at 6ND; matmul FLOPs of this folder go as N^0.98.
    """
    found = conventions.table_of(load.runs(sweep), draws=100)
    rows, alpha, beta = by_name(found), synthetic.TRUTH["alpha"], synthetic.TRUTH["beta"]
    assert list(rows) == list(flops.CONVENTIONS)
    assert {k: r.n_definition for k, r in rows.items()} == {
        "matmul_causal": "non_embedding", "matmul_full": "non_embedding", "6N": "total", "6N_nonembedding": "non_embedding",
    }  # fmt: skip
    kaplan = rows["6N_nonembedding"]
    assert kaplan.values["alpha"] == pytest.approx(alpha, rel=1e-4) and kaplan.cost == laws.Cost(pytest.approx(6), 1.0)
    assert kaplan.values["a"] == pytest.approx(beta / (alpha + beta), rel=1e-4)
    for name in ("matmul_causal", "matmul_full"):
        assert rows[name].cost.g == pytest.approx(0.98, rel=1e-6)
        assert rows[name].values["a"] == pytest.approx(beta / (alpha + 0.98 * beta), rel=1e-4)
    total = load.runs(sweep, "total")
    slope = np.polyfit(np.log(load.runs(sweep).column("n_params")), np.log(total.column("n_params")), 1)[0]
    hoffmann = rows["6N"].values
    assert slope < 0.95 and hoffmann["alpha"] == pytest.approx(alpha / slope, rel=0.03)
    assert hoffmann["a"] == pytest.approx(beta / (alpha / slope + beta), rel=0.03) and hoffmann["a"] < kaplan.values["a"] - 0.01
    assert [r.values["shift"] for r in found.rows] == [r.values["a"] - found.rows[0].values["a"] for r in found.rows]


def test_optimum_at_the_reference_run(sweep):
    """Fails when N* and D* of a convention do not cost the budget of the reference run, or it is not the largest run."""
    found = conventions.table_of(load.runs(sweep), draws=100)
    assert found.reference == "causal-195K-40x"
    for r in found.rows:
        done = runs.read_json(sweep / found.reference / runs.DONE)
        assert r.flops == done["flops"][r.name]
        assert r.cost.flops(r.values["n_params"], r.values["n_tokens"]) == pytest.approx(r.flops, rel=1e-9)


def test_proportional_conventions_agree(sweep, tmp_path):
    """Fails when a factor common to all FLOPs moves an exponent or an optimum."""

    def proportional(n_params, by_convention, tokens):
        by_convention["matmul_causal"] = 9.5 * n_params["total"] * tokens

    root = rewritten(sweep, tmp_path / "s", proportional)
    rows = by_name(conventions.table_of(load.runs(root, "total"), draws=100))
    for name in ("a", "alpha", "n_params", "n_tokens"):
        assert rows["matmul_causal"].values[name] == pytest.approx(rows["6N"].values[name], rel=1e-9)
    assert rows["6N"].intervals["shift"] == pytest.approx((0, 0), abs=1e-9)


def test_shifts_are_better_known_than_exponents(tmp_path):
    """Fails when conventions are redrawn with other random weights, so that the noise of a enters the shift."""
    root = synthetic.write_sweep(tmp_path / "s", noise=0.004, curves=False)
    found = conventions.table_of(load.runs(root), draws=200)
    row = by_name(found)["6N"]
    width = {name: np.diff(row.intervals[name])[0] for name in ("a", "shift")}
    assert width["shift"] < 0.3 * width["a"] and row.intervals["shift"][1] < 0
    lo, hi = row.intervals["n_params"]
    assert lo < row.values["n_params"] < hi
    said = "\n".join(conventions.in_words(found))
    assert "6N_nonembedding" in said and "a moves from" in said and "(6N, N total)" in said
    json.dumps(conventions.to_json(found), allow_nan=False)


def test_rows_left_out_stay_out(sweep):
    """Fails when the folder is read anew without the table's own choice of rows."""
    table = load.runs(sweep)
    without = table.where(lambda r: 60e3 < r.n_params < 190e3)
    found = conventions.table_of(without, draws=100)
    assert found.reference == "causal-160K-40x"
    done = runs.read_json(sweep / found.reference / runs.DONE)
    assert {r.name: r.flops for r in found.rows} == done["flops"]


def test_csv(tmp_path):
    """Fails when the column C of a CSV is not set beside 6ND, or one without it is refused."""
    table = load.runs(synthetic.write_sweep(tmp_path / "s", noise=0.0, curves=False))
    lines = [f"{r.n_params},{r.n_tokens},{r.loss},{12 * r.n_params**0.9 * r.n_tokens}" for r in table.fitted]
    (tmp_path / "a.csv").write_text("N,D,loss,flops\n" + "\n".join(lines))
    (tmp_path / "b.csv").write_text("N,D,loss\n" + "\n".join(line.rpartition(",")[0] for line in lines))
    own, six = conventions.table_of(load.csv(tmp_path / "a.csv"), draws=100).rows
    alpha, beta = synthetic.TRUTH["alpha"], synthetic.TRUTH["beta"]
    assert own.name == "column 'flops'" and own.values["a"] == pytest.approx(beta / (alpha + 0.9 * beta), rel=1e-4)
    assert six.name == "6ND" and six.values["a"] == pytest.approx(beta / (alpha + beta), rel=1e-4)
    alone = conventions.table_of(load.csv(tmp_path / "b.csv"), draws=100)
    assert len(alone.rows) == 1 and "6ND alone" in alone.notes[0]
    assert "nothing to compare" in conventions.in_words(alone)[-1]


def test_rows_in_step_have_no_exponents_to_compare():
    """Fails when exponents or an optimum are quoted of rows on one line of tokens against parameters."""
    n = np.geomspace(1e7, 1e9, 12)
    table = load.table(n, 20 * n, laws.CHINCHILLA.loss(synthetic.TRUTH, n, 20 * n))
    with pytest.raises(fit.FitError, match="tokens grow in step with parameters"):
        conventions.table_of(table, draws=100)
