"""Whole training curves under one law of the learning rate's schedule: ``python -m analysis.annealing --runs runs/ladder``.

Fits L(s) = E + A S1^-alpha - G S2 (``analysis.laws.annealing``) to all training curves of each size, trunks with their history
and branches, then leaves each annealed run out in turn and predicts its final validation loss from the others.  Writes
annealing.png, annealing.svg and annealing.json, and says the same in words.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import cli, load
from analysis.figure import GREY, RED, STYLE, write
from analysis.fit import Fit, Rows, fit_rows
from analysis.laws import ANNEALING, DATA, schedule_areas
from analysis.words import number
from scaling import runs
from scaling.cli import Parser
from scaling.units import did_you_mean, format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SKIP = 0.1  # part of a size's longest run, from its start, that is not fitted: a power law does not describe it
# Steps that annealing takes to act, 1 / (1 - momentum); the paper's momenta mean 100 to 1,000, in runs of some 20,000 steps.
MEMORIES = tuple(round(m) for m in np.geomspace(5, 1280, 33))
FITTED = 3  # of them, those that fit best at a grid of alpha
MIN_ROWS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """A run's training curve, with the learning rate of every step from its trunk's start.

    Attributes:
      id: of the member.
      size: its label.
      n_params: non-embedding.
      rates: (steps,) from the first step to the run's last.
      steps: (rows,) of the losses, counted from 1 at the trunk's start.
      loss: (rows,) training losses in nats per token.
      final: the validation loss of an annealed run's end; None for others.
    """

    id: str
    size: str
    n_params: float
    rates: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    final: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """The law of one size's curves.

    ``gap`` is what the logarithm of the final validation loss exceeds the law's training loss by, on average.
    """

    fit: Fit
    memory: int
    gap: float | None

    def loss(self, t: Trajectory) -> np.ndarray:
        """The law's training loss after every step of a run, fitted or not."""
        return self.fit.at(_areas(t, self.memory))[0]

    def final(self, t: Trajectory) -> float:
        """The law's validation loss at the end of a run; needs a ``gap``."""
        assert self.gap is not None
        return float(self.loss(t)[-1] * math.exp(self.gap))


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """An annealed run that the others of its size predict.

    ``same_gain`` is what one would say without the law: the power law of S1 through the losses before any annealing, times what
    annealing gained the others on average; None where too few losses are.
    """

    id: str
    steps: int
    predicted: float
    same_gain: float | None
    measured: float
    memory: int

    @property
    def error_percent(self) -> float:
        return 100 * (self.predicted / self.measured - 1)

    @property
    def same_gain_error_percent(self) -> float | None:
        return None if self.same_gain is None else 100 * (self.same_gain / self.measured - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Size:
    """One size's curves, their law, and how well it predicts each of them."""

    label: str
    n_params: float
    trajectories: tuple[Trajectory, ...]
    curves: Curves
    held_out: tuple[HeldOut, ...]


def trajectories(path: pathlib.Path) -> list[Trajectory]:
    """The finished runs of a sweep folder that have a training curve.

    Raises:
      LoadError: when there is none, or a branch whose trunk, or the trunk's curve, is missing.
    """
    table, members = load.runs(path), {m.id: m for m in runs.members(path)}
    known: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def history(member_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rate of every step, the steps of the rows, and their losses."""
        if member_id not in known:
            member = members[member_id]
            rows = [r for r in member.metrics() if r["kind"] == "train" and math.isfinite(r.get("loss") or math.nan)]
            if not rows:
                raise load.LoadError(f"{member.path / runs.METRICS}: no training losses; train {member_id}, or remove it")
            steps, rates, losses = (np.array([r[k] for r in rows], float) for k in ("step", "lr", "loss"))
            before, done = trunk(member), member.read(runs.DONE) or {}
            then = np.arange(len(before), max(int(steps[-1]), int(done.get("steps", 0)))) + 1
            # Rates are logged now and then.  Before the first step the rate is 0, so that a warm-up rises from its start.
            here = np.interp(then, [len(before), *steps], [before[-1] if len(before) else 0.0, *rates])
            known[member_id] = np.concatenate([before, here]), steps.astype(int), losses
        return known[member_id]

    def trunk(member: runs.Member) -> np.ndarray:
        """The rates of the steps before a branch's fork; none for another run."""
        parent = (member.read(runs.SPEC) or {}).get("parent")
        if parent is None:
            return np.empty(0)
        if parent not in members:
            raise load.LoadError(f"{member.path}: its trunk {parent} is not in {path}; give the sweep's folder")
        return history(parent)[0][: int((member.read(runs.PLAN) or {})["fork_steps"])]

    done = [r for r in table.rows if r.state == load.FINISHED]
    if not done:
        raise load.LoadError(f"{path}: no run has finished yet; see `python -m scaling.launch status`")
    return [Trajectory(r.id, r.size, r.n_params, *history(r.id), r.loss if r.annealed else None) for r in done]


def _areas(t: Trajectory, memory: int) -> dict[str, np.ndarray]:
    return dict(zip(("S1", "S2"), schedule_areas(t.rates, 1 - 1 / memory), strict=True))


def fit_curves(found: Sequence[Trajectory]) -> Curves:
    """Least squares of log loss over the rows of all curves of one size, with the memory that fits best.

    Raises:
      LoadError: for fewer than 20 rows.
    """
    first = SKIP * max(t.steps[-1] for t in found)
    kept = [t.steps[t.steps > first] for t in found]
    if sum(map(len, kept)) < MIN_ROWS:
        raise load.LoadError(f"{found[0].size}: fewer than {MIN_ROWS} training losses after step {first:.0f}: log more often")
    losses = np.concatenate([t.loss[t.steps > first] for t in found])
    clusters = [t.id for t, steps in zip(found, kept, strict=True) for _ in steps]
    longest, tried = max(len(t.rates) for t in found), []
    for memory in (m for m in MEMORIES if m <= longest):
        areas = [_areas(t, memory) for t in found]
        columns = {v: np.concatenate([a[v][s - 1] for a, s in zip(areas, kept, strict=True)]) for v in ANNEALING.variables}
        guess = {name: values[0] for name, values in ANNEALING.guesses(columns, losses).items()}
        with np.errstate(invalid="ignore"):  # a guess may lead below zero
            misfit = np.sum(np.log(ANNEALING.loss(guess, **columns) / losses) ** 2)
        tried.append((float(np.nan_to_num(misfit, nan=np.inf)), memory, columns))
    tried.sort(key=lambda cell: cell[:2])
    fits = [
        (
            fit_rows(Rows.of(c, losses, clusters), ANNEALING, loss="squared", bumps=0),
            memory,
        )  # nine tenths of the time, for nothing
        for _, memory, c in tried[:FITTED]
    ]
    best, memory = min(fits, key=lambda cell: cell[0].objective)
    curves = Curves(best, memory, None)
    gaps = [math.log(t.final / curves.loss(t)[-1]) for t in found if t.final is not None]
    return dataclasses.replace(curves, gap=float(np.mean(gaps)) if gaps else None)


def leave_one_out(found: Sequence[Trajectory]) -> tuple[HeldOut, ...]:
    """Every annealed run predicted from the other runs; nothing where no other one is annealed."""
    annealed = [t for t in found if t.final is not None]
    out = []
    for t in annealed if len(annealed) > 1 else []:
        others = [other for other in found if other is not t]
        curves = fit_curves(others)
        measured = float(t.final or math.nan)
        out.append(HeldOut(t.id, len(t.rates), curves.final(t), _same_gain(t, others), measured, curves.memory))
    return tuple(out)


def _same_gain(t: Trajectory, others: Sequence[Trajectory]) -> float | None:
    """``HeldOut.same_gain``."""
    first, areas = SKIP * max(o.steps[-1] for o in others), [_areas(o, MEMORIES[0]) for o in others]
    before = [(o.steps > first) & (np.abs(a["S2"][o.steps - 1]) < 1e-9) for o, a in zip(others, areas, strict=True)]
    forward = np.concatenate([a["S1"][o.steps[b] - 1] for o, a, b in zip(others, areas, before, strict=True)])
    if len(forward) < MIN_ROWS:
        return None
    losses = np.concatenate([o.loss[b] for o, b in zip(others, before, strict=True)])
    law = fit_rows(Rows.of({"D": forward}, losses), DATA, loss="squared")  # S1 in the place of tokens

    def end(run: Trajectory) -> float:
        return float(law.at({"D": _areas(run, MEMORIES[0])["S1"][-1:]})[0, 0])

    return end(t) * math.exp(np.mean([math.log(o.final / end(o)) for o in others if o.final is not None]))


def study(found: Sequence[Trajectory], label: str | None = None) -> list[Size]:
    """The law and its held-out errors by size, smallest first.

    Raises:
      LoadError: for a label that no run has.
    """
    labels = {t.n_params: t.size for t in found}
    if label is not None and label not in labels.values():
        there = ", ".join(labels[n] for n in sorted(labels))
        raise load.LoadError(f"--size {label}: no such size; there are {there}.{did_you_mean(label, labels.values())}")
    out = []
    for n in sorted(n for n, name in labels.items() if label in (None, name)):
        same = tuple(t for t in found if t.n_params == n)
        out.append(Size(labels[n], n, same, fit_curves(same), leave_one_out(same)))
    return out


def spread(errors: Sequence[float | None]) -> float | None:
    """Root mean square of errors; None where one is missing, or all are."""
    known = [e for e in errors if e is not None]
    return float(np.sqrt(np.mean(np.square(known)))) if known and len(known) == len(errors) else None


def in_words(sizes: Sequence[Size]) -> list[str]:
    """What the command prints."""
    out = ["L(s) = E + A S1^-alpha - G S2, S1: sum of learning rates, S2: annealing area (Tissue et al. 2024)"]
    for s in sizes:
        p, rows = s.curves.fit.params, len(s.curves.fit.residuals)
        out.append(
            f"{s.label:>6}: E {number(p['E'])}, A {number(p['A'])}, alpha {number(p['alpha'])}, G {number(p['G'])}, "
            f"memory {s.curves.memory} steps; {rows} losses of {len(s.trajectories)} runs, "
            f"residual sd {100 * s.curves.fit.sigma:.2g} %"
        )
        out += [f"        {edge}" for edge in s.curves.fit.edges]
        for h in s.held_out:
            out.append(
                f"        {h.id} ({format_count(h.steps)} steps) from the others: predicted {h.predicted:.4f}, measured "
                f"{h.measured:.4f}: {h.error_percent:+.2f} %"
            )
    held = [h for s in sizes for h in s.held_out]
    if (error := spread([h.error_percent for h in held])) is None:
        return [*out, "no size has two annealed runs: nothing can be held out"]
    plain = spread([h.same_gain_error_percent for h in held])
    beside = "" if plain is None else f"; with the same gain from annealing for all, instead of S2: {plain:.2f} %"
    return [*out, f"held-out final validation losses: root mean square error {error:.2f} % over {len(held)} runs{beside}"]


def to_json(sizes: Sequence[Size]) -> dict[str, Any]:
    """All numbers of the words and the figure."""
    held = [h for s in sizes for h in s.held_out]
    return {
        "form": ANNEALING.name, "latex": ANNEALING.latex, "skipped_part": SKIP,
        "rms_error_percent": spread([h.error_percent for h in held]),
        "rms_error_percent_same_gain": spread([h.same_gain_error_percent for h in held]),
        "sizes": [
            {
                "size": s.label, "n_params": s.n_params, "params": s.curves.fit.params, "memory_steps": s.curves.memory,
                "validation_gap_log": s.curves.gap, "n_rows": len(s.curves.fit.residuals),
                "residual_sd_log": s.curves.fit.sigma, "edges": list(s.curves.fit.edges),
                "runs": [t.id for t in s.trajectories],
                "held_out": [
                    dataclasses.asdict(h)
                    | {"error_percent": h.error_percent, "same_gain_error_percent": h.same_gain_error_percent}
                    for h in s.held_out
                ],
            }
            for s in sizes
        ],
    }  # fmt: skip


def figure(sizes: Sequence[Size]) -> Figure:
    """A panel for each size: curves, the law, and the ends as predicted from the others and as measured."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(3, len(sizes))
    down = math.ceil(len(sizes) / across)
    with matplotlib.rc_context(STYLE):
        out = Figure(figsize=(4.6 * across + 0.4, 3.6 * down + 0.7), dpi=150, layout="constrained")
        FigureCanvasAgg(out)
        panels = out.subplots(down, across, squeeze=False).ravel()
        for ax, s in zip(panels, sizes, strict=False):
            _draw(ax, s)
        for ax in panels[len(sizes) :]:
            ax.set_visible(False)
        handles = panels[0].get_legend_handles_labels()
        by_label: Mapping[str, Any] = dict(zip(handles[1], handles[0], strict=True))
        out.legend(by_label.values(), by_label.keys(), loc="outside lower center", ncols=4, frameon=False)
        return out


def _draw(ax: Axes, s: Size) -> None:
    """One size."""
    first = SKIP * max(t.steps[-1] for t in s.trajectories)
    seen: list[float] = []
    for t in s.trajectories:
        steps, loss = _smooth(t, first)
        ax.plot(steps, loss, color=GREY, lw=0.8, alpha=0.6, label="training loss (smoothed)")
        at = np.arange(int(max(first, t.steps[0])), len(t.rates) + 1)
        law = s.curves.loss(t)[at - 1]
        ax.plot(at, law, color="black", lw=1.3, label="law of all curves")
        seen += [float(law.min()), float(law.max()), *loss]
    for h in s.held_out:
        ax.plot(
            h.steps, h.predicted, "D", mfc="white", mec=RED, mew=1.4, ms=6, zorder=5, label="end, predicted from the others"
        )
        ax.plot(h.steps, h.measured, "*", color="#b5de2b", mec="black", mew=0.8, ms=11, zorder=4, label="end, validation loss")
        seen += [h.predicted, h.measured]
    ax.set(xlabel="step", ylabel="loss (nats per token)", title=s.label)
    ax.set_ylim(0.97 * min(seen), 1.02 * float(np.quantile(seen, 0.98)))


def _smooth(t: Trajectory, first: float, rows: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Means of so many fitted rows at a time."""
    kept = t.steps > first
    parts = np.array_split(np.stack([t.steps[kept], t.loss[kept]]), max(1, int(kept.sum()) // rows), axis=1)
    steps, loss = np.array([p.mean(1) for p in parts if p.size]).reshape(-1, 2).T
    return steps, loss


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _study(argv))


def _study(argv: list[str] | None) -> None:

    assert __doc__ is not None
    parser = Parser(prog="python -m analysis.annealing", description=__doc__)
    parser.add_argument("--runs", required=True, metavar="FOLDER", help="a sweep's folder, such as runs/ladder, or one run's")
    parser.add_argument("--size", help="only this one, such as 110K (default: all)")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: the sweep's folder)")
    args = parser.parse_args(argv)
    sizes = study(trajectories(pathlib.Path(args.runs)), args.size)
    out = cli.out_dir(args)
    runs.write_json(out / "annealing.json", to_json(sizes))
    write(figure(sizes), out / "annealing")
    print("\n".join(in_words(sizes)))
    print(f"wrote {out / 'annealing.png'}, annealing.svg and annealing.json")


if __name__ == "__main__":
    sys.exit(main())
