"""Designs judged before they are trained: formulas against their definitions, simulation against first order, the command."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import synthetic

from analysis import checks, design, information, laws, load, study
from scaling import runs

PRIOR = information.Prior(
    laws.CHINCHILLA, {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}, 0.01, 0.5, "a test"
)
NAMES = ("E", "alpha", "beta", "a", "target", "run")


def grid(n, d, clusters=None):
    """A design with every size at every token count."""
    pairs = [(float(x), float(y)) for x in n for y in d]
    names = [f"{x:g}" if clusters else f"{x:g}-{y:g}" for x, y in pairs]
    rows = tuple(load.Row(f"{x:g}-{y:g}", "", x, y, 6 * x * y, None, cluster=c) for (x, y), c in zip(pairs, names, strict=True))
    return information.Design(load.Table("grid", rows), sum(r.flops for r in rows))


def width(ends):
    return ends[1] - ends[0]


def natural_covariance(shaped, prior):
    """Covariance of (E, A, B, alpha, beta) from its definition: numeric slopes of log loss, and V written out."""
    values = np.array([prior.params[k] for k in ("E", "A", "B", "alpha", "beta")])

    def logs(v):
        e, a, b, alpha, beta = v
        return np.log(e + a * shaped.columns["N"] ** -alpha + b * shaped.columns["D"] ** -beta)

    steps = np.diag(1e-5 * values)
    jacobian = np.stack([(logs(values + h) - logs(values - h)) / (2 * h.sum()) for h in steps], -1)
    names = [r.cluster for r in shaped.table.rows]
    noise = np.array([[(i == j) * (1 - prior.shared) + (a == b) * prior.shared for j, b in enumerate(names)]
                      for i, a in enumerate(names)]) * prior.noise**2  # fmt: skip
    left = np.linalg.pinv(jacobian, rcond=1e-14)
    return left @ noise @ left.T


@pytest.mark.parametrize("clusters", [False, True])
def test_first_order_is_the_definition(clusters):
    """Fails when slopes, the centring of coefficients, the noise that a trunk shares or the delta method is wrong."""
    shaped = grid(np.geomspace(3e7, 3e9, 5), np.geomspace(1e9, 1e11, 4), clusters)
    found = information.expect(shaped, PRIOR, (1e10, 2e11), 0.9, 20, 1.0, fresh=0).quantities
    covariance = natural_covariance(shaped, PRIOR)
    e, alpha, beta = PRIOR.params["E"], PRIOR.params["alpha"], PRIOR.params["beta"]
    slope = np.array([0, 0, 0, -beta, alpha]) / (alpha + beta) ** 2
    half = {
        "alpha": covariance[3, 3] ** 0.5, "beta": covariance[4, 4] ** 0.5, "a": (slope @ covariance @ slope) ** 0.5,
        "E": covariance[0, 0] ** 0.5 / e,
    }  # fmt: skip
    for name, sd in half.items():
        q = found[name]
        spread = np.log(q.linear[1] / q.value) if name == "E" else q.linear[1] - q.value
        assert spread == pytest.approx(1.6449 * sd, rel=1e-3)
    n, d = 1e10, 2e11
    powers = np.array([n**-alpha, d**-beta])
    at = np.array([1, *powers, -480.0 * np.log(n) * powers[0], -2100.0 * np.log(d) * powers[1]])
    loss = e + 480.0 * powers[0] + 2100.0 * powers[1]
    sd = float(at @ covariance @ at) ** 0.5 / loss
    assert np.log(found["target"].linear[1] / loss) == pytest.approx(1.6449 * sd, rel=1e-3)
    assert np.log(found["run"].linear[1] / loss) == pytest.approx(1.6449 * np.hypot(sd, 0.01), rel=1e-3)


@pytest.mark.parametrize(("clusters", "shared"), [(False, 0.5), (True, 0.3)])
def test_simulated_refits_agree_with_first_order(clusters, shared):
    """Fails when simulation and information describe different noise, targets or quantities."""
    shaped = grid(np.geomspace(1e7, 1e10, 8), np.geomspace(3e8, 3e11, 8), clusters)
    prior = information.dataclasses.replace(PRIOR, noise=0.002, shared=shared)
    found = information.expect(shaped, prior, (3e10, 1e12), 0.9, 800, 1.0)
    assert set(found.quantities) == set(NAMES) and not found.edges and found.lower_elsewhere == found.unconverged == 0
    for q in found.quantities.values():
        assert width(q.simulated) == pytest.approx(width(q.linear), rel=0.15)
        assert q.simulated[0] < q.value < q.simulated[1]


def test_tokens_in_step_are_refused(tmp_path):
    """Fails when a design with D = 20 N is promised exponents, E or a."""
    n = np.geomspace(5e6, 5e9, 9)
    rows = tuple(load.Row(f"{x:g}", "", x, 20 * x, 120 * x * x, None, cluster=f"{x:g}") for x in n)
    line = information.Design(load.Table("line", rows), sum(r.flops for r in rows))
    s = study.study("line", line, PRIOR, None, 0.9, 100, 1e-2)
    assert study.quoted(s.planned) == ["target", "run"]
    assert all(study.verdicts(s.planned)[k] for k in ("E", "exponents", "a"))
    assert "cannot be told apart" in s.cautions[0]
    assert not {"E", "alpha", "beta", "a"} & set(study.to_json(s)["arrangements"]["as planned"]["quantities"])
    crossed = s.arrangements[study.SAME_FLOPS]  # the same FLOPs across the plane tell them
    assert set(study.quoted(crossed)) == set(NAMES) and abs(crossed.design.correlation) < checks.MAX_COLLINEAR


def test_next_member_helps_in_simulation():
    """Fails when candidates are ranked by something else than what they do to the target's interval, or per member."""
    shaped = grid(np.geomspace(5e7, 5e8, 4), np.geomspace(1e9, 8e9, 4))
    target = shaped.best_target(PRIOR, 10)
    ranked = information.candidates(shaped, PRIOR, target)
    assert [c.per_percent for c in ranked] == sorted((c.per_percent for c in ranked), reverse=True)
    best = information.suggestions(ranked, shaped.flops)["affordable"][0]
    bad = next(c for c in reversed(ranked) if c.flops > best.flops)
    before = information.expect(shaped, PRIOR, target, 0.9, 1000, 1.0, fresh=0)
    taken = {}
    for c in (best, bad):
        after = information.expect(shaped.plus(c), PRIOR, target, 0.9, 1000, 1.0, fresh=0)
        assert 1 - after.sd / before.sd == pytest.approx(c.gain, abs=1e-6)
        taken[c] = width(before.quantities["target"].simulated) - width(after.quantities["target"].simulated)
    assert taken[best] > 0.05 * width(before.quantities["target"].simulated)
    assert taken[best] / best.flops > 2 * taken[bad] / bad.flops


