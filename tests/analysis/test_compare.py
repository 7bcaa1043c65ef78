"""Two sweeps against each other: multipliers known in closed form, what twins are worth, and what cannot be compared."""

import dataclasses
import json
import math
import re
import zlib

import numpy as np
import pytest
import synthetic
from scipy import stats

from analysis import compare, fit, laws, load, multiplier, pairing
from scaling import runs

TRUTH = synthetic.TRUTH
WIDE = tuple(np.geomspace(5e4, 2e6, 8))


def table(law=TRUTH, x=1.0, y=1.0, noise=0.0, sizes=synthetic.SIZES, ratios=(10.0, 20.0, 40.0), g=1.0, k=6.0, name="sweep"):
    """A sweep with L(x N, y D) of a known law and C = k N^g D, three rows to a trunk."""
    n, d = np.repeat(np.array(sizes, float), len(ratios)), np.outer(sizes, ratios).ravel()
    loss = laws.CHINCHILLA.loss(law, n * x, d * y) * np.exp(noise)
    out = load.table(n, d, loss, [f"trunk {i // len(ratios)}" for i in range(len(n))])
    rows = tuple(dataclasses.replace(r, flops=k * r.n_params**g * r.n_tokens, seed=0) for r in out.rows)
    return dataclasses.replace(out, rows=rows, source=name)


def comparable(a, b, twins=False):
    """The two as ``pairing.comparable`` returns run folders, with members that share their order, or none."""
    member = pairing.Member("f", "s", (), "bytes", 192, 256, 0, {1536: 7}, None, None, None)
    found = tuple({r.id: member for r in t.rows} if twins else {} for t in (a, b))
    return pairing.Comparable(a, b, found, pairing.NATS, ())


def slopes(params):
    """(E, K, gamma) of L*(C) = E + K C^-gamma at C = 6ND, from Hoffmann et al. 2022, equation 4, written out again."""
    e, a, b, alpha, beta = (params[k] for k in ("E", "A", "B", "alpha", "beta"))
    g, gamma = (alpha * a / (beta * b)) ** (1 / (alpha + beta)), alpha * beta / (alpha + beta)
    return e, (a * g**-alpha + b * g**beta) * 6**gamma, gamma


@pytest.mark.parametrize(("x", "y", "g"), [(0.7, 0.7, 1.0), (1.3, 1.0, 1.0), (0.8, 0.9, 0.9)])
def test_known_multiplier(x, y, g):
    """Fails when the multiplier of L(x N, y D) over L(N, D), 1 / (x^g y) at C = k N^g D, is off or drifts with compute."""
    c = multiplier.compare(comparable(table(g=g, k=9), table(x=x, y=y, g=g, k=9)), 1e-2, draws=100)
    assert np.exp(c.log_multiplier[c.inside]) == pytest.approx(1 / (x**g * y), rel=1e-4)
    value, _ = c.mean(c.draws)
    assert value == pytest.approx(1 / (x**g * y), rel=1e-4) and c.change[0] == pytest.approx(1, rel=1e-3)
    first, second = c.sides
    n, d, loss = laws.optimum(TRUTH, float(c.flops[c.inside][7]), laws.Cost(9, g))
    assert first.losses(first.fit.params, c.flops[c.inside][7]) == pytest.approx(float(loss), rel=1e-6)
    assert min(synthetic.SIZES) / 1.03 < n < max(synthetic.SIZES) * 1.03 and d > 0  # inside means among the runs
    at = second.reach(second.fit.params, second.losses(second.fit.params, 1e12))
    assert float(at) == pytest.approx(1e12, rel=1e-9)


def test_compute_counted_otherwise_scales_the_multiplier():
    """Fails when the cost of one sweep is used for both: the same law at twice the FLOPs needs twice the FLOPs."""
    c = multiplier.compare(comparable(table(), table(k=12)), 1e-2, draws=100)
    assert np.exp(c.log_multiplier[c.inside]) == pytest.approx(2, rel=1e-4)


