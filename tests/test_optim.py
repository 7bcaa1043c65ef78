"""AdamW against PyTorch's, Muon against singular vectors, learning rates against optax and closed forms."""

import math

import jax
import numpy as np
import optax
import pytest
import tiny
from oracles import require

from scaling import config, model, optim, partition, step
from scaling.checkpoint import Checkpoints
from scaling.plan import make_plan

RATE = np.float32(0.02)


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


# ---------------------------------------------------------------------------------------- Muon

# name: (input axes, output axes) of one layer's slice
MATRICES = {"q": ((0,), (1, 2)), "k": ((0,), (1, 2)), "v": ((0,), (1, 2)), "o": ((0, 1), (2,)), "gate": ((0,), (1,)),
            "up": ((0,), (1,)), "down": ((0,), (1,))}  # fmt: skip


def one_step(c: config.ModelConfig, grads, **fields):
    """The update that one step from zero parameters makes, without the learning rate."""
    tx = optim.optimizer(c, config.OptimConfig(**{"weight_decay": 0.0, "clip": 0.0} | fields))
    params = jax.tree.map(np.zeros_like, grads)
    return jax.jit(tx.update)(grads, tx.init(params), params)[0]


def test_muon_orthogonalises_every_matrix_of_every_layer():
    # fails when layers are orthogonalised together, heads apart, an axis is taken for another (optax would then use Adam or a
    # batch in silence), or the scale is not an Adam update's: against numpy's singular vectors of each matrix
    c = tiny.model_config(parameterization="sp", bias=True, qk_norm=True, positions="learned")
    grads = tiny.wide_params(c, seed=3)
    updates = tiny.by_path(one_step(c, grads, optimizer="muon"))
    seen = set()
    for path, g in tiny.by_path(grads).items():
        name = path.split("/")[-1]
        if name not in MATRICES:
            continue
        seen.add(name)
        for g_layer, u_layer in zip(g, updates[path], strict=True):
            side = math.prod(g_layer.shape[i] for i in MATRICES[name][0])
            left, _, right = np.linalg.svd(g_layer.reshape(side, -1).astype(np.float64), full_matrices=False)
            within = left.T @ np.asarray(u_layer, np.float64).reshape(side, -1) @ right.T
            singular = -np.diag(within) / (0.2 * max(side, g_layer.size // side) ** 0.5)
            assert (singular > 0.6).all() and (singular < 1.3).all(), (path, singular)
            np.testing.assert_allclose(within - np.diag(np.diag(within)), 0, atol=2e-3)
    assert seen == set(MATRICES)


def test_muon_leaves_the_rest_to_adamw():
    # fails when Adam inherits Muon's Nesterov momentum (its first step would be 1.47 times as long), epsilon, beta2 or decay,
    # or when embeddings, positions or the head are orthogonalised
    c = tiny.model_config(bias=True, positions="learned", width=24, base_width=12, base_ff=20)
    results = {}
    for name in config.OPTIMIZERS:
        tx = optim.optimizer(c, config.OptimConfig(optimizer=name, eps=1e-3, clip=1.0))
        params = tiny.wide_params(c)
        state, update = tx.init(params), jax.jit(tx.update)
        for seed in (1, 2, 3):
            updates, state = update(tiny.wide_params(c, seed=seed), state, params)
        results[name] = tiny.by_path(updates)
    for path, u in results["adamw"].items():
        same = np.array_equal(u, results["muon"][path])
        assert same == (path.split("/")[-1] not in MATRICES), path


def test_muons_step_has_one_norm_at_every_width():
    # fails when the rate of Muon's matrices does not fall as the root of the width (with Adam's 1/m the norm would halve from
    # 32 to 128): the spectral norm of one update, per unit of sqrt(output / input)
    def norms(width: int) -> dict[str, float]:
        c = config.model_config(depth=1, width=width, head_size=8, base_width=32)
        updates = tiny.by_path(one_step(c, tiny.wide_params(c, seed=4), optimizer="muon"))
        out = {}
        for path, u in updates.items():
            if (name := path.split("/")[-1]) in MATRICES:
                side = math.prod(u.shape[1 + i] for i in MATRICES[name][0])
                matrix = np.asarray(u).reshape(side, -1)
                out[name] = np.linalg.norm(matrix, 2) / math.sqrt(matrix.shape[1] / side)
        return out

    small, large = norms(32), norms(128)
    for name, value in small.items():
        assert large[name] == pytest.approx(value, rel=0.2), name


def test_muon_decays_hidden_matrices_alike_at_every_width():
    # fails when decay has Adam's multiplier beside Muon's rate
    for width in (32, 128):
        c = config.model_config(depth=1, width=width, head_size=8, base_width=32)
        params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), model.abstract_params(c))
        tx = optim.optimizer(c, config.OptimConfig(optimizer="muon", weight_decay=0.2))
        updates, _ = jax.jit(tx.update)(jax.tree.map(np.zeros_like, params), tx.init(params), params)
        for path, u in tiny.by_path(updates).items():
            np.testing.assert_allclose(u, -0.2 if path.split("/")[-1] in MATRICES else 0, rtol=1e-6, err_msg=path)


