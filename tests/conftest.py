"""What tests of several folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the image collection; tests that ask for it skip where it is absent."""
    beside_the_repository = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("SPIKINGIR_DATA", beside_the_repository))
    if not root.is_dir():
        pytest.skip(f"no image collection at {root}; name it with SPIKINGIR_DATA")
    return root
