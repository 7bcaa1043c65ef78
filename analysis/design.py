"""What a sweep can tell, before it is trained: ``python -m analysis.design``.

    --sweep ladder.py                      members from the sweep file; --config.FIELD=VALUE changes it as for the launcher
    --sweep ladder.py --prior-from runs/old --target-params 10M --target-tokens 200M
    --runs runs/ladder                     the members of a sweep folder, with its own fit as the prior law
    --csv mine.csv                         anybody's table

Under a prior law and a noise level: the intervals to expect of a, of E and of the loss at a target, by Fisher information and
by refits of simulated sweeps; which member to add; what the same FLOPs would tell as an IsoFLOP grid.  Writes design.json,
design.png and design.svg.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from analysis import cli, fit, identify, load, plot_design
from analysis.information import Design, Prior, Trunk
from analysis.laws import CHINCHILLA
from analysis.study import TIMES, in_words, study, to_json
from scaling import cli as command_line
from scaling import runs, sweep
from scaling.units import did_you_mean, format_count, parse_count

DRAWS = 400
SHARED = 0.5
SMALL = 10e6  # largest member, in parameters, up to which the default ladder's law is the nearer one
PRIORS = {
    # `python -m analysis.plot_scaling --runs runs/ladder`; the noise is that of seeds, configs/ladder.py
    "ladder": Prior(
        CHINCHILLA, {"E": 0.9298, "A": 45.85, "B": 14102.0, "alpha": 0.463, "beta": 0.7938}, 0.01, SHARED,
        "the fit of the default ladder (configs/ladder.py: 50K to 600K non-embedding parameters, bytes of API reference prose; "
        "its own E and exponents are loose)",
    ),
    # `python -m analysis.plot_scaling --csv chinchilla_epoch245.csv --map exclude=outlier`; the noise is its residual sd
    "chinchilla": Prior(
        CHINCHILLA, {"E": 1.8172, "A": 477.83, "B": 2143.4, "alpha": 0.34731, "beta": 0.36717}, 0.0075, SHARED,
        "the fit of Chinchilla's 240 points as extracted by Besiroglu et al. 2024 (57M to 16B parameters, MassiveText)",
    ),
}  # fmt: skip

# ---- designs


def of_sweep(name: str, overrides: Mapping[str, Any], n_definition: str, convention: str) -> Design:
    """The members of a sweep file.

    Raises:
      ConfigError: for a file that cannot be loaded.
    """
    members = sweep.load(name, overrides).members
    rows = tuple(
        load.Row(
            m.id, m.size, float(m.plan.n_params[n_definition]), float(m.plan.tokens), m.plan.flops(convention), None,
            cluster=m.parent or m.id, seed=m.config.seed, state=load.PLANNED,
        )
        for m in members
        if m.plan.annealed
    )  # fmt: skip
    own = {m.id: float(m.plan.trained_tokens) for m in members}
    trunks = [(m.id, float(m.plan.n_params[n_definition]), m.plan.flops_per_token[convention]) for m in members]
    return _design(load.Table(name, rows, "runs", n_definition, convention), own, trunks)


def of_runs(path: str, table: load.Table) -> Design:
    """The annealed members of a sweep folder, trained or to come; those that diverged are left out.

    Raises:
      LoadError: no such member.
    """
    planned = {m["id"]: m for m in (runs.read_json(pathlib.Path(path) / runs.SWEEP) or {"members": []})["members"]}
    about = {m.id: planned.get(m.id) or m.read(runs.PLAN) or {} for m in runs.members(path)}
    own = {r.id: r.n_tokens - (about[r.id].get("mark_tokens") or about[r.id].get("fork_tokens") or 0.0) for r in table.rows}
    trunks = [(r.id, r.n_params, r.flops / r.n_tokens) for r in table.rows]
    everything = load.Table(path, table.rows, "runs", table.n_definition, table.flops_convention)
    whole = _design(everything, own, trunks)
    kept = tuple(
        dataclasses.replace(r, excluded=None)
        for r in table.rows
        if r.annealed and (r.excluded is None or r.state in (load.PLANNED, load.STARTED))
    )
    if not kept:
        raise load.LoadError(f"{path}: no annealed member to design with; see `python -m scaling.launch status`")
    return dataclasses.replace(whole, table=dataclasses.replace(everything, rows=kept))


def _design(table: load.Table, own: Mapping[str, float], members: list[tuple[str, float, float]]) -> Design:
    """From rows, each member's own tokens, and (id, parameters, FLOPs per token) of each."""
    per_token = {name: rate for name, _, rate in members}
    trunks = []
    for name, n_params, rate in members:
        branches = [r for r in table.rows if r.cluster == name != r.id]
        if branches:
            part = sum(own[r.id] for r in branches) / sum(r.n_tokens for r in branches)
            trunks.append(Trunk(name, n_params, own[name], rate, part))
    return Design(table, sum(own[name] * per_token[name] for name in own), tuple(trunks))


