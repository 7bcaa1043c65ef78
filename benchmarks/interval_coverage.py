"""How often the bootstrap's intervals contain the truth, over simulated sweeps of a known law at the fitter's default settings.

    python benchmarks/interval_coverage.py                       # 1,000 sweeps of each design, some minutes on one core
    python benchmarks/interval_coverage.py --sweeps 100 --designs ladder

Designs: 'grid', 5 sizes x 5 token counts as a CSV would give them (Huber 1e-3, noise sd 0.5 %: nearly absolute values);
'large_grid', 9 x 8 of the same; 'runs', 40 runs with 4 checkpoints each whose noise they share; 'ladder', 5 trunks with 3
branches each (Huber 1e-2, noise sd 0.3 %: least squares), which does not identify E.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np

from analysis import fit, intervals, laws, load

LARGE = {"E": 1.7, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}
SMALL = {"E": 1.0, "A": 210.0, "B": 6649.0, "alpha": 0.66, "beta": 0.72}
NAMES = ("E", "A", "B", "alpha", "beta", "a", "loss")


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """What a simulated sweep trains, and how it scatters."""

    truth: dict[str, float]
    n_params: np.ndarray
    n_tokens: np.ndarray
    cluster: np.ndarray
    kind: str
    noise: float  # sd of log loss of a row
    shared: float  # sd of what all rows of a cluster share
    target: tuple[float, float]  # the run whose expected loss is predicted


def design(name: str) -> Design:
    """One of the four above."""
    if name == "ladder":
        sizes = np.array([50e3, 75e3, 100e3, 130e3, 160e3])
        n, d = np.repeat(sizes, 3), np.repeat(sizes, 3) * np.tile([10.0, 20.0, 40.0], 5)
        return Design(SMALL, n, d, np.repeat(np.arange(5), 3), "runs", 0.003, 0.0, (195e3, 20 * 195e3))
    if name == "runs":
        n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e10, 1e12, 5)))
        n, d, cluster = np.repeat(n, 4), np.repeat(d, 4) * np.tile([0.25, 0.5, 0.75, 1.0], 40), np.repeat(np.arange(40), 4)
        return Design(LARGE, n, d, cluster, "csv", 0.003, 0.004, (3e10, 3e12))
    sizes, tokens = {"grid": (5, 5), "large_grid": (9, 8)}[name]
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e9, 1e12, tokens)))
    return Design(LARGE, n, d, np.arange(len(n)), "csv", 0.005, 0.0, (3e10, 3e12))


def sweep(plan: Design, rng: np.random.Generator) -> load.Table:
    """One simulated sweep."""
    groups = plan.cluster.max() + 1
    noise = plan.noise * rng.standard_normal(len(plan.cluster)) + plan.shared * rng.standard_normal(groups)[plan.cluster]
    loss = laws.CHINCHILLA.loss(plan.truth, plan.n_params, plan.n_tokens) * np.exp(noise)
    table = load.table(plan.n_params, plan.n_tokens, loss, [str(c) for c in plan.cluster])
    return dataclasses.replace(table, kind=plan.kind)


def hits(plan: Design, sweeps: int, draws: int, levels: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """(levels, names) how many of the sweeps' intervals contain the truth."""
    rng = np.random.default_rng(seed)
    p = plan.truth
    truth = p | {"a": p["beta"] / (p["alpha"] + p["beta"]), "loss": float(laws.CHINCHILLA.loss(p, *plan.target))}
    count = np.zeros((len(levels), len(NAMES)), int)
    for i in range(sweeps):
        boot = intervals.bootstrap(fit.fit(sweep(plan, rng)), draws, seed=i)
        draws_of_loss = boot.fit.losses(boot.theta, *plan.target)
        point = float(boot.fit.expected(*plan.target)[0])
        for row, level in zip(count, levels, strict=True):
            ends = boot.intervals(level) | {"loss": boot.interval(draws_of_loss, level, point)}
            row += [ends[name][0] <= truth[name] <= ends[name][1] for name in NAMES]
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--designs", nargs="+", default=["grid", "large_grid", "runs", "ladder"])
    args = parser.parse_args()
    print(f"{'':<12}{'level':>6}" + "".join(f"{name:>8}" for name in NAMES) + f"   ({args.sweeps} sweeps, {args.draws} draws)")
    for name in args.designs:
        start = time.process_time()
        for level, row in zip((0.95, 0.9), hits(design(name), args.sweeps, args.draws, (0.95, 0.9)), strict=True):
            print(f"{name:<12}{level:>6}" + "".join(f"{100 * value / args.sweeps:>7.1f}%" for value in row), flush=True)
        print(f"{'':<12}{time.process_time() - start:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
