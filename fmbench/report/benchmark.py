"""From folders of runs to the benchmark and its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.core.errors import PartialResultsError
from fmbench.records.reader import Problem, Progress, read_results
from fmbench.report.figure import Figure
from fmbench.report.render.markdown import page
from fmbench.report.render.places import Places
from fmbench.report.render.raw import document, sheet
from fmbench.report.render.terminal import print_sections
from fmbench.report.table.build import benchmark_table
from fmbench.report.table.search import SearchPart, chosen_by, search_parts
from fmbench.report.table.sections import Section, sections
from fmbench.report.table.view import PLAIN, View, check, chosen


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
        from fmbench.report.render import html  # imports Jinja, which a report on a screen need not

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
            figures=[figure.name for figure in self.figures],
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
    table = benchmark_table(frame, view)
    searches = tuple(search_parts(results.searches, results.frame))
    if not view.group_by:
        table["chosen"] = chosen_by(table, searches)
    searched = {run["folder"] for part in searches for run in part.runs.values()}
    parts = sections(frame, table, searched, view.metric)
    report = Report(
        table, parts, results.problems, datetime.now(UTC), output, searches=searches, view=view
    )
    if output is None:
        return report
    from fmbench.report.files import write  # which imports this

    return write(report, output)


def print_tables(report: Report) -> None:
    """Print a report to standard output: fitted to a terminal, or plain where there is none."""
    print_sections(
        report.sections, report.problems, searches=report.searches, notes=report.view.notes
    )
