"""The benchmark table in sections, one for each data set, with notes for its reader."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from fmbench.config.published import in_words
from fmbench.config.schema import HARDWARE
from fmbench.core.errors import one_line
from fmbench.records.record import COMPLETED, DIVERGED, FAILED, INTERRUPTED, PRUNED, RUNNING
from fmbench.report.table.columns import SPLIT, Column, Row, shown
from fmbench.report.table.formats import MISSING, split
from fmbench.report.table.rows import REAL, SYNTHETIC, plain_rows
from fmbench.report.table.view import TEST_ACCURACY
from fmbench.stats import MODELS

# Half an image of 10,000, as a share: repeats on one machine with one setting agree.
REPEATS_AGREE = 0.005 / 100

# An error's text may quote a whole config; the run's log has all of it.
LONGEST_REASON = 300

#: The headings of `unfinished_cells`, and where the run lies.
UNFINISHED = ("model", "seed", "status", "reason", "started", "folder")

# Names in a note.
MOST_NAMED = 5


@dataclass(frozen=True)
class Section:
    """The rows of one data set, never ranked together with those of another.

    Attributes:
        data: The data set's name.
        rows: The rows of `benchmark_table` on it, best first, as plain values.
        unfinished: Its runs that did not complete, as plain values of the runs' frame: those that
            failed first, those that were pruned last, without what the report's searches show.
        completed: How many of its runs completed, repeats and trials of searches included.
        total: How many there are.
        pruned: How many the pruner of a search stopped.
        trials: How many completed as trials of a search in this report, without a test accuracy.
        untested: The same of searches that this report does not know.
        metric: What the rows are ordered by.
    """

    data: str
    rows: list[dict[str, Any]]
    unfinished: list[dict[str, Any]]
    completed: int
    total: int
    pruned: int = 0
    trials: int = 0
    untested: int = 0
    metric: str = TEST_ACCURACY

    @cached_property
    def columns(self) -> list[Column]:
        """The columns that people read of the rows."""
        return shown(self.rows, self.metric)

    @cached_property
    def cells(self) -> list[tuple[str, ...]]:
        """The cells of each row below these columns, as plain text."""
        return [tuple(column.cell(row) for column in self.columns) for row in self.rows]

    @property
    def title(self) -> str:
        """The heading of the section."""
        names = {REAL: "Fashion-MNIST", SYNTHETIC: "Synthetic data"}
        return names.get(self.data, f"Data: {self.data}")

    @property
    def summary(self) -> str:
        """How many of the runs completed, in a sentence."""
        # In brackets stand parts of those that completed, behind them the rest of all.
        rows, repeats = (sum(row[key] for row in self.rows) for key in ("n", "n_repeats"))
        shown = bool(self.rows and (self.trials or self.untested))
        parts = [
            f"{name}: {number:,}"
            for name, number in (
                ("in the table", rows if shown else 0),
                ("repeats of a run, which count once", repeats),
                ("trials, see Search", self.trials),
                ("without a test accuracy, so no row here", self.untested),
            )
            if number
        ]
        statuses = Counter(run["status"] for run in self.unfinished)
        statuses[PRUNED] = self.pruned  # those of searches are not listed
        others = [
            f"{statuses[status]:,} {'still running or killed' if status == RUNNING else status}"
            for status in (FAILED, DIVERGED, INTERRUPTED, PRUNED, RUNNING)
            if statuses[status]
        ]
        brackets = f" ({'; '.join(parts)})" if parts else ""
        said = f"{self.completed} of {self.total} runs completed{brackets}"
        return f"{', '.join([said, *others])}."

    @property
    def footnote(self) -> str:
        """What the ranks of rows of one seed are worth; empty where there are none."""
        if any(row["rank_of"] == MODELS for row in self.rows):
            return (
                "* One seed: a rank of these trained models on these images, not of their "
                "recipes, which another seed may rank otherwise."
            )
        if self.metric == TEST_ACCURACY and {row["n"] > 1 for row in self.rows} == {True, False}:
            return (
                "Rows of one seed have no rank beside rows of several: how far another seed would "
                "land is not known."
            )
        return ""

    @property
    def notes(self) -> list[str]:
        """Notes for the reader who compares the rows."""
        synthetic = self.data == SYNTHETIC
        notes = []
        if synthetic:
            notes.append(
                "Synthetic images, drawn by a program: "
                "these accuracies say nothing about Fashion-MNIST."
            )
        notes += _test_set_notes(self.rows, synthetic=synthetic)
        notes += _provenance_notes(self.rows)
        return notes


def sections(
    frame: pd.DataFrame,
    table: pd.DataFrame,
    searched: Collection[str] = (),
    metric: str = TEST_ACCURACY,
) -> list[Section]:
    """Split the table of the runs by data set: Fashion-MNIST first, synthetic data last.

    Runs in the folders `searched` are shown as trials of a search.
    """
    rows, runs = defaultdict(list), defaultdict(list)
    for row in plain_rows(table):
        rows[row["data"]].append(row)
    brief = frame[["data", "model", "seed", "status", "error", "started", "folder"]]
    pruned, trials, untested = Counter[str](), Counter[str](), Counter[str]()
    for run in plain_rows(brief[frame["status"] != COMPLETED]):
        name = run["data"] or "unknown"
        pruned[name] += run["status"] == PRUNED
        # The search lists those that its pruner stopped; here they would hide what failed.
        if run["status"] != PRUNED or run["folder"] not in searched:
            runs[name].append(run)
    for listed in runs.values():
        listed.sort(key=lambda run: run["status"] == PRUNED)
    done = frame[frame["status"] == COMPLETED]
    completed = done["data"].value_counts().to_dict()
    counted = metric if metric in done else TEST_ACCURACY
    for run in plain_rows(done.loc[done[counted].isna(), ["data", "folder"]]):
        (trials if run["folder"] in searched else untested)[run["data"]] += 1
    everyone = {*rows, *runs, *completed, *pruned}
    names = sorted(everyone, key=lambda name: (name == SYNTHETIC, name != REAL, name))
    totals = frame["data"].fillna("unknown").value_counts().to_dict()
    return [
        Section(
            data=name,
            rows=rows[name],
            unfinished=runs[name],
            completed=completed.get(name, 0),
            total=totals[name],
            pruned=pruned[name],
            trials=trials[name],
            untested=untested[name],
            metric=metric,
        )
        for name in names
    ]


def reason(run: Row) -> str:
    """Why a run did not complete, as far as it is known."""
    if run["status"] == RUNNING:
        return "still running, or killed"
    unknown = "stopped by the pruner" if run["status"] == PRUNED else "no reason recorded"
    return one_line(run["error"] or unknown, LONGEST_REASON)


def started(run: Row) -> str:
    """When a run began: 2026-11-20 23:00 UTC."""
    return MISSING if run["started"] is None else f"{run['started']:%Y-%m-%d %H:%M} UTC"


def unfinished_cells(run: Row) -> tuple[str, ...]:
    """The cells of a run that did not complete, below the headings of `UNFINISHED`."""
    seed = MISSING if run["seed"] is None else str(run["seed"])
    return run["model"] or MISSING, seed, run["status"], reason(run), started(run)


def published(row: Row) -> str:
    """The source of a row's published figures, and how the row differs from their recipe."""
    said = f"Published in {one_line(row['published_source'], LONGEST_REASON)}"
    said += f" ({in_words(row['published_protocol'])})."
    if row["deviations"]:
        changes = one_line(", ".join(row["deviations"]), LONGEST_REASON)
        said += f" Otherwise than published: {changes}."
    return said


