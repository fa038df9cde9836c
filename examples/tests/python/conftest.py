"""Where the programs are that the Rust build made."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def target() -> pathlib.Path:
    """Directory of the built programs; the test runner names it in HALO_TARGET_DIR."""
    default = pathlib.Path(__file__).resolve().parents[3] / "target" / "debug"
    return pathlib.Path(os.environ.get("HALO_TARGET_DIR", default))
