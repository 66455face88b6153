"""The runs of each row as one line: means, spread, and what all of them share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fmbench.config.schema import HARDWARE
from fmbench.report.table.columns import SPREAD
from fmbench.stats import t_half_width

#: What the runs of a row have in common, but for their seed. The counts in case that records which
#: say nothing of a user's own code are of several nets.
ROW = ("configuration", "data", "parameters", "flops", *HARDWARE)

# Beside those with a spread.
_MEANS = ("best_test_accuracy", "peak_memory")
_SAME = (
    *ROW,
    *("model", "split", "augmentation", "optimizer", "scheduler", "learning_rate", "batch_size"),
    *("epochs", "split_train", "split_validation", "split_test"),
    *("split_hash", "data_sha256", "source", "overrides", "config", "config_dir"),
    *("config_dirs", "trust"),
)
# Several values stand behind a row: its cell is a tuple of them.
_SEVERAL = ("seeds", "fmbench_version", "torch", "git_commit", "git_dirty", "runs_at_once", "used")
_EACH = {
    "folders": "folder",
    "accuracies": "test_accuracy",
    "best_accuracies": "best_test_accuracy",
    "run_seeds": "seed",
    "run_seconds": "seconds_train",
}
# Of different machines no mean says anything.
_MEASURED = (
    *("seconds_train", "seconds_evaluate", "seconds_total", "images_per_second", "peak_memory"),
)
_TEST_SET = ("data_sha256", "split_hash", "split_test")


def with_repeats(completed: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The runs, oldest first, with the number of their row and what their repeats add.

    Args:
        completed: The runs.
        keys: Columns that the runs of a row have in common.
    """
    # Stable, so that among equals the last folder counts, as it does among dated ones.
    made = completed.sort_values("started", kind="stable", na_position="first")
    made = made.assign(row=made.groupby(list(keys), sort=False, dropna=False).ngroup())
    # On other hardware it is another run, which a group may hold too.
    again = ["row", "key", *HARDWARE]
    accuracies = made.groupby(again, dropna=False)["test_accuracy"]
    spread = accuracies.transform("max") - accuracies.transform("min")
    # A repeat with the same result may know what the newest did not look at.
    best = made.groupby([*again, "test_accuracy"], dropna=False)["best_test_accuracy"]
    return made.assign(
        repeats_spread=spread.where(accuracies.transform("size") > 1),
        best_test_accuracy=best.transform("last"),
    )


def aggregate(runs: pd.DataFrame, *, mixed: bool = False, intervals: bool = True) -> pd.DataFrame:
    """One line for each row of the table, indexed by the row's number.

    Args:
        runs: Those that count, with the number of their `row`.
        mixed: The runs of a row may differ in more than their seed: what they do not share is left
            out, and so is what was measured on different hardware; `mixes` says which differ.
        intervals: The runs of a row are repetitions of one thing, chosen by nobody.

    Returns:
        `n`, means (missing where not all runs have a value), `*_sd` with n - 1 in the denominator,
        `*_low` and `*_high` of the 95 % interval of the mean by Student's t, what all runs share,
        tuples of what they do not, and the `accuracies`, `best_accuracies` (on the test set) and
        `run_seeds` of the runs in the order of their `folders`.
    """
    # As floats: the product of two 64-bit counts need not fit 64 bits.
    images = runs["split_train"].astype("Float64") * runs["epochs"].astype("Float64")
    clocked = images.notna() & runs["seconds_train"].notna()
    runs = runs.assign(
        images=images.where(clocked),
        clock=runs["seconds_train"].where(clocked),
        dirty=runs["git_dirty"].fillna(False).astype("int64"),
    )
    groups = runs.groupby("row")
    table = groups.agg(
        n=("key", "size"),
        n_dirty=("dirty", "sum"),
        repeats_spread=("repeats_spread", "max"),
        **{name: (name, "mean") for name in (*SPREAD, *_MEANS)},
        **{f"{name}_sd": (name, "std") for name in SPREAD},
        **{name: (name, "last") for name in _SAME},
    )
    # The mean of rates is no rate: it would contradict the time beside it.
    sums = groups[["images", "clock"]].sum()
    table["images_per_second"] = sums["images"] / sums["clock"].where(sums["clock"] > 0)
    # A mean over some of the seeds is not comparable with one over all.
    counts = groups[[*SPREAD, *_MEANS]].count()
    for name in counts:
        known = counts[name] == table["n"]
        table[name] = table[name].where(known)
        if name in SPREAD:
            table[f"{name}_sd"] = table[f"{name}_sd"].where(known)
    table["peak_memory"] = table["peak_memory"].round().astype("Int64")
    table["mixes"] = _leave_out(table, groups) if mixed else [()] * len(table)
    for name in SPREAD:
        half = t_half_width(table[f"{name}_sd"].to_numpy(), table["n"].to_numpy())
        half = half if intervals else np.full(len(table), np.nan)
        ends = table[name] - half, table[name] + half
        if name.endswith("accuracy"):
            ends = ends[0].clip(lower=0.0), ends[1].clip(upper=1.0)
        table[f"{name}_low"], table[f"{name}_high"] = ends
    by_seed = runs.sort_values("seed", kind="stable").assign(seeds=lambda frame: frame["seed"])
    for name in _SEVERAL:
        table[name] = _several(by_seed, name, len(table))
    # One each for every run, in one order.
    for name, column in _EACH.items():
        each: list[list[Any]] = [[] for _ in range(len(table))]
        values = by_seed[column].astype(object)
        for row, value in zip(by_seed["row"], values.where(values.notna(), None), strict=True):
            each[row].append(value)
        table[name] = [tuple(values) for values in each]
    return table


def _leave_out(table: pd.DataFrame, groups: Any) -> list[tuple[str, ...]]:
    """Make missing what the runs of a row do not share; says what of it a reader must know."""
    differ = groups[list(_SAME)].nunique(dropna=False) > 1
    machines = differ[list(HARDWARE)].any(axis=1)
    for name in _SAME:
        table[name] = table[name].where(~differ[name])
    for name in _MEASURED:
        table[name] = table[name].where(~machines)
        if f"{name}_sd" in table:
            table[f"{name}_sd"] = table[f"{name}_sd"].where(~machines)
    known = [name for name in (*_TEST_SET, *HARDWARE) if differ[name].any()]
    return [
        tuple(name for name, differs in zip(known, row, strict=True) if differs)
        for row in differ[known].itertuples(index=False)
    ]


def _several(runs: pd.DataFrame, name: str, rows: int) -> list[tuple[Any, ...]]:
    """For each row the different values of its runs, in order."""
    values: list[dict[Any, None]] = [{} for _ in range(rows)]
    known = runs[["row", name]].dropna()
    for row, value in zip(known["row"].tolist(), known[name].tolist(), strict=True):
        values[row][value] = None
    return [tuple(sorted(value)) for value in values]
