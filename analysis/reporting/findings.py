"""Everything a report tells beyond the ladder's story: three approaches, conventions, profiles, errors, records."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from analysis import approaches, conventions, downstream, fit, identify, profile, scorecard, words
from analysis.reporting import abilities
from analysis.story import Story

DRAWS = 300  # of the approaches: the ends of a 90 % interval are then known to a tenth of its width
PROFILED = ("E", "a")


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """None, or empty, where the rows do not carry it."""

    approaches: approaches.Approaches | None
    conventions: conventions.Conventions | None
    profiles: tuple[profile.Profile, ...]
    errors: dict[str, profile.Errors]
    errors_note: str | None
    deltas: dict[str, fit.Fit]
    scores: list[scorecard.Score]  # of this sweep
    around: list[scorecard.Score]  # of all sweeps beside it
    tasks: list[downstream.Task]  # that the members were asked
    forecasts: list[downstream.Forecast]  # of the largest size's scores


def find(story: Story) -> Findings:
    """Computes what can be computed."""
    table, found = story.table, story.found
    own = scorecard.scores(table.source) if table.kind == "runs" else []
    around = scorecard.around(table.source) if table.kind == "runs" else []
    tasks, forecasts = abilities.find(table.source, table, story.level) if table.kind == "runs" else ([], [])
    if found is None or found.chinchilla is None or identify.inseparable(found.chinchilla.fit):
        return Findings(None, None, (), {}, None, {}, own, around, tasks, forecasts)
    boot, level = found.chinchilla, story.level
    errors, note = profile.standard_errors(boot.fit, boot)
    profiles = [_or_none(lambda name=name: profile.profile(boot.fit, name, level=level, boot=boot)) for name in PROFILED]
    return Findings(
        _or_none(lambda: approaches.side_by_side(table, story.curves, boot, level=level, draws=DRAWS)),
        _or_none(lambda: conventions.table_of(table, story.settings.delta, level)),
        tuple(p for p in profiles if p is not None),
        errors, note, profile.delta_sweep(table), own, around, tasks, forecasts,
    )  # fmt: skip


def _or_none(call: Any) -> Any:
    try:
        return call()
    except fit.FitError:
        return None


def to_json(f: Findings) -> dict[str, Any]:
    """As JSON types."""
    return {
        "approaches": None if f.approaches is None else approaches.to_json(f.approaches),
        "conventions": None if f.conventions is None else conventions.to_json(f.conventions),
        "profiles": {
            p.name: {"values": p.values.tolist(), "objective": p.objective.tolist(), "interval": _finite(p.interval)}
            for p in f.profiles
        },
        "standard_errors": {k: dataclasses.asdict(e) for k, e in f.errors.items()},
        "deltas": {name: g.params for name, g in f.deltas.items()},
        "predictions": scorecard.to_json(f.scores),
        "predictions_around": scorecard.to_json(f.around),
        "forecasts": [downstream.forecast_json(forecast) for forecast in f.forecasts],
    }


def _finite(ends: tuple[float, float]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in ends]


def in_words(f: Findings) -> list[str]:
    """What the command prints of it."""
    out = []
    if f.approaches is not None:
        out.append(approaches.in_words(f.approaches))
    if f.conventions is not None:
        out += conventions.in_words(f.conventions)
    out += [f"profile of {p.name}: {100 * p.level:g} % {words.between(p.interval)}" for p in f.profiles]
    for which, scores in (("this sweep", f.scores), (f"all sweeps beside it ({_sweeps(f.around)})", f.around)):
        if (together := scorecard.record(scores)) is not None and (scores is f.scores or len(f.around) > len(f.scores)):
            out.append(f"{which}: {together.words()}")
    return out


def _sweeps(scores: list[scorecard.Score]) -> str:
    return ", ".join(sorted({s.sweep for s in scores}))


def name_of(source: str) -> str:
    """The last part of a path, for titles."""
    return pathlib.Path(source).resolve().name
