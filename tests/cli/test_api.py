"""From Python, as in a notebook."""

import logging
import os
import random
import signal
import sys
import threading
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from commands import TINY, raises_one_line, records
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

import fmbench
from fmbench.core import machine
from fmbench.core.errors import ConfigError, StorageError
from fmbench.core.files import FolderLock
from fmbench.runs.run import _settle_threads
from fmbench.training.device import Device
from fmbench.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_run_returns_the_record_and_load_results_finds_it(capsys):
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


def test_mistakes_are_exceptions_and_leave_nothing(tmp_path):
    raises_one_line(lambda: fmbench.run(["model=lenett"]), ConfigError, "lenett", "lenet")
    raises_one_line(lambda: fmbench.run("epochs=3"), ConfigError, "must be a list of texts")
    raises_one_line(lambda: fmbench.run(None), ConfigError, "must be a list of texts")
    raises_one_line(lambda: fmbench.run(["batch_size=0"]), ConfigError, "batch_size=0")
    fmbench.run([*TINY, "hydra.run.dir=here"])
    again = [*TINY, "hydra.run.dir=here", "seed=1"]
    raises_one_line(lambda: fmbench.run(again), StorageError, "here", "seed is 0 there and 1 here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


#: A run of few steps: two threads that share a busy core wait for each other in each of them.
ANY_THREADS = [text for text in TINY if text != "threads=1"] + ["data.train_size=64", "epochs=1"]


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """Of the threads: one is always faster than the machine's two."""
    found = []
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
    record = fmbench.run([*ANY_THREADS, *given])
    assert len(trials) == tried
    assert record.fingerprint["threads"] == threads
    assert record.device.endswith(f"{threads} thread{'s' if threads > 1 else ''}")
    assert [text for text in record.overrides if "threads" in text] == [f"threads={threads}"]


@pytest.mark.slow
def test_a_second_run_chooses_its_own_threads(trials):
    for _ in range(2):
        fmbench.run(ANY_THREADS)
    assert len(trials) == 2


def test_on_a_gpu_nothing_is_tried(trials, monkeypatch):
    record = SimpleNamespace(overrides=["seed=1"])
    run = SimpleNamespace(record=record, config={"threads": None}, use=lambda _device: None)
    device = Device(torch.device("cuda", 0), "fp32", threads=2, deterministic=False)
    _settle_threads(run, trainer := SimpleNamespace(device=device), in_sweep=False)
    assert trainer.device == device
    assert (len(trials), record.overrides) == (0, ["seed=1"])


@pytest.mark.slow
def test_runs_of_a_sweep_that_are_alike_take_the_same_threads(trials, command, tmp_path):
    status, _, err = command("-m", *ANY_THREADS, "seed=0,1", "batch_size=32,64")
    assert status == 0, err
    assert len(trials) == 2
    assert [record["fingerprint"]["threads"] for record in records(tmp_path)] == [1] * 4
    assert "threads=1 " in (next(tmp_path.rglob("benchmark.md"))).read_text()
    assert list(tmp_path.rglob("figures/*.png"))


def _state():
    """What a run might change in its process."""
    backends = torch.backends
    flags = [
        *(backends.cudnn.enabled, backends.cudnn.deterministic, backends.cudnn.benchmark),
        *(backends.mkldnn.enabled, backends.mkldnn.deterministic),
        *(backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision),
        *(backends.mkldnn.matmul.fp32_precision, backends.mkldnn.conv.fp32_precision),
    ]
    numbers = np.random.get_state()
    return {
        "flags": flags,
        "matmul": torch.get_float32_matmul_precision(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "deterministic": torch.get_deterministic_debug_mode(),
        "threads": torch.get_num_threads(),
        "random": (random.getstate(), numbers[1].tolist(), numbers[2:]),
        "torch's random": torch.get_rng_state().tolist(),
        "flush": float(np.float64(sys.float_info.min) / np.float64(2)),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        # PyTorch's compiler sets this one where something is the first to import it.
        "environment": {**os.environ, "TORCHINDUCTOR_CACHE_DIR": ""},
        "folder": Path.cwd(),
        "path": list(sys.path),
        "warnings": list(warnings.filters),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "logging": [
            (logger.level, list(logger.handlers), logger.disabled)
            for logger in map(logging.getLogger, ["", "fmbench", "hydra", "matplotlib"])
        ],
        "hydra": GlobalHydra.instance().hydra,
        "resolvers": {
            name: resolver
            for name, resolver in BaseContainer._resolvers.items()
            if not name.startswith("hydra.")  # of Hydra's `instantiate`, whoever calls it
        },
        "store": dict(ConfigStore.instance().repo),
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return fmbench.run([*TINY, "keep_model=true", f"hydra.run.dir={tmp_path_factory.mktemp('a')}"])


def _set(kept, value, before, change):
    kept.callback(change, before)
    change(value)


#: What a notebook may have set, each with how it is undone.
SETTINGS = {
    "float64": lambda kept: _set(kept, torch.float64, torch.float32, torch.set_default_dtype),
    "device": lambda kept: _set(kept, "meta", None, torch.set_default_device),
    "a device's block": lambda kept: kept.enter_context(torch.device("meta")),
    "no_grad": lambda kept: kept.enter_context(torch.no_grad()),
    "inference_mode": lambda kept: kept.enter_context(torch.inference_mode()),
    "autocast": lambda kept: kept.enter_context(torch.autocast("cpu", torch.bfloat16)),
    "matmul": lambda kept: _set(kept, "medium", "highest", torch.set_float32_matmul_precision),
    "mkldnn": lambda kept: _set(
        kept, False, True, lambda value: setattr(torch.backends.mkldnn, "enabled", value)
    ),
    "warn_only": lambda kept: _set(
        kept, "warn", "default", torch.set_deterministic_debug_mode
    ),
    "denormals": lambda kept: _set(kept, True, False, torch.set_flush_denormal),
}  # fmt: skip


@pytest.mark.parametrize("names", [["device"], ["inference_mode"], ["matmul"], list(SETTINGS)])
def test_what_a_notebook_has_set_changes_no_number_and_stays(names, undisturbed, tmp_path):
    where = f"hydra.run.dir={tmp_path / 'here'}"
    kept_in = [*TINY, "keep_model=true", "deterministic=true", where]
    images = torch.full((2, 28, 28), 7, dtype=torch.uint8)
    with ExitStack() as kept:
        for name in names:
            SETTINGS[name](kept)
        before = _state()
        record = fmbench.run(kept_in)
        model = fmbench.load_model(tmp_path / "here")
        after = _state()
        logits = model(images)
    assert {key for key in before if before[key] != after[key]} == set()
    assert record.key == undisturbed.key
    assert (record.train_loss, record.test_loss) == (undisturbed.train_loss, undisturbed.test_loss)
    assert logits.dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_run_beside_another_program_of_hydra(tmp_path, undisturbed):
    """One that is in the midst of it, with configs, a schema and a resolver of its own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("defaults: [schema]\na: ${fmbench.token:}", "utf-8")
    with ExitStack() as kept:
        store = ConfigStore.instance()
        kept.callback(setattr, store, "repo", dict(store.repo))
        store.store("schema", {"theirs": 1}, replace=True)
        store.store("lenet9", {"_target_": "theirs"}, group="model")
        kept.callback(OmegaConf.clear_resolver, "fmbench.token")
        OmegaConf.register_resolver("fmbench.token", lambda: "theirs", replace=True)
        kept.enter_context(hydra.initialize_config_dir(str(tmp_path / "own")))
        before = _state()
        record = fmbench.run([*TINY, f"hydra.run.dir={tmp_path / 'here'}"])
        raises_one_line(lambda: fmbench.run(["model=lenet9"]), ConfigError, "no such option")
        after = _state()
        assert {key for key in before if before[key] != after[key]} == set()
        assert dict(hydra.compose("mine")) == {"theirs": 1, "a": "theirs"}
    assert record.test_loss == undisturbed.test_loss


@pytest.mark.slow
def test_runs_in_two_threads_wait_for_each_other(tmp_path, undisturbed):
    found = {}

    def work(seed):
        found[seed] = fmbench.run([*TINY, f"seed={seed}", f"hydra.run.dir={tmp_path / str(seed)}"])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {seed: record.status for seed, record in found.items()} == dict.fromkeys(
        (0, 1), "completed"
    )
    assert found[0].test_loss == undisturbed.test_loss


def test_a_package_that_is_trusted_after_a_refusal_is(tmp_path, monkeypatch):

    monkeypatch.setenv("FMBENCH_TRUST", "")
    model = [*TINY, "model._target_=torch.nn.Identity", f"hydra.run.dir={tmp_path / 'here'}"]
    raises_one_line(lambda: fmbench.run(model), ConfigError, "FMBENCH_TRUST")
    monkeypatch.setenv("FMBENCH_TRUST", "torch.nn")
    with pytest.raises(Exception, match="parameter"):
        fmbench.run(model)


def test_a_missing_file_in_a_model_is_no_storage_error(tmp_path, monkeypatch):
    from fmbench.models.lenet5 import LeNet5

    monkeypatch.setattr(LeNet5, "forward", lambda *_: Path("weights.pt").read_bytes())
    with pytest.raises(ConfigError, match=r"FileNotFoundError: .*weights\.pt"):
        fmbench.run(TINY)


def test_a_model_that_raises_is_the_cause_and_says_nothing(tmp_path, monkeypatch, capsys):
    from fmbench.models.lenet5 import LeNet5

    def broken(*_):
        try:
            {}["a"]
        except KeyError:
            raise RuntimeError("no luck")  # noqa: B904 - the context is to be kept

    monkeypatch.setattr(LeNet5, "forward", broken)
    with pytest.raises(ConfigError, match="RuntimeError: no luck") as raised:
        fmbench.run(TINY)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert isinstance(raised.value.__cause__.__context__, KeyError)
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
