"""Draws the chain: task loss against tokens with step 1's law, and accuracy against task loss with step 2's curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.downstream.steps import Chain, Forecast, ends
from analysis.downstream.tables import UNNAMED
from analysis.figure import GREY, RED, STYLE, Sizes, count_axis, loss_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 8  # tasks in one figure
_POINTS = 60  # of a curve
_BAND_DRAWS = 200  # refits that a band is made of
_TARGET: Any = {
    "fmt": "D", "color": RED, "mfc": "white", "mec": RED, "ms": 5.5, "mew": 1.4, "capsize": 3, "lw": 1.3, "zorder": 6,
}  # fmt: skip
_STAR: Any = {"ms": 12, "mec": "black", "mew": 0.8, "zorder": 7}


def figure(found: Sequence[tuple[Chain, Sequence[Forecast]]], title: str) -> Figure:
    """Two panels for each chain (those without a ``problem``), at most ``MOST`` chains; on its own canvas."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [(chain, told) for chain, told in found if chain.problem is None][:MOST]
    across = 2 if len(shown) > 2 else 1
    down = max(1, math.ceil(len(shown) / across))
    with matplotlib.rc_context(STYLE):
        height = 1.4 + (4.4 if across == 1 else 3.3) * down
        out = Figure(figsize=(11 * (1.6 if across == 2 else 1), height), dpi=130)
        FigureCanvasAgg(out)
        grid = out.add_gridspec(
            down, 2 * across, hspace=0.42, wspace=0.27, left=0.065 if across == 1 else 0.045, right=0.985,
            top=1 - 0.75 / height, bottom=1.1 / height,
        )  # fmt: skip
        sizes = _sizes(shown)
        for i, (chain, told) in enumerate(shown):
            row, column = divmod(i, across)
            last = i + across >= len(shown)
            _draw_step_one(out.add_subplot(grid[row, 2 * column]), chain, told, sizes, last)
            _draw_step_two(out.add_subplot(grid[row, 2 * column + 1]), chain, told, sizes, last)
        out.text(0.012, 1 - 0.12 / height, title, fontsize=12.5, va="top", weight="bold")
        _legend(out, sizes, [f for _, told in shown for f in told], columns=5 * across)
        return out


def _sizes(shown: Sequence[tuple[Chain, Sequence[Forecast]]]) -> Sizes:
    runs = [(r.n_params, r.size) for chain, _ in shown for r in chain.task.runs]
    targets = [(f.n_params, f.size) for _, told in shown for f in told]
    return Sizes(dict(sorted({*runs, *targets})))


def _draw_step_one(ax: Axes, chain: Chain, told: Sequence[Forecast], sizes: Sizes, labelled: bool) -> None:
    """Task loss of the runs' ends against tokens, the law at each size, the targets forecast and measured."""
    assert chain.law is not None
    finished = [r for r in chain.task.runs if r.ends]
    tokens = [float(r.tokens[-1]) for r in finished] + [f.n_tokens for f in told]
    for n in sorted({r.n_params for r in finished} | {f.n_params for f in told}):
        own = [float(r.tokens[-1]) for r in finished if r.n_params == n] + [f.n_tokens for f in told if f.n_params == n]
        at = np.geomspace(min(own) / 1.5, max(own) * 1.5, _POINTS)
        fitted = any(r.n_params == n for r in finished)
        ax.plot(at, chain.law.fit.expected(n, at), color=sizes.colour(n), lw=1.1, ls="-" if fitted else "--", zorder=2)
    for r in finished:
        ax.plot(r.tokens[-1], ends(r, chain.recipe.window)[0], "o", color=sizes.colour(r.n_params), ms=6, mec="white", mew=0.5)
    for f in told:
        if f.loss is not None and f.loss_interval is not None:
            ax.errorbar(f.n_tokens, f.loss, yerr=_arms(f.loss, f.loss_interval), **_TARGET)
        if f.measured_loss is not None:
            ax.plot(f.n_tokens, f.measured_loss, "*", color=sizes.colour(f.n_params), **_STAR)
    ax.set(xscale="log", yscale="log", title=f"{chain.task.name}: step 1", xlabel="D, tokens" if labelled else "")
    ax.set_ylabel("task loss")
    ax.set_xlim(min(tokens) / 2, max(tokens) * 2)
    loss_axis(ax)
    count_axis(ax.xaxis)


