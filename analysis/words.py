"""Numbers in words: what every analysis command prints, captions, and the JSON of a fit."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from analysis import checks, identify, intervals, load
from analysis.estimate import Best, Estimate, Forecast
from analysis.fit import Fit
from analysis.laws import Law, has_allocation
from analysis.laws.formula import Formula
from scaling.units import format_count


def number(value: float, digits: int = 4) -> str:
    """A value to ``digits`` significant digits, in powers of ten only where it must be; what has run to zero is 0."""
    if abs(value) < 1e-9:
        return "0"
    return f"{float(f'{value:.{digits}g}'):g}" if 1e-3 <= abs(value) < 1e6 else f"{value:.{digits - 1}e}"


def between(ends: Sequence[float], digits: int = 3) -> str:
    """An interval as ``[lo, hi]``, with as many more digits as it takes to see its width."""
    lo, hi = ends
    if math.isfinite(hi - lo) and hi > lo:
        digits = max(digits, min(8, 2 + math.ceil(math.log10(max(abs(lo), abs(hi)) / (hi - lo)))))
    return f"[{number(lo, digits)}, {number(hi, digits)}]"


def source(table: load.Table) -> list[str]:
    """Where the rows come from, which stay out of the fit, and what was noted of them."""
    left_out = exclusions(table)
    rows = f"{table.source}: {len(table.fitted)} rows fitted" + (f"; left out: {left_out}" if left_out else "")
    return [rows, *(f"note: {note}" for note in table.notes)]


def law(boot: intervals.Bootstrap, level: float) -> list[str]:
    """The equation, its parameters with intervals, how they came about, and the verdicts."""
    fit = boot.fit
    ranges, c, quote = boot.intervals(level), fit.certificate, quoted(fit)
    lines = [f"L({', '.join(fit.law.variables)}) = {equation(boot)}   (nats per token; N: {fit.table.n_definition})"]
    if quote:
        lines += [f"  {name:<6}= {number(values(boot)[name]):<10} {100 * level:g} % {between(ranges[name])}" for name in ranges]
    else:
        lines.append(f"  {', '.join(ranges)}: not quoted, since these rows do not determine them")
    if quote and "a" in ranges:
        lines.append("  a = beta / (alpha + beta): at C = k N D the best N grows as C^a, the best D as C^(1-a)")
    if quote and isinstance(fit.law, Law) and has_allocation(fit.law) and "a" not in ranges:
        lines.append("  a = 1/2 at C = k N D, since this form has one exponent for both: these rows have no say in it")
    again = f" and of {c.bumps} restarts from resampled rows {'one improved on them' if c.improved else 'none is lower'}"
    lines.append(
        f"fitted to {len(fit.residuals)} rows, {len(fit.table.sizes())} sizes: sum of {fit.loss_name} of log loss "
        f"{fit.objective:.8g}, residual sd {100 * fit.sigma:.2g} %; {c.agreeing} of {c.starts} starts agree"
        f"{again if c.bumps else ''}, gradient {c.gradient:.0e}"
    )
    lines.append(f"intervals: {boot.words()}" + (f"; {boot.unconverged} did not converge" if boot.unconverged else ""))
    lines.append(f"condition number of the scaled normal matrix {identify.condition(fit):.2g}{ridge(boot) if quote else ''}")
    return lines + verdicts(boot, level)


def verdicts(boot: intervals.Bootstrap, level: float) -> list[str]:
    """What the rows identify, a line each; one for all where none is to be quoted, since the reason is the same."""
    judged = identify.judge_parameters(boot, level)
    if not quoted(boot.fit):
        said = [f"{', '.join(judged)}: {verdict_words(next(iter(judged.values())))}"]
        offers = checks.offers(boot.fit.table) if identify.collinear(boot.fit) else []
        return [*said, f"what these rows can carry: {'; '.join(offers)}"] if offers else said
    return [f"{_NAMES.get(what, f'{what}:')} {verdict_words(verdict)}" for what, verdict in judged.items()]


def ridge(boot: intervals.Bootstrap) -> str:
    """The pairs of parameters that trade against each other (rank correlation beyond 0.9), as the end of a sentence."""
    pairs = [f"{a} and {b} {r:+.2f}" for (a, b), r in identify.correlations(boot).items() if abs(r) > 0.9]
    return f"; parameters that move together (correlation over the refits): {', '.join(pairs)}" if pairs else ""


def quoted(fit: Fit) -> bool:
    """Whether the law's numbers may be shown: not where the rows cannot tell its terms apart."""
    return not identify.inseparable(fit)


_NAMES = {"E": "irreducible loss E:", "exponents": "exponents:", "a": "allocation exponent a:"}


