"""The files of a report and its command."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from records import write
from reports import build, sheet_rows

from fmbench.core.errors import StorageError
from fmbench.report import figures
from fmbench.report.__main__ import main


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write(tmp_path / "0")
    build(tmp_path, tmp_path)
    before = (tmp_path / "benchmark.md").read_bytes()
    write(tmp_path / "1", model="resnet18")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"benchmark\.csv: cannot be written: No space left"):
        build(tmp_path, tmp_path)
    assert (tmp_path / "benchmark.md").read_bytes() == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "0",
        "1",
        *(f"benchmark.{kind}" for kind in ("md", "html", "csv", "json", "tex")),
    }


def test_the_command_prints_and_writes(tmp_path, ended):
    write(tmp_path / "runs" / "0")
    status, out, err = ended(main, tmp_path / "runs", "--output", tmp_path / "new" / "place")
    assert (status, err) == (0, "")
    assert "90.01" in out
    assert f"Written: {tmp_path / 'new' / 'place' / 'benchmark.md'}, " in out
    assert "../../runs" not in out


def test_unreadable_records_give_status_4_and_the_rest_is_written(tmp_path, ended):
    write(tmp_path / "0")
    write(tmp_path / "1", schema=3)
    status, out, _ = ended(main, tmp_path, "--output", tmp_path)
    assert status == 4
    assert "schema is newer" in out
    text = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    assert "| 1/result.json | schema is newer" in text


@pytest.mark.parametrize(("arguments", "part"), [
    (["gone"], "gone is not a folder"),
    (["--format", "html"], "unrecognized arguments: --format; --help explains"),
    (["--filter", "model==lenet"], "filter: 'model==lenet': write model=lenet"),
    (["--filter", "model=lenet", "batch_size=64"], "conditions stand in quotes: --filter"),
])  # fmt: skip
def test_what_cannot_be_asked_for_gives_status_2_and_one_line(ended, arguments, part):
    status, out, err = ended(main, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("fmbench.report: ")
    assert part in err


def test_an_output_that_cannot_be_gives_status_5_and_one_line(tmp_path, ended):
    write(tmp_path / "0")
    (tmp_path / "file").write_text("")
    status, _, err = ended(main, tmp_path, "--output", tmp_path / "file")
    assert status == 5
    assert err.count("\n") == 1


def test_no_completed_run_says_how_to_make_one_and_writes_nothing(tmp_path, ended, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = ended(main)
    assert status == 0
    assert "No completed run below outputs or multirun" in out
    assert "python -m fmbench data=synthetic" in out
    write(tmp_path / "outputs" / "0", status="failed", error="why", test_accuracy=None)
    write(tmp_path / "outputs" / "1", schema=3)
    status, out, _ = ended(main)
    assert status == 4
    assert "why" in out
    assert "0 of 1 runs completed, 1 failed." in out
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_default_folders_are_those_that_exist(tmp_path, ended, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "multirun" / "sweep" / "0")
    status, _, _ = ended(main)
    assert status == 0
    assert (tmp_path / "benchmark.md").exists()


def test_a_run_that_took_no_look_at_anything_is_read(tmp_path, ended):
    """`evaluation.test=never` without validation images: a run to time, or to go on later."""
    write(tmp_path / "0", test_accuracy=None, test_loss=None, config__test_every=None)
    status, out, err = ended(main, tmp_path, "--output", tmp_path)
    assert (status, err) == (0, "")
    assert "1 of 1 runs completed (without a test accuracy, so no row here: 1)." in out
    assert "Nothing was written: no run" in out
    assert "No completed run" not in out


def test_the_command_collects_no_cycles_and_a_notebook_does(tmp_path, monkeypatch):
    seen = []
    made = "fmbench.report.benchmark.report_of"
    monkeypatch.setattr(made, lambda *_, **__: seen.append(gc.isenabled()) or 1 / 0)
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    for words in ([str(tmp_path)], None):
        with pytest.raises(ZeroDivisionError):
            main(words)
    gc.enable()
    assert seen == [True, False]


@pytest.mark.slow
def test_a_reader_that_stops_early_does_no_harm(tmp_path):
    for number in range(300):
        write(tmp_path / str(number), model=f"net-{number}")
    line = f"{sys.executable} -m fmbench.report {tmp_path} --output {tmp_path} | head -1"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"Fashion-MNIST\n", b"")
    write(tmp_path / "newer", schema=3)
    line = f"set -o pipefail; {line}"
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=False).returncode == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "said"),
    [("> /dev/full", "cannot be written: No space left on device"), (">&-", "is closed")],
)
def test_an_output_that_takes_nothing_gives_status_5_and_one_line(tmp_path, output, said):
    write(tmp_path / "0")
    line = f"{sys.executable} -m fmbench.report {tmp_path} --output {tmp_path} {output}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, check=False, text=True)
    assert ended.returncode == 5
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr
    assert (tmp_path / "benchmark.md").exists()


def test_csv_holds_raw_numbers(tmp_path):
    write(tmp_path / "0", flops=None)
    write(tmp_path / "1", flops=None, seed=-1, seconds__train=10.1, peak_memory=512_000_001)
    build(tmp_path, tmp_path)
    (row,) = sheet_rows(tmp_path)
    assert row["repeats_spread"] == ""
    assert (row["seeds"], row["peak_memory"]) == ("'-1 0", "512000000")
    assert float(row["seconds_train_sd"]) == pytest.approx(2**0.5)
    assert (row["test_accuracy"], row["parameters"], row["flops"]) == ("0.9001", "61706", "")
    assert (row["seconds_train"], row["seconds_total"]) == ("9.1", "9.2")
    assert json.loads(row["n"]) == 2


def several(folder: Path) -> None:
    """Two models of other sizes, which make pictures."""
    write(folder / "0", parameters=1000)
    seconds = {"train": 4.0, "evaluate": 0.4, "total": 5.0}
    write(folder / "1", model="other", parameters=2000, test_accuracy=0.8, seconds=seconds)


def test_a_spread_beyond_all_numbers_is_missing_in_the_files(tmp_path):
    for seed, loss in enumerate([0.0, 9e299]):
        write(tmp_path / str(seed), seed=seed, test_loss=loss)
    build(tmp_path, tmp_path)
    (row,) = json.loads((tmp_path / "benchmark.json").read_bytes())["rows"]
    assert row["test_loss"] == 4.5e299
    assert row["test_loss_sd"] is None
    (cells,) = sheet_rows(tmp_path)
    assert not cells["test_loss_sd"]


def test_a_picture_that_cannot_be_drawn_costs_itself_alone(tmp_path, monkeypatch, caplog):
    def broken(*arguments):
        raise ValueError("no such luck")

    several(tmp_path / "runs")
    monkeypatch.setitem(figures.KINDS, "accuracy_parameters", (figures.SECTION, broken))
    made = build(tmp_path / "runs", tmp_path)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert "accuracy_parameters" not in names
    assert "accuracy_time" in names
    said = "the figure accuracy_parameters could not be drawn: ValueError: no such luck"
    assert said in caplog.text
    assert "accuracy_time" in made.markdown


@pytest.mark.parametrize("kind", ["file", "link"])
def test_where_pictures_cannot_be_written_the_numbers_are(tmp_path, kind):
    several(tmp_path / "runs")
    place = tmp_path / "figures"
    if kind == "file":
        place.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "curves_mine.png").write_text("mine")
        (tmp_path / "benchmark.json").write_text('{"figures": ["curves_mine"]}')
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="figures: cannot be written"):
        build(tmp_path / "runs", tmp_path)
    for ending in ("md", "html", "csv", "json"):
        assert (tmp_path / f"benchmark.{ending}").stat().st_size > 100
    assert "figures/" not in (tmp_path / "benchmark.md").read_text("utf-8")
    there = [path.name for path in (tmp_path / "elsewhere").glob("*")]
    assert there == ["curves_mine.png"] * (kind == "link")


def test_pictures_of_an_older_report_go_and_a_users_own_files_stay(tmp_path):
    several(tmp_path / "runs")
    build(tmp_path / "runs", tmp_path)
    assert (tmp_path / "figures" / "accuracy_time.svg").is_file()
    (tmp_path / "figures" / "mine.png").write_text("mine")
    (tmp_path / "runs" / "1" / "result.json").unlink()
    (tmp_path / "runs" / "0" / "result.json").unlink()
    write(tmp_path / "runs" / "0", seconds={"train": 0.0, "evaluate": 0.0, "total": 0.0})
    made = build(tmp_path / "runs", tmp_path)
    assert "accuracy_time" not in {figure.name for figure in made.figures}
    assert not list((tmp_path / "figures").glob("accuracy_time*"))
    assert (tmp_path / "figures" / "mine.png").is_file()


@pytest.mark.parametrize(
    "before", ["", "{", "[]", '{"figures": 3}', '{"figures": ["../mine", "a/b", 7, "", "a"]}']
)
def test_nothing_else_is_removed_whatever_lies_there(tmp_path, before):
    several(tmp_path / "runs")
    (tmp_path / "benchmark.json").write_text(before)
    (tmp_path / "mine.png").write_text("mine")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_text("mine")
    build(tmp_path / "runs", tmp_path)
    assert (tmp_path / "mine.png").is_file()
    assert (tmp_path / "figures" / "a.png").is_file()


def test_a_bad_record_in_a_folder_whose_name_is_not_utf8_is_listed(tmp_path):
    write(tmp_path / "good")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9sum\xe9"))
    folder.mkdir()
    (folder / "result.json").write_text("{")
    made = build(tmp_path, tmp_path / "made")
    (unreadable,) = json.loads((tmp_path / "made" / "benchmark.json").read_bytes())["unreadable"]
    assert unreadable["path"].endswith(r"r\xe9sum\xe9/result.json")
    assert made.exit_status == 4
