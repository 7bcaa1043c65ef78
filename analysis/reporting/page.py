"""One self-contained HTML page: style, script, the plotting library and every chart's numbers are inside it."""

from __future__ import annotations

import dataclasses
import html
import importlib.resources
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table's cell: what is shown, and the number it is sorted by where it has one."""

    text: str
    value: float | None = None
    kind: str = ""  # CSS class


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with a link from the top, and HTML below."""

    anchor: str
    title: str
    body: str


def text(value: str) -> str:
    """Escaped."""
    return html.escape(value)


def paragraph(value: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{_class(kind)}>{text(value)}</p>"


def bullets(items: Sequence[str]) -> str:
    """A list of plain texts; nothing for none."""
    return "<ul>" + "".join(f"<li>{text(i)}</li>" for i in items) + "</ul>" if items else ""


def formula(label: str, right: str) -> str:
    """``label``: L = ``right``, with what stands after a ^ raised."""
    raised = re.sub(r"\^(-?[\w.]+|\([^()]*\))", lambda m: f"<sup>{m[1].replace('-', '−')}</sup>", text(right))
    return f'<p class="formula">{text(label)}: L = {raised}</p>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def chart(anchor: str, figure: Figure, caption: str, size: str = "") -> str:
    """A chart and its caption; the numbers stand beside it as JSON, which the page's script draws."""
    data = figure.to_json().replace("</", "<\\/")
    return (
        f'<figure><div class="chart {size}" id="{anchor}" role="img" aria-label="{text(caption)}"></div>'
        f"<figcaption>{text(caption)}</figcaption>"
        f'<script type="application/json" id="{anchor}-data">{data}</script></figure>'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], row_kinds: Sequence[str] = (), sortable: bool = False) -> str:
    """A table, in a box that scrolls sideways where it is too wide."""
    shown = [f'<button type="button">{text(h)}</button>' if sortable else text(h) for h in heads]
    kinds = [rows[0][i].kind if rows else "" for i in range(len(heads))]
    sort = ' aria-sort="none"' if sortable else ""
    head = "".join(
        f'<th scope="col"{sort}{_class(k if k in ("text", "reason") else "")}>{h}</th>'
        for h, k in zip(shown, kinds, strict=True)
    )
    body = "".join(
        f"<tr{_class(row_kinds[i] if row_kinds else '')}>{''.join(_cell(c, sortable) for c in row)}</tr>"
        for i, row in enumerate(rows)
    )
    kind = _class("sortable" if sortable else "")
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell, sortable: bool) -> str:
    number = cell.value is not None and math.isfinite(cell.value)
    key = f' data-value="{cell.value!r}"' if number else ' data-value=""' if sortable and cell.text in ("", "–") else ""
    return f"<td{_class(cell.kind)}{key}>{text(cell.text)}</td>"


def copyable(anchor: str, content: str, label: str) -> str:
    """A block of text with a button that copies it."""
    button = f'<button class="copy" type="button" data-of="{anchor}">{text(label)}</button>'
    return f'<p>{button}</p><pre id="{anchor}">{text(content)}</pre>'


def page(title: str, head: str, sections: Sequence[Section], facts: dict[str, Any]) -> str:
    """The whole page.  ``facts`` are the report's numbers as JSON, for whoever wants to read them by machine."""
    from plotly.offline import get_plotlyjs

    assets = importlib.resources.files("analysis.reporting")
    style, script = ((assets / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    links = "".join(f'<a href="#{s.anchor}">{text(s.title)}</a>' for s in sections)
    body = "".join(f'<section id="{s.anchor}"><h2>{text(s.title)}</h2>{s.body}</section>' for s in sections)
    numbers = json.dumps(facts).replace("</", "<\\/")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{style}</style></head><body>'
        f"<h1>{text(title)}</h1>{head}<nav>{links}</nav>{body}"
        f'<script type="application/json" id="facts">{numbers}</script>'
        f"<script>{get_plotlyjs()}</script><script>{script}</script></body></html>\n"
    )
