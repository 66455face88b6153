"""The command line, mostly in this process: what it prints, leaves behind, and exits with."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import CHECKOUT, TINY, fmbench, python, raises_one_line, records, write_option

import fmbench as package
from fmbench.cli import main as cli
from fmbench.config import schema
from fmbench.core.errors import ConfigError, DataError, UserError
from fmbench.core.files import LOCK_NAME
from fmbench.search import best

pytestmark = pytest.mark.usefixtures("no_pictures")


def below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_one_run_leaves_its_folder_and_a_summary(command, tmp_path):
    status, out, err = command(*TINY, "seed=3")
    assert status == 0, err
    (record,) = records(tmp_path / "outputs")
    assert record["status"] == "completed"
    assert record["choices"]["model"] == record["model"] == "lenet5"
    assert record["overrides"] == [*TINY, "seed=3"]
    assert record["data"]["name"] == "synthetic"
    assert record["parameters"] == 44_426
    assert record["split"] | {"hash": ""} == {
        "name": "standard", "train": 200, "validation": 0, "test": 50, "hash": ""
    }  # fmt: skip
    assert record["best_test_accuracy"] is None
    assert record["seconds"]["total"] >= record["seconds"]["train"] > 0
    assert record["fingerprint"]["device"] == "cpu"
    assert record["started"].endswith("Z")
    folder = next((tmp_path / "outputs").rglob("result.json")).parent
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    assert (folder / "predictions.npy").is_file()
    assert yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) == [*TINY, "seed=3"]
    assert "epoch 2/2" in (folder / "fmbench.log").read_text()
    assert f"{record['test_accuracy']:.2%}" in out
    assert "44,426" in out
    assert "synthetic" in out
    assert str(folder.relative_to(tmp_path)) in out
    assert "epoch 1/2" in err
    assert "epoch" not in out


@pytest.mark.slow
def test_two_runs_that_start_in_one_second_do_not_collide(command, tmp_path):
    for _ in range(2):
        assert command(*TINY, "epochs=1")[0] == 0
    assert len(records(tmp_path)) == 2


def test_grid_leaves_records_and_a_table(command, tmp_path):
    status, out, err = command("-m", *TINY, "epochs=1", "batch_size=10,20,40")
    assert status == 0, err
    found = records(tmp_path / "multirun")
    assert [record["batch_size"] for record in found] == [10, 20, 40]
    (table,) = (tmp_path / "multirun").rglob("benchmark.md")
    rows = [line for line in table.read_text("utf-8").splitlines() if "| lenet5 |" in line]
    assert len(rows) == 3
    assert "ynthetic" in table.read_text("utf-8")
    assert "run 2 of 3: " in err
    assert "batch_size=20" in err
    assert str(table.relative_to(tmp_path)) in out
    assert list((tmp_path / "multirun").rglob("benchmark.csv"))


@pytest.mark.slow
def test_a_key_of_a_swept_group_is_told_how_to_be_written(command, tmp_path):
    models = ["-m", *TINY, "data.train_size=64", "epochs=1", "model=resnet18,resnet_light"]
    status, _, err = command(*models, "model.width=4")
    assert status == 2
    assert err.count("\n") == 1
    assert "write ++model.width=VALUE" in err
    assert below(tmp_path) == []
    status, _, err = command(*models, "++model.width=4")
    assert status == 0, err
    assert [record["config"]["model"]["width"] for record in records(tmp_path)] == [4, 4]
    assert "++" not in command(*TINY, "model.width=4")[2]


@pytest.mark.slow
def test_a_run_that_diverges_in_a_sweep_ends_itself_alone(command, tmp_path):
    status, _, err = command("-m", *TINY, "optimizer.lr=1e38,0.01", "scheduler=constant")
    assert status == 4
    assert [record["status"] for record in records(tmp_path)] == ["diverged", "completed"]
    assert "1 of 2 runs completed" in err
    (table,) = tmp_path.rglob("benchmark.md")
    assert "diverged" in table.read_text("utf-8")


def test_a_run_that_diverges_alone_fails(command, tmp_path):
    status, _, err = command(*TINY, "optimizer.lr=1e38", "scheduler=constant")
    assert status == 1
    logged, said = err.splitlines()  # and nothing of Hydra's about it
    method = "lenet5 (44,426 parameters), optimizer sgd, scheduler constant, on synthetic, "
    assert logged.startswith(method)
    assert said.startswith("fmbench: diverged in epoch 1")
    (record,) = records(tmp_path)
    assert record["status"] == "diverged"
    assert record["test_accuracy"] is None


def test_a_fault_within_a_run_is_traced_where_that_is_asked_for(command, monkeypatch):
    monkeypatch.setenv(cli.FULL_ERROR, "1")
    with pytest.raises(UserError, match="diverged in epoch 1") as raised:
        command(*TINY, "optimizer.lr=1e38", "scheduler=constant")
    assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.slow
def test_a_model_that_raises_leaves_its_record(command, tmp_path, monkeypatch):
    from fmbench.models.lenet5 import LeNet5

    def broken(_self, _images):
        raise RuntimeError("no\nsuch luck")

    monkeypatch.setattr(LeNet5, "forward", broken)
    status, _, err = command(*TINY)
    said = (
        "the model fails in training on 64 images: RuntimeError: no such luck (test_cli.py, line "
    )
    assert status == 2
    assert said in err
    assert "Traceback" not in err
    (record,) = records(tmp_path)
    assert record["status"] == "failed"
    assert record["error"].startswith(said)
    status, _, err = command("-m", *TINY, "model=lenet5,lenet", "epochs=1")
    assert status == 4
    assert "1 of 2 runs completed" in err


def test_a_model_that_raises_later_keeps_its_traceback(command, tmp_path, monkeypatch):
    from fmbench.training.step import EagerStep

    def broken(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(EagerStep, "__call__", broken)
    with pytest.raises(RuntimeError, match="no luck"):
        command(*TINY)
    assert records(tmp_path)[0]["error"] == "RuntimeError: no luck"


def test_validation_is_the_objective_where_there_is_some(command, tmp_path, monkeypatch):
    returned, original = [], cli.job

    def spy(config):
        returned.append(original(config))
        return returned[-1]

    spy.__module__ = original.__module__
    monkeypatch.setattr(cli, "job", spy)
    assert command(*TINY, "data.split=holdout", "evaluation.every=1")[0] == 0
    (record,) = records(tmp_path)
    assert record["split"]["validation"] == 20
    assert returned == [record["validation_accuracy"]]
    assert record["best_test_accuracy"] >= record["test_accuracy"]
    assert record["best_test_epoch"] in (0, 1)


@pytest.mark.slow
def test_ready_sweeps_run_as_many_as_they_say(command, tmp_path):
    status, _, err = command("-m", "sweep=seeds", *TINY, "epochs=1")
    assert status == 0, err
    assert "run 5 of 5: " in err
    assert [record["seed"] for record in records(tmp_path)] == [0, 1, 2, 3, 4]
    status, _, err = command("-m", "sweep=seeds", *TINY, "epochs=1", "seed=7,8")
    assert "run 2 of 2: " in err


def test_a_ready_sweep_without_m_is_warned_of(command):
    status, _, err = command("sweep=seeds", *TINY, "epochs=1")
    assert status == 0
    assert "sweep=seeds only chooses options for a single run; add -m" in err


def test_no_run_is_written_over(command, tmp_path):
    assert command(*TINY, "hydra.run.dir=here")[0] == 0
    before = {path: path.read_bytes() for path in below(tmp_path)}
    status, _, err = command(*TINY, "hydra.run.dir=here", "seed=1")
    assert status == 5
    assert "holds a run already, another one (seed is 0 there and 1 here)" in err
    assert {path: path.read_bytes() for path in below(tmp_path)} == before


NO_ROOM = OSError(errno.ENOSPC, "No space left on device", "a.txt")


@pytest.mark.slow
@pytest.mark.parametrize(("error", "sweep", "expected"), [
    (NO_ROOM, "seed=0,1,2", (5, ["failed"])),
    (DataError("damaged"), "data.split=standard,holdout", (3, ["failed"])),
    # What only runs of other data would share.
    (DataError("damaged"), "data.seed=1,2", (4, ["failed", "completed"])),
    (DataError("damaged"), "sweep=lr_batch sweep.trials=3", (3, ["failed"])),
])  # fmt: skip
def test_after_a_fault_that_all_runs_share_none_is_started(
    command, monkeypatch, error, sweep, expected
):
    from fmbench.runs import run as runs

    read_inputs, faults = runs.read_inputs, iter([error])

    def read_or_fail(config, base):
        fault = next(faults, None)
        if fault is not None:
            raise fault
        return read_inputs(config, base)

    monkeypatch.setattr(runs, "read_inputs", read_or_fail)
    status, _, err = command("-m", *TINY, "epochs=1", *sweep.split())
    assert (status, [record["status"] for record in records(Path.cwd())]) == expected, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("fmbench: ") == (status != 4)


@pytest.mark.slow
def test_a_sweep_is_refused_a_folder_with_other_runs(command, tmp_path):
    assert command("-m", *TINY, "epochs=1", "seed=0,1", "hydra.sweep.dir=here")[0] == 0
    (tmp_path / "here" / "benchmark.md").write_text("notes")
    kept = [path for path in below(tmp_path) if path.name != LOCK_NAME]
    before = [path.read_bytes() for path in kept]
    status, out, err = command("-m", *TINY, "seed=7,8", "hydra.sweep.dir=here")
    assert status == 5
    assert out == ""
    assert "holds runs that are not of this sweep, such as 0 (" in err
    assert [path for path in below(tmp_path) if path.name != LOCK_NAME] == kept
    assert [path.read_bytes() for path in kept] == before


def test_a_config_cannot_trust_itself(command, tmp_path):
    (tmp_path / "victim").mkdir()
    write_option(
        "model/evil.yaml",
        "# @package _global_\n"
        "model: {_target_: shutil.rmtree, path: victim}\n"
        "hydra: {job: {env_set: {FMBENCH_TRUST: shutil}}}\n",
    )
    status, _, err = command("-m", "--config-dir", "mine", *TINY, "model=lenet5,evil")
    assert status == 2
    assert "env_set" in err
    bare = [*TINY, "~hydra.callbacks.preflight", "+hydra.job.env_set.A=1"]
    assert command(*bare)[0] == 2
    raises_one_line(lambda: package.run(bare), ConfigError, "env_set")
    assert records(tmp_path) == []
    assert (tmp_path / "victim").is_dir()


@pytest.mark.slow
def test_relative_data_are_found_from_a_run_that_changes_its_folder(command, tmp_path, monkeypatch):

    from fmbench.data import known
    from fmbench.data.load import load

    roots = []
    drawn = load({"name": "synthetic", "train_size": 200, "test_size": 50, "seed": 0})
    monkeypatch.delenv("FMBENCH_DATA", raising=False)
    monkeypatch.setattr(known, "_find", lambda _, folders: roots.append(folders[0]))
    monkeypatch.setattr(known, "_read", lambda *_: drawn)
    for given, expected in (("data.root=somewhere", "somewhere"), ("data.root=null", "data")):
        status, _, err = command("hydra.job.chdir=true", "model=lenet5", "epochs=1", given)
        assert status == 0, err
        assert set(roots) == {tmp_path / expected}
        roots.clear()


def test_record_says_what_the_predictions_and_the_model_say(command, tmp_path):
    from fmbench.data.load import load
    from fmbench.data.splits import make_split

    splits = ["data.split=custom", "data.split.validation=30"]
    assert command(*TINY, *splits, "evaluation.every=1", "epochs=3", "seed=2")[0] == 0
    (record,) = records(tmp_path)
    (path,) = tmp_path.rglob("predictions.npy")
    dataset = load(record["config"]["data"])
    split = make_split(dataset, record["config"]["data"])
    labels = dataset.labels[split.test]
    predictions = np.load(path)
    assert (predictions == labels).mean() == pytest.approx(record["test_accuracy"])
    lines = path.with_name("history.jsonl").read_text("utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    assert [line["epoch"] for line in history] == [0, 1, 2]
    assert history[-1]["validation_accuracy"] == record["validation_accuracy"]
    assert history[-1]["test_accuracy"] == record["test_accuracy"]
    tested = [line["test_accuracy"] for line in history]
    assert record["best_test_accuracy"] == max(tested)
    assert record["best_test_epoch"] == tested.index(max(tested))
    trained = sum(line["seconds"] for line in history)
    assert record["seconds"]["train"] == pytest.approx(trained)
    assert record["images_per_second"] == pytest.approx(3 * 70 / trained)
    assert record["flops"] == 563_280
    assert record["split"]["hash"] == split.hash
    assert record["data"]["sha256"] == dataset.sha256


def test_precision_and_rate_asked_for_are_those_recorded(command, tmp_path):
    asked = ["precision=bf16", "optimizer.lr=0.02", "scheduler=constant", "deterministic=true"]
    assert command(*TINY, *asked)[0] == 0
    (record,) = records(tmp_path)
    fingerprint = record["fingerprint"]
    assert fingerprint["precision"] == "bf16"
    assert fingerprint["deterministic"] is True
    assert fingerprint["threads"] == 1
    assert record["learning_rate"] == 0.02
    (path,) = tmp_path.rglob("history.jsonl")
    history = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["learning_rate"] for line in history] == [0.02, 0.02]
    assert record["test_loss"] == history[-1]["test_loss"] != record["train_loss"]


@pytest.mark.parametrize(
    ("text", "said"), [("epochs: 1", "epochs"), ("defaults: [/more/epochs]", "/more/epochs")]
)
def test_a_ready_sweep_may_not_set_a_knob_that_its_records_would_lose(command, text, said):
    params = "hydra: {sweeper: {params: {seed: '0,1'}}}"
    write_option("sweep/short.yaml", f"# @package _global_\n{text}\n{params}\n")
    write_option("more/epochs.yaml", "# @package _global_\nepochs: 1\n")
    status, _, err = command("-m", "--config-dir", "mine", *TINY[:-2], "sweep=short")
    assert status == 2
    assert f"mine/sweep/short.yaml: sets {said};" in err


def test_help_is_our_own_page_and_names_every_knob_and_option(command):
    status, out, _ = command("--help")
    assert status == 0
    for option in (CHECKOUT / "conf").glob("*/*.yaml"):
        if option.parent.name != "hydra":
            assert option.stem in out, option
    for key, value in schema.defaults().items():
        shown = json.dumps(value).strip('"')
        assert f"{key}={shown}" in out, key
    assert "python -m fmbench model=densenet data.split=custom" in out
    assert "-sc install=bash" in out
    assert "$" not in out.replace("$(fmbench", "")


def test_version(command):
    assert command("--version") == (0, f"fmbench {package.__version__}\n", "")


def test_completion_knows_the_options_and_ones_own(command, tmp_path, monkeypatch):
    write_option("model/mynet.yaml", "_target_: x\n")
    write_option("model/yournet.yaml", "_target_: x\n", "yours")
    for line, found in {
        "--config-dir mine --config-dir=yours --config-dir nowhere model=": {
            "model=mynet", "model=yournet", "model=lenet"
        },
        "data.split=": {"data.split=custom", "data.split=holdout", "data.split=standard"},
    }.items():  # fmt: skip
        monkeypatch.setenv("COMP_LINE", f"fmbench {line}")
        status, out, _ = command("-sc", "query=bash")
        assert status == 0
        assert found <= set(out.split())


@pytest.mark.slow
def test_as_a_module_in_its_own_process(tmp_path):
    done = fmbench("-m", *TINY, "epochs=1", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path)) == 2
    assert list(tmp_path.rglob("figures/*.png"))
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_a_model_of_ones_own_needs_trust_and_a_file(command, tmp_path, monkeypatch):
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Linear(nn.Sequential):\n"
        "    def __init__(self, width):\n"
        "        assert not torch.ones(1).item() - 1  # cannot be built on the meta device\n"
        "        super().__init__(\n"
        "            nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10)\n"
        "        )\n"
    )
    write_option("model/mynet.yaml", "_target_: mypackage.Linear\nwidth: 32\n")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--config-dir", "mine", *TINY, "model=mynet", "model.width=8"]
    status, _, err = command(*arguments)
    assert status == 2
    assert "mypackage.Linear" in err
    monkeypatch.setenv("FMBENCH_TRUST", "mypackage")
    status, _, err = command(*arguments)
    assert status == 0, err
    (record,) = records(tmp_path)
    assert record["model"] == "mynet"
    assert record["parameters"] == 784 * 8 + 8 + 8 * 10 + 10


@pytest.mark.slow
def test_options_of_ones_own_in_several_folders(command, tmp_path, monkeypatch):
    """As the best of a search over one's own model is run; and the record makes it again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    # As some editors write it, and with a name that looks like a number.
    write_option("model/1e3.yaml", "\ufeff# mine\n_target_: fmbench.models.lenet5.LeNet5\n")
    text = best.text([*TINY, "model=1e3", "seed=4"], number=0, accuracy=None)
    write_option("experiment/best.yaml", text.replace("\n", "\r\n"), "search")
    given = ["--config-dir=~/mine", "--config-dir", "search", "experiment=best", "epochs=1"]
    status, _, err = command(*given, "hydra.run.dir=~/run")
    assert status == 0, err
    (record,) = records(tmp_path / "run")
    assert (record["model"], record["seed"]) == ("1e3", 4)
    assert record["config_dirs"] == [f"{tmp_path}/mine", f"{tmp_path}/search"]
    assert record["deviations"] == ["epochs=1"]
    again = package.run(record["overrides"], config_dir=record["config_dirs"])
    assert again.key == record["key"]
    assert package.run([*TINY, "model=1e3"], config_dir="mine").model == "1e3"
    given = ["-m", "--config-dir", "mine", *TINY[:3], "epochs=1", "threads=1", "model=1e3,lenet5"]
    status, _, err = command(*given)
    assert status == 0, err
    assert [record["model"] for record in records(tmp_path / "multirun")] == ["1e3", "lenet5"]


