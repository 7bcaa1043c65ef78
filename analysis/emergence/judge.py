"""One verdict per ability: absent, smooth, sharp in the metric only, sharp in the loss too, or not to be told.

What the words mean.

  absent             no group of largest models is above chance (corrected over tasks), or by less than 3 % of what there is
                     to gain; or all share an exact match below one half, which a guess among few answers may score
  smooth             above chance, and the middle 80 % of the rise takes 40 % of the ladder or more (of a straight line 80 %)
  sharp-metric-only  the rise is narrower, or an exact match began to rise when 40 % of the continuous metric's progress had
                     been made; and a smooth law of that metric, pushed through the score's own definition, predicts it
  sharp-in-loss      the rise is narrower, and the continuous metric jumps as well or has no smooth law that predicts it; where
                     none was given, the score is as sharp against pre-training loss
  under-powered      fewer than five different values of compute, or too few items to tell 15 % of what there is to gain from
                     chance, or sharp with nothing continuous to ask, or neither sharp nor gradual can be told

Abilities over the same models are fitted together: 30 curves of 24 models take some four seconds of one core.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from analysis.emergence import against_loss, forecast, mirage, onset, seeds, selection, shapes, words
from analysis.emergence.ability import Ability
from analysis.emergence.shapes import Curves
from analysis.emergence.verdict import AgainstLoss, Forecast, Mirage, Onset, SeedSpread, Selection, Verdict

LEVEL = 0.05
FEWEST = 5  # different values of compute: QAICc of a two-parameter shape needs as many
BLIND = 0.15  # of the way from chance to all right: a ladder that cannot see this much cannot say 'absent'
SCATTERED = 4.0  # times more than expected about a constant, from which it is not what one sees
GUESSED = 0.5  # exact match below which a score that all models share may be a guess: between two answers it is half right
FLAT = 0.1  # of a jump, that the mean of the models below it may rise
LEAD = 0.4  # share of the companion's progress made before the score moves, from which the score hides it; .1 in step with it


@dataclasses.dataclass
class _Case:
    """One ability on its way to a verdict; arrays (P,) of the models with a known compute, ascending."""

    ability: Ability
    x: np.ndarray
    hits: np.ndarray
    n: np.ndarray
    floor: float
    p: float = 1.0
    p_adjusted: float = 1.0
    min_effect: float = 1.0
    onset_at: float | None = None
    selection: Selection | None = None
    onset: Onset | None = None


def judge(ability: Ability, draws: int = selection.DRAWS) -> Verdict:
    """The verdict of one ability alone."""
    return judge_all([ability], draws)[0]


def judge_all(
    abilities: Sequence[Ability], draws: int = selection.DRAWS, family: bool = True, brief: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Verdict]:  # fmt: skip
    """The verdicts of several abilities, in their order.

    Args:
      abilities: tasks, each over its models.
      draws: simulated curves per bootstrap.
      family: whether presence and onset are corrected over all of them; else each stands alone.
      brief: only what the call needs, for simulations: no p-values of a step or a hinge, midpoints, loss, forecast or seeds.
      progress: told what is being done.

    Raises:
      ValueError: arrays of an ability that do not fit together.
    """
    say = progress or (lambda _: None)
    cases = [_case(a) for a in abilities]
    say(f"is anything above chance: {len(cases)} tasks")
    _presence(cases, family)
    say("shapes")
    for rows in _alike(cases):
        _compare(rows, draws, brief)
    extras = {} if brief else _extras(cases, draws, say)
    say("verdicts")
    return [_verdict(case, brief, **extras.get(i, {})) for i, case in enumerate(cases)]


def _case(ability: Ability) -> _Case:
    count = len(ability.flops)
    for name in ("hits", "n", "loss", "n_params", "clusters", "seeds", *ability.companions):
        values = ability.companions[name] if name in ability.companions else getattr(ability, name)
        if len(values) != count:
            raise ValueError(f"{ability.task}: {name} has {len(values)} entries for {count} models")
    if np.any(np.diff(ability.flops) < 0) or not np.all(ability.flops > 0):
        raise ValueError(f"{ability.task}: flops must be positive and ascending")
    n = np.where(np.isfinite(ability.n) & np.isfinite(ability.hits), ability.n, 0.0)
    hits = np.where(n > 0, ability.hits, 0.0)
    if np.any(hits < 0) or np.any(hits > n * (1 + 1e-9)):
        raise ValueError(f"{ability.task}: hits must lie between 0 and n")
    x = np.log10(ability.flops)
    return _Case(ability, x, hits, n, plateau(x, hits, n, ability.chance))


def plateau(x: np.ndarray, hits: np.ndarray, n: np.ndarray, chance: float) -> float:
    """The score from which a rise starts: chance, or where the smaller models stand together above it, if that fits better.

    Models that have learnt nothing but which answer is most frequent stand there.  Taken up only where scores are flat below
    the best cut between two levels (within a tenth of the jump, and scattered no more than four times what scores do about
    the shapes from there: a slow rise that precedes a fast one is no plateau), and surely above chance there.
    """
    asked = n > 0
    where = np.unique(x[asked])
    if len(where) < FEWEST:
        return chance
    x, hits, n = x[asked], hits[asked], n[asked]
    sums = [np.array([a[x < at].sum() for at in where[2:]]) for a in (hits, n)]
    low, high = sums[0] / sums[1], (hits.sum() - sums[0]) / (n.sum() - sums[1])
    between = sums[1] * (n.sum() - sums[1]) * (high - low) ** 2  # sum of squares between the two levels
    best = int(np.argmax(between))
    below = x < where[best + 2]
    score, first = low[best], x[below] < np.median(where[: best + 2])
    trend = hits[below][~first].sum() / n[below][~first].sum() - hits[below][first].sum() / n[below][first].sum()
    surely = onset.at_least(sums[0][best], sums[1][best], chance) < 1e-3
    counting = n[below] * max(score * (1 - score), 1e-9)
    scatter = np.sum((hits[below] - n[below] * score) ** 2 / counting) / (below.sum() - 1)
    if not surely or high[best] - score < 0.2 * (1 - chance) or trend > FLAT * (high[best] - score):
        return chance
    at_chance, at_score = (_misfit(Curves(x, hits[None], n[None], floor)) for floor in (chance, score))
    return float(score) if at_score < at_chance and scatter <= SCATTERED * max(at_score, 1.0) else chance


def _misfit(curves: Curves) -> float:
    fits = shapes.fit(curves, ("step", "hinge", "sigmoid", "sigmoid_top"), starts=2, exact=False)
    return float(selection.dispersion(curves, fits, counted=False)[0])


def _presence(cases: list[_Case], family: bool) -> None:
    """Fills p-values, corrected ones, detectable effects and onsets."""
    kinds: dict[tuple[float, bytes], list[_Case]] = {}
    for case in cases:
        kinds.setdefault((case.ability.chance, case.x.tobytes()), []).append(case)
        items = case.n[case.n > 0]
        case.min_effect = onset.min_effect(float(np.median(items)), case.ability.chance) if len(items) else 1.0
    for (chance, _), alike in kinds.items():
        found = onset.present(np.stack([c.hits for c in alike]), np.stack([c.n for c in alike]), chance)
        for case, p in zip(alike, found, strict=True):
            case.p = float(p)
    adjusted = onset.holm(np.array([c.p for c in cases])) if family else [c.p for c in cases]
    tests = [onset.above_chance(c.x, c.hits, c.n, c.ability.chance) if c.n.any() else (c.x[-1:], np.ones(1)) for c in cases]
    starts = onset.onsets(tests) if family else [onset.onsets([t])[0] for t in tests]
    for case, p, start in zip(cases, adjusted, starts, strict=True):
        case.p_adjusted, case.onset_at = float(p), start


def _alike(cases: list[_Case]) -> list[list[_Case]]:
    """Cases with enough models, grouped by what one call of the fitter shares."""
    groups: dict[tuple, list[_Case]] = {}
    for case in cases:
        if _distinct(case) >= FEWEST:
            groups.setdefault((case.x.tobytes(), case.floor, case.ability.counted, case.ability.clusters), []).append(case)
    return list(groups.values())


def _distinct(case: _Case) -> int:
    return len(np.unique(case.x[case.n > 0]))


def _curves(rows: Sequence[_Case]) -> Curves:
    return Curves(rows[0].x, np.stack([c.hits for c in rows]), np.stack([c.n for c in rows]), rows[0].floor)


def _compare(rows: list[_Case], draws: int, brief: bool) -> None:
    curves = _curves(rows)
    found = selection.compare(curves, draws, rows[0].ability.counted, brief)
    measured: list[Onset | None] = [None] * len(rows)
    if not brief:
        measured = list(onset.measure(curves, found, [c.onset_at for c in rows], rows[0].ability.clusters, draws))
    for case, s, o in zip(rows, found, measured, strict=True):
        case.selection, case.onset = s, o


def _extras(cases: list[_Case], draws: int, say: Callable[[str], None]) -> dict[int, dict]:
    """Loss, forecast and seeds by the case's number."""
    out: dict[int, dict] = {i: {"spread": seeds.spread(c.ability)} for i, c in enumerate(cases)}
    say("forecasts")
    for rows in _alike(cases):
        for case, f in zip(rows, forecast.largest(_curves(rows), draws) or [], strict=False):
            out[_number(cases, case)]["ahead"] = f
    say("against loss")
    groups: dict[tuple, list[_Case]] = {}
    for case in cases:
        loss = np.asarray(case.ability.loss, float)
        if len(np.unique(loss[np.isfinite(loss) & (case.n > 0)])) >= FEWEST:
            groups.setdefault((loss.tobytes(), case.floor, case.ability.counted), []).append(case)
    for rows in groups.values():
        loss = np.asarray(rows[0].ability.loss, float)
        order = np.flatnonzero(np.isfinite(loss))
        order = order[np.argsort(-loss[order], kind="stable")]
        curves = Curves(
            -loss[order], np.stack([c.hits[order] for c in rows]), np.stack([c.n[order] for c in rows]), rows[0].floor
        )
        for case, s in zip(rows, selection.compare(curves, draws, rows[0].ability.counted, brief=True), strict=True):
            out[_number(cases, case)]["in_loss"] = against_loss.judge(case.ability, s)
    return out


