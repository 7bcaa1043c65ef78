"""Draws a ladder's story: training curves, loss against compute with the law, and what is left of the law in percent."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import fit, load
from analysis.story import RECORDED, Story, caption, frontier
from scaling.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY_SIZES = 10  # beyond this, curves are drawn at a few sizes and colours are read from a bar
MANY_POINTS = 60  # beyond this, points are small
PALEST = 0.88  # of the colour map: what is above it cannot be seen on white
RED, GREY = "#c1272d", "#555555"
_LINE_INCHES = 0.21  # of the caption
STYLE: Any = {
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11.5, "legend.fontsize": 9.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6, "svg.fonttype": "none",
    "svg.hashsalt": "scaling", "mathtext.fontset": "dejavusans",
}  # fmt: skip


def write(drawn: Figure, path: pathlib.Path) -> None:
    """Writes ``path`` with .png and .svg, the same bytes for the same figure."""
    import matplotlib

    with matplotlib.rc_context(STYLE):  # the SVG's options are read when it is written
        drawn.savefig(path.with_name(f"{path.name}.png"))
        drawn.savefig(path.with_name(f"{path.name}.svg"), metadata={"Date": None})


def save(story: Story, folder: pathlib.Path) -> None:
    """Writes scaling.png and scaling.svg, the same bytes for the same story."""

    write(figure(story), folder / "scaling")


def figure(story: Story) -> Figure:
    """The figure, on its own canvas: nothing global is touched."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        text, sizes, wide = caption(story), Sizes.of(story), bool(story.curves)
        text_inches = _LINE_INCHES * (text.count("\n") + 1)
        height = 6.3 + text_inches
        out = Figure(figsize=(13.5 if wide else 9.5, height), dpi=150)
        FigureCanvasAgg(out)
        grid = out.add_gridspec(
            2, 2 if wide else 1, width_ratios=[1, 1.25] if wide else [1], height_ratios=[2.7, 1], hspace=0.09, wspace=0.17,
            left=0.06 if wide else 0.08, right=0.945 if sizes.many else 0.985, top=1 - 0.42 / height,
            bottom=(text_inches + 0.72) / height,
        )  # fmt: skip
        panels = [out.add_subplot(grid[0, -1] if story.boot else grid[:, -1])]
        if wide:
            _draw_curves(out.add_subplot(grid[:, 0]), story, sizes)
        _draw_compute(panels[0], story, sizes)
        if story.boot is not None:
            panels.append(out.add_subplot(grid[1, -1], sharex=panels[0]))
            _draw_residuals(panels[1], story, story.boot.fit, sizes)
            panels[0].tick_params(labelbottom=False, which="both")
        flops_axis(panels[-1].xaxis)
        panels[-1].set_xlabel(f"C, training FLOPs ({story.convention})")
        if sizes.many:
            _draw_bar(out, panels, sizes)
        out.text(0.012, 0.012, text, fontsize=9.5, va="bottom", ha="left", color="#333333", linespacing=1.4)
        return out


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Parameter counts that are drawn, ascending, with their labels and colours."""

    labels: dict[float, str]

    @classmethod
    def of(cls, story: Story) -> Sizes:
        table = story.table
        found = {r.n_params: r.size for r in table.rows if r.loss is not None or table.kind == "runs"}
        return cls(dict(sorted(found.items())))

    @property
    def many(self) -> bool:
        return len(self.labels) > MANY_SIZES

    @functools.cached_property
    def log_range(self) -> tuple[float, float]:
        """Natural logarithms of the smallest and the largest, which lie apart even where there is one."""
        counts = list(self.labels) or [1.0]
        return float(np.log(counts[0])), float(max(np.log(counts[-1]), np.log(counts[0]) + 1e-6))

    def colour(self, n_params: float) -> Any:
        """Dark for small, light for large."""
        from matplotlib import colormaps

        lo, hi = self.log_range
        return colormaps["viridis"](PALEST * (np.log(n_params) - lo) / (hi - lo))


def _draw_bar(out: Figure, panels: list[Axes], sizes: Sizes) -> None:
    from matplotlib import cm, colormaps
    from matplotlib.colors import ListedColormap, LogNorm

    palette = ListedColormap(colormaps["viridis"](np.linspace(0, PALEST, 256)))
    mappable = cm.ScalarMappable(LogNorm(*np.exp(sizes.log_range)), palette)
    bar = out.colorbar(mappable, ax=panels, pad=0.02, fraction=0.035, aspect=45)
    bar.set_label("N, parameters")
    bar.outline.set_visible(False)  # type: ignore[operator]


# ---- training curves


def _draw_curves(ax: Axes, story: Story, sizes: Sizes) -> None:
    """Loss against tokens of every member; the trunk solid, branches with the point where they end."""
    smoothed = []
    for c in sorted(story.curves, key=lambda c: -c.n_params):
        if len(c.tokens):
            smoothed.append(smooth(c.tokens, c.loss))
            ax.plot(*smoothed[-1], color=sizes.colour(c.n_params), lw=1.0, alpha=0.7, zorder=2)
        if len(c.val_tokens):
            ax.plot(c.val_tokens, c.val_loss, ".", color=sizes.colour(c.n_params), ms=4, zorder=3)
    for r in story.table.fitted:
        ax.plot(r.n_tokens, r.loss or np.nan, "o", color=sizes.colour(r.n_params), ms=6, mec="white", mew=0.6, zorder=4)
    for end in _diverged(story):
        ax.plot(end.tokens, end.loss, "X", mfc="none", mec=sizes.colour(end.n_params), ms=8, mew=1.2, zorder=4)
    ax.set(xscale="log", yscale="log", xlabel="D, tokens", ylabel="L, loss (nats per token)", title="Training curves")
    finals = [(r.n_tokens, float(r.loss)) for r in story.table.rows if r.loss is not None]
    losses = [loss for _, loss in finals]
    top = 1.6 * max(losses)  # the first steps from chance would squeeze the rest
    ax.set_ylim(min(losses) * 0.96, top)
    seen = [tokens[loss < top].min() for tokens, loss in smoothed if (loss < top).any()]
    if seen:
        ax.set_xlim(min(seen) / 1.15, max(tokens for tokens, _ in finals) * 1.2)
    count_axis(ax.xaxis)
    loss_axis(ax)
    if not sizes.many:
        _legend_of_curves(ax, sizes)


def smooth(tokens: np.ndarray, loss: np.ndarray, per_decade: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal steps of log tokens, the same for every curve, so that a branch is no noisier than its trunk."""
    where = np.floor(np.log10(tokens) * per_decade)
    kept = np.unique(where)
    return np.array([tokens[where == k].mean() for k in kept]), np.array([loss[where == k].mean() for k in kept])


