"""Which of two sweeps needs less compute for the same loss?  ``python -m analysis.compare``.

    --runs runs/a --against runs/b
    --csv a.csv --against b.csv --map N=params,D=tokens,loss=val_loss

The compute multiplier m(C) = C_b / C_a is how many times more training FLOPs the second sweep needs for the loss that the first
reaches with C: frontier_b(m C) = frontier_a(C), each frontier the least loss that its fitted law allows at a cost.  Writes
compare.png, compare.svg and compare.json, and says the same in words.

Where the run directories show that two runs shared seed and order of data, their residuals are redrawn with the same weights:
what the draw of the data did to both is then no doubt about their difference.  Where in one of the sweeps tokens grow in step
with parameters, no frontier can be told, and both sweeps are followed along that line instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis import cli, intervals, load, pairing, plot_compare
from analysis.comparison import compare, in_words, to_json
from scaling import runs