def _number(cases: list[_Case], case: _Case) -> int:
    return next(i for i, c in enumerate(cases) if c is case)


def _verdict(
    case: _Case,
    brief: bool,
    in_loss: AgainstLoss | None = None,
    ahead: Forecast | None = None,
    spread: SeedSpread | None = None,
) -> Verdict:
    """The call, from everything measured."""
    a, s = case.ability, case.selection
    reached = float("nan") if s is None else float(s.curve(case.x[-1:])[0])
    sharp = s is not None and _there(case, reached) and s.p_broad <= LEVEL
    hidden = None
    if s is not None and _there(case, reached):
        hidden = mirage.examine(a, s, LEAD if brief and not sharp else 0.0)
    call, why = _call(case, reached, sharp, hidden, in_loss)
    reasons = (why, *words.details(a, s, case.onset, hidden, in_loss, ahead, spread, _there(case, reached)))
    return Verdict(
        a, call, reasons, sharp, case.floor, reached, case.p, case.p_adjusted, case.min_effect, s, case.onset, hidden, in_loss,
        ahead, spread,
    )  # fmt: skip


def _there(case: _Case, reached: float) -> bool:
    chance = case.ability.chance
    return case.p_adjusted <= LEVEL and (reached - chance) / (1 - chance) >= onset.NEGLIGIBLE


