"""From a sweep file to members: ids, forks, seeds, overrides, and all problems at once."""

import pathlib

import pytest
from training import write_sweep

from scaling import config, flops, sweep

REPO = pathlib.Path(__file__).parents[1]
FORKS = "sweep.fork(sweep.ladder(config, ['50K', '75K']), ['10 tokens/param', '20 tokens/param', '40 tokens/param'])"


def members(tmp_path, body: str, overrides=None, **fields) -> dict[str, sweep.Member]:
    """By id, in order."""
    loaded = sweep.load(str(write_sweep(tmp_path / "mine.py", body, **fields)), overrides)
    assert loaded.name == "mine"
    return {m.id: m for m in loaded.members}


def problems(tmp_path, body: str, overrides=None, **fields) -> list[str]:
    with pytest.raises(config.ConfigError) as caught:
        members(tmp_path, body, overrides, **fields)
    return caught.value.problems


def test_a_forked_ladder(tmp_path):
    # fails when a branch leaves its trunk at a step that the trunk does not keep, ids change, or parents stand behind branches
    found = members(tmp_path, FORKS)
    assert list(found) == [f"causal-{s}-{b}" for s in ("50K", "75K") for b in ("trunk", "10x", "20x", "40x")]
    for size in ("50K", "75K"):
        trunk = found[f"causal-{size}-trunk"]
        branches = [found[f"causal-{size}-{b}"] for b in ("10x", "20x", "40x")]
        assert trunk.role == "trunk" and trunk.parent is None and trunk.config.optim.schedule == "constant"
        assert trunk.plan.marks == tuple(b.plan.fork_steps for b in branches) and trunk.plan.steps == trunk.plan.marks[-1]
        for branch, budget in zip(branches, (10, 20, 40), strict=True):
            assert (branch.role, branch.parent, branch.size) == ("branch", trunk.id, size)
            assert branch.mark_tokens == branch.plan.fork_tokens == branch.plan.fork_steps * branch.plan.batch_tokens
            assert branch.plan.fork_steps == pytest.approx(0.8 * branch.plan.steps, abs=1)
            assert branch.plan.tokens_per_param == pytest.approx(budget, rel=0.01)
            assert branch.plan.warmup_steps == trunk.plan.warmup_steps < branch.plan.fork_steps


def test_adding_a_branch_at_an_existing_mark_changes_nothing_for_the_trunk(tmp_path):
    # fails when a trunk's identity depends on more than its own length and marks
    both = members(tmp_path, "sweep.fork(config, ['1000 steps', '2000 steps'])")
    body = "(lambda f: [d for d in f if d.id != 'causal-1Ksteps'])(sweep.fork(config, ['1000 steps', '2000 steps']))"
    one = members(tmp_path, body)
    assert len(one) == len(both) - 1
    assert config.digest(one["causal-trunk"].config, "d") == config.digest(both["causal-trunk"].config, "d")


def test_what_forks_save(tmp_path):
    # fails when a branch is charged for its trunk's steps: budgets 1, 2, 4 cost .8 * 4 + .2 * (1 + 2 + 4) instead of 7
    forked = members(tmp_path, FORKS).values()
    alone = members(tmp_path, "sweep.ladder(config, ['50K', '75K'], ['10 tokens/param', '20 tokens/param', '40 tokens/param'])")
    ratio = sum(m.plan.trained_tokens for m in forked) / sum(m.plan.tokens for m in alone.values())
    assert ratio == pytest.approx(4.6 / 7, rel=0.01)


@pytest.mark.parametrize(
    "body",
    [
        "sweep.seeds(sweep.fork(config, ['500 steps', '1000 steps']), 2)",
        "sweep.grid(sweep.fork(config, ['500 steps', '1000 steps']), {'seed': [0, 1]})",
        "sweep.fork(sweep.seeds(config, 2), ['500 steps', '1000 steps'])",
        "sweep.fork(sweep.grid(config, {'seed': [0, 1]}), ['500 steps', '1000 steps'])",
    ],
)
def test_a_branch_has_the_trunk_of_its_own_seed(tmp_path, body):
    # fails when branches of every seed leave one trunk, or lose it and become runs of their own
    found = members(tmp_path, body).values()
    assert len(found) == 6
    by_id = {m.id: m for m in found}
    for m in found:
        if m.role == "branch":
            assert by_id[m.parent].role == "trunk" and by_id[m.parent].config.seed == m.config.seed
    assert {m.config.seed for m in found} == {0, 1} and len({m.parent for m in found if m.role == "branch"}) == 2


