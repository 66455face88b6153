"""From folders of runs to the benchmark and its files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd

from fmbench.errors import PartialResultsError
from fmbench.report.figure import Figure
from fmbench.report.figures import figures
from fmbench.report.markdown import page
from fmbench.report.search import SearchPart, search_parts
from fmbench.report.sections import Section, sections
from fmbench.report.spreadsheet import sheet
from fmbench.report.table import benchmark_table
from fmbench.report.terminal import print_sections
from fmbench.results import Problem, read_results
from fmbench.storage import storage_error, write_whole

MARKDOWN_NAME = "benchmark.md"
CSV_NAME = "benchmark.csv"

#: The folder of the pictures, beside the page.
FIGURES_NAME = "figures"


@dataclass(frozen=True)
class Report:
    """What became of some folders of runs.

    Attributes:
        table: What `benchmark_table` gives: all rows, Fashion-MNIST before synthetic data.
        sections: The same rows, a section for each data set, with the runs that did not complete.
        searches: The searches among the folders, with their runs.
        problems: The records that could not be read.
        made: When, in UTC.
        base: The folder that `markdown` names run folders relative to; None for the current one.
        written: The files that were written, and the folder of the pictures.
        figures: The pictures in it.
    """

    table: pd.DataFrame
    sections: list[Section]
    problems: list[Problem]
    made: datetime
    base: Path | None = None
    written: tuple[Path, ...] = ()
    searches: tuple[SearchPart, ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def completed(self) -> int:
        """How many runs completed."""
        return sum(section.completed for section in self.sections)

    @property
    def pruned(self) -> int:
        """How many runs a search gave up, which is no failure."""
        return sum(section.pruned for section in self.sections)

    @property
    def failed(self) -> int:
        """How many runs did not complete: diverged, failed, interrupted, or still running."""
        total = sum(section.total for section in self.sections)
        return total - self.completed - self.pruned

    @property
    def exit_status(self) -> int:
        """0, or 4 where some records could not be read."""
        return PartialResultsError.exit_status if self.problems else 0

    @cached_property
    def markdown(self) -> str:
        """The text of `benchmark.md`."""
        return page(
            self.sections,
            self.problems,
            self.made,
            self.base,
            searches=self.searches,
            figures=self.figures,
        )

    @cached_property
    def csv(self) -> str:
        """The text of `benchmark.csv`."""
        return sheet(self.table)


def build(folders: Sequence[Path], output: Path | None = None) -> Report:
    """Read the runs below some folders and make the benchmark of them.

    Args:
        folders: Run folders, sweep folders, or whatever holds them.
        output: Where to write `benchmark.md`, `benchmark.csv` and the pictures; made if it is
            not there. Nothing is written where no run completed and no search has a
            trial, so that an older benchmark stays.

    Raises:
        ConfigError: A folder does not exist.
        StorageError: A file cannot be written.
    """
    results = read_results(*folders)
    table = benchmark_table(results.frame)
    searches = tuple(search_parts(results.searches, results.frame))
    searched = {run["folder"] for part in searches for run in part.runs.values()}
    parts = sections(results.frame, table, searched)
    report = Report(table, parts, results.problems, datetime.now(UTC), output, searches=searches)
    if output is None or (table.empty and not any(part.search.trials for part in searches)):
        return report
    return _written(report, output)


def print_tables(report: Report) -> None:
    """Print a report to standard output: fitted to a terminal, or plain where there is none."""
    print_sections(report.sections, report.problems, searches=report.searches)


def _written(report: Report, output: Path) -> Report:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(output, error) from error
    texts = (output / MARKDOWN_NAME, output / CSV_NAME)
    drawn = _draw(report, output / FIGURES_NAME)
    folders = (output / FIGURES_NAME,) if drawn else ()
    report = replace(report, written=(*texts, *folders), figures=drawn)
    for path, text in zip(texts, (report.markdown, report.csv), strict=True):
        write_whole(path, text.encode("utf-8", "backslashreplace"))
    return report


def _draw(report: Report, folder: Path) -> tuple[Figure, ...]:
    """Draw the pictures of a report and write each as PNG and as SVG."""
    drawn = []
    for figure in figures(report.sections, report.searches):
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from error
        write_whole(folder / f"{figure.name}.png", figure.png)
        write_whole(folder / f"{figure.name}.svg", figure.svg.encode())
        drawn.append(figure)
    return tuple(drawn)
