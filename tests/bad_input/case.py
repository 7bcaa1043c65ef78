"""What a case of bad input is, and the commands that are given one."""

from __future__ import annotations

import dataclasses

from .world import Spoil

LAUNCH, TRAIN, CORPUS = "scaling.launch", "scaling.train", "scaling.corpus"
PREDICT, PLOT = "analysis.predict", "analysis.plot_scaling"
COMPARE, DESIGN, REPORT = "analysis.compare", "analysis.design", "analysis.report"
EVALS, DECODE = "scaling.evals", "scaling.decode"
ONE = "--config one.py"


@dataclasses.dataclass(frozen=True)
class Case:
    """One mistake.  ``told`` is what the message must hold: where (file or option), field, value, remedy."""

    name: str
    command: str
    told: tuple[str, str, str, str]
    spoil: Spoil = lambda folder: None
    process: bool = False  # in a process of its own; the others run in this one, 1 to 2 s cheaper
    varies: str = ""  # a pattern of what depends on the machine or on other files, left out of the page
