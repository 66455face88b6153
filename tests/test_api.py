"""From Python, as in a notebook."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import TINY, python, raises_one_line, records

import fmbench
from fmbench import machine
from fmbench.attempt import Attempt
from fmbench.device import Device
from fmbench.errors import ConfigError, StorageError
from fmbench.record import Record
from fmbench.storage import FolderLock
from fmbench.train import Trainer


def test_run_returns_the_record_and_load_results_finds_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    handlers = list(logging.getLogger().handlers)
    record = fmbench.run([*TINY, "seed=4"])
    assert record.status == "completed"
    assert record.seed == 4
    assert record.parameters == 44_426
    assert record.runs_at_once == 1
    frame = fmbench.load_results("outputs")
    assert frame["test_accuracy"].tolist() == [record.test_accuracy]
    assert frame["key"].tolist() == [record.key]
    assert capsys.readouterr().out == ""
    assert logging.getLogger().handlers == handlers


def test_mistakes_are_exceptions_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raises_one_line(lambda: fmbench.run(["model=lenett"]), ConfigError, "lenett", "lenet")
    raises_one_line(lambda: fmbench.run("epochs=3"), ConfigError, "must be a list of texts")
    raises_one_line(lambda: fmbench.run(None), ConfigError, "must be a list of texts")
    raises_one_line(lambda: fmbench.run(["batch_size=0"]), ConfigError, "batch_size=0")
    fmbench.run([*TINY, "hydra.run.dir=here"])
    again = [*TINY, "hydra.run.dir=here", "seed=1"]
    raises_one_line(lambda: fmbench.run(again), StorageError, "here", "seed is 0 there and 1 here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_diverged_is_a_status_not_an_exception(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = fmbench.run([*TINY, "optimizer.lr=1e38", "scheduler=constant"])
    assert record.status == "diverged"
    assert "nan" in record.error or "inf" in record.error


def test_settings_of_the_process_are_put_back(tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    fmbench.run([*TINY, "deterministic=true", f"threads={threads + 1}"])
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """Of the threads: one is always faster than the machine's two."""
    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(2, None))
    monkeypatch.setattr(Trainer, "faster_threads", lambda *_: found.append(1) or 1)
    return found


@pytest.mark.parametrize(("given", "tried", "threads"), [
    ([], 1, 1),
    (["OMP_NUM_THREADS=64"], 1, 1),
    (["OMP_NUM_THREADS=2"], 0, 2),
    (["threads=2"], 0, 2),
    (["threads=null"], 1, 1),
])  # fmt: skip
def test_a_run_chooses_its_threads_unless_it_is_told(trials, monkeypatch, given, tried, threads):
    for text in [text for text in given if text.startswith("OMP")]:
        monkeypatch.setenv(*text.split("="))
        given = []
    rest = [text for text in TINY if text != "threads=1"]
    record = fmbench.run([*rest, *given, "epochs=1"])
    assert len(trials) == tried
    assert record.fingerprint["threads"] == threads
    assert record.device.endswith(f"{threads} thread{'s' if threads > 1 else ''}")
    assert [text for text in record.overrides if "threads" in text] == [f"threads={threads}"]
    fmbench.run([*rest, *given, "epochs=1"])  # of its own
    assert len(trials) == 2 * tried


def test_on_a_gpu_nothing_is_tried(trials, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H100")
    attempt = Attempt.__new__(Attempt)
    attempt.config, attempt.state = {"threads": None}, None
    attempt.record = Record.__new__(Record)
    attempt.record.overrides = ["seed=1"]
    device = Device(torch.device("cuda", 0), "fp32", threads=2, deterministic=False)
    trainer = SimpleNamespace(device=device)
    assert attempt._settle_threads(trainer) == device
    assert (len(trials), attempt.record.overrides) == (0, ["seed=1"])


def test_runs_of_a_sweep_that_are_alike_take_the_same_threads(trials, command, tmp_path):
    rest = [text for text in TINY if text != "threads=1"]
    status, _, err = command("-m", *rest, "epochs=1", "seed=0,1", "batch_size=32,64")
    assert status == 0, err
    assert len(trials) == 2
    assert [record["fingerprint"]["threads"] for record in records(tmp_path)] == [1] * 4
    assert "threads=1 " in (next(tmp_path.rglob("benchmark.md"))).read_text()


def test_a_torchvision_net_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = fmbench.run([*TINY, "epochs=1", "model=torchvision", "model.name=shufflenet_v2_x0_5"])
    assert record.status == "completed"
    assert record.model == "torchvision/shufflenet_v2_x0_5"


def test_a_missing_file_in_a_net_is_no_storage_error(tmp_path, monkeypatch):
    from fmbench.models.lenet5 import LeNet5

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LeNet5, "forward", lambda *_: Path("weights.pt").read_bytes())
    with pytest.raises(FileNotFoundError):
        fmbench.run(TINY)


def test_a_net_that_raises_does_so_as_it_is_and_says_nothing(tmp_path, monkeypatch, capsys):
    from fmbench.models.lenet5 import LeNet5

    def broken(*_):
        try:
            {}["a"]
        except KeyError:
            raise RuntimeError("no luck")  # noqa: B904 - the context is to be kept

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LeNet5, "forward", broken)
    with pytest.raises(RuntimeError, match="no luck") as raised:
        fmbench.run(TINY)
    assert raised.value.__cause__ is None
    assert isinstance(raised.value.__context__, KeyError)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_run_that_does_not_come_to_begin_leaves_its_folder_to_others(
    fault, tmp_path, monkeypatch
):
    def fails(*_):
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr("hydra.core.utils._save_config", fails)
        expected = StorageError if isinstance(fault, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            fmbench.run([*TINY, f"hydra.run.dir={tmp_path / 'here'}"])
    FolderLock(tmp_path / "here").release()


def test_unknown_name():
    with pytest.raises(AttributeError, match="nothing"):
        fmbench.nothing  # noqa: B018


def test_import_is_light(tmp_path):
    probe = (
        "import sys, fmbench\n"
        "heavy = {'torch', 'pandas', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = python("-c", probe, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
