"""Two rows of the benchmark beside each other: how far apart, in which classes, at what cost."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmbench import stats
from fmbench.config.schema import HARDWARE
from fmbench.core.errors import ConfigError, PartialResultsError, one_line
from fmbench.records.reader import Problem, Progress, Results, read_results
from fmbench.report.table.build import benchmark_table
from fmbench.report.table.columns import MODEL, SHOWN, Row
from fmbench.report.table.formats import (
    at_once,
    count,
    duration,
    equals,
    factor,
    percent,
    probability,
)
from fmbench.report.table.ranks import Evidence, evidence, sample
from fmbench.report.table.rows import class_names, plain_rows
from fmbench.report.table.view import View, is_condition
from fmbench.stats import CONFIDENCE, MODELS, NEITHER, Difference

# Rows that a message names.
MOST_NAMED = 5

# Characters of a name in a message.
_LONGEST = 80


class SeedPair(NamedTuple):
    """One run of either row with the same seed: accuracies, and p of McNemar's exact test."""

    seed: int
    a: float
    b: float
    only_a: int  # images that A alone has right
    only_b: int
    p: float


class ClassPair(NamedTuple):
    """The test images of one class: which share of them the runs of A and of B have right.

    The p is corrected by Holm's method for the number of classes; NaN where there is no test.
    """

    name: str
    a: float
    b: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Two rows compared.

    Attributes:
        names: What to call them.
        rows: The rows of `benchmark_table`, as plain values.
        difference: A less B.
        seeds: Runs with the same seed, where both predicted the classes of the same images.
        classes: Where the predictions of both are known.
        time_ratio: Training time of A over that of B; None where the two do not compare.
        time_note: Why they do not.
        problems: The records that could not be read.
    """

    names: tuple[str, str]
    rows: tuple[Row, Row]
    difference: Difference
    seeds: list[SeedPair]
    classes: list[ClassPair]
    time_ratio: float | None
    time_note: str | None
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """0, or 4 where some records could not be read."""
        return PartialResultsError.exit_status if self.problems else 0

    def interval(self, *, signed: bool = False) -> str:
        """The interval of the difference and p; of its size unless signed."""
        found = self.difference
        low, high = 100 * found.low, 100 * found.high
        if not signed and found.mean < 0:
            low, high = -high, -low
        sign = "+" if signed else ""
        level = f"{100 * CONFIDENCE:g} %"
        return f"{level} interval {low:{sign}.2f} to {high:{sign}.2f}, {equals(found.p)}"

    @property
    def sentence(self) -> str:
        """The conclusion, in one sentence."""
        found = self.difference
        points = f"{abs(100 * found.mean):.2f} points"
        first, second = self.names if found.mean >= 0 else self.names[::-1]
        if found.about == NEITHER:
            few, several = sorted(zip(self.names, self.rows, strict=True), key=lambda x: x[1]["n"])
            side = "ahead" if few[0] == first else "behind"
            lead = f"it is {side} by {points}" if found.mean else "both are equally accurate"
            return (
                f"{few[0]} has one seed and {several[0]} has {several[1]['n']}: how far another "
                "seed of the first would land is not known, so that neither is called more "
                f"accurate; on these images {lead}{self._time(first, second)}."
            )
        models = found.about == MODELS
        if found.p >= 1 - CONFIDENCE:
            said = f"{first} and {second} cannot be told apart: {points} lie between them"
        elif models:
            said = (
                f"the trained model of {first} is more accurate on these images than that of "
                f"{second} by {points}"
            )
        else:
            said = f"{first} is more accurate than {second} by {points}"
        said += f" ({self.interval()})"
        if models:
            said += (
                "; with one seed each this is about these two trained models, not about their "
                "recipes"
            )
        if not found.paired:
            said += "; their predictions could not be compared image by image"
        return f"{said}{self._time(first, second)}."

    def _time(self, first: str, second: str) -> str:
        if self.time_ratio is None:
            return ""
        ratio = self.time_ratio if first == self.names[0] else 1 / self.time_ratio
        if 0.95 < ratio < 1.05:
            return f"; {first} and {second} train equally long"
        longer, shorter = (second, first) if ratio < 1 else (first, second)
        times = f"{factor(max(ratio, 1 / ratio))} times as long"
        if all(row["n"] == 1 for row in self.rows):
            return f"; the one run of {longer} trained {times} as that of {shorter}"
        return f"; {longer} trains {times} as {shorter}"

    @property
    def seed_cells(self) -> list[list[str]]:
        """McNemar's test of each seed, below its headings."""
        return [
            ["seed", "A (%)", "B (%)", "A alone right", "B alone right", "p"],
            *(
                [str(seed), percent(a), percent(b), count(only_a), count(only_b), probability(p)]
                for seed, a, b, only_a, only_b, p in self.seeds
            ),
        ]

    @property
    def class_cells(self) -> list[list[str]]:
        """The accuracies of each class, below their headings."""
        return [
            ["class", "A (%)", "B (%)", "difference (points)", "p"],
            *(
                [name, percent(a), percent(b), f"{100 * (a - b):+.2f}", probability(p)]
                for name, a, b, p in self.classes
            ),
        ]


