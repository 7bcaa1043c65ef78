"""Text with units, parsed in one place: counts ('1.2M'), durations ('20 tokens/param'), batch and warm-up rules."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

_SUFFIX = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_COUNT = re.compile(r"\s*((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*([KMBGTPE]?)\s*", re.IGNORECASE)
DURATION_UNITS = ("steps", "tokens", "tokens/param", "flops", "epochs", "%")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``' Did you mean "width"?'``, or the empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""


def parse_count(text: str | int | float) -> float:
    """``'1.2M'`` → 1200000.0.

    Raises:
      ValueError: when the text is not a positive number with an optional suffix K M B G T P E.
    """
    match = _COUNT.fullmatch(str(text))
    value = float(match[1]) * _SUFFIX[match[2].upper()] if match else 0.0
    if not (value > 0 and math.isfinite(value)):
        raise ValueError("must be a positive number such as 50K, 1.2M or 3e9")
    return value


def format_count(value: float, digits: int = 3) -> str:
    """1234567 → ``'1.23M'``; at most ``digits`` significant digits."""
    for suffix, scale in (("", 1), ("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12), ("P", 1e15), ("E", 1e18)):
        rounded = float(f"{value / scale:.{digits}g}")
        if rounded < 1000 or suffix == "E":
            return f"{rounded:g}{suffix}"
    raise AssertionError("unreachable")


def format_bytes(value: float) -> str:
    """2100000000 → ``'2.1GB'``."""
    return format_count(value, 2).replace("B", "G") + "B"


def format_seconds(seconds: float) -> str:
    """75 → ``'1m15s'``."""
    if seconds < 59.5:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training in any unit."""

    value: float
    unit: str

    def tokens(self, *, batch_tokens: int, n_params: int, flops_per_token: float, stream_tokens: float, total: float) -> float:
        """This duration in tokens.

        Args:
          batch_tokens: tokens per step.
          n_params: non-embedding parameters.
          flops_per_token: exact matmul FLOPs, causal attention, forward and backward.
          stream_tokens: tokens of one epoch (``nan`` while no store is there).
          total: tokens of the whole run, of which '%' is a part.
        """
        unit_tokens = {
            "steps": batch_tokens, "tokens": 1.0, "tokens/param": n_params, "flops": 1 / flops_per_token,
            "epochs": stream_tokens, "%": total / 100,
        }  # fmt: skip
        return self.value * unit_tokens[self.unit]


def parse_duration(text: str) -> Duration:
    """``'2000 steps'``, ``'20 tokens/param'``, ``'1e15 flops'``, ``'10%'``, ``'3M tokens'``, ``'0.5 epochs'``.

    Raises:
      ValueError: naming the units there are.
    """
    match = re.fullmatch(r"(.*?[0-9KMBGTPE.])\s*(steps|tokens/param|tokens|flops|epochs|%)", str(text).strip())
    if not match:
        raise ValueError(f"must be a number and one of the units {', '.join(DURATION_UNITS)}, such as '20 tokens/param'")
    return Duration(parse_count(match[1]), match[2])


@dataclasses.dataclass(frozen=True)
class BatchRule:
    """Tokens per step as a function of size, with where it comes from and where it was fitted."""

    source: str
    lo: float  # non-embedding parameters between which the rule was fitted
    hi: float
    coefficient: float  # tokens at 108M parameters
    exponent: float

    def tokens(self, n_params: int) -> float:
        return self.coefficient * (n_params / 108e6) ** self.exponent


# B = 2048 * 160 * (N/108e6)^(2/3) tokens: Porian et al. 2024 (arXiv 2406.19146), as used by OLMo's ladders.
BATCH_RULES = {"porian": BatchRule("Porian et al. 2024, fitted at 20 tokens/param", 25e6, 110e6, 2048 * 160, 2 / 3)}
# A constant batch in tokens is the laptop default: measured on the default ladder, see configs/ladder.py.
CONSTANT_BATCH_RANGE = (40e3, 1e6)
MIN_WARMUP_STEPS = 20
MIN_STEPS = 100


def check_batch(text: str, context: int, machine: Any) -> None:
    """Raises ValueError with field, value and remedy when a batch cannot be built or split on the mesh."""
    if text in BATCH_RULES:
        return
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise ValueError(f"batch={text!r}: {error}, or a rule: {', '.join(BATCH_RULES)}") from None
    if duration.unit != "tokens":
        raise ValueError(f"batch={text!r}: must be in tokens, such as '768 tokens', or a rule: {', '.join(BATCH_RULES)}")
    rows = round(duration.value / context)
    if rows < 1 or abs(rows * context - duration.value) > 0.5:
        near = max(1, rows) * context
        raise ValueError(f"batch={text!r}: must be a multiple of model.context={context}, such as '{near} tokens'")
    check_split(rows, machine, f"batch={text!r} is {rows} windows of {context}")


def check_split(rows: int, machine: Any, what: str) -> None:
    """Raises ValueError unless ``rows`` windows split over micro-batches and the data axes of the mesh."""
    ways = max(1, machine.data) * max(1, machine.fsdp) * max(1, machine.micro_batches)
    if rows % ways:
        mesh = f"machine.data={machine.data} x machine.fsdp={machine.fsdp} x machine.micro_batches={machine.micro_batches}"
        remedy = f"use a batch of {max(1, rows // ways) * ways} windows, or lower one of these"
        raise ValueError(f"{what}, which {mesh} = {ways} does not divide; {remedy}")


def batch_windows(text: str, context: int, n_params: int) -> int:
    """Windows per step, whole; a rule is rounded to the nearest power of two windows (at least 4)."""
    if text in BATCH_RULES:
        windows = BATCH_RULES[text].tokens(n_params) / context
        return max(4, 2 ** round(math.log2(max(1.0, windows))))
    return round(parse_duration(text).value / context)


def batch_warning(text: str, n_params: int) -> str | None:
    """A sentence when the batch rule is used outside the sizes where it was fitted."""
    if text in BATCH_RULES:
        rule = BATCH_RULES[text]
        lo, hi, source = rule.lo, rule.hi, rule.source
    else:
        (lo, hi), source = CONSTANT_BATCH_RANGE, "a constant batch, tried on the default ladder"
    if lo <= n_params <= hi:
        return None
    return (
        f"batch {text!r} at {format_count(n_params)} parameters is outside the range of its rule "
        f"({format_count(lo)} to {format_count(hi)}; {source})"
    )