def test_intervals_cover_and_twins_narrow_them():
    """Fails when twins are redrawn with weights of their own (the paired interval is then as wide), or intervals miss.

    Of the noise nine tenths of the variance are common, as with shared data order; 90 % intervals should miss 1 of 12.
    """
    rng, hits, flat, widths = np.random.default_rng(3), 0, 0, []
    for _ in range(12):
        shared = 0.003 * rng.standard_normal(24)
        a, b = (table(x=s, y=s, noise=shared + 0.001 * rng.standard_normal(24), sizes=WIDE) for s in (1.0, 0.8))
        c = multiplier.compare(comparable(a, b, twins=True), 1e-2, draws=100)
        ends = [c.mean(draws)[1] for draws in (c.draws, c.unpaired)]
        hits += ends[0][0] <= 1 / 0.64 <= ends[0][1]
        flat += c.constant
        widths.append([math.log(hi / lo) for lo, hi in ends])
    paired, unpaired = np.median(widths, axis=0)
    assert hits >= 9 and flat >= 9
    assert paired < 0.65 * unpaired


def test_equal_noise_cancels_only_between_twins():
    """Fails when the weights of matched clusters are not the same, or two sweeps are paired by a shared default seed."""
    noise = 0.004 * np.random.default_rng(0).standard_normal(18)
    a, b = (table(noise=noise, name=name) for name in ("a", "b"))
    together = multiplier.compare(comparable(a, b, twins=True), 1e-2, draws=100)
    assert together.twin_clusters == 6 and together.paired
    assert together.mean(together.draws)[1] == pytest.approx((1, 1), abs=1e-6)
    assert np.diff(together.mean(together.unpaired)[1])[0] > 0.02
    apart = multiplier.compare(comparable(a, b), 1e-2, draws=100)
    assert not apart.paired and np.diff(apart.mean(apart.draws)[1])[0] > 0.02
    # one trunk of b has another seed: the five others are still redrawn together
    b = dataclasses.replace(b, rows=tuple(dataclasses.replace(r, seed=int(r.cluster == "trunk 2")) for r in b.rows))
    some = multiplier.compare(comparable(a, b, twins=True), 1e-2, draws=100)
    assert some.twin_clusters == 5 and some.cells.twins == 15 and some.cells.count == 18


@pytest.mark.parametrize(
    ("ratios", "noise", "words"),
    [((200.0, 400.0, 800.0), 0.0, "passes beside its runs"), ((10.0, 20.0, 40.0), 0.05, "more than a factor of 4")],
)
def test_multipliers_that_rest_on_nothing(ratios, noise, words):
    """Fails when frontiers far from every run, or an interval over orders of magnitude, end in a multiplier all the same."""
    rng = np.random.default_rng(5)
    a, b = (table(x=s, y=s, ratios=ratios, noise=noise * rng.standard_normal(18)) for s in (1.0, 0.9))
    c = multiplier.compare(comparable(a, b), 1e-2, draws=100)
    assert not c.verdict.identified and words in " ".join(c.verdict.reasons) and not c.crossover.identified
    assert compare.headline(c).startswith("no multiplier of ")


FLATTER = {"E": 1.0, "A": 28.0, "B": 680.0, "alpha": 0.5, "beta": 0.58}


def test_crossover_in_closed_form():
    """Fails when the crossing of two frontiers, (K_a / K_b)^(1 / (gamma_a - gamma_b)) at equal E, is off or misjudged."""
    (_, k_a, gamma_a), (_, k_b, gamma_b) = slopes(TRUTH), slopes(FLATTER)
    truth = (k_a / k_b) ** (1 / (gamma_a - gamma_b))
    rng = np.random.default_rng(1)
    a, b = (table(law, sizes=WIDE, noise=3e-4 * rng.standard_normal(24)) for law in (TRUTH, FLATTER))
    c = multiplier.compare(comparable(a, b), 1e-2, draws=150)
    x = c.crossover
    assert x.shared[0] < truth < x.shared[1]
    assert x.identified and x.first_better_above and x.inside > 0.9
    assert x.flops == pytest.approx(truth, rel=0.2) and x.interval[0] < truth < x.interval[1]
    assert not c.constant and "CHANGES with scale" in compare.headline(c)
    exact = multiplier.compare(comparable(*(table(law, sizes=WIDE) for law in (TRUTH, FLATTER))), 1e-2, draws=100)
    assert exact.crossover.flops == pytest.approx(truth, rel=2e-3)
    turned = multiplier.compare(comparable(*(table(law, sizes=WIDE) for law in (FLATTER, TRUTH))), 1e-2, draws=100)
    assert turned.crossover.flops == pytest.approx(truth, rel=2e-3) and not turned.crossover.first_better_above


