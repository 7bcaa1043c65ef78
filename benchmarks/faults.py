"""Makes every fault of tests/launch/faults.py, with real processes, and writes what happened into docs/faults.md.

    python benchmarks/faults.py

Takes some minutes on two cores.  A fault that loses work ends it with the test's failure, and nothing is written.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

REPO = pathlib.Path(__file__).parents[1]
DOCS = REPO / "docs" / "faults.md"
sys.path.insert(0, str(REPO / "tests" / "launch"))  # where the faults are
HEAD = ["| fault | what happened |", "|---|---|"]


def main() -> int:
    """Runs the tests, then replaces the table."""
    with tempfile.TemporaryDirectory() as folder:
        table = pathlib.Path(folder) / "table.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-n", "0", "tests/launch/test_faults.py", "-k", "what_happens"]
        status = subprocess.run(command, cwd=REPO, env=os.environ | {"FAULT_TABLE": str(table)}).returncode
        if status:
            return status
        rows = [row for line in table.read_text().splitlines() for row in json.loads(line).items()]
    import faults

    if missing := faults.CASES.keys() - {fault for fault, _ in rows}:
        print(f"nothing is written: cannot be made here, by the reasons above: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    lines = DOCS.read_text().splitlines()
    start = lines.index(HEAD[0])
    end = next(i for i in range(start, len(lines) + 1) if i == len(lines) or not lines[i].startswith("|"))
    lines[start:end] = [*HEAD, *(f"| {fault} | {happened} |" for fault, happened in rows)]
    DOCS.write_text("\n".join(lines) + "\n")
    print(f"{len(rows)} faults, written to {DOCS.relative_to(REPO)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
