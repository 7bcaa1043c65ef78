"""The figure of a ladder: ``python -m analysis.plot_scaling``.

    --runs runs/ladder
    --csv mine.csv --map N=params,D=tokens,loss=val_loss

Draws training curves and loss against compute with the fitted law, its frontier, and the largest rung as it was predicted and
as it was measured; writes scaling.png, scaling.svg and scaling.json, and says the same in words.
"""

from __future__ import annotations

import dataclasses
import pathlib
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import cli, fit, intervals, load, predict, words
from analysis.laws import Cost, measured_cost, optimum
from scaling import runs
from scaling.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY_SIZES = 10  # beyond this, curves are drawn at a few sizes and colours are read from a bar
CONVENTIONS = {
    "matmul_causal": "exact matmul FLOPs, causal attention", "matmul_full": "exact matmul FLOPs, full attention",
    "6N": "6 x total parameters x tokens", "6N_nonembedding": "6 x non-embedding parameters x tokens",
}  # fmt: skip
_STYLE: Any = {
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11.5, "legend.fontsize": 9.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6, "svg.fonttype": "none",
    "svg.hashsalt": "scaling", "mathtext.fontset": "dejavusans",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Story:
    """Everything that the figure, the JSON and the words tell."""

    table: load.Table
    curves: list[load.Curve]
    boot: intervals.Bootstrap | None
    no_fit: str | None  # why there is no law
    cost: Cost
    targets: list[dict[str, Any]]  # the largest rung: predicted, interval, measured
    targets_source: str  # 'recorded', 'computed afterwards', or ''
    level: float


def tell(
    table: load.Table, curves: list[load.Curve], lines: list[dict[str, Any]], delta: float | None, level: float, draws: int
) -> Story:
    """Fits what can be fitted and gathers the rest; ``lines`` are those of predictions.jsonl."""
    boot, no_fit = None, None
    try:
        boot = intervals.bootstrap(fit.fit(table, delta=delta), draws)
    except fit.FitError as error:
        no_fit = str(error)
    rows = [r for r in table.rows if r.state != load.PLANNED] or list(table.rows)
    cost = measured_cost([r.n_params for r in rows], [r.n_tokens for r in rows], [r.flops for r in rows])
    targets, source = _recorded(table, lines), "recorded"
    if not targets and table.kind == "runs":
        targets, source = _afterwards(table, delta, level, draws), "computed afterwards"
    return Story(table, curves, boot, no_fit, cost, targets, source if targets else "", level)


def _recorded(table: load.Table, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Recorded predictions (the last of each member) with what was measured since."""
    by_id = {r.id: r for r in table.rows}
    last = {p["member"]: p for p in lines if p["kind"] == "prediction" and p["member"] in by_id}
    return [_target(by_id[m], p["loss"], p["interval"], p["level"], p["recorded_at"]) for m, p in last.items()]


def _afterwards(table: load.Table, delta: float | None, level: float, draws: int) -> list[dict[str, Any]]:
    """The largest size predicted from the smaller ones now, where nothing was recorded."""
    members = predict.largest(table)
    try:
        boot = (
            intervals.bootstrap(fit.fit(predict.smaller(table, members[0].n_params), delta=delta), draws) if members else None
        )
    except fit.FitError:
        return []
    if boot is None:
        return []
    made = [(r, intervals.predict(boot, r.n_params, r.n_tokens, r.flops, level)) for r in members]
    return [_target(r, p.loss, list(p.interval), level, None) for r, p in made]


def _target(row: load.Row, predicted: float, ends: list[float], level: float, recorded_at: str | None) -> dict[str, Any]:
    measured = row.loss if row.excluded is None else None
    return {
        "member": row.id, "size": row.size, "n_params": row.n_params, "n_tokens": row.n_tokens, "flops": row.flops,
        "predicted": predicted,
        "interval": ends, "level": level, "recorded_at": recorded_at, "measured": measured, "state": row.excluded or row.state,
        "error_percent": 100 * (predicted / measured - 1) if measured else None,
        "hit": ends[0] <= measured <= ends[1] if measured else None,
    }  # fmt: skip


def figure(story: Story) -> Figure:
    """The figure, on its own canvas: nothing global is touched."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        text = caption(story)
        height = 6.3 + 0.21 * (text.count("\n") + 1)
        wide = bool(story.curves)
        out = Figure(figsize=(13.5 if wide else 9.5, height), dpi=150)
        FigureCanvasAgg(out)
        bottom = (0.21 * (text.count("\n") + 1) + 0.72) / height
        grid = out.add_gridspec(
            2, 2 if wide else 1, width_ratios=[1, 1.25] if wide else [1], height_ratios=[2.7, 1], hspace=0.09, wspace=0.17,
            left=0.06 if wide else 0.08, right=0.985 if not _bar(story) else 0.945, top=1 - 0.42 / height, bottom=bottom,
        )  # fmt: skip
        colour = _colours(story)
        main = out.add_subplot(grid[0, -1] if story.boot else grid[:, -1])
        if wide:
            _draw_curves(out.add_subplot(grid[:, 0]), story, colour)
        _draw_compute(main, story, colour)
        panels = [main]
        if story.boot is not None:
            panels.append(out.add_subplot(grid[1, -1], sharex=main))
            _draw_residuals(panels[1], story, story.boot.fit, colour)
            main.tick_params(labelbottom=False, which="both")
        _flops_axis(panels[-1].xaxis)
        panels[-1].set_xlabel(
            f"C, training FLOPs ({CONVENTIONS.get(story.table.flops_convention, story.table.flops_convention)})"
        )
        if _bar(story):
            _draw_bar(out, panels, story)
        out.text(0.012, 0.012, text, fontsize=9.5, va="bottom", ha="left", color="#333333", linespacing=1.4)
        return out


def save(story: Story, folder: pathlib.Path) -> None:
    """Writes scaling.png and scaling.svg, the same bytes for the same story."""
    import matplotlib

    drawn = figure(story)
    with matplotlib.rc_context(_STYLE):  # the SVG's options are read when it is written
        drawn.savefig(folder / "scaling.png")
        drawn.savefig(folder / "scaling.svg", metadata={"Date": None})


def _sizes(story: Story) -> dict[float, str]:
    """Parameter counts that are drawn, with their labels, ascending."""
    found = {r.n_params: r.size for r in story.table.rows if r.loss is not None or story.table.kind == "runs"}
    return dict(sorted(found.items()))


def _bar(story: Story) -> bool:
    return len(_sizes(story)) > MANY_SIZES


def _range(story: Story) -> tuple[float, float]:
    sizes = list(_sizes(story)) or [1.0]
    return np.log(sizes[0]), max(np.log(sizes[-1]), np.log(sizes[0]) + 1e-6)


def _colours(story: Story) -> Any:
    """n_params → a colour: dark for small, light for large, the palest end left out."""
    from matplotlib import colormaps

    lo, hi = _range(story)
    return lambda n: colormaps["viridis"](0.88 * (np.log(n) - lo) / (hi - lo))


def _draw_bar(out: Figure, axes: list[Axes], story: Story) -> None:
    from matplotlib import cm, colormaps
    from matplotlib.colors import ListedColormap, LogNorm

    lo, hi = _range(story)
    palette = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, 256)))
    bar = out.colorbar(
        cm.ScalarMappable(LogNorm(np.exp(lo), np.exp(hi)), palette), ax=axes, pad=0.02, fraction=0.035, aspect=45
    )
    bar.set_label("N, parameters")
    bar.outline.set_visible(False)  # type: ignore[operator]


