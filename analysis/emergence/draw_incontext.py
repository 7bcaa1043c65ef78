"""Figures of what a prompt adds: score against shots and its slope, chain of thought and its gain, letters beside cloze."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.emergence.draw import COMPANION, Judged, Page, canvas, chip, companion, compute_axis, furnish_sizes, score, wrap
from analysis.emergence.incontext import Shots, Thought
from analysis.figure import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = (3.1, 3.5)  # inches
_FOOT = 1.5


def shots(curves: Sequence[Shots], level: float, left: Sequence[str] = ()) -> Figure:
    """One cell for each task and format: score against shots by size, and below it the few-shot slope against size.

    The caption names what is ``left`` out since it is at chance.
    """
    page = Page(tuple(sorted({c.n_params for c in curves})), level, named={c.n_params: c.size for c in curves})
    paired = "items paired" if all(c.paired for c in curves) else "items not paired"
    tasks = list(dict.fromkeys((c.task, c.format) for c in curves))
    columns = min(len(tasks), max(3, math.ceil(math.sqrt(1.5 * len(tasks)))))
    rows = math.ceil(len(tasks) / columns)
    width, height = _CELL[0] * columns + 0.6, _CELL[1] * rows + _FOOT
    with canvas(width, height) as out:
        spec = out.add_gridspec(
            rows, columns, left=0.65 / width, right=1 - 0.12 / width, top=1 - 0.35 / height, bottom=_FOOT / height, wspace=0.3,
            hspace=0.38,
        )  # fmt: skip
        for i, (task, form) in enumerate(tasks):
            same = [c for c in curves if (c.task, c.format) == (task, form)]
            parts = spec[divmod(i, columns)].subgridspec(2, 1, height_ratios=[1.7, 1], hspace=0.42)
            _against_shots(out.add_subplot(parts[0]), same, page)
            _slopes(out.add_subplot(parts[1]), same, page)
        words = (
            f"Above: score against the number of examples in the prompt, dark small and light large, {100 * page.level:g} % "
            f"intervals (Wilson). Below: the slope of each size, d score / d log2(1 + shots), {paired}."
        )
        words += f" Absent, not drawn: {', '.join(left)}." if left else ""
        furnish_sizes(out, page, wrap(words, width))
        return out


def _against_shots(ax: Axes, same: Sequence[Shots], page: Page) -> None:
    ticks = sorted({k for c in same for k in c.shots})
    for c in same:
        x, (y, low, high) = np.log2(1 + np.array(c.shots, float)), np.array(c.scores).T
        ax.plot(x, y, "o-", color=page.colour(c.n_params), ms=4, lw=1.2, mec="white", mew=0.3)
        ax.fill_between(x, low, high, color=page.colour(c.n_params), alpha=0.14, lw=0)
    ax.axhline(same[0].chance, color=GREY, ls="--", lw=0.9)
    ax.set_xticks(np.log2(1 + np.array(ticks, float)), [str(k) for k in ticks])
    ax.set_title(f"{same[0].task}, {same[0].format}", loc="left", fontsize=9, pad=4)
    ax.set_xlabel("shots", fontsize=8, labelpad=1)
    ax.tick_params(labelsize=7.5)


def _slopes(ax: Axes, same: Sequence[Shots], page: Page) -> None:
    ax.axhline(0, color="black", lw=0.8)
    for c in same:
        value, low, high = c.slope
        ax.plot([c.n_params] * 2, [low, high], color=page.colour(c.n_params), lw=1.3)
        ax.plot(c.n_params, value, "o", color=page.colour(c.n_params), ms=4.5, mec="white", mew=0.3)
    ax.set_xscale("log")
    _size_axis(ax)
    ax.set_ylabel("slope", fontsize=8, color=COMPANION)
    ax.tick_params(labelsize=7.5)


def _size_axis(ax: Axes) -> None:
    from matplotlib.ticker import NullLocator

    from analysis.figure import count_axis

    ax.margins(x=0.08)
    count_axis(ax.xaxis)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("N, parameters", fontsize=8, labelpad=1)


def thoughts(found: Sequence[Thought], page: Page) -> Figure:
    """One column for each task: exact match with and without a chain of thought by rung, and below it the gain."""
    tasks = list(dict.fromkeys(t.task for t in found))
    width, height = max(6.5, 3.1 * len(tasks) + 0.6), 4.6 + _FOOT
    with canvas(width, height) as out:
        spec = out.add_gridspec(
            2, len(tasks), left=0.65 / width, right=1 - 0.12 / width, top=1 - 0.35 / height, bottom=_FOOT / height, wspace=0.28,
            hspace=0.16, height_ratios=[1.5, 1],
        )  # fmt: skip
        for i, task in enumerate(tasks):
            same = [t for t in found if t.task == task]
            top = out.add_subplot(spec[0, i])
            low = out.add_subplot(spec[1, i], sharex=top)
            _both_ways(top, same)
            _gain(low, same, page)
        words = (
            "Above: exact match of direct answers (hollow) and after a chain of thought (filled) by rung. Below: what the "
            f"chain of thought adds, {100 * page.level:g} % interval{', items paired' if all(t.paired for t in found) else ''}."
        )
        furnish_sizes(out, page, wrap(words, width))
        return out


def _both_ways(ax: Axes, same: Sequence[Thought]) -> None:
    x = [t.flops for t in same]
    for name, face, style in (("direct", "white", "--"), ("cot", COMPANION, "-")):
        y, low, high = np.array([getattr(t, name) for t in same]).T
        ax.fill_between(x, low, high, color=COMPANION, alpha=0.12, lw=0)
        label = "direct" if name == "direct" else "chain of thought"
        ax.plot(x, y, f"o{style}", color=COMPANION, mfc=face, ms=4.5, lw=1.3, label=label)
    ax.set(xscale="log", ylim=(-0.03, 1.04))
    ax.set_title(same[0].task, loc="left", fontsize=9.5, pad=4)
    ax.set_ylabel("exact match", fontsize=8.5)
    ax.legend(frameon=False, fontsize=7.5, loc="upper left")
    ax.tick_params(labelsize=7.5, labelbottom=False)


def _gain(ax: Axes, same: Sequence[Thought], page: Page) -> None:
    ax.axhline(0, color="black", lw=0.8)
    ax.plot([t.flops for t in same], [t.gain[0] for t in same], color=GREY, lw=1)
    for t in same:
        ax.plot([t.flops] * 2, t.gain[1:], color=page.colour(t.n_params), lw=1.4)
        ax.plot(t.flops, t.gain[0], "o", color=page.colour(t.n_params), ms=5, mec="white", mew=0.3)
    compute_axis(ax)
    ax.set_ylabel("gain", fontsize=8.5)
    ax.set_xlabel("C, training FLOPs", fontsize=8.5)
    ax.tick_params(labelsize=7.5)


def letters(pairs: Sequence[tuple[Judged, Judged | None]], page: Page) -> Figure:
    """One column for each task: by letter, beside it by continuation, and below the letter's NLL against that of a guess."""
    rows = 2 + any("letter_mass" in j.shown.ability.companions for j, _ in pairs)
    width, height = max(6.5, 3.1 * len(pairs) + 0.6), 2.5 + 1.5 * (rows - 1) + _FOOT
    with canvas(width, height) as out:
        spec = out.add_gridspec(
            rows, len(pairs), left=0.75 / width, right=1 - 0.12 / width, top=1 - 0.35 / height, bottom=_FOOT / height,
            wspace=0.3, hspace=0.14, height_ratios=[1.7] + [1] * (rows - 1),
        )  # fmt: skip
        for i, (letter, cloze) in enumerate(pairs):
            top = out.add_subplot(spec[0, i])
            score(top, letter, page)
            if cloze is not None:
                a = cloze.shown.ability
                top.plot(a.flops, a.score, "D", mec=GREY, mfc="none", ms=4, mew=0.9, zorder=3)
                top.set_ylim(top=1.04)
            chip(top, letter, letter.shown.task)
            top.set_ylabel("accuracy", fontsize=8.5)
            last = top
            for row, name in enumerate([n for n in ("nll", "letter_mass") if n in letter.shown.ability.companions], 1):
                last.tick_params(labelbottom=False)
                last = out.add_subplot(spec[row, i], sharex=top)
                companion(last, letter, page, name)
                if name == "nll":
                    guess = -math.log(letter.shown.ability.chance)
                    last.axhline(guess, color=GREY, ls="--", lw=0.9)
                    last.set_ylabel(f"letter NLL\n(guess: {guess:.2f})", fontsize=7.5, color=COMPANION)
            compute_axis(last)
            last.set_xlabel("C, training FLOPs", fontsize=8.5)
            for ax in out.axes:
                ax.tick_params(labelsize=7.5)
        words = (
            "Above: accuracy by letter (filled, with its shape) and of the same items by continuation (hollow diamonds); "
            "dashed: chance. Below: NLL of the right letter in nats, dashed: that of a guess; probability that the "
            "model gives to the letters together."
        )
        furnish_sizes(out, page, wrap(words, width))
        return out
