"""From folders of runs to the benchmark and its files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd

from fmbench.errors import PartialResultsError
from fmbench.report.markdown import page
from fmbench.report.sections import Section, sections
from fmbench.report.spreadsheet import sheet
from fmbench.report.table import benchmark_table
from fmbench.report.terminal import print_sections
from fmbench.results import Problem, read_results
from fmbench.storage import storage_error, write_whole

MARKDOWN_NAME = "benchmark.md"
CSV_NAME = "benchmark.csv"


@dataclass(frozen=True)
class Report:
    """What became of some folders of runs.

    Attributes:
        table: What `benchmark_table` gives: all rows, Fashion-MNIST before synthetic data.
        sections: The same rows, a section for each data set, with the runs that did not complete.
        problems: The records that could not be read.
        made: When, in UTC.
        base: The folder that `markdown` names run folders relative to; None for the current one.
        written: The files that were written.
    """

    table: pd.DataFrame
    sections: list[Section]
    problems: list[Problem]
    made: datetime
    base: Path | None = None
    written: tuple[Path, ...] = ()

    @property
    def completed(self) -> int:
        """How many runs completed."""
        return sum(section.completed for section in self.sections)

    @property
    def failed(self) -> int:
        """How many runs did not complete: diverged, failed, interrupted, or still running."""
        return sum(len(section.unfinished) for section in self.sections)

    @property
    def exit_status(self) -> int:
        """0, or 4 where some records could not be read."""
        return PartialResultsError.exit_status if self.problems else 0

    @cached_property
    def markdown(self) -> str:
        """The text of `benchmark.md`."""
        return page(self.sections, self.problems, self.made, self.base)

    @cached_property
    def csv(self) -> str:
        """The text of `benchmark.csv`."""
        return sheet(self.table)


def build(folders: Sequence[Path], output: Path | None = None) -> Report:
    """Read the runs below some folders and make the benchmark of them.

    Args:
        folders: Run folders, sweep folders, or whatever holds them.
        output: Where to write `benchmark.md` and `benchmark.csv`; made if it is not there.
            Nothing is written where no run completed, so that an older benchmark stays.

    Raises:
        ConfigError: A folder does not exist.
        StorageError: A file cannot be written.
    """
    results = read_results(*folders)
    table = benchmark_table(results.frame)
    parts = sections(results.frame, table)
    report = Report(table, parts, results.problems, datetime.now(UTC), output)
    if output is None or table.empty:
        return report
    return replace(report, written=_write(report, output))


def print_tables(report: Report) -> None:
    """Print a report to standard output: fitted to a terminal, or plain where there is none."""
    print_sections(report.sections, report.problems)


def _write(report: Report, output: Path) -> tuple[Path, ...]:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(output, error) from error
    texts = {output / MARKDOWN_NAME: report.markdown, output / CSV_NAME: report.csv}
    for path, text in texts.items():
        write_whole(path, text.encode("utf-8", "backslashreplace"))
    return tuple(texts)
