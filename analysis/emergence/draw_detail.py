"""A row for each task that is named: score, score on a log axis, companions, and score against loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.emergence.draw import (
    Judged,
    Page,
    canvas,
    chip,
    companion,
    compute_axis,
    foot,
    furnish,
    score,
    tint,
)  # fmt: skip
from analysis.emergence.points import EXACT
from analysis.figure import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _COLUMN = 3.3, 3.9  # inches
_MOST = 3  # companions that are drawn


def rows(judged: Sequence[Judged], page: Page) -> Figure:
    """Detail of a few abilities."""
    companions = any(j.shown.ability.companions for j in judged)
    columns = 2 + companions + any(np.isfinite(j.shown.ability.loss).any() for j in judged)
    width = _COLUMN * columns
    page = page.wrapped(width)
    height = _ROW * len(judged) + foot(page) + 0.4
    with canvas(width, height) as out:
        spec = out.add_gridspec(
            len(judged), columns, left=0.6 / width, right=1 - 0.15 / width, top=1 - 0.4 / height, bottom=foot(page) / height,
            wspace=0.27, hspace=0.4,
        )  # fmt: skip
        for i, j in enumerate(judged):
            first = out.add_subplot(spec[i, 0])
            score(first, j, page)
            _foretold(first, j)
            chip(first, j)
            first.set_ylabel(j.shown.ability.metric)
            compute_axis(first)
            _fine(out.add_subplot(spec[i, 1], sharex=first), j, page)
            if j.shown.ability.companions:
                _companions(out, spec[i, 2], j, page, first)
            if np.isfinite(j.shown.ability.loss).any():
                against_loss(out.add_subplot(spec[i, 2 + companions]), j, page)
        furnish(out, judged, page, "flops")
        return out


def _foretold(ax: Axes, j: Judged) -> None:
    """What a smooth law of the companion, pushed through the metric, says of the score."""
    m = j.verdict.mirage
    if m is None:
        return
    order = np.argsort(j.shown.ability.flops)
    ax.plot(
        j.shown.ability.flops[order], m.predicted[order], color="black", lw=1.1, ls="-.", zorder=5,
        label=f"from a smooth law of {m.companion}",
    )  # fmt: skip
    ax.legend(frameon=False, fontsize=7.5, loc="center left")


def _fine(ax: Axes, j: Judged, page: Page) -> None:
    """What a linear axis hides: exact match on a log axis down to one item; of other metrics the centred score."""
    a = j.shown.ability
    colours = [page.colour(n) for n in a.n_params]
    ax.set_xscale("log")
    if a.metric == EXACT and not a.chance:
        least = 1 / float(np.nanmedian(a.n))
        ax.set_yscale("log")
        ax.scatter(a.flops, np.maximum(a.score, least / 2), c=colours, s=22, ec="white", lw=0.3, zorder=4)
        ax.axhline(least, color=GREY, ls=":", lw=1)
        ax.annotate(
            "1/n: one item", (1, least), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=7.5,
            ha="right", color=GREY,
        )  # fmt: skip
        if j.band is not None:
            ax.plot(j.band[0], np.maximum(j.band[1], least / 2), color=tint(j), lw=1.4)
        ax.set_title("log scale (no hit: half of one item)", loc="left", fontsize=9.5)
    else:
        ax.scatter(a.flops, (a.score - a.chance) / (1 - a.chance), c=colours, s=22, ec="white", lw=0.3, zorder=4)
        ax.axhline(0, color=GREY, ls="--", lw=0.9)
        ax.set_title("centred: 0 is a guess, 1 all right", loc="left", fontsize=9.5)
    compute_axis(ax)


def _companions(out: Figure, spec: Any, j: Judged, page: Page, like: Axes) -> None:
    names = list(j.shown.ability.companions)[:_MOST]
    parts = spec.subgridspec(len(names), 1, hspace=0.12)
    for i, name in enumerate(names):
        last = out.add_subplot(parts[i], sharex=like)
        last.tick_params(labelbottom=i == len(names) - 1)
        companion(last, j, page, name)
        m = j.verdict.mirage
        if m is not None and m.companion == name:
            order = np.argsort(j.shown.ability.flops)
            last.plot(j.shown.ability.flops[order], m.law[order], color="black", lw=1.1, ls="-.", zorder=5)
        if i == 0:
            last.set_title("continuous companions", loc="left", fontsize=9.5)
    compute_axis(last)


def against_loss(ax: Axes, j: Judged, page: Page) -> None:
    """All sizes and budgets against loss, with the best shape there."""
    a = j.shown.ability
    score(ax, j, page, "loss")
    ax.set_title("against loss", loc="left", fontsize=9.5)
    ax.set_xlabel(a.loss_name, fontsize=8.5)
