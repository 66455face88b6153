import dataclasses
import sys

import pytest
import torch
from commands import TINY, compose, python, records

from fmbench import assembly, memory
from fmbench.device import Device
from fmbench.errors import ConfigError
from fmbench.memory import is_out_of_memory, largest_that_fits, out_of_memory

CPU = Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)


@pytest.mark.parametrize(("error", "is_it"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
    (MemoryError(), True),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    (ValueError("can't allocate memory"), False),
])  # fmt: skip
def test_what_says_that_memory_was_not_to_be_had(error, is_it):
    assert is_out_of_memory(error) is is_it


@pytest.fixture
def room_for(monkeypatch):
    """A device that has memory for so many images a step."""

    def set_up(most):
        tried = []

        class Step(memory.EagerStep):
            def __call__(self, images, labels):
                tried.append(len(labels))
                if len(labels) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                super().__call__(images, labels)

        monkeypatch.setattr(memory, "EagerStep", Step)
        return tried

    return set_up


@pytest.mark.parametrize(("most", "found", "tried"), [
    (100, 64, [256, 128, 64, 64]),
    (256, 256, [256, 256]),
    (1, 1, [256, 128, 64, 32, 16, 8, 4, 2, 1, 1]),
    (0, None, [256, 128, 64, 32, 16, 8, 4, 2, 1]),
])  # fmt: skip
def test_the_largest_batch_that_fits_is_tried(room_for, most, found, tried):
    sizes = room_for(most)
    assert largest_that_fits(compose(*TINY), CPU, 256) == found
    assert sizes == tried


@pytest.mark.parametrize(("most", "advice"), [
    (100, "batch_size=64 fits"),
    (999, "a step of this size fits now"),
    (0, "not even batch_size=1"),
])  # fmt: skip
def test_the_line_says_what_fits(room_for, most, advice):
    room_for(most)
    error = out_of_memory(MemoryError(), compose(*TINY, "batch_size=128"), CPU)
    assert str(error).startswith("out of memory on ")
    assert f"with batch_size=128; {advice}" in str(error)


LIMITED = """
import resource, sys
import torch
from fmbench import report  # the table at the end needs libraries that are large too
from fmbench.cli import main
report.build, report.print_tables
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700_000_000, resource.RLIM_INFINITY))
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("sweep", [False, True])
def test_a_run_that_is_too_large_ends_alone_and_says_what_fits(tmp_path, sweep):
    (tmp_path / "limited.py").write_text(LIMITED)
    arguments = [*TINY, "data.train_size=2000", "epochs=1", "model=resnet18", "model.width=16"]
    arguments += [
        "precision=fp32",
        *(["-m", "batch_size=2000,20"] if sweep else ["batch_size=2000"]),
    ]
    done = python("limited.py", *arguments, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert "with batch_size=2000; batch_size=" in done.stderr
    assert done.returncode == (4 if sweep else 1)
    statuses = [record["status"] for record in records(tmp_path)]
    assert statuses == (["failed", "completed"] if sweep else ["failed"])


def test_a_net_that_is_larger_than_the_memory_is_refused_beforehand(monkeypatch):
    monkeypatch.setattr(Device, "memory", lambda _self: 300_000)
    with pytest.raises(ConfigError, match=r"44,426 parameters and their gradients are 0\.0 GB"):
        assembly.rehearse(compose(*TINY))
    monkeypatch.setattr(Device, "memory", lambda _self: None)
    assembly.rehearse(compose(*TINY))


def test_the_memory_of_this_machine():
    assert 2**28 < CPU.memory() < 2**50
    assert dataclasses.replace(CPU, threads=2).memory() == CPU.memory()
