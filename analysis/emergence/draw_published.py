"""The page of the published tables: opposite verdicts on one benchmark side by side, then every other task small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.emergence import tables
from analysis.emergence.draw import (
    Judged,
    Page,
    canvas,
    cell,
    chip,
    companion,
    compute_axis,
    foot,
    furnish,
    label,
    midpoint,
    onset,
    score,
    tint,
)
from analysis.emergence.draw_detail import against_loss
from analysis.figure import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARITHMETIC = ("gpt3/2D+/50", "gpt3/3D+/50", "gpt3/3D-/50", "gpt3/4D+/50")
LETTER, CLOZE = "public/mmlu/5", "olmo/mmlu/5"
_SHADES = ("#7b3f98", "#c1272d", "#e08214", "#8c6d31")
_COLUMNS, _WIDTH, _TOP, _CELL = 6, 17.0, 4.7, 2.55  # inches


def page(judged: Sequence[Judged], look: Page) -> Figure:
    """The figure of all shipped tables."""
    look = look.wrapped(_WIDTH)
    by_key = {j.shown.key: j for j in judged}
    rest = [j for j in judged if j.shown.key not in (*ARITHMETIC, LETTER, CLOZE)]
    rows = math.ceil(len(rest) / _COLUMNS)
    height = _TOP + 0.75 + _CELL * rows + foot(look)
    with canvas(_WIDTH, height) as out:
        first = out.add_gridspec(
            1, 4, left=0.75 / _WIDTH, right=1 - 0.15 / _WIDTH, top=1 - 0.4 / height, bottom=1 - _TOP / height, wspace=0.2,
            width_ratios=[1.15, 1.15, 1.15, 0.85],
        )  # fmt: skip
        _arithmetic(out.add_subplot(first[0]), [by_key[k] for k in ARITHMETIC])
        letter = out.add_subplot(first[1])
        _letter(letter, by_key[LETTER], look)
        _cloze(out, first[2], by_key[CLOZE], look, letter)
        _against_loss(out.add_subplot(first[3]), by_key[CLOZE], look, letter)
        spec = out.add_gridspec(
            rows, _COLUMNS, left=0.75 / _WIDTH, right=1 - 0.15 / _WIDTH, top=1 - (_TOP + 0.75) / height,
            bottom=foot(look) / height, wspace=0.3, hspace=0.45,
        )  # fmt: skip
        for i, j in enumerate(rest):
            cell(out, spec[divmod(i, _COLUMNS)], j, look, "flops")
        furnish(out, judged, look, "flops")
        return out


def _arithmetic(ax: Axes, judged: Sequence[Judged]) -> None:
    """Four tasks of GPT-3 in one panel, each with its shape, and where Wei et al. saw them emerge."""
    ax.set_xscale("log")
    for i, (j, colour) in enumerate(zip(judged, _SHADES, strict=True)):
        a = j.shown.ability
        if j.band is not None:
            x, y, low, high = j.band
            ax.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
            ax.plot(x, y, color=colour, lw=1.7)
        ax.plot(a.flops, a.score, "o", color=colour, ms=5, mec="white", mew=0.4)
        if (at := onset(j)) is not None:
            ax.plot(at, 0.0, "^", color=colour, ms=7.5, clip_on=False, zorder=6, transform=ax.get_xaxis_transform())
        ax.text(0.03, 0.94 - 0.085 * i, j.shown.task, color=colour, transform=ax.transAxes, va="center", fontsize=9.5)
    for i, j in enumerate({label(j): j for j in judged}.values(), len(judged)):  # each verdict once, clear of the curves
        ax.text(
            0.035, 0.94 - 0.085 * i, label(j), color="white", transform=ax.transAxes, va="center", fontsize=8.5,
            weight="bold", bbox={"boxstyle": "round,pad=0.25", "fc": tint(j), "ec": "none"},
        )  # fmt: skip
    ax.set_ylim(-0.03, 1.04)
    named = {t.ability: t.flops for t in tables.thresholds()}
    for words, side in (("3", "right"), ("4-5", "right")):
        at = named[f"Addition/subtraction ({words} digit)"]
        ax.axvline(at, color=GREY, lw=0.8, ls=":")
        ax.annotate(
            f"Wei et al.: {words} digits", (at, 1.0), (0, 2), xycoords=ax.get_xaxis_transform(), va="bottom", ha=side,
            textcoords="offset points", fontsize=6.5, color=GREY,
        )  # fmt: skip
    ax.set_title("GPT-3, few-shot arithmetic: exact match", loc="left", fontsize=10.5, pad=14)
    ax.set_ylabel("exact match")
    compute_axis(ax)


def _letter(ax: Axes, j: Judged, look: Page) -> None:
    score(ax, j, look)
    _where(ax, j)
    chip(ax, j, "MMLU by letter, 118 public models", 8.5)
    ax.set_ylabel("accuracy")
    compute_axis(ax)


def _where(ax: Axes, j: Judged) -> None:
    """Onset and midpoint in words, below the chip."""
    found = (("onset", onset(j)), ("midpoint", midpoint(j)))
    lines = [f"{words} $10^{{{math.log10(at):.1f}}}$ FLOPs" for words, at in found if at is not None]
    ax.text(0.03, 0.85, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=9, color=tint(j))


def _cloze(out: Figure, spec: Any, j: Judged, look: Page, like: Axes) -> None:
    """The same benchmark by continuation, on the axes of the letter panel, with bits per byte below."""
    parts = spec.subgridspec(2, 1, height_ratios=[2.1, 1], hspace=0.08)
    top = out.add_subplot(parts[0], sharex=like)
    score(top, j, look)
    top.set_ylim(like.get_ylim())
    chip(top, j, "MMLU by continuation, OLMo ladder", 8.5)
    _where(top, j)
    top.tick_params(labelbottom=False)
    low = out.add_subplot(parts[1], sharex=like)
    companion(low, j, look, next(iter(j.shown.ability.companions)))
    compute_axis(low)
    low.set_xlim(like.get_xlim())


def _against_loss(ax: Axes, j: Judged, look: Page, like: Axes) -> None:
    """The same accuracy against pre-training loss, and whether one curve serves all sizes."""
    against_loss(ax, j, look)
    ax.set_ylim(like.get_ylim())
    found = j.verdict.loss
    one = "" if found is None else ": one curve" if found.one_curve else ": sizes differ"
    ax.set_title(f"the same against loss{one}", loc="left", fontsize=10.5)