def _smooth(tokens: np.ndarray, loss: np.ndarray, per_decade: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal steps of log tokens, the same for every curve, so that a branch is no noisier than its trunk."""
    where = np.floor(np.log10(tokens) * per_decade)
    kept = np.unique(where)
    return np.array([tokens[where == k].mean() for k in kept]), np.array([loss[where == k].mean() for k in kept])


def _draw_curves(ax: Axes, story: Story, colour: Any) -> None:
    """Loss against tokens of every member; the trunk solid, branches with the point where they end."""
    drawn = []
    for c in sorted(story.curves, key=lambda c: -c.n_params):
        if len(c.tokens):
            drawn.append(_smooth(c.tokens, c.loss))
            ax.plot(*drawn[-1], color=colour(c.n_params), lw=1.0, alpha=0.7, zorder=2)
        if len(c.val_tokens):
            ax.plot(c.val_tokens, c.val_loss, ".", color=colour(c.n_params), ms=4, zorder=3)
    ends = story.table.fitted
    for r in ends:
        ax.plot(r.n_tokens, r.loss or np.nan, "o", color=colour(r.n_params), ms=6, mec="white", mew=0.6, zorder=4)
    for tokens, _, loss, n in _diverged(story):
        ax.plot(tokens, loss, "X", mfc="none", mec=colour(n), ms=8, mew=1.2, zorder=4)
    ax.set(xscale="log", yscale="log", xlabel="D, tokens", ylabel="L, loss (nats per token)", title="Training curves")
    finals = [float(r.loss) for r in story.table.rows if r.loss is not None]
    top = 1.6 * max(finals)  # the first steps from chance would squeeze the rest
    ax.set_ylim(min(finals) * 0.96, top)
    seen = [tokens[loss < top].min() for tokens, loss in drawn if (loss < top).any()]
    if seen:
        ax.set_xlim(min(seen) / 1.15, max(r.n_tokens for r in story.table.rows if r.loss is not None) * 1.2)
    _count_axis(ax.xaxis)
    _loss_axis(ax)
    if not _bar(story):
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=colour(n), lw=2.5, label=name) for n, name in _sizes(story).items()]
        handles += [
            Line2D([], [], color="#555555", lw=0.9, alpha=0.7, label="training (smoothed)"),
            Line2D([], [], color="#555555", ls="", marker=".", ms=5, label="validation"),
            Line2D([], [], color="#555555", ls="", marker="o", ms=6, label="annealed end"),
        ]
        ax.legend(handles=handles, loc="upper right", frameon=False, title="N", title_fontsize=9.5, alignment="left")


def _diverged(story: Story) -> list[tuple[float, float, float, float]]:
    """(tokens, flops, last finite training loss, n_params) of members that diverged and left a curve."""
    last = {c.id: c for c in story.curves if len(c.tokens)}
    rows = [r for r in story.table.rows if r.state == load.DIVERGED and r.id in last]
    return [(c.tokens[-1], r.flops * c.tokens[-1] / r.n_tokens, c.loss[-1], r.n_params) for r in rows for c in [last[r.id]]]


def _draw_compute(ax: Axes, story: Story, colour: Any) -> None:
    """Loss against compute: runs, the law at fixed sizes, the frontier, and the largest rung."""
    shown = [r for r in story.table.rows if r.loss is not None]
    with_measure = {t["member"] for t in story.targets if t["measured"] is not None}
    _draw_law(ax, story, colour)
    many = len(shown) > 60
    for r in shown:
        if r.excluded is None and r.id not in with_measure:
            ax.plot(
                r.flops,
                r.loss or np.nan,
                "o",
                color=colour(r.n_params),
                ms=4.2 if many else 6.5,
                mec="white",
                mew=0.4,
                zorder=4,
            )
        elif r.excluded is not None:
            ax.plot(r.flops, r.loss or np.nan, "o", mfc="none", mec=colour(r.n_params), ms=5, mew=1.1, alpha=0.8, zorder=3)
    for _, flops, loss, n in _diverged(story):
        ax.plot(flops, loss, "X", mfc="none", mec=colour(n), ms=8, mew=1.2, zorder=3)
    for t in story.targets:
        _draw_target(ax, t, 1.0, colour)
    ax.set(xscale="log", yscale="log", ylabel="L, loss (nats per token)", title="Loss against compute")
    _loss_axis(ax)
    values = [float(r.loss) for r in shown if r.loss is not None] + [e for t in story.targets for e in t["interval"]]
    if values:
        pad = (max(values) / min(values)) ** 0.06 if max(values) > min(values) else 1.05  # of one point nothing is known
        ax.set_ylim(min(values) / pad, max(values) * pad)
    _legend(ax, story)


def _draw_target(ax: Axes, t: dict[str, Any], unit: float, colour: Any, percent: bool = False) -> None:
    """A predicted interval and, once it is there, the measured loss; in percent off ``unit`` where asked."""
    scale = (lambda v: 100 * (v / unit - 1)) if percent else (lambda v: v)
    lo, middle, hi = (scale(v) for v in (t["interval"][0], t["predicted"], t["interval"][1]))
    beside = 0.955 if t["measured"] is not None else 1.0  # the prediction stands just left of its star, not under it
    ax.errorbar(
        t["flops"] * beside, middle, yerr=[[middle - lo], [hi - middle]], fmt="D", color="#c1272d", mfc="white", mec="#c1272d",
        ms=5.5, mew=1.4, capsize=3.5, lw=1.4, zorder=6,
    )  # fmt: skip
    if t["measured"] is not None:
        ax.plot(t["flops"], scale(t["measured"]), "*", color=colour(t["n_params"]), ms=12, mec="black", mew=0.8, zorder=7)


def _legend(ax: Axes, story: Story) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grey: dict[str, Any] = {"color": "#555555"}
    handles: list[Any] = [
        Line2D([], [], **grey, ls="", marker="o", ms=6, label="measured, fitted" if story.boot else "measured")
    ]
    if any(r.loss is not None for r in story.table.excluded):
        handles.append(Line2D([], [], **grey, ls="", marker="o", ms=5, mfc="none", label="left out (see caption)"))
    if _diverged(story):
        handles.append(Line2D([], [], **grey, ls="", marker="X", ms=7, mfc="none", label="diverged, last finite loss"))
    if story.boot is not None:
        handles.append(Line2D([], [], **grey, lw=1.1, label=r"law at fixed $N$"))
        handles.append((Patch(color="black", alpha=0.13), Line2D([], [], color="black", lw=2, ls="--", label="")))
    labels = [
        h.get_label() if not isinstance(h, tuple) else f"compute-optimal frontier, {100 * story.level:g} %" for h in handles
    ]
    if story.targets:
        how = "predicted" if story.targets_source == "recorded" else "predicted afterwards"
        handles.append(Line2D([], [], ls="", marker="D", mfc="white", mec="#c1272d", mew=1.5, ms=7))
        labels.append(f"largest rung ({story.targets[0]['size']}), {how}, {100 * story.targets[0]['level']:g} %")
    if any(t["measured"] is not None for t in story.targets):
        handles.append(Line2D([], [], ls="", marker="*", ms=12, mfc="#b5de2b", mec="black", mew=0.8))
        labels.append("largest rung, measured")
    ax.legend(handles, labels, loc="upper right" if story.curves else "lower left", frameon=False)


def _compute_range(story: Story) -> tuple[float, float]:
    values = [r.flops for r in story.table.rows if r.loss is not None] + [t["flops"] for t in story.targets]
    return min(values) / 1.35, max(values) * 1.5


def _draw_law(ax: Axes, story: Story, colour: Any) -> None:
    """L(N, D) at fixed sizes, each over the tokens its runs could have, and the frontier with its band."""
    if story.boot is None:
        return
    law, params = story.boot.fit.law, story.boot.fit.params
    rows = [r for r in story.table.rows if r.loss is not None or story.table.kind == "runs"]
    sizes = list(_sizes(story))
    if len(sizes) > MANY_SIZES:
        sizes = list(np.geomspace(sizes[0] * 1.3, sizes[-1] / 1.3, 7))
    lo, hi = _compute_range(story)
    for n in sizes:
        same = [r for r in rows if r.n_params == n]
        per_token = np.mean([r.flops / r.n_tokens for r in same]) if same else float(story.cost.flops(n, 1.0))
        ends = [r.flops for r in same] if same else [lo, hi]
        flops = np.geomspace(max(lo, min(ends) / 1.6), min(hi, max(ends) * 1.6), 100)
        loss = law.loss(params, n, flops / per_token)
        if not same:  # a curve at a size of no run: near the frontier, where the runs are
            loss = np.where(loss < 1.2 * optimum(params, flops, story.cost)[2], loss, np.nan)
        ax.plot(flops, loss, color=colour(n), lw=1.1, alpha=0.85, zorder=2)
    flops = np.geomspace(lo, hi, 80)
    band = frontier(story, flops)
    ax.fill_between(flops, band["lo"], band["hi"], color="black", alpha=0.13, lw=0, zorder=1)
    ax.plot(flops, band["loss"], color="black", lw=1.8, ls="--", zorder=5)
    ax.set_xlim(lo, hi)


def frontier(story: Story, flops: np.ndarray) -> dict[str, np.ndarray]:
    """Compute-optimal parameters, tokens and loss at each of ``flops``, the loss with the ends of its interval."""
    assert story.boot is not None
    n, d, loss = optimum(story.boot.fit.params, flops, story.cost)
    with np.errstate(all="ignore"):  # a draw whose exponent ran away has no optimum; it is left out by nanquantile
        draws = optimum({k: v[:, None] for k, v in story.boot.params.items()}, flops, story.cost)[2]
    lo, hi = np.nanquantile(draws, [(1 - story.level) / 2, (1 + story.level) / 2], axis=0)
    return {"flops": flops, "n_params": n, "n_tokens": d, "loss": loss, "lo": lo, "hi": hi}


def _draw_residuals(ax: Axes, story: Story, law_fit: fit.Fit, colour: Any) -> None:
    """Measured against the law, in percent, and there the largest rung's intervals, for which the panel above is too coarse."""
    ax.set(xscale="log", ylabel="off the law, %")
    ax.axhline(0, color="black", lw=0.9)
    rows = story.table.fitted
    off = 100 * np.expm1(law_fit.residuals)
    drawn = {t["member"] for t in story.targets}
    plain = [(r, v) for r, v in zip(rows, off, strict=True) if r.id not in drawn]
    ax.scatter(
        [r.flops for r, _ in plain],
        [v for _, v in plain],
        c=[colour(r.n_params) for r, _ in plain],
        s=14 if len(rows) > 60 else 26,
        lw=0.4,
        ec="white",
        zorder=3,
    )
    ends = []
    for t in story.targets:
        unit = float(law_fit.law.loss(law_fit.params, t["n_params"], t["n_tokens"]))
        _draw_target(ax, t, unit, colour, percent=True)
        ends += [100 * abs(v / unit - 1) for v in t["interval"]]
    top = 1.15 * max([*np.abs(off), *ends, 0.05])
    ax.set_ylim(-top, top)


def _count_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: format_count(v) if v >= 1 else ""))
    axis.set_minor_formatter(NullFormatter())


