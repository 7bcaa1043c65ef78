"""The report's charts, as Plotly figures: hover, zoom, one look.  Colours are those of the PNG: dark for small models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import words
from analysis.figure import PALEST, RED, Sizes, smooth
from analysis.story import RECORDED, Story, frontier
from scaling.units import format_count

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from analysis.isoflop import Bowl
    from analysis.profile import Profile
    from analysis.scorecard import Score

_CURVE_POINTS = 120  # of a training curve: what a screen shows
LABEL = "%{customdata}<extra></extra>"


def blank(x: str, y: str, title: str, log_x: bool = True, log_y: bool = True) -> Figure:
    """An empty figure with the report's axes."""
    import plotly.graph_objects as go

    axis = {"showgrid": True, "gridcolor": "#e6e9ed", "linecolor": "#8c959f", "zeroline": False, "automargin": True}
    exponents = {"exponentformat": "power", "minexponent": 4}
    out = go.Figure()
    out.update_layout(
        template="none", title={"text": title, "font": {"size": 15}, "x": 0.01}, margin={"l": 64, "r": 16, "t": 44, "b": 56},
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#1f2328"}, hovermode="closest",
        legend={"font": {"size": 11}, "tracegroupgap": 4}, hoverlabel={"align": "left"},
        paper_bgcolor="white", plot_bgcolor="white",
    )  # fmt: skip
    out.update_xaxes(title={"text": x}, type="log" if log_x else "linear", **axis, **(exponents if log_x else {}))
    out.update_yaxes(title={"text": y}, type="log" if log_y else "linear", **axis, **({"dtick": "D1"} if log_y else {}))
    if log_y:
        out.update_yaxes(tickformat=".3~g", dtick=None, nticks=8, minor={"showgrid": False})
    return out


