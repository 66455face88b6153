"""The faults of `scripts/faults.py`, in a form that is over in seconds."""

import importlib
import sys

import pytest
from commands import CHECKOUT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and Linux's limits")


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT / "scripts")
    return importlib.import_module("faults")


def test_killed_at_random_instants(faults, tmp_path):
    said = faults.kills(tmp_path, count=3, seed=1)
    assert int(said.partition(" kills in ")[0]) >= 3
    assert said.endswith("each with the bits of an undisturbed one")


def test_killed_at_the_first_writes(faults, tmp_path):
    assert faults.writes(tmp_path, count=6).startswith("killed at each of the first 6 writes")


def test_a_full_disk(faults, tmp_path):
    said = faults.disk(tmp_path, sizes=(0, 1000, 300_000))
    assert said == "3 limits, 2 of them end the run; all went on afterwards"


def test_records_cut_off(faults, tmp_path):
    assert "lengths named as unreadable" in faults.truncated(tmp_path, step=97)


def test_checkpoints_with_one_byte_changed(faults, tmp_path):
    assert "none of them unnoticed" in faults.flipped(tmp_path, step=31)


def test_many_processes_write_while_one_reads(faults, tmp_path):
    said = faults.together(tmp_path, records=80, processes=4)
    assert said.startswith("80 records of 4 processes, read ")
