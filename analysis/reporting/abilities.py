"""The report's section on what the models can do: every task against compute, and the largest rung told by the smaller ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis import downstream, load, words
from analysis.downstream import Forecast, Task
from analysis.reporting import charts, page
from analysis.reporting.page import Cell, Section

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DRAWS = 300  # refits of each task's two steps: the ends of a 90 % interval are then known to a tenth of its width


def find(path: str, table: load.Table, level: float) -> tuple[list[Task], list[Forecast]]:
    """The tasks that the members of a sweep were asked, and forecasts of the largest size; both empty where none was asked."""
    tasks = downstream.of_runs(path, table) if downstream.asked(path) else []
    return tasks, downstream.forecast(tasks, level=level, draws=DRAWS)


def section(tasks: Sequence[Task], forecasts: Sequence[Forecast]) -> Section | None:
    """None where nobody was asked."""
    if not tasks:
        return None
    caption = (
        "The share of items answered right by every finished run. A task's line joins the best run of each budget of compute."
    )
    body = page.chart("chart-abilities", figure(tasks), caption, "tall")
    quoted = [f for f in forecasts if f.verdict.quote]
    if quoted:
        hits = [f.hit for f in quoted if f.hit is not None]
        body += page.paragraph(
            "The largest size, told by the smaller ones in two steps: the loss of the right answer from parameters and tokens, "
            f"and the score from that loss. {sum(hits)} of {len(hits)} scores lie inside their {100 * quoted[0].level:g} % "
            "intervals."
        )
        heads = ["task", "run", "told", "interval", "measured", "answer's loss, told", "measured"]
        body += page.table(heads, [_row(f) for f in quoted], sortable=True)
    refused = {f.task: "; ".join(f.verdict.reasons) for f in forecasts if not f.verdict.quote}
    if refused:
        body += page.paragraph("No score is told for:", "soft") + page.bullets([f"{t}: {why}" for t, why in refused.items()])
    body += page.paragraph(
        "Shapes, onsets and whether a jump is in the model or in the metric: emergence.png and .json.", "soft"
    )
    return Section("abilities", "What the models can do", body)


def _row(f: Forecast) -> list[Cell]:
    def number(value: float | None) -> Cell:
        return Cell("–" if value is None else f"{value:.3f}", value)

    ends = "–" if f.accuracy_interval is None else words.between(f.accuracy_interval, 2)
    return [
        Cell(f.task, kind="text"), Cell(f.run, kind="text"), number(f.accuracy), Cell(ends), number(f.measured_accuracy),
        number(f.loss), number(f.measured_loss),
    ]  # fmt: skip


def figure(tasks: Sequence[Task]) -> Figure:
    """Score against compute, a colour for each task; of several ways to ask, all but the first wait in the legend."""
    from plotly.colors import qualitative

    out = charts.blank("C, training FLOPs", "score", "What every run can do", log_y=False)
    first = _way(tasks[0])
    names = list(dict.fromkeys(task.name.partition(" (")[0] for task in tasks))
    for task in tasks:
        ends = sorted((r for r in task.runs if r.ends), key=lambda r: r.flops[-1])
        flops, score = np.array([[r.flops[-1], r.accuracy[-1]] for r in ends]).reshape(-1, 2).T
        best = np.maximum.accumulate(score) == score
        colour = qualitative.Dark24[names.index(task.name.partition(" (")[0]) % len(qualitative.Dark24)]
        both = {"legendgroup": task.name, "name": task.name, "visible": True if _way(task) == first else "legendonly"}
        said = [f"{task.name}<br>{r.id}: {r.accuracy[-1]:.3f} (chance {task.chance:.2f})" for r in ends]
        marks = {"mode": "markers", "marker": {"size": 6, "color": colour}}
        out.add_scatter(x=flops, y=score, customdata=said, hovertemplate=charts.LABEL, **marks, **both)
        line = {"mode": "lines", "line": {"width": 1, "color": colour}}
        out.add_scatter(x=flops[best], y=score[best], showlegend=False, hoverinfo="skip", **line, **both)
    out.update_yaxes(range=[-0.02, 1.02])
    return out


def _way(task: Task) -> str:
    """How it is asked: format and shots."""
    return task.name.partition(" (")[2]
