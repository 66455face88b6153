import sys

import pytest
import torch
from commands import raises_one_line

from fmbench import device as devices
from fmbench import machine
from fmbench.errors import ConfigError


def test_select_sets_threads_and_determinism():
    chosen = devices.select("cpu", threads=1, deterministic=True)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert chosen.fingerprint()["threads"] == 1
    assert chosen.name.endswith("1 thread")
    devices.select("cpu", threads=None, deterministic=False)
    assert torch.get_num_threads() == machine.threads()
    assert not torch.are_deterministic_algorithms_enabled()


def test_missing_device_is_refused_with_those_there_are():
    raises_one_line(
        lambda: devices.select("cuda:99", threads=None, deterministic=False),
        ConfigError,
        "device=cuda:99",
        "cpu",
    )


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


def test_autocast_computes_in_the_precision_said():
    layer = torch.nn.Linear(4, 4)
    for precision, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        chosen = devices.Device(torch.device("cpu"), precision, threads=1, deterministic=False)
        with chosen.autocast():
            assert layer(torch.ones(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the mark be set back")
def test_peak_memory_is_of_this_run_alone():
    filled = torch.ones(60_000_000)
    del filled
    memory = devices.PeakMemory(torch.device("cpu"))
    before = memory.bytes
    filled = torch.ones(30_000_000)
    assert 100e6 < memory.bytes - before < 200e6
    del filled


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
