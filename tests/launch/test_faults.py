"""Nothing loses work: real trainers and launchers meet every fault of ``faults.CASES``, and the table in docs/faults.md holds.

``python benchmarks/faults.py`` runs these tests and writes the table.
"""

import json
import os
import pathlib
from collections.abc import Iterator

import faults
import lab as labs
import pytest
from launching import REPO, TRUNK, Launches, results

from scaling import runs
from scaling.launch import devices

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cut_off(store: pathlib.Path, cache: pathlib.Path, undisturbed: pathlib.Path, tmp_path_factory) -> Iterator[pathlib.Path]:
    """A sweep killed in the middle."""
    if len(devices.cores().slots) < 2:
        pytest.skip("needs two cores: the trunk, held still, keeps one while its branch trains on another")
    it = Launches(store, cache, tmp_path_factory.mktemp("cut"))
    try:
        yield labs.cut_off(it)
    finally:
        it.clean()


@pytest.fixture
def lab(launches: Launches, undisturbed: pathlib.Path, cut_off: pathlib.Path) -> labs.Lab:
    return labs.Lab(launches, undisturbed, cut_off)


def test_undisturbed_sweep_is_trained_once_and_whole(undisturbed: pathlib.Path) -> None:
    """Fails when a member is missing, runs twice, or learns nothing at all; or a mark stays when its branches are done."""
    found = results(undisturbed)
    longest = max(found, key=lambda name: found[name][-1]["tokens"])
    assert len(found) == 3 and TRUNK in found and longest != TRUNK
    assert all(len(m.attempts()) == 1 for m in runs.members(undisturbed))
    first, last = runs.Member(undisturbed / TRUNK).metrics()[0]["loss"], runs.read_json(undisturbed / longest / runs.DONE)
    assert last["val_loss"] < 2.0 < first
    sweep = runs.read_json(undisturbed / runs.SWEEP)
    assert sweep is not None and {m["cluster"] for m in sweep["members"]} == {TRUNK}
    assert (undisturbed / "scaling.png").exists()
    left = sorted(int(p.name) for p in (undisturbed / TRUNK / runs.CHECKPOINTS).iterdir())
    assert left[-1] == sweep["members"][0]["steps"] and labs.MARK not in left


def documented() -> dict[str, str]:
    """The table of docs/faults.md."""
    rows = [
        line.strip("| \n").split(" | ") for line in (REPO / "docs" / "faults.md").read_text().splitlines() if line[:1] == "|"
    ]
    return {row[0]: row[1] for row in rows[2:] if len(row) == 2}


@pytest.mark.parametrize("fault", faults.CASES)
def test_what_happens_is_what_is_documented(fault: str, lab: labs.Lab) -> None:
    """Fails when a fault loses work, changes a result, ends in a traceback, or the documentation says otherwise."""
    happened = faults.CASES[fault](lab)
    table = os.environ.get("FAULT_TABLE")  # benchmarks/faults.py writes the documentation from it
    if table:
        with open(table, "a") as f:
            f.write(json.dumps({fault: happened}) + "\n")
    else:
        assert documented().get(fault) == happened


def test_the_documentation_has_no_other_rows() -> None:
    """Fails when a fault is documented that no test makes any more."""
    assert list(documented()) == list(faults.CASES)