def test_sizes_and_grids_after_a_fork_reach_the_trunk(tmp_path):
    # fails when a trunk keeps the old value, so that a branch is restored from another shape
    found = members(
        tmp_path, "sweep.grid(sweep.ladder(sweep.fork(config, ['500 steps']), ['50K', '75K']), {'optim.lr': [4e-3, 8e-3]})"
    )
    assert len(found) == 8
    for m in found.values():
        if m.role == "branch":
            parent = found[m.parent]
            assert (parent.config.model, parent.config.optim.lr) == (m.config.model, m.config.optim.lr)


def test_isoflop_budgets(tmp_path):
    # fails when sizes of one profile do not cost the same
    found = members(tmp_path, "sweep.isoflop(config, ['1e12 flops', '4e12 flops'], ['50K', '110K', '195K'])")
    assert len(found) == 6 and all(m.role == "solo" for m in found.values())
    for tag, budget in (("1Tflops", 1e12), ("4Tflops", 4e12)):
        for m in found.values():
            if m.id.endswith(tag):
                step_cost = m.plan.batch_tokens * flops.flops_per_token(m.config.model)["matmul_causal"]
                assert abs(m.plan.flops() - budget) <= step_cost / 2 * 1.001


def test_grids(tmp_path):
    # fails when a product loses a combination, or a value makes an id that is no folder's name
    fields = "{'optim.lr': [0.004, 0.008], 'budget': ['20 tokens/param', '300 steps'], 'model.tied_head': [True]}"
    found = members(tmp_path, f"sweep.grid(config, {fields})")
    assert len(found) == 4 and "causal-lr0.004-budget300_steps-tied_headTrue" in found
    assert all("/" not in i and " " not in i for i in found)
    assert {m.config.optim.lr for m in found.values()} == {0.004, 0.008}


def test_overrides_reach_every_member(tmp_path):
    # fails when the command line changes only the base config, or a member's own field is overwritten
    found = members(tmp_path, FORKS, {"optim.lr": 0.001, "model.size": "200K"})
    assert {m.config.optim.lr for m in found.values()} == {0.001}
    assert {m.size for m in found.values()} == {"50K", "75K"}
    assert problems(tmp_path, FORKS, {"optim.lrr": 1, "modle.width": 2}) == [
        'optim.lrr=1: no such field. Did you mean "optim.lr"?', 'modle.width=2: no such field. Did you mean "model.width"?'
    ]  # fmt: skip


def test_all_problems_of_all_members_at_once(tmp_path):
    # fails when the first bad member hides the others
    found = problems(tmp_path, "sweep.grid(config, {'model.width': [60, 64, 70], 'optim.lr': [-1.0, 0.1]})")
    assert sum("model.width=60" in p for p in found) == 2 and sum("model.width=70" in p for p in found) == 2
    assert sum("optim.lr=-1.0" in p for p in found) == 3 and all(p.startswith("causal-") for p in found)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sweep.grid(config, {'seed': [1, 1]})", "two members have this id"),
        ("sweep.ladder(config, ['50K'], ['1001 steps', '1002 steps'])", "two members have this id"),
        ("[]", "no members"),
        ("sweep.ladder(config, ['50K'], ['20'])", "must be a number and one of the units"),
        ("sweep.fork(config, ['20 tokens/param', '1000 steps'])", "budgets must be in one unit, not steps, tokens/param"),
        ("sweep.fork(config, [])", "not none"),
        ("sweep.fork(sweep.fork(config, ['500 steps']), ['500 steps'])", "part of a fork already"),
        ("sweep.fork(sweep.grid(config, {'marks': [('9 steps',)]}), ['500 steps'])", "sets the trunk's marks itself"),
        ("sweep.ladder(sweep.fork(config, ['500 steps']), ['50K'], ['1000 steps'])", "are set by fork"),
        ("sweep.fork(config, ['500 steps'])[1:]", "its trunk causal-trunk cannot run, or does not stand before it"),
        ("sweep.fork(config, ['500 steps'])[::-1]", "its trunk causal-trunk cannot run, or does not stand before it"),
        ("sweep.fork(config, ['1 tokens', '300 tokens'])", "less than one step"),
    ],
)
def test_sweeps_that_cannot_run(tmp_path, body, message):
    # fails when a sweep that makes no sense runs, or ends in a traceback
    assert any(message in p for p in problems(tmp_path, body))


