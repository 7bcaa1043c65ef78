"""Draws a comparison: the loss of both sweeps against compute, and the compute multiplier with its band."""

from __future__ import annotations

import pathlib
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from analysis.figure import GREY, RED, STYLE, flops_axis, loss_axis, write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analysis.multiplier import Comparison

COLOURS = ("#1f5aa6", "#d1721b")
_CAPTION_WIDTH = 168  # characters per line
_LINE_INCHES = 0.21
_TALLEST = 30.0  # a band that is open is drawn up to this many times the multiplier


def save(c: Comparison, caption: str, folder: pathlib.Path) -> None:
    """Writes compare.png and compare.svg, the same bytes for the same comparison."""

    write(figure(c, caption), folder / "compare")


def figure(c: Comparison, caption: str) -> Figure:
    """The figure, on its own canvas: nothing global is touched."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    text = textwrap.fill(caption.replace("$", r"\$"), _CAPTION_WIDTH, break_on_hyphens=False, break_long_words=False)
    text_inches = _LINE_INCHES * (text.count("\n") + 1)
    height = 5.4 + text_inches
    with matplotlib.rc_context(STYLE):
        out = Figure(figsize=(12.5, height), dpi=150)
        FigureCanvasAgg(out)
        left, right = out.subplots(1, 2)
        out.subplots_adjust(left=0.06, right=0.985, top=1 - 0.4 / height, bottom=(text_inches + 0.78) / height, wspace=0.17)
        _draw_losses(left, c)
        _draw_multiplier(right, c)
        out.text(0.012, 0.012, text, fontsize=9.5, va="bottom", ha="left", color="#333333", linespacing=1.4)
        return out


def _draw_losses(ax: Axes, c: Comparison) -> None:
    """Runs and curves of both sweeps; each curve solid where it passes among its runs."""
    for side, colour in zip(c.sides, COLOURS, strict=True):
        rows = side.fit.table.fitted
        ax.plot([r.flops for r in rows], [r.loss or np.nan for r in rows], "o", color=colour, ms=4.5, mec="white", mew=0.5)
        lo, hi = side.trained
        flops = np.geomspace(lo / 1.5, hi * 1.5, 200)
        loss = side.losses(side.fit.params, flops)
        draws = side.losses({k: v[:, None] for k, v in side.boot.params.items()}, flops)
        band = np.nanquantile(draws, [(1 - c.level) / 2, (1 + c.level) / 2], axis=0)
        ax.fill_between(flops, *band, color=colour, alpha=0.15, lw=0, zorder=1)
        ax.plot(flops, loss, color=colour, lw=1.2, ls="--", zorder=2)
        if side.among_runs is not None:
            within = (flops >= side.among_runs[0]) & (flops <= side.among_runs[1])
            ax.plot(flops[within], loss[within], color=colour, lw=2, zorder=3, label=side.name)
        else:
            ax.plot([], [], color=colour, lw=1.2, ls="--", label=side.name)
    at = c.crossover.flops
    if at is not None and c.crossover.identified:
        first = c.sides[0]
        ax.plot(at, first.losses(first.fit.params, at), "D", color=RED, mfc="white", mew=1.5, ms=7, zorder=5, label="crossover")
    what = "frontier" if c.sides[0].line is None else "line of D against N"
    ax.set(xscale="log", yscale="log", xlabel="C, training FLOPs", ylabel=f"L, loss ({c.both.unit})", title=f"Runs and {what}")
    losses = [float(r.loss) for s in c.sides for r in s.fit.table.fitted if r.loss is not None]
    ends = [float(s.losses(s.fit.params, s.trained[1])) for s in c.sides]
    ax.set_ylim(0.97 * min(losses + ends), 1.03 * max(losses))
    loss_axis(ax)
    flops_axis(ax.xaxis)
    ax.legend(frameon=False, loc="upper right")


def _draw_multiplier(ax: Axes, c: Comparison) -> None:
    """m(C) with its bands, solid where both curves pass among their runs."""
    point, inside = np.exp(c.log_multiplier), c.inside
    lowest, highest = (f(point[inside]) for f in (np.min, np.max))
    limits = lowest / _TALLEST, highest * _TALLEST
    band, apart = (np.clip(np.nan_to_num(c.band(d), posinf=limits[1]), *limits) for d in (c.draws, c.unpaired))
    ax.axhline(1, color="black", lw=0.9)
    if c.paired:
        ax.fill_between(c.flops[inside], *apart[:, inside], color=GREY, alpha=0.15, lw=0, label="all noise apart")
    label = f"{100 * c.level:g} %" + (", twins together" if c.paired else "")
    ax.fill_between(c.flops, *band, color=COLOURS[1], alpha=0.10, lw=0)
    ax.fill_between(c.flops[inside], *band[:, inside], color=COLOURS[1], alpha=0.22, lw=0, label=label)
    ax.plot(c.flops, np.where(np.isfinite(point), point, np.nan), color=COLOURS[1], lw=1.2, ls="--")
    if not c.doubts:
        ax.plot(c.flops[inside], point[inside], color=COLOURS[1], lw=2)
    ends = [*band[:, inside].ravel(), *(apart[:, inside].ravel() if c.paired else ()), 1.0]
    first, second = (s.name for s in c.sides)
    ax.set(xscale="log", yscale="log", xlabel=f"C, training FLOPs of {first}", ylabel="compute multiplier")
    ax.set(title=f"Compute of {second} over {first} at equal loss", ylim=(min(ends) / 1.25, max(ends) * 1.25))
    _multiplier_axis(ax)
    flops_axis(ax.xaxis)
    ax.legend(frameon=False, loc="best")


def _multiplier_axis(ax: Axes) -> None:
    """Plain numbers, 1 among them: three to a decade, or more where there is less than one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    lo, hi = ax.get_ylim()
    fine = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0] if hi / lo > 2.5 else [float(v) for v in np.linspace(1, 9.75, 36)]
    ax.yaxis.set_major_locator(LogLocator(subs=[1.0, 2.0, 5.0] if hi / lo > 12 else fine))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
