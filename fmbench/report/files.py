"""The files of a report."""

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fmbench.core.console import logger
from fmbench.core.errors import StorageError
from fmbench.core.files import make_folder, remove, storage_error, write_whole
from fmbench.report.benchmark import Report
from fmbench.report.figure import Figure
from fmbench.report.figures import KINDS, figures

MARKDOWN_NAME, HTML_NAME = "benchmark.md", "benchmark.html"
CSV_NAME, JSON_NAME = "benchmark.csv", "benchmark.json"
FIGURES_NAME = "figures"

#: What the files of a report's pictures are called, without ending.
_OURS = re.compile(f"({'|'.join(KINDS)})(_[A-Za-z0-9_-]{{1,200}})?")
_MOST_BYTES = 2**28

log = logger(__name__)


def write(report: Report, output: Path) -> Report:
    """Write a report's files, unless there is nothing to write.

    The numbers first: what goes wrong with a picture costs them nothing. Pictures of an older
    report that are not drawn again are removed.

    Args:
        report: Of `fmbench.report.build`.
        output: Where to; made if it is not there.

    Returns:
        The report with its pictures and the files that were written. Nothing is where no run
        completed and no search has a trial, so that an older benchmark stays.

    Raises:
        StorageError: A file cannot be written; those of the others that can are.
    """
    if report.table.empty and not any(part.search.trials for part in report.searches):
        return report
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(output, error) from error
    folder = output / FIGURES_NAME
    # Behind a link nothing is removed either.
    before = set() if folder.is_symlink() else _drawn_before(output / JSON_NAME)
    report = replace(report, base=output)
    _write(output / CSV_NAME, report.csv)
    drawn: list[Figure] = []
    failed: StorageError | None = None
    try:
        _draw(report, folder, drawn)
    except StorageError as error:
        failed = error
    names = {figure.name for figure in drawn}
    with suppress(StorageError):
        for name in before - names:
            remove(folder / f"{name}.png")
            remove(folder / f"{name}.svg")
    report = replace(report, figures=tuple(drawn))
    texts = {MARKDOWN_NAME: report.markdown, HTML_NAME: report.html, JSON_NAME: report.json}
    for name, text in texts.items():
        _write(output / name, text)
    if failed is not None:
        raise failed
    files = (MARKDOWN_NAME, HTML_NAME, CSV_NAME, JSON_NAME, *[FIGURES_NAME] * bool(drawn))
    return replace(report, written=tuple(output / name for name in files))


def _write(path: Path, text: str) -> None:
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def _draw(report: Report, folder: Path, drawn: list[Figure]) -> None:
    """Draw the pictures of a report and write each as PNG and as SVG."""
    for figure in figures(report.sections, report.searches, _say):
        make_folder(folder)
        write_whole(folder / f"{figure.name}.png", figure.png)
        write_whole(folder / f"{figure.name}.svg", figure.svg.encode())
        drawn.append(figure)


def _say(name: str, error: Exception) -> None:
    """A picture that cannot be drawn is a bug, but no reason to keep the others back."""
    log.warning("the picture %s could not be drawn: %s: %s", name, type(error).__name__, error)


def _drawn_before(path: Path) -> set[str]:
    """The names of the pictures of the report that lies there."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return set()
        names = json.loads(path.read_bytes())["figures"]
        return {name for name in names if isinstance(name, str) and _OURS.fullmatch(name)}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return set()
