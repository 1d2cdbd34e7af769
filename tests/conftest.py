"""Fixtures for every test: where the public traces lie."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder with the public traces; tests that need it are skipped, with the remedy, where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TIDEGATE_TRACES", default))
    if not (folder / "openb").is_dir():
        pytest.skip(f"no trace folder at {folder}: set TIDEGATE_TRACES to the folder that holds openb/ and inference/")
    return folder
