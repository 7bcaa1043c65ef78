"""Does one learning rate serve every corner?  ``python -m analysis.plot_lr --runs runs/lr_transfer``.

Draws loss against learning rate for every size and budget of a sweep of rates (``configs/lr_transfer.py``) and judges the
regret at one shared rate, the loss beyond each corner's own best, against the noise of seeds.  Writes lr.png, lr.svg and
lr.json, and says the same in words.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import cli, load
from analysis.figure import GREY, RED, STYLE, loss_axis, write
from analysis.words import number
from scaling import runs
from scaling.cli import Parser
from scaling.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAY_EXCEED = 2.0  # standard errors: a regret within them is seed noise


@dataclasses.dataclass(frozen=True)
class Corner:
    """One size at one budget.  ``loss[rate][seed]`` is nats per token, infinite where the run diverged."""

    size: str
    n_params: float
    n_tokens: float
    loss: Mapping[float, Mapping[int, float]]

    @property
    def name(self) -> str:
        return f"{self.size}, {format_count(self.n_tokens)} tokens"

    @property
    def rates(self) -> list[float]:
        return sorted(self.loss)

    @functools.cached_property
    def block(self) -> tuple[list[int], np.ndarray]:
        """All seeds, and the losses (rates, seeds) of the rates that have ended in every one of them."""
        seeds = sorted(set().union(*self.loss.values()))
        rows = [[at[s] for s in seeds] for at in self.loss.values() if set(at) == set(seeds)]
        return seeds, np.array([row for row in rows if np.isfinite(row).all()])

    @functools.cached_property
    def shift(self) -> dict[int, float]:
        """What a seed adds to every rate alike, over the rates that all seeds have; else the first seed stands for itself."""
        seeds, block = self.block
        if not len(block):
            return {seeds[0]: 0.0}
        return dict(zip(seeds, block.mean(0) - block.mean(), strict=True))

    def of(self, rate: float) -> float:
        """The loss at a rate: the mean over its seeds of what is left without their shift; infinite where one diverged."""
        return float(np.mean([v - self.shift[s] for s, v in self.loss[rate].items() if s in self.shift]))

    @property
    def best(self) -> float:
        """The rate with the lowest loss."""
        return min(self.rates, key=self.of)

    @property
    def at_edge(self) -> bool:
        """Whether the lowest loss is at the end of the grid, with not even a diverged run beyond it."""
        return self.best in (self.rates[0], self.rates[-1])

    @property
    def interpolated(self) -> float | None:
        """The lowest point of the parabola, in log rate, through the best and its neighbours; None without finite ones."""
        i = self.rates.index(self.best)
        around = self.rates[max(0, i - 1) : i + 2]
        if len(around) < 3 or not all(math.isfinite(self.of(r)) for r in around):
            return None
        a, b, _ = np.polyfit(np.log(around), [self.of(r) for r in around], 2)
        return float(np.exp(-b / (2 * a)))

    def regret(self, rate: float) -> tuple[float, int]:
        """Loss at ``rate`` less that at the best one, and how many seeds both have."""
        return self.of(rate) - self.of(self.best), len(self.loss[rate].keys() & self.loss[self.best].keys())


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Over all corners: the rate that is judged, and what its regrets mean.

    ``noise`` is the standard deviation, over seeds, of the difference between two rates at one seed; None without a second one.
    """

    corners: tuple[Corner, ...]
    shared: float
    noise: float | None
    freedom: int
    refused: str | None  # why there is no verdict

    def within(self, corner: Corner) -> bool:
        """Whether a corner's regret could be seed noise."""
        regret, seeds = corner.regret(self.shared)
        return regret <= MAY_EXCEED * (self.noise or 0.0) / math.sqrt(seeds)

    @property
    def transfers(self) -> bool | None:
        """Whether one rate serves every corner; None where that cannot be said."""
        return None if self.refused else all(self.within(c) for c in self.corners)


