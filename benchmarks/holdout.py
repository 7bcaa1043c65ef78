"""What the larger runs of a table show of forms, bands and their calibration, when all three saw the smaller ones only.

    python benchmarks/holdout.py --data FOLDER            # the top decade of compute of the public tables, 10 minutes
    python benchmarks/holdout.py --data FOLDER --inside   # the top half decade of what lies below that decade
    python benchmarks/holdout.py --simulated 3            # three seeds of every design and truth of simulated_sweeps.py

The method was worked out with the last two; docs/calibration.md tells in which order, and what the first then said.  All rows
of a table are used, those that are flagged as outliers too (but for Chinchilla's five, in one of its two tables): their flags
were made for parabolas.  C is the file's, or 6ND where it gives none.  Errors are of log loss.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import simulated_sweeps

from analysis import calibrate, choice, fit, intervals, laws, load
from scaling.units import format_count

Line = Mapping[str, str]
DRAWS = 400


@dataclasses.dataclass(frozen=True)
class Source:
    """A public table: its file, which lines of it, and its columns of loss, compute and run."""

    file: str
    keep: Callable[[Line], bool] = lambda line: True
    loss: str = "loss"
    compute: str | None = None
    run: str | None = None


def _experiment(name: str) -> Source:
    return Source("isoflop_llama3_marin_apple.csv", lambda line: line["experiment"] == name, compute="C")


def _gadre(name: str) -> Source:
    return Source("gadre_c4_rpj.csv", lambda line: line["dataset_name"] == name, "loss_c4_val", "flops")


def _porian(*labels: str, run: str | None = "N") -> Source:
    """One configuration; but for the one whose cosine was matched to each budget, its points are read off one run per size."""
    names = ("hparams", "warmup", "decay", "param_count", "val")
    return Source("porian_isoflop_rw.csv", lambda line: tuple(line[n] for n in names) == labels, compute="flops", run=run)


# Porian's four protocols under the standard count; its other six configurations are the same runs counted otherwise.  Left out:
# datablations (repeated data is another law's), OLMo's ladder (its two larger runs had other data).
TABLES = {
    "epoch240": Source("chinchilla_epoch245.csv", lambda line: line["outlier"] == "0", compute="C"),
    "epoch245": Source("chinchilla_epoch245.csv", compute="C"),
    "llama3": _experiment("llama_3__raw_loss"),
    "marin comma": _experiment("marin_202603__comma__llama_2"),
    "marin dclm": _experiment("marin_202603__dclm__llama_2"),
    "ml_scalefit": _experiment("ml_scalefit__massivetext__chinchilla"),
    "gemstones hot": Source("gemstones_hot.csv", run="run"),
    "gemstones cool": Source("gemstones_cool_end.csv", run="run"),
    "gadre c4": _gadre("c4_original"),
    "gadre rpj": _gadre("rpj"),
    "porian long": _porian("base", "long", "kaplan", "standard", "val"),
    "porian short": _porian("base", "short", "kaplan", "standard", "val"),
    "porian cosine": _porian("base", "short", "chinchilla", "standard", "val", run=None),
    "porian tuned": _porian("tuned", "short", "const", "standard", "val"),
}


def read(folder: pathlib.Path, source: Source) -> load.Table:
    """A public table as the analysis sees it."""
    rows = []
    with open(folder / source.file, newline="") as f:
        for number, line in enumerate(csv.DictReader(f)):
            if source.keep(line):
                n, d = float(line["N"]), float(line["D"])
                c = float(line[source.compute]) if source.compute else 6 * n * d
                run = line[source.run] if source.run else str(number)
                rows.append(load.Row(str(number), format_count(n), n, d, c, float(line[source.loss]), cluster=run))
    return load.Table(source.file, tuple(rows))


def split(table: load.Table, decades: float) -> tuple[load.Table, load.Table]:
    """Rows below the top ``decades`` of compute, and the others."""
    cut = table.column("flops").max() / 10**decades
    return table.where(lambda r: r.flops < cut), table.where(lambda r: r.flops >= cut)


def top_size(table: load.Table) -> tuple[load.Table, load.Table]:
    """For a ladder: all sizes but the largest, and that one."""
    top = table.sizes()[-1]
    return table.where(lambda r: r.n_params < top), table.where(lambda r: r.n_params == top)


@dataclasses.dataclass(frozen=True)
class Band:
    """Coverage and mean width of the nominal 90 % bands, plain and calibrated."""

    plain: float
    calibrated: float
    plain_width: float
    calibrated_width: float

    @property
    def ratio(self) -> float:
        return self.calibrated_width / self.plain_width


@dataclasses.dataclass(frozen=True)
class Score:
    """One table; errors are mean |log error| of the held-out rows."""

    name: str
    rows: tuple[int, int]
    errors: Mapping[str, float]
    chosen: str
    separable: Band
    chosen_band: Band
    seconds: float  # of CPU, to choose


def score(name: str, train: load.Table, test: load.Table) -> Score:
    """Everything is decided on ``train``; ``test`` is looked at last.

    Raises:
      FitError: ``train`` does not carry the separable law.
    """
    fit.check_rows(train)
    start = time.process_time()
    found = choice.choose(train)
    seconds = time.process_time() - start
    by_name = {c.law.name: c.fit for c in found.candidates}
    measured, n, d, c = (test.column(k).astype(float) for k in ("loss", "n_params", "n_tokens", "flops"))
    predicted = {k: f.expected(n, d, c) for k, f in by_name.items()} | {"blend": found.blend(n, d, c)}
    errors = {k: float(np.abs(np.log(measured / p)).mean()) for k, p in predicted.items()}
    separable = band(by_name["chinchilla"], measured, n, d, c)
    chosen = separable if found.law.name == "chinchilla" else band(found.fit, measured, n, d, c)
    return Score(name, (len(train.rows), len(test.rows)), errors, found.law.name, separable, chosen, seconds)


def band(fitted: fit.Fit, measured: np.ndarray, n: np.ndarray, d: np.ndarray, c: np.ndarray) -> Band:
    """Both bands of a fit at the held-out runs."""
    boot = intervals.bootstrap(fitted, DRAWS)
    calibration = calibrate.calibrate(boot)
    at = {v: {"N": n, "D": d, "C": c}[v] for v in fitted.law.variables}
    lower, upper = np.quantile(fitted.at(at, boot.theta) * np.exp(boot.noise)[:, None], [0.05, 0.95], axis=0)
    low, high = calibration.widen(lower, upper, c / fitted.table.column("flops").max())

    def covered(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a <= measured) & (measured <= b)).mean())

    plain_width, width = (float(np.log(b / a).mean()) for a, b in ((lower, upper), (low, high)))
    return Band(covered(lower, upper), covered(low, high), plain_width, width)


def public(folder: pathlib.Path, inside: bool) -> Iterator[tuple[str, load.Table, load.Table]]:
    """Name, training rows and held-out rows of every public table."""
    for name, source in TABLES.items():
        train, test = split(read(folder, source), 1.0)
        yield (name, *(split(train, 0.5) if inside else (train, test)))


def simulated(seeds: int) -> Iterator[tuple[str, load.Table, load.Table]]:
    """The same of simulated sweeps; of ladders the largest size is held out."""
    for name, table in simulated_sweeps.sweeps(range(seeds)):
        yield (name, *(top_size(table) if name.startswith("ladder") else split(table, 1.0)))


FORMS = (*laws.SURFACES, "blend")


def line(s: Score) -> str:
    """One row of the printed table; widths are half-widths."""
    errors = "".join(f"{100 * s.errors[k]:8.2f}" for k in FORMS)
    best = 100 * s.errors[s.chosen]
    bands = "".join(
        f"{b.plain:8.2f}{b.calibrated:6.2f}{50 * b.plain_width:7.2f}{b.ratio:6.2f}" for b in (s.separable, s.chosen_band)
    )
    return f"{s.name:22}{s.rows[0]:4}{s.rows[1]:4}{errors}{best:8.2f} {s.chosen:<11}{bands}"


def summary(scores: list[Score]) -> list[str]:
    """Means and medians over tables."""
    errors = np.array([[s.errors[k] for k in FORMS] + [s.errors[s.chosen]] for s in scores]) * 100
    out = []
    for label, statistic in (("mean", np.mean), ("median", np.median)):
        cells = "".join(f"{v:8.2f}" for v in statistic(errors, axis=0))
        bands = ""
        for which in ("separable", "chosen_band"):
            of = [getattr(s, which) for s in scores]
            columns = [[getattr(b, k) for b in of] for k in ("plain", "calibrated", "plain_width", "ratio")]
            p, q, w, r = (float(statistic(column)) for column in columns)
            bands += f"{p:8.2f}{q:6.2f}{50 * w:7.2f}{r:6.2f}"
        out.append(f"{label:30}{cells} {'':11}{bands}")
    mean = errors.mean(0)
    for what, column in (("chosen form", -1), ("blend", -2)):
        out.append(f"mean error of the {what} against the separable form's: {100 * (mean[column] / mean[0] - 1):+.0f} %")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, help="the folder of the public tables")
    parser.add_argument("--inside", action="store_true", help="hold out inside the training ranges")
    parser.add_argument("--simulated", type=int, metavar="SEEDS", help="simulated sweeps instead")
    args = parser.parse_args()
    if args.simulated is None and args.data is None:
        parser.error("give --data FOLDER or --simulated SEEDS")
    cases = public(args.data, args.inside) if args.simulated is None else simulated(args.simulated)
    print(f"{'':30}{'mean |log error|, %':>48}{'':12}{'separable: coverage, half-width %':>27}{'chosen':>20}")
    print(f"{'table':22}{'fit':>4}{'out':>4}" + "".join(f"{k[:7]:>8}" for k in (*FORMS, "chosen")) + f"{'':12}"
          + f"{'plain':>8}{'calib':>6}{'plain':>7}{'x':>6}" * 2)  # fmt: skip
    scores = []
    for name, train, test in cases:
        try:
            scores.append(score(name, train, test))
        except fit.FitError as error:
            print(f"{name:22} {error}")
            continue
        print(line(scores[-1]), flush=True)
    print("\n".join(summary(scores)))


if __name__ == "__main__":
    sys.exit(main())
