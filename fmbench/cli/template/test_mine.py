"""Each method trains a small model for an epoch: `python -m pytest`."""

from pathlib import Path

import pytest

import fmbench

HERE = Path(__file__).parent
SMALL = [
    *("data=synthetic", "data.train_size=256", "data.test_size=64"),
    *("model=lenet5", "epochs=1", "threads=1"),
]
OPTIONS = [f"{file.parent.name}={file.stem}" for file in sorted(HERE.glob("options/*/*.yaml"))]


@pytest.mark.parametrize("option", OPTIONS)
def test_it_trains(option, tmp_path, monkeypatch):
    """In one short run."""
    monkeypatch.setenv("FMBENCH_TRUST", "mine")
    given = [*SMALL, option, f"hydra.run.dir={tmp_path / 'run'}"]
    record = fmbench.run(given, config_dir=HERE / "options")
    assert record.status == "completed"
    assert record.trust == "mine"
