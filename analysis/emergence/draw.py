"""The figures of abilities: a page of small multiples, and rows of detail for the tasks that are named."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.emergence.incontext import wilson
from analysis.emergence.judge import Verdict
from analysis.emergence.points import WITHIN, Shown
from analysis.figure import GREY, PALEST, RED, STYLE, flops_axis
from scaling.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHIPS = {  # verdict: colour of its chip and of its fitted curve
    "absent": "#7f7f7f", "smooth": "#2a7f62", "sharp-metric-only": "#c77700", "sharp-in-loss": RED, "under-powered": "#a7a7a7",
}  # fmt: skip
SHARP = "#7d4fa8"  # sharp, but nothing continuous was measured
UNTOLD = "sharp: model or metric?"  # the same in words; the call is 'under-powered'
COMPANION = "#3b5b92"
_COMPANION_LABELS = {
    "nll": "gold NLL\n(nats/token)", "bpb": "gold answer\n(bits/byte)", "bits_per_byte": "gold answer\n(bits/byte)",
    "p_gold": "p(gold)\namong choices", "brier": "Brier", "edit": "edit distance\n(tokens)", "p_gold_raw": "p(gold)",
    "letter_mass": "p(A..D)",
}  # fmt: skip
_FALLS = ("nll", "bpb", "bits_per_byte", "brier", "edit")  # better is lower
BENT = ("sigmoid", "sigmoid_top", "step")  # shapes that have a midpoint
_MANY = 40  # models, from which points are small
_CELL = (3.25, 2.9)  # inches
_DPI = 100
_LOOK: Any = {"font.size": 9.5, "axes.titlesize": 10.5, "axes.labelsize": 9, "axes.titley": 1.0}  # a fixed title saves a layout


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """An ability and what was found about it; ``band`` is the fitted shape as drawn: (4, X) compute, score, low, high."""

    shown: Shown
    verdict: Verdict
    band: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Page:
    """What all panels of a page share: colours by size, the level of intervals, and the lines below the figure."""

    sizes: tuple[float, ...]
    level: float
    caption: str = ""
    named: dict[float, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, judged: Sequence[Judged], level: float, caption: str) -> Page:
        counts = [n for j in judged for n in (*j.shown.ability.n_params, *(p.n_params for p in j.shown.rest))]
        named = {p.n_params: p.size for j in judged for p in j.shown.rest if p.excluded == WITHIN}
        return cls(tuple(sorted({n for n in counts if math.isfinite(n)})), level, caption, named)

    def colour(self, n_params: float) -> Any:
        """Dark for small, light for large; grey where the size is not known."""
        from matplotlib import colormaps

        if not math.isfinite(n_params):
            return GREY
        lo, hi = math.log(self.sizes[0]), math.log(self.sizes[-1])
        return colormaps["viridis"](PALEST * (math.log(n_params) - lo) / max(hi - lo, 1e-9))

    def wrapped(self, inches: float) -> Page:
        """With its caption in lines that fit a figure of this width."""
        return dataclasses.replace(self, caption=wrap(self.caption, inches))

    def label(self, n_params: float) -> str:
        return self.named.get(n_params) or format_count(n_params, 2)


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure on its own canvas, in the house's style: nothing global is touched."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | _LOOK):
        out = Figure(figsize=(width, height), dpi=_DPI)
        FigureCanvasAgg(out)
        yield out


# ---- one panel


def points(ax: Axes, j: Judged, page: Page, x: str, y: str | None = None) -> None:
    """Every model: judged ones with Wilson's interval, others small; ``x`` is 'flops' or 'loss', ``y`` a companion."""
    a = j.shown.ability
    for within in (True, False):
        rest = [p for p in j.shown.rest if (p.excluded == WITHIN) == within]
        heights = [p.score if y is None else p.companions.get(y, math.nan) for p in rest]
        colours = [page.colour(p.n_params) for p in rest]
        look: dict[str, Any] = {"s": 5, "alpha": 0.45, "lw": 0, "c": colours}
        if not within:
            look = {"s": 14, "alpha": 0.6, "lw": 0.8, "fc": "none", "ec": colours}
        ax.scatter([getattr(p, x) for p in rest], heights, zorder=2, **look)
    at, values = getattr(a, x), a.score if y is None else a.companions[y]
    colours = [page.colour(n) for n in a.n_params]
    if y is None:
        ends = [wilson(v, n, page.level) for v, n in zip(values, a.n, strict=True)]
        ax.vlines(at, [low for _, low, _ in ends], [high for *_, high in ends], colors=colours, lw=1.0, alpha=0.7, zorder=3)
    ax.scatter(at, values, c=colours, s=11 if len(values) > _MANY else 26, lw=0.3, ec="white", zorder=4)


