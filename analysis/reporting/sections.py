"""The report's sections, from story and findings to HTML."""

from __future__ import annotations

import numpy as np

from analysis import approaches, conventions, identify, words
from analysis.intervals import Bootstrap
from analysis.reporting import abilities, charts, methods, page, references
from analysis.reporting.findings import Findings
from analysis.reporting.page import Cell, Section
from analysis.scorecard import record
from analysis.story import CONVENTIONS, RECORDED, Story
from scaling.units import format_count

APPROACHES = {"envelope": "envelope of curves", "isoflop": "IsoFLOP profiles", "surface": "fitted surface"}


def all_of(story: Story, found: Findings) -> list[Section]:
    """In the order of the page; those that have nothing to say are left out."""
    known = methods.manifests(story.table)
    out = [_law(story, known), _scorecard(story, found), _allocation(story, found), _doubt(story, found)]
    out += [_conventions(story, found), abilities.section(found.tasks, found.forecasts)]
    return [s for s in [*out, _methods(story, known), _runs(story, known), _references(story, found, known)] if s is not None]


def headline(story: Story, found: Findings) -> str:
    """What a reader should take away, in a few sentences."""
    fitted = " are fitted" if story.boot is not None else ""
    out = [f"{len(story.table.fitted)} runs of {_sizes(story)}{fitted}."]
    done = [t for t in story.targets if t["hit"] is not None]
    if done:
        inside, worst = sum(t["hit"] for t in done), max(abs(t["error_percent"]) for t in done)
        when = "before it trained" if story.targets_source == RECORDED else "afterwards"
        out.append(
            f"The largest rung ({done[0]['size']}) was predicted from the smaller ones {when}: {inside} of {len(done)} losses "
            f"lie inside their {100 * done[0]['level']:g} % intervals, the largest error is {worst:.2f} %."
        )
    if story.boot is None:
        out.append(f"No law is fitted: {(story.no_fit or '').removeprefix(f'{story.table.source}: ')}.")
    elif not words.quoted(story.boot.fit):
        out.append("They do not determine the law's numbers, so none are quoted.")
    elif found.approaches is not None:
        known = [i for i in found.approaches.items if i.identified and i.a is not None and i.interval is not None]
        if known:
            each = ", ".join(f"{i.a:.2f} {words.between(i.interval or (), 2)} by the {APPROACHES[i.name]}" for i in known)
            out.append(f"The best model size grows as C^a with a = {each}.")
        else:
            out.append("These runs do not determine how the best model size grows with compute.")
    return " ".join(out)


def _sizes(story: Story) -> str:
    count = len(story.table.sizes())
    return f"{count} size{'s' if count != 1 else ''}"


def _law(story: Story, known: dict[str, methods.Manifest]) -> Section:
    figure = charts.compute(story)
    body = page.chart("chart-compute", figure, _of_compute(story, {t.legendgroup for t in figure.data}), "tall")
    if story.found is None or story.boot is None:
        return Section("law", "The law", body)
    for title, boot in (("", story.boot), ("The Chinchilla form on the same rows", story.found.chinchilla)):
        if boot is None or (title and boot is story.boot):
            continue
        name = f"The {boot.fit.law.name} form, chosen" if story.found.choice is not None else f"The {boot.fit.law.name} form"
        body += page.formula(title or name, words.equation(boot)) + _parameters(boot, story.level)
        body += page.bullets(words.verdicts(boot, story.level) + _against_truth(boot, story.level, known))
    if story.found.choice is not None:
        body += page.paragraph(
            "How the form was chosen: every form predicts rows of the table that it was not fitted to.", "soft"
        )
        heads = ["form", "parameters", "back-test error, %", "QAICc", "set aside because"]
        rows = [
            [
                Cell(c.law.name, kind="text"), Cell(str(len(c.law.parameters))),
                Cell(f"{100 * c.error:.2f}" if c.error == c.error else "–"), Cell(f"{c.qaicc:.1f}"),
                Cell("; ".join(c.flags), kind="reason"),
            ]
            for c in story.found.choice.candidates
        ]  # fmt: skip
        body += page.table(heads, rows) + page.paragraph(f"Chosen: {story.found.choice.reason}.")
        body += page.bullets(words.floors(story.found) + _over_forms(story, known))
    body += page.bullets(story.found.calibration.words())
    body += page.chart("chart-residuals", charts.residuals(story), "What is left of the law, in percent.", "low")
    return Section("law", "The law", body)


def _of_compute(story: Story, drawn: set[str | None]) -> str:
    """The first chart's caption: of what it shows, no more."""
    parts = [
        "thin lines are training curves" if "curves" in drawn else "",
        "points the ends of annealed runs" if story.table.kind == "runs" else "points the rows of the table",
        "dotted lines the law at each size" if "law" in drawn else "",
        "the dashed line the frontier of best loss per budget with its plain band and, lighter, the calibrated one"
        if "frontier" in drawn
        else "",
    ]
    return f"Loss against compute: {', '.join(filter(None, parts))}."


