"""BibTeX of the methods that a report used."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable

# What a report may have used -> keys in references.bib.
METHODS = {
    "report": ("li2025misfitting",),
    "fit": ("golub1973differentiation",),
    "chinchilla": ("hoffmann2022training",),
    "tied": ("gadre2024language",),
    "kaplan": ("kaplan2020scaling",),
    "coupled": ("kaplan2020scaling",),
    "huber": ("hoffmann2022training", "besiroglu2024chinchilla"),
    "isoflop": ("hoffmann2022training", "porian2024resolving"),
    "wild": ("wu1986jackknife", "cameron2008bootstrap"),
    "case": ("efron1979bootstrap",),
    "mup": ("yang2022tensor",),
    "wsd": ("haegele2024scaling",),
}


def bibtex(methods: Iterable[str]) -> str:
    """Entries for ``methods`` (keys of ``METHODS``; others have none), each once, in the order of the file."""
    wanted = {key for name in methods for key in METHODS.get(name, ())}
    whole = (importlib.resources.files("analysis.reporting") / "references.bib").read_text(encoding="utf-8")
    return "\n\n".join(entry for entry in whole.strip().split("\n\n") if entry.split("{", 1)[1].split(",", 1)[0] in wanted)
