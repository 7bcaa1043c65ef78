"""Losses against learning rates with known minima: found, marked, refused at the edge, judged against seeds."""

import json
import math
import pathlib

import numpy as np
import pytest

from analysis import load, plot_lr
from scaling import flops, runs, sweep

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
SIZES = {"50K": 50_000, "380K": 380_000}
TOKENS = (600_000, 2_400_000)
CURVATURE = 0.05  # nats per (log rate)^2


def write_run(root: pathlib.Path, name: str, n: int, tokens: int, lr: float, loss: float | None, **fields) -> dict:
    """One finished (or, without a loss, diverged) run as the trainer leaves it; its line of sweep.json."""
    about = {
        "id": name, "size": next(k for k, v in SIZES.items() if v == n), "n_params": dict.fromkeys(load.N_DEFINITIONS, n),
        "tokens": tokens, "flops": dict.fromkeys(flops.CONVENTIONS, 6.0 * n * tokens), "annealed": True, "seed": 0, "lr": lr,
        "role": "branch", "parent": None, "cluster": name,
    } | fields  # fmt: skip
    plan = {k: about[k] for k in ("n_params", "tokens", "flops", "annealed", "lr")}
    runs.write_json(root / name / runs.PLAN, plan)
    done = {"status": "finished", "cause": None, "tokens": tokens}
    if loss is None:
        done = {"status": "diverged", "cause": "loss is not finite", "tokens": tokens // 3}
    done |= {"flops": about["flops"], "val_loss": loss, "val_loss_stderr": 0.002, "annealed": about["annealed"]}
    runs.write_json(root / name / runs.DONE, done)
    return about


def write_rates(root: pathlib.Path, best: dict, rates=RATES, second=(), noise: float = 0.0, diverged=()) -> pathlib.Path:
    """Every corner a parabola in log rate around ``best[n, tokens]``; second seeds at the rates ``second``."""
    draw = np.random.default_rng(0)
    lines = []
    for (n, tokens), lowest in best.items():
        floor = 1.5 - 0.1 * math.log(n / 5e4) - 0.1 * math.log(tokens / 6e5)
        for seed, at in ((0, rates), (1, second)):
            for lr in at:
                loss = floor + CURVATURE * math.log(lr / lowest) ** 2 + 0.03 * seed + noise * draw.standard_normal()
                name = f"{n}-{tokens}-{lr:g}-{seed}"
                lines.append(write_run(root, name, n, tokens, lr, None if lr in diverged else loss, seed=seed))
        lines.append(write_run(root, f"{n}-{tokens}-trunk", n, tokens, rates[0], 9.9, annealed=False, role="trunk"))
    runs.write_json(root / runs.SWEEP, {"name": root.name, "members": lines})
    return root


def at(rate: float) -> dict:
    return {(n, t): rate for n in SIZES.values() for t in TOKENS}


def judged(root: pathlib.Path) -> plot_lr.Verdict:
    return plot_lr.judge(plot_lr.corners(root))


def test_known_minima_are_found_between_the_rates(tmp_path):
    # fails when losses are attributed to another rate, the trunk counts as a run, or the parabola is not in log rate
    lowest = dict(zip(at(0), (7e-3, 8e-3, 9e-3, 1e-2), strict=True))
    verdict = judged(write_rates(tmp_path, lowest, second=(4e-3, 8e-3, 1.6e-2)))
    for c in verdict.corners:
        truth = lowest[c.n_params, c.n_tokens]
        assert c.interpolated == pytest.approx(truth, rel=1e-6) and c.best == 8e-3 and not c.at_edge
        # of one seed against two: what the second adds to every rate, .03, is no difference between rates
        apart = CURVATURE * (math.log(2e-3 / truth) ** 2 - math.log(8e-3 / truth) ** 2)
        assert c.regret(2e-3) == (pytest.approx(apart), 1)
    assert verdict.shared == 8e-3 and verdict.noise == pytest.approx(0, abs=1e-9)


def test_one_rate_serves_when_regrets_are_within_seed_noise(tmp_path, capsys):
    # fails when the verdict ignores the noise, or a shift of the losses by the seed itself, .03 here, counts as noise
    root = write_rates(tmp_path, at(8e-3), second=(4e-3, 8e-3, 1.6e-2), noise=0.004)
    verdict = judged(root)
    assert verdict.transfers and verdict.freedom == 4 * 2
    plot_lr.main(["--runs", str(root), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "one rate serves: at 0.008" in said and "8 degrees of freedom" in said
    content = json.loads((tmp_path / "out" / "lr.json").read_text())
    assert content["transfers"] is True and len(content["corners"]) == 4
    assert (tmp_path / "out" / "lr.png").read_bytes()[:4] == b"\x89PNG"
    assert "380K, 2.4M tokens" in (tmp_path / "out" / "lr.svg").read_text()


def test_seed_noise_is_that_of_a_difference_between_two_rates():
    # fails when what a seed adds to all rates alike is counted, a factor of sqrt(2) or the degrees of freedom are lost: 500
    # corners of 3 rates by 2 seeds with .004 of noise, beside seeds that shift everything by .1, know it to 3 %
    draw = np.random.default_rng(0)
    table = 0.004 * draw.standard_normal((500, 3, 2)) + 0.1 * draw.standard_normal((500, 1, 2)) + [[0.2], [0.1], [0.3]]
    found = [plot_lr.Corner("", 1, 1, {r: dict(enumerate(at)) for r, at in zip(RATES, c, strict=False)}) for c in table]
    noise, freedom = plot_lr.seed_noise(found)
    assert freedom == 1000 and noise == pytest.approx(math.sqrt(2) * 0.004, rel=0.07)


def test_a_best_rate_that_moves_with_the_width_is_told(tmp_path):
    # fails when the shared rate is some corner's own instead of the one whose largest regret is least, or regret is not judged:
    # minima a factor of 16 apart lie log(4) off the middle, where both lose .05 log(4)^2
    lowest = {key: 3.2e-2 if key[0] == 50_000 else 2e-3 for key in at(0)}
    verdict = judged(write_rates(tmp_path, lowest, second=(4e-3, 8e-3, 1.6e-2, 2e-3, 3.2e-2), noise=0.002))
    assert verdict.shared == 8e-3 and verdict.transfers is False
    for c in verdict.corners:
        assert c.regret(8e-3)[0] == pytest.approx(CURVATURE * math.log(4) ** 2, abs=0.01) and c.regret(8e-3)[1] == 2
    assert plot_lr.conclusion(verdict).count("loses 0.09") + plot_lr.conclusion(verdict).count("loses 0.1") == 4


def test_a_given_rate_is_judged(tmp_path):
    # fails when the command answers about another rate than it was asked for, or takes one that a corner was not trained at
    root = write_rates(tmp_path, at(8e-3), second=(4e-3, 8e-3, 1.6e-2), noise=0.002)
    verdict = plot_lr.judge(plot_lr.corners(root), 1.6e-2)
    assert verdict.shared == 1.6e-2 and verdict.transfers is False
    assert plot_lr.conclusion(verdict).startswith("0.016 does not serve: 50K, 600K tokens loses 0.02")
    with pytest.raises(load.LoadError, match=r"--rate 0\.01: not trained at every size and budget; 0\.001, 0\.002"):
        plot_lr.judge(verdict.corners, 1e-2)


@pytest.mark.parametrize("lowest", [5e-4, 0.2])
def test_a_minimum_at_the_edge_is_refused(tmp_path, lowest):
    # fails when the end of the grid passes for a minimum
    best = at(8e-3) | {(380_000, 600_000): lowest}
    verdict = judged(write_rates(tmp_path, best, second=(4e-3, 8e-3, 1.6e-2)))
    assert verdict.transfers is None and [c.at_edge for c in verdict.corners].count(True) == 1
    words = plot_lr.conclusion(verdict)
    assert (
        words.startswith("no verdict: the lowest loss is at the edge of the grid for 380K, 600K tokens") and "extend" in words
    )
    edge = next(c for c in verdict.corners if c.at_edge)
    assert edge.interpolated is None


def test_diverged_rates_bound_the_grid(tmp_path):
    # fails when a minimum beside a diverged run counts as an edge, or the divergence as a loss
    verdict = judged(write_rates(tmp_path, at(3e-2), diverged=(6.4e-2,)))
    assert all(c.best == 3.2e-2 and not c.at_edge and c.interpolated is None for c in verdict.corners)
    plot_lr.figure(verdict)
    assert plot_lr.to_json(verdict)["corners"][0]["loss"]["0.064"] == {"0": None}


def test_rates_whose_trunk_diverged_bound_the_grid(tmp_path):
    # fails when branches that could not start, since their trunk diverged, are taken for rates that nobody tried
    root = write_rates(tmp_path, at(3e-2), rates=RATES[:-1])
    lines = json.loads((root / runs.SWEEP).read_text())["members"]
    for n, tokens in at(0):
        trunk, branch = f"{n}-{tokens}-high-trunk", f"{n}-{tokens}-high"
        lines.append(write_run(root, trunk, n, tokens, RATES[-1], None, annealed=False, role="trunk"))
        lines.append(write_run(root, branch, n, tokens, RATES[-1], None, parent=trunk))
        (root / branch / runs.DONE).unlink()
    runs.write_json(root / runs.SWEEP, {"name": "x", "members": lines})
    assert all(c.rates[-1] == RATES[-1] and c.best == 3.2e-2 and not c.at_edge for c in judged(root).corners)


def test_seeds_that_failed_are_left_out(tmp_path):
    # fails when rates are compared across seeds, or a rate that diverged in one seed of two passes for a good one
    root = write_rates(tmp_path, at(8e-3), second=(4e-3, 8e-3, 1.6e-2))
    corner = (50_000, 600_000)
    (root / f"{corner[0]}-{corner[1]}-0.004-0" / runs.DONE).unlink()
    write_run(root, f"{corner[0]}-{corner[1]}-0.008-1", *corner, 8e-3, None)
    verdict = judged(root)
    one = verdict.corners[0]
    assert 4e-3 not in one.rates and one.best == 1.6e-2 and one.of(8e-3) == math.inf
    assert one.regret(2e-3) == (pytest.approx(CURVATURE * (math.log(4) ** 2 - math.log(2) ** 2)), 1)
    plot_lr.figure(verdict)


@pytest.mark.parametrize("alone", [(), ((380_000, 2_400_000),)])
def test_without_a_second_seed_there_is_no_verdict(tmp_path, alone):
    # fails when a regret is judged against nothing, or against the noise of other corners alone
    root = write_rates(tmp_path, at(8e-3), second=(4e-3, 8e-3, 1.6e-2) if alone else (), noise=0.001)
    for n, tokens in alone:
        for rate in ("0.004", "0.008", "0.016"):
            (root / f"{n}-{tokens}-{rate}-1" / runs.DONE).unlink()
    verdict = judged(root)
    assert verdict.transfers is None and (verdict.noise is None) == (not alone)
    words = plot_lr.conclusion(verdict)
    assert "no second seed of" in words and "add --config.sweep.best=0.008" in words
    assert words.count("tokens") == (len(alone) or 4)


def test_runs_that_differ_otherwise_are_refused(tmp_path):
    # fails when two runs of one rate and seed overwrite each other in silence
    root = write_rates(tmp_path, at(8e-3))
    again = write_run(root, "again", 50_000, 600_000, 8e-3, 1.4)
    content = json.loads((root / runs.SWEEP).read_text())
    runs.write_json(root / runs.SWEEP, {"name": "x", "members": [*content["members"], again]})
    with pytest.raises(load.LoadError, match=r"again: a second run at rate 0\.008 and seed 0"):
        plot_lr.corners(root)


def test_too_few_rates_are_refused(tmp_path):
    # fails when a parabola is asked of two points
    with pytest.raises(load.LoadError, match=r"needs three rates or more .* 50K, 600K tokens: 2"):
        plot_lr.corners(write_rates(tmp_path, at(8e-3), rates=(4e-3, 8e-3)))


def test_the_sweep_is_the_ladders_corners():
    # fails when the ladder's ends move and the sweep stays, branches get trunks of another rate, or a second pass would train
    # the first one's members again
    ladder, first = sweep.load("ladder.py"), sweep.load("lr_transfer.py")
    assert first.sizes() == [ladder.sizes()[0], ladder.sizes()[-1]]
    budgets = sorted({m.plan.tokens for m in ladder.members if m.role == "branch"})
    assert sorted({m.plan.tokens for m in first.members if m.role == "branch"}) == [budgets[0], budgets[-1]]
    by_id = {m.id: m for m in first.members}
    assert [m.role for m in first.members].count("trunk") == 14 and len(by_id) == 42
    assert all(by_id[m.parent].plan.lr == m.plan.lr for m in first.members if m.parent)
    second = {m.id: m for m in sweep.load("lr_transfer.py", {"sweep.best": 8e-3}).members}
    assert all(second[i].config == m.config for i, m in by_id.items())
    more = [m for i, m in second.items() if i not in by_id]
    rates = {seed: sorted({m.plan.lr for m in more if m.config.seed == seed}) for seed in (0, 1)}
    assert rates == {0: [5.66e-3, 1.13e-2], 1: [4e-3, 5.66e-3, 8e-3, 1.13e-2, 1.6e-2]}