def detectable(chance: float, n: float) -> float:
    """The lowest score that one test at 5 % tells from chance; one item where chance is 0."""
    return max(chance + 1.645 * math.sqrt(chance * (1 - chance) / n), chance + 1 / n)


def score(ax: Axes, j: Judged, page: Page, x: str = "flops") -> None:
    """Score against compute or loss, with chance, what cannot be told from it, the fitted shape, onset and midpoint."""
    a = j.shown.ability
    ax.axhspan(a.chance, detectable(a.chance, float(np.nanmedian(a.n))), color=GREY, alpha=0.16, lw=0, zorder=0)
    ax.axhline(a.chance, color=GREY, ls="--", lw=0.9, zorder=1)
    points(ax, j, page, x)
    least, top = min(a.chance, float(a.score.min())), max(float(a.score.max()), a.chance + 0.12)
    room = 0.06 * (top - least)
    ax.set_ylim(max(-0.03, least - max(room, 0.04 if a.chance else 0.0)), min(1.04, top + 3 * room))
    if x == "flops":
        ax.set_xscale("log")
        _shape(ax, j)
    else:
        _shape_in_loss(ax, j)
        ax.invert_xaxis()


def _shape_in_loss(ax: Axes, j: Judged) -> None:
    """The best shape over loss, and the loss at which it leaves chance."""
    a, found = j.shown.ability, j.verdict.loss
    if found is None or j.verdict.call == "absent":
        return
    x = np.linspace(np.nanmin(a.loss), np.nanmax(a.loss), 120)
    ax.plot(x, found.selection.curve(-x[::-1])[::-1], color=tint(j), lw=1.4, zorder=2.5)
    if found.threshold is not None:
        ax.axvline(found.threshold, color=tint(j), lw=0.9, ls=":")


def _shape(ax: Axes, j: Judged) -> None:
    """The winning shape with its band, the onset as a triangle on the axis and the midpoint as a line."""
    if j.band is None or j.verdict.call == "absent":
        return
    colour = tint(j)
    x, y, low, high = j.band
    ax.fill_between(x, low, high, color=colour, alpha=0.16, lw=0, zorder=1.5)
    ax.plot(x, y, color=colour, lw=1.6, zorder=2.5)
    if (at := onset(j)) is not None:
        ax.plot(at, 0.0, "^", color=colour, ms=7, clip_on=False, zorder=6, transform=ax.get_xaxis_transform())
    if (at := midpoint(j)) is not None:
        ax.axvline(at, color=colour, lw=0.9, ls=":", zorder=1)


def onset(j: Judged) -> float | None:
    """FLOPs from which on every score is above chance, None where there are none such."""
    found = j.verdict.onset
    return None if found is None or found.log_flops is None else 10**found.log_flops


def midpoint(j: Judged) -> float | None:
    """FLOPs of the midpoint of a curve that bends within the ladder; None of others."""
    v, flops = j.verdict, j.shown.ability.flops
    if v.onset is None or v.selection is None or v.selection.winner not in BENT:
        return None
    at = 10 ** min(v.onset.midpoint, 300.0)
    return at if flops.min() <= at <= flops.max() else None


