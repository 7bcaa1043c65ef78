"""The training text of the laptop suite: ``python -m scaling.evals.laptop --out tokens/laptop``.  Imports no jax."""

from __future__ import annotations

import sys

from scaling import cli
from scaling.evals import laptop, overlap
from scaling.evals.laptop.store import OUT, Spec, build
from scaling.store import StoreError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; the exit status is 0, or 2 for what cannot be made."""

    def run() -> int:
        args = _parser().parse_args(arguments)
        store = build(Spec(tuple(args.subjects), args.letters, int(args.tokens), args.seed), args.out)
        train, valid = store.splits["train"].tokens, store.splits["valid"].tokens
        print(f"{store.path}: {train:,} training tokens, {valid:,} validation tokens; fingerprint {store.fingerprint}")
        print(store.description)
        if args.overlap:
            print(overlap.report(overlap.overlap(laptop.suite(), store)))
        return 0

    try:
        return cli.guarded(run, StoreError)
    except KeyboardInterrupt:
        print("stopped; nothing was left behind", file=sys.stderr)
        return 130


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m scaling.evals.laptop",
        description="Makes a token store of questions like those of the laptop suite, with their answers; none of its items.",
        epilog="the default ladder mixes it into its corpus; score a run: python -m scaling.evals --run RUN --suite laptop",
    )
    default = Spec()
    parser.add_argument("--out", default=OUT, help=f"folder to make (default: {OUT})")
    parser.add_argument("--subjects", nargs="+", default=[], metavar="NAME", help="which of the subjects (default: all)")
    parser.add_argument("--letters", type=float, default=default.letters, help="share of documents as MMLU puts them, 0 to 1")
    parser.add_argument(
        "--tokens", type=float, default=default.tokens, help=f"of training text (default: {default.tokens:.3g})"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="of the text (default: 0)")
    parser.add_argument("--overlap", action="store_true", help="look for the suite's items in it and say what was found")
    return parser


if __name__ == "__main__":
    sys.exit(main())
