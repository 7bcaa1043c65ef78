"""Curves under a schedule: the areas against their definition, known laws, and branches predicted from other branches."""

import json
import pathlib

import numpy as np
import pytest

from analysis import annealing, load
from analysis.fit import Rows, fit_rows
from analysis.laws import ANNEALING, ANNEALING_SIZES, schedule_areas
from scaling import flops, runs

TRUTH = {"E": 1.2, "A": 1.1, "alpha": 0.6, "G": 0.9}
PEAK, WARMUP, MEMORY = 8e-3, 30, 40


def wsd(steps: int, cooldown: int) -> np.ndarray:
    """Warm-up, constant, 1 - sqrt."""
    i = np.arange(steps)
    into = np.clip((i - (steps - cooldown)) / max(1, cooldown), 0, 1)
    return PEAK * np.minimum(1, (i + 1) / WARMUP) * (1 - np.sqrt(into))


def cosine(steps: int) -> np.ndarray:
    i = np.arange(steps)
    return PEAK * np.minimum(1, (i + 1) / WARMUP) * (0.55 + 0.45 * np.cos(np.pi * np.clip(i - WARMUP, 0, None) / steps))


def curve(rates: np.ndarray, truth=TRUTH, memory: int = MEMORY, **columns) -> np.ndarray:
    """The law's loss after every step."""
    s1, s2 = schedule_areas(rates, 1 - 1 / memory)
    law = ANNEALING_SIZES if "B" in truth else ANNEALING
    return law.loss(truth, S1=s1, S2=s2, **columns)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_areas_are_the_papers_double_sum(momentum):
    """Fails when the doubling loses a lag, a drop is counted before its step, or its sign is turned."""
    rates = np.concatenate([np.full(20, 3.0), np.linspace(3, 1, 30), np.full(5, 1.5), np.linspace(1.5, 0, 14)])
    s1, s2 = schedule_areas(rates, momentum)
    for s in (0, 1, 20, 33, len(rates) - 1):
        assert s1[s] == pytest.approx(rates[: s + 1].sum())
        double = sum((rates[k - 1] - rates[k]) * momentum ** (i - k) for i in range(1, s + 1) for k in range(1, i + 1))
        assert s2[s] == pytest.approx(double, abs=1e-12)


def test_warm_up_counts_at_the_peak_and_later_rises_do_not():
    """Fails when a warm-up is negative annealing, or a later rise is forgiven as one."""
    assert np.allclose(schedule_areas([1.0, 2.0, 4.0, 4.0, 4.0], 0.9), schedule_areas([4.0] * 5, 0.9))
    assert schedule_areas([4.0, 4.0, 1.0, 4.0], 0.5)[1][-1] == pytest.approx(3 + (1.5 - 3))
    assert np.allclose(schedule_areas([1.0, 2.0, 3.0], 0.9)[1], 0)
    for bad in ([], [1.0, -1.0], [np.nan], [[1.0]]):
        with pytest.raises(ValueError, match="one learning rate per step"):
            schedule_areas(bad)
    with pytest.raises(ValueError, match=r"momentum=1"):
        schedule_areas([1.0], 1.0)


def test_one_schedule_predicts_another():
    """Fails when the law fitted to constant and WSD curves does not give a cosine's: exact without noise."""
    fitted = [wsd(900, 0), wsd(400, 100), wsd(700, 100)]
    areas = [schedule_areas(r, 1 - 1 / MEMORY) for r in fitted]
    s1, s2 = (np.concatenate([a[k][60::7] for a in areas]) for k in (0, 1))
    names = [f"run {i}" for i, a in enumerate(areas) for _ in a[0][60::7]]
    rows = Rows.of({"S1": s1, "S2": s2}, np.concatenate([curve(r)[60::7] for r in fitted]), names)
    found = fit_rows(rows, ANNEALING, loss="squared")
    assert found.params == pytest.approx(TRUTH, rel=1e-6) and rows.groups.max() == 2
    s1, s2 = schedule_areas(cosine(1200), 1 - 1 / MEMORY)
    assert np.allclose(found.at({"S1": s1, "S2": s2})[0], curve(cosine(1200)), rtol=1e-6)


