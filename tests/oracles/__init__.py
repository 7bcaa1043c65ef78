"""Implementations by others, or written plainly, that ours are compared with."""

import importlib
import os
from typing import Any

import pytest


def require(name: str) -> Any:
    """The module ``name``; without it the test is skipped on a user's machine and fails in CI."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if os.environ.get("CI", "").lower() not in ("", "0", "false", "no"):
            pytest.fail(f"{name} is not installed ({error}), and CI must run this comparison")
        pytest.skip(f"{name} is not installed: pip install {name}")