def compute_axis(ax: Axes) -> None:
    """Powers of ten where there are two or more, and no minor ticks: a page has many small panels."""
    from matplotlib.ticker import LogLocator, NullLocator

    flops_axis(ax.xaxis)
    lo, hi = ax.get_xlim()
    if math.floor(math.log10(hi)) > math.ceil(math.log10(lo)):
        ax.xaxis.set_major_locator(LogLocator(numticks=5))
    ax.xaxis.set_minor_locator(NullLocator())


def chip(ax: Axes, j: Judged, title: str | None = None, size: float = 7.5) -> None:
    """The title, and the verdict as a coloured chip in the upper left corner, where a rising curve leaves room."""
    ax.set_title(title if title is not None else j.shown.ability.task, loc="left", fontsize=9.5, pad=5)
    ax.text(
        0.035, 0.95, label(j), transform=ax.transAxes, ha="left", va="top", fontsize=size, color="white", weight="bold",
        bbox={"boxstyle": "round,pad=0.28", "fc": tint(j), "ec": "none"}, zorder=8,
    )  # fmt: skip


def label(j: Judged) -> str:
    """The verdict as it is shown; of a sharp rise whose cause cannot be told, that."""
    return UNTOLD if j.verdict.call == "under-powered" and j.verdict.sharp else j.verdict.call


def tint(j: Judged) -> str:
    """Its colour."""
    return SHARP if label(j) != j.verdict.call else CHIPS[j.verdict.call]


def companion(ax: Axes, j: Judged, page: Page, name: str, x: str = "flops") -> None:
    """A continuous companion of the same models on the same axis."""
    from matplotlib.ticker import MaxNLocator

    points(ax, j, page, x, name)
    ax.set_ylabel(_COMPANION_LABELS.get(name, name), fontsize=7.5, color=COMPANION)
    ax.tick_params(axis="y", labelsize=7.5, colors=COMPANION)
    low, high = ax.dataLim.intervaly
    room = max(0.15 * (high - low), 0.04 * abs(high))  # what hardly moves is not blown up
    if math.isfinite(room) and room > 0:
        ax.set_ylim(low - room, high + room)
    ax.yaxis.set_major_locator(MaxNLocator(3))
    if x == "flops":
        ax.set_xscale("log")


# ---- a page of small multiples


def grid(judged: Sequence[Judged], page: Page, x: str = "flops", columns: int | None = None) -> Figure:
    """One cell for each ability: its score, and below it its first companion."""
    columns = columns or _columns(len(judged))
    rows = math.ceil(len(judged) / columns)
    width = _CELL[0] * columns + 0.5
    page = page.wrapped(width)
    below = foot(page)
    height = _CELL[1] * rows + below + 0.35
    with canvas(width, height) as out:
        spec = out.add_gridspec(
            rows, columns, left=0.75 / width, right=1 - 0.15 / width, top=1 - 0.38 / height, bottom=below / height, wspace=0.3,
            hspace=0.42,
        )  # fmt: skip
        for i, j in enumerate(judged):
            cell(out, spec[divmod(i, columns)], j, page, x)
        furnish(out, judged, page, x)
        return out


def _columns(count: int) -> int:
    """As wide as a page that is a little wider than high."""
    return min(count, 6, max(3, math.ceil(math.sqrt(1.3 * count))))


def cell(out: Figure, spec: Any, j: Judged, page: Page, x: str, title: str | None = None, size: float = 7.5) -> None:
    """Score above, companion below; the score alone where there is none.  ``size`` is that of the chip's words."""
    names = list(j.shown.ability.companions)
    parts = spec.subgridspec(2 if names else 1, 1, height_ratios=[2.1, 1] if names else [1], hspace=0.1)
    top = out.add_subplot(parts[0])
    score(top, j, page, x)
    chip(top, j, title, size)
    top.set_ylabel(j.shown.ability.metric, fontsize=8.5)
    last = top
    if names:
        last = out.add_subplot(parts[1], sharex=top)
        companion(last, j, page, names[0], x)
        top.tick_params(labelbottom=False)
    if x == "flops":
        compute_axis(last)
    for ax in (top, last):
        ax.tick_params(labelsize=7.5)


