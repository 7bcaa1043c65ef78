"""What a run will do, before it does it: N, D, C, steps, batch, schedule, cost.  Imports no jax."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from scaling import flops, units
from scaling.config import ConfigError, TrainConfig

BYTES_PER_NUMBER = 4  # float32


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything a schedule, a table row or a figure needs; written to plan.json.

    Tokens are whole steps: the budget rounded to the nearest step.  For a branch ``tokens`` counts from the trunk's start and
    ``fork_tokens`` is where it leaves the trunk.
    """

    n_params: dict[str, int]
    flops_per_token: dict[str, float]
    tokens: int
    steps: int
    batch_windows: int
    batch_tokens: int
    warmup_steps: int
    cooldown_steps: int
    lr: float
    marks: tuple[int, ...]  # steps at which a permanent checkpoint is kept
    fork_tokens: int | None
    fork_steps: int
    annealed: bool
    tokens_per_param: float
    epochs: float | None
    checkpoint_bytes: int
    warnings: tuple[str, ...]

    @property
    def trained_tokens(self) -> int:
        """Tokens that this member trains on itself, without its trunk's."""
        return self.tokens - (self.fork_tokens or 0)

    def flops(self, convention: str = flops.DEFAULT_CONVENTION) -> float:
        """Training FLOPs of the whole path, trunk included."""
        return self.tokens * self.flops_per_token[convention]

    def to_dict(self) -> dict[str, Any]:
        """What plan.json holds."""
        return dataclasses.asdict(self) | {"flops": {c: self.flops(c) for c in flops.CONVENTIONS}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Plan:
        """A plan read back from plan.json."""
        fields = {f.name: content[f.name] for f in dataclasses.fields(cls)}
        return cls(**fields | {"marks": tuple(fields["marks"]), "warnings": tuple(fields["warnings"])})


def make_plan(
    config: TrainConfig, *, stream_tokens: int | None = None, trunk: Plan | None = None, fork_at: str | None = None
) -> Plan:
    """Resolves every duration of ``config``.

    Args:
      config: resolved.
      stream_tokens: tokens of one epoch, None before a store is there.
      trunk: the parent's plan, for a branch.
      fork_at: the duration at which the branch leaves the trunk; rounded to a step as the trunk's mark is.

    Raises:
      ConfigError: a budget larger than the stream allows or shorter than a step, a mark outside it, a warm-up and a cooldown
        that do not fit into it.
    """
    counts = flops.n_params(config.model)
    per_token = flops.flops_per_token(config.model)
    n = counts["non_embedding"]
    windows = units.batch_windows(config.batch, config.model.context, n)
    batch_tokens = windows * config.model.context
    problems: list[str] = []

    def steps_of(text: str, total: float) -> int:
        tokens = units.parse_duration(text).tokens(
            batch_tokens=batch_tokens, n_params=n, flops_per_token=per_token[flops.DEFAULT_CONVENTION],
            stream_tokens=math.nan if stream_tokens is None else stream_tokens, total=total,
        )  # fmt: skip
        if math.isnan(tokens):
            problems.append(f"{text!r}: epochs need the token store; build it first or give the budget in tokens")
            return 1
        return round(tokens / batch_tokens)

    steps = steps_of(config.budget, math.nan)
    tokens = steps * batch_tokens
    if steps < 1:
        problems.append(
            f"budget={config.budget!r}: is less than one step of {batch_tokens:,} tokens; raise the budget or lower the batch"
        )
    try:
        units.check_split(windows, config.machine, f"batch={config.batch!r} is {windows} windows")
    except ValueError as error:
        problems.append(str(error))
    # a quotient: the product of 2.3 and 6,400 is less than 14,720
    if stream_tokens is not None and (stream_tokens == 0 or tokens / stream_tokens > config.data.epochs):
        problems.append(_too_long(config, tokens, stream_tokens))
    warmup = trunk.warmup_steps if trunk else _warmup_steps(config, n, batch_tokens, steps, steps_of)
    fork_steps = 0 if fork_at is None else steps_of(fork_at, tokens)
    cooldown = 0
    if config.optim.schedule == "wsd":
        cooldown = steps - fork_steps if trunk else steps_of(config.optim.cooldown, tokens)
    if steps >= 1 and warmup + cooldown > steps:
        problems.append(
            f"optim.warmup is {warmup:,} steps and the cooldown {cooldown:,}, together more than the {steps:,} of "
            f"budget={config.budget!r}; shorten one of them or raise the budget"
        )
    marks = {text: steps_of(text, tokens) for text in config.marks}
    problems += [
        f"marks={text!r}: is step {at:,}, not one of the {steps:,} steps of the run"
        + (f" after its fork at step {fork_steps:,}" if fork_steps else "")
        for text, at in marks.items()
        if not fork_steps < at <= steps
    ]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Plan(
        n_params=counts, flops_per_token=per_token, tokens=tokens, steps=steps, batch_windows=windows,
        batch_tokens=batch_tokens, warmup_steps=warmup, cooldown_steps=cooldown, lr=config.optim.lr,
        marks=tuple(sorted(set(marks.values()))),
        fork_tokens=fork_steps * batch_tokens if trunk else None, fork_steps=fork_steps,
        annealed=config.optim.schedule != "constant", tokens_per_param=tokens / n,
        epochs=tokens / stream_tokens if stream_tokens else None, checkpoint_bytes=_checkpoint_bytes(config),
        warnings=_warnings(config, n, steps, warmup),
    )  # fmt: skip


def _checkpoint_bytes(config: TrainConfig) -> int:
    """Parameters and two Adam moments; Muon keeps one moment of the blocks' matrices."""
    parts = flops.param_counts(config.model)
    one_moment = parts["attention"] + parts["mlp"] if config.optim.optimizer == "muon" else 0
    return BYTES_PER_NUMBER * (3 * sum(parts.values()) - one_moment)


def _too_long(config: TrainConfig, tokens: int, stream_tokens: int) -> str:
    data = config.data
    if stream_tokens == 0:
        stores = " or ".join(path for path, _ in data.sources)
        return f"model.context={config.model.context}: {stores} holds no window so long; lower it, or bring more text"
    ends = " until its first store has been seen once" if data.mixture else ""
    stream = f"the mixture of {', '.join(path for path, _ in data.sources)}" if data.mixture else f"the stream {data.store}"
    return (
        f"budget={config.budget!r}: needs {tokens:,} tokens, {stream} holds {stream_tokens:,}{ends} and "
        f"data.epochs={data.epochs:g} allows {stream_tokens * data.epochs:,.0f}; allow repeats with "
        f"data.epochs={math.ceil(10 * tokens / stream_tokens) / 10:g}, or lower the budget, or bring more text"
    )


def _warmup_steps(config: TrainConfig, n: int, batch_tokens: int, steps: int, steps_of: Any) -> int:
    """The rule: N tokens (Porian et al. 2024), at most 10 % of the run, at least 20 steps, never more than half.

    A trunk's 10 % is of its first mark, the shortest branch's stable part, so that every branch has warmed up.
    """
    if config.optim.warmup != "rule":
        return steps_of(config.optim.warmup, steps * batch_tokens)
    stable = min([steps, *(steps_of(m, steps * batch_tokens) for m in config.marks)])
    return max(1, min(max(min(round(n / batch_tokens), stable // 10), units.MIN_WARMUP_STEPS), stable // 2))


def _warnings(config: TrainConfig, n: int, steps: int, warmup: int) -> tuple[str, ...]:
    out = [units.batch_warning(config.batch, n)]
    if steps < units.MIN_STEPS:
        out.append(f"{steps} steps are few (under {units.MIN_STEPS}): lower the batch or raise the budget")
    if config.model.parameterization == "sp":
        out.append("SP: one learning rate does not serve every width; sweep it, or use mup")
    return tuple(w for w in out if w)
