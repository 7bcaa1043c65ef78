"""From one config to members: combinators that a sweep file's ``get_sweep(config)`` composes.  Imports no jax.

    def get_sweep(config):
        return sweep.fork(sweep.ladder(config, ["50K", "75K"]), ["10 tokens/param", "20 tokens/param"])

A combinator takes drafts (or a config, which is one draft) and returns drafts; ``load`` resolves them into ``Member``s.
"""

from __future__ import annotations

import copy
import dataclasses
import pathlib
import re
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import ml_collections

from scaling import units
from scaling.config import ConfigError, TrainConfig, resolve
from scaling.plan import Plan, make_plan


@dataclasses.dataclass(frozen=True)
class Draft:
    """A config on its way to a member.  ``tags`` become the id: architecture, size, budget, ..., seed."""

    config: ml_collections.ConfigDict
    tags: tuple[tuple[str, str], ...] = ()
    parent: Draft | None = None
    fork_at: str | None = None  # the duration at which this branch leaves its parent
    role: str = "solo"  # solo | trunk | branch

    @property
    def id(self) -> str:
        return "-".join([self.config.model.architecture, *(text for _, text in self.tags)])

    def with_(self, tag: tuple[str, str] | None, **changes: Any) -> Draft:
        """A copy with dotted fields changed (``with_(('size', '50K'), **{'model.size': '50K'})``)."""
        config = copy.deepcopy(self.config)
        with config.unlocked():
            config.update_from_flattened_dict(changes)
        return dataclasses.replace(self, config=config, tags=self.tags + ((tag,) if tag else ()))


Drafts: TypeAlias = Sequence[Draft] | ml_collections.ConfigDict


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep, resolved and planned."""

    id: str
    config: TrainConfig
    plan: Plan
    size: str
    role: str
    parent: str | None
    mark_tokens: int | None  # the parent's tokens at the fork


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A resolved sweep in an order in which it can run: parents before branches, small before large."""

    name: str
    members: tuple[Member, ...]

    def sizes(self) -> list[int]:
        """Distinct non-embedding parameter counts, ascending."""
        return sorted({m.plan.n_params["non_embedding"] for m in self.members})

    def largest(self) -> list[Member]:
        """The members of the largest size."""
        return [m for m in self.members if m.plan.n_params["non_embedding"] == self.sizes()[-1]]


def ladder(drafts: Drafts, sizes: Iterable[str], budgets: Iterable[str] = ()) -> list[Draft]:
    """One draft for each size of the dial (and each budget, as separate runs)."""
    out = _product(drafts, "size", [(size, {"model.size": size}) for size in sizes])
    budgets = list(budgets)
    if budgets and any(d.parent or d.role == "trunk" for d in out):
        raise ConfigError(["budgets of forked drafts are set by fork"], "sweep")
    return _product(out, "budget", [(_short(b), {"budget": b}) for b in budgets]) if budgets else out


def isoflop(drafts: Drafts, flops: Iterable[str], sizes: Iterable[str]) -> list[Draft]:
    """Every size at every compute budget (``'1e13 flops'``), each as its own run: the grid of IsoFLOP profiles."""
    return ladder(drafts, sizes, flops)


def grid(drafts: Drafts, fields: Mapping[str, Sequence[Any]]) -> list[Draft]:
    """The product of values of dotted fields: ``grid(config, {'optim.lr': [4e-3, 8e-3]})``."""
    out = list(_drafts(drafts))
    for field, values in fields.items():
        name = field.rsplit(".", 1)[-1]
        out = _product(out, field, [(re.sub(r"[^\w.+-]+", "_", f"{name}{v}"), {field: v}) for v in values])
    return out


def seeds(drafts: Drafts, n: int) -> list[Draft]:
    """Each draft with seeds 0 … n−1 (initialisation and data order; the split and the validation windows stay)."""
    return _product(drafts, "seed", [(f"s{seed}", {"seed": seed}) for seed in range(n)])


def _product(drafts: Drafts, tag: str, options: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Draft]:
    """Each draft with each option's changes; a branch's trunk changes with it."""
    memo: dict[tuple[int, int], Draft] = {}

    def changed(d: Draft, i: int) -> Draft:
        if (id(d), i) not in memo:
            text, changes = options[i]
            new = d.with_((tag, text), **changes)
            memo[id(d), i] = dataclasses.replace(new, parent=changed(d.parent, i)) if d.parent else new
        return memo[id(d), i]

    return [changed(d, i) for d in _drafts(drafts) for i in range(len(options))]


