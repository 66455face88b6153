"""The table in a terminal and in a pipe."""

import io
import re

import pytest
from records import PUBLISHED, write
from reports import build, printed
from rich.console import Console

from fmbench import report
from fmbench.report.render.terminal import print_tables
from fmbench.report.table import columns


def test_a_pipe_gets_every_column_and_whole_lines(tmp_path):
    for number in range(30):
        write(tmp_path / str(number), model=f"net-{number}", **PUBLISHED)
        write(tmp_path / f"x{number}", status="failed", error="why " * 50, test_accuracy=None)
    text = printed(build(tmp_path))
    heading = next(line for line in text.splitlines() if line.startswith(" #  "))
    (section,) = build(tmp_path).sections
    assert re.split("  +", heading.strip()) == [
        column.title for column in columns.shown(section.rows)
    ]
    row = next(line for line in text.splitlines() if "  net-7 " in line)
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


def styled(made: report.Report, width: int) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=width)
    print_tables(made, console)
    return file.getvalue().splitlines()


def test_the_best_row_is_highlighted_and_no_other(tmp_path):
    write(tmp_path / "0", model="best", test_accuracy=0.95)
    bold_green = "\x1b[1;32m"
    assert not [line for line in styled(build(tmp_path), 200) if bold_green in line]
    write(tmp_path / "1", model="second", test_accuracy=0.9)
    (line,) = (line for line in styled(build(tmp_path), 200) if bold_green in line)
    assert "best" in line


def test_a_column_without_any_value_is_not_shown_in_a_terminal(tmp_path):
    write(tmp_path / "0")
    assert "best" not in printed(build(tmp_path), 250)
    write(tmp_path / "1", model="other", best_test_accuracy=0.95)
    assert "best" in printed(build(tmp_path), 250)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_tells_rows_apart_outlasts_what_was_measured(tmp_path, width):
    for number, device in enumerate(("AMD EPYC 9B14 96-Core Processor, 2 threads", "NVIDIA H100")):
        for batch_size in (64, 256):
            folder = tmp_path / f"{number}-{batch_size}"
            write(folder, device=device, batch_size=batch_size, test_accuracy=0.9)
    text = printed(build(tmp_path), width)
    table = text[: text.index("All rows: ")]
    assert max(map(len, text.splitlines())) <= width
    assert width > 60 or "wider window: " in text
    for word in ("NVIDIA", "EPYC", " 64 ", " 256 ", "90.00"):
        assert table.count(word) == (4 if word == "90.00" else 2)


def test_a_terminal_shows_fifty_rows_and_a_pipe_all(tmp_path):
    for number in range(53):
        write(tmp_path / str(number), model=f"net-{number}")
    made = build(tmp_path)
    text = printed(made, 250)
    assert (text.count("net-"), "And 3 more rows: see benchmark.md." in text) == (50, True)
    text = printed(made)
    assert (text.count("net-"), "more rows" in text) == (53, False)
