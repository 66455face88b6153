"""Runs that several tests begin with."""

import shutil
from pathlib import Path

import pytest
from stops import run, stopped


@pytest.fixture
def _trusted():
    with pytest.MonkeyPatch.context() as trust:  # which tests do not undo
        trust.setenv("FMBENCH_TRUST", "tutorials")
        yield


@pytest.fixture(autouse=True)
def _here(_trusted, tmp_path, monkeypatch, caplog):
    """`_trusted` comes first: what a test sets is undone before it, to the value that it gave."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", logger="fmbench")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The folder of the runs that several tests begin with."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def whole(made):
    """The folder of a run in one go; nobody may write there."""
    if not (made / "whole").exists():
        run(made / "whole")
    return made / "whole"


@pytest.fixture
def stopped_run(made, tmp_path):
    """A copy of a run that was stopped at the n-th moment, in the folder `run`."""

    def copy(moment, *overrides):
        folder = made / "_".join([str(moment), *overrides]).replace("=", "_")
        if not folder.exists():
            stopped(folder, moment, *overrides)
        return Path(shutil.copytree(folder, tmp_path / "run"))

    return copy
