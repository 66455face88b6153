"""From runs to rows: means, spread, what runs of a row share, those that did not complete."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fmbench.config import schema
from fmbench.config.schema import HARDWARE
from fmbench.data.synthetic import CLASSES
from fmbench.report.table.columns import METRICS, SPREAD
from fmbench.stats import t_half_width

REAL = "fashion_mnist"
SYNTHETIC = "synthetic"

#: The split whose runs share training images, so that a row of them is no row of seeds.
FOLDS = "kfold"

#: What the runs of a row have in common, but for their seed. The counts in case that records which
#: say nothing of a user's own code are of several models.
ROW = ("configuration", "label", "data", "parameters", "flops", *HARDWARE)

# Chosen by name, beside what the config says: with it they make a recipe.
_CHOSEN = ("data", "model", "split", "augmentation", "optimizer", "scheduler", "loss", "averaging")

# Means beside those with a spread.
_MEANS = ("best_test_accuracy", "peak_memory")
_SAME = (
    *ROW,
    *("model", "split", "augmentation", "optimizer", "scheduler", "loss", "averaging"),
    *("learning_rate", "batch_size", "epochs", "split_train", "split_validation", "split_test"),
    *("split_hash", "split_folds", "data_sha256", "source", "overrides", "config", "config_dir"),
    "about_data",
    *("config_dirs", "trust", "tuning"),
)
# Several values stand behind a row: its cell is a tuple of them.
_SEVERAL = ("seed", "fmbench_version", "torch", "git_commit", "git_dirty", "runs_at_once", "used")
# One for each run of a row, in one order.
_EACH = {
    "folders": "folder",
    "accuracies": "test_accuracy",
    "best_accuracies": "best_test_accuracy",
    "run_seeds": "seed",
    "run_folds": "fold",
    "run_seconds": "seconds_train",
    "run_corrupted": "corrupted",
    "stopped_epochs": "stopped_epoch",
}
# Of a row whose runs are no folds, or of ones that are not known.
_NO_FOLDS: dict[str, Any] = {"folds": (), "held_out": None, "fold_accuracies": ()}
#: In place of a missing value; the stubs of pandas do not know that it may be.
_NONE: Any = None

# A mean over different machines means nothing.
_TIMES = ("seconds_train", "seconds_evaluate", "seconds_total")
_TEST_SET = ("data_sha256", "split_hash", "split_test")


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts of plain Python values, None where a value is missing."""
    cells = table.to_numpy(dtype=object, na_value=_NONE).tolist()  # faster than by `to_dict`
    names = list(table.columns)  # an index is slow to walk, and would be again for every row
    return [dict(zip(names, row, strict=True)) for row in cells]


def class_names(row: Mapping[str, Any], classes: int) -> list[str]:
    """The names of the classes of a row's data set; their numbers where nothing else is known."""
    known = about_data(row).get("classes") or ()
    if not known and row["data"] in (REAL, SYNTHETIC):  # of a record that does not say
        known = CLASSES
    return list(known) if classes <= len(known) else list(map(str, range(classes)))


