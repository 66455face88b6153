"""The benchmark table in sections, one for each data set, with notes for its reader."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from fmbench.config.published import in_words
from fmbench.config.schema import HARDWARE
from fmbench.config.tuning import TRIAL
from fmbench.core.errors import one_line
from fmbench.data.titles import TITLES
from fmbench.records.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    INFEASIBLE,
    INTERRUPTED,
    PRUNED,
    RUNNING,
)
from fmbench.report.table import corrupted, ensembles, targets
from fmbench.report.table.columns import SPLIT, Column, Row, shown
from fmbench.report.table.compare import times_overlap, times_unlike
from fmbench.report.table.formats import MISSING, split
from fmbench.report.table.ranks import same_folds
from fmbench.report.table.rows import FOLDS, REAL, SYNTHETIC, about_data, plain_rows
from fmbench.report.table.search import Table
from fmbench.report.table.view import TEST_ACCURACY, counted
from fmbench.stats import MODELS

# Half an image of 10,000, as a share: repeats on one machine with one setting agree.
REPEATS_AGREE = 0.005 / 100

# An error's text may quote a whole config; the run's log has all of it.
LONGEST_REASON = 300

#: The headings of `unfinished_cells`.
UNFINISHED = ("model", "seed", "status", "reason", "started", "folder")

UNFINISHED_KEYS = ["data", "model", "seed", "status", "error", "started", "folder"]

#: Several of which are noted.
_VERSIONS = {
    "torch": "versions of torch",
    "fmbench_version": "versions of fmbench",
    "git_commit": "commits of fmbench",
}

# Characters of a label in a note.
LONGEST_LABEL = 40

# Names in a note.
MOST_NAMED = 5


@dataclass(frozen=True)
class Section:
    """The rows of one data set, never ranked together with those of another; and its runs."""

    data: str
    rows: list[dict[str, Any]]  # of `benchmark_table`, best first, as plain values
    unfinished: list[dict[str, Any]]  # runs that failed first, then those that no search has
    completed: int  # repeats and trials of searches included
    total: int
    pruned: int
    infeasible: int
    trials: int  # completed without a test accuracy, of a search in this report
    compared: int  # the same of a tuned comparison
    untested: int  # the same of searches that this report does not know
    metric: str  # what the rows are ordered by

    @cached_property
    def columns(self) -> list[Column]:
        """The columns that people read of the rows."""
        return shown(self.rows, self.metric)

    @cached_property
    def cells(self) -> list[tuple[str, ...]]:
        """The cells of each row below these columns, as plain text."""
        return [tuple(column.cell(row) for column in self.columns) for row in self.rows]

    @cached_property
    def shared(self) -> list[Column]:
        """The columns of a recipe that have one cell in all rows, so that they need not be shown.

        The model always is.
        """
        texts = zip(self.columns, zip(*self.cells, strict=True), strict=True)
        return [c for c, cells in texts if c.recipe and c.gives_way and len(set(cells)) == 1]

    @property
    def same(self) -> str:
        """What the columns `shared` say, in one sentence; empty where there are none."""
        said = "; ".join(f"{column.title} {column.cell(self.rows[0])}" for column in self.shared)
        rows = "All rows" if len(self.rows) > 1 else "The row"
        return f"{rows}: {said}." if said else ""

    @cached_property
    def tables(self) -> list[Table]:
        """What else is known of rows: when they reached the targets, and their ensembles."""
        made = [
            Table(heading, targets.HEADINGS, cells, targets.RIGHT)
            for heading, cells in targets.tables(self.rows)
        ]
        if cells := ensembles.cells(self.rows):
            made.append(Table(ensembles.HEADING, ensembles.HEADINGS, cells, ensembles.RIGHT))
        if (found := corrupted.table(self.rows)) is not None:
            made.append(found)
        return made

    @property
    def title(self) -> str:
        """The heading of the section."""
        names = {SYNTHETIC: "Synthetic data", **TITLES}
        return names.get(self.data, f"Data: {self.data}")

    @property
    def summary(self) -> str:
        """How many of the runs completed, in a sentence."""
        # In brackets stand parts of those that completed, behind them the rest of all.
        rows, repeats = (sum(row[key] for row in self.rows) for key in ("n", "n_repeats"))
        parts = {
            "in the table": rows if self.trials or self.compared or self.untested else 0,
            "repeats of a run, which count once": repeats,
            "trials, see Search": self.trials,
            "trials, see Tuned comparison": self.compared,
            "without a test accuracy, so no row here": self.untested,
        }
        statuses = Counter(run["status"] for run in self.unfinished)
        # Those of searches are not listed.
        statuses |= {PRUNED: self.pruned, INFEASIBLE: self.infeasible}
        others = [
            f"{statuses[status]:,} {'still running or killed' if status == RUNNING else status}"
            for status in (FAILED, DIVERGED, INTERRUPTED, PRUNED, INFEASIBLE, RUNNING)
            if statuses[status]
        ]
        named = "; ".join(f"{name}: {number:,}" for name, number in parts.items() if number)
        brackets = f" ({named})" if named else ""
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
    def power(self) -> str:
        """The smallest difference that the table could have shown; empty where it tests none."""
        least = [row["smallest_shown"] for row in self.rows if row["smallest_shown"]]
        if not least:
            return ""
        low, high = (f"{100 * end:.2f}" for end in (min(least), max(least)))
        points = low if low == high else f"{low} to {high}"
        return (
            f"Power: this table shows a gap of {points} points to the best row"
            f"{' (it depends on the row)' if low != high else ''} in 80 of 100 cases. "
            "It cannot show smaller gaps reliably."
        )

    def unfinished_cells(self, path: Callable[[str], str]) -> list[tuple[str, ...]]:
        """The runs that did not complete, below `UNFINISHED`; `path` names their folders."""
        unknown = {RUNNING: "still running, or killed", PRUNED: "stopped by the pruner"}
        cells: list[tuple[str, ...]] = []
        for run in self.unfinished:
            reason = run["error"] or unknown.get(run["status"], "no reason recorded")
            started = MISSING if run["started"] is None else f"{run['started']:%Y-%m-%d %H:%M} UTC"
            said = (run["model"] or MISSING, str(run["seed"]), run["status"])
            cells.append((*said, one_line(reason, LONGEST_REASON), started, path(run["folder"])))
        return cells

    @property
    def notes(self) -> list[str]:
        """Notes for the reader who compares the rows."""
        drawn = "Synthetic images, drawn by a program: "
        drawn += "these accuracies say nothing about Fashion-MNIST."
        return [*[drawn] * (self.data == SYNTHETIC), *_about(self.rows), *_notes(self.rows)]


def sections(
    frame: pd.DataFrame, table: pd.DataFrame, searched: Collection[str], metric: str
) -> list[Section]:
    """Split the table of the runs by data set: Fashion-MNIST first, synthetic data last.

    Runs in the folders `searched` are shown as trials of a search or of a tuned comparison.
    """
    rows = defaultdict(list)
    for row in plain_rows(table):
        rows[row["data"]].append(row)
    made = []
    for name, runs in frame.groupby(frame["data"].fillna("unknown")):
        statuses = (COMPLETED, PRUNED, INFEASIBLE)
        done, pruned, infeasible = (runs["status"] == status for status in statuses)
        in_search = runs["folder"].isin(searched)
        untested = done & runs[counted(runs, metric)].isna()
        compared = untested & in_search & runs["stage"].eq(TRIAL).fillna(value=False)
        # The search counts those that it stopped; here they would hide what failed.
        stopped = (pruned | infeasible) & in_search
        unfinished = plain_rows(runs.loc[~done & ~stopped, UNFINISHED_KEYS])
        unfinished.sort(key=lambda run: run["status"] in (PRUNED, INFEASIBLE))
        section = Section(
            data=str(name),
            rows=rows[name],
            unfinished=unfinished,
            completed=int(done.sum()),
            total=len(runs),
            pruned=int(pruned.sum()),
            infeasible=int(infeasible.sum()),
            trials=int((untested & in_search).sum() - compared.sum()),
            compared=int(compared.sum()),
            untested=int((untested & ~in_search).sum()),
            metric=metric,
        )
        made.append(section)
    return sorted(made, key=lambda one: (one.data == SYNTHETIC, one.data != REAL, one.data))


def published(row: Row) -> str:
    """The source of a row's published figures, and how the row differs from their recipe."""
    said = f"Published in {one_line(row['published_source'], LONGEST_REASON)}"
    said += f" ({in_words(row['published_protocol'])})."
    if row["deviations"]:
        changes = one_line(", ".join(row["deviations"]), LONGEST_REASON)
        said += f" Otherwise than published: {changes}."
    return said


