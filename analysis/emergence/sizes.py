"""What the next larger size adds to a score: differences between rungs on the same items, with paired intervals."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from analysis.emergence.incontext import Condition, Interval, contrast, latest, right_items
from analysis.emergence.ladder import Asked, most_shots


@dataclasses.dataclass(frozen=True)
class Growth:
    """A task as it was asked of every rung, sizes ascending.

    Attributes:
      gains: (sizes − 1) score of each size less that of the one before it.
      whole: score of the largest size less that of the smallest.
      paired: whether all of these are of the same items.
    """

    task: str
    format: str
    shots: int
    sizes: tuple[str, ...]
    gains: tuple[Interval, ...]
    whole: Interval
    paired: bool


def growth(found: Sequence[Asked], level: float) -> list[Growth]:
    """Of every task and format, with the most shots it was asked with; tasks of one rung are left out."""
    most = most_shots(found)
    groups: dict[tuple[str, str], dict[float, Asked]] = collections.defaultdict(dict)
    for a in latest(found):
        if a.key[2] == most[a.key[:2]]:
            groups[a.key[:2]][a.run.n_params] = a
    out = []
    for (task, form), by_size in groups.items():
        rungs = [by_size[n] for n in sorted(by_size)]
        if len(rungs) > 1:
            asked = [Condition(a.score, a.row["n"], right_items(a)) for a in rungs]
            less = np.array([-1.0, 1.0])
            steps = [contrast(pair, less, level) for pair in itertools.pairwise(asked)]
            whole, _ = contrast([asked[0], asked[-1]], less, level)
            paired, sizes = all(same for _, same in steps), tuple(a.run.size for a in rungs)
            out.append(Growth(task, form, most[task, form], sizes, tuple(gain for gain, _ in steps), whole, paired))
    return out
