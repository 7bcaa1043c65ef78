"""The bigger run, before it is paid for: ``python -m analysis.predict``.

    --runs runs/ladder --record            predict the largest size from the smaller ones, on the record
    --runs runs/ladder --score             hold what was recorded against what was measured
    --runs runs/ladder --n-params 1M --tokens 20M        any run, from all rows
    --csv mine.csv --n-params 7e9 --tokens 1.4e12

A prediction counts only if it came first: a line of predictions.jsonl is written before its member trains, holds a hash of the
rows it was made from, and is never changed.  Scores are further lines.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import pathlib
import sys
from typing import Any

from analysis import cli, fit, load, words
from analysis.estimate import Estimate, Settings, estimate
from analysis.laws import measured_cost
from scaling import runs, units

MIN_SMALLER_SIZES = 3


def largest(table: load.Table) -> list[load.Row]:
    """Annealed members of the largest planned size, finished or not."""
    top = max(r.n_params for r in table.rows)
    return [r for r in table.rows if r.n_params == top and r.annealed]


def smaller(table: load.Table, n_params: float) -> load.Table:
    """The table without rows of ``n_params`` or more.

    Raises:
      FitError: fewer than three finished sizes are left.
    """
    out = table.where(lambda r: r.n_params < n_params)
    planned = len({r.n_params for r in out.rows})
    if len(out.sizes()) < MIN_SMALLER_SIZES:
        enough = planned >= MIN_SMALLER_SIZES
        remedy = "train them first" if enough else "a ladder that predicts its top needs at least four sizes"
        raise fit.FitError(
            f"{table.source}: predicting {units.format_count(n_params)} parameters needs {MIN_SMALLER_SIZES} smaller sizes "
            f"with finished, annealed runs; there are {len(out.sizes())} of {planned} planned: {remedy}"
        )
    return out


def record(table: load.Table, sweep_dir: pathlib.Path, settings: Settings) -> list[dict[str, Any]]:
    """Appends a prediction of every member of the largest size that has none from these rows; returns the new lines.

    Raises:
      LoadError: the members have begun to train and none was predicted before.
      FitError: too few smaller sizes.
    """
    targets = largest(table)
    if not targets:
        raise load.LoadError(f"{table.source}: no annealed member of the largest size is planned")
    rows = smaller(table, targets[0].n_params)
    digest = rows.digest()
    known = [p for p in runs.read_jsonl(sweep_dir / runs.PREDICTIONS) if p["kind"] == "prediction"]
    recorded = {p["member"] for p in known}
    fresh = [r for r in targets if (r.id, digest) not in {(p["member"], p["table_hash"]) for p in known}]
    late = [r.id for r in fresh if r.state != load.PLANNED and r.id not in recorded]
    todo = [r for r in fresh if r.state == load.PLANNED]
    if late and not todo:
        raise load.LoadError(
            f"{', '.join(late)}: already in training or trained; a prediction must come first, so none is recorded"
        )
    for member in late:
        print(f"{member}: already in training or trained, so no prediction is recorded for it", file=sys.stderr)
    if not todo:
        return []
    found = estimate(rows, settings)
    lines = [_line(found, row) for row in todo]
    for line in lines:
        runs.append_jsonl(sweep_dir / runs.PREDICTIONS, line)
    return lines


def _line(found: Estimate, row: load.Row) -> dict[str, Any]:
    """What predictions.jsonl says of one member; ``interval`` is the calibrated band, which the prediction is held to."""
    boot, forecast = found.boot, found.predict(row.n_params, row.n_tokens, row.flops)
    fitted, p = boot.fit, forecast.plain
    return {
        "kind": "prediction", "member": row.id, "n_params": row.n_params, "n_tokens": row.n_tokens, "loss": p.loss,
        "interval": list(forecast.calibrated), "plain_interval": list(p.interval), "level": p.level,
        "law": {"form": fitted.law.name, "params": words.params_json(boot)}, "all_forms": forecast.blend,
        "delta": fitted.delta, "n_definition": fitted.table.n_definition, "flops_convention": fitted.table.flops_convention,
        "n_rows": len(fitted.table.fitted), "sizes": fitted.table.sizes(), "table_hash": fitted.table.digest(),
        "extrapolation": p.extrapolation, "identified": p.verdict.identified, "reasons": list(p.verdict.reasons),
        "recorded_at": _now(),
    }  # fmt: skip


def score(table: load.Table, sweep_dir: pathlib.Path) -> list[dict[str, Any]]:
    """Appends the score of every recorded member that has ended and has none; returns the new lines.

    Of several predictions of a member the last one recorded counts.
    """
    lines = list(runs.read_jsonl(sweep_dir / runs.PREDICTIONS))
    predictions = {p["member"]: p for p in lines if p["kind"] == "prediction"}
    done = {s["member"] for s in lines if s["kind"] == "score"}
    by_id = {r.id: r for r in table.rows}
    new = []
    for member, p in predictions.items():
        row = by_id.get(member)
        if member in done or row is None or row.state in (load.PLANNED, load.STARTED):
            continue
        line = {"kind": "score", "member": member, "predicted": p["loss"], "interval": p["interval"], "level": p["level"],
                "predicted_at": p["recorded_at"], "table_hash": p["table_hash"], "scored_at": _now()}  # fmt: skip
        if row.excluded is not None or row.loss is None:
            line |= {"measured": row.loss, "error_percent": None, "hit": None, "excluded": row.excluded}
        else:
            lo, hi = p["interval"]
            line |= {"measured": row.loss, "error_percent": 100 * (p["loss"] / row.loss - 1), "hit": lo <= row.loss <= hi}
        runs.append_jsonl(sweep_dir / runs.PREDICTIONS, line)
        new.append(line)
    return new


def live(table: load.Table, delta: float | None = None) -> dict[str, dict[str, float]]:
    """Each annealed member's loss as predicted from strictly smaller sizes, where there are enough of them; by the Chinchilla
    form, since it is asked for often and nothing is held to it.
    """
    out = {}
    for n_params in sorted({r.n_params for r in table.rows}):
        try:
            law_fit = fit.fit(smaller(table, n_params), delta=delta)
        except fit.FitError:
            continue
        for row in table.rows:
            if row.n_params == n_params and row.annealed:
                out[row.id] = {"loss": float(law_fit.expected(row.n_params, row.n_tokens, row.flops)[0])}
    return out


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _count(text: str) -> float:
    try:
        return units.parse_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _predict(argv))


def _predict(argv: list[str] | None) -> None:
    args = _arguments(argv)
    table = cli.table(args)
    if args.record:
        lines = record(table, pathlib.Path(args.runs), cli.settings(args))
        said = [words.recorded(line) for line in lines]
        print("\n".join(said) or "nothing new to record: these members are predicted from these rows")
    if args.score:
        lines = score(table, pathlib.Path(args.runs))
        print("\n".join(words.score(line) for line in lines) or "nothing new to score")
    if args.live:
        members = live(table, args.delta)
        runs.write_json(pathlib.Path(args.runs) / "live_predictions.json", {"members": members})
        none = "no live predictions yet: three smaller finished sizes are needed"
        print(f"{len(members)} live predictions" if members else none)
    if args.n_params is not None:
        _one(table, args)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = cli.parser("predict", __doc__, forms=True)
    what = parser.add_argument_group("what to do (one at least)")
    what.add_argument(
        "--record", action="store_true", help="record predictions of the largest planned size in <sweep>/predictions.jsonl"
    )
    what.add_argument("--score", action="store_true", help="score recorded predictions whose members have ended")
    what.add_argument(
        "--live", action="store_true", help="write live_predictions.json, each member from smaller sizes, for a board"
    )
    what.add_argument("--n-params", type=_count, metavar="N", help="predict a run of this many parameters, such as 7e9 or 7B")
    what.add_argument("--tokens", type=_count, metavar="D", help="and this many tokens, such as 1.4T")
    args = parser.parse_args(argv)
    on_sweep = args.record or args.score or args.live
    if (args.n_params is None) != (args.tokens is None) or not (on_sweep or args.n_params):
        parser.error("say what to do: --record, --score, --live, or --n-params with --tokens")
    if on_sweep and not args.runs:
        parser.error("--record, --score and --live need --runs: a CSV has no members to come")
    return args


def _one(table: load.Table, args: argparse.Namespace) -> None:
    settings = cli.settings(args)
    cli.check_rows(table, settings)
    out, found = cli.out_dir(args), estimate(table, settings)
    rows = table.fitted
    cost = measured_cost([r.n_params for r in rows], [r.n_tokens for r in rows], [r.flops for r in rows])
    forecast = found.predict(args.n_params, args.tokens, cost=cost)
    print("\n".join([*words.source(table), *words.estimate(found), words.forecast(forecast)]))
    content = forecast.to_dict() | {
        "source": table.source, "n_definition": table.n_definition, "flops": float(cost.flops(args.n_params, args.tokens)),
        **words.estimate_json(found), "rows": [dataclasses.asdict(r) for r in table.rows],
    }  # fmt: skip
    runs.write_json(out / "prediction.json", content)
    print(f"wrote {out / 'prediction.json'}")


if __name__ == "__main__":
    sys.exit(main())
