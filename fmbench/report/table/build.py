"""Runs to benchmark table: seeds grouped, best first, ranked, and what was left out counted."""

import json
from collections.abc import Sequence

import pandas as pd

from fmbench.config.schema import HARDWARE
from fmbench.records.record import COMPLETED, DIVERGED, FAILED, INTERRUPTED, PRUNED, RUNNING
from fmbench.report.table.aggregate import ROW, aggregate, with_repeats
from fmbench.report.table.columns import COLUMNS, METRICS, SHOWN
from fmbench.report.table.command import ANY_FOLDER, command, model_settings, typed
from fmbench.report.table.differs import UNSET, differences
from fmbench.report.table.published import PUBLISHED, published
from fmbench.report.table.ranks import ranked
from fmbench.report.table.rows import REAL, SYNTHETIC, plain_rows
from fmbench.report.table.unfinished import not_completed, not_completed_alike
from fmbench.report.table.view import (
    PLAIN,
    TEST_ACCURACY,
    View,
    check,
    chosen,
    column_of,
    values_of,
)
from fmbench.stats import MODELS, RECIPES

#: How many threads a run had, as it stands behind the name of its processor.
_THREADS = r", \d+ threads?$"

#: Behind the columns: what leads from a row to its runs.
BEHIND = (
    *("folders", "accuracies", "best_accuracies", "run_seeds", "run_seconds"),
    *("n_dirty", "mixes", "config"),
)


def benchmark_table(frame: pd.DataFrame, view: View = PLAIN, *, rank: bool = True) -> pd.DataFrame:
    """Group runs into the rows of the benchmark table.

    A row is one configuration on one device in one precision; its runs differ in their seed, and in
    their number of threads where they were not told one. The same run made again counts once, the
    newest of them.

    Args:
        frame: The runs, as `fmbench.records.reader.load_results` gives them.
        view: Which of them, in other groups, or in another order.
        rank: Read what the runs answered, and rank the rows by it.

    Returns:
        The columns of `columns.COLUMNS`, in that order, as raw values: the `number` of the row,
        means over the `n` seeds, `*_sd` with n - 1 in the denominator, `*_low` and `*_high` of the
        95 % interval by Student's t (missing for one seed), `rank` by paired tests where the
        folders hold what was answered (`ranks.ranked`), `rank_of` "models" for rows of one seed
        and "recipes" for those of several, `best_test_accuracy` only
        where all n have it, `images_per_second` over all their training, `published_*` of the
        experiment, `difference` ours less the published accuracy (missing where `deviations` says
        what was done otherwise), `difference_of` which of ours and `difference_in` their number
        format where that is not the recipe's, `n_repeats` the runs that were
        left out as repeats, `repeats_spread` the most that the test accuracies of one run made
        again differ by, `n_failed` the runs of the same config that failed or diverged,
        `n_interrupted` those that were stopped and can go on, `n_unfinished` those still running or
        killed, `n_pruned` those that a search gave up. A completed run
        without a test accuracy, a trial of a search, is no row: there is nothing to rank it by that
        compares with the others. Behind them the columns of `BEHIND`: `folders` of the n runs,
        their `accuracies`, `best_accuracies`, `run_seeds` and `run_seconds` of training, `n_dirty`,
        how many were made with uncommitted changes, and their `config` as JSON text. Fashion-MNIST
        comes first and synthetic data last; within one data set the best mean test accuracy.

    Raises:
        ConfigError: There is nothing to look at in such a way.
    """
    check(view)
    frame = chosen(frame, view.condition)
    # A GPU's results do not depend on how many threads its host has.
    on_gpu = frame["device_type"].notna() & (frame["device_type"] != "cpu")
    frame = frame.assign(threads=frame["threads"].mask(on_gpu))
    frame = frame.assign(used=frame["threads"])
    keys: Sequence[str] = ROW
    if not view.group_by:
        frame = _without_own_threads(frame, frame["threads_asked"].isna() & ~on_gpu)
    else:
        grouped = {f"by {key}": _grouping(frame, key) for key in view.group_by}
        frame = frame.assign(**grouped)
        keys = ("data", *grouped)
    completed = frame["status"] == COMPLETED
    counted = view.metric if view.metric in frame else TEST_ACCURACY
    made = with_repeats(frame[completed & frame[counted].notna()], keys)
    runs = made.drop_duplicates(["row", "key", *HARDWARE], keep="last")
    intervals = not view.group_by and not view.by_luck
    table = aggregate(runs, mixed=bool(view.group_by), intervals=intervals)
    table["n_repeats"] = made.groupby("row").size() - table["n"]
    table["chosen"] = None
    if view.group_by:
        others = not_completed_alike(runs, frame[~completed], keys)
        _describe_groups(table, runs, view)
    else:
        _name_own_threads(table)
        others = not_completed(runs, frame[~completed])
        _describe(table, made)
    table["n_unfinished"] = [others[row, RUNNING] for row in table.index]
    table["n_pruned"] = [others[row, PRUNED] for row in table.index]
    table["n_failed"] = [
        sum(others[row, status] for status in (FAILED, DIVERGED)) for row in table.index
    ]
    table["n_interrupted"] = [others[row, INTERRUPTED] for row in table.index]
    ranks = ranked(plain_rows(table)) if rank and view.ranks else [None] * len(table)
    table["rank"] = pd.array(ranks, dtype="Int64")
    of = table["n"].map(lambda n: MODELS if n == 1 else RECIPES)
    table["rank_of"] = of.astype(object).where(table["rank"].notna())
    return _ordered(table, view)[[*(column.key for column in COLUMNS), *BEHIND]]