@pytest.mark.parametrize("value", ["~/räume/1", "'~/räume/1'"])
def test_folders_of_any_name(command, tmp_path, monkeypatch, value):
    home = tmp_path / "jörg's #1"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    status, _, err = command(*TINY, "epochs=1", f"hydra.run.dir={value}")
    assert status == 0, err
    assert (home / "räume" / "1" / "result.json").is_file()
    assert not (tmp_path / "~").exists()
    assert package.load_results("~").shape[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("start", ["module", "script", "processes"])
def test_a_model_in_the_current_folder_is_found_however_it_is_started(tmp_path, start):
    (tmp_path / "mynets.py").write_text("from fmbench.models.lenet5 import LeNet5 as Mine\n")
    (tmp_path / "random.py").write_text("raise SystemExit('this is not the one')\n")
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "mynet.yaml").write_text("_target_: mynets.Mine\n")
    # As the console script does it, which has its own folder first.
    script = "import sys; sys.path[0] = '/usr/bin'; from fmbench.__main__ import main; main()"
    how = ["-c", script] if start == "script" else ["-m", "fmbench"]
    given = ["--config-dir", "mine", *TINY, "epochs=1", "model=mynet"]
    if start == "processes":
        (tmp_path / "random.py").unlink()  # the launchers' own processes start as they will
        given = ["-m", *given, "seed=0,1", "hydra/launcher=processes"]
    trust = {"FMBENCH_TRUST": "mynets,fmbench.models"}
    done = python(*how, *given, cwd=tmp_path, environment=trust)
    assert done.returncode == 0, done.stderr
    (record, *_) = records(tmp_path)
    assert (record["model"], record["trust"]) == ("mynet", "mynets,fmbench.models")


@pytest.mark.slow
@pytest.mark.real_data
def test_real_images_train_and_give_the_same_bits_twice(fashion_mnist_root, command, tmp_path):
    for name in "ab":
        status, _, err = command(
            f"data.root={fashion_mnist_root}", "data.split=custom", "model=lenet5", "epochs=1",
            "batch_size=512", "threads=1", f"hydra.run.dir={name}",
        )  # fmt: skip
        assert status == 0, err
    first, second = records(tmp_path)
    assert first["split"] | {"hash": ""} == {
        "name": "custom", "train": 30_000, "validation": 0, "test": 40_000, "hash": ""
    }  # fmt: skip
    assert first["test_loss"] == second["test_loss"]
    assert first["test_accuracy"] > 0.5
    assert str(fashion_mnist_root) not in json.dumps(first)