def verdict_words(verdict: identify.Verdict) -> str:
    """'identified', or 'NOT identified: ' and why."""
    return "identified" if verdict.identified else "NOT identified: " + "; ".join(verdict.reasons)


def values(boot: intervals.Bootstrap) -> dict[str, float]:
    """The parameters and, where the law has one, the allocation exponent a."""
    p = boot.fit.params
    return p | {name: float(v) for name, v in intervals.allocation(boot.fit.law, p).items()}


def params_json(boot: intervals.Bootstrap) -> dict[str, float | None]:
    """The parameters, every one None where they are not to be quoted."""
    return {name: v if quoted(boot.fit) else None for name, v in boot.fit.params.items()}


def latex(boot: intervals.Bootstrap) -> str:
    """The law with its numbers as mathtext, without a space, so that a caption does not break within it."""
    law = boot.fit.law
    shown = {k: number(v) for k, v in boot.fit.params.items()} if quoted(boot.fit) else {}
    right = law.latex if isinstance(law, Formula) else law.right_side(shown)
    return f"$L={right.replace(' ', '')}$"


def equation(boot: intervals.Bootstrap) -> str:
    """The right-hand side with its numbers, or with names where those are not to be quoted."""
    law, p = boot.fit.law, boot.fit.params
    if isinstance(law, Formula):
        return law.latex
    if not quoted(boot.fit):
        return law.text({k: k for k in p})
    return law.text({k: number(v) if k in law.coefficients else f"{v:.4f}" for k, v in p.items()})


def law_json(boot: intervals.Bootstrap, level: float) -> dict[str, Any]:
    """A fit as JSON types: everything that is needed to redo and to judge it."""
    fit = boot.fit
    c, quote = fit.certificate, quoted(boot.fit)
    return {
        "form": fit.law.name, "latex": fit.law.latex, "params": params_json(boot), "quoted": quote, "level": level,
        "intervals": {name: list(ends) if quote else None for name, ends in boot.intervals(level).items()},
        "objective": fit.objective, "objective_definition": "sum of Huber(delta) of log(predicted) - log(measured)",
        "delta": fit.delta, "residual_sd_log": fit.sigma, "n_rows": len(fit.residuals),
        "table_hash": fit.table.digest(),
        "certificate": {"starts": c.starts, "agreeing": c.agreeing, "gradient": c.gradient, "strict_minimum": c.convex,
                        "iterations": c.iterations, "bumps": c.bumps, "improved_by_bumps": c.improved},
        "edges": list(fit.edges) if quote else [], "condition": identify.condition(fit),
        "bootstrap": {"kind": boot.kind, "draws": len(boot.theta), "clusters": boot.clusters, "unconverged": boot.unconverged},
        "correlations": {f"{a},{b}": r for (a, b), r in identify.correlations(boot).items()} if quote else None,
        "verdicts": {what: dataclasses.asdict(v) for what, v in identify.judge_parameters(boot, level).items()},
    }  # fmt: skip


def estimate(found: Estimate) -> list[str]:
    """How the law was chosen, the law, and its calibration."""
    chosen = found.choice.words() if found.choice is not None else []
    weighted = [found.weights] if found.weights else []
    return [
        *chosen,
        *law(found.boot, found.settings.level),
        *beside(found),
        *floors(found),
        *weighted,
        *found.calibration.words(),
    ]


def floors(found: Estimate) -> list[str]:
    """E by every form, in a line, and what all of them allow; nothing where the law was named."""
    if found.floor is None or len(found.floors) < 2:
        return []
    each = ", ".join(f"{name} {number(f.value)} {between(f.interval, 4)}" for name, f in found.floors.items())
    return [f"E by form: {each}; over all of them {between(found.floor, 4)}, which is the interval to quote for E"]


def beside(found: Estimate) -> list[str]:
    """The Chinchilla form in a line, where another was chosen."""
    if found.chinchilla is None or found.chinchilla is found.boot or not quoted(found.chinchilla.fit):
        return []
    ranges = found.chinchilla.intervals(found.settings.level)
    each = ", ".join(f"{k} {number(values(found.chinchilla)[k], 3)} {between(ranges[k])}" for k in ("E", "alpha", "beta", "a"))
    return [f"the Chinchilla form on the same rows: {equation(found.chinchilla)}; {each}"]


def estimate_json(found: Estimate) -> dict[str, Any]:
    """The law, the Chinchilla form whatever was chosen, the choice and the calibration, as JSON types."""
    level = found.settings.level
    return {
        "law": law_json(found.boot, level),
        "chinchilla": None if found.chinchilla is None else law_json(found.chinchilla, level),
        "choice": None if found.choice is None else found.choice.to_dict(), "weights": found.weights or None,
        "E_by_form": {name: dataclasses.asdict(f) for name, f in found.floors.items()}, "E_over_forms": found.floor,
        "calibration": found.calibration.to_dict(),
    }  # fmt: skip