def compare(
    a: str, b: str, folders: Sequence[Path] = (), *, progress: Progress | None = None
) -> Comparison:
    """Compare two rows of the benchmark.

    Args:
        a: The number of a row in the table of `folders`, a folder whose runs are one row, or
            conditions that leave one row of it (see `fmbench.report.table.view.chosen`).
        b: Likewise.
        folders: Run folders, sweep folders, or whatever holds them.
        progress: Told now and then how many records were read.

    Raises:
        ConfigError: One is no row, or more than one; or the two are the same, or of different data.
    """
    known_results: dict[tuple[Path, ...], Results] = {}  # no folder is read twice

    def rows_of(places: Sequence[Path], condition: str = "") -> list[dict[str, Any]]:
        key = tuple(places)
        if key not in known_results:
            known_results[key] = read_results(*places, progress=progress)
        view = View(condition=condition)
        return plain_rows(benchmark_table(known_results[key].frame, view, rank=False))

    one, two = rows = (_row(a, folders, rows_of), _row(b, folders, rows_of))
    places = [{os.path.realpath(folder) for folder in row["folders"]} for row in rows]
    if places[0] & places[1]:
        raise ConfigError(
            f"compare: {one_line(a, _LONGEST)!r} and {one_line(b, _LONGEST)!r} are the same row"
        )
    if any(one[key] != two[key] for key in ("data", "data_sha256")):
        raise ConfigError(
            f"compare: {a!r} is on {one['data']} and {b!r} on {two['data']}, of other content: "
            "accuracies compare on one data set alone"
        )
    for said, row in ((a, one), (b, two)):
        if not row["split_test"]:
            raise ConfigError(f"compare: {said!r} does not say how many images it was tested on")
    known = [evidence(row) for row in rows]
    samples = [sample(row, found) for row, found in zip(rows, known, strict=True)]
    a_known, b_known = known
    seeds: list[SeedPair] = []
    classes: list[ClassPair] = []
    if a_known is not None and b_known is not None:
        if samples[0].is_paired(samples[1]):
            seeds = _seeds(a_known, b_known)
        classes = _classes(one["data"], a_known, b_known)
    found = stats.difference(*samples)
    problems = {str(p.path): p for results in known_results.values() for p in results.problems}
    listed = [problems[path] for path in sorted(problems)]
    times = _times(one, two)
    return Comparison(_names(one, two), rows, found, seeds, classes, *times, listed)


def _row(said: str, folders: Sequence[Path], rows_of: Callable[..., list[dict[str, Any]]]) -> Row:
    """The row that a number, a folder or conditions name."""
    name = one_line(said, _LONGEST)
    if said.isdecimal():  # a folder of such a name, as a sweep's are, is ./1
        rows = rows_of(folders)
        if len(said) > len(str(len(rows))) or not 1 <= int(said) <= len(rows):
            where = " and ".join(map(str, folders)) or "outputs and multirun"
            raise ConfigError(f"compare: there is no row {name}: {where} hold {len(rows):,}")
        return rows[int(said) - 1]
    if os.path.isdir(said):  # noqa: PTH112 - Path.is_dir raises on too long a name
        rows = rows_of([Path(said)])
    elif is_condition(said):
        rows = rows_of(folders, said)
    else:
        raise ConfigError(
            f"compare: {name!r} is no folder, no number of a row, and no conditions such as "
            "model=lenet"
        )
    if not rows:
        raise ConfigError(f"compare: {name!r} fits no completed run with a test accuracy")
    if len(rows) > 1:
        first = rows[:MOST_NAMED]
        names = [one_line(f"{row['number']}: {_name(row, rows)}", _LONGEST) for row in first]
        more = ["..."] if len(rows) > MOST_NAMED else []
        raise ConfigError(
            f"compare: {name!r} is {len(rows):,} rows; more conditions or the folder of a run "
            f"name one ({'; '.join([*names, *more])})"
        )
    return rows[0]