def test_isoflop_costs_the_same():
    """Fails when the grid's budgets do not add up, its profiles are not of equal FLOPs, or not around the best size."""
    shaped = design.of_sweep("ladder.py", {}, "non_embedding", "matmul_causal")
    prior = design.PRIORS["ladder"]
    for flops in (shaped.flops, shaped.separate_flops):
        other = information.isoflop(shaped, prior, flops)
        assert other.flops == pytest.approx(flops, rel=0.02)
        assert other.flops == pytest.approx(float(shaped.cost.flops(other.columns["N"], other.columns["D"]).sum()))
        budgets = np.unique(other.table.column("flops").round(-6))
        assert len(other.table.rows) == 18 and len(budgets) == 3
        n = other.columns["N"][:6]
        sizes = np.geomspace(n[0] / 4, n[-1] * 4, 4000)
        losses = prior.law.loss(prior.params, sizes, shaped.cost.tokens(sizes, budgets[0]))
        assert sizes[np.argmin(losses)] == pytest.approx(np.sqrt(n[0] * n[-1]), rel=0.01)


def test_branches_cost_what_the_launcher_plans():
    """Fails when a further branch of a trunk is priced as a run of its own, or without what its trunk lacks."""
    budgets = ("600K tokens", "1.2M tokens", "2.4M tokens")
    before = design.of_sweep("ladder.py", {}, "non_embedding", "matmul_causal")
    for extra in (9e5, 4.8e6):  # within the trunks, and beyond their end
        overrides = {"sweep.budgets": (*budgets, f"{extra:.0f} tokens")}
        after = design.of_sweep("ladder.py", overrides, "non_embedding", "matmul_causal")
        priced = sum(t.extra_tokens(extra) * t.flops_per_token for t in before.trunks)
        assert after.flops - before.flops == pytest.approx(priced, rel=0.01)
        assert priced < 0.7 * (after.separate_flops - before.separate_flops)