def _about(rows: Sequence[Row]) -> Iterator[str]:
    """What must be known of the images to judge the accuracies."""
    said = {row["about_data"]: about_data(row) for row in rows}.values()
    if any(about.get("set_aside") for about in said):
        yield (
            "The data have no test part of their own: the test images were drawn from all images, "
            "class by class, before training."
        )
    if copies := max((about.get("duplicates", 0) for about in said), default=0):
        yield f"{copies:,} test images are in the training part too, byte for byte."
    for about in said:
        rarest, commonest = about.get("rarest", 0), about.get("commonest", 0)
        if commonest > 2 * rarest:
            yield (
                f"The classes have {rarest:,} to {commonest:,} images: the accuracy is mostly that "
                "of the common ones."
            )


def between(counts: Sequence[int]) -> str:
    """The least and the most of some counts: 5, or 5 to 8."""
    return " to ".join(str(count) for count in dict.fromkeys((min(counts), max(counts))))


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    yield from _about_labels(rows)
    if of_folds := [row for row in rows if row["split"] == FOLDS]:
        yield from _about_folds(of_folds)
    if left_out := [n for row in rows if (n := row["suspected_images"]) is not None]:
        yield (
            f"Accuracy on unsuspected images leaves out {between(left_out)} test images, whose "
            "labels models suspect (suspects.json). It is optimistic, and ranks nothing."
        )
    mixed = [row["number"] for row in rows if {"data_sha256", "split_test"} & {*row["mixes"]}]
    if mixed:
        yield (
            "Rows whose runs were tested on different images, so that the mean says nothing of "
            f"either: {_listed(mixed)}."
        )
    contents = {row["data_sha256"] for row in rows}
    if len(contents) > 1:
        yield (
            f"The rows come from {len(contents)} different contents of the data set: compare "
            "accuracies within one (data_sha256 in the CSV file)."
        )
    for row in rows:
        if stopped := [epochs for epochs in row["stopped_epochs"] if epochs is not None]:
            yield (
                f"Stopped early, as their config says: {len(stopped)} of {row['n']} runs of row "
                f"{row['number']}, after {between(stopped)} of {row['epochs']} epochs."
            )
    # Rows of folds are ranked within these, which have a note of their own.
    tested = {
        (row["data_sha256"], row["split_test"])
        for row in rows
        if row["rank"] is not None and row["split"] != FOLDS
    }
    if len(tested) > 1:
        yield "Ranks count within one test set."
    # Where the contents differ, so do the draws of a split from them.
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
    versions = {key: {value for row in rows for value in row[key]} for key in _VERSIONS}
    versions["git_commit"] = {value[:7] for value in versions["git_commit"]}
    for key, values in versions.items():
        if len(values) > 1:
            name = _VERSIONS[key]
            yield f"The rows come from {len(values)} {name}: {_listed(sorted(values))}."
    dirty = sum(row["n_dirty"] for row in rows)
    if dirty:
        yield f"Runs made with uncommitted changes to fmbench: {dirty:,}."
    apart = [row["number"] for row in rows if (row["repeats_spread"] or 0) > REPEATS_AGREE]
    if apart:
        yield (
            "Repeats of one run (same settings, same seed) disagree by more than "
            f"{100 * REPEATS_AGREE:g} points, in rows: {_listed(apart)}."
        )


