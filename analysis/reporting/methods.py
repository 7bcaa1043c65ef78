"""What a report says of how its numbers came about, read from the runs' own files: a paragraph, a table of runs, references."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from analysis import load, words
from analysis.intervals import Bootstrap
from analysis.reporting.page import Cell
from scaling import runs
from scaling.units import format_count

MISSING = "–"
MANY = 12  # distinct values beyond which a span says more


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A member's own files; empty where it has none (yet)."""

    config: Mapping[str, Any]
    plan: Mapping[str, Any]
    env: Mapping[str, Any]
    fingerprint: str | None

    def of(self, path: str) -> Any:
        """A dotted field of the config, None where it is missing."""
        node: Any = self.config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node


def manifests(table: load.Table) -> dict[str, Manifest]:
    """By member id; empty for a CSV."""
    if table.kind != "runs":
        return {}
    out = {}
    for member in runs.members(table.source):
        config = member.read(runs.CONFIG) or {}
        out[member.id] = Manifest(
            config.get("config", {}), member.read(runs.PLAN) or {}, member.read(runs.ENV) or {}, config.get("data_fingerprint")
        )
    return out


def _distinct(values: Iterable[Any], show: Any = str) -> str:
    """The distinct values that are there, in order, in words."""
    found = list(dict.fromkeys(v for v in values if v is not None))
    return ", ".join(show(v) for v in found) if found else MISSING


def facts(
    table: load.Table, known: Mapping[str, Manifest], boot: Bootstrap | None, convention: str, weights: str = ""
) -> list[tuple[str, str]]:  # fmt: skip
    """The checklist of a scaling-law report (Li et al. 2025, (Mis)Fitting), item by item; ``weights``: how rows count."""
    rows, members = table.fitted, [known[r.id] for r in table.rows if r.id in known]
    budgets = sorted({r.n_tokens for r in rows})
    seeds = sorted({r.seed for r in table.rows if r.seed is not None})
    out = [
        ("Source", f"{pathlib.Path(table.source).name}, {len(table.rows)} rows, {len(rows)} of them fitted"),
        ("Left out", words.exclusions(table) or "none"),
        ("N", f"{table.n_definition.replace('_', '-')} parameters" if table.kind == "runs" else table.n_definition),
        ("C", convention),
        ("Sizes", _distinct(r.size for r in table.rows) if len(table.sizes()) <= MANY else _span(table.sizes())),
        ("Tokens", _distinct(budgets, format_count) if len(budgets) <= MANY else _span(budgets)),
        ("Tokens per parameter", _span(r.n_tokens / r.n_params for r in rows)),
        ("Seeds", _distinct(seeds)),
    ]  # fmt: skip
    if members:
        out += _training_facts(members)
    if boot is not None:
        out += [*_fit_facts(boot), ("Weights", weights or "all rows count alike")]
    out.append(("Versions", _versions(members)))
    return out


def _span(values: Iterable[float]) -> str:
    found = list(values)
    return f"{format_count(min(found))} to {format_count(max(found))}" if found else MISSING


def _training_facts(members: list[Manifest]) -> list[tuple[str, str]]:
    def field(path: str) -> str:
        return _distinct(m.of(path) for m in members)

    def fields(group: str, *names: str) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {field(f'{group}.{name}')}" for name in names)

    shapes = _distinct(
        f"{m.of('model.depth')} layers x {m.of('model.width')} wide x {m.of('model.heads')} heads" for m in members if m.config
    )
    batch = _distinct((m.plan.get("batch_tokens") for m in members), lambda v: f"{v:,} tokens")
    rate = _distinct(m.plan.get("lr") for m in members)
    return [
        ("Shapes", shapes),
        ("Architecture", f"{field('model.architecture')} ({fields('model', 'positions', 'norm', 'activation')})"),
        ("Context", _distinct((m.of("model.context") for m in members), lambda v: f"{v} tokens")),
        ("Vocabulary", f"{field('data.vocab')}, {field('model.vocab_size')} entries"),
        ("Data", _distinct(f"{m.of('data.store')} (fingerprint {m.fingerprint})" for m in members if m.config)),
        ("Parameterization", field("model.parameterization")),
        ("Optimizer", f"{field('optim.optimizer')} ({fields('optim', 'beta1', 'beta2', 'weight_decay', 'clip')})"),
        ("Learning rate", f"{_ruled(field('optim.lr'), rate)}; {fields('optim', 'schedule', 'cooldown', 'warmup')}"),
        ("Batch", _ruled(field("batch"), f"{batch} per step")),
        *_ideal(members),
    ]  # fmt: skip


def _ruled(rule: str, value: str) -> str:
    """What a rule gave, and the rule where it says more."""
    return value if rule == MISSING or rule in value else f"{value} (set as {rule})"


