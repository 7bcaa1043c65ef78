"""The size dial: one number to a whole shape, by rules that are printed with their formulas.

Below 2M non-embedding parameters depth is 4 and only the width grows, so that width-muP needs no depth rule (at fixed
aspect, depth 2 to 3 alone is 3.4 times the parameters); above it the aspect is 64, as in most published families
(OLMo 64-128, Chinchilla 40-100, nanochat 64).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling import units

SMALL_DEPTH = 4
SMALL_WIDTHS = range(16, 233, 8)
ASPECT = 64
FORMULA = (
    "small: depth 4, D = 16, 24, ... 232, head size K = 8; else D = 64 depth, K = 64 (128 from D = 2048 where it divides D); H = D/K; "
    "F = 8/3 D (SwiGLU) or 4 D, to a multiple of 8 (128 from D = 256); N = depth (2 D^2 + 2 D G K + 3 D F) + norms"
)


def ff_size(width: int, activation: str) -> int:
    """F by rule: the nearest multiple of 8 (128 from D = 256 on, for matrix units) to 8/3 D (SwiGLU) or 4 D."""
    multiple = 128 if width >= 256 else 8
    target = width * 8 / 3 if activation == "swiglu" else width * 4
    return max(1, round(target / multiple)) * multiple


def head_size(width: int) -> int:
    """K by rule."""
    if width < 256:
        return 8
    return 128 if width >= 2048 and width % 128 == 0 else 64


def n_block_params(depth: int, width: int, ff: int, kv_width: int, activation: str = "swiglu") -> int:
    """Matrix parameters of all blocks, what the dial aims at (norm gains and biases, under 1 %, left out)."""
    mlp = (3 if activation == "swiglu" else 2) * width * ff
    return depth * (2 * width * width + 2 * width * kv_width + mlp)


def _candidates(activation: str) -> list[tuple[int, int]]:
    shapes = [(SMALL_DEPTH, width) for width in SMALL_WIDTHS] + [(depth, ASPECT * depth) for depth in range(4, 129)]
    return sorted(shapes, key=lambda s: n_block_params(*s, ff_size(s[1], activation), s[1], activation))


def shape(size: str | None, given: Mapping[str, Any], activation: str = "swiglu") -> dict[str, int]:
    """Every ruled field of a ModelConfig, from ``size`` or ``given['depth']``; fields in ``given`` win.

    Raises:
      ValueError: naming the field, when the dial cannot be read or a width has no whole number of heads.
    """
    depth, width = given.get("depth"), given.get("width")
    if size is not None:
        if depth is not None or width is not None:
            raise ValueError(f"size={size!r}: give a size, or depth and width, not both")
        try:
            target = units.parse_count(size)
        except ValueError as error:
            raise ValueError(f"size={size!r}: {error}") from None
        options = _candidates(activation)
        counts = [n_block_params(d, w, ff_size(w, activation), w, activation) for d, w in options]
        if not 0.7 * counts[0] <= target <= 1.3 * counts[-1]:
            low, high = units.format_count(counts[0]), units.format_count(counts[-1])
            raise ValueError(f"size={size!r}: the dial goes from {low} to {high} parameters; set depth and width instead")
        depth, width = min(zip(counts, options, strict=True), key=lambda c: max(c[0] / target, target / c[0]))[1]
    elif depth is None and width is None:
        depth, width = SMALL_DEPTH, 64
    elif width is None:
        assert depth is not None
        width = ASPECT * depth
    elif depth is None:
        depth = SMALL_DEPTH
    heads = given.get("heads")
    size_of_head = given.get("head_size") or (width // heads if heads else min(width, head_size(width)))
    if heads is None:
        if width % size_of_head:
            low = width // size_of_head * size_of_head
            raise ValueError(
                f"width={width}: not divisible into heads of size {size_of_head}; use {low or size_of_head} or {low + size_of_head}, or set heads"
            )
        heads = width // size_of_head
    elif width % heads:
        raise ValueError(f"width={width}: not divisible by heads={heads}; use a multiple of {heads}, such as {max(1, width // heads) * heads}")
    base_width = given.get("base_width", 32)
    return {
        "depth": depth, "width": width, "heads": heads, "head_size": size_of_head,
        "kv_heads": given.get("kv_heads") or heads, "ff": given.get("ff") or ff_size(width, activation),
        "base_ff": given.get("base_ff") or ff_size(base_width, activation),
        "base_head_size": given.get("base_head_size") or size_of_head,
    }  # fmt: skip