def _against_truth(boot: Bootstrap, level: float, known: dict[str, methods.Manifest]) -> list[str]:
    """E against the loss of the best possible predictor, where the data's language is known."""
    truth, floor = methods.ideal_loss(known), boot.fit.law.floor
    if truth is None or floor is None or not words.quoted(boot.fit):
        return []
    lo, hi = boot.intervals(level)[floor]
    where = "inside" if lo <= truth <= hi else "OUTSIDE"
    fitted = f"{words.number(boot.fit.params[floor], 5)} {words.between((lo, hi), 5)}"
    return [f"{floor} fitted {fitted}, true {truth:.4f} (the best predictor of this language): {where} its interval"]


def _over_forms(story: Story, known: dict[str, methods.Manifest]) -> list[str]:
    """The true E against what all forms allow."""
    truth = methods.ideal_loss(known)
    if truth is None or story.found is None or story.found.floor is None:
        return []
    lo, hi = story.found.floor
    return [f"true E {truth:.4f}: {'inside' if lo <= truth <= hi else 'OUTSIDE'} what the forms allow together"]


def _parameters(boot: Bootstrap, level: float) -> str:
    if not words.quoted(boot.fit):
        return page.paragraph("Its numbers are not quoted: these rows do not determine them.", "note")
    ranges, values = boot.intervals(level), words.values(boot)
    rows = [
        [
            Cell("a, at C = k N D" if name == "a" else name, kind="text"),
            Cell(words.number(values[name])),
            Cell(words.between(ends)),
        ]
        for name, ends in ranges.items()
    ]
    return page.table(["parameter", "value", f"{100 * level:g} % interval"], rows)


def _scorecard(story: Story, found: Findings) -> Section | None:
    if not story.targets and not found.scores:
        return None
    body = ""
    if (own := record(found.scores)) is not None:
        body += page.paragraph(f"This sweep: {own.words()}.")
        body += page.chart("chart-scorecard", charts.scorecard(found.scores), "Every scored prediction of this sweep.", "low")
    if len(found.around) > len(found.scores) and (together := record(found.around)) is not None:
        sweeps = ", ".join(sorted({s.sweep for s in found.around}))
        body += page.paragraph(f"All sweeps in the same folder ({sweeps}): {together.words()}.")
    verdict = {True: "hit", False: "miss"}
    rows = [
        [
            Cell(t["member"], kind="text"), Cell(f"{t['predicted']:.4f}"), Cell(words.between(t["interval"], 5)),
            Cell("–") if t["measured"] is None else Cell(f"{t['measured']:.4f}"),
            Cell("–") if t["error_percent"] is None else Cell(f"{t['error_percent']:+.2f}"),
            Cell(verdict.get(t["hit"], t["state"]), kind=verdict.get(t["hit"], "")),
            Cell(t["recorded_at"] or "not recorded beforehand", kind="text"),
        ]
        for t in story.targets
    ]  # fmt: skip
    heads = ["run", "predicted", "interval", "measured", "error, %", "verdict", "recorded at"]
    return Section("scorecard", "Predictions on record", body + (page.table(heads, rows) if rows else ""))


def _allocation(story: Story, found: Findings) -> Section | None:
    a = found.approaches
    if a is None:
        return None
    body = ""
    shown = [
        charts.Entry(APPROACHES[i.name], i.a, i.interval, i.identified)
        for i in a.items
        if i.a is not None and i.interval is not None and np.isfinite(i.interval).all()
    ]
    if shown:
        title = "exponent a of N* ~ C^a"
        said = "Exponent a by each approach; grey: its interval is too wide for a value to be quoted."
        body += page.chart("chart-exponents", charts.intervals(shown, title, a.level), said, "low")
    body += page.table(["approach", "a", f"{100 * a.level:g} % interval"], [_approach(i) for i in a.items])
    body += page.bullets([f"{APPROACHES[i.name]}: {_rests_on(i)}" for i in a.items])
    body += page.bullets([line for line in approaches.in_words(a).splitlines()[1:] if not line.startswith(" ")])
    if a.by_profiles is not None:
        body += page.chart(
            "chart-bowls", charts.bowls(a.by_profiles.bowls),
            f"IsoFLOP profiles ({a.by_profiles.profiles.source}): the {a.by_profiles.recipe} through each and its least point.",
        )  # fmt: skip
    rows = [
        [
            Cell(APPROACHES[i.name], kind="text"), Cell(f"{o.flops:.3g}"), Cell(format_count(o.n_params)),
            Cell(_counts(o.n_interval)),
            Cell(format_count(o.n_tokens)), Cell(_counts(o.d_interval)), Cell(words.number(o.n_tokens / o.n_params, 3)),
        ]
        for i in a.items
        if i.identified
        for o in i.optima
    ]  # fmt: skip
    heads = ["approach", "FLOPs", "N*", "interval", "D*", "interval", "D*/N*"]
    return Section("allocation", "The best model of a budget", body + (page.table(heads, rows) if rows else ""))


def _approach(item: approaches.Approach) -> list[Cell]:
    """A line of the table of approaches."""
    a = Cell(f"{item.a:.3f}") if item.identified and item.a is not None else Cell("–")
    ends = Cell(words.between(item.interval)) if item.interval is not None else Cell("–")
    return [Cell(APPROACHES[item.name], kind="text"), a, ends]


