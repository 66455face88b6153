"""Two rows of the benchmark beside each other: how far apart, in which classes, at what cost."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fmbench import stats
from fmbench.config.schema import HARDWARE
from fmbench.core.errors import ConfigError, one_line
from fmbench.records.gather import Problem, Progress
from fmbench.records.reader import read_results
from fmbench.report.table.build import benchmark_table
from fmbench.report.table.columns import MODEL, Row, differing
from fmbench.report.table.formats import at_once, duration, probability
from fmbench.report.table.ranks import Evidence, evidence, folds, same_folds, sample
from fmbench.report.table.rows import FOLDS, class_names, plain_rows
from fmbench.report.table.view import View, is_condition
from fmbench.stats import (
    CONFIDENCE,
    MODELS,
    NEITHER,
    OVER_FOLDS,
    Difference,
    Outperforming,
    Power,
    Spread,
)

# Rows that a message names.
MOST_NAMED = 5


class SeedPair(NamedTuple):
    """One run of either row with the same seed: accuracies, and p of McNemar's exact test."""

    seed: int
    a: float
    b: float
    only_a: int  # images that A alone has right
    only_b: int
    p: float


class FoldPair(NamedTuple):
    """Accuracies on the images that one fold held out, the means of its seeds."""

    fold: int
    a: float
    b: float


class ClassPair(NamedTuple):
    """The test images of one class: which share of them the runs of A and of B have right."""

    name: str
    a: float
    b: float
    p: float  # corrected by Holm's method for the number of classes; NaN where there is no test