def test_sizes_share_one_law():
    """Fails when the term of N is lost from the value or the guesses."""
    truth = TRUTH | {"E": 0.7, "B": 30.0, "beta": 0.4}
    sizes, schedules = (5e4, 2e5, 8e5), (wsd(600, 0), wsd(500, 120))
    parts = [(n, *schedule_areas(r, 1 - 1 / MEMORY), curve(r, truth, N=n)) for n in sizes for r in schedules]
    columns = {v: np.concatenate([p[k][60::11] for p in parts]) for v, k in (("S1", 1), ("S2", 2))}
    columns["N"] = np.concatenate([np.full(len(p[1][60::11]), p[0]) for p in parts])
    found = fit_rows(Rows.of(columns, np.concatenate([p[3][60::11] for p in parts])), ANNEALING_SIZES, loss="squared")
    assert found.params == pytest.approx(truth, rel=1e-5)


def write_run(root: pathlib.Path, name: str, rates: np.ndarray, fork: int, loss: np.ndarray, parent: str | None, n=50_000):
    """One finished run as the trainer leaves it; its line of sweep.json."""
    tokens, gap = 768 * len(rates), 1.02  # validation losses lie 2 % above
    same = {"n_params": dict.fromkeys(load.N_DEFINITIONS, n), "tokens": tokens, "flops": dict.fromkeys(flops.CONVENTIONS, 1e9)}
    plan = same | {"annealed": parent is not None, "fork_steps": fork}
    done = plan | {"steps": len(rates), "status": "finished", "cause": None, "val_loss": float(loss[-1] * gap)}
    for file, content in ((runs.PLAN, plan), (runs.SPEC, {"parent": parent, "cluster": parent or name}), (runs.DONE, done)):
        runs.write_json(root / name / file, content)
    steps = np.arange(fork + 1, len(rates) + 1)[2::3]
    lines = [
        {"kind": "train", "step": int(s), "tokens": 768 * int(s), "loss": float(loss[s - 1]), "lr": rates[s - 1]} for s in steps
    ]
    (root / name / runs.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return plan | {"id": name, "size": "50K", "parent": parent, "cluster": parent or name, "role": "branch"}


def write_sweep(root: pathlib.Path, budgets=(250, 500, 1000), noise: float = 0.0) -> pathlib.Path:
    """A trunk and a branch for each budget, the last fifth of which is its cooldown."""
    rng = np.random.default_rng(0)

    def noisy(rates):
        return curve(rates) * np.exp(noise * rng.standard_normal(len(rates)))

    trunk = wsd(int(0.8 * max(budgets)), 0)
    lines = [write_run(root, "trunk", trunk, 0, noisy(trunk), None)]
    for steps in budgets:
        rates = wsd(steps, steps // 5)
        losses = noisy(rates)
        losses[-1] = curve(rates)[-1]  # what is validated has little noise
        lines.append(write_run(root, f"branch-{steps}", rates, int(0.8 * steps), losses, "trunk"))
    runs.write_json(root / runs.SWEEP, {"name": root.name, "members": lines})
    return root


def test_held_out_branches_of_a_known_law(tmp_path, capsys):
    """Fails when a branch forgets its trunk's history, the held-out one is fitted, or the validation gap is lost."""
    root = write_sweep(tmp_path / "sweep")
    (size,) = annealing.study(annealing.trajectories(root))
    assert size.curves.memory == MEMORY and size.curves.gap == pytest.approx(np.log(1.02), rel=0.02)
    assert size.curves.fit.params == pytest.approx(TRUTH, rel=0.02)  # rates between logged steps are interpolated
    assert [h.id for h in size.held_out] == ["branch-250", "branch-500", "branch-1000"]
    assert all(abs(h.error_percent) < 0.1 for h in size.held_out)
    assert size.held_out[-1].same_gain_error_percent > 1  # the cooldowns' lengths differ, and so their gains
    branch = next(t for t in size.trajectories if t.id == "branch-500")
    assert len(branch.rates) == 500 and branch.steps[0] == 403
    assert np.allclose(branch.rates[WARMUP : WARMUP + 300], PEAK)
    assert annealing.main(["--runs", str(root), "--size", "50K", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "memory 40 steps" in said and "branch-1000" in said and "over 3 runs" in said
    content = json.loads((tmp_path / "out" / "annealing.json").read_text())
    assert content["sizes"][0]["memory_steps"] == 40 and content["rms_error_percent"] < 0.1
    assert (tmp_path / "out" / "annealing.png").read_bytes()[:4] == b"\x89PNG"
    assert "predicted from the others" in (tmp_path / "out" / "annealing.svg").read_text()


def test_what_is_held_out_is_not_fitted(tmp_path):
    """Fails when a branch takes part in its own prediction: one that ends 10 % above the law must be missed by all of it."""
    root = write_sweep(tmp_path)
    rates = wsd(1000, 200)
    odd = curve(rates) * np.where(np.arange(1000) < 800, 1.0, 1.1)
    write_run(root, "branch-1000", rates, 800, odd, "trunk")
    (size,) = annealing.study(annealing.trajectories(root))
    off = {h.id: h.error_percent for h in size.held_out}
    assert off["branch-1000"] == pytest.approx(100 * (1 / 1.1 - 1), abs=0.15)


def test_a_branch_carries_its_trunks_history(tmp_path):
    """Fails when a branch's areas begin at its fork, or at the rate it forked with."""
    trunk = cosine(800)
    branch = np.concatenate([trunk[:400], np.linspace(trunk[399], 0, 100)])
    lines = [write_run(tmp_path, "trunk", trunk, 0, curve(trunk), None)]
    lines.append(write_run(tmp_path, "branch", branch, 400, curve(branch), "trunk"))
    runs.write_json(tmp_path / runs.SWEEP, {"name": "x", "members": lines})
    found = annealing.trajectories(tmp_path)[1]
    assert found.id == "branch" and found.steps[0] == 403
    assert np.allclose(found.rates[3:], branch[3:], atol=5e-2 * PEAK)  # logged every third step
    curves = annealing.fit_curves([found])
    assert np.allclose(curves.loss(found)[found.steps - 1], found.loss, rtol=1e-3)


def test_noise_is_no_bias(tmp_path):
    """Fails when noise of single batches (1 %) moves held-out ends by more than 2 %, as a memory off by a factor of 2 does."""
    (size,) = annealing.study(annealing.trajectories(write_sweep(tmp_path, noise=0.01)))
    assert size.curves.fit.sigma == pytest.approx(0.01, rel=0.15)
    assert all(abs(h.error_percent) < 2 for h in size.held_out)


def test_sweeps_that_cannot_be_studied_are_refused(tmp_path, capsys):
    """Fails when one branch predicts itself, or a missing size, an untrained sweep or an empty curve ends in a traceback."""
    root = write_sweep(tmp_path / "one", budgets=(400,))
    (size,) = annealing.study(annealing.trajectories(root))
    assert size.held_out == () and "nothing can be held out" in annealing.in_words([size])[-1]
    assert annealing.to_json([size])["rms_error_percent"] is None
    annealing.figure([size])
    assert annealing.main(["--runs", str(root), "--size", "51K"]) == 2
    assert "--size 51K: no such size; there are 50K." in capsys.readouterr().err
    assert annealing.main(["--runs", str(root / "branch-400")]) == 2
    assert "its trunk trunk is not in" in capsys.readouterr().err
    (root / "trunk" / runs.METRICS).write_text("")
    assert annealing.main(["--runs", str(root)]) == 2
    assert "no training losses; train trunk" in capsys.readouterr().err
    for name in ("trunk", "branch-400"):
        (root / name / runs.DONE).unlink()
    assert annealing.main(["--runs", str(root)]) == 2
    assert "no run has finished yet" in capsys.readouterr().err
