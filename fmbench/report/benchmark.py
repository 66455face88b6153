"""From folders of runs to the benchmark and its files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.errors import PartialResultsError
from fmbench.report.figure import Figure
from fmbench.report.figures import figures
from fmbench.report.markdown import page
from fmbench.report.places import Places
from fmbench.report.raw import document, sheet
from fmbench.report.search import SearchPart, chosen_by, search_parts
from fmbench.report.sections import Section, sections
from fmbench.report.table import benchmark_table
from fmbench.report.terminal import print_sections
from fmbench.report.view import PLAIN, View, check, chosen
from fmbench.results import Problem, Progress, read_results
from fmbench.storage import storage_error, write_whole

MARKDOWN_NAME = "benchmark.md"
CSV_NAME = "benchmark.csv"
HTML_NAME, JSON_NAME = "benchmark.html", "benchmark.json"

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
        base: The folder that run folders are named relative to in what is written; None for the
            current one.
        written: The files that were written, and the folder of the pictures.
        figures: The pictures in it.
        view: How the runs were looked at.
    """

    table: pd.DataFrame
    sections: list[Section]
    problems: list[Problem]
    made: datetime
    base: Path | None = None
    written: tuple[Path, ...] = ()
    searches: tuple[SearchPart, ...] = ()
    figures: tuple[Figure, ...] = ()
    view: View = PLAIN

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, as plain values."""
        return [row for section in self.sections for row in section.rows]

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
    def _places(self) -> Places:
        return Places(self.base)

    @cached_property
    def markdown(self) -> str:
        """The text of `benchmark.md`."""
        return page(
            self.sections,
            self.problems,
            self.made,
            self._places,
            searches=self.searches,
            figures=self.figures,
            notes=self.view.notes,
        )

    @cached_property
    def html(self) -> str:
        """The text of `benchmark.html`."""
        from fmbench.report import html  # imports Jinja, which a report on a screen need not

        return html.page(
            self.sections,
            self.problems,
            self.made,
            self._places,
            searches=self.searches,
            figures=self.figures,
            notes=self.view.notes,
        )

    @cached_property
    def csv(self) -> str:
        """The text of `benchmark.csv`."""
        return sheet(self.rows)

    @cached_property
    def json(self) -> str:
        """The text of `benchmark.json`."""
        return document(
            self.rows,
            made=self.made,
            notes=self.view.notes,
            unfinished=[run for section in self.sections for run in section.unfinished],
            problems=self.problems,
            searches={part.folder: part.search for part in self.searches},
        )


def build(
    folders: Sequence[Path],
    output: Path | None = None,
    *,
    view: View = PLAIN,
    progress: Progress | None = None,
) -> Report:
    """Read the runs below some folders and make the benchmark of them.

    Args:
        folders: Run folders, sweep folders, or whatever holds them.
        output: Where to write `benchmark.md`, `benchmark.html`, `benchmark.csv`, `benchmark.json`
            and the pictures, as `write` does.
        view: Which runs, in what groups and order.
        progress: Told now and then how many records were read.

    Raises:
        ConfigError: A folder does not exist, or there is nothing to look at in such a way.
        StorageError: A file cannot be written.
    """
    check(view)
    results = read_results(*folders, progress=progress)
    frame = chosen(results.frame, view.condition)
    table = benchmark_table(frame, replace(view, condition=""))
    searches = tuple(search_parts(results.searches, results.frame))
    if not view.group_by:
        table["chosen"] = chosen_by(table, searches)
    searched = {run["folder"] for part in searches for run in part.runs.values()}
    parts = sections(frame, table, searched, view.metric)
    report = Report(
        table, parts, results.problems, datetime.now(UTC), output, searches=searches, view=view
    )
    return report if output is None else write(report, output)


def write(report: Report, output: Path) -> Report:
    """Write a report's files, unless there is nothing to write.

    Args:
        report: Of `build`.
        output: Where to; made if it is not there.

    Returns:
        The report with its pictures and the files that were written. Nothing is where no run
        completed and no search has a trial, so that an older benchmark stays.

    Raises:
        StorageError: A file cannot be written.
    """
    if report.table.empty and not any(part.search.trials for part in report.searches):
        return report
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(output, error) from error
    names = (MARKDOWN_NAME, HTML_NAME, CSV_NAME, JSON_NAME)
    drawn = _draw(report, output / FIGURES_NAME)
    folders = (output / FIGURES_NAME,) if drawn else ()
    written = (*(output / name for name in names), *folders)
    report = replace(report, base=output, written=written, figures=drawn)
    texts = (report.markdown, report.html, report.csv, report.json)
    for path, text in zip(report.written, texts, strict=False):
        write_whole(path, text.encode("utf-8", "backslashreplace"))
    return report


def print_tables(report: Report) -> None:
    """Print a report to standard output: fitted to a terminal, or plain where there is none."""
    print_sections(
        report.sections, report.problems, searches=report.searches, notes=report.view.notes
    )


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