def _test_set_notes(rows: Sequence[Row], *, synthetic: bool) -> Iterator[str]:
    mixed = [row["number"] for row in rows if {"data_sha256", "split_test"} & {*row["mixes"]}]
    if mixed:
        yield (
            "Rows whose runs were tested on different images, so that the mean says nothing of "
            f"either: {_listed(mixed)}."
        )
    contents = {row["data_sha256"] for row in rows}
    if len(contents) > 1:
        what = "drawings of synthetic images" if synthetic else "contents of the data set"
        yield (
            f"The rows come from {len(contents)} different {what}: compare accuracies within one "
            "(data_sha256 in the CSV file)."
        )
    tested = {(row["data_sha256"], row["split_test"]) for row in rows if row["rank"] is not None}
    if len(tested) > 1:
        yield "Ranks count within one test set."
    # Where the drawings differ, so do the draws of a split from them.
    draws: dict[str, dict[Any, set[Any]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        label = split(*(row[key] for key in SPLIT))
        draws[label][row["data_sha256"]].add(row["split_hash"])
    if len(draws) > 1:
        yield (
            f"The rows mix splits ({'; '.join(sorted(draws))}), which train and may test on "
            "different images: compare accuracies within one split."
        )
    for label in sorted(draws):
        hashes = max(map(len, draws[label].values()))
        if hashes > 1:
            yield (
                f"The split {label} was drawn in {hashes} ways: compare accuracies within one "
                "(split_hash in the CSV file)."
            )


def _provenance_notes(rows: Sequence[Row]) -> Iterator[str]:
    differing = [
        key.replace("_", " ")
        for key in HARDWARE
        if len({row[key] for row in rows}) > 1 or any(key in row["mixes"] for row in rows)
    ]
    if differing:
        yield (
            f"The rows were not all measured on the same terms ({', '.join(differing)}): compare "
            "times and images/s within one of them."
        )
    for key, name in (
        *(("torch", "versions of torch"), ("fmbench_version", "versions of fmbench")),
        ("git_commit", "commits of fmbench"),
    ):
        values = sorted({value for row in rows for value in row[key]})
        if len(values) > 1:
            short = [value[:7] for value in values] if key == "git_commit" else values
            yield f"The rows come from {len(values)} {name}: {_listed(short)}."
    dirty = sum(row["n_dirty"] for row in rows)
    if dirty:
        yield f"Runs made with uncommitted changes to fmbench: {dirty:,}."
    apart = [row["number"] for row in rows if (row["repeats_spread"] or 0) > REPEATS_AGREE]
    if apart:
        yield (
            "Repeats of one run (same settings, same seed) disagree by more than "
            f"{100 * REPEATS_AGREE:g} points, in rows: {_listed(apart)}."
        )


def _listed(names: Sequence[Any]) -> str:
    said = ", ".join(map(str, names[:MOST_NAMED]))
    return f"{said} and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else said
