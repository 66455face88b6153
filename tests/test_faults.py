"""The faults of `scripts/faults.py`, in a form that is over in seconds."""

import re
import sys

import pytest
from commands import CHECKOUT, python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and Linux's limits")


@pytest.fixture
def faults(tmp_path):
    """What a function of the script says, in a process of its own.

    It forks, which PyTorch refuses in a process whose autograd has threads, as other tests make.
    """

    def call(name, **options):
        code = (
            "import sys; from pathlib import Path; "
            f"sys.path.insert(0, {str(CHECKOUT / 'scripts')!r}); import faults; "
            f"print(faults.{name}(Path({str(tmp_path)!r}), **{options!r}))"
        )
        done = python("-c", code, cwd=tmp_path, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return call


@pytest.mark.slow
def test_killed_at_random_instants(faults):
    said = faults("kills", count=3)
    assert int(said.partition(" kills in ")[0]) >= 3
    assert said.endswith("each with the bits of an undisturbed one")


@pytest.mark.slow
def test_killed_at_writes(faults):
    assert re.match(r"killed at [5-9] of \d+ writes", faults("writes", count=5))


@pytest.mark.slow
def test_a_full_disk(faults):
    said = faults("disk", sizes=(1000,))
    assert said == "2 runs, 2 of them ended by it; all went on afterwards"


@pytest.mark.slow
def test_a_small_disk(faults):
    said = faults("small", sizes=(16_384,))
    if said.startswith("not done"):
        pytest.skip(said)
    assert said == "1 disks, 1 of them too small for the run; all went on afterwards"


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_to(faults, tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # where the tests run as root, another user looks in
    said = faults("closed")
    assert said.startswith("refused in a line, nothing made: ")
    if said.endswith(": "):
        pytest.skip("here nobody lacks rights and nothing can be mounted")


@pytest.mark.slow
def test_records_cut_off(faults):
    assert "lengths named as unreadable" in faults("truncated", step=211)


@pytest.mark.slow
def test_checkpoints_with_one_byte_changed(faults):
    assert "none of them unnoticed" in faults("flipped", step=31)


@pytest.mark.slow
def test_many_processes_write_while_one_reads(faults):
    said = faults("together", records=40, processes=2)
    assert said.startswith("40 records of 2 processes, read ")
