"""A ladder as one page that needs nothing else: ``python -m analysis.report``.

    --runs runs/ladder
    --csv mine.csv --map N=params,D=tokens,loss=val_loss

Writes report.html: loss against compute with every training curve, the frontier, residuals, the scorecard of recorded
predictions, how every number came about, and a table of all runs.  Its charts answer to hover and zoom; it loads nothing from
a network, can be mailed as it is, read on a phone and printed.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys

from analysis import cli, load, words
from analysis.reporting import charts, methods, page, references
from analysis.reporting.page import Cell, Section
from analysis.story import CONVENTIONS, Story, tell, to_json
from scaling import runs

NAME = "report.html"


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _report(argv))


def _report(argv: list[str] | None) -> None:
    assert __doc__ is not None
    args = cli.parser("report", __doc__).parse_args(argv)
    if importlib.util.find_spec("plotly") is None:
        raise load.LoadError(
            "the report needs plotly: pip install 'scalingladder[report]' (in a checkout: pip install -e '.[report]')"
        )
    table = cli.table(args)
    curves = load.curves(args.runs, table) if args.runs else []
    lines = list(runs.read_jsonl(pathlib.Path(args.runs) / runs.PREDICTIONS)) if args.runs else []
    if not any(r.loss is not None for r in table.rows):
        raise load.LoadError(
            f"{table.source}: nothing to report: no run has a final loss yet; see `python -m scaling.launch status`"
        )
    out = cli.out_dir(args)
    story = tell(table, curves, lines, args.delta, args.level, args.draws)
    path = out / NAME
    path.write_text(compose(story, lines), encoding="utf-8")
    print(headline(story))
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def compose(story: Story, lines: list[dict]) -> str:  # type: ignore[type-arg]
    """The page."""
    table = story.table
    known = methods.manifests(table)
    scores = [s for s in lines if s["kind"] == "score" and s.get("hit") is not None]
    sections = [_results(story)]
    if scores or story.targets:
        sections.append(_scorecard(story, scores))
    sections += [_methods(story, known), _runs(story, known), _references(story)]
    name = pathlib.Path(table.source).resolve().name
    return page.page(f"Scaling report: {name}", page.paragraph(headline(story), "lead"), sections, to_json(story))


def headline(story: Story) -> str:
    """What a reader should take away, in two or three sentences."""
    out = [f"{len(story.table.fitted)} runs of {len(story.table.sizes())} sizes are fitted."]
    done = [t for t in story.targets if t["hit"] is not None]
    if done:
        inside, worst = sum(t["hit"] for t in done), max(abs(t["error_percent"]) for t in done)
        out.append(
            f"The largest rung ({done[0]['size']}) was predicted from the smaller ones: {inside} of {len(done)} losses lie "
            f"inside their {100 * done[0]['level']:g} % intervals, the largest error is {worst:.2f} %."
        )
    if story.boot is None:
        out.append(f"No law is fitted: {story.no_fit}.")
    return " ".join(out)


def _results(story: Story) -> Section:
    said = (
        "Loss against compute. Thin lines are training curves, points the ends of annealed runs, dotted lines the law at each "
        "size, the dashed line the frontier of best loss per budget."
    )
    body = page.chart("chart-compute", charts.compute(story), said, "tall")
    if story.boot is not None:
        body += page.bullets(words.law(story.boot, story.level))
        body += page.chart("chart-residuals", charts.residuals(story), "What is left of the law, in percent.", "low")
    return Section("results", "The law", body)


def _scorecard(story: Story, scores: list[dict]) -> Section:  # type: ignore[type-arg]
    body = ""
    if scores:
        inside = sum(s["hit"] for s in scores)
        body += page.paragraph(f"{inside} of {len(scores)} predictions on record came out inside their intervals.")
        body += page.chart("chart-scorecard", charts.scorecard(scores), "Every scored prediction of this sweep.", "low")
    heads = ["run", "predicted", "interval", "measured", "error, %", "verdict", "recorded at"]
    words_of = {True: "hit", False: "miss"}
    rows = [
        [
            Cell(t["member"], kind="text"), Cell(f"{t['predicted']:.4f}", t["predicted"]),
            Cell(words.between(t["interval"], 5)),
            Cell("–") if t["measured"] is None else Cell(f"{t['measured']:.4f}", t["measured"]),
            Cell("–") if t["error_percent"] is None else Cell(f"{t['error_percent']:+.2f}", t["error_percent"]),
            Cell(words_of.get(t["hit"], t["state"]), kind=words_of.get(t["hit"], "")),
            Cell(t["recorded_at"] or "not recorded beforehand", kind="text"),
        ]
        for t in story.targets
    ]  # fmt: skip
    return Section("scorecard", "Predictions on record", body + (page.table(heads, rows) if rows else ""))


def _methods(story: Story, known: dict[str, methods.Manifest]) -> Section:
    convention = CONVENTIONS.get(story.table.flops_convention, story.table.flops_convention)
    items = methods.facts(story.table, known, story.boot, convention)
    rows = [[Cell(name, kind="text"), Cell(value, kind="reason")] for name, value in items]
    return Section(
        "methods",
        "Methods",
        page.paragraph(methods.paragraph(items, story.boot, story.level)) + page.table(["item", "value"], rows),
    )


def _runs(story: Story, known: dict[str, methods.Manifest]) -> Section:
    heads, rows, kinds = methods.runs_table(story.table, known, story.boot)
    said = "Click a heading to sort. Shaded runs stay out of the fit, for the reason given."
    return Section("runs", "All runs", page.paragraph(said, "soft") + page.table(heads, rows, kinds, sortable=True))


def _references(story: Story) -> Section:
    used = ["misfitting", "newton"]
    if story.boot is not None:
        used += [story.boot.fit.law.name, *(("wild", "cluster") if story.boot.kind == "wild" else ("case",))]
    return Section("references", "References", page.copyable("bibtex", references.bibtex(used), "Copy BibTeX"))


if __name__ == "__main__":
    sys.exit(main())
