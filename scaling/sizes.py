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
    "small: depth 4, D = 16, 24, ... 232, head size K = 8; else D = 64 depth, K = 64 (128 from D = 2048 where it divides D); "
    "H = D/K; F = 8/3 D (SwiGLU) or 4 D, to a multiple of 8 (128 from D = 256); N = depth (2 D^2 + 2 D G K + 3 D F) + norms"
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


def n_block_params(depth: int, width: int, activation: str = "swiglu") -> int:
    """Matrix parameters of all blocks by rule, what the dial aims at (norm gains, under 1 %, left out)."""
    mlp = (3 if activation == "swiglu" else 2) * width * ff_size(width, activation)
    return depth * (4 * width * width + mlp)


def shape(size: str | None, given: Mapping[str, Any], activation: str = "swiglu") -> dict[str, int]:
    """Every ruled field of a ModelConfig, from ``size`` or ``given['depth']``; fields in ``given`` win.

    Raises:
      ValueError: naming the field, when the dial cannot be read or a width has no whole number of heads.
    """
    depth, width = _depth_and_width(size, given, activation)
    heads, size_of_head = _heads(width, given.get("heads"), given.get("head_size"))
    base_width = given.get("base_width", 32)
    return {
        "depth": depth,
        "width": width,
        "heads": heads,
        "head_size": size_of_head,
        "kv_heads": given.get("kv_heads") or heads,
        "ff": given.get("ff") or ff_size(width, activation),
        "base_ff": given.get("base_ff") or ff_size(base_width, activation),
        "base_head_size": given.get("base_head_size") or _base_head_size(base_width, size_of_head, given),
    }


def _base_head_size(base_width: int, size_of_head: int, given: Mapping[str, Any]) -> int:
    """K of the model of the base width: the same at every width, since muP's scores go by K over it.  SP has no base."""
    if given.get("head_size") or given.get("parameterization") == "sp":
        return size_of_head
    return max(1, base_width // given["heads"]) if given.get("heads") else head_size(base_width)


def _depth_and_width(size: str | None, given: Mapping[str, Any], activation: str) -> tuple[int, int]:
    depth, width = given.get("depth"), given.get("width")
    if size is None:
        if width is None:
            return (SMALL_DEPTH, 64) if depth is None else (depth, ASPECT * depth)
        return (SMALL_DEPTH if depth is None else depth), width
    if depth is not None or width is not None:
        raise ValueError(f"size={size!r}: give a size, or depth and width, not both")
    try:
        target = units.parse_count(size)
    except ValueError as error:
        raise ValueError(f"size={size!r}: {error}") from None
    whole = given.get("heads") or given.get("head_size") or 1  # given, it leaves the widths that it divides
    shapes = [(SMALL_DEPTH, w) for w in SMALL_WIDTHS] + [(d, ASPECT * d) for d in range(4, 129)]
    shapes = [s for s in shapes if whole < 1 or s[1] % whole == 0] or shapes
    counts = {s: n_block_params(*s, activation) for s in shapes}
    low, high = min(counts.values()), max(counts.values())
    if not 0.7 * low <= target <= 1.3 * high:
        reach = f"from {units.format_count(low)} to {units.format_count(high)} parameters"
        raise ValueError(f"size={size!r}: the dial goes {reach}; set depth and width instead")
    return min(shapes, key=lambda s: max(counts[s] / target, target / counts[s]))


def _heads(width: int, heads: int | None, size_of_head: int | None) -> tuple[int, int]:
    if heads is not None:
        if heads < 1 or width % heads:
            multiple = max(1, width // max(1, heads)) * max(1, heads)
            raise ValueError(f"width={width}: not divisible by heads={heads}; use a multiple, such as {multiple}")
        return heads, size_of_head or width // heads
    by_rule = size_of_head or min(max(1, width), head_size(width))
    if width % by_rule:
        low = width // by_rule * by_rule
        near = f"{low or by_rule} or {low + by_rule}"
        raise ValueError(f"width={width}: not divisible into heads of size {by_rule}; use {near}, or set heads")
    return width // by_rule, by_rule