def test_no_crossover_is_claimed_without_one():
    """Fails when sweeps that run in parallel cross, or a crossing in the noise or beyond the runs counts as identified."""
    c = multiplier.compare(comparable(table(sizes=WIDE), table(x=0.8, y=0.8, sizes=WIDE)), 1e-2, draws=100)
    assert c.crossover.flops is None and c.crossover.none == 1 and not c.crossover.identified
    assert "crossover: none" in "\n".join(compare.in_words(c))
    rng = np.random.default_rng(2)
    equal = [table(noise=0.003 * rng.standard_normal(18)) for _ in range(2)]
    assert not multiplier.compare(comparable(*equal), 1e-2, draws=100).crossover.identified
    small = multiplier.compare(comparable(*(table(law, sizes=WIDE[:4]) for law in (TRUTH, FLATTER))), 1e-2, draws=100)
    assert small.crossover.outside == 1 and not small.crossover.identified  # the crossing lies above these sizes


def test_tokens_in_step_with_parameters():
    """Fails when a frontier is made up where D = 20 N in all rows: along that line L(x N, x D) needs 1 / x^2 the compute."""
    rng = np.random.default_rng(0)
    sizes = np.geomspace(5e4, 5e6, 14)
    a, b = (table(x=s, y=s, sizes=sizes, ratios=(20.0,), noise=1e-4 * rng.standard_normal(14)) for s in (1.0, 0.8))
    c = multiplier.compare(comparable(a, b), 1e-2, draws=100)
    assert np.exp(c.log_multiplier[c.inside]) == pytest.approx(1 / 0.64, rel=0.02)
    assert c.sides[0].line == pytest.approx((1, math.log(20)), abs=1e-3)
    assert sum("followed along D = 20 N" in note for note in c.notes) == 2
    mixed = multiplier.compare(comparable(a, table(x=0.8, y=0.8, sizes=sizes)), 1e-2, draws=100)
    assert np.exp(mixed.log_multiplier[mixed.inside]) == pytest.approx(1 / 0.64, rel=0.02)  # both along the line of the first


def test_a_term_that_ran_away_on_the_line_is_no_doubt():
    """Fails when of rows on one line, where one power describes the curve as well as two, a runaway exponent is held against
    the multiplier."""
    sizes = np.geomspace(5e4, 5e6, 14)
    noise = 4e-3 * np.random.default_rng(1).standard_normal(14)
    a, b = (table(x=s, sizes=sizes, ratios=(20.0,), noise=noise * (s == 1)) for s in (1.0, 0.8))
    c = multiplier.compare(comparable(a, b), 1e-2, draws=100)
    assert any(edge.startswith("beta ") for edge in c.sides[0].fit.edges)
    assert not any("beta" in said for said in (*c.verdict.reasons, *c.notes))


def test_cells():
    """Fails when cells are matched across sizes, or their interval is not Student's over clusters (scipy's t test)."""
    noise = 0.003 * np.random.default_rng(4).standard_normal((2, 18))
    a, b = (table(x=s, y=s, noise=e) for s, e in zip((1.0, 0.9), noise, strict=True))
    loner = [dataclasses.replace(t, rows=tuple(dataclasses.replace(r, cluster=r.id) for r in t.rows)) for t in (a, b)]
    cells = multiplier.compare(comparable(*loner), 1e-2, draws=100).cells
    difference = loner[1].column("loss") - loner[0].column("loss")
    expected = stats.ttest_1samp(difference, 0).confidence_interval(0.9)
    assert cells.count == cells.clusters == 18 and cells.difference == pytest.approx(difference.mean())
    assert cells.interval == pytest.approx((expected.low, expected.high))
    assert cells.multiplier == pytest.approx(1 / 0.81, rel=0.06)
    clustered = multiplier.compare(comparable(a, b), 1e-2, draws=100).cells
    means = difference.reshape(6, 3).mean(1)  # equal clusters: the t interval of their means
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.9)
    assert clustered.clusters == 6 and clustered.interval == pytest.approx((expected.low, expected.high))


def test_cells_of_other_sizes():
    """Fails when parameters that differ by a few percent count as a loss difference, or by a factor as one cell."""
    near = multiplier.compare(comparable(table(), table(sizes=[1.05 * n for n in synthetic.SIZES])), 1e-2, draws=100)
    assert near.cells is None  # tokens differ by as much
    shifted = table(sizes=[1.05 * n for n in synthetic.SIZES], ratios=tuple(r / 1.05 for r in (10, 20, 40)))
    cells = multiplier.compare(comparable(table(), shifted), 1e-2, draws=100).cells
    assert cells.count == 18 and cells.moved == pytest.approx(0.05)
    assert cells.difference == pytest.approx(0, abs=1e-6) and cells.multiplier == pytest.approx(1, abs=1e-4)


