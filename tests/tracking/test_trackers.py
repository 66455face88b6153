"""What a tracker holds of a run, read back with the tracker's own package.

It is compared with the run's history, also where runs are stopped and go on, and where trackers
fail.
"""

import ast
import json
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from commands import CHECKOUT, TINY, compose, python, records, started, write_option

import fmbench as package
from fmbench import tracking
from fmbench.config.schema import LOGGERS
from fmbench.core.errors import ConfigError, installs
from fmbench.records.folder import mark_ended
from fmbench.records.record import keys, recorded_config, recorded_overrides
from fmbench.runs import run as runs
from fmbench.runs.checkpointing import RunState

pytestmark = pytest.mark.usefixtures("no_pictures")

#: Every epoch with validation and test: three steps, a batch of each.
RUN = [*TINY, "data.split.validation=20", "evaluation.every=1"]


def needs(name):
    reason = f"{name} is not installed, of the extra {name}"
    return [getattr(pytest.mark, name), pytest.mark.skipif(not find_spec(name), reason=reason)]


def only(name):
    def mark(test):
        for one in needs(name):
            test = one(test)
        return test

    return mark


TRACKERS = [pytest.param(name, marks=needs(name)) for name in LOGGERS if name != "none"]


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """An MLflow database without a run; its tables take seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    if find_spec("mlflow"):
        script = f"import mlflow; mlflow.MlflowClient('sqlite:///{folder}/mlflow.db')"
        assert python("-c", script, cwd=folder).returncode == 0
    return folder / "mlflow.db"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name, value in tracking.MLFLOW_DEFAULTS.items():
        monkeypatch.setenv(name, value)
    if "mlflow" in request.node.keywords and find_spec("mlflow"):
        shutil.copy(request.getfixturevalue("tables"), tmp_path)


def run(name, *overrides):
    return package.run([*RUN, f"logger={name}", "hydra.run.dir=run", *overrides])


@pytest.fixture
def stop_at(monkeypatch):
    """Stop the run at the n-th moment at which that is possible; saved, or not."""

    def set_up(moment, *, saved=True):
        left = [moment]
        between = RunState.after_batch

        def counted(self):
            left[0] -= 1
            if not left[0] and not saved:
                raise KeyboardInterrupt
            if not left[0]:
                self.listener.asked = 15
            between(self)

        monkeypatch.setattr(RunState, "after_batch", counted)

    return set_up


def stopped(name, *overrides):
    with pytest.raises(KeyboardInterrupt):
        run(name, *overrides)


def history(folder=Path("run")):
    """Points by name: a list of step and value."""
    points = {}
    for text in (folder / "history.jsonl").read_text().splitlines():
        line = json.loads(text)
        step = line.pop("epoch")
        for key, value in line.items():
            points.setdefault(key, []).append((step, value))
    return points


def client():
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")


def of_mlflow(folder=Path("run")):
    """The run in MLflow."""
    named = json.loads((folder / "mlflow.json").read_text())["run"]
    with warnings.catch_warnings(action="ignore"):
        return client().get_run(named)


def events(folder=Path("run")):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    return read.Reload()


def held(name, folder=Path("run")):
    """Points by name, as the tracker has them; its last ones apart."""
    found = {}
    if name == "mlflow":
        run = of_mlflow(folder)
        for key in run.data.metrics:
            with warnings.catch_warnings(action="ignore"):
                points = client().get_metric_history(run.info.run_id, key)
            found[key] = [(point.step, point.value) for point in points]
    else:
        read = events(folder)
        for tag in read.Tags()["scalars"]:
            what, _, part = tag.partition("/")
            key = f"final_{part}" if what == "final" else f"{part}_{what}" if part else what
            found[key] = [(point.step, point.value) for point in read.Scalars(tag)]
    final = {key: found.pop(key) for key in list(found) if key.startswith("final_")}
    return found, final


def as_kept(name, points):
    """What a tracker makes of numbers: TensorBoard has 32 bits for each."""
    if name == "mlflow":
        return points
    return {
        key: [(step, float(np.float32(value))) for step, value in pairs]
        for key, pairs in points.items()
    }


def hparams():
    """The settings in the event files, and the status that the run ended with, if it did."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    of_plugin = events().PluginTagToContent("hparams")
    data = {tag: HParamsPluginData.FromString(content) for tag, content in of_plugin.items()}
    settings = {}
    for key, value in data["_hparams_/session_start_info"].session_start_info.hparams.items():
        settings[key] = getattr(value, value.WhichOneof("kind"))
    end = data.get("_hparams_/session_end_info")
    return settings, None if end is None else end.session_end_info.status


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_holds_history_settings_and_status(name):
    record = run(name, "optimizer=adam", "logger.experiment=mine")
    points, final = held(name)
    assert points == as_kept(name, history())
    assert {len(pairs) for pairs in points.values()} == {2}
    assert set(points) >= {"learning_rate", "seconds", "train_loss", "test_accuracy"}
    expected = {
        "final_test_accuracy": [(2, record.test_accuracy)],
        "final_best_test_accuracy": [(2, record.best_test_accuracy)],
        "final_validation_accuracy": [(2, record.validation_accuracy)],
        "final_parameters": [(2, 44_426)],
        "final_flops": [(2, record.flops)],
        "final_train_seconds": [(2, record.seconds["train"])],
        "final_evaluate_seconds": [(2, record.seconds["evaluate"])],
        "final_total_seconds": [(2, record.seconds["total"])],
    }
    assert final == as_kept(name, expected)
    (check_mlflow if name == "mlflow" else check_tensorboard)(record)


