"""How fast a law is fitted and refitted, beside what others take for the same points in the same run.

    pip install chinchilla && python -m venv --system-site-packages other && other/bin/pip install simple-scaling-laws
    python benchmarks/fit_speed.py --csv chinchilla_epoch245.csv --exclude outlier --other-python other/bin/python

CPU seconds of this process and its children (peers that start a pool are charged for all of it), the best of several tries for
what takes milliseconds.  A peer's long job is run in part and scaled up, which its line says.  `simple-scaling-laws` needs
Python 3.12, hence the second interpreter; a peer that is not installed is left out, by name.  Peers are asked for what they
offer: `chinchilla` minimises its own default loss from a grid of starts, `simple-scaling-laws` squares of raw losses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small products on many BLAS threads spend their CPU waiting, ours and theirs
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from analysis import fit, intervals, load

DRAWS = 4000
PUBLISHED_GRID = 4500  # starts of Hoffmann et al. 2022
PEER_GRID = 5  # values per parameter in the README of `chinchilla`
REPEATS = 20


def cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, with those of children that ended in it."""
    before = os.times()
    result = call()
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), result


def fast(call: Callable[[], Any]) -> tuple[float, Any]:
    """Of a call of milliseconds: the least of several tries, by the process clock."""
    best, result = np.inf, None
    for _ in range(REPEATS):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def l_bfgs_b(rows: fit.Rows, delta: float, start: np.ndarray, weights: np.ndarray) -> Any:
    """SciPy's solver on the same objective, with the exact gradient, scaled so that its tolerance means something."""
    from scipy import optimize

    n, d, y = np.log(rows.columns["N"]), np.log(rows.columns["D"]), np.log(rows.measured)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        e, a, b, alpha, beta = theta
        u = np.stack([np.full_like(n, e), a - alpha * n, b - beta * d])
        top = u.max(0)
        share = np.exp(u - top)
        total = share.sum(0)
        r, share = top + np.log(total) - y, share / total
        size = np.abs(r)
        value = np.sum(weights * np.where(size <= delta, r * r / 2, delta * (size - delta / 2)))
        slope = weights * np.clip(r, -delta, delta) / delta
        gradient = np.array(
            [share[0] @ slope, share[1] @ slope, share[2] @ slope, -(share[1] * n) @ slope, -(share[2] * d) @ slope]
        )
        return value / delta, gradient

    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000, "maxfun": 20000}
    return optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)


def published_starts(count: int) -> np.ndarray:
    """Some of the grid of Hoffmann et al. 2022, table A2: e, a, b, alpha, beta."""
    axes = np.meshgrid(
        np.arange(-1, 1.5, 0.5), np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5)
    )
    grid = np.stack([axis.ravel() for axis in axes], -1)
    return grid[np.random.default_rng(0).permutation(len(grid))[:count]]


def peer_chinchilla(table: load.Table, per_parameter: int) -> float:
    """CPU seconds of `chinchilla` from ``per_parameter``^5 starts of its README's grid."""
    import chinchilla  # type: ignore[import-not-found]

    grid = {
        "E": (1, 1.5, 2, 2.5, 3),
        "a": (1, 2, 4, 7, 10),
        "b": (1, 2, 4, 7, 10),
        "alpha": (0.1, 0.2, 0.5, 0.6, 0.7),
        "beta": (0.1, 0.2, 0.5, 0.6, 0.7),
    }
    with tempfile.TemporaryDirectory() as folder:
        lines = ["C,N,D,loss"] + [f"{r.flops!r},{r.n_params!r},{r.n_tokens!r},{r.loss!r}" for r in table.fitted]
        (pathlib.Path(folder) / "df.csv").write_text("\n".join(lines))
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            solver = chinchilla.Chinchilla(folder, {k: v[:per_parameter] for k, v in grid.items()}, log_level=50)
            return cpu(solver.fit)[0]


OTHER = """
import json, sys, time
import polars
from simple_scaling_laws import fit
rows = json.load(open(sys.argv[1]))
frame = polars.DataFrame({"training_run_id": [str(i) for i in range(len(rows))], "train_set_id": ["all"] * len(rows),
    "test_set_id": ["one"] * len(rows), "model_size__n_params": [r[0] for r in rows],
    "dataset_size__n_tokens": [r[1] for r in rows],
    "test_loss__cross_entropy": [r[2] for r in rows]})
out = {}
for draws in (1, 1000):
    start = time.process_time()
    model = fit(frame, law="separable-power", n_draws=draws, seed=0)
    out[draws] = time.process_time() - start
print(json.dumps(out))
"""