@dataclass(frozen=True)
class Comparison:
    """Two rows compared, A and B."""

    names: tuple[str, str]
    rows: tuple[Row, Row]  # of `benchmark_table`, as plain values
    difference: Difference  # A less B
    folds: list[FoldPair]  # of rows over folds, which have no seeds and classes here
    seeds: list[SeedPair]  # where both predicted the same images
    classes: list[ClassPair]  # where the predictions of both are known
    power: Power | None  # of rows of several seeds
    outperforming: Outperforming | None  # P(A > B), likewise
    spreads: tuple[Spread | None, Spread | None]  # over the seeds of either row, where known
    # Image by image the share of either row's seeds that are right, where both predicted the same.
    answers: tuple[np.ndarray, np.ndarray] | None
    time_ratio: float | None  # training time of A over that of B; None where they do not compare
    time_note: str | None  # why they do not
    problems: list[Problem]  # the records that could not be read

    def interval(self, *, signed: bool = False) -> str:
        """The interval of the difference and p; of its size unless signed."""
        found, sign = self.difference, "+" if signed else ""
        low, high = 100 * found.low, 100 * found.high
        if not signed and found.mean < 0:
            low, high = -high, -low
        p = f"p = {probability(found.p)}".replace("= <", "<")
        return f"95 % interval {low:{sign}.2f} to {high:{sign}.2f}, {p}"

    @property
    def more(self) -> list[str]:
        """What the runs could have shown, and what more of them would."""
        said = []
        for letter, spread, row in zip("AB", self.spreads, self.rows, strict=True):
            if spread is not None:
                deviation = float(np.std(row["accuracies"], ddof=1))
                total, runs, images = (f"{100 * value:.2f}" for value in (deviation, *spread))
                in_parts = (
                    f", of which {runs} are the runs' own and {images} the finite test set's "
                    "(their squares add up)"
                    if spread.images <= deviation + 1e-9
                    else f", less than the {images} that the finite test set alone causes, so "
                    "that none of it is known to be the runs' own"
                )
                said.append(f"Spread over the seeds of {letter}: {total} points{in_parts}")
        if self.outperforming is not None:
            share, low, high = self.outperforming
            said.append(
                f"P(A > B), one run of A against one of B: {share:.2f}, 95 % interval {low:.2f} to "
                f"{high:.2f}"
            )
        if self.power is not None:
            seen = self.rows[0]["n"], self.rows[1]["n"]
            seeds = f"{seen[0]} seeds" if seen[0] == seen[1] else f"{seen[0]} and {seen[1]} seeds"
            said.append(
                f"Smallest difference that {seeds} show in 80 of 100 cases: "
                f"{100 * self.power.smallest:.2f} points"
            )
            if self.power.more_seeds is None:
                said.append(
                    f"A difference of {abs(100 * self.difference.mean):.2f} points would not be "
                    f"shown by {stats.MOST_SEEDS:,} more seeds either: it takes more test images"
                )
            elif self.power.more_seeds:
                said.append(
                    f"A difference of {abs(100 * self.difference.mean):.2f} points would be shown "
                    f"in 80 of 100 cases by {self.power.more_seeds:,} more seeds of each row"
                )
        return said

    @property
    def sentence(self) -> str:
        """The conclusion, in one sentence."""
        found = self.difference
        points = f"{abs(100 * found.mean):.2f} points"
        first, second = self.names if found.mean >= 0 else self.names[::-1]
        if found.about == NEITHER:
            few, several = sorted(zip(self.names, self.rows, strict=True), key=lambda x: x[1]["n"])
            side = "ahead" if few[0] == first else "behind"
            return (
                f"{few[0]} has one seed and {several[0]} has {several[1]['n']}: how far another "
                "seed of the first would land is not known, so that neither is called more "
                f"accurate; on these images it is {side} by {points}."
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
        if found.about == OVER_FOLDS:
            measure = self.rows[0]["held_out"].replace("_", " ")
            said += (
                f"; this is {measure} over {len(self.folds)} folds, by the corrected resampled "
                "t-test"
            )
        if models:
            said += (
                "; with one seed each this is about these two trained models, not about their "
                "recipes"
            )
        if not found.paired:
            said += "; their predictions could not be compared image by image"
        return f"{said}."


def compare(
    a: str, b: str, folders: Sequence[Path] = (), *, progress: Progress | None = None
) -> Comparison:
    """Compare two rows of the benchmark.

    Each is named by its number in the table of `folders`, by a folder whose runs are one row, or by
    conditions that leave one row of that table.

    Raises:
        ConfigError: One is no row, or more than one; or the two are the same, or of different data
            or different folds.
    """
    read = functools.cache(functools.partial(read_results, progress=progress))
    problems: dict[Path, Problem] = {}

    @functools.cache
    def rows_of(places: tuple[Path, ...], condition: str = "") -> list[dict[str, Any]]:
        results = read(*places)
        problems.update({problem.path: problem for problem in results.problems})
        table = benchmark_table(results.frame, View(condition=condition), rank=False)
        return plain_rows(table)

    given = tuple(folders)
    one, two = rows = (_row(a, given, rows_of), _row(b, given, rows_of))
    places = [{os.path.realpath(folder) for folder in row["folders"]} for row in rows]
    if places[0] & places[1]:
        raise ConfigError(f"compare: {a!r} and {b!r} are the same row")
    if any(one[key] != two[key] for key in ("data", "data_sha256")):
        raise ConfigError(
            f"compare: {a!r} is on {one['data']} and {b!r} on {two['data']}, of other content: "
            "accuracies compare on one data set alone"
        )
    for said, row in ((a, one), (b, two)):
        if row["split"] == FOLDS and (
            same_folds(one) is None or same_folds(one) != same_folds(two)
        ):
            raise ConfigError(
                f"compare: the runs of {said!r} are folds, which share training images: they "
                "compare only with a row over the very same folds, at least two"
            )
        if not row["split_test"]:
            raise ConfigError(f"compare: {said!r} does not say how many images it was tested on")
    over: list[FoldPair] = []
    seeds: list[SeedPair] = []
    classes: list[ClassPair] = []
    could: Power | None = None
    beats: Outperforming | None = None
    spreads: tuple[Spread | None, Spread | None] = (None, None)
    answers = None
    if one["split"] == FOLDS:
        found = stats.difference_of_folds(folds(one), folds(two))
        each = zip(one["folds"], one["fold_accuracies"], two["fold_accuracies"], strict=True)
        over = [FoldPair(*pair) for pair in each]
    else:
        a_known, b_known = evidence(one), evidence(two)
        samples = sample(one, a_known), sample(two, b_known)
        found, could = stats.difference(*samples), stats.power(*samples)
        beats = stats.outperforms(one["accuracies"], two["accuracies"])
        split_a, split_b = (
            None if known is None else stats.split_spread(known.correct)
            for known in (a_known, b_known)
        )
        spreads = split_a, split_b
        if a_known is not None and b_known is not None:
            seeds = _seeds(a_known, b_known) if found.paired else []
            classes = _classes(one, a_known, b_known)
            if found.paired:
                answers = a_known.correct.mean(axis=0), b_known.correct.mean(axis=0)
    listed = sorted(problems.values(), key=lambda problem: problem.path)
    times = _times(one, two)
    more = (could, beats, spreads, answers)
    return Comparison(_names(one, two), rows, found, over, seeds, classes, *more, *times, listed)


def _row(said: str, folders: tuple[Path, ...], rows_of: Callable[..., list[dict[str, Any]]]) -> Row:
    """The row that a number, a folder or conditions name."""
    if said.isdecimal():  # a folder of such a name, as a sweep's are, is ./1
        numbered = {str(row["number"]): row for row in rows_of(folders)}
        if said not in numbered:
            where = " and ".join(map(str, folders)) or "outputs and multirun"
            raise ConfigError(f"compare: there is no row {said}: {where} hold {len(numbered):,}")
        return numbered[said]
    if os.path.isdir(said):  # noqa: PTH112 - Path.is_dir raises on too long a name
        rows = rows_of((Path(said),))
    elif is_condition(said):
        rows = rows_of(folders, said)
    else:
        raise ConfigError(
            f"compare: {said!r} is no folder, no number of a row, and no conditions such as "
            "model=lenet"
        )
    if not rows:
        raise ConfigError(f"compare: {said!r} fits no completed run with a test accuracy")
    if len(rows) > 1:
        names = "; ".join(_name(row, rows) for row in rows[:MOST_NAMED])
        raise ConfigError(
            f"compare: {said!r} is {len(rows):,} rows; more conditions or the folder of a run "
            f"name one (the first: {names})"
        )
    return rows[0]


def _name(row: Row, rows: Sequence[Row]) -> str:
    """The model, and what sets a row apart from others."""
    others = [f"{c.heading} {c.cell(row)}" for c in differing(rows) if c is not MODEL]
    return ", ".join([MODEL.cell(row), *others])


def _names(one: Row, two: Row) -> tuple[str, str]:
    a, b = (_name(row, (one, two)) for row in (one, two))
    if a == b:
        a, b = (f"{a}, seed {', '.join(map(str, row['seeds']))}" for row in (one, two))
    return (a, b) if a != b else (f"A ({a})", f"B ({b})")


def _seeds(one: Evidence, two: Evidence) -> list[SeedPair]:
    """The pairs of runs with the same seed; of several runs with one seed the first."""
    pairs = []
    for seed in sorted({*one.seeds} & {*two.seeds}):
        a, b = (found.correct[found.seeds.index(seed)] for found in (one, two))
        only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
        p = float(stats.mcnemar(only_a, only_b))
        pairs.append(SeedPair(seed, float(a.mean()), float(b.mean()), only_a, only_b, p))
    return pairs


def _classes(row: Row, one: Evidence, two: Evidence) -> list[ClassPair]:
    numbers = sorted(set(one.labels.tolist()) & set(two.labels.tolist()))
    parts = [[found.of_class(number) for found in (one, two)] for number in numbers]
    each = np.array([stats.difference(a, b).p for a, b in parts])
    # One seed against several: no test.
    corrected = each if np.isnan(each).any() else stats.holm(each)
    names = class_names(row, 1 + max(numbers, default=0))
    return [
        ClassPair(names[number], a.accuracies.mean(), b.accuracies.mean(), p)
        for number, (a, b), p in zip(numbers, parts, corrected.tolist(), strict=True)
    ]


def time_span(row: Row) -> tuple[float, float]:
    """The training times of a row's runs and the 95 % interval of their mean, from end to end."""
    ends = (row["seconds_train_low"], row["seconds_train_high"])
    known = [value for value in (*row["run_seconds"], *ends) if value is not None]
    return max(min(known), 0.0), max(known)


def times_unlike(one: Row, two: Row) -> str | None:
    """Why the training times were not measured on the same terms; None where they were."""
    rows = (one, two)
    if any(row["device"] is None or not row["seconds_train"] for row in rows):
        return "the time or the device of one is not known"
    differing = [key for key in HARDWARE if one[key] != two[key]]
    if differing:
        said = ", ".join(f"{key} is {one[key]} and {two[key]}" for key in differing)
        return one_line(said)
    beside = [row["runs_at_once"] for row in rows]
    if all(beside) and beside[0] != beside[1]:
        return f"runs at once on the machine were {' and '.join(map(at_once, beside))}"
    return None


def times_overlap(one: Row, two: Row) -> bool:
    """Whether the `time_span` of two rows overlap."""
    (low_a, high_a), (low_b, high_b) = time_span(one), time_span(two)
    return low_a < high_b and low_b < high_a


def _times(one: Row, two: Row) -> tuple[float | None, str | None]:
    """The ratio of the training times, or why they do not compare."""
    if (why := times_unlike(one, two)) is not None:
        return None, why
    if times_overlap(one, two):
        spans = (time_span(one), time_span(two))
        said = " and ".join(f"{duration(low)} to {duration(high)}" for low, high in spans)
        return None, f"they overlap: {said} (the runs, and the 95 % interval of their mean)"
    return one["seconds_train"] / two["seconds_train"], None
