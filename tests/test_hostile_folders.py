"""Folders and config files that somebody sent: nothing is written outside of the run's folder."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
from commands import KEPT, TINY, write_option
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

import fmbench
from fmbench.cli.callbacks import RunLog
from fmbench.core.errors import ConfigError, StorageError
from fmbench.core.files import LOCK_NAME, append_regular, make_folder, refuse_links
from fmbench.records.folder import RunFolder, SweepFolder, held

# Folders that somebody sent: nothing is written through what they hold


@pytest.fixture
def outside(tmp_path):
    """A folder of the user's, with files that no attack may change."""
    folder = tmp_path / "home"
    (folder / "empty").mkdir(parents=True)
    (folder / "precious").write_text("mine\n")
    before = _tree(folder)
    yield folder
    assert _tree(folder) == before


def _tree(folder):
    return {
        path: path.read_bytes() if path.is_file() else path.lstat().st_mode
        for path in folder.rglob("*")
    }


def _interrupted(kept_run, folder):
    """The folder of a run that goes on when it is started again."""
    shutil.copytree(kept_run, folder)
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    return folder


def _link(path, target):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _one_line(said, status, *parts):
    code, _, err = said
    assert (code, err.count("\n"), "Traceback" in err) == (status, 1, False), err
    assert all(part in err for part in parts), err


@pytest.mark.parametrize(("name", "target"), [
    ("fmbench.log", "precious"),
    (".hydra", "empty"),
    (".hydra/config.yaml", "precious"),
    ("history.jsonl", "new"),
])  # fmt: skip
def test_a_run_that_goes_on_writes_through_no_link(name, target, command, kept_run, outside):
    folder = _interrupted(kept_run, outside.parent / "run")
    _link(folder / name, outside / target)
    before = _tree(folder)
    said = command(*KEPT, f"hydra.run.dir={folder}")
    _one_line(said, 5, f"{folder / name}: is a link", "take another folder")
    with pytest.raises(StorageError, match="is a link"):
        fmbench.run([*KEPT, f"hydra.run.dir={folder}"])
    assert _tree(folder) == before


@pytest.mark.parametrize(("name", "given"), [
    ("0", []),
    ("0/fmbench.log", ["hydra/launcher=joblib"]),
    ("multirun.yaml", []),
    ("study.db", ["sweep=lr_batch", "sweep.trials=1"]),
])  # fmt: skip
def test_a_sweep_that_goes_on_writes_through_no_link(name, given, command, kept_run, outside):
    target = {"0": "empty", "study.db": "new"}.get(name, "precious")
    folder = outside.parent / "sweep"
    if name != "study.db":
        _interrupted(kept_run, folder / "0")
    _link(folder / name, outside / target)
    said = command("-m", *KEPT, f"hydra.sweep.dir={folder}", *given)
    _one_line(said, 5, f"{folder / name}: is a link")


def test_every_kind_of_entry_that_leads_elsewhere_is_refused(outside, tmp_path):
    folder = tmp_path / "received"
    (folder / "0" / ".hydra").mkdir(parents=True)
    (folder / "0" / "model.safetensors").hardlink_to(outside / "precious")  # written anew
    submitted = folder / ".submitit" / f".submission_file_{'0a' * 16}.sh"
    _link(submitted, outside / "precious")  # of submitit, which never opens it again
    refuse_links(folder)
    deep = folder / "0" / ".hydra"
    for make, why in (
        (lambda path: path.symlink_to(outside / "precious"), "is a link"),
        (lambda path: path.symlink_to(outside / "empty"), "is a link"),
        (lambda path: path.symlink_to(outside / "nothing"), "is a link"),
        (lambda path: path.symlink_to("hydra.yaml"), "is a link"),
        (lambda path: path.hardlink_to(outside / "precious"), "is a hard link"),
        (os.mkfifo, "is not a regular file"),
        (_socket, "is not a regular file"),
    ):
        make(deep / "config.yaml")
        for refused in (refuse_links, RunFolder, SweepFolder, lambda path: held(path, {})):
            with pytest.raises(StorageError, match=f"config.yaml: {why}"):
                refused(folder)
        (deep / "config.yaml").unlink()
    assert not (folder / LOCK_NAME).exists()


@pytest.mark.parametrize("name", ["study.db", "study.journal", "study.journal.lock"])
def test_a_study_of_another_name_elsewhere_is_refused(outside, tmp_path, name):
    """They are written where they are."""
    (tmp_path / "received").mkdir()
    (tmp_path / "received" / name).hardlink_to(outside / "precious")
    with pytest.raises(StorageError, match=f"{name}: is a hard link"):
        refuse_links(tmp_path / "received")