#: Of the run above, as texts in both.
SETTINGS = {"model": "lenet5", "data.split": "standard", "optimizer.betas": "[0.9, 0.999]"}


def check_tensorboard(record):
    settings, status = hparams()
    expected = SETTINGS | {"optimizer.lr": record.config["optimizer"]["lr"], "seed": 0}
    expected |= {"batch_size": 64, "deterministic": False, "augmentation.crop": "null"}
    assert {key: settings[key] for key in expected} == expected
    assert status == 1  # a success
    assert "data.root" not in settings
    # One run and no other: TensorBoard makes a run of every folder with events in it.
    (file,) = Path("run").rglob("events.*")
    assert file.parent == Path("run/tensorboard")
    (text,) = events().Tensors("status/text_summary")
    assert (text.step, text.tensor_proto.string_val) == (2, [b"completed"])


def check_mlflow(record):
    made = of_mlflow()
    parameters = made.data.params
    expected = SETTINGS | {"batch_size": "64", "deterministic": "false"}
    assert {key: parameters[key] for key in expected} == expected
    assert "data.root" not in parameters
    assert made.info.status == "FINISHED"
    assert made.info.run_name.endswith("/run")
    assert made.data.tags["fmbench.status"] == "completed"
    assert made.data.tags["fmbench.key"] == record.key
    assert str(Path.cwd()) not in str(made.data)
    with warnings.catch_warnings(action="ignore"):
        assert client().get_experiment(made.info.experiment_id).name == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_that_goes_on_continues_its_own(name, stop_at):
    """Killed in its fourth epoch, after a checkpoint at the second: the third is done twice."""
    stop_at(18, saved=False)
    stopped(name, "epochs=4", "checkpoint_every=2")
    twice = {name: history()[name][2] for name in ("seconds", "wall")}
    before = held(name)[0]
    assert before == as_kept(name, history())
    assert len(before["train_loss"]) == 3
    if name == "mlflow":
        first = of_mlflow()
        assert (first.info.status, first.data.tags["fmbench.status"]) == ("KILLED", "interrupted")
    else:
        assert hparams()[1] is None
    stop_at(1000)
    run(name, "epochs=4", "checkpoint_every=2")
    points, final = held(name)
    expected = history()
    if name == "mlflow":  # which takes nothing back
        for clock, value in twice.items():
            expected[clock][2] = value
        assert of_mlflow().info.run_id == first.info.run_id
        assert of_mlflow().info.status == "FINISHED"
    else:
        assert len(list(Path("run/tensorboard").iterdir())) == 1
        assert hparams()[1] == 1
    assert points == as_kept(name, expected)
    assert all(len(pairs) == 1 for pairs in final.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_chosen_later_gets_all_epochs(name, stop_at):
    stop_at(7)
    stopped("none", "epochs=4")
    stop_at(7)
    stopped(name, "epochs=4")
    assert len(held(name)[0]["train_loss"]) > 1
    stop_at(1000)
    run("none", "epochs=4")
    assert len(held(name)[0]["train_loss"]) < 4


@pytest.mark.slow
@only("mlflow")
@pytest.mark.parametrize("gone", [False, True])
def test_a_run_that_goes_on_is_the_one_on_the_server_unless_it_is_gone_there(gone, stop_at):
    """Also where it was killed before it had its parameters."""
    stop_at(7)
    stopped("mlflow")
    made = of_mlflow().info.run_id
    if gone:
        client().delete_run(made)
    else:
        with closing(sqlite3.connect("mlflow.db")) as there:
            there.execute("delete from params")
            there.commit()
    stop_at(1000)
    run("mlflow")
    assert (of_mlflow().info.run_id == made) is not gone
    assert of_mlflow().data.params["model"] == "lenet5"
    assert held("mlflow")[0] == history()


@pytest.mark.slow
@only("mlflow")
def test_a_folder_that_was_received_writes_into_no_run_of_the_users(stop_at):
    tags = {"mlflow.source.name": "fmbench", "fmbench.token": "mine"}
    with warnings.catch_warnings(action="ignore"):
        made = client().create_run("0", tags=tags)
        mine = client().get_run(made.info.run_id)
    stop_at(7)
    stopped("mlflow")
    Path("run/mlflow.json").write_text(json.dumps({"run": mine.info.run_id, "token": "guessed"}))
    stop_at(1000)
    run("mlflow")
    assert of_mlflow().info.run_id != mine.info.run_id
    with warnings.catch_warnings(action="ignore"):
        assert client().get_run(mine.info.run_id).to_dictionary() == mine.to_dictionary()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_a_look_at_the_test_set_that_comes_later(name):
    run(name, "evaluation.every=null", "evaluation.test=never", "keep_checkpoint=true")
    assert "final_test_accuracy" not in held(name)[1]
    record = run(name, "evaluation.every=null", "keep_checkpoint=true")
    points, final = held(name)
    assert points == as_kept(name, history())
    last = {key: pairs[-1] for key, pairs in final.items()}
    expected = {
        "final_test_accuracy": [(2, record.test_accuracy)],
        "final_total_seconds": [(2, record.seconds["total"])],
    }
    assert {key: [last[key]] for key in expected} == as_kept(name, expected)


class Bad:
    """A tracker that draws random numbers, and fails where it is told to."""

    def __init__(self, fails):
        self.fails = fails
        self.calls = []

    def __getattr__(self, name):
        def call(*_):
            self.calls.append(name)
            random.random()
            if name == self.fails:
                warnings.warn("a warning of its own", stacklevel=1)
                raise RuntimeError("no room\nfor http://me:secret@server/")

        return call


ORDER = ["begin", "epoch", "epoch", "end", "close"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without a tracker: its record and its history."""
    folder = tmp_path_factory.mktemp("plain")
    return package.run([*RUN, f"hydra.run.dir={folder}"]), history(folder)


@pytest.mark.parametrize("fails", ["begin", "epoch", "end", "close", None])
def test_a_tracker_that_fails_harms_nothing(fails, plain, monkeypatch, caplog):
    plain, numbers = plain[0], dict(plain[1])
    state = random.getstate()
    bad = Bad(fails)
    monkeypatch.setattr(tracking, "_make", lambda *_: bad)
    record = run("none", "hydra.run.dir=other")
    assert record.status == "completed"
    assert (record.key, record.config) == (plain.key, plain.config)
    again = history(Path("other"))
    for clock in ("seconds", "wall"):
        del numbers[clock], again[clock]
    assert again == numbers
    assert random.getstate() == state
    warned = [text.getMessage() for text in caplog.records if text.levelname == "WARNING"]
    if fails in ("begin", "epoch", "end"):
        assert warned == [
            "logger=none: RuntimeError: no room for http://***@server/; the run goes on without"
        ]
        assert bad.calls == [*ORDER[: ORDER.index(fails) + 1], "close"]
    else:
        assert warned == []
        assert bad.calls == ORDER


@pytest.mark.parametrize("name", TRACKERS)
def test_a_store_that_cannot_be_written(name, monkeypatch, caplog):
    if name == "mlflow":
        Path("mlflow.db").write_text("no database")
    else:
        Path("run").mkdir()
        Path("run/taken.log").write_text("no folder")
        monkeypatch.setattr("fmbench.tracking.tensorboard.TENSORBOARD_NAME", "taken.log")
    assert run(name).status == "completed"
    assert caplog.text.count("the run goes on without") == 1
    assert len(history()["train_loss"]) == 2


@only("mlflow")
def test_a_server_that_is_gone(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run("mlflow").status == "completed"
    (warned,) = [one.message for one in caplog.records if one.levelno >= logging.WARNING]
    assert warned.endswith("the run goes on without")
    assert "\n" not in warned
    assert "secret" not in caplog.text


@only("tensorboard")
@pytest.mark.parametrize("after", [0, 12])
def test_a_disk_that_is_full_for_events(after, monkeypatch, caplog, capfd):
    """TensorBoard writes in a thread of its own, whose error would be printed as a traceback."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    write, calls = RecordWriter.write, []

    def full(self, data):
        calls.append(data)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    assert run("tensorboard").status == "completed"
    assert caplog.text.count("No space left on device; the run goes on without") == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_that_cannot_begin_has_failed(name, monkeypatch):
    def raises(*_arguments):
        raise RuntimeError("no net")

    monkeypatch.setattr(runs, "make_model", raises)
    with pytest.raises(RuntimeError, match="no net"):
        run(name)
    if name == "mlflow":
        tags = of_mlflow().data.tags
        assert of_mlflow().info.status == "FAILED"
        assert (tags["fmbench.status"], tags["fmbench.error"]) == ("failed", "RuntimeError: no net")
    else:
        (text,) = events().Tensors("status/text_summary")
        assert text.tensor_proto.string_val == [b"failed: RuntimeError: no net"]
        assert hparams()[1] is None  # it may go on


@pytest.mark.parametrize(
    ("status", "in_mlflow", "in_tensorboard"), [("diverged", "FAILED", 2), ("pruned", "KILLED", 2)]
)
@pytest.mark.parametrize("name", TRACKERS)
def test_ends_that_are_no_good_ones(name, status, in_mlflow, in_tensorboard, monkeypatch):
    if status == "pruned":
        execute = runs.execute
        monkeypatch.setattr(
            runs,
            "execute",
            lambda *given, **named: execute(*given, **{**named, "watch": lambda *_: True}),
        )
    record = run(name, *(["optimizer.lr=1e30"] if status == "diverged" else []))
    assert record.status == status
    if name == "mlflow":
        assert of_mlflow().info.status == in_mlflow
        assert of_mlflow().data.tags["fmbench.status"] == status
    else:
        assert hparams()[1] == in_tensorboard
    assert held(name)[0] == as_kept(name, history() if Path("run/history.jsonl").exists() else {})


@only("mlflow")
def test_a_run_whose_process_is_gone_is_ended_by_its_sweep(stop_at):
    stop_at(7)
    stopped("mlflow")
    made = of_mlflow().info.run_id
    client().update_run(made, status="RUNNING")
    text = Path("run/result.json").read_text()
    Path("run/result.json").write_text(text.replace('"interrupted"', '"running"'))
    mark_ended(Path("run"), "failed", "its process was killed by SIGKILL")
    tracking.settle(Path("run"), Path.cwd())
    assert of_mlflow().info.status == "FAILED"
    assert of_mlflow().data.tags["fmbench.error"] == "its process was killed by SIGKILL"


@pytest.mark.parametrize("arguments", [["hydra.run.dir=here"], ["-m", "seed=0,1"]])
@pytest.mark.parametrize("name", [name for name in LOGGERS if name != "none"])
def test_an_extra_that_is_missing_is_said_first(name, arguments, command, monkeypatch, tmp_path):
    monkeypatch.setattr("fmbench.core.errors.find_spec", lambda _name: None)
    status, _, said = command(*TINY, f"logger={name}", *arguments)
    assert status == 2
    assert said == (
        f"fmbench: logger={name}: {name} is not installed; {installs(name)} brings it\n"
    )
    assert [path.name for path in tmp_path.iterdir() if path.name != "mlflow.db"] == []


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "tracker_of_mine").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="is not installed"):
        tracking.refuse_missing({"name": "tracker_of_mine"})