def _legend_of_curves(ax: Axes, sizes: Sizes) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=sizes.colour(n), lw=2.5, label=name) for n, name in sizes.labels.items()]
    handles += [
        Line2D([], [], color=GREY, lw=0.9, alpha=0.7, label="training (smoothed)"),
        Line2D([], [], color=GREY, ls="", marker=".", ms=5, label="validation"),
        Line2D([], [], color=GREY, ls="", marker="o", ms=6, label="annealed end"),
    ]
    ax.legend(handles=handles, loc="upper right", frameon=False, title="N", title_fontsize=9.5, alignment="left")


@dataclasses.dataclass(frozen=True)
class _End:
    """Where a diverged member's curve ends: its last finite training loss."""

    n_params: float
    tokens: float
    flops: float
    loss: float


def _diverged(story: Story) -> list[_End]:
    """The ends of members that diverged and left a curve."""
    last = {c.id: c for c in story.curves if len(c.tokens)}
    rows = [(r, last[r.id]) for r in story.table.rows if r.state == load.DIVERGED and r.id in last]
    return [_End(r.n_params, c.tokens[-1], r.flops * c.tokens[-1] / r.n_tokens, c.loss[-1]) for r, c in rows]


# ---- loss against compute


def _draw_compute(ax: Axes, story: Story, sizes: Sizes) -> None:
    """Loss against compute: runs, the law at fixed sizes, the frontier, and the largest rung."""
    shown = [r for r in story.table.rows if r.loss is not None]
    starred = {t["member"] for t in story.targets if t["measured"] is not None}
    _draw_law(ax, story, sizes)
    fitted: dict[str, Any] = {"ms": 4.2 if len(shown) > MANY_POINTS else 6.5, "mec": "white", "mew": 0.4, "zorder": 4}
    left_out: dict[str, Any] = {"ms": 5, "mfc": "none", "mew": 1.1, "alpha": 0.8, "zorder": 3}
    for r in shown:
        colour = sizes.colour(r.n_params)
        if r.excluded is not None:
            ax.plot(r.flops, r.loss or np.nan, "o", mec=colour, **left_out)
        elif r.id not in starred:
            ax.plot(r.flops, r.loss or np.nan, "o", color=colour, **fitted)
    for end in _diverged(story):
        ax.plot(end.flops, end.loss, "X", mfc="none", mec=sizes.colour(end.n_params), ms=8, mew=1.2, zorder=3)
    for t in story.targets:
        _draw_target(ax, t, sizes)
    ax.set(xscale="log", yscale="log", ylabel="L, loss (nats per token)", title="Loss against compute")
    loss_axis(ax)
    values = [float(r.loss) for r in shown if r.loss is not None] + [e for t in story.targets for e in t["interval"]]
    if values:
        pad = (max(values) / min(values)) ** 0.06 if max(values) > min(values) else 1.05  # of one point nothing is known
        ax.set_ylim(min(values) / pad, max(values) * pad)
    _legend_of_compute(ax, story)


