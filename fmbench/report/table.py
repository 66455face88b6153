"""Runs to benchmark table: seeds grouped, best first, and what was left out counted."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fmbench.record import COMPLETED, DECIDING_KNOBS
from fmbench.report.columns import COLUMNS, SHOWN, Row
from fmbench.report.escape import shell_word

REAL = "fashion_mnist"
SYNTHETIC = "synthetic"

# Wall times, and the last bits of an accuracy, depend on these.
HARDWARE = ("device", "precision", "threads", "memory_format", "deterministic")
GROUP = ("configuration", "data", *HARDWARE)

MEANS = (
    *("test_accuracy", "best_test_accuracy", "validation_accuracy", "train_accuracy", "test_loss"),
    *("seconds_train", "seconds_evaluate", "seconds_total", "images_per_second", "peak_memory"),
)
SAME = (
    *("model", "split", "augmentation", "optimizer", "scheduler", "learning_rate", "batch_size"),
    *("epochs", "parameters", "flops", "split_train", "split_validation", "split_test"),
    *("data_sha256", "overrides", "config"),
)

# More than this in brackets behind a net's name is read by nobody.
MOST_DIFFERENCES = 6


def benchmark_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Group runs into the rows of the benchmark table.

    A row is one configuration on one device in one precision; its runs differ in their seed. The
    same run made again counts once, the newest of them.

    Args:
        frame: The runs, as `fmbench.results.load_results` gives them.

    Returns:
        The columns of `fmbench.report.columns.COLUMNS`, in that order, as raw values: means over
        the `n` seeds, `test_accuracy_sd` with n - 1 in the denominator (missing for one seed),
        `n_repeats` the runs that were left out as repeats, `n_failed` the runs of the same
        configuration that did not complete, on whichever device. Fashion-MNIST comes first and
        synthetic data last; within one data set the best mean test accuracy comes first.
    """
    completed = frame["status"] == COMPLETED
    # Stable, so that among equals the last folder counts, as it does among dated ones.
    by_age = frame[completed].sort_values("started", kind="stable", na_position="first")
    runs = by_age.drop_duplicates([*GROUP, "key"], keep="last")
    groups = runs.groupby(list(GROUP), sort=False, dropna=False)
    table = groups.agg(
        n=("key", "size"),
        test_accuracy_sd=("test_accuracy", "std"),
        **{name: (name, "mean") for name in MEANS},
        **{name: (name, "last") for name in SAME},
    )
    table["n_repeats"] = by_age.groupby(list(GROUP), sort=False, dropna=False).size() - table["n"]
    table = table.reset_index()
    failures = frame.loc[~completed & (frame["status"] != "running"), "configuration"]
    table["n_failed"] = table["configuration"].map(failures.value_counts()).fillna(0).astype(int)
    seeds = defaultdict(set)
    for group, seed in zip(groups.ngroup(), runs["seed"], strict=True):
        if not pd.isna(seed):
            seeds[group].add(seed)
    table["command"] = [
        command(overrides, sorted(seeds[group]))
        for group, overrides in enumerate(table["overrides"])
    ]
    table["differs"] = ""
    for data in table["data"].unique():
        part = table[table["data"] == data]
        table.loc[part.index, "differs"] = _differences(plain_rows(part))

    order = table["data"].map({REAL: 0, SYNTHETIC: 2}).fillna(1)
    table = table.assign(order=order).sort_values(
        ["order", "data", "test_accuracy", "model", "differs"],
        ascending=[True, True, False, True, True],
        kind="stable",
        ignore_index=True,
    )
    return table[[column.key for column in COLUMNS]]


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts of plain Python values, None where a value is missing."""
    objects = table.astype(object)
    return objects.where(objects.notna(), None).to_dict("records")  # type: ignore[return-value]


def command(overrides: tuple[str, ...], seeds: list[int]) -> str:
    """The command that makes a row's runs again, quoted for a POSIX shell."""
    words = [word for word in overrides if not word.lstrip("+").startswith("seed=")]
    if seeds:
        words.append(f"seed={','.join(map(str, seeds))}")
    start = ["python -m fmbench", "-m"] if len(seeds) > 1 else ["python -m fmbench"]
    return " ".join([*start, *map(shell_word, words)])


