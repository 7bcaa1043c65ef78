"""How often the two-step law's intervals hold what the left-out largest size measures, over simulated ladders.

    python benchmarks/downstream_coverage.py                    # 300 ladders of each design, a few minutes on one core
    python benchmarks/downstream_coverage.py --ladders 50 --designs late

A ladder has a trunk and three annealed branches a size, sizes 50K to 600K; task losses follow the Chinchilla form with a
scatter shared by a trunk's runs, one of each run and one of each checkpoint; accuracies are hits among 500 items.  Designs:
'middle', the smaller sizes see most of the rise; 'late', its lower half; 'steep', a rise within a fifth of the losses' range;
'flat', no rise, which must not be forecast.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from analysis import downstream, laws
from analysis.downstream import Run, Task
from scaling.units import format_count

LAW = {"E": 0.35, "A": 220.0, "B": 900.0, "alpha": 0.52, "beta": 0.53}
SIZES = (50e3, 80e3, 130e3, 200e3, 350e3, 600e3)
BUDGETS = (0.6e6, 1.2e6, 2.4e6)
CHANCE, ITEMS = 0.25, 500
CURVES = {"middle": (3.5, 1.6), "late": (5.0, 0.95), "steep": (12.0, 1.4), "flat": (0.0, 1.0)}  # k and x0
SCATTER = {"trunk": 0.01, "run": 0.005, "checkpoint": 0.005, "accuracy": 0.005}  # of log loss, and of accuracy by run


def accuracy(loss: np.ndarray, curve: tuple[float, float]) -> np.ndarray:
    """What a task loss is worth, on the curve."""
    k, x0 = curve
    return CHANCE + (1 - CHANCE) / (1 + np.exp(k * (loss - x0))) if k else np.full(np.shape(loss), CHANCE)


def ladder(curve: tuple[float, float], rng: np.random.Generator, sizes: tuple[float, ...] = SIZES, items: int = ITEMS) -> Task:
    """One simulated ladder on one task."""
    runs = []
    for n in sizes:
        shared, trunk = SCATTER["trunk"] * rng.standard_normal(), f"{format_count(n)}-trunk"
        marks = [(trunk, np.geomspace(0.1e6, 0.8 * BUDGETS[-1], 9), False)]
        marks += [(f"{format_count(n)}-{format_count(d)}", np.linspace(0.8, 1.0, 4)[1:] * d, True) for d in BUDGETS]
        for name, tokens, annealed in marks:
            scatter = shared + SCATTER["run"] * rng.standard_normal()
            true = laws.CHINCHILLA.loss(LAW, n, tokens) * np.exp(scatter)
            true = true * (1.0 if annealed else 1.04)
            right = np.clip(accuracy(true, curve) + SCATTER["accuracy"] * rng.standard_normal(), 0, 1)
            measured = true * np.exp(SCATTER["checkpoint"] * rng.standard_normal(len(true)))
            asked = rng.binomial(items, right) / items
            runs.append(Run(name, trunk, format_count(n), n, annealed, tokens, 6 * n * tokens, measured, asked))
    return Task("simulated", CHANCE, float(items), tuple(runs))


def forecasts(name: str, ladders: int, draws: int, level: float = 0.9, seed: int = 0) -> list[downstream.Forecast]:
    """Of every finished run of the largest size, over simulated ladders of a design."""
    rng = np.random.default_rng(seed)
    return downstream.forecast([ladder(CURVES[name], rng) for _ in range(ladders)], level=level, draws=draws)


def shares(found: list[downstream.Forecast]) -> dict[str, float]:
    """Share of forecasts that were made, and of those: whose intervals held task loss and accuracy, and their mean width."""
    made = [f for f in found if f.accuracy is not None]
    inside = [lo <= (f.measured_loss or 0.0) <= hi for f in made for lo, hi in [f.loss_interval or (0.0, 0.0)]]
    width = [hi - lo for f in made for lo, hi in [f.accuracy_interval or (0.0, 0.0)]]
    out = {"made": len(made) / len(found), "identified": sum(f.verdict.identified for f in made) / len(found)}
    if not made:
        return out
    hits = float(np.mean([f.hit for f in made]))
    return out | {"loss inside": float(np.mean(inside)), "accuracy inside": hits, "width": float(np.mean(width))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ladders", type=int, default=300)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--designs", nargs="+", choices=CURVES, default=list(CURVES))
    args = parser.parse_args()
    print(f"intervals that claim 90 %, {args.ladders} ladders, {args.draws} draws")
    for name in args.designs:
        start = time.process_time()
        said = ", ".join(f"{what} {value:.3f}" for what, value in shares(forecasts(name, args.ladders, args.draws)).items())
        print(f"{name:<8}{said}; {time.process_time() - start:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