def corners(path: pathlib.Path) -> list[Corner]:
    """The annealed runs of a sweep folder by size and budget.

    Raises:
      LoadError: for runs that differ in something else than size, budget, rate and seed, or too few rates.
    """
    table = load.runs(path)
    planned = {m["id"]: m for m in (runs.read_json(path / runs.SWEEP) or {}).get("members", [])}
    plans = {m.id: m.read(runs.PLAN) or planned.get(m.id, {}) for m in runs.members(path)}
    state = {row.id: row.state for row in table.rows}
    found: dict[tuple[float, float], dict[float, dict[int, float]]] = collections.defaultdict(dict)
    sizes: dict[float, str] = {}
    for row in table.rows:
        trunk = planned.get(row.id, {}).get("parent")  # one that diverged leaves its branches untrained
        diverged = load.DIVERGED in (row.state, state.get(trunk))
        if not row.annealed or (row.loss is None and not diverged):
            continue
        rate, seed = float(plans[row.id]["lr"]), row.seed or 0
        tokens = float(plans[row.id]["tokens"])  # as planned: a run that diverged has fewer
        cell = found[row.n_params, round(tokens, -3)].setdefault(rate, {})
        if seed in cell:
            raise load.LoadError(f"{path}: {row.id}: a second run at rate {rate:g} and seed {seed} of one size and budget")
        cell[seed] = row.loss if row.loss is not None else math.inf
        sizes[row.n_params] = row.size
    out = [Corner(sizes[n], n, d, _with_first_seed(losses)) for (n, d), losses in sorted(found.items())]
    if not out or any(len(c.rates) < 3 or not math.isfinite(c.of(c.best)) for c in out):
        few = ", ".join(f"{c.name}: {len(c.rates)}" for c in out) or "none that has ended"
        raise load.LoadError(f"{path}: needs three rates or more of every size and budget, one of them finite; there are {few}")
    return out


def _with_first_seed(losses: Mapping[float, Mapping[int, float]]) -> dict[float, Mapping[int, float]]:
    """Without the rates of which the first seed has not ended: rates are compared within a seed."""
    first = min(seed for at in losses.values() for seed in at)
    return {rate: at for rate, at in losses.items() if first in at}


def judge(found: Sequence[Corner], rate: float | None = None) -> Verdict:
    """Whether a rate serves every corner: ``rate``, or the one whose largest regret is least.

    Raises:
      LoadError: when no rate, or not this one, was trained in every corner.
    """
    common = set.intersection(*(set(c.rates) for c in found))
    if not common:
        raise load.LoadError("no rate was trained at every size and budget; give all the same sweep.rates")
    if rate is not None and rate not in common:
        raise load.LoadError(
            f"--rate {rate:g}: not trained at every size and budget; {', '.join(f'{r:g}' for r in sorted(common))} were"
        )
    shared = rate or min(sorted(common), key=lambda r: max(c.regret(r)[0] for c in found))
    noise, freedom = seed_noise(found)
    refused = None
    if edges := [f"{c.name} ({c.best:g})" for c in found if c.at_edge]:
        refused = f"the lowest loss is at the edge of the grid for {'; '.join(edges)}: extend sweep.rates beyond it"
    elif alone := [c.name for c in found if c.regret(shared)[1] < 2]:
        refused = f"no second seed of {'; '.join(alone)}: add --config.sweep.best={shared:g} to the command that trained it"
    return Verdict(tuple(found), shared, noise, freedom, refused)


def seed_noise(found: Sequence[Corner]) -> tuple[float | None, int]:
    """Standard deviation over seeds of a difference between two rates, and its degrees of freedom.

    What a seed adds to every rate alike does not count: within a corner, the residuals of rates that share all seeds after
    the means of rates and of seeds are taken out.
    """
    total, freedom = 0.0, 0
    for c in found:
        seeds, block = c.block
        if len(seeds) > 1 and len(block) > 1:
            rest = block - block.mean(0) - block.mean(1, keepdims=True) + block.mean()
            total += float((rest**2).sum())
            freedom += (block.shape[0] - 1) * (block.shape[1] - 1)
    return (math.sqrt(2 * total / freedom), freedom) if freedom else (None, 0)


