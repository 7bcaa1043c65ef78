"""What two sweeps share: whether their losses can be compared at all, and which of their runs belong together.

Two runs are twins where the run directories show the same seed, the same tokens of data and the same order of windows (the
running hash in metrics.jsonl): what the draw of the data did to one it did to the other, so their noise must be redrawn
together.  A CSV shows none of this, and its rows are twins of nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis import load
from scaling import runs

NATS, BITS = "nats per token", "bits per byte"
NEAR_N = 0.1  # parameters of one cell differ by less than this (log): two architectures seldom hit the same count
NEAR_D = 0.01  # and its tokens by less than this


@dataclasses.dataclass(frozen=True)
class Member:
    """What a member's directory says of its data and its loss; None or empty where it says nothing."""

    fingerprint: str | None
    store: str
    shares: tuple[float, ...]
    vocab: str
    context: int | None
    val_windows: int | None
    seed: int | None
    order: Mapping[int, int]  # tokens -> hash of all windows up to there
    loss: float | None
    loss_stderr: float | None
    bpb: float | None


def members(table: load.Table, source: str | None = None) -> dict[str, Member]:
    """The fitted members of a sweep folder by id, with the losses of one ``source`` of a mixture where it is named.

    Raises:
      LoadError: a member has no such source.
    """
    if table.kind != "runs":
        return {}
    ids = {r.id for r in table.fitted}
    return {m.id: _member(m, source) for m in runs.members(table.source) if m.id in ids}


def _member(member: runs.Member, source: str | None) -> Member:
    about = member.read(runs.CONFIG) or {}
    config, done = about.get("config", {}), member.read(runs.DONE) or {}
    model, data = config.get("model", {}), config.get("data", {})
    losses = {"loss": done.get("val_loss"), "loss_stderr": done.get("val_loss_stderr"), "bpb": done.get("val_bpb")}
    if source is not None:
        sources = done.get("sources", {})
        if "loss" not in sources.get(source, {}):
            there = ", ".join(sources) or "none: it was trained on one store"
            raise load.LoadError(f"--source {source}: {member.path} has no validation loss of it; there are {there}")
        losses = {name: sources[source].get(name) for name in losses}
    mixture = data.get("mixture", [])
    total = sum(weight for _, weight in mixture)
    order = {int(r["tokens"]): int(r["ids_hash"], 16) for r in runs.read_jsonl(member.path / runs.METRICS) if "ids_hash" in r}
    return Member(
        fingerprint=about.get("data_fingerprint"), store=" + ".join(str(s) for s, _ in mixture) or str(data.get("store", "")),
        shares=tuple(round(w / total, 9) for _, w in mixture),
        vocab=f"{data['vocab']}, {model.get('vocab_size')} ids" if "vocab" in data else "", context=model.get("context"),
        val_windows=data.get("val_windows"), seed=config.get("seed"), order=order, **losses,
    )  # fmt: skip


def same_order(one: Member, other: Member) -> bool:
    """Whether two members saw the same windows in the same order, up to the last count of tokens that both wrote down."""
    common = one.order.keys() & other.order.keys()
    if not common or one.fingerprint is None or (one.fingerprint, one.context) != (other.fingerprint, other.context):
        return False
    return one.order[max(common)] == other.order[max(common)]


@dataclasses.dataclass(frozen=True, eq=False)
class Comparable:
    """Two tables whose losses mean the same."""

    a: load.Table
    b: load.Table
    members: tuple[dict[str, Member], dict[str, Member]]
    unit: str
    notes: tuple[str, ...]


def comparable(a: load.Table, b: load.Table, source: str | None = None) -> Comparable:
    """The two tables with losses in one unit.

    Losses are nats per token where both sweeps have one vocabulary, else bits per byte.  What they are measured on must be one
    text: the fingerprint in config.json is that of the training and validation tokens, so two of them, under one vocabulary,
    mean two texts, each with its own irreducible loss.

    Raises:
      LoadError: the same rows twice, N or C counted differently, other texts, or no bits per byte where they are needed.
    """
    _check_definitions(a, b)
    first, second = members(a, source), members(b, source)
    a, b = (_of_members(t, m, "loss") for t, m in ((a, first), (b, second)))
    if a.kind != "runs":
        trust = "a CSV does not say on which text its losses were measured: that it is the same is taken on trust"
        return Comparable(a, b, (first, second), NATS, (trust,))
    told = {name: (_values(first, name), _values(second, name)) for name in ("fingerprint", "vocab", "context", "val_windows")}
    notes = [
        f"{what} differ ({_list(told[name][0])} in {a.source}, {_list(told[name][1])} in {b.source}): {so}"
        for name, what, so in (
            ("context", "windows", "part of a difference may be that of the context"),
            ("val_windows", "counts of validation windows", "their sampling error does not cancel"),
        )
        if _differ(*told[name])
    ]
    if _differ(*told["vocab"]):
        lacking = [f"{t.source}/{i}" for t, m in ((a, first), (b, second)) for i, x in m.items() if x.bpb is None]
        if lacking:
            raise load.LoadError(
                f"{_both(a, b, told['vocab'], 'vocabulary')}: nats per token are not comparable, and {lacking[0]} has no "
                f"val_bpb; train it again with this version"
            )
        notes.insert(0, f"{_both(a, b, told['vocab'], 'vocabulary')}: compared in bits per byte, if the text is the same")
        a, b = (_of_members(t, m, "bpb") for t, m in ((a, first), (b, second)))
        return Comparable(a, b, (first, second), BITS, tuple(notes))
    if _differ(*told["fingerprint"]):
        stores = [_list(_values(m, "store")) for m in (first, second)]
        raise load.LoadError(
            f"{_both(a, b, told['fingerprint'], 'data')} ({stores[0]} and {stores[1]}): losses on two texts are not "
            f"comparable, each has its own irreducible loss; train both on one data.mixture of these stores with two weights "
            f"and compare with --source, or give both as --csv where you know that the validation text is the same"
        )
    if source is None and _differ(shares := _values(first, "shares"), others := _values(second, "shares")):
        raise load.LoadError(
            f"{a.source} and {b.source}: mixtures of other weights ({_list(shares)} and {_list(others)}), and the loss of a "
            f"mixture is weighted as in training; compare on one of them with --source, such as --source {_source_names(a)[0]}"
        )
    if not all(told["fingerprint"]):
        notes.append("not every member has a config.json: that all losses are measured on the same text is taken on trust")
    return Comparable(a, b, (first, second), NATS, tuple(notes))