def furnish(out: Figure, judged: Sequence[Judged], page: Page, x: str) -> None:
    """The name of the x axis, what the marks mean, the sizes, and the caption."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    height = out.get_figheight()
    lines = page.caption.count("\n") + 1 if page.caption else 0
    named = {"flops": "C, training FLOPs", "loss": judged[0].shown.ability.loss_name}[x]
    out.text(0.5, (foot(page) - 0.47) / height, named, ha="center", va="center", fontsize=10)
    entries: list[tuple[Any, str]] = [
        (Line2D([], [], color=GREY, ls="--", lw=0.9), "chance"),
        (Patch(color=GREY, alpha=0.16), "not told from chance by one model's items"),
    ]
    if x == "flops":
        band = (Patch(color=CHIPS["smooth"], alpha=0.2), Line2D([], [], color=CHIPS["smooth"], lw=1.6))
        entries += [(band, f"shape and its {100 * page.level:g} % band"), (_mark("^"), "onset: above chance from here on"),
                    (Line2D([], [], color=CHIPS["smooth"], lw=0.9, ls=":"), "midpoint")]  # fmt: skip
    else:
        entries += [(Line2D([], [], color=CHIPS["smooth"], lw=1.4), "shape"),
                    (Line2D([], [], color=CHIPS["smooth"], lw=0.9, ls=":"), "leaves chance")]  # fmt: skip
    rest = {p.excluded == WITHIN for j in judged for p in j.shown.rest}
    entries += [(_mark("o", ms=2.5), "checkpoint within training, not judged")] if True in rest else []
    entries += [(_mark("o", mfc="none", ms=4), "left out, see below")] if False in rest else []
    _legend(out, entries, 0.37 + 0.165 * lines)
    furnish_sizes(out, page, page.caption)


def _legend(out: Figure, entries: Sequence[tuple[Any, str]], inches: float) -> None:
    """In as many rows as fit the width, from ``inches`` above the lower edge upwards."""
    columns = max(1, min(len(entries), int((out.get_figwidth() - 0.5) / 2.2)))
    handles, labels = zip(*entries, strict=True)
    out.legend(
        list(handles), list(labels), loc="lower center", bbox_to_anchor=(0.5, inches / out.get_figheight()), frameon=False,
        ncols=columns, fontsize=8, handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip


def furnish_sizes(out: Figure, page: Page, caption: str) -> None:
    """The sizes, and below them the caption."""
    height, lines, sizes = out.get_figheight(), caption.count("\n") + 1, _legend_sizes(page.sizes)
    handles = [_mark("o", color=page.colour(n)) for n in sizes]
    out.legend(
        handles, [f"N = {page.label(n)}" for n in sizes], loc="lower center",
        bbox_to_anchor=(0.5, (0.1 + 0.165 * lines) / height), frameon=False, ncols=len(handles), fontsize=8,
        handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip
    out.text(0.1 / out.get_figwidth(), 0.08 / height, caption, fontsize=8.5, va="bottom", color="#333333", linespacing=1.35)


def _mark(marker: str, **style: Any) -> Any:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"color": GREY, "ms": 6} | style
    return Line2D([], [], ls="", marker=marker, **look)


def _legend_sizes(sizes: Sequence[float]) -> list[float]:
    """All sizes where they are few, else some over their range."""
    if len(sizes) <= 8:
        return list(sizes)
    return [sizes[i] for i in sorted({round(v) for v in np.linspace(0, len(sizes) - 1, 6)})]


def foot(page: Page) -> float:
    """Inches below the panels: axis, legends and caption."""
    return 1.65 + 0.165 * (page.caption.count("\n") + 1 if page.caption else 0)


def wrap(text: str, inches: float) -> str:
    """A caption in lines that fit a figure of this width."""
    return textwrap.fill(text, int(inches * 15.5), break_on_hyphens=False)