# ---- the prior


def choose_prior(args: argparse.Namespace, design: Design, table: load.Table | None) -> Prior:
    """The law and the noise that the arguments ask for.

    Raises:
      LoadError: a prior that lacks a parameter, or a table that cannot be read.
      FitError: a table that no prior can be fitted to.
    """
    if args.prior:
        prior = PRIORS.get(args.prior) or Prior(CHINCHILLA, _parameters(args.prior), 0.01, SHARED, "as given by --prior")
    elif args.prior_from:
        folder = pathlib.Path(args.prior_from).is_dir()
        where = {"runs": args.prior_from, "csv": None} if folder else {"runs": None, "csv": args.prior_from}
        prior = _fitted(cli.table(argparse.Namespace(**vars(args) | where)), args.delta)
    elif table is not None:
        prior = _fitted(table, args.delta)
    else:
        small = max(design.columns["N"]) <= SMALL
        prior = PRIORS["ladder" if small else "chinchilla"]
        size = f"up to {format_count(SMALL)}" if small else f"above {format_count(SMALL)}"
        prior = dataclasses.replace(prior, source=f"the default for sizes {size}, {prior.source}")
    shared = prior.shared if args.shared is None else args.shared
    return dataclasses.replace(prior, noise=args.noise or prior.noise, shared=shared)


def _fitted(table: load.Table, delta: float | None) -> Prior:
    """The table's own fit; its noise is the scatter about it."""
    try:
        fitted = fit.fit(table, delta=delta)
    except fit.FitError as error:
        raise fit.FitError(f"no prior law: {error}; or give one, --prior E=…,A=…,B=…,alpha=…,beta=…") from None
    if reasons := identify.inseparable(fitted) or list(fitted.edges):
        raise fit.FitError(
            f"{table.source}: its fit is no prior law: {'; '.join(reasons)}; give one, such as --prior ladder or "
            "--prior E=1.7,A=400,B=2000,alpha=0.35,beta=0.37"
        )
    source = f"the fit of {len(fitted.residuals)} rows of {table.source}, the noise its residual scatter"
    return Prior(CHINCHILLA, fitted.params, fitted.sigma, SHARED, source)


def _parameters(text: str) -> dict[str, float]:
    """``'E=1.7,A=400,B=2000,alpha=0.35,beta=0.37'`` → a dict.

    Raises:
      LoadError: naming what is missing, unknown or no positive number.
    """
    wanted, example = CHINCHILLA.parameters, "--prior E=1.7,A=400,B=2000,alpha=0.35,beta=0.37"
    if "=" not in text:
        names = ", ".join(PRIORS)
        raise load.LoadError(f"--prior {text!r}: there are {names}, or parameters: {example}.{did_you_mean(text, PRIORS)}")
    out = {}
    for part in text.split(","):
        name, _, value = (p.strip() for p in part.partition("="))
        if name not in wanted:
            raise load.LoadError(f"--prior {part!r}: the law has {', '.join(wanted)}.{did_you_mean(name, wanted)}")
        try:
            out[name] = parse_count(value)
        except ValueError as error:
            raise load.LoadError(f"--prior {part!r}: {error}") from None
    if missing := [name for name in wanted if name not in out]:
        raise load.LoadError(f"--prior {text}: lacks {', '.join(missing)}; give all of them, such as {example}")
    return out


