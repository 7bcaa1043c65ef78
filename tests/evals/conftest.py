"""Where the real benchmarks are, and MMLU read once."""

import json
import pathlib

import pytest

from scaling.evals import layouts
from scaling.evals.items import Suite

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def evals_data() -> pathlib.Path:
    if not (SHARED / "evals").is_dir():
        pytest.skip(f"public benchmarks are not at {SHARED / 'evals'}")
    return SHARED / "evals"


@pytest.fixture(scope="session")
def mmlu(evals_data) -> Suite:
    """All 57 subjects, dev and test."""
    return layouts.load_folder(evals_data / "mmlu_hf_csv")


@pytest.fixture(scope="session")
def golden() -> dict:
    """Numbers and prompts that were computed apart from this package."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"golden numbers are not at {SHARED / 'reference'}")
    read = {f: json.loads((SHARED / "reference" / f).read_text()) for f in ("fixtures.json", "mmlu_prompt_goldens.json")}
    return read["fixtures.json"] | {"prompts": read["mmlu_prompt_goldens.json"]}