def _draw_law(ax: Axes, story: Story, sizes: Sizes) -> None:
    """L(N, D) at fixed sizes, each over the tokens its runs could have, and the frontier with its band."""
    if story.boot is None:
        return
    rows = [r for r in story.table.rows if r.loss is not None or story.table.kind == "runs"]
    counts = list(sizes.labels)
    if sizes.many:
        counts = list(np.geomspace(counts[0] * 1.3, counts[-1] / 1.3, 7))
    lo, hi = story.compute_range()
    for n in counts:
        same = [r for r in rows if r.n_params == n]
        per_token = np.mean([r.flops / r.n_tokens for r in same]) if same else float(story.cost.flops(n, 1.0))
        ends = [r.flops for r in same] if same else [lo, hi]
        flops = np.geomspace(max(lo, min(ends) / 1.6), min(hi, max(ends) * 1.6), 100)
        loss = story.boot.fit.expected(n, flops / per_token, flops)
        if not same:  # a curve at a size of no run: near the frontier, where the runs are
            loss = np.where(loss < 1.2 * frontier(story, flops)["loss"], loss, np.nan)
        ax.plot(flops, loss, color=sizes.colour(n), lw=1.1, alpha=0.85, zorder=2)
    flops = np.geomspace(lo, hi, 80)
    band = frontier(story, flops)
    ax.fill_between(flops, band["calibrated_lo"], band["calibrated_hi"], color="black", alpha=0.07, lw=0, zorder=1)
    ax.fill_between(flops, band["lo"], band["hi"], color="black", alpha=0.13, lw=0, zorder=1)
    ax.plot(flops, band["loss"], color="black", lw=1.8, ls="--", zorder=5)
    ax.set_xlim(lo, hi)


def _draw_target(ax: Axes, target: dict[str, Any], sizes: Sizes, unit: float | None = None) -> None:
    """A predicted interval and, once it is there, the measured loss; in percent off ``unit`` where one is given."""
    scale = (lambda v: v) if unit is None else (lambda v: 100 * (v / unit - 1))
    lo, middle, hi = (scale(v) for v in (target["interval"][0], target["predicted"], target["interval"][1]))
    measured = target["measured"]
    beside = 0.955 if measured is not None else 1.0  # the prediction stands just left of its star, not under it
    ends = [[max(0.0, middle - lo)], [max(0.0, hi - middle)]]  # a point may lie outside of a narrow interval of its draws
    ax.errorbar(
        target["flops"] * beside, middle, yerr=ends, fmt="D", color=RED, mfc="white", mec=RED, ms=5.5,
        mew=1.4, capsize=3.5, lw=1.4, zorder=6,
    )  # fmt: skip
    if measured is not None:
        colour = sizes.colour(target["n_params"])
        ax.plot(target["flops"], scale(measured), "*", color=colour, ms=12, mec="black", mew=0.8, zorder=7)