def fork(drafts: Drafts, budgets: Sequence[str]) -> list[Draft]:
    """One constant-rate trunk per draft, and from it a cooldown branch for every budget.

    A branch leaves the trunk where its own cooldown (``optim.cooldown`` of its budget) begins; the trunk ends at the last
    fork.  Its losses are not annealed and stay out of fits.

    Raises:
      ConfigError: when budgets are in several units (which of two is longer would depend on the size), or a draft is a fork
        or has marks.
    """
    if len(found := {units.parse_duration(b).unit for b in budgets}) != 1:
        raise ConfigError([f"fork: budgets must be in one unit, not {', '.join(sorted(found)) or 'none'}"], "sweep")
    out = []
    for d in _drafts(drafts):
        if d.parent or d.role == "trunk":
            raise ConfigError([f"fork: {d.id} is part of a fork already"], "sweep")
        if d.config.marks:
            raise ConfigError([f"marks={d.config.marks!r}: a fork sets the trunk's marks itself; leave them out"], "sweep")
        forks = [_fork_point(b, d.config.optim.cooldown) for b in budgets]
        last = max(forks, key=lambda f: units.parse_duration(f).value)
        trunk = dataclasses.replace(
            d.with_(("budget", "trunk"), **{"optim.schedule": "constant", "budget": last}), role="trunk"
        )
        with trunk.config.unlocked():
            trunk.config.marks = tuple(forks)
        # warm-up is the trunk's: a rule that looks at the budget must not move it from branch to branch
        out.append(trunk)
        for budget, at in zip(budgets, forks, strict=True):
            branch = d.with_(("budget", _short(budget)), budget=budget, **{"optim.schedule": "wsd"})
            out.append(dataclasses.replace(branch, parent=trunk, fork_at=at, role="branch"))
    return out


def _fork_point(budget: str, cooldown: str) -> str:
    whole, part = units.parse_duration(budget), units.parse_duration(cooldown)
    if part.unit != "%":
        raise ConfigError([f"optim.cooldown={cooldown!r}: a fork needs it as a part of the budget, such as '20%'"], "sweep")
    return f"{whole.value * (1 - part.value / 100):.12g} {whole.unit}"


def _drafts(drafts: Drafts) -> Sequence[Draft]:
    return [Draft(drafts)] if isinstance(drafts, ml_collections.ConfigDict) else drafts


def _short(budget: str) -> str:
    d = units.parse_duration(budget)
    suffix = {"tokens": "", "tokens/param": "x", "%": "pc"}
    return units.format_count(d.value) + suffix.get(d.unit, d.unit)


def find_config(name: str) -> tuple[pathlib.Path, str]:
    """``'ladder.py:quick'`` → its path and argument: as given, then in ./configs, then among the packaged ones.

    Raises:
      ConfigError: listing where was looked.
    """
    text, _, arg = name.partition(":")
    packaged = pathlib.Path(__file__).parent.parent / "configs"
    tried = [pathlib.Path(text), pathlib.Path("configs") / text, packaged / text]
    for path in tried:
        if path.is_file():
            return path, arg
    known = sorted({p.name for folder in ("configs", packaged) for p in pathlib.Path(folder).glob("[!_]*.py")})
    near = [*known, *(str(p) for p in tried[0].parent.glob("*.py"))]
    looked, there = ", ".join(map(str, tried)), ", ".join(known)
    raise ConfigError(
        [f"{name!r}: no such file; looked for {looked}; there are {there}.{units.did_you_mean(text, near)}"], "config file"
    )


def name_of(name: str) -> str:
    """``'ladder.py:quick'`` → ``'ladder-quick'``: the sweep's name, and that of its folder."""
    path, arg = find_config(name)
    return f"{path.stem}-{arg}" if arg else path.stem


def load_module(path: pathlib.Path) -> Any:
    """A config file as a module, by path, so that a user's own ``configs/`` never shadows ours.

    No bytecode is kept beside it: what is read is the file as it is, even when it was changed twice in one second.
    """
    module = types.ModuleType(f"scaling_config_{path.stem}")
    module.__file__ = str(path)
    _theirs(path, "", lambda: exec(compile(path.read_bytes(), path, "exec"), module.__dict__))
    return module


def _theirs(path: pathlib.Path, what: str, call: Callable[[], Any]) -> Any:
    """Calls into a user's file; whatever it raises is told with its line, as a problem of that file."""
    try:
        return call()
    except SyntaxError as error:
        raise ConfigError([f"{what}SyntaxError: {error.msg} (line {error.lineno}); mend that line"], str(path)) from None
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if pathlib.Path(f.filename).name == path.name]
        where = f" (line {lines[-1]})" if lines else ""
        if isinstance(error, ConfigError):
            raise ConfigError([f"{what}{problem}{where}" for problem in error.problems], str(path)) from None
        if isinstance(error, ValueError) and what:  # raised by the file itself, in its own words
            raise ConfigError([f"{what}{error}{where}"], str(path)) from None
        raise ConfigError([f"{what}{type(error).__name__}: {error}{where}; mend that line"], str(path)) from None