@pytest.mark.parametrize(("sweep", "members"), [("ladder.py", 18), ("ladder.py:quick", 12)])
def test_command_on_sweeps(tmp_path, capsys, sweep, members):
    """Fails when the command does not run from a sweep file to words, JSON and figures."""
    assert design.main(["--sweep", sweep, "--out", str(tmp_path), "--draws", "100"]) == 0
    said = capsys.readouterr().out
    for words in (
        f"{sweep}: {members} members",
        "the fit of the default ladder",
        "next member",
        "IsoFLOP",
        "10 times the compute",
    ):
        assert words in said
    written = json.loads((tmp_path / "design.json").read_text())
    assert len(written["arrangements"]["as planned"]["rows"]) == members and len(written["next"]["per_flop"]) == 5
    assert written["flops_without_forks"] > 1.4 * written["arrangements"]["as planned"]["flops"]  # forks save a third
    assert (tmp_path / "design.png").stat().st_size > 50_000 and "IsoFLOP, same FLOPs" in (tmp_path / "design.svg").read_text()


def test_command_on_runs_and_csv(tmp_path, capsys):
    """Fails when members to come or diverged ones are miscounted, or the prior is not the table's own fit."""
    root = synthetic.write_sweep(
        tmp_path / "ladder", trained=synthetic.SIZES[:5], curves=False, noise=1e-4, diverged=("causal-50K-10x",)
    )
    assert design.main(["--runs", str(root), "--draws", "100"]) == 0
    said = capsys.readouterr().out
    assert "17 members of 6 sizes" in said and f"the fit of 14 rows of {root}" in said
    written = json.loads((root / "design.json").read_text())
    assert written["prior"]["params"]["beta"] == pytest.approx(synthetic.TRUTH["beta"], rel=0.05)
    lines = ["params,tokens,val_loss"]
    for n in (1e7, 1e8, 1e9):
        lines += [f"{n},{d},{PRIOR.loss(n, d) * np.exp(1e-3 * np.sin(n + d))}" for d in (1e9, 1e10, 1e11)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    words = f"--csv {tmp_path / 'mine.csv'} --out {tmp_path / 'out'} --draws 100 --target-params 5B --target-tokens 4e11"
    assert design.main(words.split()) == 0
    written = json.loads((tmp_path / "out" / "design.json").read_text())
    assert written["target"] == {"n_params": 5e9, "n_tokens": 4e11, "extrapolation": pytest.approx(20)}
    assert written["prior"]["params"]["alpha"] == pytest.approx(0.35, abs=0.02)
    assert "20 times the compute of the largest member: a form that fails" in capsys.readouterr().out
    from_csv = f"--sweep ladder.py --prior-from {tmp_path / 'mine.csv'} --out {tmp_path / 'out'} --draws 100"
    assert design.main(from_csv.split()) == 0
    assert f"the fit of 9 rows of {tmp_path / 'mine.csv'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--sweep laddr.py", 'Did you mean "ladder.py"'),
        ("--sweep lr_transfer.py", "needs at least 6 rows, 3 sizes and 3 token counts"),
        ("--sweep ladder.py --prior E=1,A=2,alpha=0.3", "lacks B, beta"),
        ("--sweep ladder.py --prior E=1,A=2,gama=3", "the law has E, A, B, alpha, beta"),
        ("--sweep ladder.py --prior chinchila", 'Did you mean "chinchilla"'),
        ("--sweep ladder.py --prior E=-1,A=2", "must be a positive number"),
        ("--sweep ladder.py --target-params 50K --target-tokens 1M", "less than the largest member's"),
        ("--sweep ladder.py --target-params 50M", "go together"),
        ("--sweep ladder.py --noise 2", "must be a part of the loss"),
        ("--sweep ladder.py --map N=n", "a sweep file needs none"),
        ("--csv none.csv --config.seed=1", "give --sweep"),
        ("--sweep ladder.py --config.batsh=1", 'Did you mean "batch"'),
    ],
)
def test_refusals(capsys, arguments, words):
    """Fails when a wrong argument ends as a traceback, or its message does not say what is wrong."""
    assert design.main([*arguments.split(), "--draws", "100"]) == runs.BAD_CONFIG
    assert words in capsys.readouterr().err


def test_planning_needs_neither_jax_nor_matplotlib():
    """Fails when importing the command pulls in what only training or drawing needs."""
    code = "import sys, analysis.design; print([m for m in ('jax', 'matplotlib', 'plotly') if m in sys.modules])"
    root = pathlib.Path(design.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout == "[]\n"
