"""Data sets of tests leave no copies with the user."""

import pytest

from fmbench.data import load as module


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMBENCH_CACHE", str(tmp_path / "cache"))
    module._prepared.cache_clear()
