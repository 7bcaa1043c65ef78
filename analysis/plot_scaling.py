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
_STYLE = {
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


def tell(table: load.Table, curves: list[load.Curve], lines: list[dict[str, Any]], delta: float | None, level: float, draws: int) -> Story:
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
        boot = intervals.bootstrap(fit.fit(predict.smaller(table, members[0].n_params), delta=delta), draws) if members else None
    except fit.FitError:
        return []
    if boot is None:
        return []
    made = [(r, intervals.predict(boot, r.n_params, r.n_tokens, r.flops, level)) for r in members]
    return [_target(r, p.loss, list(p.interval), level, None) for r, p in made]


def _target(row: load.Row, predicted: float, ends: list[float], level: float, recorded_at: str | None) -> dict[str, Any]:
    measured = row.loss if row.excluded is None else None
    return {
        "member": row.id, "size": row.size, "n_params": row.n_params, "n_tokens": row.n_tokens, "flops": row.flops, "predicted": predicted,
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
        height = 5.9 + 0.21 * (text.count("\n") + 1)
        wide = bool(story.curves)
        out = Figure(figsize=(13.5 if wide else 9.5, height), dpi=150)
        FigureCanvasAgg(out)
        bottom = (0.21 * (text.count("\n") + 1) + 0.75) / height
        grid = out.add_gridspec(
            2, 2 if wide else 1, width_ratios=[1, 1.25] if wide else [1], height_ratios=[3.6, 1], hspace=0.09, wspace=0.17,
            left=0.055 if wide else 0.08, right=0.985 if wide or not _bar(story) else 0.97, top=1 - 0.42 / height, bottom=bottom,
        )  # fmt: skip
        colour = _colours(story)
        main = out.add_subplot(grid[0, -1])
        below = out.add_subplot(grid[1, -1], sharex=main)
        if wide:
            _draw_curves(out.add_subplot(grid[:, 0]), story, colour)
        _draw_compute(main, story, colour)
        _draw_residuals(below, story, colour)
        if _bar(story):
            _draw_bar(out, [main, below], story)
        out.text(0.012, 0.012, text, fontsize=9.2, va="bottom", ha="left", color="#333333", linespacing=1.35)
        return out


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
    bar = out.colorbar(cm.ScalarMappable(LogNorm(np.exp(lo), np.exp(hi)), palette), ax=axes, pad=0.015, aspect=40)
    bar.set_label("N, parameters")
    bar.outline.set_visible(False)  # type: ignore[operator]


def _smooth(tokens: np.ndarray, loss: np.ndarray, bins: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal steps of log tokens."""
    if len(tokens) < 3:
        return tokens, loss
    edges = np.geomspace(tokens[0] * 0.999, tokens[-1] * 1.001, bins + 1)
    where = np.digitize(tokens, edges)
    kept = np.unique(where)
    return np.array([tokens[where == k].mean() for k in kept]), np.array([loss[where == k].mean() for k in kept])


def _draw_curves(ax: Axes, story: Story, colour: Any) -> None:
    """Loss against tokens of every member; the trunk solid, branches with the point where they end."""
    for c in sorted(story.curves, key=lambda c: -c.n_params):
        if len(c.tokens):
            ax.plot(*_smooth(c.tokens, c.loss), color=colour(c.n_params), lw=0.8, alpha=0.55, zorder=2)
        if len(c.val_tokens):
            ax.plot(c.val_tokens, c.val_loss, ".", color=colour(c.n_params), ms=4, zorder=3)
    ends = {r.id: r for r in story.table.rows if r.loss is not None and r.annealed and r.excluded is None}
    for r in ends.values():
        ax.plot(r.n_tokens, r.loss, "o", color=colour(r.n_params), ms=6, mec="white", mew=0.6, zorder=4)
    ax.set(xscale="log", yscale="log", xlabel="D, tokens", ylabel="L, loss (nats per token)", title="Training curves")
    finals = [float(r.loss) for r in story.table.rows if r.loss is not None]
    values = np.concatenate([c.loss for c in story.curves if len(c.loss)] or [np.array(finals or [1.0])])
    low = min([*finals, float(values.min())])
    ax.set_ylim(low * 0.97, min(float(values.max()) * 1.03, 2.2 * max(finals, default=float(values.max()))))
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
        ax.legend(handles=handles, loc="upper right", frameon=False, title="size", title_fontsize=9.5)


def _draw_compute(ax: Axes, story: Story, colour: Any) -> None:
    """Loss against compute: runs, the law at fixed sizes, the frontier, and the largest rung."""
    shown = [r for r in story.table.rows if r.loss is not None]
    with_measure = {t["member"] for t in story.targets if t["measured"] is not None}
    _draw_law(ax, story, colour)
    many = len(shown) > 60
    for r in shown:
        if r.excluded is None and r.id not in with_measure:
            ax.plot(r.flops, r.loss, "o", color=colour(r.n_params), ms=4.2 if many else 6.5, mec="white", mew=0.4, zorder=4)
        elif r.excluded is not None:
            ax.plot(r.flops, r.loss, "o", mfc="none", mec=colour(r.n_params), ms=5, mew=1.1, alpha=0.8, zorder=3)
    for t in story.targets:
        lo, hi = t["interval"]
        offset = 0.985 if t["measured"] is not None else 1.0  # beside the star, not under it
        ax.errorbar(
            t["flops"] * offset, t["predicted"], yerr=[[t["predicted"] - lo], [hi - t["predicted"]]], fmt="D", color="#c1272d",
            mfc="white", mec="#c1272d", ms=7, mew=1.5, capsize=4, lw=1.4, zorder=6,
        )  # fmt: skip
        if t["measured"] is not None:
            ax.plot(t["flops"], t["measured"], "*", color=colour(t["n_params"]), ms=14, mec="black", mew=0.8, zorder=7)
    ax.set(xscale="log", yscale="log", ylabel="L, loss (nats per token)", title="Loss against compute")
    ax.tick_params(labelbottom=False)
    _loss_axis(ax)
    values = [float(r.loss) for r in shown if r.loss is not None] + [e for t in story.targets for e in t["interval"]]
    if values:
        pad = (max(values) / min(values)) ** 0.06
        ax.set_ylim(min(values) / pad, max(values) * pad)
    _legend(ax, story)


def _legend(ax: Axes, story: Story) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grey: dict[str, Any] = {"color": "#555555"}
    handles: list[Any] = [Line2D([], [], **grey, ls="", marker="o", ms=6, label="measured, fitted")]
    if any(r.loss is not None for r in story.table.excluded):
        handles.append(Line2D([], [], **grey, ls="", marker="o", ms=5, mfc="none", label="excluded (see caption)"))
    if story.boot is not None:
        handles.append(Line2D([], [], **grey, lw=1.1, label=r"law at fixed $N$"))
        handles.append((Patch(color="black", alpha=0.13), Line2D([], [], color="black", lw=2, ls="--", label="")))
    labels = [h.get_label() if not isinstance(h, tuple) else f"compute-optimal frontier, {100 * story.level:g} %" for h in handles]
    if story.targets:
        how = "predicted" if story.targets_source == "recorded" else "predicted from smaller (afterwards)"
        handles.append(Line2D([], [], ls="", marker="D", mfc="white", mec="#c1272d", mew=1.5, ms=7))
        labels.append(f"largest rung, {how}, {100 * story.targets[0]['level']:g} %")
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
        ax.plot(flops, law.loss(params, n, flops / per_token), color=colour(n), lw=1.1, alpha=0.85, zorder=2)
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


def _draw_residuals(ax: Axes, story: Story, colour: Any) -> None:
    """Measured against the law, in percent."""
    convention = CONVENTIONS.get(story.table.flops_convention, story.table.flops_convention)
    ax.set(xscale="log", xlabel=f"C, training FLOPs ({convention})", ylabel="off the law, %")
    ax.axhline(0, color="black", lw=0.9)
    if story.boot is None:
        ax.text(0.5, 0.55, "no law: too few rows (see caption)", transform=ax.transAxes, ha="center", va="bottom", color="#777777")
        ax.set_yticks([])
        return
    rows = story.table.fitted
    off = 100 * np.expm1(story.boot.fit.residuals)
    ax.scatter([r.flops for r in rows], off, c=[colour(r.n_params) for r in rows], s=14 if len(rows) > 60 else 26, lw=0.4, ec="white", zorder=3)
    top = 1.15 * max(np.abs(off).max(), 0.05)
    ax.set_ylim(-top, top)


def _count_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda v, _: format_count(v) if v >= 1 else ""))
    axis.set_minor_formatter(NullFormatter())


def _loss_axis(ax: Axes) -> None:
    """Plain numbers on a log axis that spans less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    lo, hi = ax.get_ylim()
    ax.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]) if hi / lo < 20 else LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def caption(story: Story) -> str:
    """Definitions, rows, exclusions, the law with its intervals, and how far to trust it."""
    table = story.table
    parts = [
        f"N: {table.n_definition.replace('_', '-')}{' parameters' if table.kind == 'runs' else ''}. "
        f"C: {CONVENTIONS.get(table.flops_convention, table.flops_convention)}. {len(table.fitted)} rows fitted, {len(table.sizes())} sizes."
    ]
    if left_out := words.exclusions(table):
        parts.append(f"Left out: {left_out}.")
    parts += [f"{note[0].upper()}{note[1:]}." for note in table.notes]
    if story.boot is None:
        parts.append(f"No fit: {story.no_fit}.")
    else:
        boot = story.boot
        ranges = boot.intervals(story.level)
        values = boot.fit.params | {"a": boot.fit.params["beta"] / (boot.fit.params["alpha"] + boot.fit.params["beta"])}
        parts.append(
            f"Law: L = {words.equation(boot)}; " + ", ".join(f"{k} {words.number(values[k], 3)} {words.between(v)}" for k, v in ranges.items())
            + f" ({100 * story.level:g} %, {boot.words()}; Huber {boot.fit.delta:g})."
        )  # fmt: skip
        lacking = [what for what, v in intervals.judge_parameters(boot, story.level).items() if not v.identified]
        parts.append(f"Not identified by these rows: {', '.join(lacking)}." if lacking else "E, exponents and a are identified.")
        parts.append("Bands hold if the law's form does.")
    return "\n".join(textwrap.wrap(" ".join(parts), 190 if story.curves else 132))


def to_json(story: Story) -> dict[str, Any]:
    """All numbers of the figure."""
    out: dict[str, Any] = {
        "source": story.table.source, "n_definition": story.table.n_definition, "flops_convention": story.table.flops_convention,
        "notes": list(story.table.notes), "caption": caption(story).replace("\n", " "), "rows": [dataclasses.asdict(r) for r in story.table.rows],
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
    lines = [f"{table.source}: {len(table.fitted)} rows fitted" + (f"; left out: {left}" if (left := words.exclusions(table)) else "")]
    lines += [f"note: {note}" for note in table.notes]
    lines += words.law(story.boot, story.level) if story.boot is not None else [f"no fit: {story.no_fit}"]
    lines += words.loss_table(table.fitted)
    if story.targets:
        lines.append("largest rung, predicted " + ("on the record:" if story.targets_source == "recorded" else "from smaller sizes now (nothing was recorded before it trained):"))
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
        raise load.LoadError(f"{table.source}: nothing to draw: no run has a final loss yet; see `python -m scaling.launch status`")
    story = tell(table, curves, lines, args.delta, args.level, args.draws)
    out = cli.out_dir(args)
    runs.write_json(out / "scaling.json", to_json(story))
    drawn = figure(story)
    for suffix in ("png", "svg"):
        drawn.savefig(out / f"scaling.{suffix}", metadata={"Date": None} if suffix == "svg" else None)
    print(in_words(story))
    print(f"wrote {out / 'scaling.png'}, scaling.svg and scaling.json")


if __name__ == "__main__":
    cli.run(main)
