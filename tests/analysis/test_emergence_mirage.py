"""The mirage test: published scores of breakthrough, the toy of Schaeffer et al., laws, links and jumps."""

import dataclasses

import emergence_ladders as ladders
import numpy as np
import pytest

from analysis.emergence import judge, mirage

SIZES = np.arange(8.0)


@pytest.mark.parametrize(
    ("percent", "linearity", "breakthroughness"),
    [
        ([2, 4.1, 3.5, 4.5, 8.9, 11.9, 55.5, 100], 4.143719556751683, 32.666666666666664),  # GPT-3, 2-digit addition
        ([0.05, 0.1, 0.15, 0.35, 0.65, 1.05, 9.2, 94.2], 2.9171208881311954, 313.8333333333333),  # 3-digit subtraction
        ([4.63, 9.27, 10.7, 14.5, 16.7, 21.9, 27.7, 37.9], 6.109628741320596, 7.170258620689655),  # cycled letters
        ([0, 0.05, 0, 0.17, 0.24, 0.3, 0.42, 0.44], 4.867474467555808, 7.333333333333334),  # reversed words: noise
        ([0, 1, 2, 3, 4], 4.0, 4.0),
    ],
)
def test_bigbench_scores(percent, linearity, breakthroughness):
    """Fails when linearity or breakthroughness are not BIG-bench's."""
    assert mirage.bigbench(np.arange(len(percent)), np.array(percent)) == pytest.approx((linearity, breakthroughness))


def toy(length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log10 N, nats per token and exact match of the toy: CE = (N / 1e4)^-.3, EM = exp(-length CE)."""
    x = np.log10([1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7])
    nll = 10 ** (-0.3 * (x - 4))
    return x, nll, np.exp(-length * nll)


@pytest.mark.parametrize(("length", "match"), [(1, 0.88170959), (5, 0.53287804), (10, 0.283959), (20, 0.08063271)])
def test_the_toy_is_a_straight_line_in_loglog(length, match):
    """Fails when log(−log EM) of a power law is not straight with the power as its slope, for any length."""
    x, nll, exact = toy(length)
    assert exact[-1] == pytest.approx(match)
    r2, slope = mirage.loglog(x, exact)
    assert (r2, slope) == pytest.approx((1.0, -0.3))
    assert np.log(-np.log(exact[3])) == pytest.approx(np.log(length) - 0.3 * (x[3] - 4) * np.log(10))
    assert nll == pytest.approx([1.0, 0.719223, 0.501187, 0.360465, 0.251189, 0.180661, 0.125893], abs=1e-6)


def test_the_toy_is_sharp_in_the_metric_only():
    """Fails when ten tokens' exact match over a power law of loss is not explained by that law."""
    x, nll, exact = toy(10)
    a = ladders.ability(np.round(exact * 500), 0.0, nll, x=x + 12, length=10.0)
    found = judge.judge(a, draws=40)
    assert found.call == "sharp-metric-only"
    assert found.mirage.explained and found.mirage.error < 0.05
    assert found.mirage.lead == pytest.approx(0.73, abs=0.05)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("nll", lambda x: 2 * 10 ** (-0.4 * x)), ("nll", lambda x: np.logaddexp(0, 1 - x)),
        ("p_gold", lambda x: 1 / (1 + np.exp(1 - x))), ("brier", lambda x: 1.5 / (1 + np.exp(x - 1))),
        ("edit", lambda x: 1 / (1 + np.exp(x))),
    ],
)  # fmt: skip
def test_smooth_laws_follow_smooth_companions_and_no_steps(name, truth):
    """Fails when a family of laws misses what it is made for, or bends into a step."""
    x = np.linspace(0, 3, 7)
    c = truth(x)
    law = mirage.smooth_law(name, x, c)
    assert law(x) == pytest.approx(c, abs=0.02 * np.ptp(c))
    steps = np.where(x < 1.4, 0.9, 0.1)
    misses = steps - mirage.smooth_law(name, x, steps)(x)
    assert np.sqrt(np.mean(misses**2)) > 0.1 * 0.8
    fine = mirage.smooth_law(name, x, steps)(np.linspace(0, 3, 100))
    assert np.all(np.diff(fine) <= 1e-9), "a law has to be monotone"


def test_jumps():
    """Fails when a jump is not told from a slope by the share that it makes within 40 % of the ladder."""
    x = np.linspace(0, 10, 11)
    residual, share = mirage.jump(x, np.where(x < 4.5, 2.0, 0.5))
    assert residual == pytest.approx(0, abs=1e-6) and share == pytest.approx(1.0)
    residual, share = mirage.jump(x, 2 - 0.1 * x)
    assert residual > 0.05 and share == pytest.approx(0.4)


def test_isotonic():
    """Fails when the nearest rising sequence is not found."""
    assert mirage.isotonic(np.array([1.0, 3, 2, 4, 0])) == pytest.approx([1.0, 2.25, 2.25, 2.25, 2.25])


def test_multiple_choice_through_the_probability_of_the_answer():
    """Fails when a threshold in accuracy over a smooth probability of the right answer is called a jump of the model."""
    p_gold = 1 / (1 + np.exp(-np.linspace(-1.0, 1.0, 8)))  # .27 to .73
    accuracy = 0.25 + 0.75 / (1 + np.exp(-(p_gold - 0.55) * 45))
    x = np.linspace(18, 21.5, 8)
    a = ladders.ability(np.round(500 * accuracy), 0.25, x=x, companions={"p_gold": p_gold})
    found = judge.judge(a, draws=40)
    assert found.sharp and found.call == "sharp-metric-only"
    jumping = dataclasses.replace(a, companions={"p_gold": np.where(x < 20, 0.27, 0.73)})
    assert judge.judge(jumping, draws=40).call == "sharp-in-loss"


# small decoders trained for 4.3M tokens on 16 tasks: exact match of 150 items and nats per token, 9.5K to 352K parameters
SMALL = {
    "sort 5 digits": ([0.01, 0.08, 0.41, 0.94, 1, 0.99], [1.40, 0.95, 0.51, 0.07, 0.02, 0.01], "sharp-metric-only"),
    "brackets": ([0.21, 0.30, 0.39, 0.45, 0.63, 0.72], [1.02, 0.82, 0.61, 0.55, 0.40, 0.31], "smooth"),
    "160 facts of 3 letters": ([0.03, 0, 0.05, 0.07, 0.82, 1], [2.42, 2.04, 1.60, 1.18, 0.24, 0.01], "sharp-metric-only"),
    "160 facts of 20 cities": ([0.09, 0.05, 0.10, 0.10, 0.84, 0.99], [1.51, 1.47, 1.47, 1.46, 0.33, 0.03], "sharp-in-loss"),
    "addition in steps": ([0.01, 0.01, 0.02, 0.14, 0.51, 0.91], [0.77, 0.99, 0.55, 0.33, 0.17, 0.06], "sharp-metric-only"),
}


def test_measured_tasks_of_small_models():
    """Fails when mirage and real jump, seen side by side in six small models, are confused."""
    n_params = np.array([9.5e3, 18.9e3, 31e3, 65e3, 112e3, 352e3])
    tasks = [
        ladders.ability(150 * np.array(score), 0.0, np.array(nll), x=np.log10(6 * n_params * 4.3e6), n=150, n_params=n_params)
        for score, nll, _ in SMALL.values()
    ]
    found = judge.judge_all(tasks, draws=60)
    assert {name: v.call for name, v in zip(SMALL, found, strict=True)} == {name: call for name, (_, _, call) in SMALL.items()}
    assert found[3].floor == pytest.approx(0.085), "the four models that guess the most frequent city"
