import copy
import dataclasses
import json
import os
from pathlib import Path

import pytest
import yaml
from commands import CHECKOUT, compose
from records import record

from fmbench.config import schema
from fmbench.config.whitelist import TARGETS
from fmbench.core.errors import StorageError
from fmbench.core.files import LOCK_NAME, write_whole
from fmbench.records.folder import RunFolder
from fmbench.records.record import USUAL, Record, keys, recorded_config, recorded_overrides


def test_a_method_names_what_is_not_usual():
    defaults = yaml.safe_load((CHECKOUT / "conf" / "config.yaml").read_text("utf-8"))["defaults"]
    chosen = {
        group: name for one in defaults if isinstance(one, dict) for group, name in one.items()
    }
    assert {group: chosen[group] for group in USUAL} == USUAL
    made = Record.from_json(json.dumps(record(optimizer="signum", **USUAL)))
    assert made.method == "optimizer signum"
    own = dataclasses.replace(made, loss="poly1", augmentation="flip")
    assert own.method == "optimizer signum, loss poly1, augmentation flip"


def test_key_changes_with_all_that_decides_and_nothing_else():
    config = recorded_config(compose())
    key, row = keys(config, "images", "split")
    for change in [
        {"batch_size": 32},
        {"epochs": 1},
        {"label_smoothing": 0.1},
        {"model": {**config["model"], "width": 9}},
        {"optimizer": {**config["optimizer"], "lr": 0.06}},
        {"scheduler": {}},
        {"augmentation": {**config["augmentation"], "flip": {"probability": 0.5}}},
        {"data": {**config["data"], "mean": 0.5}},
    ]:
        other, other_row = keys({**config, **change}, "images", "split")
        assert other != key, change
        assert other_row != row, change
    # The hash of the images says how many classes and channels they have.
    same = {"model": {**config["model"], "classes": 9, "channels": 3}}
    assert keys({**config, **same}, "images", "split") == (key, row)
    for arguments in [("others", "split"), ("images", "other")]:
        assert keys(config, *arguments) != (key, row)
    for change in [
        *({"device": "cuda"}, {"threads": 7}, {"precision": "bf16"}),
        {"memory_format": "contiguous"},
        *({"evaluation": {"every": 3, "test": "end"}}, {"keep_model": True}),
    ]:
        assert keys({**config, **change}, "images", "split") == (key, row), change


#: The keys of every released option, in the place of the default one, and of every kept record.
#: They never change: a run of today must find its row in ten years.
KEYS = yaml.safe_load((CHECKOUT / "tests" / "keys.yaml").read_text("utf-8"))
OPTIONS = [
    path
    for group in (*TARGETS, "augmentation")
    for path in sorted((CHECKOUT / "conf" / group).glob("*.yaml"))
]
KEPT = sorted((CHECKOUT / "docs/results").rglob("result.json"))


def test_the_keys_of_all_options_are_what_they_were():
    config = recorded_config(compose())
    found = {}
    for path in OPTIONS:
        option = yaml.safe_load(path.read_text("utf-8"))
        for key in ("search", "defaults"):  # no config of a run has them
            option.pop(key, None)
        changed = {**config, path.parent.name: option}
        found[f"{path.parent.name}={path.stem}"] = keys(changed, "images", "split")[1]
    assert len(set(found.values())) == len(found) - len(TARGETS)  # the defaults are one
    assert found == KEYS["options"]  # a new option is entered there with its key


def test_every_kept_record_has_the_keys_that_it_had():
    """Records of schema 1 land in the rows in which they were."""
    found, rows = {}, {}
    for path in KEPT:
        record = json.loads(path.read_text("utf-8"))
        made = Record.from_json(path.read_text("utf-8"))
        assert made.schema == 2
        found[path.parent.relative_to(CHECKOUT).as_posix()] = made.key
        rows.setdefault(record["configuration"], set()).add(made.configuration)
    assert found == KEYS["records"]
    assert all(len(row) == 1 for row in rows.values())
    assert len(set.union(*rows.values())) == len(rows)


def test_a_record_without_what_its_keys_are_made_of_keeps_its_own():
    text = json.dumps(record(schema=1, key="own", configuration="row"))  # its config has no data
    made = Record.from_json(text)
    assert (made.key, made.configuration) == ("own", "row")


def test_a_key_that_is_added_splits_no_rows(monkeypatch):
    """At its neutral value, whatever its default is; a config that lacks it is at that value."""
    config = recorded_config(compose())
    before = keys(config, "images", "split")
    monkeypatch.setattr(schema, "DECIDING", (*schema.DECIDING, "clip_norm"))
    monkeypatch.setattr(schema, "NEUTRAL", {**schema.NEUTRAL, "clip_norm": None})
    assert keys(config, "images", "split") == before
    assert keys({**config, "clip_norm": None}, "images", "split") == before
    assert keys({**config, "clip_norm": 1.0}, "images", "split") != before


def test_what_computes_the_same_has_the_same_key():
    expected = keys(recorded_config(compose()), "images", "split")
    for override in ("~loss.class_weights", "~loss.label_smoothing", "+augmentation.own=[]"):
        assert keys(recorded_config(compose(override)), "images", "split") == expected, override


def test_seed_changes_the_key_but_not_the_row():
    config = recorded_config(compose())
    key, row = keys(config, "images", "split")
    other, other_row = keys({**config, "seed": 1}, "images", "split")
    assert other != key
    assert other_row == row


def test_recorded_config_names_no_place_of_the_data():
    config = compose("data.root=/home/somebody/data")
    before = copy.deepcopy(config)
    kept = recorded_config(config)
    assert "somebody" not in json.dumps(kept)
    assert "mirrors" not in kept["data"]
    assert config == before
    typed = ["model=lenet", "data.root=/home/somebody", "+data.mirrors=[a]", "data.seed=3"]
    assert recorded_overrides([*typed, "sweep=lr_batch"]) == ["model=lenet", "data.seed=3"]


@pytest.mark.parametrize("change", [
    {"reference": {"source": "s" * 1_001, "device": "d" * 5_000, "accuracy": 0.9}},
    {"trust": ",".join(["package"] * 200)},
    {"config_dirs": [os.fsdecode(b"/r\xe9sum\xe9"), r"\udce9", "/\U0001f600"]},
    {"config_dirs": ["\\\udce9", "\ud83d", "\U0001f600\udc80\udfff"]},
])  # fmt: skip
def test_what_is_written_can_be_read_again(change):
    """Texts of any length, and names of folders that are not UTF-8."""
    made = dataclasses.replace(Record.from_json(json.dumps(record())), **change)
    again = Record.from_json(made.to_json())
    assert again.to_json() == made.to_json()
    if "config_dirs" not in change:
        again = dataclasses.replace(again, reference=made.reference, trust=made.trust)
        assert again == made
    elif r"\udce9" in change["config_dirs"]:
        assert again.config_dirs == [r"/r\udce9sum\udce9", r"\udce9", "/\U0001f600"]


def test_published_figures_are_no_part_of_the_recorded_config():
    assert "reference" not in recorded_config(compose("experiment=lenet"))


@pytest.mark.parametrize(("of", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_write_that_fails_keeps_the_old_content(tmp_path, monkeypatch, of, call):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(of, call, fail)
    with pytest.raises(StorageError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write_model(lambda file: file.write(b"weights"))
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors: cannot be written: full"):
        folder.write_model(lambda file: file.write(b"weights"))
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


def test_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run")
