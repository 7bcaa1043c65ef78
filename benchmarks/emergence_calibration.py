"""How often simulated ladders of known kind get which verdict.

    python benchmarks/emergence_calibration.py            # 1000 ladders of each kind, about two minutes of one core

Kinds are those of tests/analysis/emergence_ladders.py: six sizes with 500 items each, and six trunks of four checkpoints whose
scores scatter three times as much as counting does.  Each ladder is judged alone (no correction over tasks).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections import Counter

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "analysis"))  # where the ladders are

import emergence_ladders as ladders
import numpy as np

from analysis.emergence import judge
from analysis.emergence.verdict import CALLS


def main() -> int:
    """Prints a table of verdicts in per cent."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladders", type=int, default=1000, metavar="COUNT", help="of each kind")
    parser.add_argument("--draws", type=int, default=60, metavar="COUNT", help="of each bootstrap")
    args = parser.parse_args()
    print(f"{'':<26}" + "".join(f"{c:>19}" for c in CALLS) + f"{'score sharp':>13}{'seconds':>9}")
    for name, make in ladders.KINDS.items():
        rng = np.random.default_rng(0)
        made = [make(rng) for _ in range(args.ladders)]
        began = time.process_time()
        found = judge.judge_all(made, draws=args.draws, family=False, brief=True)
        spent = time.process_time() - began
        count = Counter(v.call for v in found)
        sharp = np.mean([v.sharp for v in found])
        print(
            f"{name:<26}" + "".join(f"{count[c] / len(found):>19.1%}" for c in CALLS) + f"{sharp:>13.1%}{spent:>9.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
