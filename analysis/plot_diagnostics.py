"""Four panels beside the main figure: IsoFLOP bowls, the profile of E, exponents, predictions against what came."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from analysis.figure import RED, STYLE, count_axis, loss_axis, write
from analysis.reporting.charts import seen
from analysis.reporting.findings import Findings
from analysis.story import Story

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GREEN = "#2f5d8a", "#1a7f37"


def save(story: Story, found: Findings, folder: pathlib.Path) -> bool:
    """Writes diagnostics.png and diagnostics.svg; False where there is nothing to draw."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [draw for has, draw in _panels(story, found) if has]
    if not panels:
        return False
    with matplotlib.rc_context(STYLE):
        across = min(2, len(panels))
        down = -(-len(panels) // across)
        figure = Figure(figsize=(6.4 * across, 4.4 * down), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        for position, draw in enumerate(panels, 1):
            draw(figure.add_subplot(down, across, position))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once: each file would do it again
    write(figure, folder / "diagnostics")
    return True


def _panels(story: Story, found: Findings) -> list[tuple[bool, Callable[[Axes], None]]]:
    profiles = found.approaches.by_profiles if found.approaches else None
    entries = _exponents(found)
    return [
        (profiles is not None, lambda ax: _bowls(ax, found)),
        (bool(found.profiles), lambda ax: _profile(ax, story, found)),
        (bool(entries), lambda ax: _intervals(ax, entries)),
        (bool(found.scores), lambda ax: _scorecard(ax, found)),
    ]


def _bowls(ax: Axes, found: Findings) -> None:
    from matplotlib import colormaps

    assert found.approaches is not None and found.approaches.by_profiles is not None
    bowls = found.approaches.by_profiles.bowls
    for b, shade in zip(bowls, np.linspace(0.05, 0.85, len(bowls)), strict=True):
        colour = colormaps["plasma"](shade)
        ax.plot(b.n_params[b.used], b.loss[b.used], "o", ms=5, color=colour, label=f"{b.flops:.2g} FLOPs")
        ax.plot(b.n_params[~b.used], b.loss[~b.used], "o", ms=5, mfc="none", color=colour)
        ax.plot(b.curve_n, b.curve_loss, lw=1.2, color=colour)
        if b.reason is None:
            ax.plot(b.n_opt, b.loss_opt, "X", ms=9, color=colour, mec="black", mew=0.7, zorder=5)
    ax.set(xscale="log", yscale="log", xlabel="N, parameters", ylabel="L (nats per token)", title="IsoFLOP profiles")
    loss_axis(ax)
    count_axis(ax.xaxis)
    ax.legend(frameon=False, fontsize=8)


def _profile(ax: Axes, story: Story, found: Findings) -> None:
    p = found.profiles[0]
    x, top = seen(p)
    ax.axvspan(*np.clip(p.interval, *x), color=BLUE, alpha=0.1, lw=0)
    ax.axhline(p.threshold, color="#8c959f", ls="--", lw=1)
    ax.plot(p.values, p.objective, "o-", ms=3.5, lw=1.3, color=BLUE)
    title = f"Profile of {p.name}, {100 * p.level:g} % interval shaded"
    ax.set(xlabel=p.name, ylabel="objective, all else refitted", title=title)
    least = float(p.objective.min())
    ax.set(xlim=x, ylim=(least - 0.05 * top, least + top))


def _exponents(found: Findings) -> list[tuple[str, float, tuple[float, float]]]:
    """Exponent a by each approach and under each convention: label, value, interval."""
    out = []
    if found.approaches is not None:
        out += [(f"approach: {i.name}", i.a, i.interval) for i in found.approaches.items if i.identified]
    if found.conventions is not None and len(found.conventions.rows) > 1:
        out += [(f"C: {r.name}", r.values["a"], r.intervals["a"]) for r in found.conventions.rows]
    return [(label, value, ends) for label, value, ends in out if value is not None and ends is not None]


def _intervals(ax: Axes, entries: list[tuple[str, float, tuple[float, float]]]) -> None:
    for y, (_, value, (lo, hi)) in enumerate(entries):
        ax.plot([lo, hi], [y, y], color=BLUE, lw=2)
        ax.plot(value, y, "o", color=BLUE, ms=6)
    ax.set_yticks(range(len(entries)), [label for label, _, _ in entries])
    ax.invert_yaxis()
    ax.set(xlabel="a of N* ~ C^a", title="How the best N grows with C")


def _scorecard(ax: Axes, found: Findings) -> None:
    for y, s in enumerate(found.scores):
        colour = GREEN if s.hit else RED
        ax.plot([100 * (e / s.measured - 1) for e in s.interval], [y, y], color=colour, lw=2)
        ax.plot(100 * s.error, y, "D", color=colour, ms=6)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(range(len(found.scores)), [s.member for s in found.scores])
    ax.invert_yaxis()
    ax.set(xlabel="prediction over measured, %", title="Predictions on record against what came")
