"""Draws a planned design: its members in the plane of size and tokens, and what each arrangement of them would tell."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figure import GREY, RED, STYLE, count_axis, write
from analysis.laws import optimum
from analysis.study import SAME_FLOPS, Study, quoted
from analysis.words import number
from scaling.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#2b5c8a"
_WIDEST = 30.0  # percent
_TITLES = {"a": r"$a$ of $N_{opt} \propto C^a$", "E": "E, irreducible loss", "target": "the law's loss at the target, % off"}


def save(study: Study, folder: pathlib.Path) -> None:
    """Writes design.png and design.svg, the same bytes for the same study."""

    write(figure(study), folder / "design")


def figure(study: Study) -> Figure:
    """The figure, on its own canvas: nothing global is touched."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        out = Figure(figsize=(13.5, 8.2), dpi=150)
        FigureCanvasAgg(out)
        grid = out.add_gridspec(
            3, 2, width_ratios=[1.3, 1], hspace=0.6, wspace=0.41, left=0.065, right=0.985, top=0.95, bottom=0.235
        )
        _draw_plane(out.add_subplot(grid[:, 0]), study)
        for i, name in enumerate(_TITLES):
            _draw_intervals(out.add_subplot(grid[i, 1]), study, name)
        out.legend(
            handles=_legend(bool(study.design.trunks)), loc="lower left", bbox_to_anchor=(0.045, 0.11), ncols=4, frameon=False
        )
        out.text(0.012, 0.012, _caption(study), fontsize=9.5, va="bottom", ha="left", color="#333333", linespacing=1.4)
        return out


def _draw_plane(ax: Axes, s: Study) -> None:
    """Members, IsoFLOP grid, suggestions and target, with lines of equal compute and the prior's best sizes."""
    design, grid = s.design, s.arrangements[SAME_FLOPS].design
    shown = [c for some in s.suggested.values() for c in some]
    n = np.concatenate([design.columns["N"], grid.columns["N"], [s.target[0]], [c.n_params for c in shown]])
    d = np.concatenate([design.columns["D"], grid.columns["D"], [s.target[1]], [c.n_tokens for c in shown]])
    ax.set(xscale="log", yscale="log", xlabel=f"N, parameters ({design.table.n_definition})", ylabel="D, tokens", title=s.name)
    ax.set_xlim(n.min() / 1.5, n.max() * 1.7)
    ax.set_ylim(d.min() / 1.5, d.max() * 1.9)
    _draw_compute(ax, s)
    for trunk in design.trunks:
        ax.plot([trunk.n_params] * 2, [ax.get_ylim()[0], trunk.tokens], color=BLUE, lw=1.0, alpha=0.35, zorder=2)
    ax.plot(grid.columns["N"], grid.columns["D"], "s", mfc="none", mec=GREY, ms=4.5, mew=0.9, alpha=0.8, zorder=3)
    many = len(design.table.rows) > 60
    ax.plot(design.columns["N"], design.columns["D"], "o", color=BLUE, mec="white", mew=0.5, ms=4 if many else 7, zorder=4)
    for i, c in enumerate(shown):
        last = i >= len(s.suggested["per_flop"])
        ax.plot(c.n_params, c.n_tokens, "D", mfc="white", mec=RED, ms=6.5, mew=1.4, zorder=6)
        label = f"+{number(100 * c.flops / design.flops, 2)} %" if last else str(i + 1)
        ax.annotate(label, (c.n_params, c.n_tokens), (6, 3), textcoords="offset points", color=RED, fontsize=9.5, zorder=7)
    ax.plot(*s.target, "*", color="#e0a800", mec="black", mew=0.8, ms=17, zorder=7)
    for axis in (ax.xaxis, ax.yaxis):
        count_axis(axis)


