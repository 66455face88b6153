"""How many runs of a row's recipe did not complete."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from fmbench.config import schema
from fmbench.report.table.aggregate import ROW
from fmbench.report.table.rows import plain_rows

# Chosen by name, beside what the config says: with it they make a recipe.
CHOSEN = ("data", "model", "split", "augmentation", "optimizer", "scheduler")


def not_completed(runs: pd.DataFrame, others: pd.DataFrame) -> Counter[tuple[int, str]]:
    """How many of the other runs belong to each row, by row and status.

    A run that failed early knows neither its data nor its device, so it is matched by its config;
    where several rows share that, by whatever else it knows. It counts for one row only.
    """
    counts = Counter[tuple[int, str]]()
    if others.empty:
        return counts
    columns = [*dict.fromkeys((*ROW, *CHOSEN)), "config"]
    rows_of: dict[Any, dict[int, None]] = defaultdict(dict)
    row_of: dict[Any, int] = {}
    for run in plain_rows(runs[["row", *columns]]):
        rows_of[_recipe(run)][run["row"]] = None
        row_of[tuple(run[name] for name in ROW)] = run["row"]
    for run in plain_rows(others[["status", *columns]]):
        row = row_of.get(tuple(run[name] for name in ROW))
        if row is None:
            row = next(iter(rows_of.get(_recipe(run), ())), None)
        if row is not None:
            counts[row, run["status"]] += 1
    return counts


def not_completed_alike(
    runs: pd.DataFrame, others: pd.DataFrame, keys: Sequence[str]
) -> Counter[tuple[int, str]]:
    """The same where the runs of a row share some columns and nothing else needs to fit."""
    row_of = {tuple(run[key] for key in keys): run["row"] for run in plain_rows(runs)}
    counts = Counter[tuple[int, str]]()
    for run in plain_rows(others[["status", *keys]]):
        row = row_of.get(tuple(run[key] for key in keys))
        if row is not None:
            counts[row, run["status"]] += 1
    return counts


def _recipe(run: dict[str, Any]) -> tuple[Any, ...]:
    """What two runs have in common that differ in their seed alone, as far as was typed."""
    config = {
        key: value
        for key, value in json.loads(run["config"]).items()
        if key not in schema.TOP or (schema.TOP[key].role != "kept" and not schema.TOP[key].repeats)
    }
    said = json.dumps(config, sort_keys=True) if config else run["configuration"]
    return (*(run[name] for name in CHOSEN), said)