def peer_simple(table: load.Table, python: str) -> dict[str, float]:
    """CPU seconds of `simple-scaling-laws` with 1 and with 1,000 draws, in the other interpreter."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump([[r.n_params, r.n_tokens, r.loss] for r in table.fitted], f)
        f.flush()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}  # another interpreter, other packages
        done = subprocess.run([python, "-W", "ignore", "-c", OTHER, f.name], capture_output=True, text=True, env=clean)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def say(what: str, seconds: float, ours: float, note: str = "") -> None:
    """One line: a job, its CPU seconds, and how many times ours that is."""
    shown = f"{1000 * seconds:9.2f} ms" if seconds < 1 else f"{seconds:9.2f} s "
    print(f"  {what:<62} {shown}  {seconds / ours:10,.1f} x   {note}")


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, help="a table with columns N, D or C, loss")
    parser.add_argument("--exclude", help="a column whose true values leave rows out")
    parser.add_argument("--other-python", help="an interpreter of Python 3.12 or newer that has simple-scaling-laws")
    parser.add_argument("--whole-grid", action="store_true", help="run all of `chinchilla`'s 3,125 starts instead of 243")
    parser.add_argument("--starts", type=int, default=150, help="of the published grid, run and scaled up (default: 150)")
    args = parser.parse_args()
    table = load.csv(args.csv, {"exclude": args.exclude} if args.exclude else None)
    rows = fit.rows_of(table)
    delta = fit.DEFAULT_DELTA["csv"]

    ours, fitted = fast(lambda: fit.fit(table))
    print(f"{table.source}: {len(rows)} rows; sum of {fitted.loss_name} {fitted.objective:.13g}\npoint fit (CPU)")
    say(
        f"ours, {fit.STARTS} starts, exact",
        ours,
        ours,
        f"{fitted.certificate.agreeing} agree, gradient {fitted.certificate.gradient:.0e}",
    )
    say("ours, 1 start", fast(lambda: fit.fit(table, starts=1))[0], ours)
    say(f"ours, {fit.STARTS} starts and {fit.BUMPS} restarts", cpu(lambda: fit.fit(table, bumps=fit.BUMPS))[0], ours)
    starts = published_starts(args.starts)
    seconds, ends = cpu(lambda: [l_bfgs_b(rows, delta, s, rows.weights) for s in starts])
    found = sum(e.fun * delta <= fitted.objective * (1 + 1e-6) for e in ends)
    note = f"{found} of {len(starts)} starts reach the optimum; scaled from {len(starts)}"
    say(
        f"scipy L-BFGS-B, exact gradient, {PUBLISHED_GRID:,} published starts",
        seconds / len(starts) * PUBLISHED_GRID,
        ours,
        note,
    )
    try:
        per = PEER_GRID if args.whole_grid else 3
        seconds = peer_chinchilla(table, per)
        note = "" if args.whole_grid else f"scaled from {per**5} starts"
        say(f"chinchilla (PyPI), {PEER_GRID**5:,} starts, its own loss", seconds * (PEER_GRID / per) ** 5, ours, note)
    except ImportError:
        print("  chinchilla: not installed (pip install chinchilla)")
    other = None
    if args.other_python:
        other = peer_simple(table, args.other_python)
        say("simple-scaling-laws (PyPI), squares of raw losses, 1 draw", other["1"], ours)
    else:
        print("  simple-scaling-laws: left out, no --other-python")

    seconds, boot = min((cpu(lambda: intervals.bootstrap(fitted, DRAWS)) for _ in range(3)), key=lambda pair: pair[0])
    start = time.perf_counter()
    intervals.bootstrap(fitted, DRAWS)
    wall = time.perf_counter() - start
    print(f"{DRAWS:,} bootstrap refits (CPU)")
    say("ours, exact", seconds, seconds, f"{wall:.2f} s of wall; {boot.unconverged} did not converge; nothing is compiled")
    rng, some = np.random.default_rng(0), 100
    theta = np.array(
        [
            np.log(fitted.params["E"]),
            np.log(fitted.params["A"]),
            np.log(fitted.params["B"]),
            fitted.params["alpha"],
            fitted.params["beta"],
        ]
    )
    draws = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=some).astype(float)
    theirs, _ = cpu(lambda: [l_bfgs_b(rows, delta, theta, w) for w in draws])
    say("scipy L-BFGS-B, exact gradient, started at the fit", theirs / some * DRAWS, seconds, f"scaled from {some}")
    if other:
        say("simple-scaling-laws, wild bootstrap", (other["1000"] - other["1"]) / 999 * DRAWS, seconds, "scaled from 1,000")


if __name__ == "__main__":
    sys.exit(main())