def forecast(f: Forecast) -> str:
    """One prediction as sentences, with both bands."""
    p = f.plain
    (lo, hi), (low, high) = p.interval, f.calibrated
    caution = (
        f"\nCAUTION: {p.extrapolation:.3g} times the largest fitted compute, far beyond the evidence (more than "
        f"{intervals.FAR:g} times): that the law holds so far is believed, not measured, and no band covers that"
        if p.far
        else ""
    )
    return (
        f"{format_count(p.n_params)} parameters on {format_count(p.n_tokens)} tokens: loss {p.loss:.4f}, "
        f"{100 * p.level:g} % [{low:.4f}, {high:.4f}] for one run, at {p.extrapolation:.3g} times the largest fitted compute"
        f"\nthe plain band, which holds if the law's form does: [{lo:.4f}, {hi:.4f}]"
        + ("" if f.blend is None else f"; all forms together say {f.blend:.4f}")
        + ("" if f.best is None else f"\n{best(f.best)}")
        + f"\nthis prediction: {verdict_words(p.verdict)}{caution}"
    )


def best(b: Best) -> str:
    """The best use of a run's compute, and what departing from it costs."""
    return (
        f"its {b.flops:.3g} FLOPs are best spent on {format_count(b.n_params)} parameters and {format_count(b.n_tokens)} "
        f"tokens ({number(b.n_tokens / b.n_params, 3)} per parameter): loss {b.loss:.4f}; this run spends "
        f"{100 * b.extra:.3g} % more than its loss needs"
    )


def recorded(line: dict[str, Any]) -> str:
    """A line of predictions.jsonl that was just recorded."""
    lo, hi = line["interval"]
    return (
        f"recorded {line['member']}: loss {line['loss']:.4f}, {100 * line['level']:g} % [{lo:.4f}, {hi:.4f}], "
        f"from {line['n_rows']} rows of {len(line['sizes'])} smaller sizes, "
        f"{line['extrapolation']:.3g} times their largest compute"
        + ("" if line["identified"] else "; NOT identified: " + "; ".join(line["reasons"]))
    )


def score(line: dict[str, Any]) -> str:
    """A score line of predictions.jsonl."""
    if line.get("excluded"):
        return f"{line['member']}: predicted {line['predicted']:.4f}, no score: {line['excluded']}"
    lo, hi = line["interval"]
    return (
        f"{line['member']}: predicted {line['predicted']:.4f} [{lo:.4f}, {hi:.4f}], measured {line['measured']:.4f}: "
        f"{line['error_percent']:+.2f} %, {'inside' if line['hit'] else 'OUTSIDE'} the interval"
    )


def exclusions(table: load.Table) -> str:
    """Which rows stay out of the fit and why, empty where none do."""
    reasons = Counter(r.excluded for r in table.excluded)
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def loss_table(rows: Iterable[load.Row]) -> list[str]:
    """Losses by size (down) and budget (across): tokens, or tokens per parameter where those are fewer; nothing for a table
    that has many of either.  Several runs of one cell are averaged.
    """
    measured = [r for r in rows if r.loss is not None]
    tokens = {r.id: float(f"{r.n_tokens:.2g}") for r in measured}
    ratios = {r.id: float(f"{r.n_tokens / r.n_params:.2g}") for r in measured}
    budget, title = (tokens, "N \\ tokens") if len({*tokens.values()}) <= len({*ratios.values()}) else (ratios, "N \\ tokens/N")
    cells: dict[tuple[float, float], list[float]] = {}
    for r in measured:
        cells.setdefault((r.n_params, budget[r.id]), []).append(float(r.loss or 0.0))
    sizes, columns = sorted({n for n, _ in cells}), sorted({*budget.values()})
    if not cells or len(columns) > 8 or len(sizes) > 20:
        return []
    lines = [f"{title:>12}" + "".join(f"{format_count(c):>9}" for c in columns)]
    for n in sizes:
        values = [cells.get((n, c)) for c in columns]
        lines.append(f"{format_count(n):>12}" + "".join(f"{sum(v) / len(v):>9.4f}" if v else f"{'–':>9}" for v in values))
    return lines


def pending(target: dict[str, Any]) -> str:
    """A predicted member that has no loss (yet)."""
    lo, hi = target["interval"]
    return f"{target['member']}: predicted {target['predicted']:.4f} [{lo:.4f}, {hi:.4f}], {target['state']}"
