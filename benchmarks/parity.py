"""Logits of ours beside transformers', through checkpoint folders both ways, and what a mistake would make of them.

    python benchmarks/parity.py                               # half a minute; needs torch, transformers and safetensors
    python benchmarks/parity.py --presets gpt2 smollm-135M    # whole published shapes, drawn at random: minutes, gigabytes

float32, one batch of random tokens; the largest absolute difference of any logit.  Small models, their parameters and the
mistakes are those of tests/test_hf.py.  Published shapes are drawn half as wide: through 12 to 30 such wide layers rounding
alone grows to 1e-4 and more.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
from typing import Any

import jax
import numpy as np

REPO = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO)]

import tiny  # noqa: E402
from oracles import huggingface, references  # noqa: E402

from scaling import hf, model, presets  # noqa: E402
from scaling.config import ModelConfig  # noqa: E402


def compare(name: str, c: ModelConfig, params: Any, tokens_BT: np.ndarray, root: pathlib.Path) -> np.ndarray:
    """Writes a model of ours, has transformers open it and write it again, and reads that; prints both differences."""
    ours = np.asarray(jax.jit(model.apply, static_argnums=0)(c, params, tokens_BT))
    hf.write(root / "ours", c, params)
    opened = huggingface.open_folder(root / "ours")
    theirs = huggingface.logits_of(opened, tokens_BT)
    opened.save_pretrained(root / "theirs")
    read, params = hf.read(root / "theirs")
    back = np.asarray(jax.jit(model.apply, static_argnums=0)(read, params, tokens_BT))
    row(name, f"{ours.std():.2f}", difference(theirs, ours), difference(back, theirs))
    return ours


def difference(a: Any, b: Any) -> str:
    return f"{np.max(np.abs(a - b)):.1e}"


def row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = list(references.CASES)
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, metavar="NAME", help=f"of {', '.join(cases)}")
    parser.add_argument("--presets", nargs="*", choices=presets.PRESETS, default=[], help="whole shapes instead of small ones")
    args = parser.parse_args()
    huggingface.require("transformers").logging.disable_progress_bar()
    small = {name: tiny.model_config(**references.CASES[name]) for name in args.cases}
    models = {name: presets.PRESETS[name] for name in args.presets} or small
    mistakes = []
    row("model", "std of its logits", "written by us, opened by transformers", "written by transformers, read by us")
    row("---", "---", "---", "---")
    for name, c in models.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            tokens_BT = tiny.tokens(2, min(c.context, 64), c.vocab_size)
            params = huggingface.draw(c, gain=0.75) if args.presets else huggingface.draw(c)
            ours = compare(name, c, params, tokens_BT, root)
            for i, (wrong, mistake) in enumerate(() if args.presets else references.MISTAKES.get(name, lambda c: ())(c)):
                spoilt = huggingface.copy_with(mistake, root / "ours", root / f"spoilt-{i}")
                theirs = huggingface.logits_of(huggingface.open_folder(spoilt), tokens_BT)
                mistakes.append((name, wrong, difference(theirs, ours)))
    if mistakes:
        print()
        row("model", "mistake made on purpose", "difference")
        row("---", "---", "---")
        for cells in mistakes:
            row(*cells)


if __name__ == "__main__":
    main()