# ---- run folders

SIZES = synthetic.SIZES[:4]


def folder(root, factor=1.0, seed=0, order="a", data="one", noise=0, loss=None, **config):
    """A sweep as the trainer leaves it, with config.json, hashes of the data order, and losses ``factor`` times the law's."""
    synthetic.write_sweep(root, sizes=SIZES, seed=noise, curves=False)
    sweep = json.loads((root / runs.SWEEP).read_text())
    for m in sweep["members"]:
        m["seed"] = seed
        path = root / m["id"]
        model, stores = {"vocab_size": 260, "context": 192}, {"store": "tokens/one", "vocab": "bytes", "val_windows": 256}
        about = {
            "model": model | {k: v for k, v in config.items() if k in model},
            "data": stores | {k: v for k, v in config.items() if k not in model},
            "seed": seed,
        }
        (path / runs.CONFIG).write_text(json.dumps({"schema": 1, "data_fingerprint": data, "config": about}))
        row = {
            "kind": "train",
            "step": 9,
            "tokens": m["tokens"],
            "loss": 1.0,
            "ids_hash": f"{zlib.crc32((order + str(m['tokens'])).encode()):012x}",
        }
        (path / runs.METRICS).write_text(json.dumps(row) + "\n")
        done = json.loads((path / runs.DONE).read_text())
        for key in ("val_loss", "val_bpb"):
            done[key] *= factor
        if "mixture" in config:
            done["sources"] = {
                s: {"tokens": 1, "epochs": 0.5, "loss": done["val_loss"] + 0.1 * i} for i, s in enumerate(("books", "code"))
            }
        (path / runs.DONE).write_text(json.dumps(done | (loss or {})))
    (root / runs.SWEEP).write_text(json.dumps(sweep))
    return root


def joined(a, b, source=None):
    return pairing.comparable(load.runs(a), load.runs(b), source)


def test_twins_of_run_folders(tmp_path):
    """Fails when runs of another seed, order, text position or window length are taken for twins, or real twins are not."""
    a = folder(tmp_path / "a")
    for kind, expected in (({}, 12), ({"seed": 1}, 0), ({"order": "b"}, 0), ({"context": 256}, 0)):
        both = joined(a, folder(tmp_path / f"b{len(list(tmp_path.iterdir()))}", 1.01, noise=1, **kind))
        found = pairing.pairs(both)
        assert len(found) == 12 and sum(p.twins for p in found) == expected
        assert len(pairing.twin_clusters(both, found)) == (4 if expected else 0)
        assert ("windows differ" in " ".join(both.notes)) == ("context" in kind)


def test_command_on_run_folders(tmp_path, capsys):
    """Fails when the command, its figure or its JSON breaks, or the paired and the unpaired interval are not both there."""
    a, b = folder(tmp_path / "x" / "ladder"), folder(tmp_path / "y" / "ladder", 1.01)
    assert compare.main(["--runs", str(a), "--against", str(b), "--out", str(tmp_path / "out"), "--draws", "100"]) == 0
    said = capsys.readouterr().out
    assert "y/ladder needs" in said and "4 trunks of twins (residuals correlate 1.00) redrawn together" in said
    text = (tmp_path / "out" / "compare.json").read_text()
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    head = found["headline"]
    assert head["paired"] and head["twin_clusters"] == 4 and head["interval"][0] < head["multiplier"] < head["interval"][1]
    width, apart = (math.log(ends[1] / ends[0]) for ends in (head["interval"], head["interval_unpaired"]))
    assert width < 0.5 * apart  # the residuals of the two are the same numbers
    assert found["cells"]["twins"] == 12 and found["first"]["law"]["form"] == "chinchilla"
    inside = [row for row in found["budgets"] if not row["extrapolated"]]
    assert head["flops"] == [inside[0]["flops"], inside[-1]["flops"]] and len(inside) == multiplier.BUDGETS
    assert (tmp_path / "out" / "compare.png").stat().st_size > 20_000
    assert "compute multiplier" in (tmp_path / "out" / "compare.svg").read_text()


