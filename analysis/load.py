"""Run directories or anybody's CSV → one tidy table.

A row is a run at its end.  Rows that must stay out of a fit (diverged, not annealed, not finished, marked by the user) are
kept with the reason, so that every figure can show them and every caption can say why.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.csv_table import OBVIOUS, csv, parse_mapping
from analysis.tables import DIVERGED, FINISHED, PLANNED, STARTED, Curve, LoadError, Row, Table, table
from scaling import flops as flops_module
from scaling import runs as runs_module
from scaling.units import format_count

__all__ = [
    "DIVERGED", "FINISHED", "N_DEFINITIONS", "OBVIOUS", "PLANNED", "STARTED", "Curve", "LoadError", "Row", "Table", "csv",
    "curves", "parse_mapping", "runs", "table",
]  # fmt: skip

N_DEFINITIONS = ("non_embedding", "total", "active")
_TAIL = 1 << 14  # bytes of metrics.jsonl in which its last training row is found: some thirty rows


def runs(
    path: str | os.PathLike[str], n_definition: str = "non_embedding", convention: str = flops_module.DEFAULT_CONVENTION
) -> Table:
    """Every member of a sweep folder, trained or not.

    Args:
      path: what ``scaling.launch`` or ``scaling.train`` wrote.
      n_definition: which parameter count is N: 'non_embedding', 'total' or 'active'.
      convention: how FLOPs are counted (``scaling.flops.CONVENTIONS``).

    Raises:
      LoadError: no such folder.
      runs.RunError: a folder that holds no run, or a file in it that cannot be read.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise LoadError(f"{root}: no such folder; give the sweep's folder, such as runs/ladder")
    sweep = runs_module.read_json(root / runs_module.SWEEP)
    planned = {m["id"]: m for m in sweep["members"]} if sweep else {}
    rows = tuple(_member_row(m, planned.get(m.id), n_definition, convention) for m in runs_module.members(root))
    return Table(str(root), rows, "runs", n_definition, convention)


def _member_row(member: runs_module.Member, planned: Mapping[str, Any] | None, n_definition: str, convention: str) -> Row:
    done, plan = member.read(runs_module.DONE), member.read(runs_module.PLAN)
    about = planned or plan
    if about is None:
        raise LoadError(
            f"{member.path}: no {runs_module.PLAN}, and no {runs_module.SWEEP} that lists it; train it, or remove it"
        )
    spec, start = member.read(runs_module.SPEC) or {}, member.read(runs_module.CONFIG) or {}
    begun = next(iter(runs_module.read_jsonl(member.path / runs_module.METRICS)), None) is not None
    state = done["status"] if done is not None else STARTED if begun else PLANNED
    actual = done or about  # a member that stopped early has fewer tokens than were planned
    annealed = bool(about["annealed"] if done is None else done.get("annealed", about["annealed"]))
    return Row(
        id=member.id, size=str(about.get("size") or format_count(about["n_params"]["non_embedding"], 2)),
        n_params=float(about["n_params"][n_definition]), n_tokens=float(actual["tokens"]),
        flops=float(actual["flops"][convention]), loss=_finite((done or {}).get("val_loss")),
        loss_stderr=_finite((done or {}).get("val_loss_stderr")),
        cluster=str(about.get("cluster") or spec.get("cluster") or member.id), annealed=annealed,
        seed=about.get("seed", start.get("config", {}).get("seed")), state=state,
        excluded=_why_excluded(state, annealed, done or {}), unique_tokens=_unique_tokens(plan or {}, done or {}),
        batch_tokens=_finite(about.get("batch_tokens")), lr=_finite(about.get("lr")), order=_order(member, start),
    )  # fmt: skip


def _why_excluded(state: str, annealed: bool, done: Mapping[str, Any]) -> str | None:
    """Why a member stays out of fits, None where it may be fitted."""
    if state == PLANNED:
        return "not trained yet"
    if state == STARTED:
        return "not finished"
    if state == DIVERGED:
        return f"diverged ({done.get('cause') or 'no cause recorded'})"
    if not annealed:
        return "not annealed"
    return None if _finite(done.get("val_loss")) is not None else f"val_loss is {done.get('val_loss')}"


def _unique_tokens(plan: Mapping[str, Any], done: Mapping[str, Any]) -> float | None:
    """Different tokens that a run has seen, source by source where it had several; None before its store was there."""
    if sources := done.get("sources"):
        return float(sum(s["tokens"] / max(1.0, s["epochs"]) for s in sources.values()))
    if not plan.get("epochs"):
        return None
    tokens = float(done.get("tokens", plan["tokens"]))
    return min(tokens, plan["tokens"] / plan["epochs"])


def _order(member: runs_module.Member, start: Mapping[str, Any]) -> str | None:
    """The tokens that a run was trained on, in their order, as one text.

    The running hash of its last training row is of the numbers of its windows alone, so the data's fingerprint and the length
    of a window belong to it.  Runs of different lengths have different hashes even where one order begins the other.
    """
    try:
        with open(member.path / runs_module.METRICS, "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - _TAIL))
            lines = f.read().split(b"\n")
        context = start["config"]["model"]["context"]
    except (OSError, KeyError):
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # cut by a kill, or by the read
            continue
        if isinstance(row, dict) and row.get("kind") == "train" and "ids_hash" in row:
            return f"{start['data_fingerprint']}/{context}/{row['ids_hash']}"
    return None


def curves(path: str | os.PathLike[str], source: Table) -> list[Curve]:
    """Training and validation losses of the members of ``source`` (the table of ``path``) that have any."""
    by_id = {r.id: r for r in source.rows}
    out = []
    for member in runs_module.members(path):
        rows = member.metrics()
        pairs = {
            kind: [(r["tokens"], v) for r in rows if r["kind"] == kind and (v := _finite(r.get("loss"))) is not None]
            for kind in ("train", "val")
        }
        if not rows:
            continue
        row = by_id[member.id]
        train, val = (np.array(pairs[k], float).reshape(-1, 2).T for k in ("train", "val"))
        out.append(Curve(row.id, row.n_params, row.size, row.annealed, train[0], train[1], val[0], val[1]))
    return out


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