def _name(row: Row, rows: Sequence[Row]) -> str:
    """The model, and what sets a row apart from others."""
    telling = [
        column
        for column in SHOWN
        if column.recipe and column is not MODEL and len({column.cell(one) for one in rows}) > 1
    ]
    return ", ".join([MODEL.cell(row), *(f"{c.heading} {c.cell(row)}" for c in telling)])


def _names(one: Row, two: Row) -> tuple[str, str]:
    names = (_name(one, (one, two)), _name(two, (one, two)))
    if names[0] != names[1]:
        return names
    a, b = (f"{names[0]}, seed {', '.join(map(str, row['seeds']))}" for row in (one, two))
    return (a, b) if a != b else (f"A ({names[0]})", f"B ({names[0]})")


def _seeds(one: Evidence, two: Evidence) -> list[SeedPair]:
    """The pairs of runs with the same seed; of several runs with one seed the first."""
    pairs = []
    places = [
        {seed: place for place, seed in reversed([*enumerate(found.seeds)])} for found in (one, two)
    ]
    for seed in sorted(seed for seed in places[0].keys() & places[1].keys() if seed is not None):
        a, b = (found.correct[at[seed]] for found, at in zip((one, two), places, strict=True))
        only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
        p = float(stats.mcnemar(only_a, only_b))
        pairs.append(SeedPair(seed, float(a.mean()), float(b.mean()), only_a, only_b, p))
    return pairs


def _classes(data: str, one: Evidence, two: Evidence) -> list[ClassPair]:
    numbers = sorted(set(one.labels.tolist()) & set(two.labels.tolist()))
    parts = [[found.of_class(number) for found in (one, two)] for number in numbers]
    each = np.array([stats.difference(a, b).p for a, b in parts])
    # One seed against several: no test.
    corrected = each if np.isnan(each).any() else stats.holm(each)
    names = class_names(data)
    return [
        ClassPair(
            names[number] if number < len(names) else str(number),
            float(np.mean(a.accuracies)),
            float(np.mean(b.accuracies)),
            float(p),
        )
        for number, (a, b), p in zip(numbers, parts, corrected, strict=True)
    ]


def _times(one: Row, two: Row) -> tuple[float | None, str | None]:
    """The ratio of the training times, or why they do not compare."""
    if one["device"] is None or two["device"] is None:
        return None, "on what one was measured is not known"
    differing = [key for key in HARDWARE if one[key] != two[key]]
    if differing:
        said = ", ".join(f"{key} is {one[key]} and {two[key]}" for key in differing)
        return None, one_line(said)
    if not one["seconds_train"] or not two["seconds_train"]:
        return None, "one is not known"
    beside = [row["runs_at_once"] for row in (one, two)]
    if beside[0] and beside[1] and beside[0] != beside[1]:
        counts = " and ".join(map(at_once, beside))
        return None, f"runs at once on the machine were {counts}"
    spans = []
    for row in (one, two):
        ends = (row["seconds_train_low"], row["seconds_train_high"])
        known = [value for value in (*row["run_seconds"], *ends) if value is not None]
        spans.append((max(min(known), 0.0), max(known)))
    (low_a, high_a), (low_b, high_b) = spans
    if low_a < high_b and low_b < high_a:
        said = " and ".join(f"{duration(low)} to {duration(high)}" for low, high in spans)
        return None, f"they overlap: {said} (the runs, and the 95 % interval of their mean)"
    return one["seconds_train"] / two["seconds_train"], None
