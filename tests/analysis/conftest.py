"""Where the public tables are, and Chinchilla's points."""

import pathlib

import pytest

from analysis import load

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "scaling_runs"


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    if not DATA.is_dir():
        pytest.skip(f"public scaling-law tables are not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def chinchilla(data) -> load.Table:
    """The 240 points of Besiroglu et al. 2024: 245 less the five largest losses."""
    return load.csv(data / "chinchilla_epoch245.csv", {"exclude": "outlier"})