def _legend_of_compute(ax: Axes, story: Story) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(marker: str, **style: Any) -> Line2D:
        return Line2D([], [], ls="", marker=marker, **{"color": GREY} | style)

    entries: list[tuple[Any, str]] = [(mark("o", ms=6), "measured, fitted" if story.boot else "measured")]
    if any(r.loss is not None for r in story.table.excluded):
        entries.append((mark("o", ms=5, mfc="none"), "left out (see caption)"))
    if _diverged(story):
        entries.append((mark("X", ms=7, mfc="none"), "diverged, last finite loss"))
    if story.boot is not None:
        entries.append((Line2D([], [], color=GREY, lw=1.1), r"law at fixed $N$"))
        band = (Patch(color="black", alpha=0.13), Line2D([], [], color="black", lw=2, ls="--"))
        entries.append((band, f"compute-optimal frontier, {100 * story.level:g} %"))
    if story.targets:
        first = story.targets[0]
        how = "predicted" if story.targets_source == RECORDED else "predicted afterwards"
        diamond = mark("D", mfc="white", mec=RED, mew=1.5, ms=7)
        entries.append((diamond, f"largest rung ({first['size']}), {how}, {100 * first['level']:g} %"))
    if any(t["measured"] is not None for t in story.targets):
        entries.append((mark("*", ms=12, mfc="#b5de2b", mec="black", mew=0.8), "largest rung, measured"))
    handles, labels = zip(*entries, strict=True)
    ax.legend(list(handles), list(labels), loc="upper right" if story.curves else "lower left", frameon=False)


def _draw_residuals(ax: Axes, story: Story, law_fit: fit.Fit, sizes: Sizes) -> None:
    """Measured against the law, in percent, and there the largest rung's intervals, for which the panel above is too coarse."""
    ax.set(xscale="log", ylabel="off the law, %")
    ax.axhline(0, color="black", lw=0.9)
    rows = story.table.fitted
    off = 100 * np.expm1(law_fit.residuals)
    drawn = {t["member"] for t in story.targets}
    plain = [(r.flops, v, sizes.colour(r.n_params)) for r, v in zip(rows, off, strict=True) if r.id not in drawn]
    x, y, colours = zip(*plain, strict=True) if plain else ((), (), ())
    ax.scatter(x, y, c=colours, s=14 if len(rows) > MANY_POINTS else 26, lw=0.4, ec="white", zorder=3)
    ends = []
    for t in story.targets:
        unit = float(law_fit.expected(t["n_params"], t["n_tokens"], t["flops"])[0])
        _draw_target(ax, t, sizes, unit)
        ends += [100 * abs(v / unit - 1) for v in t["interval"]]
    top = 1.15 * max([*np.abs(off), *ends, 0.05])
    ax.set_ylim(-top, top)


# ---- axes


def count_axis(axis: Any) -> None:
    """Counts such as 3.2M, with 2 and 5 in between where the axis spans less than three decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    lo, hi = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if hi / lo < 1e3 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: format_count(v) if v >= 1 else ""))
    axis.set_minor_formatter(NullFormatter())


def flops_axis(axis: Any) -> None:
    """Powers of ten, with 2 and 5 in between where the axis is too short to do without."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    lo, hi = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if hi / lo < 300 else (1,)))
    axis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(np.inf, np.inf)))
    axis.set_minor_formatter(NullFormatter())


def loss_axis(ax: Axes) -> None:
    """Plain numbers on a log axis that spans less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    lo, hi = ax.get_ylim()
    ax.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]) if hi / lo < 20 else LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
