"""Writes the page."""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import tempfile

from . import CASES, REPO, answer, make_world, message, page


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bad_input", description="Writes what is said about bad input.")
    parser.add_argument("--write", type=pathlib.Path, required=True, metavar="FILE", help="the page, docs/errors.md")
    target = parser.parse_args().write.absolute()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / ".pytest_cache" / "xla"))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    said = {}
    with tempfile.TemporaryDirectory() as place:
        world = pathlib.Path(place).resolve() / "world"
        world.mkdir()
        make_world(world)
        for number, case in enumerate(c for cases in CASES.values() for c in cases):
            folder = world.with_name(f"case{number}")
            shutil.copytree(world, folder)
            said[case] = message(case, answer(case, folder), folder)
    target.write_text(page(said))


if __name__ == "__main__":
    main()