# ---- the command


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _command(argv))


def _command(argv: list[str] | None) -> None:
    words, overrides = command_line.split_overrides(sys.argv[1:] if argv is None else argv)
    args = _arguments(words)
    if args.sweep is None:
        if overrides:
            raise load.LoadError(f"--config.{next(iter(overrides))}: changes a sweep file; give --sweep, or leave it out")
        table = cli.table(args)
        design = of_runs(args.runs, table) if args.runs else Design(*_whole(table))
    else:
        if args.map and not args.prior_from:
            raise load.LoadError(f"--map {args.map}: names columns of a --csv; leave it out, a sweep file needs none")
        table, design = None, of_sweep(args.sweep, overrides, args.n, args.flops)
    prior = choose_prior(args, design, table)
    delta = args.delta or fit.DEFAULT_DELTA[design.table.kind]
    target = None if args.target_params is None else (args.target_params, args.target_tokens)
    s = study(args.sweep or args.runs or args.csv, design, prior, target, args.level, args.draws, delta)
    out = cli.out_dir(args)
    runs.write_json(out / "design.json", to_json(s))
    plot_design.save(s, out)
    print(in_words(s))
    print(f"wrote {out / 'design.png'}, design.svg and design.json")


def _whole(table: load.Table) -> tuple[load.Table, float]:
    """A CSV's rows that may be fitted, and the FLOPs of them all, each from its first token."""
    kept = dataclasses.replace(table, rows=table.fitted)
    return kept, float(kept.column("flops").sum())


def _arguments(words: list[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = cli.parser("design", __doc__, sweep=True)
    parser.set_defaults(draws=DRAWS)
    group = parser.add_argument_group("what is believed, and what is wanted")
    laws = group.add_mutually_exclusive_group()
    laws.add_argument(
        "--prior", metavar="LAW", help=f"the law to believe: {', '.join(PRIORS)}, or E=1.7,A=400,B=2000,alpha=0.35,beta=0.37 "
        f"(default: the fit of --runs or --csv; of a sweep, ladder up to {format_count(SMALL)} parameters, else chinchilla)"
    )  # fmt: skip
    laws.add_argument("--prior-from", metavar="FOLDER|CSV", help="or the fit of another sweep's folder or of a table")
    group.add_argument("--noise", type=_noise, metavar="SD", help="of one run's log loss, such as 0.01 (default: the prior's)")
    group.add_argument("--shared", type=_share, metavar="PART", help="of its variance common to a trunk (default: 0.5)")
    group.add_argument("--target-params", type=_count, metavar="N", help="the run to predict, such as 10M (default: the best")
    group.add_argument("--target-tokens", type=_count, metavar="D", help=f"under the prior, {TIMES:g} x the largest's compute)")
    args = parser.parse_args(words)
    if (args.target_params is None) != (args.target_tokens is None):
        parser.error("--target-params and --target-tokens go together")
    return args


def _value(text: str, good: Callable[[float], bool], must: str) -> float:
    try:
        value = parse_count(text) if text.strip() != "0" else 0.0
    except ValueError:
        value = -1.0
    if not good(value):
        raise argparse.ArgumentTypeError(f"{text!r} {must}")
    return value


def _count(text: str) -> float:
    return _value(text, lambda v: v > 0, "must be a positive number such as 50K, 1.2M or 3e9")


def _noise(text: str) -> float:
    return _value(text, lambda v: 0 < v < 1, "must be a part of the loss, above 0 and below 1, such as 0.01")


def _share(text: str) -> float:
    return _value(text, lambda v: 0 <= v < 1, "must be a part of the noise's variance, at least 0 and below 1, such as 0.5")


if __name__ == "__main__":
    sys.exit(main())
