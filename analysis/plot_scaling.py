"""The figure of a ladder: ``python -m analysis.plot_scaling``.

    --runs runs/ladder
    --csv mine.csv --map N=params,D=tokens,loss=val_loss

Draws training curves and loss against compute with the fitted law, its frontier, and the largest rung as it was predicted and
as it was measured; writes scaling.png, scaling.svg and scaling.json, and says the same in words.
"""

from __future__ import annotations

import pathlib
import sys

from analysis import cli, figure, load
from analysis.story import in_words, tell, to_json
from scaling import runs


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _plot(argv))


def _plot(argv: list[str] | None) -> None:
    assert __doc__ is not None
    args = cli.parser("plot_scaling", __doc__, forms=True).parse_args(argv)
    table = cli.table(args)
    curves = load.curves(args.runs, table) if args.runs else []
    lines = list(runs.read_jsonl(pathlib.Path(args.runs) / runs.PREDICTIONS)) if args.runs else []
    if not any(r.loss is not None for r in table.rows):
        raise load.LoadError(
            f"{table.source}: nothing to draw: no run has a final loss yet; see `python -m scaling.launch status`"
        )
    out = cli.out_dir(args)
    story = tell(table, curves, lines, cli.settings(args))
    runs.write_json(out / "scaling.json", to_json(story))
    figure.save(story, out)
    print(in_words(story))
    print(f"wrote {out / 'scaling.png'}, scaling.svg and scaling.json")


if __name__ == "__main__":
    sys.exit(main())
