import dataclasses
import sys
import weakref

import pytest
import torch
from commands import TINY, compose, python, records

import fmbench
from fmbench.core.errors import ConfigError, is_out_of_memory
from fmbench.models.lenet5 import LeNet5
from fmbench.runs import memory
from fmbench.runs.memory import OutOfMemoryError, largest_that_fits, out_of_memory
from fmbench.runs.prepare import read_inputs, rehearse
from fmbench.training.device import Device
from fmbench.training.step import EagerStep

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


#: The training part is larger than any batch here; LeNet-5 is small, so all 50 images of the test
#: set are evaluated at once.
LARGER = [*TINY, "data.train_size=400"]


@pytest.fixture
def room_for(monkeypatch):
    """A device that has memory for so many images at once, in training and in evaluation."""

    def set_up(most, evaluated=1000):
        tried = []
        forward = LeNet5.forward

        def limited(self, images):
            tried.append(len(images) if self.training else -len(images))
            if len(images) > (most if self.training else evaluated):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, images)

        monkeypatch.setattr(LeNet5, "forward", limited)
        return tried

    return set_up


@pytest.mark.slow
@pytest.mark.parametrize(("most", "found", "tried"), [
    # One batch is rehearsed; two images stand for the sizes of the last batch and in evaluation.
    (100, 64, [256, 128, 64, 2, -2, 64, 64, -50]),
    (256, 256, [256, 2, -2, 256, 144, -50]),  # an epoch's last batch is smaller
    (1, 1, [256, 128, 64, 32, 16, 8, 4, 2, 1, -2, 1, 1, -50]),
    (0, None, [256, 128, 64, 32, 16, 8, 4, 2, 1]),
])  # fmt: skip
def test_the_largest_batch_that_fits_is_tried(room_for, most, found, tried):
    sizes = room_for(most)
    config = compose(*LARGER, "batch_size=256")
    assert largest_that_fits(config, read_inputs(config), CPU, flops=1) == found
    assert sizes == tried


ALL, LARGE = ["batch_size=400", "data.test_size=300"], 10**9


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "flops", "room", "found"), [
    (ALL, LARGE, (1000, 200), 200),  # evaluated in batches as large as those of training
    (ALL, LARGE, (1000, 128), 100),  # ... but never in smaller ones than 128
    (ALL, LARGE, (1000, 127), None),
    (ALL, 1, (1000, 300), 400),
    (ALL, 1, (1000, 299), None),
    (["data.split.validation=20"], 1, (1000, 30), None),  # the larger part must be evaluated
    (["batch_size=256", "evaluation.test=never"], 1, (100, 2), 64),  # two are, in the rehearsal
])  # fmt: skip
def test_a_batch_size_that_trains_must_be_evaluated_too(room_for, overrides, flops, room, found):
    room_for(*room)
    config = compose(*LARGER, *overrides)
    assert largest_that_fits(config, read_inputs(config), CPU, flops=flops) == found


@pytest.mark.slow
def test_a_batch_size_that_raises_something_else_is_not_advised(room_for, monkeypatch):
    """As batch norm does on one value per channel."""
    room_for(100)
    config = compose(*LARGER, "batch_size=128")

    def refuses(self, images, labels):
        raise ValueError("Expected more than 1 value per channel when training")

    monkeypatch.setattr(EagerStep, "__call__", refuses)
    assert largest_that_fits(config, read_inputs(config), CPU, flops=1) is None


@pytest.mark.slow
@pytest.mark.parametrize(("most", "advice"), [
    (100, "batch_size=64 fits"),
    (999, "a step of this size fits now: other programs may have had the memory"),
    (0, "no batch_size down to 1 fits in training and evaluation: take a smaller model"),
])  # fmt: skip
def test_the_line_says_what_fits(room_for, most, advice):
    room_for(most)
    config = compose(*LARGER, "batch_size=128")
    error = out_of_memory(MemoryError(), config, read_inputs(config), CPU, flops=1)
    assert str(error).startswith(f"out of memory on {CPU.name} with batch_size=128; {advice}")