def in_words(verdict: Verdict) -> list[str]:
    """What the command prints."""
    regret_at = f"regret at {verdict.shared:g}"
    out = [f"{'size':>6} {'tokens':>8} {'best rate':>10} {'parabola':>9} {'loss':>8} {regret_at:>18}"]
    for c in verdict.corners:
        regret, seeds = c.regret(verdict.shared)
        between = number(c.interpolated, 3) if c.interpolated else "–"
        of = f"{regret:.4f}" + (f" ({seeds} seeds)" if seeds > 1 else "")
        edge = "  EDGE" if c.at_edge else ""
        out.append(f"{c.size:>6} {format_count(c.n_tokens):>8} {c.best:>10g} {between:>9} {c.of(c.best):>8.4f} {of:>18}{edge}")
    if verdict.noise is not None:
        least = MAY_EXCEED * verdict.noise / math.sqrt(max(c.regret(verdict.shared)[1] for c in verdict.corners))
        out.append(
            f"seed noise of a difference between two rates: {verdict.noise:.4f} ({verdict.freedom} degrees of freedom); "
            f"a regret below {least:.4f} cannot be told from it"
        )
    return [*out, conclusion(verdict)]


def conclusion(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    if verdict.refused:
        return f"no verdict: {verdict.refused}"
    if verdict.transfers:
        return f"one rate serves: at {verdict.shared:g} no corner loses more than two standard deviations of seed noise"
    beyond = "; ".join(f"{c.name} loses {c.regret(verdict.shared)[0]:.4f}" for c in verdict.corners if not verdict.within(c))
    return f"{verdict.shared:g} does not serve: {beyond}, more than two standard deviations of seed noise"


def to_json(verdict: Verdict) -> dict[str, Any]:
    """All numbers of the figure; losses of diverged runs are null."""
    return {
        "shared_rate": verdict.shared, "transfers": verdict.transfers, "refused": verdict.refused, "noise": verdict.noise,
        "freedom": verdict.freedom, "may_exceed_standard_errors": MAY_EXCEED, "words": conclusion(verdict),
        "corners": [
            {
                "size": c.size, "n_params": c.n_params, "n_tokens": c.n_tokens, "best_rate": c.best, "at_edge": c.at_edge,
                "interpolated_rate": c.interpolated, "regret": c.regret(verdict.shared)[0],
                "seeds": c.regret(verdict.shared)[1],
                "loss": {
                    f"{r:g}": {str(s): v if math.isfinite(v) else None for s, v in c.loss[r].items()} for r in c.rates
                },
            }
            for c in verdict.corners
        ],
    }  # fmt: skip


def figure(verdict: Verdict) -> Figure:
    """Loss, and what lies beyond each corner's best, against the rate."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        out = Figure(figsize=(12.5, 5.6), dpi=150)
        FigureCanvasAgg(out)
        left, right = out.subplots(1, 2)
        out.subplots_adjust(left=0.06, right=0.985, top=0.92, bottom=0.235, wspace=0.19)
        for c, (colour, style) in zip(verdict.corners, _looks(verdict.corners), strict=True):
            _draw_corner(left, c, {"color": colour, "ls": style}, verdict)
            finite = [r for r in c.rates if math.isfinite(c.of(r))]
            right.plot(finite, [c.regret(r)[0] for r in finite], marker="o", ms=4, color=colour, ls=style)
        for ax in (left, right):
            ax.axvline(verdict.shared, color=RED, lw=1, zorder=1)
            ax.set(xscale="log", xlabel="learning rate at the base width")
            _rate_axis(ax, verdict.corners)
        left.set(yscale="log", ylabel="loss (nats per token)", title="Held-out loss against learning rate")
        low, high = left.get_ylim()
        left.set_ylim(low, high * (high / low) ** 0.3)  # room for the legend
        loss_axis(left)
        left.legend(framealpha=1, edgecolor="none", loc="upper left", ncols=2)
        _draw_noise(right, verdict)
        out.text(0.012, 0.02, _wrapped(verdict), fontsize=9.5, va="bottom", ha="left", color="#333333", linespacing=1.4)
        return out


def _looks(found: Sequence[Corner]) -> list[tuple[str, str]]:
    """A colour for each size and a line style for each budget."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    sizes, budgets = sorted({c.n_params for c in found}), sorted({c.n_tokens for c in found})
    styles = ("--", "-", ":", "-.")
    shades = [to_hex(colormaps["viridis"](v)) for v in np.linspace(0.05, 0.7, len(sizes))]
    return [(shades[sizes.index(c.n_params)], styles[budgets.index(c.n_tokens) % len(styles)]) for c in found]


def _draw_corner(ax: Axes, c: Corner, look: Mapping[str, Any], verdict: Verdict) -> None:
    """All seeds as points, their means as a line, its minimum marked, diverged runs as crosses on top."""
    finite = [r for r in c.rates if math.isfinite(c.of(r))]
    ax.plot(finite, [c.of(r) for r in finite], label=c.name, lw=1.5, **look)
    for r in c.rates:
        for seed, value in c.loss[r].items():
            first = seed == min(c.loss[r])
            if math.isfinite(value):
                ax.plot(r, value, "o", color=look["color"], ms=4.5, mfc=look["color"] if first else "white", zorder=3)
            else:
                top = max(x.of(q) for x in verdict.corners for q in x.rates if math.isfinite(x.of(q)))
                ax.plot(r, top, "X", color=look["color"], mfc="none", ms=8)
    at = c.interpolated or c.best
    ax.plot(at, c.of(c.best), "v" if not c.at_edge else "X", color=look["color"], mec="black", ms=9, zorder=4)


def _draw_noise(ax: Axes, verdict: Verdict) -> None:
    """The regret panel's limits and the band of what seeds alone do."""
    regrets = [x for c in verdict.corners for r in c.rates if math.isfinite(x := c.regret(r)[0])]
    shared = [x for c in verdict.corners if math.isfinite(x := c.regret(verdict.shared)[0])]
    top = max(1.5 * max(shared, default=0.0), 6 * (verdict.noise or 0.0), float(np.quantile(regrets, 0.6)), 1e-3)
    ax.set(ylim=(-0.06 * top, top), title="Regret: loss beyond each corner's best", ylabel="nats per token")
    if verdict.noise is not None:
        ax.axhspan(0, MAY_EXCEED * verdict.noise, color="black", alpha=0.09, lw=0)
    grid = [r for c in verdict.corners for r in c.rates]
    left = verdict.shared < math.sqrt(min(grid) * max(grid))  # of the middle: then there is room to the right of the line
    ax.annotate(
        f"shared rate {verdict.shared:g}", (verdict.shared, top), (5 if left else -5, -12), textcoords="offset points",
        color=RED, fontsize=9.5, ha="left" if left else "right", bbox={"fc": "white", "ec": "none", "pad": 1}, zorder=5,
    )  # fmt: skip


def _rate_axis(ax: Axes, found: Sequence[Corner]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    grid = sorted({r for c in found for r in c.rates})
    kept = [grid[0]]
    for r in grid[1:]:
        if r >= 1.9 * kept[-1]:  # steps of sqrt(2) would print over each other
            kept.append(r)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", colors=GREY)


def _wrapped(verdict: Verdict) -> str:
    import textwrap

    text = f"{conclusion(verdict)[0].upper()}{conclusion(verdict)[1:]}. Triangles: minima between rates."
    if any(c.at_edge for c in verdict.corners):
        text += " Crosses: minima at the grid's edge."
    if not all(math.isfinite(v) for c in verdict.corners for at in c.loss.values() for v in at.values()):
        text += " Hollow crosses: diverged."
    if verdict.noise is not None:
        text += " Lines: means over seeds, less what a seed adds to every rate; hollow points: further seeds. Grey band: two"
        text += (
            " standard deviations of what seeds do to a difference between two rates, at one seed (with n seeds it is √n times"
        )
        text += " narrower)."
    return textwrap.fill(text, 170, break_on_hyphens=False)


def main(argv: list[str] | None = None) -> None:
    """The command."""

    assert __doc__ is not None
    parser = Parser(prog="python -m analysis.plot_lr", description=__doc__)
    parser.add_argument("--runs", required=True, metavar="FOLDER", help="a sweep's folder, such as runs/lr_transfer")
    parser.add_argument("--rate", type=float, help="judge this one (default: the rate whose largest regret is least)")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: the sweep's folder)")
    args = parser.parse_args(argv)
    verdict = judge(corners(pathlib.Path(args.runs)), args.rate)
    out = cli.out_dir(args)
    runs.write_json(out / "lr.json", to_json(verdict))
    write(figure(verdict), out / "lr")
    print("\n".join(in_words(verdict)))
    print(f"wrote {out / 'lr.png'}, lr.svg and lr.json")


if __name__ == "__main__":
    sys.exit(cli.run(main))