def load_config(name: str, overrides: Mapping[str, Any] | None = None) -> tuple[ml_collections.ConfigDict, Any]:
    """``get_config`` of a config file with dotted overrides applied, and its module."""
    path, arg = find_config(name)
    module = load_module(path)
    if not hasattr(module, "get_config"):
        raise ConfigError(["has no get_config(arg); see configs/default.py"], str(path))
    config = _theirs(path, f"get_config({arg!r}): ", lambda: module.get_config(arg))
    if not isinstance(config, ml_collections.ConfigDict):
        remedy = "return an ml_collections.ConfigDict; see configs/default.py"
        raise ConfigError([f"get_config({arg!r}) returned {config!r:.60}; {remedy}"], str(path))
    apply_overrides(config, overrides or {})
    return config, module


def apply_overrides(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Sets dotted fields; an unknown one is refused with the nearest known, beside whatever else is wrong."""
    flat = _flatten(config.to_dict())
    problems = [
        f"{name}={value!r}: no such field.{units.did_you_mean(name, flat)}"
        for name, value in overrides.items()
        if name not in flat
    ]
    with config.unlocked():
        for name, value in overrides.items():
            if name not in flat:
                continue
            *path, last = name.split(".")
            node = config
            for key in path:
                node = node[key]
            with node.ignore_type():
                node[last] = value
    if problems:
        try:
            resolve(config)
        except ConfigError as error:
            problems += error.problems
        raise ConfigError(problems, "command line")


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            out |= _flatten(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def _drafts_of(name: str, overrides: Mapping[str, Any] | None) -> tuple[pathlib.Path, list[Draft]]:
    config, module = load_config(name, overrides)
    path, _ = find_config(name)
    if not hasattr(module, "get_sweep"):
        raise ConfigError(["has no get_sweep(config); a single run is `python -m scaling.train --config …`"], str(path))
    return path, _returned(path, _theirs(path, "get_sweep: ", lambda: module.get_sweep(config)))


def first_config(name: str, overrides: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """The config of the first draft, unresolved: what all members of a sweep share can be read from it."""
    return _drafts_of(name, overrides)[1][0].config


def load(name: str, overrides: Mapping[str, Any] | None = None, stream_tokens: int | None = None) -> Sweep:
    """A sweep file's members, resolved, planned and in running order.

    Args:
      name: the sweep file, with ``:arg``.
      overrides: dotted config fields from the command line.
      stream_tokens: tokens of the training stream, once the store is there; a budget beyond it is then refused.

    Raises:
      ConfigError: with every problem of every member.
    """
    path, drafts = _drafts_of(name, overrides)
    problems: list[str] = []
    members: list[Member] = []
    by_draft: dict[int, Member] = {}
    for d in drafts:
        try:
            member = _member(d, by_draft, stream_tokens)
        except ConfigError as error:
            problems += [f"{d.id}: {p}" for p in error.problems]
        else:
            by_draft[id(d)] = member
            members.append(member)
    ids = [d.id for d in drafts]
    problems += [
        f"{i}: two members have this id; give them different tags" for i in sorted({i for i in ids if ids.count(i) > 1})
    ]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), str(path))
    members.sort(key=lambda m: (m.plan.n_params["non_embedding"], m.role != "trunk", m.plan.tokens))
    return Sweep(name_of(name), tuple(members))


def _returned(path: pathlib.Path, returned: Any) -> list[Draft]:
    """What a get_sweep returned, if it is members.

    Raises:
      ConfigError: when it is something else, or nothing.
    """
    drafts = _drafts(returned)
    found = list(drafts) if isinstance(drafts, Sequence | Iterator) and not isinstance(drafts, str) else [drafts]
    strange = [d for d in found if not isinstance(d, Draft)]
    if found and not strange:
        return found
    what = f"{strange[0]!r:.60}" if strange else "no members"
    raise ConfigError([f"get_sweep returned {what}; return members, such as sweep.ladder(config, ['50K', '75K'])"], str(path))


def _member(d: Draft, by_draft: Mapping[int, Member], stream_tokens: int | None) -> Member:
    config = resolve(d.config, d.id)
    parent = by_draft.get(id(d.parent)) if d.parent else None
    if d.parent and not parent:
        raise ConfigError([f"its trunk {d.parent.id} cannot run, or does not stand before it"])
    plan = make_plan(config, stream_tokens=stream_tokens, trunk=parent.plan if parent else None, fork_at=d.fork_at)
    tags = dict(d.tags)
    size = tags.get("size") or units.format_count(plan.n_params["non_embedding"], 2)
    return Member(d.id, config, plan, size, d.role, parent.id if parent else None, plan.fork_tokens)


__all__ = ["Draft", "Member", "Sweep", "find_config", "fork", "grid", "isoflop", "ladder", "load", "load_config", "seeds"]