def _ideal(members: list[Manifest]) -> list[tuple[str, str]]:
    """The loss of the best predictor, of a language that has a known one."""
    names = {"ideal_val_loss": "on the validation windows", "ideal_loss": "expected over windows of this context"}
    each = [(_distinct((m.plan.get(name) for m in members), lambda v: f"{v:.6g}"), where) for name, where in names.items()]
    known = [f"{value} nats per token {where}" for value, where in each if value != MISSING]
    return [("Best possible loss", "; ".join(known))] if known else []


def ideal_loss(known: Mapping[str, Manifest]) -> float | None:
    """What the best predictor of the data's language loses per token: on the validation windows where that is recorded, else
    expected over such windows.  None where it is not known, or not the same for all runs.
    """
    for name in ("ideal_val_loss", "ideal_loss"):
        values = {m.plan[name] for m in known.values() if m.plan.get(name) is not None}
        if values:
            return float(values.pop()) if len(values) == 1 else None
    return None


def _fit_facts(boot: Bootstrap) -> list[tuple[str, str]]:
    fit, c = boot.fit, boot.fit.certificate
    return [
        ("Law", f"{fit.law.name}: L = {words.equation(boot)}"),
        ("Objective", f"sum over rows of {fit.loss_name} of log predicted - log measured = {fit.objective:.8g}"),
        (
            "Minimum",
            f"{c.agreeing} of {c.starts} starts agree, gradient {c.gradient:.0e}, {c.bumps} restarts from resampled rows",
        ),
        ("Intervals", boot.words()),
        ("Table hash", fit.table.digest()),
    ]


def _versions(members: list[Manifest]) -> str:
    trained = _distinct(
        f"{name} {v}" for m in members for name, v in (m.env.get("packages") or {}).items() if name in ("jax", "flax", "optax")
    )
    here = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy"))
    devices = _distinct(d for m in members for d in m.env.get("devices", []))
    training = f"trained with {trained} on {devices}; " if trained != MISSING else ""
    return f"{training}analysed with Python {platform.python_version()}, {here}"  # fmt: skip


def paragraph(items: list[tuple[str, str]], boot: Bootstrap | None, level: float) -> str:
    """The methods as a paper would say them."""
    known = dict(items)
    out = [f"{known['Source']}. N is {known['N']}; C counts {known['C']}."]
    if "Optimizer" in known:
        out.append(
            f"Models of the architecture {known['Architecture']}, in {known['Parameterization']} parameterization, were "
            f"trained on {known['Data']} with {known['Optimizer']}, in batches of {known['Batch']}. Peak learning rate: "
            f"{known['Learning rate']}."
        )
    if "Best possible loss" in known:
        out.append(f"The best predictor of this language loses {known['Best possible loss']}.")
    if boot is not None:
        out.append(
            f"The {boot.fit.law.name} form was fitted by minimising the {known['Objective'].split(' = ')[0]}, by variable "
            f"projection and damped Newton with exact Hessians from several starts. Intervals are {100 * level:g} %: "
            f"{boot.words()}."
        )
    out.append(f"Left out of the fit: {known['Left out']}.")
    return " ".join(out)


def runs_table(
    table: load.Table, known: Mapping[str, Manifest], boot: Bootstrap | None
) -> tuple[list[str], list[list[Cell]], list[str]]:
    """Heads, rows and row kinds of the table of runs: every member, those left out with their reasons."""
    off = {r.id: v for r, v in zip(table.fitted, boot.fit.residuals, strict=True)} if boot else {}
    with_shapes = any(m.config for m in known.values())
    shapes = ["width", "batch", "peak rate"] if with_shapes else []
    heads = ["run", "N", "D", "D/N", "C, FLOPs", "loss", "off the law, %", "seed", *shapes, "left out because"]
    rows, kinds = [], []
    for r in table.rows:
        m = known.get(r.id)
        shape = []
        if with_shapes:
            width, batch, rate = (
                (m.of("model.width"), m.plan.get("batch_tokens"), m.plan.get("lr")) if m else (None, None, None)
            )
            shape = [_number(width, "d"), _number(batch, "d"), _number(rate, "g")]
        rows.append([
            Cell(r.id, kind="text"), Cell(format_count(r.n_params), r.n_params), Cell(format_count(r.n_tokens), r.n_tokens),
            Cell(format_count(r.n_tokens / r.n_params), r.n_tokens / r.n_params), Cell(f"{r.flops:.3g}", r.flops),
            _number(r.loss, ".4f"), _number(100 * off[r.id] if r.id in off else None, "+.2f"), _number(r.seed, "d"), *shape,
            Cell(r.excluded or "", kind="reason"),
        ])  # fmt: skip
        kinds.append("excluded" if r.excluded else "")
    return heads, rows, kinds


def _number(value: float | None, form: str) -> Cell:
    return Cell(MISSING) if value is None else Cell(format(value, form), float(value))