def about_data(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the records of a row say of its data: `fmbench.records.record.Data`."""
    found: dict[str, Any] = json.loads(row.get("about_data") or "{}")
    return found


def with_repeats(completed: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The runs, oldest first, with the number of their row and what their repeats add.

    The runs of a row have the columns `keys` in common.
    """
    # Stable, so that among equals the last folder counts, as it does among dated ones.
    made = completed.sort_values("started", kind="stable", na_position="first")
    made = made.assign(row=made.groupby(list(keys), sort=False, dropna=False).ngroup())
    # On other hardware it is another run, which a group may hold too.
    again = ["row", "key", *HARDWARE]
    accuracies = made.groupby(again, dropna=False)["test_accuracy"]
    spread = accuracies.transform("max") - accuracies.transform("min")
    # A repeat with the same result may know what the newest did not evaluate.
    best = made.groupby([*again, "test_accuracy"], dropna=False)["best_test_accuracy"]
    return made.assign(
        repeats_spread=spread.where(accuracies.transform("size") > 1),
        best_test_accuracy=best.transform("last"),
    )


def aggregate(runs: pd.DataFrame, *, mixed: bool = False, intervals: bool = True) -> pd.DataFrame:
    """Aggregate the runs of each row, indexed by the row's number; as `benchmark_table` says.

    Args:
        runs: Those that count, with the number of their `row`.
        mixed: The runs of a row may differ in more than their seed: what they do not share is left
            out, and so is what was measured on different hardware; `mixes` says which differ.
        intervals: The runs of a row are repetitions of one thing, chosen by nobody.
    """
    # As floats: the product of two 64-bit counts need not fit 64 bits.
    epochs = runs["stopped_epoch"].fillna(runs["epochs"])
    images = runs["split_train"].astype("Float64") * epochs.astype("Float64")
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
    known = groups[[*SPREAD, *_MEANS]].count().eq(table["n"], axis=0)
    for name in known:
        table[name] = table[name].where(known[name])
    table["peak_memory"] = table["peak_memory"].round().astype("Int64")
    table["mixes"] = _leave_out(table, groups) if mixed else [()] * len(table)
    more: dict[str, Any] = {}  # joined at once: pandas is slow with columns one by one
    for name in SPREAD:
        deviation = table[f"{name}_sd"] = table[f"{name}_sd"].where(known[name])
        half = t_half_width(deviation.to_numpy(), table["n"].to_numpy())
        ends = [table[name] - half, table[name] + half]
        if METRICS[name].is_share:
            ends = [ends[0].clip(lower=0.0), ends[1].clip(upper=1.0)]
        for end, values in zip(("low", "high"), ends, strict=True):
            more[f"{name}_{end}"] = values if intervals else np.nan
    by_seed = runs.sort_values(["fold", "seed"], kind="stable")
    for name in _SEVERAL:
        each = _each(by_seed, name, len(table))
        more[name] = [tuple(sorted({*values} - {None})) for values in each]
    for name, column in _EACH.items():
        more[name] = [tuple(values) for values in _each(by_seed, column, len(table))]
    table = pd.concat([table, pd.DataFrame(more, index=table.index)], axis=1)
    return table.rename(columns={"seed": "seeds"})


def over_folds(table: pd.DataFrame, runs: pd.DataFrame, *, intervals: bool = True) -> None:
    """Turn rows of folds, in place, into means and spreads over folds.

    The seeds of one fold are one measurement of it: their mean. The interval is of the accuracy on
    the images that the folds held out, by the variance for folds, which share training images
    (`fmbench.stats.t_half_width`). No other measure has one.

    Args:
        table: As `aggregate` gives it. Gets `folds`, the numbers of the folds; `held_out`, which
            accuracy is the one on the held-out images; `fold_accuracies`, that of each fold. Rows
            of seeds, and of folds that are not known, have (), None and ().
        runs: Those that count, with the number of their `row`.
        intervals: As in `aggregate`.
    """
    found = {key: dict.fromkeys(table.index, none) for key, none in _NO_FOLDS.items()}
    of_folds = table["split"].eq(FOLDS).fillna(False)
    if of_folds.any():
        _measure_folds(table, runs, of_folds, found, intervals=intervals)
    for key, values in found.items():
        table[key] = pd.Series(values, table.index, dtype=object)


def _measure_folds(
    table: pd.DataFrame,
    runs: pd.DataFrame,
    of_folds: pd.Series,
    found: dict[str, dict[Any, Any]],
    *,
    intervals: bool,
) -> None:
    table.loc[of_folds, [f"{name}_{end}" for name in SPREAD for end in ("low", "high")]] = np.nan
    unknown = runs.loc[runs["fold"].isna() | runs["split_folds"].isna(), "row"]
    places = table.index[of_folds & ~table.index.isin(unknown)]
    each = runs[runs["row"].isin(places)].groupby(["row", "fold"])[list(SPREAD)].mean()
    means, deviations = (each.groupby(level="row").agg(how) for how in ("mean", "std"))
    for name in SPREAD:
        known = table.loc[places, name].notna()
        table.loc[places, name] = means[name].where(known)
        table.loc[places, f"{name}_sd"] = deviations[name].where(known)
    table.loc[places, "split_hash"] = table.loc[places, "split_folds"]  # not that of one fold
    for place, row in zip(places, plain_rows(table.loc[places]), strict=True):
        part = "validation" if row["split_validation"] else "test"
        name = f"{part}_accuracy"
        accuracies = each[name].loc[place]
        found["folds"][place] = tuple(accuracies.index.tolist())
        if row[name] is None or not row["split_train"] or not row[f"split_{part}"]:
            continue
        found["held_out"][place] = name
        found["fold_accuracies"][place] = tuple(accuracies.tolist())
        if intervals and len(accuracies) > 1:
            ratio = row[f"split_{part}"] / row["split_train"]
            half = float(t_half_width(row[f"{name}_sd"], len(accuracies), ratio))
            table.at[place, f"{name}_low"] = max(row[name] - half, 0.0)
            table.at[place, f"{name}_high"] = min(row[name] + half, 1.0)


def _leave_out(table: pd.DataFrame, groups: Any) -> list[tuple[str, ...]]:
    """Blank what the runs of a row do not share; returns the names that a note has to give."""
    differ = groups[list(_SAME)].nunique(dropna=False) > 1
    machines = differ[list(HARDWARE)].any(axis=1)
    for name in _SAME:
        table[name] = table[name].where(~differ[name])
    for name in (*_TIMES, *(f"{name}_sd" for name in _TIMES), "images_per_second", "peak_memory"):
        table[name] = table[name].where(~machines)
    known = [name for name in (*_TEST_SET, *HARDWARE) if differ[name].any()]
    return [tuple(key for key in row if row[key]) for row in plain_rows(differ[known])]


def _each(runs: pd.DataFrame, name: str, rows: int) -> list[list[Any]]:
    """For each row the values of its runs, in their order, None where one is missing."""
    values = runs[name].to_numpy(dtype=object, na_value=_NONE)
    each: list[list[Any]] = [[] for _ in range(rows)]
    for row, value in zip(runs["row"], values.tolist(), strict=True):
        each[row].append(value)
    return each


def not_completed(
    runs: pd.DataFrame, others: pd.DataFrame, keys: Sequence[str], *, grouped: bool
) -> Counter[tuple[int, str]]:
    """How many runs that did not complete belong to each row, by row and status.

    The runs of a row have the columns `keys` in common. Unless they are grouped, a run that failed
    early knows neither its data nor its device, and is matched by its config, for one row only.
    """
    counts = Counter[tuple[int, str]]()
    if others.empty:
        return counts
    columns = [*dict.fromkeys(keys if grouped else (*keys, *_CHOSEN, "label", "config"))]
    known = plain_rows(runs[["row", *columns]])
    exact = {tuple(run[key] for key in keys): run["row"] for run in known}
    alike = {} if grouped else {_recipe(run): run["row"] for run in reversed(known)}
    for run in plain_rows(others[["status", *columns]]):
        row = exact.get(tuple(run[key] for key in keys))
        if row is None and alike:
            row = alike.get(_recipe(run))
        if row is not None:
            counts[row, run["status"]] += 1
    return counts


def _recipe(run: dict[str, Any]) -> tuple[Any, ...]:
    """A key that runs share which differ in their seed alone, by what was typed."""
    config = {
        key: value
        for key, value in json.loads(run["config"]).items()
        if key not in schema.TOP or (schema.TOP[key].role != "kept" and not schema.TOP[key].repeats)
    }
    said = json.dumps(config, sort_keys=True) if config else run["configuration"]
    return (*(run[name] for name in _CHOSEN), run["label"], said)
