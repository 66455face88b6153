"""Two rows of the benchmark beside each other: how far apart, in which classes, at what cost."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fmbench.errors import ConfigError
from fmbench.report.columns import NET, SHOWN, Row
from fmbench.report.comparison import ClassPair, Comparison, SeedPair
from fmbench.report.differs import HARDWARE
from fmbench.report.escape import one_line
from fmbench.report.ranks import Evidence, evidence
from fmbench.report.rows import class_names, plain_rows
from fmbench.report.table import benchmark_table
from fmbench.report.view import View, is_condition
from fmbench.results import Progress, read_results
from fmbench.stats import Sample, difference, holm, mcnemar

# More rows than this in a message are read by nobody.
MOST_NAMED = 5


def compare(
    a: str, b: str, folders: Sequence[Path] = (), *, progress: Progress | None = None
) -> Comparison:
    """Compare two rows of the benchmark.

    Args:
        a: A folder whose runs are one row, the number of a row in the table of `folders`, or
            conditions that leave one row of it (see `fmbench.report.view.chosen`).
        b: Likewise.
        folders: Run folders, sweep folders, or whatever holds them.
        progress: Told now and then how many records were read.

    Raises:
        ConfigError: One is no row, or more than one; or the two are the same, or of different data.
    """
    rows = tuple(_row(said, folders, progress) for said in (a, b))
    one, two = rows
    if set(one["folders"]) & set(two["folders"]):
        raise ConfigError(f"compare: {a!r} and {b!r} are the same row")
    contents = [(row["data"], row["data_sha256"]) for row in rows]
    if contents[0] != contents[1]:
        raise ConfigError(
            f"compare: {a!r} is on {one['data']} and {b!r} on {two['data']}, of other content: "
            "accuracies compare on one data set alone"
        )
    unknown = [said for said, row in zip((a, b), rows, strict=True) if not row["split_test"]]
    if unknown:
        raise ConfigError(f"compare: {unknown[0]!r} does not say how many images it was tested on")
    known = (evidence(one), evidence(two))
    samples = [
        Sample(np.array(row["accuracies"]), int(row["split_test"]))
        if found is None
        else found.sample
        for row, found in zip(rows, known, strict=True)
    ]
    seeds: list[SeedPair] = []
    classes: list[ClassPair] = []
    if known[0] is not None and known[1] is not None:
        if known[0].sample.is_paired(known[1].sample):
            seeds = _seeds(known[0], known[1])
        classes = _classes(one["data"], known[0], known[1])
    ratio, note = _times(one, two)
    return Comparison(
        _names(one, two), (one, two), difference(*samples), seeds, classes, ratio, note
    )


def _row(said: str, folders: Sequence[Path], progress: Progress | None) -> Row:
    path = Path(said)
    condition = ""
    if path.is_dir():
        where, places = said, [path]
    elif said.isdecimal() or is_condition(said):
        where, places = " and ".join(map(str, folders)) or "outputs and multirun", list(folders)
        condition = "" if said.isdecimal() else said
    else:
        raise ConfigError(
            f"compare: {said!r} is no folder, no number of a row, and no conditions such as "
            "model=lenet"
        )
    frame = read_results(*places, progress=progress).frame
    rows = plain_rows(benchmark_table(frame, View(condition=condition)))
    if said.isdecimal() and not path.is_dir():
        if not 1 <= int(said) <= len(rows):
            raise ConfigError(f"compare: there is no row {said}: {where} hold {len(rows):,}")
        return rows[int(said) - 1]
    if not rows:
        raise ConfigError(f"compare: {said!r} fits no completed run with a test accuracy")
    if len(rows) > 1:
        names = [one_line(f"{row['number']}: {_name(row, rows)}", 80) for row in rows[:MOST_NAMED]]
        more = ["..."] if len(rows) > MOST_NAMED else []
        raise ConfigError(
            f"compare: {said!r} is {len(rows):,} rows; more conditions or the folder of a run name "
            f"one ({'; '.join([*names, *more])})"
        )
    return rows[0]


def _name(row: Row, rows: Sequence[Row]) -> str:
    """The net, and what sets a row apart from others."""
    telling = [
        column
        for column in SHOWN
        if column.recipe and column is not NET and len({column.cell(one) for one in rows}) > 1
    ]
    return ", ".join([NET.cell(row), *(f"{c.heading} {c.cell(row)}" for c in telling)])


def _names(one: Row, two: Row) -> tuple[str, str]:
    names = (_name(one, (one, two)), _name(two, (one, two)))
    return names if names[0] != names[1] else (f"A ({names[0]})", f"B ({names[1]})")


def _seeds(one: Evidence, two: Evidence) -> list[SeedPair]:
    """The runs of one seed beside each other."""
    pairs = []
    for seed in sorted(seed for seed in one.seeds if seed is not None and seed in two.seeds):
        a, b = (found.correct[found.seeds.index(seed)] for found in (one, two))
        only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
        p = float(mcnemar(only_a, only_b))
        pairs.append(SeedPair(seed, float(a.mean()), float(b.mean()), only_a, only_b, p))
    return pairs


def _classes(data: str, one: Evidence, two: Evidence) -> list[ClassPair]:
    numbers = sorted(set(one.labels.tolist()) & set(two.labels.tolist()))
    parts = [[found.of_class(number) for found in (one, two)] for number in numbers]
    corrected = holm(np.array([difference(a, b).p for a, b in parts]))
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
    differing = [key for key in HARDWARE if one[key] != two[key]]
    if differing:
        said = ", ".join(f"{key} is {one[key]} and {two[key]}" for key in differing)
        return None, one_line(said)
    if not one["seconds_train"] or not two["seconds_train"]:
        return None, "one is not known"
    return one["seconds_train"] / two["seconds_train"], None
