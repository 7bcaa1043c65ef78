"""What a design would tell: as planned, with one more member, as IsoFLOP profiles; in words and as JSON.

``analysis.design`` is the command, ``analysis.plot_design`` draws it, ``analysis.information`` computes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from analysis import checks, fit, identify, information, intervals
from analysis.information import AFFORDABLE, Candidate, Design, Expected, Prior
from analysis.story import CONVENTIONS
from analysis.words import between, number
from scaling.units import format_count

TIMES = 10.0  # the target's compute over the largest member's, where none is named
_ANYWHERE = 10.0  # times the value: an interval that ends beyond is not worth its numbers
SAME_FLOPS = "IsoFLOP, same FLOPs"
NAMES = {"target": "law's loss at the target", "run": "one run at the target"}


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """Everything that the words, the JSON and the figure tell.

    Attributes:
      prior_words: where prior and noise come from.
      target: (N, D).
      arrangements: by name, the planned design first.
      suggested: next members, as ``information.suggestions`` has them.
      cautions: about the design or the question, in words.
    """

    name: str
    prior: Prior
    target: tuple[float, float]
    arrangements: dict[str, Expected]
    suggested: dict[str, list[Candidate]]
    cautions: tuple[str, ...]
    level: float
    delta: float  # of the Huber loss by which the sweep will be fitted

    @property
    def planned(self) -> Expected:
        return next(iter(self.arrangements.values()))

    @property
    def design(self) -> Design:
        return self.planned.design

    @property
    def forked(self) -> bool:
        """Whether forks save enough to speak of."""
        return self.design.separate_flops > 1.02 * self.design.flops

    @property
    def times(self) -> float:
        """The target's compute over that of the largest member."""
        return float(self.design.cost.flops(*self.target) / self.design.table.column("flops").max())


def study(
    name: str, design: Design, prior: Prior, target: tuple[float, float] | None, level: float, draws: int, delta: float,
    cautions: tuple[str, ...] = (),
) -> Study:  # fmt: skip
    """Judges a design, its best additions, and the same FLOPs as IsoFLOP profiles.

    Raises:
      FitError: a design that cannot carry the law, or a target that takes less compute than the largest member.
    """
    fit.check_rows(design.table, prior.law)
    target = target or design.best_target(prior, TIMES)
    _check_target(design, target)
    suggested = information.suggestions(information.candidates(design, prior, target), design.flops)
    others = {"plus best per FLOP": design.plus(suggested["per_flop"][0])}
    others |= {f"plus best for {100 * AFFORDABLE:g} % more": design.plus(c) for c in suggested["affordable"]}
    others |= {SAME_FLOPS: information.isoflop(design, prior, design.flops)}
    if design.separate_flops > 1.02 * design.flops:
        others["IsoFLOP, unforked FLOPs"] = information.isoflop(design, prior, design.separate_flops)
    arrangements = {"as planned": information.expect(design, prior, target, level, draws, delta)}
    arrangements |= {k: information.expect(d, prior, target, level, draws, delta, fresh=0) for k, d in others.items()}
    out = Study(name, prior, target, arrangements, suggested, cautions, level, delta)
    return dataclasses.replace(out, cautions=cautions + _cautions(out))


def _check_target(design: Design, target: tuple[float, float]) -> None:
    flops, top = float(design.cost.flops(*target)), float(design.table.column("flops").max())
    if flops < top:
        n, d = (format_count(v) for v in target)
        raise fit.FitError(
            f"the target, {n} parameters on {d} tokens, takes {flops:.2e} FLOPs, less than the largest member's {top:.2e}: "
            "a design is judged by what it tells beyond itself; give a larger --target-params or --target-tokens"
        )


