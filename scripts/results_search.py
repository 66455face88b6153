"""The part of our own results that is about a search: its best, beside a recipe."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from results_markdown import command, commands, picture, table

from fmbench.record import RESULT_NAME
from fmbench.report import Report, formats
from fmbench.report.columns import METRICS
from fmbench.report.compare import compare
from fmbench.report.escape import markdown
from fmbench.report.figure import Figure
from fmbench.report.figures.search import search_figure
from fmbench.report.search import SearchPart

HEADINGS = (
    *("", "last epoch (%)", "95 % interval (%)", "n", "batch size", "learning rate", "epochs"),
    *("training time", "device"),
)

#: What `sweep=lr_batch` and the search itself set in a trial.
OF_A_TRIAL = ("data.split", "keep_checkpoint", "test_every")


def part_of(report: Report, folder: Path) -> SearchPart | None:
    """The search in a folder, if there is one."""
    return next((part for part in report.searches if Path(part.folder) == folder), None)


def search_picture(part: SearchPart) -> Figure | None:
    """The search's picture."""
    return search_figure(part, "search")


def search_section(
    report: Report, part: SearchPart, said: Mapping[str, str], figure: Figure | None, kept: Path
) -> Iterator[str]:
    """The blocks of Markdown.

    Args:
        report: Of all records.
        part: The search.
        said: Its `command`, and the names of the folders of its `best`, trained again, and of the
            `recipe`.
        figure: The search's picture.
        kept: The folder of all records.

    Raises:
        ValueError: The command was another one, or the best was not trained with the values that
            the search found.
    """
    best, recipe = (_row(report, kept / said[name]) for name in ("best", "recipe"))
    net = (best or recipe or {"model": "search"})["model"]
    yield f"## {net}: a search against the recipe"
    _check_command(part, kept / said["folder"], said["command"])
    yield command(said["command"])
    trials = part.search.trials
    epochs = sum(len(trial.reports) for trial in trials)
    whole = len(trials) * max(len(trial.reports) for trial in trials)
    spent = f"The trials trained {epochs:,} epochs of {whole:,}."
    yield markdown(" ".join([*part.sentences, spent]))
    if figure is not None:
        yield picture(figure)
    for one in part.tables[:1]:
        yield f"### {markdown(one.title)}"
        yield table(one.headings, [list(map(markdown, row)) for row in one.rows], one.right)
    if best is None or recipe is None:
        return
    _check(part, best)
    found = compare(str(best["number"]), str(recipe["number"]), [kept])
    names = ("the search's best", "the recipe")
    yield f"### Its best, trained on {best['split_train']:,} images, against the recipe"
    cells = [_cells(name, row) for name, row in zip(names, found.rows, strict=True)]
    yield table(HEADINGS, cells, [heading not in ("", "device") for heading in HEADINGS])
    yield markdown(found.sentence)
    yield commands(zip(names, found.rows, strict=True), kept)


def _row(report: Report, folder: Path) -> dict[str, Any] | None:
    """The first row with a run in a folder."""
    rows = (
        row
        for row in report.rows
        if any(Path(one).is_relative_to(folder) for one in row["folders"])
    )
    return next(rows, None)


def _check_command(part: SearchPart, folder: Path, line: str) -> None:
    """Refuse to call something the search's command that is another."""
    typed = {word for word in line.split() if "=" in word and not word.startswith("sweep")}
    for trial in part.search.trials:
        record = json.loads((folder / str(trial.folder) / RESULT_NAME).read_bytes())
        apart = {*OF_A_TRIAL, *trial.parameters}
        found = {word for word in record["overrides"] if word.partition("=")[0] not in apart}
        if found != typed:
            raise ValueError(f"trial {trial.number} was run with {' '.join(sorted(found))}")


def _check(part: SearchPart, row: Mapping[str, Any]) -> None:
    """Refuse to call something the search's best that is another."""
    (number, *_) = part.search.best
    (trial,) = [trial for trial in part.search.trials if trial.number == number]
    size, rate = trial.parameters["batch_size"], trial.parameters["optimizer.lr"]
    assert isinstance(rate, float)
    if row["batch_size"] != size or abs(row["learning_rate"] / rate - 1) > 0.01:
        raise ValueError(f"the search's best has batch size {size} and learning rate {rate:g}")


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    metric = METRICS["test_accuracy"]
    return [
        name,
        metric.with_spread(row["test_accuracy"], row["test_accuracy_sd"]),
        metric.interval(row["test_accuracy_low"], row["test_accuracy_high"]),
        formats.count(row["n"]),
        formats.count(row["batch_size"]),
        formats.number(row["learning_rate"]),
        formats.count(row["epochs"]),
        formats.duration(row["seconds_train"]),
        formats.hardware(row["device"], row["precision"]),
    ]
