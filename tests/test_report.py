"""The benchmark table and its outputs: right numbers, nothing hidden, nothing hostile gets out."""

import csv
import io
import json
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from records import write
from rich.console import Console

from fmbench import report
from fmbench.errors import StorageError
from fmbench.report import columns, escape
from fmbench.report.__main__ import main
from fmbench.report.columns import SHOWN
from fmbench.report.table import command
from fmbench.report.terminal import print_sections
from fmbench.results import load_results

# Each would do harm somewhere if it came out as it is.
HOSTILE = [
    "a|b",
    "a\nb | c",
    "| --- |\n|x|",
    "`code` ``` `",
    "<script>alert(1)</script>",
    "<!-- ",
    "[click](https://evil.example)",
    "![x](http://evil.example/x.png)",
    "https://evil.example www.evil.example a@evil.example @bob #1",
    "*bold* _em_ __strong__ ~~gone~~ $x$",
    "=cmd()",
    "+1",
    "-1",
    "@sum",
    "\tx",
    "\rx",
    "\\|",
    "\\",
    "[red]x[/red] [/]",
    "\x1b[31mred\x1b[0m",
    "&lt;b&gt;",
    "\u202eevil\u2028x",
    "</details>",
    "é漢字",
]


def build(folder: Path, output: Path | None = None) -> report.Report:
    return report.build([folder], output)


def table_cells(markdown: str) -> list[list[str]]:
    """The rows of the first Markdown table, header and rule included."""
    lines = markdown[markdown.index("| net |") :].split("\n\n", maxsplit=1)[0].split("\n")
    # A bar ends a cell unless a backslash stands before it.
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def printed(made: report.Report, width: int | None = None) -> str:
    """What a terminal of some width shows, or what a pipe gets."""
    file = io.StringIO()
    terminal = {"force_terminal": True, "color_system": None, "width": width} if width else {}
    print_sections(made.sections, made.problems, Console(file=file, **terminal))
    return file.getvalue()


# --- the table --------------------------------------------------------------------------------


def test_seeds_are_grouped_with_mean_and_sample_deviation(tmp_path):
    accuracies = [0.90, 0.91, 0.95]
    for seed, accuracy in enumerate(accuracies):
        seconds = {"train": 8.0 + seed, "evaluate": 1.0, "total": 10.0}
        write(tmp_path / str(seed), seed=seed, test_accuracy=accuracy, seconds=seconds)
    (row,) = report.benchmark_table(load_results(tmp_path)).to_dict("records")
    assert row["n"] == 3
    assert row["test_accuracy"] == pytest.approx(statistics.mean(accuracies))
    assert row["test_accuracy_sd"] == pytest.approx(statistics.stdev(accuracies))
    assert row["seconds_train"] == pytest.approx(9.0)
    assert row["command"] == "python -m fmbench -m model=lenet epochs=3 seed=0,1,2"
    made = build(tmp_path)
    assert table_cells(made.markdown)[2][8:10] == ["3", "92.00 ± 2.65"]


def test_one_seed_has_no_deviation(tmp_path):
    write(tmp_path)
    assert table_cells(build(tmp_path).markdown)[2][8:10] == ["1", "90.01"]


def test_columns_come_in_the_order_people_were_promised(tmp_path):
    write(tmp_path)
    assert table_cells(build(tmp_path).markdown)[0] == [
        *("net", "data", "split", "augmentation", "optimizer", "learning rate", "batch size"),
        *("epochs", "n", "test accuracy (%)", "best on test (optimistic, %)", "parameters"),
        *("FLOPs", "wall time", "images/s", "device"),
    ]


def test_best_last_epoch_first_whatever_was_best_on_test(tmp_path):
    write(tmp_path / "0", model="good", test_accuracy=0.92, best_test_accuracy=0.92)
    write(tmp_path / "1", model="lucky", test_accuracy=0.91, best_test_accuracy=0.99)
    write(tmp_path / "2", model="b-tie", test_accuracy=0.915)
    write(tmp_path / "3", model="a-tie", test_accuracy=0.915)
    nets = [row["model"] for row in build(tmp_path).sections[0].rows]
    assert nets == ["good", "a-tie", "b-tie", "lucky"]


