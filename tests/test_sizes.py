"""The size dial: one number to a whole shape by the printed rules."""

import hypothesis
import pytest
from hypothesis import strategies as st

from scaling import config, flops, sizes, units


@pytest.mark.parametrize(
    ("width", "n"),
    [(32, 50_176), (48, 110_592), (64, 194_560), (80, 309_760), (96, 442_368), (112, 598_528), (128, 790_528), (144, 995_328)],
)
def test_small_shapes_have_the_counts_worked_out_by_hand(width, n):
    # fails when F is not 8/3 D to a multiple of 8, or a matrix is counted twice: 4 (4 D^2 + 3 D F)
    c = config.model_config(depth=4, width=width)
    counts = flops.param_counts(c)
    assert counts["attention"] + counts["mlp"] == n == sizes.n_block_params(4, width)


@pytest.mark.parametrize(
    ("size", "depth", "width", "head_size"),
    [("50K", 4, 32, 8), ("1.2M", 4, 160, 8), ("10M", 6, 384, 64), ("85M", 12, 768, 64), ("1.6B", 32, 2048, 128)],
)
def test_the_dial_by_the_formula(size, depth, width, head_size):
    # fails when the rule jumps at another size than the formula says (depth 4 below 2M, aspect 64 above)
    c = config.model_config(size)
    assert (c.depth, c.width, c.head_size) == (depth, width, head_size)


@hypothesis.given(st.floats(15e3, 20e9), st.sampled_from(config.ACTIVATIONS))
@hypothesis.settings(max_examples=200, deadline=None)
def test_the_dial_comes_near_every_size(target, activation):
    # fails when there is a hole in the dial, or a shape does not fit together
    c = config.model_config(f"{target:.6g}", activation=activation)
    n = flops.n_params(c)["non_embedding"]
    assert c.heads * c.head_size == c.width and c.kv_heads == c.heads and c.ff % 8 == 0
    assert 0.6 < n / target < 1.7
    if target < 1.5e6:
        assert c.depth == 4


def test_the_dial_is_monotonic():
    # fails when a larger number gives a smaller model
    counts = [flops.n_params(config.model_config(f"{1.1**i * 2e4:.6g}"))["non_embedding"] for i in range(130)]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("given", "base"), [({}, 8), ({"head_size": 16}, 16), ({"heads": 4}, 8), ({"heads": 4, "base_width": 64}, 16)]
)
def test_one_base_head_size_for_every_width(given, base):
    # fails when muP's scores go by a K of the model's own: then a ladder whose heads grow from 8 to 64 changes more than width
    found = {config.model_config(width=width, **given).base_head_size for width in (64, 256, 2048)}
    assert found == {base}


def test_fields_override_the_rules():
    # fails when a rule overwrites what was given, or the rest does not follow
    c = config.model_config(width=96, heads=6, kv_heads=2, ff=100)
    assert (c.depth, c.width, c.heads, c.kv_heads, c.head_size, c.ff) == (4, 96, 6, 2, 16, 100)
    assert config.model_config(depth=6).width == 384
    assert config.model_config(width=64, activation="gelu").ff == 256
    assert config.model_config(width=64).base_ff == 88 and config.model_config(width=64, base_width=64).base_ff == 168


@pytest.mark.parametrize(
    ("fields", "shape"), [({"head_size": 16}, (48, 3)), ({"heads": 4}, (40, 4)), ({"head_size": 32}, (32, 1)), ({}, (40, 5))]
)
def test_the_dial_takes_widths_that_the_heads_divide(fields, shape):
    # fails when 75K (width 40 by the rule) with heads of 16 is refused instead of rounded to a width that they divide
    c = config.model_config("75K", **fields)
    assert (c.width, c.heads) == shape


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": "1M", "width": 64}, "give a size, or depth and width, not both"),
        ({"size": "12 apples"}, "size='12 apples'.*positive number"),
        ({"size": "10"}, "dial goes from"),
        ({"width": 60}, "width=60: not divisible into heads of size 8; use 56 or 64"),
        ({"width": 64, "heads": 5}, "width=64: not divisible by heads=5; use a multiple, such as 60"),
        ({"width": 64, "heads": 8, "head_size": 16}, "width=64: not 8 heads x head_size 16 = 128"),
        ({"width": 64, "kv_heads": 3}, "kv_heads=3: must divide heads=8"),
        ({"width": 12, "heads": 4}, "head_size=3: must be even for rotary"),
        ({"width": 0}, "width=0: must be at least 1"),
        ({"depth": 0}, "depth=0: must be at least 1"),
        ({"heads": 0}, "heads=0: must be at least 1"),
        ({"kv_heads": 0}, "kv_heads=0: must be at least 1"),
        ({"ff": 0}, "ff=0: must be at least 1"),
        ({"head_size": 0}, "head_size=0: must be at least 1"),
        ({"width": -8}, "width=-8: must be at least 1"),
        ({"base_width": 0}, "base_width=0: must be at least 1"),
        ({"base_head_size": -1}, "base_head_size=-1: must be at least 1"),
    ],
)
def test_shapes_that_do_not_fit(fields, message):
    # fails when a bad number divides by zero, is replaced by the rule in silence, or the message does not name field and remedy
    with pytest.raises(config.ConfigError, match=message):
        config.model_config(**fields)


def test_the_formula_is_printed_with_its_numbers():
    # fails when the rule changes and its formula does not
    low, high = min(sizes.SMALL_WIDTHS), max(sizes.SMALL_WIDTHS)
    assert f"depth {sizes.SMALL_DEPTH}" in sizes.FORMULA and f"D = {low}," in sizes.FORMULA and f"{high}," in sizes.FORMULA
    assert f"D = {sizes.ASPECT} depth" in sizes.FORMULA
    assert units.format_count(sizes.n_block_params(4, high)) == "2.58M"
