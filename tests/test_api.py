"""From Python, as in a notebook."""

import logging
from pathlib import Path

import pytest
from commands import TINY, python, raises_one_line

import fmbench
from fmbench.errors import ConfigError, StorageError
from fmbench.storage import FolderLock


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
