"""What several test modules share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fashion_mnist_root() -> Path:
    """A folder with the real Fashion-MNIST files; tests that need it carry the mark real_data."""
    checkout = Path(__file__).resolve().parents[1]
    root = Path(os.environ.get("FMBENCH_DATA") or checkout / "data").resolve()
    if not any(root.glob("**/t10k-labels-idx1-ubyte*")):
        pytest.skip(f"no Fashion-MNIST files in {root}; FMBENCH_DATA may name another folder")
    return root