def _colours(sizes: Sizes) -> dict[float, str]:
    from plotly.colors import sample_colorscale

    lo, hi = sizes.log_range
    where = [PALEST * float((np.log(n) - lo) / (hi - lo)) for n in sizes.labels]
    return dict(zip(sizes.labels, sample_colorscale("Viridis", where), strict=True))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of an interval plot."""

    label: str
    value: float
    ends: tuple[float, float]
    identified: bool = True

    def words(self) -> str:
        """What hovering says."""
        value = words.number(self.value) if self.identified else "not identified"
        return f"{self.label}: {value} {words.between(self.ends, 4)}"


def compute(story: Story) -> Figure:
    """Loss against compute: every training curve, every run, the law at each size, the frontier with its band."""
    sizes = Sizes.of(story)
    colours = _colours(sizes)
    out = blank(f"C, training FLOPs ({story.convention})", "L, loss (nats per token)", "Loss against compute")
    _add_frontier(out, story)
    _add_curves(out, story, colours)
    if not sizes.many:
        _add_law(out, story, sizes, colours)
    _add_runs(out, story, sizes, colours)
    _add_targets(out, story)
    losses = [r.loss for r in story.table.rows if r.loss is not None] + [e for t in story.targets for e in t["interval"]]
    lo, hi = min(losses) * 0.97, max(losses) * 1.08
    out.update_yaxes(range=[np.log10(lo), np.log10(hi)])
    _span(out, *story.compute_range())
    return out


def _span(out: Figure, lo: float, hi: float) -> None:
    """Sets the ends of a logarithmic x axis, which gets ticks at 1, 2 and 5, or finer ones once a reader has zoomed in."""
    decades = float(np.log10(hi / lo))
    out.update_xaxes(range=[float(np.log10(lo)), float(np.log10(hi))], nticks=int(np.clip(round(decades / 0.4), 3, 6)))


def _add_frontier(out: Figure, story: Story) -> None:
    if story.boot is None:
        return
    flops = np.geomspace(*story.compute_range(), 60)
    band = frontier(story, flops)
    if not np.isfinite(band["loss"]).any():
        return
    group = {"legendgroup": "frontier", "hoverinfo": "skip"}
    for lo, hi, shade in (("calibrated_lo", "calibrated_hi", 0.08), ("lo", "hi", 0.14)):
        hidden = {"mode": "lines", "line": {"width": 0}, "showlegend": False}
        out.add_scatter(x=flops, y=band[hi], **hidden, **group)
        out.add_scatter(x=flops, y=band[lo], fill="tonexty", fillcolor=f"rgba(60,60,60,{shade})", **hidden, **group)
    label = (
        [
            f"best for {c:.3g} FLOPs<br>N* {format_count(n)}, D* {format_count(d)} ({d / n:.3g} tokens/param)"
            f"<br>L* {loss:.4f} [{a:.4f}, {b:.4f}]"
            for c, n, d, loss, a, b in zip(
                flops, band["n_params"], band["n_tokens"], band["loss"], band["lo"], band["hi"], strict=True
            )
        ]
        if np.isfinite(band["n_params"]).all()
        else [f"{c:.3g} FLOPs: {loss:.4f}" for c, loss in zip(flops, band["loss"], strict=True)]
    )
    out.add_scatter(
        x=flops, y=band["loss"], mode="lines", line={"color": "black", "dash": "dash", "width": 2}, legendgroup="frontier",
        name=f"frontier, {100 * story.level:g} %", customdata=label, hovertemplate=LABEL,
    )  # fmt: skip


def _add_curves(out: Figure, story: Story, colours: dict[float, str]) -> None:
    """Every training curve, smoothed, over its own FLOPs."""
    rows = {r.id: r for r in story.table.rows}
    first = True
    for c in story.curves:
        row = rows[c.id]
        if not len(c.tokens) or not row.n_tokens:
            continue
        tokens, loss = smooth(c.tokens, c.loss)
        keep = np.unique(np.linspace(0, len(tokens) - 1, _CURVE_POINTS).astype(int))
        out.add_scatter(
            x=tokens[keep] * row.flops / row.n_tokens, y=loss[keep], mode="lines", name="training curves", legendgroup="curves",
            showlegend=first, line={"width": 1, "color": colours.get(c.n_params, "#888888")}, opacity=0.55,
            hovertemplate=f"{c.id}<br>%{{x:.3g}} FLOPs, training loss %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
        first = False


def _add_law(out: Figure, story: Story, sizes: Sizes, colours: dict[float, str]) -> None:
    """The law at each size, over the compute that its runs could have."""
    if story.boot is None:
        return
    lo, hi = story.compute_range()
    for n, name in sizes.labels.items():
        same = [r for r in story.table.rows if r.n_params == n]
        per_token = float(np.mean([r.flops / r.n_tokens for r in same]))
        flops = np.geomspace(max(lo, min(r.flops for r in same) / 1.6), min(hi, max(r.flops for r in same) * 1.6), 40)
        loss = story.boot.fit.expected(n, flops / per_token, flops)
        out.add_scatter(
            x=flops, y=loss, mode="lines", line={"color": colours[n], "width": 1.3, "dash": "dot"}, name="law at fixed N",
            legendgroup="law", showlegend=n == next(iter(sizes.labels)),
            hovertemplate=f"law, N {name}: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip


def _add_runs(out: Figure, story: Story, sizes: Sizes, colours: dict[float, str]) -> None:
    """Runs: fitted ones filled, those left out hollow with the reason on hover."""
    marker: dict[str, Any] = {"size": 9 if len(story.table.rows) < 60 else 6}
    fitted = story.table.fitted
    if sizes.many:
        colour: Any = [np.log10(r.n_params) for r in fitted]
        marks = [
            k * 10.0**e for e in range(16) for k in (1, 3) if sizes.log_range[0] <= np.log(k * 10.0**e) <= sizes.log_range[1]
        ]
        ticks = {"tickvals": [float(np.log10(m)) for m in marks], "ticktext": [format_count(m) for m in marks]}
        bar = {"title": {"text": "N"}, "thickness": 12, "len": 0.7} | ticks
        scale = {
            "color": colour,
            "colorscale": "Viridis",
            "showscale": True,
            "colorbar": bar,
            "line": {"width": 0.5, "color": "white"},
        }
        out.add_scatter(
            x=[r.flops for r in fitted], y=[r.loss for r in fitted], mode="markers", name="measured", showlegend=False,
            marker=marker | scale, customdata=[_run(r) for r in fitted], hovertemplate=LABEL,
        )  # fmt: skip
    else:
        for n, name in sizes.labels.items():
            rows = [r for r in fitted if r.n_params == n]
            out.add_scatter(
                x=[r.flops for r in rows], y=[r.loss for r in rows], mode="markers", name=f"N {name}", legendgroup=name,
                marker=marker | {"color": colours[n], "line": {"width": 0.8, "color": "white"}},
                customdata=[_run(r) for r in rows], hovertemplate=LABEL,
            )  # fmt: skip
    left = [r for r in story.table.excluded if r.loss is not None]
    if left:
        out.add_scatter(
            x=[r.flops for r in left], y=[r.loss for r in left], mode="markers", name="left out",
            marker={"size": 8, "symbol": "circle-open", "color": [colours.get(r.n_params, "#888888") for r in left]},
            customdata=[f"{_run(r)}<br>left out: {r.excluded}" for r in left], hovertemplate=LABEL,
        )  # fmt: skip


def _run(row: Any) -> str:
    return (
        f"{row.id}<br>N {format_count(row.n_params)}, D {format_count(row.n_tokens)} "
        f"({row.n_tokens / row.n_params:.3g} tokens/param)<br>{row.flops:.3g} FLOPs, loss {row.loss:.4f}"
    )


def _add_targets(out: Figure, story: Story) -> None:
    """The largest rung: intervals as predicted, stars where it has been measured."""
    if not story.targets:
        return
    how = "predicted before it trained" if story.targets_source == RECORDED else "predicted afterwards"
    x = [t["flops"] * 0.97 for t in story.targets]
    y = [t["predicted"] for t in story.targets]
    error = {
        "type": "data", "symmetric": False, "color": RED, "thickness": 1.5, "width": 5,
        "array": [max(0.0, t["interval"][1] - t["predicted"]) for t in story.targets],
        "arrayminus": [max(0.0, t["predicted"] - t["interval"][0]) for t in story.targets],
    }  # fmt: skip
    label = [
        f"{t['member']}<br>predicted {t['predicted']:.4f} [{t['interval'][0]:.4f}, {t['interval'][1]:.4f}]"
        for t in story.targets
    ]
    marker = {"symbol": "diamond-open", "size": 9, "color": RED, "line": {"width": 2}}
    out.add_scatter(
        x=x,
        y=y,
        error_y=error,
        mode="markers",
        marker=marker,
        name=f"largest rung, {how}",
        customdata=label,
        hovertemplate=LABEL,
    )
    done = [t for t in story.targets if t["measured"] is not None]
    if done:
        out.add_scatter(
            x=[t["flops"] for t in done], y=[t["measured"] for t in done], mode="markers", name="largest rung, measured",
            marker={"symbol": "star", "size": 14, "color": "#d4c11d", "line": {"width": 1, "color": "black"}},
            customdata=[f"{t['member']}<br>measured {t['measured']:.4f}, predicted {t['error_percent']:+.2f} %" for t in done],
            hovertemplate=LABEL,
        )  # fmt: skip


def residuals(story: Story) -> Figure:
    """Measured over the law, in percent, against compute."""
    assert story.boot is not None
    sizes = Sizes.of(story)
    colours = _colours(sizes)
    out = blank("C, training FLOPs", "off the law, %", "Residuals", log_y=False)
    off = 100 * np.expm1(story.boot.fit.residuals)
    rows = story.table.fitted
    out.add_hline(y=0, line={"color": "black", "width": 1})
    out.add_scatter(
        x=[r.flops for r in rows], y=off, mode="markers", showlegend=False,
        marker={"size": 8 if len(rows) < 60 else 5, "color": [colours.get(r.n_params, "#888888") for r in rows]},
        customdata=[f"{_run(r)}<br>{v:+.2f} % off the law" for r, v in zip(rows, off, strict=True)], hovertemplate=LABEL,
    )  # fmt: skip
    top = 1.15 * float(np.abs(off).max() or 1.0)
    out.update_yaxes(range=[-top, top])
    _span(out, *story.compute_range())
    return out


def intervals(entries: Sequence[Entry], name: str, level: float) -> Figure:
    """An interval plot of the quantity ``name``, from top to bottom; what is not identified is grey and has no value."""
    out = blank(name, "", f"{name}, {100 * level:g} % intervals", log_x=False, log_y=False)
    for identified, colour in ((True, "#2f5d8a"), (False, "#9aa4ae")):
        some = [e for e in entries if e.identified is identified]
        error = {
            "type": "data", "symmetric": False, "thickness": 2, "width": 6, "color": colour,
            "array": [max(0.0, e.ends[1] - e.value) for e in some],
            "arrayminus": [max(0.0, e.value - e.ends[0]) for e in some],
        }  # fmt: skip
        marker = {"size": 9 if identified else 0.1, "color": colour}
        out.add_scatter(
            x=[e.value for e in some], y=[e.label for e in some], mode="markers", error_x=error, marker=marker,
            showlegend=False, customdata=[e.words() for e in some], hovertemplate=LABEL,
        )  # fmt: skip
    _rows(out, [e.label for e in entries])
    return out


def scorecard(scores: Sequence[Score]) -> Figure:
    """Every scored prediction, in percent off what was measured: inside its interval or not."""
    out = blank("prediction over measured, %", "", "Predictions against what came", log_x=False, log_y=False)
    for hit, colour, name in ((True, "#1a7f37", "inside its interval"), (False, RED, "outside")):
        some = [s for s in scores if s.hit is hit]
        if not some:
            continue
        off = [100 * s.error for s in some]
        ends = [[100 * (e / s.measured - 1) for e in s.interval] for s in some]
        error = {
            "type": "data", "symmetric": False, "thickness": 2, "width": 6, "color": colour,
            "array": [max(0.0, e[1] - v) for v, e in zip(off, ends, strict=True)],
            "arrayminus": [max(0.0, v - e[0]) for v, e in zip(off, ends, strict=True)],
        }  # fmt: skip
        label = [
            f"{s.member}: predicted {s.predicted:.4f} {words.between(s.interval, 5)}, measured {s.measured:.4f}" for s in some
        ]
        out.add_scatter(
            x=off, y=[s.member for s in some], error_x=error, mode="markers", name=name,
            marker={"size": 9, "color": colour}, customdata=label, hovertemplate=LABEL,
        )  # fmt: skip
    out.add_vline(x=0, line={"color": "black", "width": 1})
    _rows(out, list(dict.fromkeys(s.member for s in scores)))
    return out


def _rows(out: Figure, labels: list[str]) -> None:
    """Makes y a list of names from top to bottom, with room for a name above the first line, where a phone has it."""
    order = {"categoryorder": "array", "categoryarray": labels}
    out.update_yaxes(type="category", range=[len(labels) - 0.6, -0.6], **order)
    out.update_layout(margin={"l": 170})


def profile(p: Profile, fitted: float) -> Figure:
    """The objective re-optimised at fixed values of one parameter, and the interval that it gives."""
    out = blank(p.name, "objective", f"Profile of {p.name}", log_x=False, log_y=False)
    x, top = seen(p)
    lo, hi = (float(np.clip(e, *x)) for e in p.interval)
    out.add_vrect(x0=lo, x1=hi, fillcolor="#2f5d8a", opacity=0.1, line_width=0)
    out.add_vline(x=fitted, line={"color": "black", "width": 1, "dash": "dot"})
    out.add_hline(y=p.threshold, line={"color": "#8c959f", "width": 1, "dash": "dash"})
    out.add_scatter(
        x=p.values, y=p.objective, mode="lines+markers", line={"color": "#2f5d8a"}, marker={"size": 5}, showlegend=False,
        hovertemplate=f"{p.name} = %{{x:.5g}}: %{{y:.5g}}<extra></extra>",
    )  # fmt: skip
    out.update_xaxes(range=list(x))
    out.update_yaxes(range=[float(p.objective.min()) - 0.05 * top, float(p.objective.min()) + top], exponentformat="power")
    return out


def seen(p: Profile) -> tuple[tuple[float, float], float]:
    """What a picture of a profile shows: the values up to 4 times the threshold's rise and the interval, and that rise."""
    rise = p.objective - p.objective.min()
    top = 4 * (p.threshold - float(p.objective.min()))
    near = np.append(p.values[rise <= top], [e for e in p.interval if np.isfinite(e)])
    pad = 0.05 * (float(near.max()) - float(near.min()) or 1.0)
    return (float(near.min()) - pad, float(near.max()) + pad), top