def _draw_step_two(ax: Axes, chain: Chain, told: Sequence[Forecast], sizes: Sizes, labelled: bool) -> None:
    """Accuracy of all checkpoints against task loss, the curve with its band, the targets forecast and measured."""
    assert chain.curve is not None and chain.refits is not None
    colours = [sizes.colour(r.n_params) for r in chain.owners]
    ax.scatter(chain.loss, chain.accuracy, c=colours, s=7 if len(colours) > 200 else 16, lw=0, alpha=0.6)
    reached = [v for f in told for v in (f.loss, f.measured_loss) if v is not None]
    at = np.linspace(min([chain.loss.min(), *reached]) * 0.93, chain.loss.max(), _POINTS)
    lines = chain.curve.accuracy(at, chain.refits.theta[:_BAND_DRAWS])
    level = told[0].level if told else 0.9
    ax.fill_between(at, *np.quantile(lines, [(1 - level) / 2, (1 + level) / 2], axis=0), color="black", alpha=0.13, lw=0)
    ax.plot(at, chain.curve.accuracy(at)[0], color="black", lw=1.5, zorder=4)
    ax.axhline(chain.task.chance, color=GREY, lw=1, ls=":", zorder=1)
    for f in told:
        if f.loss is not None and f.accuracy is not None and f.loss_interval is not None and f.accuracy_interval is not None:
            across, up = _arms(f.loss, f.loss_interval), _arms(f.accuracy, f.accuracy_interval)
            ax.errorbar(f.loss, f.accuracy, xerr=across, yerr=up, **_TARGET)
        if f.measured_loss is not None and f.measured_accuracy is not None:
            ax.plot(f.measured_loss, f.measured_accuracy, "*", color=sizes.colour(f.n_params), **_STAR)
    top = [v for f in told for v in (*(f.accuracy_interval or ()), f.measured_accuracy or 0.0)]
    unit = "" if chain.task.loss_name == UNNAMED else f", {chain.task.loss_name}"
    ax.set(title=f"{chain.task.name}: step 2", xlabel=f"task loss{unit}" if labelled else "")
    ax.set_ylabel("accuracy")
    low, high = at.min(), max([at.max(), *reached])
    ax.set_xlim(low - 0.15 * (high - low), high + 0.15 * (high - low))  # an interval may be far wider
    ax.set_ylim(min(chain.task.chance, float(chain.accuracy.min())) - 0.03, min(1.03, max([*top, chain.accuracy.max()]) + 0.05))


def _arms(middle: float, interval: tuple[float, float]) -> list[list[float]]:
    return [[max(0.0, middle - interval[0])], [max(0.0, interval[1] - middle)]]


def _legend(out: Figure, sizes: Sizes, told: Sequence[Forecast], columns: int) -> None:
    from matplotlib.lines import Line2D

    def mark(marker: str, **style: Any) -> Line2D:
        return Line2D([], [], ls="", marker=marker, **({"color": GREY} | style))

    handles = [Line2D([], [], color=sizes.colour(n), lw=2.5, label=name) for n, name in sizes.labels.items()]
    handles += [mark("o", ms=6, label="fitted run (its end; right, its checkpoints)")]
    if told:
        level = f"forecast from smaller runs, {100 * told[0].level:g} %"
        handles.append(mark("D", mfc="white", mec=RED, mew=1.5, ms=6, label=level))
    if any(f.measured_accuracy is not None for f in told):
        handles.append(mark("*", ms=11, mfc="#b5de2b", mec="black", mew=0.8, label="measured"))
    handles.append(Line2D([], [], color=GREY, ls=":", lw=1, label="chance"))
    out.legend(handles=handles, loc="lower center", ncols=min(len(handles), columns), frameon=False)