def test_the_same_run_again_counts_once_and_the_newest_counts(tmp_path):
    write(tmp_path / "0", test_accuracy=0.93, started="2026-11-20T12:00:00Z")
    write(tmp_path / "1", test_accuracy=0.91, started="2026-11-20T11:00:00Z")
    write(tmp_path / "2", seed=1, test_accuracy=0.93)
    (section,) = build(tmp_path).sections
    (row,) = section.rows
    assert (row["n"], row["n_repeats"]) == (2, 1)
    assert row["test_accuracy"] == pytest.approx(0.93)
    assert section.summary == "3 of 3 runs completed (repeats of a run, which count once: 1)."


def test_devices_and_precisions_are_rows_of_their_own(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", device="NVIDIA H100")
    write(tmp_path / "2", fingerprint__precision="bf16")
    made = build(tmp_path)
    devices = {cells[-1] for cells in table_cells(made.markdown)[2:]}
    assert devices == {
        *("AMD EPYC, 2 threads, fp32", "NVIDIA H100, fp32", "AMD EPYC, 2 threads, bf16")
    }
    assert "several devices or precisions" in made.markdown


def test_rows_that_look_the_same_say_how_they_differ(tmp_path):
    write(tmp_path / "0", config__optimizer__weight_decay=0.001, test_accuracy=0.93)
    write(tmp_path / "1", test_accuracy=0.92)
    write(tmp_path / "2", scheduler="cosine", config__scheduler={"T_max": 3}, test_accuracy=0.91)
    write(tmp_path / "3", model="resnet18", test_accuracy=0.90)
    nets = [cells[0] for cells in table_cells(build(tmp_path).markdown)[2:]]
    assert nets == [
        "lenet (scheduler=onecycle, optimizer.weight_decay=0.001)",
        "lenet (scheduler=onecycle, optimizer.weight_decay=0.0005)",
        "lenet (scheduler=cosine, optimizer.weight_decay=0.0005)",
        "resnet18",
    ]


def test_rows_alike_in_all_but_their_hash_show_it(tmp_path):
    write(tmp_path / "0", configuration="aaaaaaaabb", key="1")
    write(tmp_path / "1", configuration="ccccccccdd", key="2")
    write(tmp_path / "2", configuration="ccccccccdd", key="3", fingerprint__threads=4)
    nets = {cells[0] for cells in table_cells(build(tmp_path).markdown)[2:]}
    assert nets == {
        "lenet (threads=2, configuration aaaaaaaa)",
        "lenet (threads=2, configuration cccccccc)",
        "lenet (threads=4, configuration cccccccc)",
    }


def test_synthetic_data_is_never_ranked_with_the_real(tmp_path):
    write(tmp_path / "0", data__name="synthetic", test_accuracy=0.99)
    write(tmp_path / "1", test_accuracy=0.90)
    made = build(tmp_path)
    real, synthetic = made.sections
    assert (real.title, len(real.rows), real.notes) == ("Fashion-MNIST", 1, [])
    assert (synthetic.title, len(synthetic.rows)) == ("Synthetic data", 1)
    warning = "accuracies say nothing about Fashion-MNIST"
    head, _, tail = made.markdown.partition("## Synthetic data")
    assert warning in tail
    assert warning not in head
    assert warning in printed(made)


def test_mixed_splits_are_noted(tmp_path):
    write(tmp_path / "0")
    assert "mix splits" not in build(tmp_path).markdown
    write(tmp_path / "1", split__name="custom")
    assert "mix splits (custom, standard)" in build(tmp_path).markdown


def test_runs_that_did_not_complete_are_counted_and_listed(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", status="failed", error="Out of\nmemory | 3 GiB", test_accuracy=None)
    write(tmp_path / "2", status="diverged", error="x" * 9_999, test_accuracy=None)
    made = build(tmp_path, tmp_path)
    assert (made.completed, made.failed, made.exit_status) == (1, 2, 0)
    assert "1 of 3 runs completed." in made.markdown
    assert "| lenet | 0 | failed | Out of memory &#124; 3 GiB | 1 |" in made.markdown
    assert max(map(len, made.markdown.splitlines())) < 1_000
    assert "- failed: lenet in" in printed(made)
    (row,) = sheet_rows(tmp_path)
    assert row["n_failed"] == "2"


# --- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (columns.percent(0.90164), "90.16"),
        (columns.percent(0.9016, 0.0012), "90.16 ± 0.12"),
        (columns.percent(None), "-"),
        (columns.count(61706), "61,706"),
        (columns.number(1e-05), "1e-05"),
        (columns.flops(833_040), "0.83 M"),
        (columns.flops(1_113_000_000), "1.11 G"),
        (columns.flops(7), "7"),
        (columns.duration(0.42), "0.42 s"),
        (columns.duration(8.06), "8.1 s"),
        (columns.duration(59.96), "1 min 00 s"),
        (columns.duration(1109), "18 min 29 s"),
        (columns.duration(3599.7), "1 h 00 min"),
        (columns.duration(7_380), "2 h 03 min"),
    ],
)
def test_formats(text, expected):
    assert text == expected