def _check_definitions(a: load.Table, b: load.Table) -> None:
    if a.fitted and a.digest() == b.digest():
        raise load.LoadError(f"{a.source} and {b.source} hold the same rows; a comparison needs two sweeps")
    for what, one, other in (("N", a.n_definition, b.n_definition), ("C", a.flops_convention, b.flops_convention)):
        if one != other:
            raise load.LoadError(
                f"{what} is {one} in {a.source} and {other} in {b.source}: compute multipliers need one definition; give both "
                f"files a column of one name and map it, such as --map {what}=COLUMN"
            )


def _of_members(table: load.Table, found: Mapping[str, Member], name: str) -> load.Table:
    """The table with the loss of that name from each member's directory; the table itself where there are none."""

    def row(r: load.Row) -> load.Row:
        m = found.get(r.id)
        value = getattr(m, name) if m is not None else None
        if m is None or value is None:
            return r
        stderr = m.loss_stderr * value / m.loss if m.loss_stderr and m.loss else None
        return dataclasses.replace(r, loss=float(value), loss_stderr=stderr)

    return dataclasses.replace(table, rows=tuple(row(r) for r in table.rows))


def _values(found: Mapping[str, Member], name: str) -> set[Any]:
    """Of all members that say it."""
    return {v for m in found.values() if (v := getattr(m, name)) not in (None, "", ())}


def _differ(one: set[Any], other: set[Any]) -> bool:
    return len(one | other) > 1


def _list(values: set[Any]) -> str:
    return ", ".join(sorted(str(v) for v in values)) or "not recorded"


def _both(a: load.Table, b: load.Table, values: tuple[set[Any], set[Any]], what: str) -> str:
    return f"{a.source} has {what} {_list(values[0])}, {b.source} {what} {_list(values[1])}"


def _source_names(table: load.Table) -> list[str]:
    done = next((m.read(runs.DONE) or {} for m in runs.members(table.source)), {})
    return list(done.get("sources", {})) or ["NAME"]


# ---- which runs belong together


@dataclasses.dataclass(frozen=True)
class Pair:
    """Fitted rows ``i`` of the first table and ``j`` of the second that have one N and D; ``twins`` share seed and order."""

    i: int
    j: int
    twins: bool


def pairs(both: Comparable) -> list[Pair]:
    """Rows of one cell, each used once: twins first, then equal seeds, then the nearest.

    N may differ by 10 % (two architectures seldom hit one count) and D by 1 %; under two vocabularies a token is not a token,
    and there are no cells.
    """
    if both.unit == BITS:
        return []
    found = []
    for (i, r), (j, s) in itertools.product(enumerate(both.a.fitted), enumerate(both.b.fitted)):
        apart = abs(math.log(r.n_params / s.n_params)), abs(math.log(r.n_tokens / s.n_tokens))
        if apart[0] <= NEAR_N and apart[1] <= NEAR_D:
            one, other = both.members[0].get(r.id), both.members[1].get(s.id)
            twins = one is not None and other is not None and r.seed is not None and r.seed == s.seed and same_order(one, other)
            found.append((not twins, r.seed != s.seed, sum(apart), i, j))
    out: dict[int, Pair] = {}
    used: set[int] = set()
    for strangers, _, _, i, j in sorted(found):
        if i not in out and j not in used:
            out[i] = Pair(i, j, not strangers)
            used.add(j)
    return [out[i] for i in sorted(out)]


def twin_clusters(both: Comparable, found: list[Pair]) -> dict[str, str]:
    """Cluster of the second table → cluster of the first whose noise it shares; only where the twins map one to one."""
    links = {(both.b.fitted[p.j].cluster, both.a.fitted[p.i].cluster) for p in found if p.twins}
    times = [[link[side] for link in links] for side in (0, 1)]
    return {b: a for b, a in sorted(links) if times[0].count(b) == times[1].count(a) == 1}


def shared_multipliers(
    own: np.ndarray, names: list[str], first: np.ndarray, first_names: list[str], twins: Mapping[str, str]
) -> np.ndarray:
    """Wild weights ``own`` (draws, clusters ``names``) with the columns of twin clusters taken from ``first``."""
    out = own.copy()
    for column, name in enumerate(names):
        if name in twins:
            out[:, column] = first[:, first_names.index(twins[name])]
    return out
