import sys

import pytest
import torch
from commands import raises_one_line
from torch import nn

from fmbench.core import machine
from fmbench.core.errors import ConfigError
from fmbench.training import device as devices


def test_select_sets_threads_and_determinism():
    chosen = devices.select("cpu", threads=1, deterministic=True)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert chosen.fingerprint()["threads"] == 1
    assert chosen.name.endswith("1 thread")
    devices.select("cpu", threads=None, deterministic=False)
    assert torch.get_num_threads() == machine.threads()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("has", "flops", "expected"), [
    (True, 10**9, "bf16"),
    (True, 10**6, "fp32"),
    (True, None, "fp32"),
    (False, 10**9, "fp32"),
])  # fmt: skip
def test_auto_precision(monkeypatch, has, flops, expected):
    monkeypatch.setattr(devices, "_has_bf16", lambda _device: has)
    cpu = torch.device("cpu")
    assert devices.choose_precision("auto", cpu, flops) == expected
    assert devices.choose_precision("fp32", cpu, flops) == "fp32"
    assert devices.choose_precision("bf16", cpu, flops) == "bf16"


def test_of_a_gpu_auto_says_that_nobody_measured_it(monkeypatch, caplog):
    caplog.set_level("INFO", logger="fmbench")
    monkeypatch.setattr(devices, "_has_bf16", lambda _device: True)
    assert devices.choose_precision("auto", torch.device("cpu"), 10**9) == "bf16"
    assert devices.choose_precision("bf16", torch.device("cuda"), 10**9) == "bf16"
    assert not caplog.text
    assert devices.choose_precision("auto", torch.device("cuda"), 10**6) == "fp32"
    assert "was measured on a CPU and is not known of a GPU" in caplog.text


def test_a_fingerprint_names_packages_that_brought_a_part_of_the_run(monkeypatch):
    """Not those that something else in the process has imported."""
    versions = {"timm": "1.2", "schedulefree": "3.4", "pytorch_optimizer": "5.6"}
    whole = devices.metadata.version
    monkeypatch.setattr(devices.metadata, "version", lambda name: versions.get(name) or whole(name))
    for name in versions:
        monkeypatch.setitem(sys.modules, name, object())
    net = type("Net", (nn.Linear,), {"__module__": "timm.models.vgg"})
    own = type("Own", (net,), {"__module__": "mine"})
    descent = type("SGDScheduleFree", (torch.optim.SGD,), {"__module__": "schedulefree.sgd"})
    chosen = devices.select("cpu", threads=1, deterministic=False)

    def named(*parts):
        return {name: one for name, one in chosen.fingerprint(*parts).items() if name in versions}

    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    plain = torch.optim.SGD(model.parameters())
    assert named() == named(model, plain, None, nn.functional.cross_entropy) == {}
    assert named(nn.Sequential(own(1, 1)), plain) == {"timm": "1.2"}
    assert named(model, descent(model.parameters())) == {"schedulefree": "3.4"}


def test_autocast_computes_in_the_precision_said():
    layer = torch.nn.Linear(4, 4)
    for precision, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        chosen = devices.Device(torch.device("cpu"), precision, threads=1, deterministic=False)
        with chosen.autocast():
            assert layer(torch.ones(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only it lets the mark be set back")


@on_linux
def test_peak_memory_is_of_this_run_alone(monkeypatch):
    monkeypatch.setattr(devices.PeakMemory, "before", None)
    filled = torch.ones(60_000_000)
    del filled
    memory = devices.PeakMemory(torch.device("cpu"))
    before = memory.bytes
    filled = torch.ones(30_000_000)
    assert 100e6 < memory.bytes - before < 200e6
    del filled


@on_linux
def test_what_earlier_runs_have_freed_is_not_counted(monkeypatch):
    monkeypatch.setattr(devices.PeakMemory, "before", None)
    first = devices.PeakMemory(torch.device("cpu"))
    # Small pieces, which the allocator keeps: the last one holds its place at the end.
    pieces = [torch.ones(10_000) for _ in range(8_000)]
    assert first.bytes - first.before > 250e6
    last = pieces.pop()
    del pieces
    second = devices.PeakMemory(torch.device("cpu"))
    assert abs(second.bytes - first.before) < 0.05 * first.before
    del last


@pytest.mark.slow
@on_linux
def test_what_earlier_runs_have_left_is_not_counted_or_there_is_no_number(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(devices.PeakMemory, "before", None)
    first = devices.PeakMemory(cpu)
    little = torch.ones(first.before // 80)  # a twentieth of it, in float32
    second = devices.PeakMemory(cpu)
    assert abs(second.left - little.nbytes) < 0.02 * first.before
    assert abs(second.bytes - first.before) < 0.02 * first.before
    assert devices.PeakMemory(cpu, own=little.nbytes).left < 0.02 * first.before
    more = torch.ones(first.before // 50)
    third = devices.PeakMemory(cpu)
    assert third.bytes is None
    own = torch.ones(first.before // 8)  # beside which the error is a small one
    assert abs(third.bytes / (first.before + own.nbytes) - 1) < 0.1
    del little, more, own


@on_linux
def test_what_refers_to_itself_is_let_go(monkeypatch):
    monkeypatch.setattr(devices.PeakMemory, "before", None)
    devices.PeakMemory(torch.device("cpu"))
    circle = {"images": torch.ones(30_000_000)}
    circle["self"] = circle
    del circle
    assert devices.PeakMemory(torch.device("cpu")).left < 50e6


def test_cuda_graphs_without_a_gpu_are_refused():
    raises_one_line(
        lambda: devices.select("cpu", threads=1, deterministic=False, cuda_graphs=True),
        ConfigError,
        "cuda_graphs=true",
        "device=cpu",
        "must be false",
    )
    chosen = devices.Device(torch.device("cpu"), "fp32", threads=1, deterministic=False)
    assert chosen.fingerprint()["cuda_graphs"] is None
