"""The faults of `scripts/faults.py`, in a form that is over in seconds."""

import importlib
import re
import sys

import pytest
from commands import CHECKOUT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and Linux's limits")


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("faults")


@pytest.mark.slow
def test_killed_at_random_instants(faults, tmp_path):
    said = faults.kills(tmp_path, count=3)
    assert int(said.partition(" kills in ")[0]) >= 3
    assert said.endswith("each with the bits of an undisturbed one")


@pytest.mark.slow
def test_killed_at_writes(faults, tmp_path):
    assert re.match(r"killed at [5-9] of \d+ writes", faults.writes(tmp_path, count=5))


@pytest.mark.slow
def test_a_full_disk(faults, tmp_path):
    said = faults.disk(tmp_path, sizes=(1000,))
    assert said == "2 runs, 2 of them ended by it; all went on afterwards"


@pytest.mark.slow
def test_a_small_disk(faults, tmp_path):
    said = faults.small(tmp_path, sizes=(16_384,))
    if said.startswith("not done"):
        pytest.skip(said)
    assert said == "1 disks, 1 of them too small for the run; all went on afterwards"


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_to(faults, tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # where the tests run as root, another user looks in
    said = faults.closed(tmp_path)
    assert said.startswith("refused in a line, nothing made: ")
    if said.endswith(": "):
        pytest.skip("here nobody lacks rights and nothing can be mounted")


def test_records_cut_off(faults, tmp_path):
    assert "lengths named as unreadable" in faults.truncated(tmp_path, step=211)


def test_checkpoints_with_one_byte_changed(faults, tmp_path):
    assert "none of them unnoticed" in faults.flipped(tmp_path, step=31)


def test_many_processes_write_while_one_reads(faults, tmp_path):
    said = faults.together(tmp_path, records=40, processes=2)
    assert said.startswith("40 records of 2 processes, read ")
