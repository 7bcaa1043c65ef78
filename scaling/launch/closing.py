"""The words at the end: failures, the fitted law, where the time went, how to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scaling import runs
from scaling.launch import folder as folders
from scaling.launch.analyses import Analyses
from scaling.launch.devices import Pool
from scaling.launch.folder import Item
from scaling.launch.schedule import Phase
from scaling.units import format_seconds

# The trainer's kinds in the order of a run's life; any other comes after them.
KINDS = ("compile", "restore", "train", "eval", "checkpoint", "idle")


def failures(items: Sequence[Item], now: Mapping[str, Phase], causes: Mapping[str, str]) -> list[str]:
    """What failed, why, and the last lines of its log; what could not start because of it; what diverged."""
    out = []
    for item in items:
        if now[item.id] is Phase.FAILED:
            out += [f"failed: {item.id}: {causes[item.id]}; the last lines of {item.path / runs.LOG}:"]
            out += [f"    {line}" for line in folders.log_tail(item.path)] or ["    (empty)"]
    for item in items:
        if now[item.id] is Phase.BLOCKED:
            mark = f"the checkpoint at {item.member.mark_tokens:,} tokens"
            trunk = item.path.parent / str(item.member.parent)
            out.append(
                f"not run: {item.id}: its trunk {item.member.parent} ended without {mark}, or it went when its branches were "
                f"done; remove {trunk} and it is trained again"
            )
        if now[item.id] is Phase.DIVERGED:
            done = runs.read_json(item.path / runs.DONE) or {}
            out.append(f"diverged: {item.id}: {done.get('cause')}; kept, shown, and left out of fits")
    return out


def law(analyses: Analyses, scored: bool, asked: bool) -> list[str]:
    """The score of the recorded prediction, the fitted law in words with its picture, what emerged, and the report.

    Args:
      analyses: of the sweep.
      scored: whether there is a recorded prediction.
      asked: whether members were asked a suite of tasks.
    """
    wanted = {"score": scored, "plot": True, "emergence": asked, "report": True}
    lacking = {"score": "score", "plot": "picture", "emergence": "picture of what emerged", "report": "report"}
    out = []
    for name in [name for name, is_wanted in wanted.items() if is_wanted]:
        result = analyses.wait(name)
        if result.ok:
            out.append(result.words)
        else:
            last = result.words.splitlines()[-1] if result.words else "it printed nothing"
            out.append(f"no {lacking[name]}: {last}")
    return [line for line in out if line]


def wall_time(items: Sequence[Item], wall: float, corpus: float, planning: float, analysis: float, pool: Pool) -> list[str]:
    """Where the time went, in lines."""
    total: dict[str, float] = {}
    slot_seconds = 0.0
    for item in items:
        seconds = runs.Member(item.path).seconds()
        slot_seconds += sum(seconds.values()) * item.slots
        for kind, value in seconds.items():
            total[kind] = total.get(kind, 0.0) + value
    kinds = [k for k in KINDS if k in total] + sorted(set(total) - set(KINDS))
    parts = [f"{kind} {format_seconds(total[kind])}" for kind in kinds]
    return [
        f"wall time {format_seconds(wall)} of this launch on {pool.words()}: token store {format_seconds(corpus)}, planning "
        f"{planning:.1f}s, predictions and picture {format_seconds(analysis)} (beside the members but for the last)",
        f"members, all launches: {format_seconds(slot_seconds)} on a {pool.unit}; their processes: "
        f"{', '.join(parts) or 'none'}",
    ]
