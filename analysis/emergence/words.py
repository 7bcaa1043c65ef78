"""Verdicts in sentences."""

from __future__ import annotations

import numpy as np

from analysis.emergence.ability import Ability
from analysis.emergence.verdict import AgainstLoss, Forecast, Mirage, Onset, SeedSpread, Selection


def explains(m: Mirage) -> str:
    """Why a jump is the metric's."""
    return f"a smooth law of {m.companion} in log compute, pushed through the metric, predicts the score ({_error(m)})"


def fails(m: Mirage) -> str:
    """Why a smooth law does not do."""
    law = "no power law of nats per token" if m.companion == "implied nll" else f"no smooth law of {m.companion}"
    return f"{law} in log compute, pushed through the metric, predicts the score ({_error(m)})"


def _error(m: Mirage) -> str:
    return f"error {m.error:.0%} of the rise, {'beyond' if m.p_value <= 0.05 else 'within'} the noise"


def details(
    ability: Ability, s: Selection | None, o: Onset | None, m: Mirage | None, in_loss: AgainstLoss | None,
    ahead: Forecast | None, spread: SeedSpread | None, there: bool,
) -> list[str]:  # fmt: skip
    """What stands after the decisive reason."""
    out = []
    if s is not None:
        runner = sorted(s.delta, key=lambda name: s.delta[name])[1].replace("_", " with free ")
        second = sorted(s.delta.values())[1]
        out.append(
            f"shape: {s.said} (weight {s.weights[s.winner]:.2f}; next {runner}, QAICc +{second:.1f}; step +{s.delta['step']:.0f}; "
            f"over-dispersion {s.phi:.3g} over {s.models} models)"
        )
    if o is not None and there:
        out += _of_onset(o)
    if m is not None:
        out.append(_of_mirage(m))
    if in_loss is not None and there:
        out.append(_of_loss(in_loss, ability.loss_name))
    if ahead is not None and there:
        out.append(
            f"forecast of the largest compute from the others: {ahead.predicted:.2f}, {ahead.level:.0%} [{ahead.interval[0]:.2f}, "
            f"{ahead.interval[1]:.2f}]; measured {ahead.observed:.2f}, {'inside' if ahead.inside else 'OUTSIDE'}"
        )
    if spread is not None:
        heaps = "; two heaps at 10^" + ", 10^".join(f"{v:.2f}" for v in spread.bimodal) + " FLOPs" if spread.bimodal else ""
        out.append(
            f"seeds: standard deviation {spread.deviation:.3f} in {spread.repeats} groups, {spread.ratio:.1f} times counting's variance{heaps}"
        )
    return out


def _of_onset(o: Onset) -> list[str]:
    start = f"above chance from 10^{o.log_flops:.2f} FLOPs on" if o.log_flops is not None else "no compute from which all are above chance"
    width = (
        f"10–90 % in {_ends(o.width, o.width_interval)} decades"
        if o.resolved
        else f"width unresolved: {o.width:.2f} decades fitted, models {o.spacing:.2f} apart"
    )
    return [f"{start}; midpoint 10^{_ends(o.midpoint, o.midpoint_interval)}; {width}"]


def _ends(value: float, ends: tuple[float, float]) -> str:
    lo, hi = (f"{v:.2f}" if np.isfinite(v) else "open" for v in ends)
    return f"{value:.2f} [{lo}, {hi}]"


def _of_mirage(m: Mirage) -> str:
    parts = [f"{m.companion}: {m.lead:.0%} of its progress before a tenth of the score's rise", f"mirage index {m.index:.1f}"]
    parts.append(f"{m.jump:.0%} of its change in 40 % of the ladder{', a jump' if m.companion_sharp else ''}")
    if m.loglog_r2 is not None:
        parts.append(f"log(−log score) against log C: R2 {m.loglog_r2:.3f}")
    return ", ".join(parts)


def _of_loss(a: AgainstLoss, name: str) -> str:
    if np.isnan(a.p_value):
        one = f"against {name}: {a.selection.said}"
    else:
        one = f"against {name}: {'one curve for all sizes' if a.one_curve else 'sizes differ at one loss'} (p = {a.p_value:.2g}), {a.selection.said}"
    return one + (f", leaving chance at {a.threshold:.3g}" if a.threshold is not None else "")
