"""What the tests share: eight virtual devices, a compilation cache that outlives the run, a small store, a trainer to start.

Only the environment is set here, so that tests which need no jax do not load it.
"""

import os
import pathlib
import sys

import pytest
from training import Trainer

from scaling import corpus
from scaling.sources import FileSource

REPO = pathlib.Path(__file__).parents[1]
DEVICES = 8

if "jax" in sys.modules:
    raise RuntimeError("jax was imported before tests/conftest.py could ask for eight virtual devices")
# What the user had, also in xdist's workers, which inherit the environment that this file has already changed.
_flags_before = os.environ.setdefault("TESTS_XLA_FLAGS_BEFORE", os.environ.get("XLA_FLAGS", ""))
# Level 0 compiles a tiny step in 1.5 s instead of 5; commands that tests start compile as a user's do.
_flags = f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{_flags_before} {_flags}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(REPO / ".pytest_cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_collection_finish() -> None:
    """Starts the eight devices where a test module has imported jax, and takes the flags away again: commands that tests
    start see the one device that a user's would."""
    if "jax" in sys.modules:
        import jax

        if not jax.devices()[0].platform == "cpu" or jax.device_count() != DEVICES:
            raise RuntimeError(f"tests need {DEVICES} virtual CPU devices, there are {jax.devices()}")
    os.environ["XLA_FLAGS"] = _flags_before


@pytest.fixture(scope="session")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> corpus.TokenStore:
    """About 100 KB of text of which every line is different."""
    folder = tmp_path_factory.mktemp("text")
    words = [
        "the",
        "loss",
        "of",
        "a",
        "model",
        "falls",
        "with",
        "its",
        "size",
        "and",
        "the",
        "data",
        "that",
        "it",
        "has",
        "seen",
    ]
    lines = [" ".join(words[(i * j) % len(words)] for j in range(1, 9)) + f", line {i}.\n\n" for i in range(2000)]
    (folder / "lines.txt").write_text("".join(lines))
    return corpus.build(FileSource([str(folder / "lines.txt")]), folder / "store")


@pytest.fixture(scope="session")
def trainer(text_store: corpus.TokenStore) -> Trainer:
    """Starts `python -m scaling.train` on the small store."""
    return Trainer(REPO, text_store.path)