def _call(
    case: _Case, reached: float, sharp: bool, hidden: Mirage | None, in_loss: AgainstLoss | None
) -> tuple[str, str]:  # fmt: skip
    """The call and its decisive reason."""
    s = case.selection
    if s is None:
        return "under-powered", f"{_distinct(case)} different values of compute; shapes need {FEWEST}"
    if not _there(case, reached):
        return _nothing(case, reached)
    narrow = f"the middle 80 % of the rise takes {s.middle:.0%} of the ladder"
    if s.middle < selection.BROAD:
        narrow += f" ({selection.BROAD:.0%} or more in {s.p_broad:.1%} of redraws)"
    if sharp:
        return _jump(case, narrow, hidden, in_loss)
    exact = case.ability.chance == 0 and hidden is not None and hidden.companion != mirage.IMPLIED
    if hidden is not None and exact and hidden.lead >= LEAD and hidden.explained:
        late = f"{hidden.lead:.0%} of the progress in {hidden.companion} came before a tenth of the score's rise"
        return "sharp-metric-only", f"{late}, and {words.explains(hidden)}"
    if s.middle < selection.BROAD:
        return "under-powered", f"neither sharp nor gradual: {narrow}"
    if s.winner == "constant" and s.phi > SCATTERED:
        return "under-powered", f"scores scatter {s.phi:.0f} times more than counting does: no shape beats a constant"
    if s.winner == "constant" and case.ability.chance == 0 and reached < GUESSED:
        return (
            "absent",
            f"{reached:.2f} at every compute: no change with scale, and a guess among few answers scores as much",
        )
    if s.winner == "constant":
        return "smooth", f"above chance, {reached:.2f}, at every compute: no change with scale"
    return "smooth", f"{narrow} (a straight line's takes 80 %)"


def _nothing(case: _Case, reached: float) -> tuple[str, str]:
    """Of a score that does not rise above chance."""
    chance = case.ability.chance
    if (case.min_effect - chance) / (1 - chance) > BLIND:
        items = f"{np.median(case.n[case.n > 0]):.0f} items"
        return "under-powered", f"nothing above chance, but {items} cannot tell less than {case.min_effect:.2f} from it"
    if case.p_adjusted <= LEVEL:
        trifle = f"by under {onset.NEGLIGIBLE:.0%} of what there is to gain"
        return "absent", f"the largest models reach {reached:.3f}: above chance {chance:g}, but {trifle}"
    return "absent", f"no group of largest models is above chance {chance:g} (p = {case.p_adjusted:.2g})"


def _jump(case: _Case, narrow: str, hidden: Mirage | None, in_loss: AgainstLoss | None) -> tuple[str, str]:
    """Of a score that rises sharply: whether the model or the metric does."""
    if hidden is not None and hidden.explained:
        return "sharp-metric-only", f"{narrow}, and {words.explains(hidden)}"
    if hidden is not None and hidden.companion != mirage.IMPLIED:
        if hidden.companion_sharp:
            share = f"{hidden.jump:.0%} of its change in {selection.BROAD:.0%} of the ladder"
            return "sharp-in-loss", f"{narrow}, and {hidden.companion} jumps as well: {share}"
        return "sharp-in-loss", f"{narrow}, and {words.fails(hidden)}"
    if in_loss is not None and in_loss.sharp:
        name = case.ability.loss_name
        return "sharp-in-loss", f"{narrow}, and it is as sharp against {name}; no continuous metric was given"
    why = "no continuous metric was given that could tell the model from the metric"
    if hidden is not None:
        why += f"; {words.fails(hidden)}"
    return "under-powered", f"sharp: {narrow}; but {why}"
