"""The columns of the benchmark table: heading, unit, format, place and meaning of each.

Terminal, Markdown, web page, CSV and JSON are all printed from `COLUMNS`. How a value is written is
said in `fmbench.report.table.formats`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fmbench.report.table import formats
from fmbench.report.table.formats import MISSING

Row = formats.Row


@dataclass(frozen=True)
class Column:
    """A column of the benchmark table.

    Its raw values are shares from 0 to 1, seconds, bytes, and tuples where there are several, such
    as the versions behind a row. Two rows whose `recipe` cells are equal need something more to
    tell them apart.
    """

    key: str  # in `benchmark_table`'s frame, and the heading in the CSV file
    heading: str = ""  # what people read above it; empty for a column of the CSV file only
    show: Callable[..., str] = formats.text  # makes a cell's text of the values of `takes`
    takes: tuple[str, ...] = ()  # keys; the column's own by default
    unit: str = ""  # of the shown text where the text does not carry it
    right: bool = False  # numbers stand flush right
    recipe: bool = False  # it says what was run rather than what was measured
    gives_way: int = 0  # in a narrow window the highest goes first, a recipe's last; 0 stays
    first: bool = False  # it is among those that a window of 100 columns always shows

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def cell(self, row: Row) -> str:
        """The cell of a row, as plain text."""
        return self.show(*[row[key] for key in self.takes or (self.key,)])


ACCURACY = ("test_accuracy", "test_accuracy_sd")
#: Accuracy on the test images that nobody suspects: see `fmbench.report.table.suspects`.
UNSUSPECTED = "unsuspected_accuracy"
#: Chosen on the test set, or of images that were: rows are not ordered by these.
CHOSEN_ON_TEST = ("best_test_accuracy", UNSUSPECTED)
SPLIT = ("split", "split_train", "split_validation", "split_test")


@dataclass(frozen=True)
class Metric:
    """A number that rows can be ordered by; `heading`, `show` and `unit` are as in `Column`."""

    heading: str
    show: Callable[[float | None], str]
    unit: str = ""
    ascending: bool = False  # the smallest comes first
    spread: bool = True  # its standard deviation and interval are known

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    @property
    def is_share(self) -> bool:
        """Whether it is an accuracy, shown in percent."""
        return self.show is formats.percent

    def with_unit(self, value: float) -> str:
        """One value with its unit: 90.12 %."""
        return f"{self.show(value)}{' %' if self.is_share else ''}"

    def with_spread(self, mean: float | None, deviation: float | None) -> str:
        """A mean with its standard deviation, where that is known: 90.16 ± 0.12."""
        said = self.show(mean)
        return said if mean is None or deviation is None else f"{said} ± {self.show(deviation)}"

    def interval(self, low: float | None, high: float | None) -> str:
        """An interval: 89.93 to 90.31."""
        if low is None or high is None:
            return MISSING
        return f"{self.show(low)} to {self.show(high)}"


METRICS = {
    "test_accuracy": Metric("test accuracy", formats.percent, "%"),
    "validation_accuracy": Metric("validation accuracy", formats.percent, "%"),
    "balanced_accuracy": Metric("balanced accuracy", formats.percent, "validation, %"),
    "train_accuracy": Metric("training accuracy", formats.percent, "%"),
    "test_loss": Metric("test loss", formats.loss, ascending=True),
    "seconds_train": Metric("training time", formats.duration, ascending=True),
    "seconds_evaluate": Metric("evaluation time", formats.duration, ascending=True),
    "seconds_total": Metric("total time", formats.duration, ascending=True),
    "images_per_second": Metric("images/s", formats.rate, spread=False),
    "peak_memory": Metric("peak memory", formats.size, ascending=True, spread=False),
    "parameters": Metric("parameters", formats.count, ascending=True, spread=False),
    "flops": Metric("FLOPs", formats.flops, ascending=True, spread=False),
}

#: Scores of the test images: see `fmbench.records.scores` and docs/report.md.
_SCORES = {
    "test_nll": Metric("NLL", formats.loss, ascending=True),
    "test_brier": Metric("Brier score", formats.loss, ascending=True),
    "test_ece": Metric("ECE", formats.percent, "%", ascending=True),
    "test_adaptive_ece": Metric("adaptive ECE", formats.percent, "%", ascending=True),
    "test_aurc": Metric("AURC", formats.loss, ascending=True),
    "test_accuracy_at_90": Metric("accuracy at 90 % coverage", formats.percent, "%"),
    "test_macro_f1": Metric("macro F1", formats.percent, "%"),
    "test_balanced_accuracy": Metric("test balanced accuracy", formats.percent, "%"),
    "test_worst_class_accuracy": Metric("worst class", formats.percent, "%"),
    "corrupted_accuracy": Metric("corrupted", formats.percent, "v1, %"),
}
METRICS |= _SCORES

#: Those with a standard deviation and an interval.
SPREAD = tuple(name for name, metric in METRICS.items() if metric.spread)


def _text(key: str, show: Callable[..., str] = formats.text, *takes: str, **options: Any) -> Column:
    """A column of names; people read its key above it."""
    return Column(key, options.pop("heading", key.replace("_", " ")), show, takes, **options)


_number = functools.partial(_text, right=True)


def _metric(key: str, *, spread: bool = False, **options: Any) -> Column:
    """The column of a metric, with its standard deviation if asked for and known."""
    metric = METRICS[key]
    options |= {"heading": metric.heading, "unit": metric.unit}
    if spread and metric.spread:
        return _number(key, metric.with_spread, key, f"{key}_sd", **options)
    return _number(key, metric.show, **options)


def _interval(key: str, **options: Any) -> Column:
    metric, ends = METRICS[key], (f"{key}_low", f"{key}_high")
    options |= {"heading": "95 % interval", "unit": "%" if metric.unit else ""}
    return _number(ends[0], metric.interval, *ends, **options)


MODEL = _text("model", formats.model, "model", "model_settings", "differs", recipe=True)
_PUBLISHED = ("published_accuracy", "published_protocol")
_OURS = ("difference", "difference_of", *_PUBLISHED, "deviations", "difference_in")
_TIMES = ("published_seconds", "published_approximate", "published_device")
_AUGMENTATION = ("augmentation", "augmentation_settings")
_COUNTS = ("n", "n_failed", "n_unfinished", "n_pruned", "n_interrupted", "folds")

#: What people read, from left to right, ...
SHOWN = (
    _number("number", formats.count, heading="#", gives_way=6),
    _number("rank", formats.rank, "rank", "rank_of", gives_way=4, first=True),
    MODEL,
    _metric("test_accuracy", spread=True),
    _interval("test_accuracy", gives_way=8, first=True),
    _metric("parameters", gives_way=11, first=True),
    _metric("seconds_train", spread=True, gives_way=3, first=True),
    _number("n", formats.seeds, *_COUNTS),
    _text("label", recipe=True, gives_way=1),
    _text("data", recipe=True, gives_way=22),
    _text("split", formats.split, *SPLIT, recipe=True, gives_way=6),
    _text("augmentation", formats.option, *_AUGMENTATION, recipe=True, gives_way=5),
    _text("optimizer", recipe=True, gives_way=10),
    _number("learning_rate", formats.number, recipe=True, gives_way=2),
    _number("batch_size", formats.count, recipe=True, gives_way=1),
    _number("epochs", formats.count, recipe=True, gives_way=9),
    _number(
        "spread_runs",
        formats.parts,
        "spread_runs",
        "spread_images",
        heading="± of runs, of test set",
        unit="points",
        gives_way=18,
    ),
    _text("chosen", gives_way=12),
    _number(
        "best_test_accuracy",
        formats.percent,
        heading="best on test",
        unit="optimistic, %",
        gives_way=17,
    ),
    _number(
        UNSUSPECTED,
        formats.percent,
        heading="unsuspected images",
        unit="optimistic, %",
        gives_way=17,
    ),
    _number(
        "published_accuracy",
        formats.published,
        *_PUBLISHED,
        heading="published",
        unit="%",
        gives_way=7,
    ),
    _number("difference", formats.points, *_OURS, unit="points", gives_way=4),
    _metric("validation_accuracy", gives_way=16),
    _metric("flops", gives_way=15),
    _metric("seconds_evaluate", spread=True, gives_way=21),
    _metric("seconds_total", spread=True, gives_way=20),
    _number("runs_at_once", formats.at_once, gives_way=23),
    _number(
        "published_seconds",
        formats.published_time,
        *_TIMES,
        heading="published time",
        gives_way=14,
    ),
    _metric("images_per_second", gives_way=13),
    _metric("peak_memory", gives_way=19),
    *(_metric(key, gives_way=24 + place) for place, key in enumerate(_SCORES)),
    _text("device", formats.hardware, "device", "precision", recipe=True, gives_way=18),
)

#: ... and what stands behind that in the files for programs.
_KEYS = (
    *("experiment", "deviations", "difference_of", "difference_in", "published_protocol"),
    *("published_parameters", "published_device", "published_approximate", "published_source"),
    *("model_settings", "augmentation_settings", "differs", "scheduler", "loss", "averaging"),
    *("precision", "threads", "memory_format", "deterministic", "cuda_graphs", "seeds", "folds"),
    *("rank_of", "suspected_images"),
    *("spread_images", "smallest_shown", "balanced_accuracy", "train_accuracy", "test_loss"),
    *(f"{name}_sd" for name in SPREAD),
    *(f"{name}_low" for name in SPREAD if name != "test_accuracy"),
    *(f"{name}_high" for name in SPREAD),
    *("split_train", "split_validation", "split_test", "split_hash", "data_sha256", "source"),
    *("fmbench_version", "torch", "git_commit", "git_dirty", "n_repeats", "repeats_spread"),
    *("n_failed", "n_unfinished", "n_pruned", "n_interrupted"),
    *("configuration", "command", "left_out"),
)
COLUMNS = (*SHOWN, *map(Column, _KEYS))

#: How the table is to be read: by term, sentences whose subject it is. Plain text.
READING = {
    "Split": "names the images to train, validate and test on.",
    "n": (
        "counts seeds, folds where it says so, or all runs of a row where they were grouped "
        "otherwise. 3 of 5 says that "
        "runs of the same config did not complete: they failed, were interrupted and can resume, "
        "were pruned by a search, or are unfinished: still running, or killed. Trials of a search "
        "that were not evaluated on the test set are no rows."
    ),
    "Rank": (
        "is 1, and one more for each row that is better beyond doubt. Two rows can differ in rank "
        "and not be told apart: a third may be better than one of them alone. Each pair on one "
        "test set is compared image by image where predictions were kept, with the spread of the "
        "seeds on top, corrected for the number of pairs (Holm): at most one table in twenty whose "
        "rows do not differ has two ranks. Rows of one seed are compared with each other alone, by "
        "McNemar's test, and only where there are no two rows of several seeds. Their rank has a "
        "mark (1*): it is of trained models, not of recipes."
    ),
    "Test accuracy": (
        "is measured after the last epoch; nothing was chosen on the test set. Over n ≥ 2 seeds it "
        "is the mean ± the standard deviation (n - 1 in the denominator). Rows are ordered by this "
        "mean, unless a note says otherwise."
    ),
    "95 % interval": (
        "of that mean, by Student's t. One seed has none: how far another would land is not known."
    ),
    "± of runs, of test set": (
        "splits the standard deviation over the seeds in two: what the runs would differ by on "
        "endlessly many images, and what the finite test set adds. Where the first is 0, the "
        "second can be larger than the deviation that was seen. More seeds shrink both in the "
        "mean; only more images show which of two equally good runs was lucky."
    ),
    "Chosen": (
        "says how a search came to choose a row among its trials. Validation accuracy is then "
        "optimistic; test accuracy is not."
    ),
    "Best on test": (
        "is the best epoch as seen on the test set itself. That is optimistic, and never decides "
        "the order; it stands only where every seed has it."
    ),
    "Unsuspected images": (
        "are the test images whose label models do not contradict with confidence, as fmbench "
        "suspects found them. Models chose them, so that accuracy on them is optimistic, and "
        "never decides the order."
    ),
    "Published": "is the figure of the project that a row takes its recipe from, and its protocol.",
    "Difference": (
        "is ours less theirs: where theirs is the best epoch on test, so is ours, if we looked "
        "each epoch; else ours is the last epoch. A row whose recipe was changed has none. "
        "Published experiments run in fp32: a difference of runs in bf16 says so."
    ),
    "FLOPs": "count the forward pass of one image, a multiply-add as two operations.",
    "Training time": (
        "is the wall time of the training clock, mean ± standard deviation over the seeds. "
        "Evaluation has its own clock. Total time has both, and all else once images are in memory."
    ),
    "Runs at once": "are those of one sweep that shared the machine, - where that is not known.",
    "Published time": "was taken on another device.",
    "Images/s": (
        "are the training images of all seeds over their training clocks. They and all times "
        "compare only between rows of one device and one setting of it."
    ),
    "Peak memory": "is that of the process, or of the GPU where there is one.",
    "Label": "is a name that was given, and no part of the configuration.",
    "NLL, Brier score, ECE, adaptive ECE, AURC": (
        "are of the probabilities of the test images, the smaller the better: surprise, squared "
        "error, how far confidence is from accuracy (in 15 bins), and the error rate where the "
        "least confident images are left unanswered, over all shares of them."
    ),
    "Accuracy at 90 % coverage": "is that of the most confident 90 % of the test images.",
    "Worst class": (
        "is the least recall of a class, test balanced accuracy the mean recall, macro F1 the mean "
        "F1 of the classes, each on the test images."
    ),
    "Corrupted": (
        "is the mean accuracy on the test images in 14 corruptions of 5 severities (fmbench "
        "corruptions v1), which does not compare with figures on published files."
    ),
    "One row": (
        "is one configuration on one device in one precision. The same run made again (same "
        "settings, same seed) counts once, the newest of them."
    ),
}


def differing(rows: Sequence[Row]) -> list[Column]:
    """The columns of a recipe in which rows differ."""
    return [c for c in SHOWN if c.recipe and len({c.cell(row) for row in rows}) > 1]


def shown(rows: Sequence[Row], metric: str = "test_accuracy") -> list[Column]:
    """The columns that people read of some rows: without those that no row fills.

    What the rows are ordered by, or rows of folds ranked by, comes behind the model, with its
    spread.
    """
    columns = list(SHOWN)
    theirs: tuple[str, ...] = ()
    if metric != "test_accuracy":
        theirs = ("rank", "test_accuracy_low", metric)
    elif any(row["held_out"] == "validation_accuracy" for row in rows):
        metric = "validation_accuracy"
        theirs = (metric,)
    if theirs:
        columns = [column for column in columns if column.key not in theirs]
        place = columns.index(MODEL) + 1
        columns.insert(place, _metric(metric, spread=True, first=True))
        if METRICS[metric].spread:
            columns.insert(place + 1, _interval(metric, first=True))
    return [
        column
        for column in columns
        if column is MODEL or any(column.cell(row) != MISSING for row in rows)
    ]