def _differences(rows: list[dict[str, Any]]) -> list[str]:
    """For each row what sets it apart from those that would look the same; mostly nothing."""
    alike = defaultdict(list)
    shown = [column for column in SHOWN if column.recipe]
    for position, row in enumerate(rows):
        alike[tuple(column.cell({**row, "differs": ""}) for column in shown)].append(position)
    differs = [""] * len(rows)
    for positions in alike.values():
        if len(positions) > 1:
            texts = _apart([rows[position] for position in positions])
            for position, said in zip(positions, texts, strict=True):
                differs[position] = said
    return differs


def _apart(rows: list[dict[str, Any]]) -> list[str]:
    settings = [_settings(row) for row in rows]
    values: dict[str, set[str]] = defaultdict(set)
    for setting in settings:
        for key in setting:
            values[key] |= {other.get(key, "unset") for other in settings}
    keys = [key for key, different in values.items() if len(different) > 1]
    # An option that differs says it all; what it is made of need not follow.
    keys = [key for key in keys if key.partition(".")[0] not in keys or "." not in key]
    said = [
        ", ".join(f"{key}={setting.get(key, 'unset')}" for key in keys[:MOST_DIFFERENCES])
        for setting in settings
    ]
    if len(set(said)) == len(said):
        return said
    # Their configs are silent about it (or too long), but their hashes are not.
    return [
        ", ".join(filter(None, [text, f"configuration {row['configuration'][:8]}"]))
        for text, row in zip(said, rows, strict=True)
    ]


def _settings(row: Row) -> dict[str, str]:
    """All that may tell two rows apart, as texts under dotted names."""
    config = json.loads(row["config"] or "{}")
    settings = {"scheduler": str(row["scheduler"])}
    settings |= {
        key: value
        for key, value in _flat(config)
        if key != "data.name" and ("." in key or key in DECIDING_KNOBS)
    }
    settings |= {name: str(row[name]) for name in HARDWARE if row[name] is not None}
    if row["data_sha256"] is not None:
        settings["data_sha256"] = row["data_sha256"][:8]
    return settings


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Section:
    """The rows of one data set, never ranked together with those of another.

    Attributes:
        data: The data set's name.
        rows: The rows of `benchmark_table` on it, best first, as plain values.
        unfinished: Its runs that did not complete, as plain values of the runs' frame.
        completed: How many of its runs completed, repeats included.
        total: How many there are.
    """

    data: str
    rows: list[dict[str, Any]]
    unfinished: list[dict[str, Any]]
    completed: int
    total: int

    @property
    def title(self) -> str:
        """The heading of the section."""
        names = {REAL: "Fashion-MNIST", SYNTHETIC: "Synthetic data"}
        return names.get(self.data, f"Data: {self.data}")

    @property
    def summary(self) -> str:
        """How many of the runs completed, in a sentence."""
        said = f"{self.completed} of {self.total} runs completed"
        repeats = sum(row["n_repeats"] for row in self.rows)
        if repeats:
            said += f" (repeats of a run, which count once: {repeats})"
        return f"{said}."

    @property
    def notes(self) -> list[str]:
        """What a reader must know before comparing the rows."""
        notes = []
        if self.data == SYNTHETIC:
            notes.append(
                "Synthetic images, drawn by a program: "
                "these accuracies say nothing about Fashion-MNIST."
            )
        splits = sorted({str(row["split"]) for row in self.rows})
        if len(splits) > 1:
            notes.append(
                f"The rows mix splits ({', '.join(splits)}), which train and may test on "
                "different images: compare accuracies within one split."
            )
        if len({(row["device"], row["precision"]) for row in self.rows}) > 1:
            notes.append(
                "The rows come from several devices or precisions: compare wall times and "
                "images/s within one of them."
            )
        return notes


def sections(frame: pd.DataFrame, table: pd.DataFrame) -> list[Section]:
    """Split a table by data set: Fashion-MNIST first, synthetic data last.

    Args:
        frame: The runs.
        table: What `benchmark_table` made of them.
    """
    rows, runs = defaultdict(list), defaultdict(list)
    for row in plain_rows(table):
        rows[row["data"]].append(row)
    brief = frame[["data", "model", "seed", "status", "error", "folder"]]
    for run in plain_rows(brief[frame["status"] != COMPLETED]):
        runs[run["data"] or "unknown"].append(run)
    completed = frame.loc[frame["status"] == COMPLETED, "data"].value_counts().to_dict()
    names = sorted({*rows, *runs}, key=lambda name: (name == SYNTHETIC, name != REAL, name))
    return [
        Section(
            data=name,
            rows=rows[name],
            unfinished=runs[name],
            completed=completed.get(name, 0),
            total=completed.get(name, 0) + len(runs[name]),
        )
        for name in names
    ]