def test_a_command_survives_the_shell():
    words = ["model=a b", "x='y'", "+z=$(reboot) `id`"]
    assert shlex.split(command(tuple(words), [0]))[3:] == [*words, "seed=0"]
    assert command(("seed=4", "model=lenet"), [4]) == "python -m fmbench model=lenet seed=4"
    line = command(("a=b'\n```\n\\n",), [])
    assert "\n" not in line
    told = f'set -- {line.removeprefix("python -m fmbench")}; printf %s "$1"'
    echoed = subprocess.run(["bash", "-c", told], capture_output=True, check=True).stdout
    assert echoed.decode() == "a=b'\n```\n\\n"


# --- hostile values ---------------------------------------------------------------------------


def write_hostile(folder: Path) -> None:
    for number, value in enumerate(HOSTILE):
        names = dict.fromkeys(("model", "augmentation", "optimizer", "device"), value)
        write(
            folder / str(number), split__name=value, overrides=[value], config={value: 1}, **names
        )
        write(folder / f"failed-{number}", status="failed", error=value, model=value)
        write(folder / f"data-{number}", data__name=value)


def test_hostile_values_stay_in_their_markdown_cells(tmp_path):
    write_hostile(tmp_path)
    made = build(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "benchmark.md").read_text(encoding="utf-8")
    rows = table_cells(text)
    assert len(rows) == 2 + len(HOSTILE)
    assert {len(row) for row in rows} == {len(SHOWN)}
    assert len(made.sections) == 1 + len(HOSTILE)
    # Outside the code blocks nothing is left that Markdown would act on.
    prose = re.sub(r"^(`{3,})sh\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    tags = set(re.findall("<[^>]*>", prose))
    assert tags == {
        *("<details>", "<summary>", "</summary>", "</details>"),
    }
    assert prose.count("</details>") == len(made.sections)
    assert "://" not in prose
    assert not re.search(r"@\w|(?<!&)#\d|www\.", prose)
    ours = prose.replace("**", "")
    assert not re.search(r"(?<!\\)(\\\\)*[`*\[\]~$]", ours)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\u2028]", text)


def test_no_value_ends_the_code_block(tmp_path):
    write(tmp_path, model="x\n```\n<b>", overrides=["a=`````", "b=\n```\n<script>"])
    text = build(tmp_path).markdown
    fence, content = re.search(r"^(`+)sh\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE).groups()
    assert len(fence) == 6
    assert content.count("\n") == 1
    assert "<script>" not in text.replace(content, "")


def test_hostile_values_stay_in_their_csv_cells(tmp_path):
    write_hostile(tmp_path)
    build(tmp_path, tmp_path)
    with (tmp_path / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == [column.key for column in columns.COLUMNS]
    assert {len(row) for row in rows} == {len(heading)}
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    nets = {row[heading.index("model")].removeprefix("'") for row in rows}
    assert {escape.one_line(value) for value in HOSTILE} <= nets


def test_hostile_values_do_not_act_in_a_terminal(tmp_path):
    write_hostile(tmp_path)
    made = build(tmp_path)
    for text in (printed(made), printed(made, width=400)):
        assert "[red]x[/red] [/]" in text
        assert "\x1b" not in text
        assert r"\x1b[31mred" in text
        assert "\u202e" not in text


def test_one_line_cuts_and_keeps_printable_text():
    assert escape.one_line("a  b\n c") == "a b c"
    assert escape.one_line("abcdef", 3) == "abc..."
    assert escape.markdown("fashion_mnist") == "fashion_mnist"


# --- the terminal -----------------------------------------------------------------------------


def test_a_pipe_gets_every_column_and_whole_lines(tmp_path):
    for number in range(30):
        write(tmp_path / str(number), model=f"net-{number}")
        write(tmp_path / f"x{number}", status="failed", error="why " * 50, test_accuracy=None)
    text = printed(build(tmp_path))
    heading = next(line for line in text.splitlines() if line.startswith("net"))
    assert re.split("  +", heading) == [column.title for column in SHOWN]
    row = next(line for line in text.splitlines() if line.startswith("net-7 "))
    assert row.endswith("AMD EPYC, 2 threads, fp32")
    assert row.index("AMD") == heading.index("device")
    assert text.count("failed: ") == 30


@pytest.mark.parametrize("width", [60, 80, 120, 250])
def test_a_terminal_gets_what_fits_and_is_told_the_rest(tmp_path, width):
    for batch_size in (64, 256):
        write(
            tmp_path / str(batch_size), batch_size=batch_size, test_accuracy=0.9 + batch_size / 1e4
        )
    text = printed(build(tmp_path), width)
    assert max(map(len, text.splitlines())) <= width
    assert "92.56" in text
    words = " ".join(text.split())
    if width < 250:
        assert "All rows: data fashion_mnist; split standard" in words
    if width == 60:
        assert "In benchmark.md, or in a wider window: " in words
        assert "FLOPs." in words or "FLOPs;" in words


# --- files and the command --------------------------------------------------------------------


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write(tmp_path / "0")
    build(tmp_path, tmp_path)
    before = (tmp_path / "benchmark.md").read_bytes()
    write(tmp_path / "1", model="resnet18")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"benchmark\.md: cannot be written: No space left"):
        build(tmp_path, tmp_path)
    assert (tmp_path / "benchmark.md").read_bytes() == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"0", "1", "benchmark.md", "benchmark.csv"}