def test_units_and_sources(tmp_path):
    """Fails when two vocabularies are compared in nats, or mixtures by a loss that each weights as it was trained."""
    a = folder(tmp_path / "a")
    both = joined(a, folder(tmp_path / "b", 1.01, data="two", vocab="1024", vocab_size=1024))
    assert both.unit == pairing.BITS and not pairing.pairs(both) and "if the text is the same" in both.notes[0]
    for found, factor in ((both.a, 1.0), (both.b, 1.01)):
        assert found.fitted[0].loss == pytest.approx(factor * load.runs(a).fitted[0].loss / math.log(2))
    mixtures = [
        folder(tmp_path / str(i), 1 + 0.01 * i, mixture=[["tokens/books", w], ["tokens/code", 1]]) for i, w in enumerate((3, 1))
    ]
    with pytest.raises(load.LoadError, match=r"other weights.*--source books"):
        joined(*mixtures)
    both = joined(*mixtures, source="code")
    assert both.b.fitted[3].loss == pytest.approx(load.runs(mixtures[1]).fitted[3].loss + 0.1)
    with pytest.raises(load.LoadError, match=r"--source prose: .* there are books, code"):
        joined(*mixtures, source="prose")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"data": "two"}, "data one, .* data two .*losses on two texts are not comparable"),
        ({"data": "two", "vocab": "1024", "loss": {"val_bpb": None}}, "has no val_bpb"),
        ({"factor": 3.0}, "no loss that both sweeps reach"),
    ],
)
def test_what_cannot_be_compared(tmp_path, capsys, other, words):
    """Fails when losses on two texts, or that never meet, are compared all the same, or the refusal is a traceback."""
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b", **({"factor": 1.01} | other))
    assert compare.main(["--runs", str(a), "--against", str(b), "--draws", "100"]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (a / "compare.json").exists()


def csv(path, text):
    path.write_text(text)
    return str(path)


def test_bad_tables(tmp_path, capsys):
    """Fails when one folder given twice, or N or C counted in two ways, yields a multiplier."""
    a = table(noise=0.001 * np.random.default_rng(0).standard_normal(18))
    lines = [f"{r.n_params},{r.n_tokens},{r.loss},{r.flops}" for r in a.rows]
    body = "\n".join(lines)
    whole = csv(tmp_path / "a.csv", f"N,D,loss,C\n{body}\n")
    six = csv(tmp_path / "b.csv", "N,D,loss\n" + "\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    other = csv(tmp_path / "c.csv", "params,D,loss,C\n" + "\n".join(lines[1:]) + "\n")
    few = csv(tmp_path / "d.csv", "N,D,loss,C\n" + "\n".join(lines[:4]) + "\n")
    for second, words in (
        (whole, "hold the same rows"),
        (other, "N is column 'N' in .*a.csv and column 'params'"),
        (few, "4 rows with 2 sizes"),
        (six, "hold the same rows"),
        (str(tmp_path / "e.csv"), "no such file"),
    ):
        assert compare.main(["--csv", whole, "--against", second, "--out", str(tmp_path / "o"), "--draws", "100"]) == 2
        assert re.search(words, capsys.readouterr().err)
    half = csv(tmp_path / "f.csv", "N,D,loss\n" + "\n".join(line.rpartition(",")[0] for line in lines[:15]) + "\n")
    assert compare.main(["--csv", whole, "--against", half, "--out", str(tmp_path / "o")]) == 2
    assert "C is column 'C'" in capsys.readouterr().err
    assert compare.main(["--csv", whole, "--against", half, "--source", "x", "--out", str(tmp_path / "o")]) == 2
    assert "--source names a validation loss of run folders" in capsys.readouterr().err


def test_public_sweeps(data, tmp_path):
    """Fails when two public data sets on one validation text (Gadre et al. 2024: C4 and RedPajama, loss on C4) are not told
    apart, or the multiplier of their frontiers disagrees with that of their matched runs.
    """
    header, *lines = (data / "gadre_c4_rpj.csv").read_text().splitlines()
    column = header.split(",").index("dataset_name")
    mapping = {"N": "N", "D": "D", "C": "flops", "loss": "loss_c4_val", "id": "name"}
    tables = []
    for name in ("c4_original", "rpj"):
        rows = [line for line in lines if line.split(",")[column] == name]
        tables.append(load.csv(csv(tmp_path / f"{name}.csv", "\n".join([header, *rows]) + "\n"), mapping))
    c = multiplier.compare(pairing.comparable(*tables), draws=200)
    value, (lo, hi) = c.mean(c.draws)
    assert 1.1 < lo < value < hi < 2.5
    assert c.cells.count == 33 and lo < c.cells.multiplier < hi and c.cells.multiplier_interval[0] > 1.4
    assert fit.fit(tables[0]).certificate.agreeing > 1
