"""The page of a user's own ladder: one large example of each kind of behaviour, then every other task small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.emergence.draw import Judged, Page, canvas, cell, foot, furnish, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {  # verdict: what its example stands for, in the order of the row
    "sharp-in-loss": "a jump of the model",
    "sharp-metric-only": "a jump of the metric alone",
    "smooth": "a gradual rise",
    "absent": "nothing yet",
}
FEWEST = 3  # kinds, below which a row of examples says little
_A_RISE = 0.3  # of what there is to gain, that a gradual one should show
_WIDTH, _TOP, _CELL, _LEFT = 17.0, 4.3, 2.55, 0.75  # inches


def examples(judged: Sequence[Judged]) -> list[Judged]:
    """The plainest of each kind: with a continuous companion, the largest rise; the most gradual; of what is absent the least.

    Another task for each kind, where there is one: a task's formats often behave alike.
    """
    out: list[Judged] = []
    for kind in KINDS:
        same = [j for j in judged if label(j) == kind]
        fresh = [j for j in same if j.shown.task not in {one.shown.task for one in out}] or same
        if fresh:
            out.append(max(fresh, key=_plain))
    return out


def _plain(j: Judged) -> tuple[float, ...]:
    """How good an example of its kind; larger is better."""
    rise, s = _rise(j), j.verdict.selection
    if j.verdict.call == "smooth" and s is not None:
        return bool(j.shown.ability.companions), rise > _A_RISE, s.middle
    return bool(j.shown.ability.companions), -rise if j.verdict.call == "absent" else rise


def _rise(j: Judged) -> float:
    v = j.verdict
    return 0.0 if math.isnan(v.reached) else (v.reached - v.floor) / (1 - j.shown.ability.chance)


def page(judged: Sequence[Judged], look: Page) -> Figure | None:
    """The figure; None where there are too few kinds for a row of examples."""
    first = examples(judged)
    if len(first) < FEWEST:
        return None
    look = look.wrapped(_WIDTH)
    rest = [j for j in judged if all(j is not one for one in first)]
    columns = min((6, 5), key=lambda c: -len(rest) % c)  # few cells left empty
    rows = math.ceil(len(rest) / columns)
    height = _TOP + 0.75 + _CELL * rows + foot(look)
    with canvas(_WIDTH, height) as out:
        spec = out.add_gridspec(
            1, len(first), left=_LEFT / _WIDTH, right=1 - 0.15 / _WIDTH, top=1 - 0.6 / height, bottom=1 - _TOP / height,
            wspace=0.22,
        )  # fmt: skip
        for i, j in enumerate(first):
            cell(out, spec[i], j, look, "flops", f"{KINDS[label(j)].capitalize()}\n{j.shown.ability.task}", 9.5)
        spec = out.add_gridspec(
            max(rows, 1), columns, left=_LEFT / _WIDTH, right=1 - 0.15 / _WIDTH, top=1 - (_TOP + 0.75) / height,
            bottom=foot(look) / height, wspace=0.3, hspace=0.45,
        )  # fmt: skip
        for i, j in enumerate(rest):
            cell(out, spec[divmod(i, columns)], j, look, "flops")
        furnish(out, judged, look, "flops")
        return out