def sheet_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_the_command_prints_and_writes(tmp_path, capsys):
    write(tmp_path / "runs" / "0")
    status, out, err = run(capsys, tmp_path / "runs", "--output", tmp_path / "new" / "place")
    assert (status, err) == (0, "")
    assert "90.01" in out
    assert f"Written: {tmp_path / 'new' / 'place' / 'benchmark.md'}, " in out
    assert "../../runs" not in out


def test_unreadable_records_give_status_4_and_the_rest_is_written(tmp_path, capsys):
    write(tmp_path / "0")
    write(tmp_path / "1", schema=2)
    status, out, _ = run(capsys, tmp_path, "--output", tmp_path)
    assert status == 4
    assert "schema 2 is newer" in out
    text = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    assert "| 1/result.json | schema 2 is newer" in text


def test_a_folder_that_does_not_exist_gives_status_2_and_one_line(tmp_path, capsys):
    status, out, err = run(capsys, tmp_path / "gone")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "gone is not a folder" in err
    assert run(capsys, "--nonsense")[0] == 2


def test_an_output_that_cannot_be_gives_status_5_and_one_line(tmp_path, capsys):
    write(tmp_path / "0")
    (tmp_path / "file").write_text("")
    status, _, err = run(capsys, tmp_path, "--output", tmp_path / "file")
    assert status == 5
    assert err.count("\n") == 1


def test_no_completed_run_says_how_to_make_one_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys)
    assert status == 0
    assert "No completed run below outputs or multirun" in out
    assert "python -m fmbench data=synthetic" in out
    write(tmp_path / "outputs" / "0", status="failed", error="why", test_accuracy=None)
    write(tmp_path / "outputs" / "1", schema=2)
    status, out, _ = run(capsys)
    assert status == 4
    assert "why" in out
    assert "0 of 1 runs completed." in out
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_default_folders_are_those_that_exist(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "multirun" / "sweep" / "0")
    status, _, _ = run(capsys)
    assert status == 0
    assert (tmp_path / "benchmark.md").exists()


def test_a_reader_that_stops_early_does_no_harm(tmp_path):
    for number in range(300):
        write(tmp_path / str(number), model=f"net-{number}")
    line = f"{sys.executable} -m fmbench.report {tmp_path} --output {tmp_path} | head -1"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"Fashion-MNIST\n", b"")


def test_the_report_does_not_import_torch_and_help_not_even_pandas(tmp_path):
    write(tmp_path)
    code = (
        "import sys, pathlib, fmbench.report\n"
        "assert 'pandas' not in sys.modules\n"
        f"made = fmbench.report.build([pathlib.Path({str(tmp_path)!r})], None)\n"
        "fmbench.report.print_tables(made)\n"
        "assert made.completed == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_csv_holds_raw_numbers(tmp_path):
    write(tmp_path, flops=None)
    build(tmp_path, tmp_path)
    (row,) = sheet_rows(tmp_path)
    assert (row["test_accuracy"], row["parameters"], row["flops"]) == ("0.9001", "61706", "")
    assert (row["seconds_train"], row["seconds_total"]) == ("8.1", "9.2")
    assert json.loads(row["n"]) == 1
