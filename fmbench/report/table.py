"""Runs to benchmark table: seeds grouped, best first, and what was left out counted."""

import json
from collections import Counter, defaultdict
from typing import Any

import pandas as pd

from fmbench.record import COMPLETED, DIVERGED, FAILED, INTERRUPTED, PRUNED, RUNNING
from fmbench.report.columns import COLUMNS
from fmbench.report.differs import HARDWARE, differences
from fmbench.report.escape import shell_word
from fmbench.report.published import published
from fmbench.report.rows import REAL, SYNTHETIC, plain_rows

GROUP = ("configuration", "data", *HARDWARE)

MEANS = (
    *("test_accuracy", "best_test_accuracy", "validation_accuracy", "train_accuracy", "test_loss"),
    *("seconds_train", "seconds_evaluate", "seconds_total", "peak_memory"),
)
SAME = (
    *GROUP,
    *("model", "split", "augmentation", "optimizer", "scheduler", "learning_rate", "batch_size"),
    *("epochs", "parameters", "flops", "split_train", "split_validation", "split_test"),
    *("split_hash", "data_sha256", "overrides", "config", "config_dir"),
)
# Several values stand behind a row: its cell is a tuple of them.
SEVERAL = ("seeds", "fmbench_version", "torch", "git_commit", "git_dirty", "folders")

# Chosen by name, beside what the config says: with it they make a recipe.
CHOSEN = ("data", "model", "split", "augmentation", "optimizer", "scheduler")


def benchmark_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Group runs into the rows of the benchmark table.

    A row is one configuration on one device in one precision; its runs differ in their seed. The
    same run made again counts once, the newest of them.

    Args:
        frame: The runs, as `fmbench.results.load_results` gives them.

    Returns:
        The columns of `fmbench.report.columns.COLUMNS`, in that order, as raw values: means over
        the `n` seeds, `*_sd` with n - 1 in the denominator (missing for one seed),
        `best_test_accuracy` only where all n have it, `images_per_second` over all their training,
        `published_*` of the experiment, `difference` ours less the published accuracy (missing
        where `deviations` says what was done otherwise) and `difference_of` which of ours,
        `n_repeats` the runs that were left out as repeats, `repeats_spread` the most that the
        test accuracies of one run made again differ by, `n_failed` the runs of the same config
        that ended early, `n_unfinished` those still running or killed, `n_pruned` those that a
        search gave up. A completed run without a test accuracy, a trial of a search, is no row:
        there is nothing to rank it by that compares with the others. Behind them `folders` of
        the n runs, `n_dirty`, how many were made with uncommitted changes, and what else sets
        rows apart: `config` as JSON text and the rest of the hardware. Fashion-MNIST comes first
        and synthetic data last; within one data set the best mean test accuracy.
    """
    # A GPU's results do not depend on how many threads its host has.
    on_gpu = frame["device_type"].notna() & (frame["device_type"] != "cpu")
    frame = frame.assign(threads=frame["threads"].mask(on_gpu))
    completed = frame["status"] == COMPLETED
    made = _with_repeats(frame[completed & frame["test_accuracy"].notna()])
    runs = made.drop_duplicates(["row", "key"], keep="last")
    table = _aggregate(runs)
    table = table.join(published(made, table))
    table["n_repeats"] = made.groupby("row").size() - table["n"]
    others = _not_completed(runs, frame[~completed])
    table["n_unfinished"] = [others[row, RUNNING] for row in table.index]
    table["n_pruned"] = [others[row, PRUNED] for row in table.index]
    table["n_failed"] = [
        sum(others[row, status] for status in (FAILED, DIVERGED, INTERRUPTED))
        for row in table.index
    ]
    table["model_settings"] = [
        model_settings(model, overrides)
        for model, overrides in zip(table["model"], table["overrides"], strict=True)
    ]
    table["augmentation_settings"] = [
        " ".join(_typed("augmentation", overrides).values()) for overrides in table["overrides"]
    ]
    table["command"] = [
        command(overrides, list(seeds), config_dir=bool(own))
        for overrides, seeds, own in zip(
            table["overrides"], table["seeds"], table["config_dir"].fillna(False), strict=True
        )
    ]
    table["differs"] = ""
    for _, part in table.groupby("data", sort=False):
        table.loc[part.index, "differs"] = differences(plain_rows(part))

    order = table["data"].map({REAL: 0, SYNTHETIC: 2}).fillna(1)
    table = table.assign(order=order).sort_values(
        ["order", "data", "test_accuracy", "model", "differs"],
        ascending=[True, True, False, True, True],
        kind="stable",
        ignore_index=True,
    )
    hidden = ("config", *(name for name in HARDWARE if name not in ("device", "precision")))
    return table[[*(column.key for column in COLUMNS), "folders", "n_dirty", *hidden]]


def command(overrides: tuple[str, ...], seeds: list[int], *, config_dir: bool = False) -> str:
    """The command that makes a row's runs again, quoted for a POSIX shell.

    Where options came from a folder of the user's, DIR stands for it: it is nobody else's to know.
    """
    words = [word for word in overrides if not word.lstrip("+").startswith("seed=")]
    if seeds:
        words.append(f"seed={','.join(map(str, seeds))}")
    start = ["python -m fmbench"]
    start += ["-m"] if len(seeds) > 1 else []
    start += ["--config-dir DIR"] if config_dir else []
    return " ".join([*start, *map(shell_word, words)])


def model_settings(model: str, overrides: tuple[str, ...]) -> str:
    """What was typed about the net itself, as it stands behind its name: width=16 depth=40."""
    said = _typed("model", overrides)
    # Where one option stands for many nets, the name of the net has it already.
    if model.endswith(f"/{said.get('name', '').partition('=')[2]}"):
        said.pop("name", None)
    return " ".join(said.values())


def _typed(group: str, overrides: tuple[str, ...]) -> dict[str, str]:
    """What was typed about the keys of a group, by key, without the group's name."""
    said: dict[str, str] = {}
    for word in overrides:
        key, equals, value = word.lstrip("+").partition("=")
        if key.lstrip("~").startswith(f"{group}."):
            key = key.replace(f"{group}.", "", 1)
            said[key] = f"{key}{equals}{value}"
    return said


