"""The columns of the benchmark table: heading, unit, format and place of each, said once.

How a value is written is said in `fmbench.report.table.formats`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmbench.report.table import formats
from fmbench.report.table.formats import MISSING

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the benchmark table.

    Attributes:
        key: Its name in `benchmark_table`'s frame and the heading in the CSV file, which holds
            raw values: shares from 0 to 1, seconds, bytes. A column of several values, such as
            the versions behind a row, holds them as a tuple.
        heading: What people read above it; empty for a column of the CSV file only.
        show: Makes a cell's text of the values of `takes`.
        takes: The keys that `show` is called with; the column's own by default.
        unit: The unit of the shown text where the text does not carry it.
        right: Numbers stand flush right.
        recipe: It says what was run rather than what was measured: two rows with equal recipe
            cells need something more to tell them apart.
        optional: It is left out where no row has anything in it.
        optimistic: It was chosen on the test set: rows are not ordered by it.
        gives_way: Where a terminal is too narrow the column with the highest number goes first
            (but see `fmbench.report.render.terminal.fit`); 0 stays.
    """

    key: str
    heading: str = ""
    show: Callable[..., str] = formats.text
    takes: tuple[str, ...] = ()
    unit: str = ""
    right: bool = False
    recipe: bool = False
    optional: bool = False
    optimistic: bool = False
    gives_way: int = 0

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def cell(self, row: Row) -> str:
        """The cell of a row, as plain text."""
        if not self.takes:
            return self.show(row[self.key])
        return self.show(*[row[key] for key in self.takes])


ACCURACY = ("test_accuracy", "test_accuracy_sd")
SPLIT = ("split", "split_train", "split_validation", "split_test")


@dataclass(frozen=True)
class Metric:
    """What rows can be ordered by.

    Attributes:
        heading: What people read.
        show: Makes the text of one value.
        unit: As in `Column`.
        ascending: The smallest comes first.
        spread: Its standard deviation and interval are known.
    """

    heading: str
    show: Callable[[float | None], str]
    unit: str = ""
    ascending: bool = False
    spread: bool = True

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
    "test_accuracy": Metric("test accuracy", formats.percent, "last epoch, %"),
    "validation_accuracy": Metric("validation accuracy", formats.percent, "%"),
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

#: Those with a standard deviation and an interval.
SPREAD = tuple(name for name, metric in METRICS.items() if metric.spread)


def _mean(key: str, **options: Any) -> Column:
    """The column of a metric without its spread."""
    metric = METRICS[key]
    return Column(key, metric.heading, metric.show, unit=metric.unit, right=True, **options)


def _with_spread(key: str, **options: Any) -> Column:
    metric = METRICS[key]
    if not metric.spread:
        return _mean(key, **options)
    takes = (key, f"{key}_sd")
    return Column(
        key, metric.heading, metric.with_spread, takes, unit=metric.unit, right=True, **options
    )


def _interval(key: str, **options: Any) -> Column:
    metric = METRICS[key]
    takes = (f"{key}_low", f"{key}_high")
    return Column(
        takes[0],
        "95 % interval",
        metric.interval,
        takes,
        unit="%" if metric.unit else "",
        right=True,
        optional=True,
        **options,
    )


NET = Column("model", "net", formats.net, ("model", "model_settings", "differs"), recipe=True)

