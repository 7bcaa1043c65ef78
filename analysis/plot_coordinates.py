"""The figure of the coordinate check: ``python -m analysis.plot_coordinates analysis_out/coordinates.json``.

Draws what ``python -m scaling.coordinates`` measured, as PNG and SVG beside the JSON: how far training changes every
activation, by width under muP and SP, by depth with and without the depth rule, and how far the worst activation of every
mistake spreads.
"""

from __future__ import annotations

import pathlib
import sys
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analysis import cli, load
from analysis.figure import GREY, RED, STYLE, write
from scaling import runs
from scaling.cli import Parser

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#2c6fbb"
SHOWN = ("muP", "SP, std .02", "muP, Muon")  # by width, with all their rows
KINDS = {  # colours of rows, as they follow each other in the model
    "embedding": "black", "scores": "#7b3294", "mix": "#1b7837", "attn_out": BLUE, "mlp_hid": "#e08214", "mlp_out": RED,
    "residual": "#8c8c8c", "logits": "#d16ba5",
}  # fmt: skip


def read(path: pathlib.Path) -> dict[str, Any]:
    """A coordinates.json.

    Raises:
      LoadError: when there is none, or it is something else.
    """
    content = runs.read_json(path)
    if content is None:
        raise load.LoadError(f"{path}: no such file; `python -m scaling.coordinates` writes it")
    if "groups" not in content:
        raise load.LoadError(f"{path}: is not what `python -m scaling.coordinates` writes; give its coordinates.json")
    return content


def figure(content: Mapping[str, Any]) -> Figure:
    """The figure of a coordinates.json, on its own canvas."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        out = Figure(figsize=(14.5, 8.6), dpi=150)
        FigureCanvasAgg(out)
        grid = out.add_gridspec(
            2, 4, width_ratios=[1, 1, 0.42, 1.05], left=0.055, right=0.985, top=0.955, bottom=0.155, wspace=0.26, hspace=0.29
        )
        panels = [out.add_subplot(grid[i // 2, i % 2]) for i in range(4)]
        by_name = {o["name"]: o for group in content["groups"].values() for o in group}
        ratios = [v for name in SHOWN for values in _relative(by_name[name]).values() for v in values]
        for ax, name in zip(panels, SHOWN, strict=False):
            _draw_widths(ax, by_name[name], content)
            ax.set_ylim(min(ratios) / 1.4, max(ratios) * 1.4)
        panels[1].legend(frameon=False, ncols=2, loc="upper left")
        _draw_depths(panels[3], content)
        _draw_spreads(out.add_subplot(grid[:, 3]), content)
        out.text(0.012, 0.012, caption(content), fontsize=9.5, va="bottom", ha="left", color="#333333", linespacing=1.4)
        return out


def _relative(outcome: Mapping[str, Any]) -> dict[str, list[float]]:
    """Changes by row, relative to the first shape's."""
    return {row: [v / values[0] for v in values] for row, values in outcome["change"].items()}