def _socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have 100 characters
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def test_a_file_that_is_appended_to_is_never_reached_by_a_link(outside, tmp_path):
    """Where a link takes the place of a file after the folder was looked at."""
    path = tmp_path / "fmbench.log"
    with open(path, "a", opener=append_regular) as file:
        file.write("a")
    assert path.read_text() == "a"
    for make, why in (
        (lambda: path.symlink_to(outside / "precious"), "is a link"),
        (lambda: path.symlink_to(outside / "new"), "is a link"),
        (lambda: path.hardlink_to(outside / "precious"), "is a hard link"),
        (lambda: os.mkfifo(path), "not a regular file"),
    ):
        path.unlink()
        make()
        with pytest.raises(OSError, match=why):
            append_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with RunFolder(tmp_path / "run") as folder:
            _link(folder.path / "history.jsonl", outside / "precious")
            with pytest.raises(StorageError, match=r"history.jsonl: cannot be written: is a link"):
                folder.append_history({"epoch": 0})
            (folder.path / "history.jsonl").unlink()
    _link(tmp_path / "experiment", outside / "empty")
    with pytest.raises(StorageError, match="experiment: cannot be written: it is a link"):
        make_folder(tmp_path / "experiment")


def test_the_log_of_a_run_is_opened_in_its_folder_alone(outside, tmp_path, monkeypatch):
    """In whatever process the run starts, and before Hydra writes there."""
    folder = tmp_path / "sweep" / "0"
    hydra = {"mode": RunMode.MULTIRUN, "sweep": {"dir": str(folder.parent)}}

    def opened(place):
        config = OmegaConf.create({"hydra": hydra | {"runtime": {"output_dir": str(place)}}})
        monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
        RunLog(str(place / "fmbench.log"), encoding="utf-8").close()

    for place in (outside, folder.parent, folder.parent.with_name("sweep2")):
        with pytest.raises(ConfigError, match="must be below its sweep's"):
            opened(place)
    folder.mkdir(parents=True)
    opened(folder)
    opened(folder)
    (folder / "a.txt").touch()  # of another handler of the user's own
    opened(folder)
    (folder / "checkpoint.pt").touch()
    with pytest.raises(StorageError, match=r"it holds checkpoint.pt and no result"):
        opened(folder)
    (folder / "checkpoint.pt").unlink()
    _link(folder / "fmbench.log", outside / "precious")
    with pytest.raises(StorageError, match="is a link"):
        opened(folder)
    monkeypatch.setattr("fmbench.cli.callbacks.refuse_links", lambda _: None)  # it came later
    with pytest.raises(OSError, match="is a link"):
        opened(folder)


def test_links_above_the_folder_go_on_working(command, kept_run, tmp_path):
    """A results root on another disk, and a name for the newest run."""
    disk = tmp_path / "disk"
    _interrupted(kept_run, disk / "runs" / "first")
    (tmp_path / "outputs").symlink_to(disk)
    (disk / "latest").symlink_to("runs/first")
    assert command(*KEPT, "epochs=2", "hydra.run.dir=outputs/latest")[0] == 0
    assert json.loads((disk / "runs/first/result.json").read_text())["status"] == "completed"
    assert (disk / "runs/first/fmbench.log").stat().st_size > 100


# Config files that somebody sent: they decide on no folder but one below the current


SENT = ["--config-dir", "mine", *TINY, "epochs=1"]


@pytest.mark.parametrize(("given", "name", "part"), [
    # By a key that stands in the name of a folder that was typed.
    (["hydra.run.dir='runs/${logger.experiment}'"], "../home/new", "comes to runs/../home/new"),
    (["hydra.run.dir='${logger.experiment}'"], "{home}/new", "comes to /"),
    (["-m", "hydra.sweep.subdir='${hydra.job.override_dirname}'"], "x", "comes to "),
    (["-m", "hydra.sweep.subdir='${hydra.job.num}/${logger.experiment}'"], "../..", "0/../.."),
])  # fmt: skip
def test_no_key_of_a_file_leads_a_run_out_of_its_folder(given, name, part, command, outside):
    params = "{logger.experiment: 'b,a/../../../../home/new'}" if name == "x" else "{seed: '0,1'}"
    write_option(
        "experiment/evil.yaml",
        f"# @package _global_\nlogger: {{experiment: '{name.format(home=outside)}'}}\n"
        f"hydra: {{sweeper: {{params: {params}}}}}\n",
    )
    before = _tree(outside.parent)
    _one_line(command(*SENT, "experiment=evil", *given), 2, part)
    assert _tree(outside.parent) == before


