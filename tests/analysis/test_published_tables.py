"""Published fits of public tables, redone: exact optima of the objectives that they name, and what follows from them."""

import csv
import json

import numpy as np
import pytest

from analysis import fit, laws, load
from analysis.laws.formula import Formula

RAW = 1e5  # shift at which log(loss + shift) is linear in loss to 1e-4, so that residuals are those of the loss itself


@pytest.fixture(scope="module")
def known(data):
    return json.loads((data / "references.json").read_text())


def lines(data, name):
    with open(data / name, newline="") as f:
        return list(csv.DictReader(f))


def columns(rows, loss="loss"):
    return [np.array([float(r[k]) for r in rows]) for k in ("N", "D", loss)]


def raw_residuals(start, tied=False):
    """L(N, D) on raw losses, which others fit; centred by hand, started at a fit of log losses."""
    names = ("E", "A", "B", "alpha") if tied else ("E", "A", "B", "alpha", "beta")
    second = "alpha" if tied else "beta"
    centre = {"N": np.log(5e8), "D": np.log(1e10)}

    def value(p, c):
        n, d = np.log(c["N"]) - centre["N"], np.log(c["D"]) - centre["D"]
        return p["E"] + p["A"] * np.exp(-p["alpha"] * n) + p["B"] * np.exp(-p[second] * d)

    at = start | {"A": start["A"] * 5e8 ** -start["alpha"], "B": start["B"] * 1e10 ** -start[second]}
    return Formula("raw", names, ("E", "A", "B"), ("N", "D"), value, lambda c, m: {k: at[k] for k in names}, "", RAW)


@pytest.mark.parametrize("flops", ["C", "C2"])
def test_chinchilla_allocation(known, chinchilla, flops):
    """Fails when the exact fit and the closed form together leave the published allocation by more than 0.1 %."""
    wanted = known["chinchilla_allocation"]
    suffix = flops.removeprefix("C")
    n, d, loss = laws.optimum(fit.fit(chinchilla).params, wanted[flops])
    assert np.allclose([n, d, loss], [wanted[k + suffix] for k in ("N", "D", "L")], rtol=1e-3)


def test_chinchilla_published_within_its_tolerance(known, chinchilla):
    """Fails when neither the exact Huber optimum nor least absolute deviations, which were published, are what we fit.

    Besiroglu et al. 2024 print A 482.01, B 2085.43, alpha .3478, beta .3658: their scale parameter drives delta to 5e-9.
    """
    for f in (fit.fit(chinchilla), fit.fit(chinchilla, loss="l1", bumps=fit.BUMPS)):
        for name in f.params:
            value, tolerance = known["chinchilla_published_tolerance"][name]
            assert f.params[name] == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize(
    ("experiment", "alpha", "beta", "floor", "objective"),
    [
        ("ml_scalefit__massivetext__chinchilla", 0.3692, 0.4024, 1.8719, 13.0887),
        ("llama_3__raw_loss", 0.2872, 0.3170, 0.5964, 2.2759),
        ("marin_202603__comma__llama_2", 0.6635, 0.3483, 2.7014, 22.9076),
        ("marin_202603__dclm__llama_2", 0.6633, 0.4092, 2.5930, 22.8369),
    ],
)
def test_isoflop_surfaces(data, experiment, alpha, beta, floor, objective):
    """Fails when Huber(1e-3) of raw losses is not minimised: the best known values (mean x 1e6, all points)."""
    n, d, loss = columns([r for r in lines(data, "isoflop_llama3_marin_apple.csv") if r["experiment"] == experiment])
    start = fit.fit(load.table(n, d, loss)).params
    f = fit.fit_rows(fit.Rows.of({"N": n, "D": d}, loss), raw_residuals(start), delta=1e-3 / RAW)
    r = np.abs(f.at({"N": n, "D": d})[0] - loss)
    found = 1e6 * np.mean(np.where(r <= 1e-3, r**2 / 2, 1e-3 * (r - 5e-4)))
    assert found <= objective * (1 + 1e-4)
    assert [f.params[k] for k in ("alpha", "beta", "E")] == pytest.approx([alpha, beta, floor], abs=2e-4)


@pytest.mark.parametrize(("dataset", "reference"), [("rpj", "gadre_rpj_c4eval"), ("c4_original", "gadre_c4_c4eval")])
def test_gadre_over_training(data, known, dataset, reference):
    """Fails when the tied law on five runs misses the coefficients or the held-out errors that Gadre et al. 2024 print.

    Their objective is least squares of raw loss, four parameters on five points; of log loss, ours, the same runs give errors
    of 1.05 and 1.10 % in place of .71 and .73 % (RedPajama) and 3.88 % in place of 4.30 % (C4).
    """
    rows = [r for r in lines(data, "gadre_c4_rpj.csv") if r["dataset_name"] == dataset]
    small = [r for r in rows if "open_lm" not in r["name"] and r["cc_mult"] == "1"]
    small += [r for r in rows if "d=96_" in r["name"] and r["cc_mult"] == "16"]
    n, d, loss = columns(small, "loss_c4_val")
    ours = fit.fit(load.table(n, d, loss), laws.TIED, loss="squared")
    f = fit.fit_rows(fit.Rows.of({"N": n, "D": d}, loss), raw_residuals(ours.params, tied=True), loss="squared")
    eta, wanted = -f.params["alpha"], known[reference]
    assert eta == pytest.approx(wanted["eta"], abs=1e-4) and f.params["E"] == pytest.approx(wanted["E"], abs=1e-4)
    assert f.params["A"] * 5e8**-eta == pytest.approx(wanted["a"], rel=1e-3)
    assert f.params["B"] * 1e10**-eta * 6 ** (-eta / 2) == pytest.approx(wanted["b"], rel=1e-3)
    for name, said in wanted["pred"].items():
        model, multiple = ("open_lm_1b", "32") if name.startswith("1.4B") else ("open_lm_7b", "1")
        target = next(r for r in rows if r["model_name"] == model and r["cc_mult"] == multiple)
        n, d, measured = columns([target], "loss_c4_val")
        error = 100 * abs(f.at({"N": n, "D": d})[0, 0] / measured[0] - 1)
        assert error == pytest.approx(said["loss_rel_err_pct"], abs=wanted["tol_pct"])


@pytest.mark.parametrize(
    ("task", "alpha", "beta", "floor", "errors"),
    [
        ("mmlu_avg_test_5shot", 0.226, 0.236, 0.454, (1.28, 0.18)),
        ("hellaswag_val_5shot", 0.196, 0.256, 0.502, (-0.29, -1.17)),
        ("arc_easy_test_5shot", 0.661, 0.419, 0.558, (13.3, 16.0)),
        ("piqa_val_5shot", 0.398, 0.153, 0.722, (-2.0, -2.7)),
    ],
)
def test_olmo_ladder_step_1(data, task, alpha, beta, floor, errors):
    """Fails when sixteen runs of bits per byte do not give the ladder's own optimum (Huber 1e-3 of logs) and target errors."""
    rows = [r for r in lines(data, "olmo_ladder_final.csv") if r["task"] == task]
    f = fit.fit(load.table(*columns([r for r in rows if r["mode"] == "train"], "bpb_ma5")))
    assert [f.params[k] for k in ("alpha", "beta", "E")] == pytest.approx([alpha, beta, floor], abs=6e-4)
    assert f.certificate.agreeing == f.certificate.starts and not f.edges
    n, d, measured = columns([r for r in rows if r["mode"] == "eval"], "bpb_ma5")
    assert 100 * (f.expected(n, d) / measured - 1) == pytest.approx(errors, abs=0.06)