def test_an_unknown_optimizer_is_refused():
    # fails when a typing error trains AdamW
    with pytest.raises(config.ConfigError, match=r"optim\.optimizer='moun': must be one of adamw, muon.*muon"):
        tiny.train_config(optim_optimizer="moun")


@pytest.fixture(scope="module")
def muon_on_meshes():
    """Programs of one run with Muon, on one device and split eight ways."""
    axes = {"machine_data": 2, "machine_fsdp": 2, "machine_tensor": 2}
    configs = [tiny.train_config(optim_optimizer="muon", model_width=32, batch="128 tokens", **a) for a in ({}, axes)]
    return [step.make_programs(c, partition.make_mesh(c.machine)) for c in configs]


def test_muons_state_is_zeros_and_split_as_its_parameters(muon_on_meshes):
    # fails when a constant is kept in the state (a fresh state is written as zeros: optax's coefficients would be lost, and
    # with them every update), or a momentum lies whole on every device
    one, split = muon_on_meshes
    state = one.init(step.named_key(0, "init"))
    assert all(not np.any(x) for x in jax.tree.leaves(state.opt_state))
    params = {k: x.sharding.spec for k, x in tiny.by_path(split.abstract_state.params).items()}
    moments = [(k, x) for k, x in tiny.by_path(split.abstract_state.opt_state).items() if x.ndim]
    planned = make_plan(tiny.train_config(optim_optimizer="muon", model_width=32, batch="128 tokens"))
    arrays = [x for _, x in moments] + jax.tree.leaves(split.abstract_state.params)
    assert planned.checkpoint_bytes == sum(4 * x.size for x in arrays)
    matrices = sum(k.split("/")[-1] in MATRICES for k in params)
    assert len(moments) == 2 * len(params) - matrices  # Muon has one moment, Adam two
    for name, x in moments:
        path = next(k for k in params if name.endswith(k))
        assert x.sharding.spec == params[path], name
        if path.split("/")[-1] in MATRICES:
            assert math.prod(x.sharding.shard_shape(x.shape)) == x.size // 4, name


def test_muon_trains_alike_on_a_mesh_and_from_a_checkpoint(muon_on_meshes, tmp_path):
    # fails when a split matrix is orthogonalised shard by shard, or the state cannot be saved and moved
    one, split = muon_on_meshes
    windows = [tiny.tokens(8, 17, 260, seed=i) for i in range(4)]
    losses = []
    for programs in (one, split):
        state, found = programs.init(step.named_key(0, "init")), []
        for batch in windows[:3]:
            state, metrics = programs.train(state, jax.device_put(batch, partition.batch_sharding(programs.mesh)), RATE)
            found.append(float(metrics.loss))
        losses.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0][2] != losses[0][1]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, state, {})
    checkpoints.close()
    moved, _ = Checkpoints(tmp_path, read_only=True).restore(3, one.abstract_state)
    last = [float(p.train(s, windows[3], RATE)[1].loss) for p, s in ((one, moved), (split, state))]
    assert last[0] == pytest.approx(last[1], rel=1e-5)
