"""The part of our own results that is about a search: its best, beside a recipe."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from results_lines import seeds_of
from results_markdown import commands, picture, records, table

from fmbench.record import RESULT_NAME, leaves
from fmbench.report import Report
from fmbench.report.escape import markdown
from fmbench.report.figure import Figure
from fmbench.report.figures.search import search_figure
from fmbench.report.render.markdown import code_block
from fmbench.report.table import formats
from fmbench.report.table.columns import METRICS
from fmbench.report.table.compare import compare
from fmbench.report.table.comparison import Comparison
from fmbench.report.table.search import SearchPart
from fmbench.stats import CONFIDENCE

HEADINGS = (
    *("", "last epoch (%)", "95 % interval (%)", "n", "batch size", "learning rate", "schedule"),
    *("epochs", "training time", "device"),
)
LEFT = ("", "schedule", "device")

#: What the rows that are compared are called, by what tables.yaml calls their folders.
NAMES = {
    "best": "the search's best",
    "unsearched": "the unsearched row",
    "recipe": "the recipe",
}

#: What `sweep=lr_batch` and the search itself set in a trial.
OF_A_TRIAL = ("data.split", "keep_checkpoint", "test_every")

#: What is searched, or decides nothing about training.
NO_SETTING = ("batch_size", "optimizer.lr", "seed", "test_every", "keep_checkpoint")


def part_of(report: Report, folder: Path) -> SearchPart:
    """The search in a folder.

    Raises:
        ValueError: There is none.
    """
    found = next((part for part in report.searches if Path(part.folder) == folder), None)
    if found is None:
        raise ValueError(f"{folder.name}: tables.yaml names this search, and it is not kept")
    return found


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
        said: Its `command`, and the names of the folders of its `best`, trained again, of the
            `recipe`, and, where it was run, of `unsearched`: all as the best, but for the recipe's
            batch size and learning rate.
        figure: The search's picture.
        kept: The folder of all records.

    Raises:
        ValueError: The command was another one, or the best was not trained with the values that
            the search found, or a folder has no runs.
    """
    names = {key: name for key, name in NAMES.items() if key in said}
    rows = {key: _row(report, kept / said[key]) for key in names}
    best = rows["best"]
    yield f"## {best['model']}: a search against the recipe"
    _check_command(part, kept / said["folder"], said["command"])
    yield code_block(said["command"])
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
    _check(part, best)
    yield f"### Its best, trained on {best['split_train']:,} images, against the recipe"
    cells = [_cells(name, rows[key]) for key, name in names.items()]
    yield table(HEADINGS, cells, [heading not in LEFT for heading in HEADINGS])
    yield from _comparisons(part, rows, kept)
    yield commands(
        (f"{name}: {records(rows[key], kept)}", rows[key]["command"]) for key, name in names.items()
    )


def _comparisons(
    part: SearchPart, rows: Mapping[str, Mapping[str, Any]], kept: Path
) -> Iterator[str]:
    """How far the rows lie apart, and in what else they differ."""
    best, recipe = rows["best"], rows["recipe"]
    tried = [trial.parameters for trial in part.search.trials]
    sizes = sorted({int(str(one["batch_size"])) for one in tried})
    rates = [float(str(one["optimizer.lr"])) for one in tried]
    space = f"batch sizes {', '.join(map(str, sizes))}"
    said = [
        f"The search tried {space} and learning rates from {min(rates):.2g} to {max(rates):.2g}."
    ]
    if recipe["batch_size"] not in sizes:
        said.append(f"The recipe's batch size, {recipe['batch_size']}, was none of them.")
    if others := _apart(best, recipe):
        said.append(
            "The recipe differs from the search's best in more than batch size and learning rate:"
            f" {'; '.join(others)}. The difference between them is due to all of these together."
        )
    pairs = [("best", "recipe")]
    unsearched = rows.get("unsearched")
    if unsearched is not None:
        if others := _apart(best, unsearched):
            raise ValueError(f"{NAMES['unsearched']} differs from the best: {'; '.join(others)}")
        if any(unsearched[key] != recipe[key] for key in ("batch_size", "learning_rate")):
            raise ValueError(f"{NAMES['unsearched']} has not the recipe's values")
        said.append(
            "The unsearched row was trained as the search's best, but with the recipe's batch size"
            " and learning rate: what it gains over the recipe owes nothing to the search."
        )
        pairs += [("best", "unsearched"), ("unsearched", "recipe")]
    yield markdown(" ".join(said))
    found = [_compared(rows, pair, kept) for pair in pairs]
    sentences = (markdown(one.sentence[:1].upper() + one.sentence[1:]) for one in found)
    yield "\n".join(f"- {sentence}" for sentence in sentences)
    if unsearched is not None:
        whole, searched, others_gain = (100 * one.difference.mean for one in found)
        verdict = (
            f"Of {whole:.2f} points {others_gain:.2f} come with the other settings; the searched"
            f" batch size and learning rate add {searched:.2f}"
        )
        if found[1].difference.p >= 1 - CONFIDENCE:
            runs = rows["best"]["n"] + unsearched["n"]
            verdict += f", and {runs} runs do not settle whether that is more than chance"
        yield f"{verdict}."


def _compared(
    rows: Mapping[str, Mapping[str, Any]], pair: tuple[str, str], kept: Path
) -> Comparison:
    """Two rows compared, but for their times, which were taken with others at work."""
    found = compare(*(str(rows[key]["number"]) for key in pair), [kept])
    assert [row["folders"] for row in found.rows] == [rows[key]["folders"] for key in pair]
    names = (NAMES[pair[0]], NAMES[pair[1]])
    return replace(found, names=names, time_ratio=None)


def _apart(best: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """The settings of two rows that differ, beside the searched ones."""
    one, other = (dict(leaves(json.loads(row["config"]))) for row in (best, recipe))
    found = []
    # What another schedule is made of follows from the schedule.
    another = one.get("scheduler._target_") != other.get("scheduler._target_")
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if a == b or key in NO_SETTING or (another and key.startswith("scheduler.")):
            continue
        found.append(f"{key} {json.dumps(b)}, not {json.dumps(a)}")
    if another:
        found.append(f"scheduler {recipe['scheduler']}, not {best['scheduler']}")
    return found


def _row(report: Report, folder: Path) -> dict[str, Any]:
    """The row of the runs in a folder, which must be one row, and its runs all there."""
    found = [
        row
        for row in report.rows
        if any(Path(one).is_relative_to(folder) for one in row["folders"])
    ]
    if not found:
        raise ValueError(f"{folder.name}: tables.yaml names these runs, and they are not kept")
    if len(found) > 1:
        raise ValueError(f"{folder.name}: holds {len(found)} rows, and tables.yaml means one")
    if not all(Path(one).is_relative_to(folder) for one in found[0]["folders"]):
        raise ValueError(f"{folder.name}: other folders hold runs of the same row")
    return found[0]


def _check_command(part: SearchPart, folder: Path, line: str) -> None:
    """Refuse to call something the search's command that is another."""
    typed = {word for word in line.split() if "=" in word and not word.startswith("sweep=")}
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
        seeds_of(row),
        formats.count(row["batch_size"]),
        formats.number(row["learning_rate"]),
        formats.text(row["scheduler"]),
        formats.count(row["epochs"]),
        METRICS["seconds_train"].with_spread(row["seconds_train"], row["seconds_train_sd"]),
        formats.hardware(row["device"], row["precision"]),
    ]