@pytest.mark.slow
@pytest.mark.parametrize(("swept", "given"), [
    ("model", []),
    ("+kind", []),
    ("model", ["sweep=lr_batch", "optimizer.lr=0.1", "batch_size=32"]),
])  # fmt: skip
def test_options_set_nothing_of_hydra_together(swept, given, command, outside):
    """Each of two that are swept may be harmless, and the file that they choose together not."""
    handler = f"{{class: logging.FileHandler, filename: {outside}/new}}"
    evil = f"hydra: {{job_logging: {{handlers: {{x: {handler}}}}}}}"
    for name in ("lenet", "lenet5"):
        for schedule in ("onecycle", "constant", "cosine"):
            text = evil if (name, schedule) == ("lenet5", "cosine") else "epochs: 1"
            write_option(f"together/{name}_{schedule}.yaml", f"# @package _global_\n{text}\n")
        text = f"# @package _global_\ndefaults: [/together: '{name}_${{scheduler}}']\n"
        write_option(f"kind/{name}.yaml", text)
    write_option("experiment/evil.yaml", text.replace("lenet5", "${model}"))
    chosen = ["experiment=evil"] * (swept == "model")
    grid = ["-m", f"{swept}=lenet,lenet5", "scheduler=constant,cosine", *chosen]
    said = command("--config-dir=mine", *TINY[:3], "threads=1", "epochs=1", *grid, *given)
    assert said[0] == 2
    assert "hydra.job_logging.handlers.x: a config file may not" in said[2].splitlines()[-1]


@pytest.mark.slow
def test_help_opens_no_log_that_a_file_names(command, outside):
    handler = f"{{class: logging.FileHandler, filename: {outside}/precious, mode: w}}"
    text = f"hydra: {{hydra_logging: {{handlers: {{x: {handler}}}}}}}"
    write_option("experiment/evil.yaml", f"# @package _global_\n{text}\n")
    given = ["--config-dir=mine", "experiment=evil"]
    part = "hydra.hydra_logging.handlers.x: a config file may not"
    _one_line(command("--help", *given), 2, part)
    _one_line(command("--help", "experiment=evil", "hydra.searchpath=[file://mine]"), 2, part)
    for look in ("--hydra-help", "--cfg=job", "--info=all"):
        assert command(look, *given)[0] == 0
    assert command("--hydra-help", "--config-dir=mine", "+experiment=evil")[0] == 0


def test_a_folder_of_the_users_is_not_taken_for_that_of_a_run_or_a_sweep(command, tmp_path):
    project = tmp_path / "project"
    (project / ".hydra").mkdir(parents=True)
    (project / "0").mkdir()
    for name in ("fmbench.log", ".hydra/config.yaml", "mlflow.json", "0/train.py"):
        (project / name).write_text("mine\n")
    before = _tree(tmp_path / "project")
    for part in ("run", "sweep"):
        write_option(
            f"experiment/{part}.yaml", f"# @package _global_\nhydra: {{{part}: {{dir: project}}}}\n"
        )
    _one_line(command(*SENT, "experiment=run"), 5, "project: is no folder of a run, it holds 0")
    with pytest.raises(StorageError, match="is no folder of a run"):
        fmbench.run([*TINY, "experiment=run"], config_dir="mine")
    said = command("-m", *SENT, "experiment=sweep")
    _one_line(said, 5, "project: is no folder of a sweep, it holds .hydra")
    assert _tree(project) == before


def test_what_a_start_leaves_before_it_has_a_record_is_no_users_folder(kept_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(kept_run / ".hydra", folder / ".hydra")
    for name in ("fmbench.log", "slurm-12.out", LOCK_NAME, ".result.json.12.0123abcd"):
        (folder / name).touch()
    assert held(folder, {}) is None
    SweepFolder(tmp_path / "made").release()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "driver.log").touch()
    SweepFolder(tmp_path / "made").release()
    (folder / ".hydra" / "mine").touch()
    with pytest.raises(StorageError, match=r"it holds \.hydra and no result"):
        held(folder, {})


@pytest.mark.parametrize(
    "root", ["{home}/new", "../home/new", "~/new", "${{oc.env:FMBENCH_DATA,x}}/new"]
)
def test_data_go_where_a_file_says_only_inside_the_current_folder(
    root, command, outside, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(outside))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    root = root.format(home=outside)
    write_option(
        "data/evil.yaml",
        f"name: fashion_mnist\nroot: {root}\nmirrors: []\ndownload: true\nmean: 0\nstd: 1\n",
    )
    _one_line(command("--config-dir", "mine", "data=evil"), 2, f"data.root={root}: a config file")