def _without_own_threads(frame: pd.DataFrame, own: pd.Series) -> pd.DataFrame:
    """The runs, those that chose their threads themselves without the number of them.

    A run takes one thread or all, by what else the machine has to do: seeds of one row may differ.
    """
    bare = frame["device"].str.replace(_THREADS, "", regex=True)
    own = own & (frame["device"] != bare)
    return frame.assign(threads=frame["threads"].mask(own), device=frame["device"].mask(own, bare))


def _name_own_threads(table: pd.DataFrame) -> None:
    """Give rows back the number of threads that their runs chose, or the numbers."""
    threads, devices = table["threads"].tolist(), table["device"].tolist()
    for place, used in enumerate(table["used"]):
        if used and pd.isna(threads[place]):
            numbers = sorted(used)
            threads[place] = numbers[0] if len(numbers) == 1 else pd.NA
            several = "" if numbers == [1] else "s"
            devices[place] += f", {' or '.join(map(str, numbers))} thread{several}"
    table["threads"] = pd.array(threads, dtype="Int64")
    table["device"] = pd.Series(devices, index=table.index, dtype=table["device"].dtype)


def _describe(table: pd.DataFrame, made: pd.DataFrame) -> None:
    """Add what one configuration is: published as, typed as, made again by."""
    for name, figures in published(made, table).items():
        table[name] = figures
    table["model_settings"] = [
        model_settings(model, overrides)
        for model, overrides in zip(table["model"], table["overrides"], strict=True)
    ]
    table["augmentation_settings"] = [
        " ".join(typed("augmentation", overrides).values()) for overrides in table["overrides"]
    ]
    commands = [
        command(
            # What the hardware chose then the experiment's file says otherwise now.
            _with(row["overrides"], "precision", row["difference_in"])
            if row["difference_in"]
            else row["overrides"],
            list(row["seeds"]),
            folders=row["config_dirs"] or ((ANY_FOLDER,) if row["config_dir"] else ()),
            trust=row["trust"],
        )
        for row in plain_rows(
            table[["overrides", "seeds", "config_dir", "config_dirs", "trust", "difference_in"]]
        )
    ]
    table["command"] = [line for line, _ in commands]
    table["left_out"] = [left for _, left in commands]
    table["differs"] = ""
    for _, part in table.groupby("data", sort=False):
        table.loc[part.index, "differs"] = differences(plain_rows(part))


def _with(overrides: tuple[str, ...], key: str, value: str) -> tuple[str, ...]:
    """The overrides with one more, unless there is one of the key."""
    given = any(text.lstrip("+").startswith(f"{key}=") for text in overrides)
    return overrides if given else (*overrides, f"{key}={value}")


def _describe_groups(table: pd.DataFrame, runs: pd.DataFrame, view: View) -> None:
    """Add what several configurations have in common: what they were grouped by."""
    for name in (*PUBLISHED, "difference", "difference_of", "difference_in", "command"):
        table[name] = None
    table["deviations"] = table["left_out"] = [()] * len(table)
    table["model_settings"] = table["augmentation_settings"] = ""
    columns = {column.key for column in SHOWN if column.recipe}
    hidden = [key for key in view.group_by if column_of(key) not in columns]
    values = runs.groupby("row")[[f"by {key}" for key in hidden]].first()
    table["differs"] = [
        ", ".join(
            f"{key}={UNSET if value is None or value != value else value}"  # noqa: PLR0124 - NaN
            for key, value in zip(hidden, row, strict=True)
        )
        for row in values.itertuples(index=False)
    ] or ""


def _grouping(frame: pd.DataFrame, key: str) -> pd.Series:
    """What runs are grouped by: a column, or a key of their configs as text."""
    values = values_of(frame, key, "group-by")
    if column_of(key) in frame:
        return values
    # To pandas True is 1.
    return values.map(
        lambda value: value if isinstance(value, str) else json.dumps(value), "ignore"
    )


def _ordered(table: pd.DataFrame, view: View) -> pd.DataFrame:
    by, ascending = view.order()
    order = table["data"].map({REAL: 0, SYNTHETIC: 2}).fillna(1)
    # Names, numbers and tuples of names each have an order; together they have none.
    if table[by].dtype == object:
        table = table.assign(sorted_by=table[by].map(str).where(table[by].notna()))
        by = "sorted_by"
    # Among equals the metric decides, then the name.
    directions = {"order": True, "data": True, by: ascending}
    directions.setdefault(view.metric, METRICS[view.metric].ascending)
    directions |= {"model": directions.get("model", True), "differs": True}
    table = table.assign(order=order).sort_values(
        list(directions), ascending=list(directions.values()), kind="stable", ignore_index=True
    )
    return table.assign(number=table.index + 1)