@pytest.mark.slow
def test_a_run_that_cannot_be_evaluated_says_so(room_for, tmp_path):
    room_for(1000, evaluated=49)
    with pytest.raises(OutOfMemoryError) as raised:
        fmbench.run([*TINY, "batch_size=64", f"hydra.run.dir={tmp_path / 'run'}"])
    assert "out of memory in evaluation on " in str(raised.value)
    assert "with batch_size=64; no batch_size down to 1 fits in training and" in str(raised.value)
    assert records(tmp_path)[0]["error"] == str(raised.value)


@pytest.mark.parametrize(("asked", "advised"), [(128, 64), (64, 64)])
def test_with_graphs_a_size_that_fits_without_is_advised(room_for, asked, advised):
    """A recording that ran out of memory may leave an allocator that cannot record again."""
    room_for(100)
    config = compose(*LARGER, f"batch_size={asked}")
    device = dataclasses.replace(CPU, cuda_graphs=True)
    error = out_of_memory(MemoryError(), config, read_inputs(config), device, flops=1)
    said = f"with batch_size={asked}; batch_size={advised} fits with cuda_graphs=false"
    assert str(error).endswith(said)


def test_what_the_run_held_is_let_go_before_anything_is_tried(monkeypatch):
    class Net:
        pass

    def train():
        model = Net()
        held.append(weakref.ref(model))
        raise MemoryError

    def fail():
        try:
            train()
        except MemoryError as error:
            raise RuntimeError("cannot end it either") from error

    held = []
    with pytest.raises(RuntimeError) as raised:
        fail()
    assert held[0]() is not None
    found = []
    monkeypatch.setattr(memory, "largest_that_fits", lambda *_: found.append(held[0]()))
    out_of_memory(raised.value, compose(*LARGER), None, CPU, flops=1)
    assert found == [None]


LIMITED = """
import resource, sys
import torch
# The report at the end needs libraries that are large too.
import matplotlib.backends.backend_agg, matplotlib.backends.backend_svg, matplotlib.pyplot
import fmbench.report.render.html
from fmbench import report
from fmbench.cli.main import main
import fmbench.runs.run
import fmbench.search.grid
from hydra.core.plugins import Plugins
Plugins.instance()
report.build, report.print_tables
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700_000_000, resource.RLIM_INFINITY))
# oneDNN that has once failed to make a kernel for want of memory makes none any more in its process
# ("could not create a primitive"), so that no size would fit. Whether it is oneDNN that fails first
# is a matter of chance.
from fmbench.training import device
device._FLAGS = tuple(
    (of, name, False if (of, name) == (torch.backends.mkldnn, "enabled") else value)
    for of, name, value in device._FLAGS
)
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_that_is_too_large_ends_alone_and_says_what_fits(tmp_path):
    (tmp_path / "limited.py").write_text(LIMITED)
    arguments = [*TINY, "data.train_size=4000", "epochs=1", "model=resnet18", "model.width=2"]
    arguments += ["precision=fp32", "-m", "batch_size=4000,50"]
    done = python("limited.py", *arguments, cwd=tmp_path, timeout=400)
    assert "Traceback" not in done.stderr
    assert "with batch_size=4000; batch_size=" in done.stderr
    assert done.returncode == 4
    assert [record["status"] for record in records(tmp_path)] == ["failed", "completed"]


def test_a_model_that_is_larger_than_the_memory_is_refused_beforehand(monkeypatch):
    monkeypatch.setattr(Device, "memory", lambda _self: 300_000)
    with pytest.raises(ConfigError, match=r"44,426 parameters and their gradients are 0\.0 GB"):
        rehearse(compose(*TINY, "data.train_size=100"))
    monkeypatch.setattr(Device, "memory", lambda _self: None)
    rehearse(compose(*TINY))