def _flops_axis(axis: Any) -> None:
    """Powers of ten, with 2 and 5 in between where the axis is too short to do without."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    lo, hi = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if hi / lo < 300 else (1,)))
    axis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(np.inf, np.inf)))
    axis.set_minor_formatter(NullFormatter())


def _loss_axis(ax: Axes) -> None:
    """Plain numbers on a log axis that spans less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    lo, hi = ax.get_ylim()
    ax.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]) if hi / lo < 20 else LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def caption(story: Story, plain: bool = False) -> str:
    """Definitions, rows, exclusions, the law with its intervals, and how far to trust it; ``plain`` has no mathtext."""
    table = story.table
    n_words = f"{table.n_definition.replace('_', '-')} parameters" if table.kind == "runs" else table.n_definition
    first = [f"N: {n_words}. C: {CONVENTIONS.get(table.flops_convention, table.flops_convention)}."]
    first.append(f"{len(table.fitted)} rows {'fitted' if story.boot else 'to fit'}, {len(table.sizes())} sizes.")
    if left_out := words.exclusions(table):
        first.append(f"Left out: {left_out}.")
    first += [f"{note[0].upper()}{note[1:]}." for note in table.notes]
    second = [f"No fit: {(story.no_fit or '').removeprefix(f'{table.source}: ')}."]
    if story.boot is not None:
        boot = story.boot
        values = words.values(boot)
        ranges = boot.intervals(story.level)
        greek = {} if plain else {"alpha": "α", "beta": "β"}
        each = ", ".join(
            f"{greek.get(k, k)} = {words.number(values[k], 3)} {words.between(v)}".replace(" ", "\u00a0" if not plain else " ")
            for k, v in ranges.items()
        )
        lacking = [what for what, v in intervals.judge_parameters(boot, story.level).items() if not v.identified]
        verdict = (
            f"Not identified by these rows: {', '.join(lacking)}." if lacking else "E, the exponents and a are identified."
        )
        form = f"L = {words.equation(boot)}" if plain else words.latex(boot)
        second = [
            f"Law: {form} with {each} ({100 * story.level:g} %; {boot.words()}; Huber delta {boot.fit.delta:g}). {verdict}"
        ]
        second.append("Bands hold if the law's form does.")
        if story.targets_source == "computed afterwards":
            second.append("The largest rung was predicted from the smaller sizes only, but after it had been trained.")
        elif story.targets:
            second.append("The largest rung was predicted from the smaller sizes only, before it was trained.")
    width = 10**6 if plain else (186 if story.curves else 128)
    return "\n".join(
        textwrap.fill(" ".join(part), width, break_on_hyphens=False, break_long_words=False) for part in (first, second)
    )


