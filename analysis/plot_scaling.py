"""The figure of a ladder: ``python -m analysis.plot_scaling``.

    --runs runs/ladder
    --csv mine.csv --map N=params,D=tokens,loss=val_loss

Draws training curves and loss against compute with the fitted law, its frontier, and the largest rung as it was predicted and
as it was measured; writes scaling.png, scaling.svg and scaling.json, and says the same in words.
"""

from __future__ import annotations

import sys

from analysis import cli, figure
from analysis.story import in_words, tell, to_json
from scaling import runs


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return cli.run(lambda: _plot(argv))


def _plot(argv: list[str] | None) -> None:
    assert __doc__ is not None
    args = cli.parser("plot_scaling", __doc__, forms=True).parse_args(argv)
    read = cli.ladder(args)
    out = cli.out_dir(args)
    story = tell(*read, cli.settings(args))
    runs.write_json(out / "scaling.json", to_json(story))
    figure.save(story, out)
    print(in_words(story))
    print(f"wrote {out / 'scaling.png'}, scaling.svg and scaling.json")


if __name__ == "__main__":
    sys.exit(main())
