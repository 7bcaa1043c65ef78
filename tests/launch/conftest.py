"""Launchers as real processes on a token store of their own."""

import pathlib
import random
from collections.abc import Iterator

import pytest
from launching import Launches

from scaling import corpus
from scaling.sources import FileSource

WORDS = ("scaling", "laws", "relate", "loss", "to", "size", "data", "and", "compute", "of", "language", "models", "on", "text")


@pytest.fixture(scope="session", autouse=True)
def own_claims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Launchers of other tests do not take these tests' cores away: they meet elsewhere (``scaling.launch.claims``)."""
    folder = tmp_path_factory.mktemp("claims")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small token store."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(1)
    (folder / "text.txt").write_text("\n".join(" ".join(draw.choices(WORDS, k=12)) + "." for _ in range(6000)))
    corpus.build(FileSource([str(folder / "text.txt")]), folder / "store")
    return folder / "store"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A compilation cache that all launches share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def launches(store: pathlib.Path, cache: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Launches]:
    it = Launches(store, cache, tmp_path / "runs")
    yield it
    it.clean()


@pytest.fixture(scope="session")
def undisturbed(store: pathlib.Path, cache: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of the sweep, trained without any fault."""
    it = Launches(store, cache, tmp_path_factory.mktemp("undisturbed"))
    try:
        it.run()
    finally:
        it.clean()
    return it.folder
