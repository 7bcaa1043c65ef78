"""AdamW against PyTorch's, learning rates against optax and closed forms."""

import math

import jax
import numpy as np
import optax
import pytest
import tiny
from oracles import require

from scaling import config, optim
from scaling.plan import make_plan


def test_adamw_and_clipping_are_pytorchs():
    # fails on a decay that is not decoupled or reaches norms and embeddings, a bias correction off by a step, clipping after
    # Adam or by leaf, and an epsilon inside the root
    torch = require("torch")
    c = tiny.model_config(parameterization="sp", bias=True, positions="learned")
    settings = config.OptimConfig(weight_decay=0.3, beta1=0.8, beta2=0.95, eps=1e-3, clip=1.0)
    params = tiny.wide_params(c)
    theirs = {name: torch.nn.Parameter(torch.from_numpy(x.copy())) for name, x in tiny.by_path(params).items()}
    decayed = ("q", "k", "v", "o", "gate", "up", "down")
    groups = [
        {"params": [p for n, p in theirs.items() if (n.split("/")[-1] in decayed) == yes], "weight_decay": 0.3 * yes}
        for yes in (True, False)
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-3)
    tx = optim.optimizer(c, settings)
    state = tx.init(params)

    @jax.jit
    def step(grads, state, params, lr):
        updates, state = tx.update(grads, state, params)
        return optim.apply_updates(params, updates, lr), state

    for i, lr in enumerate((0.01, 0.1, 0.05, 0.02)):
        grads = tiny.wide_params(c, seed=i + 1, std=0.001 if i == 2 else 0.3)  # one step that is not clipped
        if i == 2:
            grads = {**grads, "final_norm": {"gain": 0 * grads["final_norm"]["gain"]}}
            for norm in ("attention_norm", "mlp_norm"):
                grads["blocks"][norm]["gain"] *= 0
        for name, g in tiny.by_path(grads).items():
            theirs[name].grad = torch.from_numpy(g.copy())
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        assert (float(norm) > 1) == (i != 2)
        assert float(optim.global_norm(grads)) == pytest.approx(float(norm), rel=1e-5)
        for group in adamw.param_groups:
            group["lr"] = lr
        adamw.step()
        params, state = step(grads, state, params, np.float32(lr))
        for name, x in tiny.by_path(params).items():
            np.testing.assert_allclose(x, theirs[name].detach().numpy(), atol=2e-6, err_msg=f"{name} after step {i}")


# ---------------------------------------------------------------------------------------- learning rates


def rates(**fields) -> tuple[np.ndarray, config.TrainConfig]:
    c = tiny.train_config(**{"budget": "500 steps", "optim_warmup": "40 steps", "optim_lr": 0.02} | fields)
    plan = make_plan(c)
    return np.array([optim.learning_rate(c.optim, plan, s) for s in range(plan.steps)]), c


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_linear_and_cosine_are_optaxs(schedule, final):
    # fails when the decay ends elsewhere than final_lr of the peak at the last step, or starts before warm-up ends
    ours, _ = rates(optim_schedule=schedule, optim_final_lr=final)
    if schedule == "linear":
        decay = optax.linear_schedule(0.02, 0.02 * final, 460)
    else:
        decay = optax.cosine_decay_schedule(0.02, 460, alpha=final)
    expected = [decay(s - 40) for s in range(40, 500)]
    np.testing.assert_allclose(ours[40:], expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("schedule", config.SCHEDULES)
def test_warm_up_is_linear_to_the_peak(schedule):
    # fails when the first rate is 0 (a lost step) or the peak is not reached at the end of the warm-up
    ours, _ = rates(optim_schedule=schedule)
    np.testing.assert_allclose(ours[:40], 0.02 * np.arange(1, 41) / 40, rtol=1e-6)
    assert ours.max() == ours[39] == np.float32(0.02) and ours.min() > 0


def test_wsd_is_flat_then_one_minus_root():
    # fails when the cooldown starts early or late, jumps, or is linear: 1 - sqrt of its own progress (Hägele et al. 2024)
    ours, _ = rates(optim_schedule="wsd", optim_cooldown="20%")
    assert (ours[39:401] == np.float32(0.02)).all()
    expected = [0.02 * (1 - math.sqrt(i / 100)) for i in range(100)]
    np.testing.assert_allclose(ours[400:], expected, rtol=1e-5)
    constant, _ = rates(optim_schedule="constant")
    assert (constant[39:] == np.float32(0.02)).all()


def test_a_branch_has_its_trunks_rates_before_the_fork():
    # fails when a branch's own budget moves the warm-up or the rate of the steps that it shares with its trunk
    trunk_config = tiny.train_config(budget="400 steps", marks=("200 steps", "400 steps"), optim_schedule="constant")
    trunk = make_plan(trunk_config)
    of_trunk = [optim.learning_rate(trunk_config.optim, trunk, s) for s in range(trunk.steps)]
    for budget, fork in (("250 steps", 200), ("500 steps", 400)):
        c = tiny.train_config(budget=budget, optim_schedule="wsd", optim_cooldown="20%")
        plan = make_plan(c, trunk=trunk, fork_at=f"{fork} steps")
        ours = [optim.learning_rate(c.optim, plan, s) for s in range(plan.steps)]
        assert ours[:fork] == of_trunk[:fork] and ours[fork] == of_trunk[fork - 1]
        assert ours[-1] < 0.2 * ours[fork] and (np.diff(ours[fork:]) < 0).all()


def test_no_clipping_when_it_is_off():
    # fails when clip = 0 clips everything to nothing
    c = tiny.model_config(parameterization="sp")
    params, grads = tiny.wide_params(c), tiny.wide_params(c, seed=1)
    tx = optim.optimizer(c, config.OptimConfig(clip=0.0, weight_decay=0.0))
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["head"], -np.sign(grads["head"]), rtol=1e-4)