def _cautions(s: Study) -> tuple[str, ...]:
    design, planned = s.design, s.planned
    out = []
    if collinear(design):
        out.append(
            f"tokens grow in step with parameters in all members (correlation of logs {design.correlation:.4f}): the two power "
            "laws cannot be told apart, whatever the noise, and only losses on that line can be predicted; give some sizes "
            "other tokens per parameter"
        )
    if planned.condition > identify.MAX_CONDITION:
        out.append(
            f"the condition number of the normal matrix is {planned.condition:.1e} (limit {identify.MAX_CONDITION:.0e}): some "
            "combination of parameters is free; spread sizes and tokens wider"
        )
    twins = Counter((r.n_params, r.n_tokens, r.seed) for r in design.table.rows if r.seed is not None)
    if same := sum(count - 1 for count in twins.values()):
        out.append(f"{same} more of the members have the size, tokens and seed of another: all are taken to obey one law")
    if s.times > intervals.FAR * 1.001:
        out.append(f"the target takes {s.times:.3g} times the compute of the largest member: a form that fails, fails there")
    ratios = {k: _width(planned.quantities[k].simulated) / _width(planned.quantities[k].linear) for k in quoted(planned)}
    off = [f"{_title(k)} {ratio:.2g} times" for k, ratio in ratios.items() if not 0.75 < ratio < 1.33]
    if off and not collinear(design):
        blunt = f", and delta = {s.delta:g} far below the noise wastes some of the rows" if s.delta < s.prior.noise / 3 else ""
        out.append(
            f"simulated refits spread otherwise than the Fisher information says ({', '.join(off)} as far): first order is not "
            f"enough here{blunt}; believe the simulation"
        )
    runaway = [f"{name} in {100 * part:.2g} %" for name, part in planned.edges.items() if part >= 0.005]
    out += [f"of the simulated sweeps some let a parameter run away: {', '.join(runaway)}"] if runaway else []
    if planned.lower_elsewhere:
        out.append(f"in {planned.lower_elsewhere} of {planned.fresh} simulated sweeps the fit has a better minimum elsewhere")
    return tuple(out)


def _width(ends: tuple[float, float]) -> float:
    return ends[1] - ends[0]


def collinear(design: Design) -> bool:
    """Whether the members lie on one line of log D against log N, so that nothing about exponents may be quoted."""
    return abs(design.correlation) > checks.MAX_COLLINEAR


def verdicts(expected: Expected) -> dict[str, str | None]:
    """By quantity, why the design would not tell it, None where it would: the rules that fits are judged by, applied to the
    simulated intervals.  'E' for the law's constant, 'exponents', 'a', 'target'.
    """
    q = expected.quantities
    if collinear(expected.design):
        why = "tokens grow in step with parameters"
        return {"E": why, "exponents": why, "a": why, "target": _too_wide(q["run"], identify.MAX_PREDICTION_WIDTH)}
    lo, hi = q["E"].simulated
    loose = lo <= 0.05 * q["E"].value or hi > identify.MAX_E_FACTOR * lo
    wide = [name for name in ("alpha", "beta") if _too_wide(q[name], identify.MAX_EXPONENT_WIDTH)]
    return {
        "E": f"its ends lie more than a factor of {identify.MAX_E_FACTOR:g} apart" if loose else None,
        "exponents": f"{' and '.join(wide)}: more than half of the value wide" if wide else None,
        "a": _too_wide(q["a"], identify.MAX_EXPONENT_WIDTH),
        "target": _too_wide(q["run"], identify.MAX_PREDICTION_WIDTH),
    }  # fmt: skip


def _too_wide(q: information.Quantity, limit: float) -> str | None:
    part = _width(q.simulated) / abs(q.value)
    return f"{100 * part:.0f} % of the value wide (limit {100 * limit:.0f} %)" if part > limit else None


# ---- words and JSON


def in_words(s: Study) -> str:
    """The study as a page of text."""
    return "\n".join([*_question(s), "", *_expected(s), "", *_arranged(s), "", *_next(s)])


def _question(s: Study) -> list[str]:
    design, table, p = s.design, s.design.table, s.prior
    trunks = f", branches of {len(design.trunks)} trunks" if design.trunks else ""
    forks = f"; {design.separate_flops:.3g} without forks" if s.forked else ""
    sizes, (n, d) = table.sizes(), (format_count(v) for v in s.target)
    shared = f", {100 * p.shared:.0f} % of its variance shared by the branches of a trunk" if design.trunks else ""
    return [
        f"{s.name}: {len(table.rows)} members of {len(sizes)} sizes ({format_count(sizes[0])} to {format_count(sizes[-1])}, N: "
        f"{table.n_definition}){trunks}",
        f"training: {design.flops:.3g} FLOPs ({CONVENTIONS.get(table.flops_convention, table.flops_convention)}{forks})",
        f"prior law: L = {p.law.text({k: number(v) for k, v in p.params.items()})}",
        f"  {p.source}",
        f"noise: {100 * p.noise:.2g} % of the loss from run to run{shared}; to be fitted by Huber({s.delta:g}) of log loss",
        f"target: {n} parameters on {d} tokens, {s.times:.3g} times the compute of the largest member; loss "
        f"{number(s.planned.quantities['target'].value)} under the prior",
    ]


def _expected(s: Study) -> list[str]:
    planned = s.planned
    lines = [f"{f'{100 * s.level:g} % intervals to expect':<28}{'prior':>9}   {'simulated refits':<32}Fisher information"]
    for name in quoted(planned):
        value = number(planned.quantities[name].value)
        lines.append(f"  {_title(name):<26}{value:>9}   {_ends(s, name):<32}{_ends(s, name, 'linear')}")
    for what, reason in verdicts(planned).items():
        lines.append(
            f"it would {'tell' if reason is None else 'NOT tell'} {_JUDGED[what]}{'' if reason is None else f': {reason}'}"
        )
    return lines + [f"CAUTION: {text}" for text in s.cautions]


