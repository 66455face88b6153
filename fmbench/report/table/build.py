"""From runs to the benchmark table: seeds grouped, rows ranked and ordered."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pandas as pd

from fmbench.config.schema import HARDWARE
from fmbench.config.tuning import TRIAL
from fmbench.records.record import COMPLETED, DIVERGED, FAILED, INTERRUPTED, PRUNED, RUNNING
from fmbench.report.table import describe
from fmbench.report.table.columns import COLUMNS, METRICS, SHOWN
from fmbench.report.table.ranks import ranked
from fmbench.report.table.rows import (
    REAL,
    ROW,
    SYNTHETIC,
    aggregate,
    not_completed,
    over_folds,
    plain_rows,
    with_repeats,
)
from fmbench.report.table.view import (
    PLAIN,
    TEST_ACCURACY,
    View,
    check,
    chosen,
    column_of,
    counted,
    values_of,
)
from fmbench.stats import MODELS, OVER_FOLDS, RECIPES

#: How many threads a run had, as it stands behind the name of its processor.
_THREADS = r", \d+ threads?$"

#: Keys of a row behind the columns: its runs.
BEHIND = (
    *("folders", "accuracies", "best_accuracies", "run_seeds", "run_folds", "run_seconds"),
    "run_corrupted",
    *("n_dirty", "mixes", "config", "about_data", "held_out", "fold_accuracies", "tuning"),
    "stopped_epochs",
)


def benchmark_table(frame: pd.DataFrame, view: View = PLAIN, *, rank: bool = True) -> pd.DataFrame:
    """Group runs into the rows of the benchmark table.

    A row is one configuration on one device in one precision; its runs differ in their seed, and in
    their number of threads where they were not told one. The same run made again counts once, the
    newest of them. A completed run without a test accuracy, a trial of a search, is no row: there
    is nothing to rank it by that compares with the others.

    Args:
        frame: The runs, as `fmbench.records.reader.load_results` gives them.
        view: Which of them, in other groups, or in another order.
        rank: Read the predictions of the runs, and rank the rows by them.

    Returns:
        The columns of `columns.COLUMNS`, then those of `BEHIND`, as raw values: means over the `n`
        seeds, `*_sd` with n - 1 in the denominator, `*_low` and `*_high` of the 95 % interval by
        Student's t (missing for one seed), of folds as `rows.over_folds` says, `rank` by paired
        tests (`ranks.ranked`), `best_test_accuracy` only where all n have it, `images_per_second`
        over all their training, `difference` ours less the published accuracy (missing where
        `deviations` says what was done otherwise), `n_repeats` the runs that were left out as
        repeats, `repeats_spread` the most that the test accuracies of one run made again differ by,
        `n_failed` the runs of the same config that failed or diverged. Fashion-MNIST comes first
        and synthetic data last; within one data set the best mean test accuracy, of folds the
        accuracy that ranks them.

    Raises:
        ConfigError: There is nothing to view in such a way.
    """
    check(view)
    frame = chosen(frame, view.condition)
    # A GPU's results do not depend on how many threads its host has.
    on_gpu = frame["device_type"].notna() & (frame["device_type"] != "cpu")
    threads = frame["threads"].mask(on_gpu)
    frame = frame.assign(threads=threads, used=threads)
    keys: Sequence[str] = ROW
    if view.group_by:
        grouped = {f"by {key}": _grouping(frame, key) for key in view.group_by}
        frame = frame.assign(**grouped)
        keys = ("data", *grouped)
    else:
        frame = _without_own_threads(frame, frame["threads_asked"].isna() & ~on_gpu)
    completed = frame["status"] == COMPLETED
    # Of a comparison the final runs alone are rows, whatever they are ordered by.
    completed &= frame["stage"].ne(TRIAL).fillna(value=True)
    made = with_repeats(frame[completed & frame[counted(frame, view.metric)].notna()], keys)
    runs = made.drop_duplicates(["row", "key", *HARDWARE], keep="last")
    intervals = not view.group_by and not view.by_luck
    table = aggregate(runs, mixed=bool(view.group_by), intervals=intervals)
    if not view.group_by:
        over_folds(table, runs, intervals=intervals)
    table["n_repeats"] = made.groupby("row").size() - table["n"]
    others = not_completed(runs, frame[~completed], keys, grouped=bool(view.group_by))
    for name, statuses in (
        ("n_failed", (FAILED, DIVERGED)),
        ("n_interrupted", (INTERRUPTED,)),
        ("n_pruned", (PRUNED,)),
        ("n_unfinished", (RUNNING,)),
    ):
        table[name] = [sum(others[row, status] for status in statuses) for row in table.index]
    if view.group_by:
        table["differs"] = _names_of_groups(runs, view)
    else:
        _name_own_threads(table)
        table = table.join(describe.published(made, table))
    rows = plain_rows(table)
    if not view.group_by:
        _describe(rows)
    ranks = ranked(rows) if rank and view.ranks else [None] * len(rows)
    table["rank"] = pd.array(ranks, dtype="Int64")
    for row, place in zip(rows, ranks, strict=True):
        of = OVER_FOLDS if row.get("folds") else MODELS if row["n"] == 1 else RECIPES
        row["rank_of"] = None if place is None else of
    columns = [*(column.key for column in COLUMNS), *BEHIND]
    for key in columns:
        if key not in table:
            table[key] = pd.Series([row.get(key) for row in rows], table.index, dtype=object)
    return _ordered(table, view)[columns]


def _without_own_threads(frame: pd.DataFrame, own: pd.Series) -> pd.DataFrame:
    """The runs; without the number of threads those that chose it: seeds of one row may differ."""
    bare = frame["device"].str.replace(_THREADS, "", regex=True)
    own = own & (frame["device"] != bare)
    return frame.assign(threads=frame["threads"].mask(own), device=frame["device"].mask(own, bare))


def _name_own_threads(table: pd.DataFrame) -> None:
    """Name the numbers of threads that the runs of a row chose."""
    threads, devices = table["threads"].tolist(), table["device"].tolist()
    for place, used in enumerate(table["used"]):
        if used and pd.isna(threads[place]):
            threads[place] = used[0] if len(used) == 1 else pd.NA
            several = "" if used == (1,) else "s"
            devices[place] += f", {' or '.join(map(str, used))} thread{several}"
    table["threads"] = pd.array(threads, dtype="Int64")
    table["device"] = pd.Series(devices, index=table.index, dtype=table["device"].dtype)


def _describe(rows: Sequence[dict[str, Any]]) -> None:
    """Add the settings, the command and the differences of each row."""
    for row in rows:
        row["model_settings"] = describe.model_settings(
            row["model"], row["overrides"], msgspec.json.decode(row["config"] or "{}")
        )
        settings = describe.settings_of_group("augmentation", row["overrides"])
        row["augmentation_settings"] = " ".join(settings.values())
        row["command"], row["left_out"] = describe.command(row)
    for data in {row["data"] for row in rows}:
        alike = [row for row in rows if row["data"] == data]
        for row, said in zip(alike, describe.differences(alike), strict=True):
            row["differs"] = said


def _names_of_groups(runs: pd.DataFrame, view: View) -> list[str] | str:
    """The values that rows were grouped by, where no column shows them."""
    columns = {column.key for column in SHOWN if column.recipe}
    hidden = [key for key in view.group_by if column_of(key) not in columns]
    values = plain_rows(runs.groupby("row")[[f"by {key}" for key in hidden]].first())
    return [
        ", ".join(
            f"{key}={describe.UNSET if value is None else value}"
            for key, value in zip(hidden, row.values(), strict=True)
        )
        for row in values
    ] or ""


def _grouping(frame: pd.DataFrame, key: str) -> pd.Series:
    """The values that runs are grouped by: a column, or a key of their configs as text."""
    values = values_of(frame, key, "group-by")
    if column_of(key) in frame:
        return values
    # To pandas True is 1.
    return values.map(
        lambda value: value if isinstance(value, str) else json.dumps(value), "ignore"
    )


def _ordered(table: pd.DataFrame, view: View) -> pd.DataFrame:
    by, ascending = view.order()
    # Names, numbers and tuples of names each have an order; together they have none.
    values = table[by].map(str, "ignore") if table[by].dtype == object else table[by]
    if view.sort is None and by == TEST_ACCURACY:  # rows of folds by what they are ranked by
        validated = table["held_out"] == "validation_accuracy"
        values = values.mask(validated, table["validation_accuracy"])
    order = table["data"].map({REAL: 0, SYNTHETIC: 2}).fillna(1)
    # Among equals the metric decides, then the name.
    directions = {"order": True, "data": True, "by": ascending}
    directions |= {view.metric: METRICS[view.metric].ascending, "model": True, "differs": True}
    table = table.assign(order=order, by=values).sort_values(
        list(directions), ascending=list(directions.values()), kind="stable", ignore_index=True
    )
    return table.assign(number=table.index + 1)
