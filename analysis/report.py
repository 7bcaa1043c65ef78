"""A ladder as one page that needs nothing else: ``python -m analysis.report``.

    --runs runs/ladder
    --csv mine.csv --map N=params,D=tokens,loss=val_loss

Writes report.html: loss against compute with every training curve, the law and how it was chosen, the frontier, the three
approaches to the best model of a budget, profiles, what the FLOP convention does to the exponents, the scorecard of recorded
predictions, methods, and a table of all runs.  Its charts answer to hover and zoom; it loads nothing from a network, can be
mailed as it is, read on a phone and printed.  Beside it: report.json, and diagnostics.png and .svg.
"""

from __future__ import annotations

import importlib.util
import sys

from analysis import cli, load, plot_diagnostics
from analysis.reporting import findings, page, sections
from analysis.story import tell, to_json
from scaling import runs

NAME = "report.html"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _report(argv))


def _report(argv: list[str] | None) -> None:
    assert __doc__ is not None
    args = cli.parser("report", __doc__, forms=True).parse_args(argv)
    if importlib.util.find_spec("plotly") is None:
        raise load.LoadError("the report needs plotly: pip install plotly, or this package with its extra 'report'")
    read = cli.ladder(args)
    out = cli.out_dir(args)
    story = tell(*read, cli.settings(args))
    found = findings.find(story)
    facts = to_json(story) | findings.to_json(found)
    name = findings.name_of(story.table.source)
    head = page.paragraph(sections.headline(story, found), "lead")
    path = out / NAME
    path.write_text(page.page(f"Scaling report: {name}", head, sections.all_of(story, found), facts), encoding="utf-8")
    runs.write_json(out / "report.json", facts)
    drawn = plot_diagnostics.save(story, found, out)
    print(sections.headline(story, found))
    print("\n".join(findings.in_words(found)))
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB), report.json{', diagnostics.png and .svg' if drawn else ''}")


if __name__ == "__main__":
    sys.exit(main())