def _arranged(s: Study) -> list[str]:
    lines = [f"{'arrangement (simulated refits)':<32}{'FLOPs':>9}   {'a':<17}{'E':<17}{'law at target, %':<18}one run, %"]
    for name, e in s.arrangements.items():
        a, floor = (between(e.quantities[k].simulated, 3) if k in quoted(e) else "–" for k in ("a", "E"))
        law, run = (_percent(e.quantities[k]) for k in ("target", "run"))
        lines.append(f"  {name:<30}{e.design.flops:>9.3g}   {a:<17}{floor:<17}{law:<18}{run}")
    grid = s.arrangements[SAME_FLOPS].design
    n, d = (f"{format_count(v.min(), 2)} to {format_count(v.max(), 2)}" for v in (grid.columns["N"], grid.columns["D"]))
    return [
        *lines,
        f"  (IsoFLOP: {len(grid.table.rows)} runs of {n} parameters on {d} tokens, 1/4 to 4 times each budget's best size,",
        "  if the law holds there; each pays for itself from its first token and has its own noise, a trunk is paid for once)",
    ]


def _next(s: Study) -> list[str]:
    lines = [
        "next member, best per FLOP first: by how much it narrows the interval of the law's loss at the target (first order)",
        f"  {'':<56}{'FLOPs':>9}{'of all':>11}{'narrower by':>13}",
    ]
    marks = {"per_flop": "", "affordable": f"most for {100 * AFFORDABLE:g} %", "most": "most at any price"}
    for kind, mark in marks.items():
        for c in s.suggested[kind]:
            part, gain = (f"{number(100 * v, 2)} %" for v in (c.flops / s.design.flops, c.gain))
            lines.append(f"  {c.words:<56}{c.flops:>9.2g}{part:>11}{gain:>13}  {mark}".rstrip())
    return lines


_JUDGED = {
    "E": "the irreducible loss E", "exponents": "the exponents", "a": "the allocation exponent a",
    "target": "the loss of one run at the target",
}  # fmt: skip


def quoted(expected: Expected) -> list[str]:
    """Quantities that may be quoted: of a collinear design only losses."""
    return [k for k in expected.quantities if k in NAMES or not collinear(expected.design)]


def _title(name: str) -> str:
    return NAMES.get(name, name)


def _ends(s: Study, name: str, which: str = "simulated") -> str:
    """An interval, of a loss with its ends in percent off the prior's."""
    q = s.planned.quantities[name]
    ends: tuple[float, float] = getattr(q, which)
    if ends[1] > _ANYWHERE * abs(q.value):
        return "anywhere"
    return between(ends) + (f" {_percent(q, which)} %" if name in NAMES else "")


def _percent(q: information.Quantity, which: str = "simulated") -> str:
    ends: tuple[float, float] = getattr(q, which)
    if ends[1] > _ANYWHERE * abs(q.value):
        return "anywhere"
    lo, hi = (100 * (v / q.value - 1) for v in ends)
    return f"{lo:+.2g} to {hi:+.2g}"


def to_json(s: Study) -> dict[str, Any]:
    """The study as JSON types."""

    columns = ("id", "n_params", "n_tokens", "flops", "cluster")

    def expected(e: Expected) -> dict[str, Any]:
        return {
            "flops": e.design.flops, "members": len(e.design.table.rows), "log_sd_at_target": e.sd, "condition": e.condition,
            "correlation": e.design.correlation, "draws": e.draws, "unconverged": e.unconverged, "runaway": e.edges,
            "quantities": {k: dataclasses.asdict(e.quantities[k]) for k in quoted(e)}, "not_told": verdicts(e),
            "rows": [{k: getattr(r, k) for k in columns} for r in e.design.table.rows],
        }  # fmt: skip

    table = s.design.table
    return {
        "source": s.name, "n_definition": table.n_definition, "flops_convention": table.flops_convention, "level": s.level,
        "delta": s.delta,
        "prior": {"form": s.prior.law.name, "params": dict(s.prior.params), "noise": s.prior.noise, "shared": s.prior.shared,
                  "source": s.prior.source},
        "target": {"n_params": s.target[0], "n_tokens": s.target[1], "extrapolation": s.times},
        "flops_without_forks": s.design.separate_flops, "cautions": list(s.cautions),
        "arrangements": {name: expected(e) for name, e in s.arrangements.items()},
        "next": {kind: [dataclasses.asdict(c) for c in some] for kind, some in s.suggested.items()},
    }  # fmt: skip