def to_json(story: Story) -> dict[str, Any]:
    """All numbers of the figure."""
    out: dict[str, Any] = {
        "source": story.table.source, "flops_convention": story.table.flops_convention,
        "n_definition": story.table.n_definition, "notes": list(story.table.notes),
        "caption": caption(story, plain=True).replace("\n", " "), "rows": [dataclasses.asdict(r) for r in story.table.rows],
        "cost": {"form": "C = k N^g D", "k": story.cost.k, "g": story.cost.g}, "law": None, "no_fit": story.no_fit,
        "largest_rung": {"source": story.targets_source, "members": story.targets},
    }  # fmt: skip
    if story.boot is not None:
        out["law"] = words.law_json(story.boot, story.level)
        band = frontier(story, np.geomspace(*_compute_range(story), 25))
        out["frontier"] = {name: [float(v) if np.isfinite(v) else None for v in values] for name, values in band.items()}
    return out


def in_words(story: Story) -> str:
    """What the command prints."""
    table = story.table
    lines = [
        f"{table.source}: {len(table.fitted)} rows fitted"
        + (f"; left out: {left}" if (left := words.exclusions(table)) else "")
    ]
    lines += [f"note: {note}" for note in table.notes]
    lines += words.law(story.boot, story.level) if story.boot is not None else [f"no fit: {story.no_fit}"]
    lines += words.loss_table(table.fitted)
    if story.targets:
        lines.append(
            "largest rung, predicted "
            + (
                "on the record:"
                if story.targets_source == "recorded"
                else "from smaller sizes now (nothing was recorded before it trained):"
            )
        )
        lines += ["  " + (words.score(t) if t["measured"] is not None else words.pending(t)) for t in story.targets]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    assert __doc__ is not None
    args = cli.parser("plot_scaling", __doc__).parse_args(argv)
    table = cli.table(args)
    curves = load.curves(args.runs, table) if args.runs else []
    lines = list(runs.read_jsonl(pathlib.Path(args.runs) / runs.PREDICTIONS)) if args.runs else []
    if not any(r.loss is not None for r in table.rows):
        raise load.LoadError(
            f"{table.source}: nothing to draw: no run has a final loss yet; see `python -m scaling.launch status`"
        )
    out = cli.out_dir(args)
    story = tell(table, curves, lines, args.delta, args.level, args.draws)
    runs.write_json(out / "scaling.json", to_json(story))
    save(story, out)
    print(in_words(story))
    print(f"wrote {out / 'scaling.png'}, scaling.svg and scaling.json")


if __name__ == "__main__":
    cli.run(main)