def bowls(found: Sequence[Bowl]) -> Figure:
    """Loss against N at each budget: points (hollow where not used), the fitted curve, and its least point."""
    from plotly.colors import sample_colorscale

    out = blank("N, parameters", "L, loss (nats per token)", "IsoFLOP profiles")
    out.update_xaxes(tickformat="~s", exponentformat="none")
    counts = np.concatenate([b.n_params for b in found])
    _span(out, counts.min() / 1.2, counts.max() * 1.2)
    where = np.linspace(0.05, PALEST, len(found)) if len(found) > 1 else [0.4]
    for b, colour in zip(found, sample_colorscale("Plasma", list(where)), strict=True):
        label = f"{b.flops:.3g} FLOPs"
        symbols = ["circle" if used else "circle-open" for used in b.used]
        out.add_scatter(
            x=b.n_params, y=b.loss, mode="markers", name=label, legendgroup=label,
            marker={"color": colour, "size": 7, "symbol": symbols},
            hovertemplate=f"{label}<br>N %{{x:.3s}}, loss %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
        out.add_scatter(
            x=b.curve_n, y=b.curve_loss, mode="lines", line={"color": colour, "width": 1.5}, legendgroup=label,
            showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        if b.reason is None:
            out.add_scatter(
                x=[b.n_opt], y=[b.loss_opt], mode="markers", legendgroup=label, showlegend=False,
                marker={"symbol": "x", "size": 10, "color": colour, "line": {"width": 1, "color": "black"}},
                hovertemplate=f"best at {label}: N %{{x:.3s}}, loss %{{y:.4f}}<extra></extra>",
            )  # fmt: skip
    return out
