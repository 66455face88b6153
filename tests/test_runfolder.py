"""The folder of a run: what is written there, and which run it holds."""

import json
import sys

import pytest
from records import record

from fmbench.errors import StorageError
from fmbench.record import Record
from fmbench.runfolder import RunFolder, SweepFolder, held
from fmbench.storage import FolderLock


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "run") as made:
        yield made


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit for the size of a file")
def test_a_line_of_history_that_does_not_fit_leaves_no_part(folder):
    import resource

    folder.append_history({"epoch": 0})
    path = folder.path / "history.jsonl"
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5, before[1]))
    try:
        with pytest.raises(StorageError, match=r"history.jsonl: cannot be written: the disk is"):
            folder.append_history({"epoch": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole
    folder.append_history({"epoch": 1})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize("kept", [True, False])
def test_the_checkpoints_of_a_run_at_its_end_stay_where_they_were_asked_for(kept, folder):
    for path in folder.checkpoints:
        path.write_bytes(b"a")
    folder.tidy(Record.from_json(json.dumps(record(config={"keep_checkpoint": kept}))))
    assert [path.exists() for path in folder.checkpoints] == [kept, kept]


def test_a_config_that_has_less_is_another(folder):
    config = {"epochs": 3, "model": {"width": 4, "depth": 2}}
    (folder.path / "result.json").write_text(json.dumps(record(config=config)))
    assert held(folder.path, config).config == config
    assert held(folder.path, {**config, "threads": 2}).config == config
    less = {"epochs": 3, "model": {"width": 4}}
    with pytest.raises(StorageError, match=r"model.depth is 2 there and not set here"):
        held(folder.path, less)


def test_a_history_alone_is_a_run_too(folder):
    assert held(folder.path, {}) is None
    folder.append_history({"epoch": 0})
    with pytest.raises(StorageError, match=r"holds a run already \(history.jsonl\)"):
        held(folder.path, {})


def test_a_sweeps_folder_is_its_own_until_it_lets_go(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").touch()
    folder = SweepFolder(tmp_path)
    with pytest.raises(StorageError, match="another process is at work there"):
        SweepFolder(tmp_path)
    folder.release()
    FolderLock(tmp_path).release()
    assert (tmp_path / "0").is_dir()  # what others have left stays
