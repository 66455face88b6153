"""The published figures that stand beside the rows of the benchmark table."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fmbench.config.published import BEST_ON_TEST, comparable
from fmbench.report.table.rows import SYNTHETIC, plain_rows

# Of the experiment that a run was started from.
PUBLISHED = (
    *("experiment", "deviations", "published_accuracy", "published_parameters"),
    *("published_seconds", "published_approximate", "published_device"),
    *("published_protocol", "published_source"),
)


def published(made: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The published figures of each row, and how far ours are from them.

    Args:
        made: All completed runs, repeats too, oldest first, with the number of their `row`.
        table: Their mean `test_accuracy` and `best_test_accuracy`, `data`, `config`, `precision`
            and `overrides`, indexed by that number.

    Returns:
        The columns of `PUBLISHED`, `difference`, `difference_of` and `difference_in`, with the
        table's index.
    """
    # Of repeats too: the newest may have been typed out without its experiment. Several experiments
    # can lead to one recipe: the one it is published under says most.
    started = made[made["experiment"].notna() | made["published_source"].notna()]
    faithful = started["deviations"].map(len) == 0
    newest = pd.concat([started[~faithful], started[faithful]]).drop_duplicates("row", keep="last")
    figures = newest.set_index("row")[list(PUBLISHED)].reindex(table.index)
    figures["deviations"] = [
        value if isinstance(value, tuple) else () for value in figures["deviations"]
    ]
    # Nobody has published anything of synthetic data.
    names = [name for name in PUBLISHED if name.startswith("published_")]
    figures.loc[table["data"] == SYNTHETIC, names] = None
    ours = table[["test_accuracy", "best_test_accuracy", "config"]]
    compared = [_compare(row) for row in plain_rows(figures.join(ours))]
    figures["difference"] = pd.array([share for share, _ in compared], dtype="Float64")
    figures["difference_of"] = [of for _, of in compared]
    made_in = table[["precision", "overrides", "config"]].join(figures["experiment"])
    arithmetic = [_arithmetic(row) for row in plain_rows(made_in)]
    figures["difference_in"] = pd.Series(arithmetic, table.index, dtype=object)
    return figures


def compared(row: Mapping[str, Any]) -> tuple[float, ...]:
    """Our accuracies that a published one is compared with, one a seed.

    Args:
        row: Of `benchmark_table`.

    Returns:
        Those of the best epochs on the test set where the `difference` is of them, else those of
        the last epochs.
    """
    key = "best_accuracies" if row["difference_of"] == BEST_ON_TEST else "accuracies"
    return tuple(row[key])


def is_like_with_like(row: Mapping[str, Any]) -> bool:
    """Whether ours were chosen and computed as the published one was, as far as is known."""
    chosen = row["published_protocol"] != BEST_ON_TEST or row["difference_of"] == BEST_ON_TEST
    return bool(chosen and row["difference_in"] is None)


def _arithmetic(row: Mapping[str, Any]) -> str | None:
    """The number format of ours where it is not the recipe's: fp32, unless its file says another.

    Earlier records left it to the hardware.
    """
    precision = row["precision"]
    if row["experiment"] is None:
        return None
    typed = any(text.lstrip("+").startswith("precision=") for text in row["overrides"])
    of_recipe = not typed and json.loads(row["config"]).get("precision") == precision
    return None if precision in (None, "fp32") or of_recipe else str(precision)


def _compare(row: dict[str, Any]) -> tuple[float | None, str | None]:
    """Ours less theirs, and which of ours; nothing where the recipe is another one."""
    theirs = row["published_accuracy"]
    if theirs is None or row["deviations"] or row["test_accuracy"] is None:
        return None, None
    ours, of = comparable(
        row["published_protocol"],
        row["test_accuracy"],
        row["best_test_accuracy"],
        test_every=json.loads(row["config"]).get("test_every", 0),
    )
    return ours - theirs, of