def _draw_widths(ax: Axes, outcome: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Every row of one variant against the width, one colour per kind, the first layer solid and the second dashed."""
    ax.axhspan(1 / content["limit"], content["limit"], color="black", alpha=0.07, lw=0)
    relative = _relative(outcome)
    for kind, colour in KINDS.items():
        for row in (r for r in relative if r.split()[0] == kind):
            later = row.endswith(" 1")
            style: Any = {"ls": "--" if later else "-", "marker": "o", "ms": 3.5, "lw": 1.4, "color": colour, "alpha": 0.9}
            ax.plot(outcome["shapes"], relative[row], label=None if later else kind, **style)
    ax.set(
        title=outcome["name"], xlabel="width", ylabel=f"change, relative to width {outcome['shapes'][0]}", xscale="log",
        yscale="log",
    )  # fmt: skip
    _ticks(ax, outcome["shapes"])


def _draw_depths(ax: Axes, content: Mapping[str, Any]) -> None:
    """The final residual's change against the depth."""
    group = content["groups"]["depth"]
    for outcome, colour in zip(group, (GREY, "#e08214", BLUE), strict=True):
        ax.plot(
            outcome["shapes"], _relative(outcome)["residual"], marker="o", ms=4.5, lw=1.8, color=colour, label=outcome["name"]
        )
    ax.axhspan(1 / content["limit"], content["limit"], color="black", alpha=0.07, lw=0)
    ax.set(
        title="Final residual, by depth", xlabel="depth", xscale="log", yscale="log",
        ylabel=f"change, relative to depth {group[0]['shapes'][0]}",
    )  # fmt: skip
    ax.legend(frameon=False, loc="upper left")
    _ticks(ax, group[0]["shapes"], (1, 1.5, 2, 3))


def _ticks(ax: Axes, shapes: list[int], subs: tuple[float, ...] = (1, 2, 5)) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    ax.xaxis.set_major_locator(FixedLocator(shapes))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=subs))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _draw_spreads(ax: Axes, content: Mapping[str, Any]) -> None:
    """The worst row of everything over widths: blue where it passes, red where it is caught."""
    from matplotlib.ticker import FuncFormatter

    groups = content["groups"]
    outcomes = [*groups["width"], *groups["mistakes"], *groups["invisible"]]
    borders = [len(groups["width"]), len(groups["width"]) + len(groups["mistakes"])]
    for y, o in enumerate(outcomes):
        spread = o["spread"][o["worst"]]
        colour = BLUE if o["passes"] else RED
        ax.plot([1, spread], [y, y], color=colour, lw=1.2, alpha=0.5)
        ax.plot(spread, y, "o" if o["as_expected"] else "X", color=colour, ms=6)
        ax.text(1.18 * max(spread, content["scores_limit"]), y, o["worst"], fontsize=8, color=GREY, va="center")
    for y in borders:
        ax.axhline(y - 0.5, color=GREY, lw=0.7)
    ax.axvline(content["limit"], color="black", lw=1, ls=":")
    ax.axvline(content["scores_limit"], color="black", lw=1, ls=":", alpha=0.35)
    ax.set_yticks(range(len(outcomes)), [o["name"] for o in outcomes], fontsize=9)
    ax.set(
        xscale="log", ylim=(len(outcomes) - 0.4, -0.6), title="Spread of the worst row",
        xlabel="largest / smallest change over widths",
    )  # fmt: skip
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set_xlim(0.95, 4 * max(o["spread"][o["worst"]] for o in outcomes))
    ax.grid(axis="y", visible=False)


def caption(content: Mapping[str, Any]) -> str:
    """What was done."""
    widths, seeds = content["groups"]["width"][0]["shapes"], len(content["seeds"])
    text = (
        f"Change: root mean square of (activation after {content['steps']} steps - at initialisation), one repeated batch, "
        f"rate {content['lr']:.2g} at width {content['base_width']}, with zero queries and head; "
        + ("one seed. " if seeds == 1 else f"geometric mean of {seeds} seeds. ")
        + f"Grey bands and dotted lines: the limit, {content['limit']:g} (scores {content['scores_limit']:g}). Solid lines: "
        "first layer, dashed: second. Right: parameterizations, then mistakes made on purpose (red: caught), then muP at "
        f"a large epsilon and mistakes that only unit tests see, over widths {widths[0]} to {widths[-1]}."
    )
    return textwrap.fill(text, 190)


def main(argv: list[str] | None = None) -> None:
    """The command."""

    parser = Parser(prog="python -m analysis.plot_coordinates", description=__doc__)
    parser.add_argument("json", metavar="FILE", type=pathlib.Path, help="the coordinates.json of scaling.coordinates")
    path = parser.parse_args(argv).json
    write(figure(read(path)), path.with_suffix(""))
    print(f"wrote {path.with_suffix('.png')}, .svg and .json")


if __name__ == "__main__":
    sys.exit(cli.run(main))