def _with_repeats(completed: pd.DataFrame) -> pd.DataFrame:
    """The runs, oldest first, with the number of their row and what their repeats add."""
    # Stable, so that among equals the last folder counts, as it does among dated ones.
    made = completed.sort_values("started", kind="stable", na_position="first")
    made = made.assign(row=made.groupby(list(GROUP), sort=False, dropna=False).ngroup())
    accuracies = made.groupby(["row", "key"])["test_accuracy"]
    spread = accuracies.transform("max") - accuracies.transform("min")
    # A repeat with the same result may know what the newest did not look at.
    best = made.groupby(["row", "key", "test_accuracy"])["best_test_accuracy"].transform("last")
    return made.assign(
        repeats_spread=spread.where(accuracies.transform("size") > 1), best_test_accuracy=best
    )


def _aggregate(runs: pd.DataFrame) -> pd.DataFrame:
    """One line for each row of the table, indexed by the row's number."""
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
        test_accuracy_sd=("test_accuracy", "std"),
        seconds_train_sd=("seconds_train", "std"),
        repeats_spread=("repeats_spread", "max"),
        **{name: (name, "mean") for name in MEANS},
        **{name: (name, "last") for name in SAME},
    )
    # The mean of rates is no rate: it would contradict the wall time beside it.
    sums = groups[["images", "clock"]].sum()
    table["images_per_second"] = sums["images"] / sums["clock"].where(sums["clock"] > 0)
    # A mean over other seeds than the accuracy's is not comparable with it.
    everywhere = groups["best_test_accuracy"].count() == table["n"]
    table["best_test_accuracy"] = table["best_test_accuracy"].where(everywhere)
    table["peak_memory"] = table["peak_memory"].round().astype("Int64")
    by_seed = runs.sort_values("seed", kind="stable").assign(
        seeds=lambda frame: frame["seed"], folders=lambda frame: frame["folder"]
    )
    for name in SEVERAL:
        table[name] = _several(by_seed, name, len(table))
    return table


def _several(runs: pd.DataFrame, name: str, rows: int) -> list[tuple[Any, ...]]:
    """For each row the different values of its runs, in order."""
    values: list[dict[Any, None]] = [{} for _ in range(rows)]
    known = runs[["row", name]].dropna()
    for row, value in zip(known["row"].tolist(), known[name].tolist(), strict=True):
        values[row][value] = None
    return [tuple(value) if name == "folders" else tuple(sorted(value)) for value in values]


def _not_completed(runs: pd.DataFrame, others: pd.DataFrame) -> Counter[tuple[int, str]]:
    """How many of the other runs belong to each row, by row and status.

    A run that failed early knows neither its data nor its device, so it is matched by its config;
    where several rows share that, by whatever else it knows. It counts for one row only.
    """
    counts = Counter[tuple[int, str]]()
    if others.empty:
        return counts
    columns = [*dict.fromkeys((*GROUP, *CHOSEN)), "config"]
    rows_of: dict[Any, dict[int, None]] = defaultdict(dict)
    row_of: dict[Any, int] = {}
    for run in plain_rows(runs[["row", *columns]]):
        rows_of[_recipe(run)][run["row"]] = None
        row_of[tuple(run[name] for name in GROUP)] = run["row"]
    for run in plain_rows(others[["status", *columns]]):
        row = row_of.get(tuple(run[name] for name in GROUP))
        if row is None:
            row = next(iter(rows_of.get(_recipe(run), ())), None)
        if row is not None:
            counts[row, run["status"]] += 1
    return counts


def _recipe(run: dict[str, Any]) -> tuple[Any, ...]:
    """What two runs have in common that differ in their seed alone, as far as was typed."""
    config = json.loads(run["config"])
    config.pop("seed", None)
    config.pop("test_every", None)  # it only looks
    config.pop("keep_model", None)  # and this only keeps
    said = json.dumps(config, sort_keys=True) if config else run["configuration"]
    return (*(run[name] for name in CHOSEN), said)