def test_the_logger_is_no_part_of_a_run():
    plain, other = compose(), compose("logger=mlflow", "logger.experiment=mine")
    assert recorded_config(other) == recorded_config(plain)
    assert keys(other, "images", "split") == keys(plain, "images", "split")
    given = ["seed=1", "logger=mlflow", "logger.experiment=mine", "+logger.name=none"]
    assert recorded_overrides(given) == ["seed=1"]


@pytest.mark.parametrize("key", ["_target_: os.system", "uri: http://elsewhere"])
def test_a_config_file_names_no_server(key, command):
    write_option("logger/evil.yaml", f"name: mlflow\n{key}\n")
    status, _, said = command("--config-dir", "mine", *TINY, "logger=evil")
    assert status == 2
    assert f"logger.{key.partition(':')[0]}" in said
    assert said.count("\n") == 1


@only("mlflow")
def test_the_server_is_the_one_of_the_environment(monkeypatch):
    Path("elsewhere").mkdir()
    Path("mlflow.db").rename("elsewhere/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/mlflow.db")
    before = dict(os.environ)
    run("mlflow")
    assert dict(os.environ) == before
    assert not Path("mlflow.db").exists()
    with closing(sqlite3.connect("elsewhere/mlflow.db")) as there:
        assert there.execute("select status from runs").fetchall() == [("FINISHED",)]