def _about_labels(rows: Sequence[Row]) -> Iterator[str]:
    """Whether ranks and times part rows that differ in their label alone: an A/A test."""
    alike: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        if row["label"] is not None:
            key = (row["configuration"], row["data_sha256"], row["split_hash"])
            alike[*key, *(row[name] for name in HARDWARE)].append(row)
    for group in alike.values():
        if len(group) < 2:
            continue
        named = _listed(
            [f"{row['number']} ({one_line(row['label'], LONGEST_LABEL)})" for row in group]
        )
        said = f"A/A: rows {named} are one configuration, so that chance alone parts them:"
        places = {row["rank"] for row in group}
        if None in places:
            ranked = "they have no ranks"
        else:
            ranked = "their ranks differ" if len(places) > 1 else "they share a rank"
        pairs = itertools.combinations(group, 2)
        overlap = [times_overlap(*pair) for pair in pairs if times_unlike(*pair) is None]
        times = "do not compare" if not overlap else "do not overlap"
        times = "overlap" if overlap and all(overlap) else times
        yield f"{said} {ranked}, and their training times {times}."


def _about_folds(rows: Sequence[Row]) -> Iterator[str]:
    """What is over folds in rows of folds, and by what they are ranked, among which."""
    yield (
        "Rows of the split kfold: n counts folds, not seeds; a mean and its ± are over the folds, "
        "of which each is the mean of its seeds. Their runs share training images, so that "
        "interval and rank are by the corrected resampled t-test (Nadeau and Bengio 2003): of the "
        "accuracy on the images that a fold held out, among rows on the very same folds."
    )
    if any(row["held_out"] == "validation_accuracy" for row in rows):
        yield (
            "Where the fold that is held out validates, rows are ranked and ordered by validation "
            "accuracy. Their test accuracy is of the same images in each fold, and has no interval."
        )
    groups: dict[Any, list[int]] = defaultdict(list)
    for row in rows:
        groups[same_folds(row) or row["number"]].append(row["number"])
    if len(groups) > 1:
        yield f"Rows on the very same folds: {'; '.join(map(_listed, groups.values()))}."


def _listed(names: Sequence[Any]) -> str:
    said = ", ".join(map(str, names[:MOST_NAMED]))
    return f"{said} and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else said
