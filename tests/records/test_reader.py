"""Reading run folders: what becomes a row, what becomes a problem, what counts twice (nothing)."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from records import record, write
from reports import printed

from fmbench import report
from fmbench.core.errors import ConfigError
from fmbench.records import gather, reader
from fmbench.records.reader import load_results, read_history, read_results
from fmbench.records.record import RESULT_NAME, RUNNING


def put(folder: Path, content: str | bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    (folder / RESULT_NAME).write_bytes(raw)


def nested(depth: int) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for _ in range(depth - 1):
        config = {"a": config}
    return config


def test_a_record_becomes_a_row_with_flat_typed_columns(tmp_path):
    write(tmp_path / "sweep" / "0", seed=3)
    (row,) = load_results(tmp_path).to_dict("records")
    assert (row["model"], row["seed"], row["test_accuracy"]) == ("lenet", 3, 0.9001)
    assert (row["data"], row["split"], row["split_train"]) == ("fashion_mnist", "standard", 60000)
    assert (row["seconds_train"], row["precision"], row["threads"]) == (8.1, "fp32", 2)
    assert row["overrides"] == ("model=lenet", "epochs=3")
    assert json.loads(row["config"])["optimizer"]["lr"] == 0.05
    assert row["started"] == pd.Timestamp("2026-11-20T23:00:00Z")
    assert row["folder"] == str(tmp_path / "sweep" / "0")
    assert pd.isna(row["validation_accuracy"])


def test_values_that_python_calls_equal_stay_of_their_own_types(tmp_path):
    """Equal values of many records are kept once: 1 thread is not `deterministic` true."""
    for place, asked in enumerate([1, 2, 1]):
        deterministic = place != 2
        write(tmp_path / str(place), config__threads=asked, fingerprint__cuda_graphs=None,
              fingerprint__deterministic=deterministic)  # fmt: skip
    found = load_results(tmp_path)
    assert found["deterministic"].tolist() == [True, True, False]
    assert found["threads_asked"].tolist() == [1, 2, 1]


def test_columns_and_types_do_not_depend_on_what_is_there(tmp_path):
    empty = load_results(tmp_path)
    write(tmp_path, flops=None)
    full = load_results(str(tmp_path))
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == full.dtypes.to_dict()
    assert full["flops"].dtype == "Int64"


def test_a_run_that_failed_early_is_a_row(tmp_path):
    nothing = dict.fromkeys(("parameters", "flops", "test_accuracy", "device", "git"))
    nothing |= {"data__sha256": None, "split__hash": None, "fingerprint": {}}
    write(tmp_path, status="failed", error="no data", **nothing)
    reader = read_results(tmp_path)
    assert reader.problems == []
    row = reader.frame.loc[0]
    assert (row["error"], row["data"]) == ("no data", "fashion_mnist")
    assert row[["data_sha256", "split_hash", "processor", "git_commit"]].isna().all()


def test_a_folder_given_twice_and_within_itself_counts_once(tmp_path):
    write(tmp_path / "a" / "0")
    link = tmp_path / "elsewhere"
    link.symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(load_results(tmp_path, tmp_path / "a", tmp_path / "a" / "0", link)) == 1


def test_links_neither_loop_nor_double(tmp_path):
    write(tmp_path / "a" / "0")
    (tmp_path / "a" / "0" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / RESULT_NAME).symlink_to(tmp_path / "a" / "0" / RESULT_NAME)
    found = read_results(tmp_path)
    assert len(found.frame) == 1
    assert found.problems == []


@pytest.mark.parametrize(("content", "reason"), [
    ("", "half-written or not JSON"),
    (b"\0" * 512, "half-written or not JSON"),
    ('{"schema": 1, "key": ', "half-written or not JSON"),
    (b"\xff\xfe{", "not JSON"),
    ("[1, 2]", "Expected `object`, got `array`"),
    ("[" * 200_000, "Expected `object`"),
    ('{"a": ' * 100_000, "nested deeper than 50"),
    ('{"schema": ' + "9" * 5_000 + "}", "schema: Integer value out of range"),
    (record(schema=3), "schema is newer than this fmbench reads (2)"),
    (record(schema=0), "schema is older than this fmbench reads (1)"),
    ({}, "lacks `schema`"),
    ({"schema": 2}, "lacks `key`"),
    ({k: v for k, v in record().items() if k != "status"}, "lacks `status`"),
    (record(test_accuracy=None), "lacks test_accuracy"),
    (record(status="completed\n"), "status: Expected `str` matching"),
    (record(status="finished"), "status: Expected `str` matching regex '\\\\A(completed|div"),
    (record(test_accuracy=90.16), "test_accuracy: Expected `float` <= 1.0"),
    (record(test_accuracy=float("nan")), "not JSON"),
    (record(parameters=10**400), "parameters: Expected `int` <= 9007199254740992"),
    (record(seed=2**64), "seed: Expected `int` <= 9223372036854775807"),
    (record(train_loss=10**400), "train_loss: "),
    (record(train_loss=-1e300), "train_loss: Expected `float` > -1e+300"),
    (record(seconds__train=float("inf")), "not JSON"),
    (json.dumps(record()).replace("8.1", "1e999"), "seconds.train: Number out of range"),
    (record(overrides=[1]), "overrides[0]: Expected `str`"),
    (record(model="a" * 1_001), "model: Expected `str` of length <= 1000"),
    (record(model="\ud800"), "not JSON"),
    (record(fingerprint__deterministic=1), "fingerprint.deterministic: Expected `bool"),
    (record(config=nested(51)), "config: nested deeper than 50"),
    (record(config={"a": [nested(900)]}), "nested deeper than 50"),
    (record(restarts=[nested(51)]), "restarts: nested deeper than 50"),
    (record(evaluated=nested(51)), "evaluated: nested deeper than 50"),
])  # fmt: skip
def test_what_is_wrong_with_a_record_is_said_and_the_rest_is_read(tmp_path, content, reason):
    put(tmp_path / "bad", json.dumps(content) if isinstance(content, dict) else content)
    write(tmp_path / "good")
    found = read_results(tmp_path)
    (problem,) = found.problems
    assert problem.path == tmp_path / "bad" / RESULT_NAME
    assert reason in problem.reason
    assert "\n" not in str(problem)
    assert found.frame["folder"].tolist() == [str(tmp_path / "good")]


def test_only_regular_files_are_opened(tmp_path):
    for name in ("pipe", "link", "loop"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / RESULT_NAME).mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe" / RESULT_NAME)  # opening it would wait for ever
    (tmp_path / "link" / RESULT_NAME).symlink_to(tmp_path / "gone")
    (tmp_path / "loop" / RESULT_NAME).symlink_to(tmp_path / "loop" / RESULT_NAME)
    problems = read_results(tmp_path).problems
    assert [problem.path.parent.name for problem in problems] == ["folder", "link", "loop", "pipe"]
    assert [problem.reason.removeprefix("cannot be read: ") for problem in problems] == [
        "not a regular file", "No such file or directory",
        "Too many levels of symbolic links", "not a regular file",
    ]  # fmt: skip


def test_a_file_that_vanishes_meanwhile_is_a_problem(tmp_path, monkeypatch):
    write(tmp_path)

    def vanish(*arguments):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(gather, "read_regular", vanish)
    (problem,) = read_results(tmp_path).problems
    assert problem.reason == "cannot be read: No such file or directory"


def test_problems_come_in_the_order_of_their_paths(tmp_path):
    for name in "cab":
        put(tmp_path / name, "{")
    os.mkfifo(tmp_path / RESULT_NAME)
    (tmp_path / "b" / "x" / RESULT_NAME).mkdir(parents=True)
    paths = [problem.path for problem in read_results(tmp_path / "b", tmp_path).problems]
    assert paths == sorted(paths)
    assert len(paths) == 5


def test_a_record_of_a_run_under_way_is_a_row(tmp_path):
    """As deep as allowed, and begun at no time."""
    write(tmp_path, started="yesterday", config=nested(50), status=RUNNING, test_accuracy=None)
    row = load_results(tmp_path).loc[0]
    assert row["status"] == "running"
    assert pd.isna(row["started"])


def test_a_file_too_large_for_a_record_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path) / "result.json"
    monkeypatch.setattr(gather, "MAX_BYTES", {"result.json": 100})
    (problem,) = read_results(tmp_path).problems
    size = f"{path.stat().st_size:,}"
    assert problem.reason == f"cannot be read: too large: {size} bytes, at most 100 are read"


def test_a_record_with_many_names_is_one_and_all_together_are_bounded(tmp_path, monkeypatch):
    size = (write(tmp_path / "0") / RESULT_NAME).stat().st_size
    for number in range(1, 5):
        (tmp_path / str(number)).mkdir()
        os.link(tmp_path / "0" / RESULT_NAME, tmp_path / str(number) / RESULT_NAME)
    found = read_results(tmp_path)
    assert (len(found.frame), found.problems) == (1, [])
    for number in range(1, 5):
        (tmp_path / str(number) / RESULT_NAME).unlink()
        write(tmp_path / str(number), seed=number)
    monkeypatch.setitem(gather.MAX_TOTAL, RESULT_NAME, 3 * size)
    found = read_results(tmp_path)
    assert [Path(folder).name for folder in found.frame["folder"]] == ["0", "1", "2"]
    assert {problem.reason for problem in found.problems} == {
        f"not read: all before it have {3 * size:,} bytes"
    }


def test_a_file_that_is_no_record_takes_no_room_of_the_others(tmp_path):
    path = write(tmp_path / "0") / RESULT_NAME
    os.truncate(path, gather.MAX_TOTAL[RESULT_NAME] + 1)
    write(tmp_path / "1")
    found = read_results(tmp_path)
    assert [Path(folder).name for folder in found.frame["folder"]] == ["1"]
    assert [problem.reason[:29] for problem in found.problems] == ["cannot be read: too large: 2,"]


def test_texts_of_megabytes_do_not_fill_a_report(tmp_path):
    write(tmp_path / "0", model="a b" * 50_000)
    write(tmp_path / "1", status="failed", error="e" * 300_000)
    config = {"optimizer": {"k" * 200_000: "v" * 200_000}}
    write(tmp_path / "2", config=config, config__model__width=4)
    write(tmp_path / "3", config=config, config__model__width=5)
    frame = load_results(tmp_path)
    assert len(frame) == 3
    assert len(frame.loc[0, "error"]) == 10_003
    made = report.build([tmp_path])
    assert len(made.rows) == 2
    for text in (made.markdown, made.html, made.csv, printed(made)):
        assert len(text) < 100_000
    made.json  # noqa: B018


@pytest.mark.parametrize("texts", [["a=1"] * 1_001, ["a" * 100_001]], ids=["many", "long"])
@pytest.mark.parametrize("name", ["overrides", "deviations", "config_dirs"])
def test_lists_of_absurd_length_are_refused(tmp_path, name, texts):
    write(tmp_path, **{name: texts})
    (problem,) = read_results(tmp_path).problems
    allowed = "Expected `array` of length <= 1000" if texts[1:] else "more than 100,000 characters"
    assert problem.reason == f"{name}: {allowed}"


def test_of_a_history_of_absurd_length_the_beginning_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MOST_EPOCHS", 3)
    (tmp_path / "history.jsonl").write_text("".join(f'{{"epoch": {n}}}\n' for n in range(9)))
    assert [line["epoch"] for line in read_history(tmp_path)] == [0, 1, 2]
    monkeypatch.setitem(reader.MAX_BYTES, "history.jsonl", 10)
    assert read_history(tmp_path) == []


def test_a_folder_that_cannot_be_listed_is_a_problem(tmp_path, monkeypatch):
    write(tmp_path / "good")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = read_results(tmp_path)
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path / 'locked'}: cannot be listed: Permission denied"
    ]
    assert len(found.frame) == 1


def test_a_folder_that_does_not_exist_is_the_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match="gone is not a folder"):
        load_results(tmp_path, tmp_path / "gone")
    with pytest.raises(ConfigError, match="xxx is not a folder"):
        load_results(tmp_path / ("x" * 300))


def test_load_results_warns_of_what_it_leaves_out(tmp_path, caplog):
    put(tmp_path, "{")
    with caplog.at_level(logging.WARNING):
        assert len(load_results(tmp_path)) == 0
    assert "half-written" in caplog.text


def test_a_folder_name_that_is_not_utf8_does_no_harm(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9sum\xe9"))
    write(folder)
    read_results(tmp_path).frame.loc[0, "folder"].encode("utf-8")


def test_history_is_read_line_by_line(tmp_path):
    lines = [
        '{"epoch": 0, "learning_rate": 0.1, "train_loss": 1.5, "seconds": 2}',
        "half-wri",
        "[1]",
        '{"train_loss": 1}',
        '{"epoch": 1, "train_loss": NaN, "train_accuracy": "high", "test_accuracy": 0.5}',
        "[" * 100_000,
        '{"epoch": 2',
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(lines))
    assert read_history(tmp_path) == [
        {"epoch": 0, "learning_rate": 0.1, "train_loss": 1.5, "seconds": 2},
        {"epoch": 1, "test_accuracy": 0.5},
    ]
    assert read_history(tmp_path / "elsewhere") == []