def test_mlflow_reports_to_nobody(tmp_path):
    """Unless the user said otherwise; `fmbench.run` leaves it to the program that calls it."""
    script = (
        "import os, fmbench.__main__, fmbench.cli.main as cli; "
        "cli.main = lambda: print({k: v for k, v in os.environ.items() if k[:7] == 'MLFLOW_'}); "
        "fmbench.__main__.main()"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    given = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "7"}
    environment = {**bare, **given, "PYTHONPATH": str(CHECKOUT)}
    said = subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    assert ast.literal_eval(said.decode()) == {**tracking.MLFLOW_DEFAULTS, **given}


@only("mlflow")
def test_a_folder_whose_name_means_something_in_a_url(monkeypatch, caplog):
    Path("a?b").mkdir()
    monkeypatch.chdir("a?b")
    assert run("mlflow").status == "completed"
    assert "MLFLOW_TRACKING_URI may name another; the run goes on without" in caplog.text


@pytest.mark.slow
@only("mlflow")
def test_two_runs_at_once_that_make_one_database(tmp_path):
    Path("mlflow.db").unlink()
    words = [[*TINY, "logger=mlflow", f"seed={n}", f"hydra.run.dir={n}"] for n in (0, 1)]
    with started(*words[0], cwd=tmp_path) as one, started(*words[1], cwd=tmp_path) as other:
        said_by_both = [child.communicate(timeout=120)[1] for child in (one, other)]
        assert one.returncode == other.returncode == 0
    for seed, said in enumerate(said_by_both):
        assert "logger=" not in said
        assert "mlflow" not in said  # it says a lot, if it is let
        assert held("mlflow", Path(str(seed)))[0] == history(Path(str(seed)))
        assert of_mlflow(Path(str(seed))).info.status == "FINISHED"


@pytest.mark.slow
@only("tensorboard")
def test_a_search_may_go_on_with_another_logger(command):
    search = [*TINY, "-m", "sweep=lr_batch", "batch_size=16", "hydra.sweep.dir=here"]
    status, _, said = command(*search, "sweep.trials=2", "logger=tensorboard")
    assert status == 0, said
    for record, folder in zip(records(Path("here")), (Path("here/0"), Path("here/1")), strict=True):
        points, final = held("tensorboard", folder)
        assert points == as_kept("tensorboard", history(folder))
        assert ("final_test_accuracy" in final) == (record["test_accuracy"] is not None)
    status, _, said = command(*search, "sweep.trials=3", "logger=none")
    assert status == 0, said
    assert not Path("here/2/tensorboard").exists()
    assert "logger" not in Path("here/experiment/best.yaml").read_text()
