"""From folders of runs to the benchmark and its files."""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fmbench.core.errors import PartialResultsError, StorageError, one_line
from fmbench.core.files import make_folder, read_regular, remove, storage_error, write_whole
from fmbench.records.gather import Problem, Progress
from fmbench.records.reader import Results, read_results
from fmbench.report.escape import Places
from fmbench.report.figure import Figure
from fmbench.report.figures import KINDS, figures
from fmbench.report.render import data, latex, markdown
from fmbench.report.table import ensembles, suspects, targets
from fmbench.report.table.build import benchmark_table
from fmbench.report.table.search import SearchPart, chosen_by, search_parts
from fmbench.report.table.sections import LONGEST_REASON, Section, sections
from fmbench.report.table.tuned import ComparisonPart, comparison_parts
from fmbench.report.table.view import PLAIN, View, check, chosen

#: The names of a report's figure files, without ending.
_OURS = re.compile(f"({'|'.join(KINDS)})(_[A-Za-z0-9_-]{{1,200}})?")
_MOST_BYTES = 2**28


@dataclass(frozen=True)
class Report:
    """The runs below some folders, as a benchmark."""

    table: pd.DataFrame  # as `benchmark_table` gives it: all rows
    sections: list[Section]  # the same rows by data set, with the runs that did not complete
    problems: list[Problem]  # the records that could not be read
    made: datetime  # in UTC
    base: Path | None = None  # what run folders are named relative to; None is the current folder
    written: tuple[Path, ...] = ()  # the files that were written, and the folder of the figures
    searches: tuple[SearchPart, ...] = ()
    comparisons: tuple[ComparisonPart, ...] = ()
    figures: tuple[Figure, ...] = ()  # that were written
    view: View = PLAIN

    @property
    def parts(self) -> tuple[ComparisonPart | SearchPart, ...]:
        """What is not of one data set: comparisons, then searches."""
        return (*self.comparisons, *self.searches)

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
        """How many runs were stopped by the pruner of a search, which is no failure."""
        return sum(section.pruned for section in self.sections)

    @property
    def infeasible(self) -> int:
        """How many runs were not trained, larger than their search allows: no failure either."""
        return sum(section.infeasible for section in self.sections)

    @property
    def failed(self) -> int:
        """How many runs did not complete: diverged, failed, interrupted, or still running."""
        total = sum(section.total for section in self.sections)
        return total - self.completed - self.pruned - self.infeasible

    @property
    def exit_status(self) -> int:
        """0, or 4 where some records could not be read."""
        return PartialResultsError.exit_status if self.problems else 0

    @cached_property
    def places(self) -> Places:
        """Where run folders are, seen from what is written."""
        return Places(self.base)

    @property
    def problem_cells(self) -> list[tuple[str, str]]:
        """The records that could not be read: where, and why."""
        return [
            (self.places.path(problem.path), one_line(problem.reason, LONGEST_REASON))
            for problem in self.problems
        ]

    @property
    def markdown(self) -> str:
        """The text of `benchmark.md`."""
        return markdown.page(self, markdown.sections(self))

    @property
    def html(self) -> str:
        """The text of `benchmark.html`."""
        from fmbench.report.render import html  # imports Jinja, which a report on a screen need not

        return html.page(self, html.tables_of(self))

    @property
    def tex(self) -> str:
        """The text of `benchmark.tex`."""
        return latex.page(self)

    @property
    def csv(self) -> str:
        """The text of `benchmark.csv`."""
        return data.csv_text(self.rows)

    @property
    def json(self) -> str:
        """The text of `benchmark.json`."""
        return data.json_text(self)


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
        output: Where to write the files, as `write` does.
        view: Which runs, in what groups and order.
        progress: Told now and then how many records were read.

    Raises:
        ConfigError: A folder does not exist, or there is nothing to view in such a way.
        StorageError: A file cannot be written.
    """
    check(view)
    report = report_of(read_results(*folders, progress=progress), output, view=view)
    return report if output is None else write(report, output)


def report_of(results: Results, base: Path | None = None, *, view: View = PLAIN) -> Report:
    """Make the benchmark of what was read; run folders are named relative to `base`.

    Raises:
        ConfigError: There is nothing to view in such a way.
    """
    frame = chosen(results.frame, view.condition)
    table = benchmark_table(frame, view)
    searches = tuple(search_parts(results.searches, results.frame))
    if not view.group_by:
        table["chosen"] = chosen_by(table, searches)
        if results.suspects:
            suspects.note(table, results.suspects)
    every = (run for part in searches for runs in part.runs.values() for run in runs)
    searched = {run["folder"] for run in every}
    comparisons = tuple(comparison_parts(results.comparisons, results.frame))
    searched |= {folder for part in comparisons for folder in part.trials}
    parts = sections(frame, table, searched, view.metric)
    for part in parts if not view.group_by else ():
        ensembles.note(part.rows)
        if view.targets:
            targets.note(part.rows, view.targets)
    return Report(
        *(table, parts, results.problems, datetime.now(UTC), base),
        searches=searches,
        comparisons=comparisons,
        view=view,
    )


def write(report: Report, output: Path, drawn: Iterable[Figure] | None = None) -> Report:
    """Write a report's files: `benchmark.md`, `.html`, `.csv`, `.json`, `.tex`, and the figures.

    The numbers first: what goes wrong with a figure costs them nothing. Figures of an older
    report that are not drawn again are removed.

    Args:
        report: As `build` made it.
        output: The folder; made if it is not there.
        drawn: The figures, where somebody else draws them; asked for when the numbers are written.

    Returns:
        The report with its figures and the files that were written. Nothing is where no run
        completed and no search has a trial, so that an older benchmark stays.

    Raises:
        StorageError: A file cannot be written; those of the others that can are.
    """
    searched = any(part.search.trials for part in report.searches)
    if report.table.empty and not searched and not report.comparisons:
        return report
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(output, error) from error
    folder = output / "figures"
    files = {kind: output / f"benchmark.{kind}" for kind in ("md", "html", "csv", "json", "tex")}
    # Behind a link nothing is removed either.
    before = set() if folder.is_symlink() else _drawn_before(files["json"])
    report = replace(report, base=output)

    def put(kind: str, text: str) -> None:
        write_whole(files[kind], text.encode("utf-8", "backslashreplace"))

    put("csv", report.csv)
    put("tex", report.tex)
    if report.comparisons:
        text = data.contestants_text(report.comparisons)
        write_whole(output / "contestants.csv", text.encode("utf-8", "backslashreplace"))
    from fmbench.report.render import html

    # Before figures are asked for, which may be drawn meanwhile.
    bodies, tables = markdown.sections(report), html.tables_of(report)
    if drawn is None:
        drawn = figures(report.sections, report.searches, report.comparisons)
    kept: list[Figure] = []
    failed: StorageError | None = None
    try:
        for figure in drawn:
            write_figure(figure, folder)
            kept.append(figure)
    except StorageError as error:
        failed = error
    with suppress(StorageError):
        for name in before - {figure.name for figure in kept}:
            remove(folder / f"{name}.png")
            remove(folder / f"{name}.svg")
    report = replace(report, figures=tuple(kept))
    put("md", markdown.page(report, bodies))
    put("html", html.page(report, tables))
    put("json", report.json)
    if failed is not None:
        raise failed
    return replace(report, written=(*files.values(), *([folder] if kept else [])))


def write_figure(figure: Figure, folder: Path) -> list[Path]:
    """Write a figure as PNG and SVG into a folder, made if need be; returns the files.

    Raises:
        StorageError: A file cannot be written.
    """
    make_folder(folder)
    files = {"png": figure.png, "svg": figure.svg.encode()}
    for kind, content in files.items():
        write_whole(folder / f"{figure.name}.{kind}", content)
    return [folder / f"{figure.name}.{kind}" for kind in files]


def _drawn_before(path: Path) -> set[str]:
    """The names of the figures that an older report of this folder has."""
    try:
        names = json.loads(read_regular(path, _MOST_BYTES))["figures"]
        return {name for name in names if isinstance(name, str) and _OURS.fullmatch(name)}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return set()