def _rests_on(item: approaches.Approach) -> str:
    return f"none: {item.missing}" if item.missing is not None else "; ".join(item.notes)


def _counts(ends: tuple[float, float]) -> str:
    return f"[{format_count(ends[0])}, {format_count(ends[1])}]"


def _doubt(story: Story, found: Findings) -> Section | None:
    if not found.profiles and not found.errors:
        return None
    body = page.paragraph("Of the Chinchilla form, whatever form was chosen.", "soft")
    for p in found.profiles:
        fitted = story.found.chinchilla if story.found else None
        assert fitted is not None
        figure = charts.profile(p, words.values(fitted)[p.name])
        caption = (
            f"The objective at fixed {p.name}, all else refitted; {100 * p.level:g} % interval {words.between(p.interval)}."
        )
        body += page.chart(f"chart-profile-{p.name}", figure, caption, "low")
    if found.errors:
        heads = ["parameter", "bootstrap", "sandwich", "curvature"]
        rows = [
            [Cell(name, kind="text"), *(Cell(words.number(v, 3)) for v in (e.bootstrap, e.sandwich, e.hessian))]
            for name, e in found.errors.items()
        ]
        body += page.paragraph("Standard errors by three methods.") + page.table(heads, rows)
        if found.errors_note:
            body += page.paragraph(found.errors_note, "note")
    if found.deltas:
        names = list(next(iter(found.deltas.values())).params)
        rows = [
            [Cell(name, kind="text"), *(Cell(words.number(f.params[k])) for k in names)] for name, f in found.deltas.items()
        ]
        body += page.paragraph("The fit under other losses: how far it hangs on the choice.") + page.table(
            ["loss", *names], rows
        )
    return Section("doubt", "How far to trust it", body)


def _conventions(story: Story, found: Findings) -> Section | None:
    c = found.conventions
    if c is None:
        return None
    assert story.found is not None and story.found.chinchilla is not None
    shown = [charts.Entry(f"{r.name}, N {r.n_definition}", r.values["a"], r.intervals["a"]) for r in c.rows]
    body = page.paragraph(conventions.conclusion(c) + ".")
    if len(c.rows) < 2:
        return Section("conventions", "What counting does", body + page.bullets(list(c.notes)))
    if not identify.judge_parameters(story.found.chinchilla, c.level)["a"].identified:
        said = (
            "These rows do not identify a under any convention; its shifts from one to the next are better known than itself."
        )
        body += page.paragraph(said, "note")
    body += page.chart(
        "chart-conventions", charts.intervals(shown, "exponent a", c.level), "One table, counted in several ways.", "low"
    )
    heads = ["C counted as", "N", "g of C = k N^g D", "E", "alpha", "beta", "a", "shift of a", "N*", "D*"]
    rows = [
        [
            Cell(r.name, kind="text"), Cell(r.n_definition, kind="text"), Cell(words.number(r.cost.g, 3)),
            *(Cell(words.number(r.values[k], 3)) for k in ("E", "alpha", "beta", "a")),
            Cell("–" if i == 0 else f"{r.values['shift']:+.3f} {words.between(r.intervals['shift'], 2)}"),
            Cell(format_count(r.values["n_params"])), Cell(format_count(r.values["n_tokens"])),
        ]
        for i, r in enumerate(c.rows)
    ]  # fmt: skip
    return Section("conventions", "What counting does", body + page.table(heads, rows) + page.bullets(list(c.notes)))


def _methods(story: Story, known: dict[str, methods.Manifest]) -> Section:
    convention = CONVENTIONS.get(story.table.flops_convention, story.table.flops_convention)
    weights = story.found.weights if story.found is not None else ""
    items = methods.facts(story.table, known, story.boot, convention, weights)
    rows = [[Cell(name, kind="text"), Cell(value, kind="reason")] for name, value in items]
    said = page.paragraph(methods.paragraph(items, story.boot, story.level))
    return Section("methods", "Methods", said + page.table(["item", "value"], rows))


def _runs(story: Story, known: dict[str, methods.Manifest]) -> Section:
    heads, rows, kinds = methods.runs_table(story.table, known, story.boot)
    said = "Click a heading to sort. Shaded runs stay out of the fit, for the reason given."
    return Section("runs", "All runs", page.paragraph(said, "soft") + page.table(heads, rows, kinds, sortable=True))


def _references(story: Story, found: Findings, known: dict[str, methods.Manifest]) -> Section:
    used = ["report"]
    if story.boot is not None:
        used += [
            "fit",
            story.boot.fit.law.name,
            "chinchilla",
            "wild" if story.boot.kind == "wild" else "case",
            story.settings.loss,
        ]
    if found.approaches is not None:
        used.append("isoflop")
    parameterizations = {m.of("model.parameterization") for m in known.values()}
    schedules = {m.of("optim.schedule") for m in known.values()}
    used += [name for name in ("mup", "wsd") if name in parameterizations | schedules]
    return Section("references", "References", page.copyable("bibtex", references.bibtex(used), "Copy BibTeX"))
