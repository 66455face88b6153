"""What tests of reports share: making one, and taking its tables apart."""

import csv
import io
import re
from pathlib import Path

from records import write
from rich.console import Console

from fmbench import report
from fmbench.report.render.terminal import print_tables

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
    lines = markdown[markdown.index("| # | ") :].split("\n\n", maxsplit=1)[0].split("\n")
    # A bar ends a cell unless a backslash stands before it.
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def column(markdown: str, heading: str) -> list[str]:
    """What stands below a heading of the first Markdown table, a unit aside."""
    headings, _, *rows = table_cells(markdown)
    place = [text.partition(" (")[0] for text in headings].index(heading)
    return [row[place] for row in rows]


def cell(markdown: str, heading: str) -> str:
    """The first of these."""
    return column(markdown, heading)[0]


def printed(made: report.Report, width: int | None = None) -> str:
    """What a terminal of some width shows, or what a pipe gets."""
    file = io.StringIO()
    terminal = {"force_terminal": True, "color_system": None, "width": width} if width else {}
    print_tables(made, Console(file=file, **terminal))
    return file.getvalue()


def write_hostile(folder: Path) -> None:
    for number, value in enumerate(HOSTILE):
        names = dict.fromkeys(("model", "augmentation", "optimizer", "device"), value)
        write(
            folder / str(number), split__name=value, overrides=[value], config={value: 1}, **names,
            experiment=value, deviations=[value] * (number % 2),
            reference={"accuracy": 0.9, "protocol": value, "source": value, "device": value,
                       "seconds": 9},
        )  # fmt: skip
        write(folder / f"failed-{number}", status="failed", error=value, model=value)
        write(folder / f"data-{number}", data__name=value)


def sheet_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contrast(*colours: str) -> float:
    """The contrast of two colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted(map(luminance, colours))
    return (bright + 0.05) / (dark + 0.05)