def test_a_fork_needs_its_cooldown_as_a_part(tmp_path):
    # fails when branches of several budgets would leave at points that do not scale with them
    text = problems(tmp_path, FORKS, optim__cooldown="100 steps")
    assert any("a fork needs it as a part of the budget" in p for p in text)


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    # fails when a user's own ./configs is passed over, shadows ours for another name, or a typo gets no hint
    monkeypatch.chdir(tmp_path)
    assert sweep.find_config("ladder.py:quick") == (REPO / "configs" / "ladder.py", "quick")
    (tmp_path / "configs").mkdir()
    own = write_sweep(tmp_path / "configs" / "mine.py", "sweep.ladder(config, ['50K'])")
    assert sweep.find_config("mine.py")[0].samefile(own)
    assert sweep.find_config(str(own))[0] == own
    with pytest.raises(config.ConfigError, match=r"no such file; looked for .*mine\.py.*Did you mean .ladder\.py"):
        sweep.find_config("laddr.py")
    (tmp_path / "broken.py").write_text("def get_config(arg=''):\n    return 1 +\n")
    with pytest.raises(config.ConfigError, match=r"broken\.py: SyntaxError.*\(line 2\)"):
        sweep.load("broken.py")
    with pytest.raises(config.ConfigError, match=r"get_config\('fast'\): default\.py takes no argument"):
        sweep.load("default.py:fast")
    with pytest.raises(config.ConfigError, match=r"has no get_sweep.*scaling\.train"):
        sweep.load("default.py")


def test_a_budget_beyond_the_stream_is_refused_member_by_member(tmp_path):
    # fails when a sweep starts whose last members will lack data
    path = write_sweep(tmp_path / "mine.py", FORKS)
    with pytest.raises(config.ConfigError) as caught:
        sweep.load(str(path), stream_tokens=1_800_000)
    assert [p.split(":")[0] for p in caught.value.problems if "allow repeats" in p] == [
        "causal-50K-40x", "causal-75K-trunk"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sizes", "budgets"), [("ladder.py", 6, 3), ("ladder.py:quick", 4, 3), ("ladder.py:tpu", 6, 3)]
)
def test_the_packaged_ladders_resolve(name, sizes, budgets):
    # fails when a default ladder is smaller than promised or its budgets rise in proportion to its sizes alone
    loaded = sweep.load(name)
    assert len(loaded.sizes()) >= sizes and len(loaded.largest()) == len(loaded.members) / len(loaded.sizes())
    assert len({m.id for m in loaded.members}) == len(loaded.members)
    for n in loaded.sizes():
        branches = [m for m in loaded.members if m.role == "branch" and m.plan.n_params["non_embedding"] == n]
        assert len({m.plan.tokens for m in branches}) >= budgets


@pytest.mark.parametrize(
    ("given", "sources", "loss_of", "asked"),
    [
        ({}, ("tokens/apidocs", "tokens/laptop"), "tokens/apidocs", "laptop"),
        ({"data.store": "tokens/books"}, ("tokens/books", "tokens/laptop"), "tokens/books", "laptop"),
        ({"data.store": "tokens/books", "data.vocab": "4096"}, ("tokens/books",), "", ""),
        ({"data.mixture": (("a", 3), ("b", 1))}, ("a", "b"), "", ""),
        ({"sweep.suite": False}, ("tokens/apidocs",), "", ""),
        ({"probe.suite": "mine"}, ("tokens/apidocs", "tokens/laptop"), "tokens/apidocs", "mine"),
    ],
)
def test_the_ladder_mixes_the_suites_text_into_any_bytes(given, sources, loss_of, asked):
    # fails when the default ladder cannot be trained on one's own text, or is asked what its text does not teach
    for member in sweep.load("ladder.py", given).members:
        data = member.config.data
        assert tuple(path for path, _ in data.sources) == sources and data.loss_of == loss_of
        assert member.config.probe.suite == asked