COLUMNS = (
    Column("number", "#", formats.count, right=True, gives_way=6),
    NET,
    Column("data", "data", recipe=True, gives_way=22),
    Column("split", "split", formats.split, SPLIT, recipe=True, gives_way=6),
    Column(
        "augmentation",
        "augmentation",
        formats.option,
        ("augmentation", "augmentation_settings"),
        recipe=True,
        gives_way=5,
    ),
    Column("optimizer", "optimizer", recipe=True, gives_way=10),
    Column("learning_rate", "learning rate", formats.number, right=True, recipe=True, gives_way=2),
    Column("batch_size", "batch size", formats.count, right=True, recipe=True, gives_way=1),
    Column("epochs", "epochs", formats.count, right=True, recipe=True, gives_way=9),
    Column(
        "n",
        "n",
        formats.seeds,
        ("n", "n_failed", "n_unfinished", "n_pruned", "n_interrupted"),
        right=True,
    ),
    Column(
        "rank",
        "rank",
        formats.rank,
        ("rank", "rank_of"),
        right=True,
        optional=True,
        gives_way=4,
    ),
    _with_spread("test_accuracy"),
    _interval("test_accuracy", gives_way=8),
    Column("chosen", "chosen", optional=True, gives_way=12),
    Column(
        "best_test_accuracy",
        "best on test",
        formats.percent,
        unit="optimistic, %",
        right=True,
        optimistic=True,
        gives_way=17,
    ),
    Column(
        "published_accuracy",
        "published",
        formats.published,
        ("published_accuracy", "published_protocol"),
        unit="%",
        right=True,
        optional=True,
        gives_way=7,
    ),
    Column(
        "difference",
        "difference",
        formats.points,
        (
            *("difference", "difference_of", "published_accuracy", "published_protocol"),
            *("deviations", "difference_in"),
        ),
        unit="points",
        right=True,
        optional=True,
        gives_way=4,
    ),
    _mean("validation_accuracy", optional=True, gives_way=16),
    _mean("parameters", gives_way=11),
    _mean("flops", gives_way=15),
    _with_spread("seconds_train", gives_way=3),
    _with_spread("seconds_evaluate", gives_way=21),
    _with_spread("seconds_total", gives_way=20),
    Column(
        "runs_at_once",
        "runs at once",
        formats.at_once,
        right=True,
        optional=True,
        gives_way=23,
    ),
    Column(
        "published_seconds",
        "published time",
        formats.published_time,
        ("published_seconds", "published_approximate", "published_device"),
        right=True,
        optional=True,
        gives_way=14,
    ),
    _mean("images_per_second", gives_way=13),
    _mean("peak_memory", gives_way=19),
    Column(
        "device", "device", formats.hardware, ("device", "precision"), recipe=True, gives_way=18
    ),
    # From here on in the files for programs only.
    Column("experiment"),
    Column("deviations"),
    Column("difference_of"),
    Column("difference_in"),
    Column("published_protocol"),
    Column("published_parameters"),
    Column("published_device"),
    Column("published_approximate"),
    Column("published_source"),
    Column("model_settings"),
    Column("augmentation_settings"),
    Column("differs"),
    Column("scheduler"),
    Column("precision"),
    Column("threads"),
    Column("memory_format"),
    Column("deterministic"),
    Column("cuda_graphs"),
    Column("seeds"),
    Column("rank_of"),
    Column("train_accuracy"),
    Column("test_loss"),
    *(Column(f"{name}_sd") for name in SPREAD),
    *(Column(f"{name}_low") for name in SPREAD if name != "test_accuracy"),
    *(Column(f"{name}_high") for name in SPREAD),
    Column("split_train"),
    Column("split_validation"),
    Column("split_test"),
    Column("split_hash"),
    Column("data_sha256"),
    Column("source"),
    Column("fmbench_version"),
    Column("torch"),
    Column("git_commit"),
    Column("git_dirty"),
    Column("n_repeats"),
    Column("repeats_spread"),
    Column("n_failed"),
    Column("n_unfinished"),
    Column("n_pruned"),
    Column("n_interrupted"),
    Column("configuration"),
    Column("command"),
    Column("left_out"),
)

SHOWN = tuple(column for column in COLUMNS if column.heading)


def shown(rows: Sequence[Row], metric: str = "test_accuracy") -> list[Column]:
    """The columns that people read of some rows: without the optional ones that no row fills.

    Args:
        rows: As plain values.
        metric: What the rows are ordered by: it comes behind n, with its spread.
    """
    columns = list(SHOWN)
    if metric != "test_accuracy":
        theirs = ("rank", "test_accuracy_low", metric)
        columns = [column for column in columns if column.key not in theirs]
        place = [column.key for column in columns].index("n") + 1
        columns[place:place] = [_with_spread(metric)]
        if METRICS[metric].spread:
            columns[place + 1 : place + 1] = [_interval(metric)]
    return [
        column
        for column in columns
        if not column.optional or any(column.cell(row) != MISSING for row in rows)
    ]
