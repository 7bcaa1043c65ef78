"""Durations in every unit, the warm-up rule, budgets and what does not fit."""

import json

import pytest
import tiny

from scaling import config, flops
from scaling.plan import Plan, make_plan


def problems_of(stream_tokens=None, **fields) -> str:
    with pytest.raises(config.ConfigError) as caught:
        make_plan(tiny.train_config(**fields), stream_tokens=stream_tokens)
    return "\n".join(caught.value.problems)


def test_budgets_in_every_unit_are_whole_steps():
    # fails when a unit is converted by the wrong count: tokens per non-embedding parameter, exact causal FLOPs, epochs
    c = tiny.train_config()
    n = flops.n_params(c.model)["non_embedding"]
    per_token = flops.flops_per_token(c.model)["matmul_causal"]
    for budget, tokens in (
        ("300 steps", 300 * 128),
        ("30K tokens", 30_000),
        ("20 tokens/param", 20 * n),
        ("2e9 flops", 2e9 / per_token),
        ("0.5 epochs", 50_000),
    ):
        plan = make_plan(tiny.train_config(budget=budget), stream_tokens=100_000)
        assert plan.steps == round(tokens / 128) and plan.tokens == plan.steps * 128, budget
        assert plan.tokens_per_param == plan.tokens / n and plan.epochs == plan.tokens / 100_000
        assert plan.flops() == plan.tokens * per_token and plan.flops("6N") == plan.tokens * 6 * plan.n_params["total"]


def test_the_same_text_is_the_same_length_at_every_scale():
    # fails when a machine matter or the size moves a duration that does not depend on it
    plans = [
        tiny.plan(budget="30K tokens", **f)
        for f in ({}, {"model_width": 64}, {"machine_data": 8}, {"machine_micro_batches": 4})
    ]
    assert {(p.steps, p.batch_windows) for p in plans} == {(234, 8)}


@pytest.mark.parametrize(
    ("fields", "warmup"),
    [
        ({"budget": "10000 steps"}, "N"),  # N tokens
        ({"budget": "300 steps"}, 30),  # 10 %
        ({"budget": "100 steps"}, 20),  # at least 20 steps
        ({"budget": "30 steps"}, 15),  # never more than half
        ({"budget": "1 steps", "optim_schedule": "constant"}, 1),
        ({"budget": "1000 steps", "marks": ("300 steps", "900 steps")}, "min"),  # 10 % of the first mark
        ({"budget": "1000 steps", "optim_warmup": "7 steps"}, 7),
        ({"budget": "1000 steps", "optim_warmup": "5%"}, 50),
        ({"budget": "1000 steps", "optim_warmup": "1280 tokens"}, 10),
    ],
)
def test_warm_up_rule(fields, warmup):
    # fails when a bound of the rule is lost: min(N tokens, 10 %), at least 20 steps, at most half
    plan = tiny.plan(model_width=24, **fields)
    n_steps = round(plan.n_params["non_embedding"] / plan.batch_tokens)
    assert 30 < n_steps < 300
    assert plan.warmup_steps == {"N": n_steps, "min": min(n_steps, 30)}.get(warmup, warmup)


def test_cooldown_and_marks():
    # fails when a part of the budget is taken of something else, or marks are not steps in order
    plan = tiny.plan(budget="1000 steps", optim_cooldown="20%", marks=("50%", "1280 tokens", "100%"))
    assert plan.cooldown_steps == 200 and plan.marks == (10, 500, 1000) and plan.annealed
    assert tiny.plan(budget="1000 steps", optim_cooldown="50 steps").cooldown_steps == 50
    constant = tiny.plan(budget="1000 steps", optim_schedule="constant")
    assert constant.cooldown_steps == 0 and not constant.annealed
    assert tiny.plan(optim_schedule="cosine").annealed


def test_a_branch_counts_from_its_trunks_start():
    # fails when a branch's own tokens include the trunk's, or its cooldown does not fill the rest
    trunk = tiny.plan(budget="400 steps", marks=("200 steps", "400 steps"), optim_schedule="constant")
    branch = make_plan(tiny.train_config(budget="250 steps"), trunk=trunk, fork_at="200 steps")
    assert (branch.fork_steps, branch.fork_tokens, branch.cooldown_steps) == (200, 200 * 128, 50)
    with pytest.raises(config.ConfigError, match=r"marks='100 steps': is step 100, .* after its fork at step 200"):
        make_plan(tiny.train_config(budget="250 steps", marks=("100 steps",)), trunk=trunk, fork_at="200 steps")
    assert branch.trained_tokens == 50 * 128 and branch.tokens == 250 * 128
    assert branch.warmup_steps == trunk.warmup_steps
    assert trunk.fork_tokens is None and trunk.trained_tokens == trunk.tokens


def test_a_budget_beyond_the_stream():
    # fails when text is repeated without being asked for, or the remedy does not work
    text = problems_of(stream_tokens=10_000, budget="200 steps")
    assert "needs 25,600 tokens" in text and "holds 10,000" in text and "data.epochs=2.6" in text
    assert make_plan(tiny.train_config(budget="200 steps", data_epochs=2.6), stream_tokens=10_000).epochs == 2.56
    assert make_plan(tiny.train_config(budget="78 steps"), stream_tokens=10_000).epochs < 1
    assert "data.epochs=2.3," in problems_of(stream_tokens=6400, budget="115 steps", data_epochs=2.2)
    assert make_plan(tiny.train_config(budget="115 steps", data_epochs=2.3), stream_tokens=6400).epochs == 2.3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": "50 tokens"}, "less than one step of 128 tokens"),
        ({"budget": "0.5 epochs"}, "epochs need the token store"),
        ({"budget": "100 steps", "marks": ("0.5 epochs",)}, "epochs need the token store"),
        ({"budget": "100 steps", "marks": ("101 steps",)}, "marks='101 steps': is step 101, not one of the 100 steps"),
        ({"budget": "100 steps", "marks": ("10 tokens",)}, "marks='10 tokens': is step 0"),
        ({"budget": "100 steps", "optim_warmup": "90 steps"}, "together more than the 100 of budget='100 steps'"),
        ({"budget": "100 steps", "optim_cooldown": "200 steps"}, "the cooldown 200, together more than"),
        ({"batch": "porian", "machine_micro_batches": 3}, "does not divide"),
    ],
)
def test_what_does_not_fit(fields, message):
    # fails when a mark that is never reached or a schedule longer than the run is found out after training
    assert message in problems_of(**fields)


def test_warnings_outside_a_rules_range():
    # fails when the plan is silent where nobody has tried the rule
    warnings = "\n".join(tiny.plan(batch="porian", budget="50 steps", model_parameterization="sp").warnings)
    assert "outside the range of its rule" in warnings and "50 steps are few" in warnings and "SP:" in warnings
    usual = make_plan(config.resolve(config.default_dict() | {"budget": "1000 steps"}))
    assert usual.warnings == ()


def test_a_plan_survives_json():
    # fails when plan.json cannot be read back as what it was
    plan = tiny.plan(budget="100 steps", marks=("50%",))
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.to_dict()["flops"]["6N"] == plan.flops("6N")
    assert plan.checkpoint_bytes == 12 * plan.n_params["total"]