def _draw_compute(ax: Axes, s: Study) -> None:
    """Lines of equal FLOPs, one a decade, and the prior's best size of each budget."""
    cost, (n_lo, n_hi), (d_lo, d_hi) = s.design.cost, ax.get_xlim(), ax.get_ylim()
    lo, hi = float(cost.flops(n_lo, d_lo)), float(cost.flops(n_hi, d_hi))
    n = np.geomspace(n_lo, n_hi, 200)
    decades = range(int(np.ceil(np.log10(lo))), int(np.floor(np.log10(hi))) + 1)
    for k in decades[:: 1 + len(decades) // 10]:
        d = cost.tokens(n, 10.0**k)
        ax.plot(n, d, color="black", lw=0.6, alpha=0.3, ls=(0, (5, 4)), zorder=1)
        at = 1.06 * n_lo, 1.06 * float(cost.tokens(1.06 * n_lo, 10.0**k))  # where the line enters: left, else above
        top = d_hi * (d_lo / d_hi) ** 0.04
        if at[1] > top:
            at = 1.05 * float((10.0**k / (cost.k * top)) ** (1 / cost.g)), top
        ax.text(*at, f"$10^{{{k}}}$", fontsize=8.5, color=GREY, zorder=1, clip_on=True)
    best, tokens, _ = optimum(s.prior.params, np.geomspace(lo, hi, 100), cost, s.prior.law)
    ax.plot(best, tokens, color="black", lw=1.4, ls="--", alpha=0.7, zorder=2)


def _legend(trunks: bool) -> list[Any]:
    """Handles of the plane's marks."""
    from matplotlib.lines import Line2D

    def mark(marker: str, label: str, **style: Any) -> Line2D:
        return Line2D([], [], ls="", marker=marker, label=label, **style)

    handles = [mark("o", "member", color=BLUE, ms=7)]
    handles += [Line2D([], [], color=BLUE, lw=1.0, alpha=0.5, label="its trunk")] if trunks else []
    handles += [
        mark("D", "next member: 1 to 5 per FLOP, or for so many more", mfc="white", mec=RED, mew=1.4, ms=6.5),
        mark("s", "the same FLOPs as IsoFLOP profiles", mfc="none", mec=GREY, ms=4.5),
        mark("*", "target", color="#e0a800", mec="black", ms=14),
        Line2D([], [], color="black", lw=1.4, ls="--", alpha=0.7, label="best size of each budget, prior law"),
        Line2D([], [], color="black", lw=0.6, alpha=0.5, ls=(0, (5, 4)), label="equal FLOPs"),
    ]
    return handles


def _draw_intervals(ax: Axes, s: Study, name: str) -> None:
    """One quantity: of each arrangement the simulated interval as a bar, the Fisher interval as a line."""
    value = s.planned.quantities[name].value
    ax.set_title(_TITLES[name], loc="left")
    names, shown = list(s.arrangements), list[float]()
    limit = _WIDEST if name == "target" else 1.5 * abs(value)  # what reaches further is cut
    for y, (label, e) in enumerate(s.arrangements.items()):
        if name not in quoted(e):
            ax.text(value, y, "cannot be told: D grows with N", ha="center", va="center", color=RED, fontsize=9.5)
            continue
        q = e.quantities[name]
        (lo, hi), (left, right) = (
            [100 * (v / value - 1) for v in w] if name == "target" else w for w in (q.simulated, q.linear)
        )
        shown += [max(v, -limit) if v < 0 else min(v, limit) for v in (lo, hi, left, right)]
        colour = BLUE if y == 0 else GREY if label.startswith("IsoFLOP") else RED
        ax.barh(y, hi - lo, left=lo, height=0.52, color=colour, alpha=0.45, lw=0, zorder=2)
        ax.errorbar(
            (left + right) / 2, y, xerr=(right - left) / 2, fmt="none", ecolor="black", elinewidth=1.0, capsize=2.5, zorder=3
        )
    ax.axvline(0 if name == "target" else value, color="black", lw=1.0, ls=":", zorder=1)
    if shown:
        lo, hi = min(shown), max(shown)
        ax.set_xlim(lo - 0.05 * (hi - lo), hi + 0.05 * (hi - lo))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _caption(s: Study) -> str:
    p, (n, d) = s.prior, (format_count(v) for v in s.target)
    shared = f", {100 * p.shared:.0f} % of its variance shared within a trunk" if s.design.trunks else ""
    where = p.source if len(p.source) < 150 else p.source[: p.source.index("(")].strip()
    law = p.law.text({k: number(v) for k, v in p.params.items()})
    return (
        f"{100 * s.level:g} % intervals.  Bars: {s.planned.draws} simulated sweeps, refitted.  Lines: Fisher information, "
        f"first order.  Target: {n} parameters on {d} tokens, {s.times:.3g} times the largest member's compute.\n"
        f"Prior law (dotted lines): L = {law}; noise {100 * p.noise:.2g} %{shared}.\nIts source: {where}."
    )
