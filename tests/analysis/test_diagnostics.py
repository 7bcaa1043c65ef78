"""The panels beside the main figure, drawn for real from a small sweep and from a table that carries no law."""

import pytest
import synthetic

from analysis import load, plot_diagnostics
from analysis.estimate import Settings
from analysis.reporting import findings
from analysis.story import tell
from analysis.tables import table


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A sweep's story and findings."""
    root = synthetic.write_sweep(tmp_path_factory.mktemp("diagnostics") / "ladder")
    rows = load.runs(root)
    story = tell(rows, load.curves(root, rows), [], Settings(law="chinchilla", draws=100))
    return story, findings.find(story)


def test_the_same_findings_give_the_same_files(told, tmp_path):
    """Fails when a date, a random id or the order of a set gets into a file, or a panel is missing."""
    written = []
    for name in ("once", "again"):
        folder = tmp_path / name
        folder.mkdir()
        assert plot_diagnostics.save(*told, folder)
        written.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert written[0] == written[1] and set(written[0]) == {"diagnostics.png", "diagnostics.svg"}
    svg = written[0]["diagnostics.svg"].decode()
    for title in ("Profile of E", "How the best N grows with C"):
        assert title in svg


def test_nothing_is_drawn_where_nothing_was_found(tmp_path):
    """Fails when an empty picture is written for rows that carry no law."""
    story = tell(table([1e7, 2e7, 4e7], [2e8, 4e8, 8e8], [4.0, 3.7, 3.4]), [], [])
    assert story.boot is None
    assert not plot_diagnostics.save(story, findings.find(story), tmp_path)
    assert not list(tmp_path.iterdir())
