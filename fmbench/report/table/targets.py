"""Epochs, images and time until a row reaches an accuracy, from the histories of its runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fmbench.core.errors import ConfigError
from fmbench.records.reader import counted_history
from fmbench.report.table.columns import MODEL
from fmbench.report.table.formats import MISSING, Row, count, duration, percent

#: Epochs that are read for all rows of a table: more take minutes.
MOST_EPOCHS = 2_000_000

MOST_TARGETS = 10

#: The headings of `cells`, and which stand flush right.
HEADINGS = ("#", "model", "target (%)", "reached", "epochs", "images", "training time")
RIGHT = (True, False, *[True] * 5)


class Target(NamedTuple):
    """When the runs of a row reached an accuracy; of an even number of runs the later of two."""

    target: float  # a share from 0 to 1
    by: str  # "validation" or "test"
    runs: int  # whose every epoch was evaluated
    reached: int
    # Medians over these runs, one that did not reach it counting as later than all that did: to
    # the end of the first epoch that reached it. None where the median run did not.
    epochs: int | None
    images: int | None
    seconds: float | None  # training clock

    @property
    def said(self) -> tuple[str, ...]:
        """The cells behind row and model."""
        late = "not reached" if self.epochs is None else MISSING
        numbers = (count(self.epochs), count(self.images), duration(self.seconds))
        texts = (late if text == MISSING else text for text in numbers)
        return percent(self.target), f"{self.reached} of {self.runs}", *texts


def parsed(said: str) -> tuple[float, ...]:
    """The targets that were typed, such as 0.90,0.92.

    Raises:
        ConfigError: One is no share between 0 and 1, or they are too many.
    """
    words = [word.strip() for word in said.split(",") if word.strip()]
    if len(words) > MOST_TARGETS:
        raise ConfigError(f"target: {len(words)} targets, of at most {MOST_TARGETS}")
    found = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not 0 < value < 1:
            raise ConfigError(f"target: {word!r} is no accuracy between 0 and 1, such as 0.92")
        found.append(value)
    return tuple(sorted({*found}))


def note(rows: Sequence[dict[str, Any]], targets: Sequence[float]) -> None:
    """Give rows, in place, what `reached` says as `targets`, as far as their histories are read."""
    left = MOST_EPOCHS
    for row in rows:
        histories = []
        for folder in row["folders"] if left > 0 else ():
            history, lines = counted_history(folder)
            left -= lines
            histories.append(history)
        row["targets"] = [one._asdict() for one in reached(row, histories, targets)]


def reached(
    row: Row, histories: Sequence[Sequence[Mapping[str, float]]], targets: Sequence[float]
) -> list[Target]:
    """When a row reached each target: by validation accuracy, or test accuracy where it has none.

    Only runs count that were evaluated in every epoch: of others nothing is interpolated.
    """
    by = "validation" if row["split_validation"] else "test"
    runs = [
        known
        for history in histories
        if (known := _by_epoch(history, f"{by}_accuracy")) is not None
    ]
    if not runs:
        return []
    found = []
    for target in targets:
        ends = [next((n for n, a in enumerate(run[0], 1) if a >= target), None) for run in runs]
        epochs = _median(ends)
        times = [
            None if end is None else run[1][end - 1] for end, run in zip(ends, runs, strict=True)
        ]
        images = epochs and row["split_train"] and epochs * int(row["split_train"])
        hits = sum(end is not None for end in ends)
        # One time that is not known may be the median, or stand on either side of it.
        timed = not any(time is not None and math.isnan(time) for time in times)
        seconds = _median(times) if timed and epochs is not None else None
        found.append(Target(target, by, len(runs), hits, epochs, images, seconds))
    return found


def _by_epoch(
    history: Sequence[Mapping[str, float]], key: str
) -> tuple[list[float], list[float]] | None:
    """The accuracy after each epoch and the training seconds until then; None where one lacks."""
    lines = {int(line["epoch"]): line for line in history}
    if not lines or sorted(lines) != list(range(len(lines))):
        return None
    accuracies, times, clock = [], [], 0.0
    for epoch in range(len(lines)):
        line = lines[epoch]
        if key not in line:
            return None
        clock += line.get("seconds", math.nan)
        accuracies.append(line[key])
        times.append(clock)
    return accuracies, times


def _median(values: Sequence[Any]) -> Any:
    """Of what is known and what never was; the later of the two in the middle."""
    late = sorted(math.inf if value is None else value for value in values)
    middle = late[len(late) // 2]
    return None if middle == math.inf else middle


def tables(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """A heading and the cells below `HEADINGS` for each kind of accuracy that rows are timed by."""
    headings = {
        "validation": "Time to a target, by validation accuracy",
        "test": "Time to a target, by test accuracy (of runs that were evaluated every epoch)",
    }
    made = []
    for by, heading in headings.items():
        cells = [
            (count(row["number"]), MODEL.cell(row), *Target(**one).said)
            for row in rows
            for one in row.get("targets") or ()
            if one["by"] == by
        ]
        if cells:
            made.append((heading, cells))
    return made
