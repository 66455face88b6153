"""The columns of the benchmark table: heading, unit, format and place of each, said once.

How a value is written is said in `fmbench.report.formats`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmbench.report import formats
from fmbench.report.formats import MISSING

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
        gives_way: Where a terminal is too narrow the column with the highest number goes first
            (but see `fmbench.report.terminal.fit`); 0 stays.
    """

    key: str
    heading: str = ""
    show: Callable[..., str] = formats.text
    takes: tuple[str, ...] = ()
    unit: str = ""
    right: bool = False
    recipe: bool = False
    optional: bool = False
    gives_way: int = 0

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    def cell(self, row: Row) -> str:
        """The cell of a row, as plain text."""
        return self.show(*(row[key] for key in self.takes or (self.key,)))


ACCURACY = ("test_accuracy", "test_accuracy_sd")
SPLIT = ("split", "split_train", "split_validation", "split_test")

COLUMNS = (
    Column("model", "net", formats.net, ("model", "model_settings", "differs"), recipe=True),
    Column("data", "data", recipe=True, gives_way=16),
    Column("split", "split", formats.split, SPLIT, recipe=True, gives_way=6),
    Column(
        "augmentation",
        "augmentation",
        formats.option,
        ("augmentation", "augmentation_settings"),
        recipe=True,
        gives_way=5,
    ),
    Column("optimizer", "optimizer", recipe=True, gives_way=9),
    Column("learning_rate", "learning rate", formats.number, right=True, recipe=True, gives_way=2),
    Column("batch_size", "batch size", formats.count, right=True, recipe=True, gives_way=1),
    Column("epochs", "epochs", formats.count, right=True, recipe=True, gives_way=8),
    Column("n", "n", formats.seeds, ("n", "n_failed", "n_unfinished", "n_pruned"), right=True),
    Column("test_accuracy", "test accuracy", formats.percent, ACCURACY, unit="%", right=True),
    Column(
        "best_test_accuracy",
        "best on test",
        formats.percent,
        unit="optimistic, %",
        right=True,
        gives_way=15,
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
        ("difference", "difference_of", "published_accuracy", "published_protocol", "deviations"),
        unit="points",
        right=True,
        optional=True,
        gives_way=4,
    ),
    Column("parameters", "parameters", formats.count, right=True, gives_way=10),
    Column("flops", "FLOPs", formats.flops, right=True, gives_way=13),
    Column("seconds_train", "wall time", formats.duration, right=True, gives_way=3),
    Column(
        "published_seconds",
        "published time",
        formats.published_time,
        ("published_seconds", "published_approximate", "published_device"),
        right=True,
        optional=True,
        gives_way=12,
    ),
    Column("images_per_second", "images/s", formats.rate, right=True, gives_way=11),
    Column(
        "device", "device", formats.hardware, ("device", "precision"), recipe=True, gives_way=14
    ),
    # From here on in the CSV file only.
    Column("experiment"),
    Column("deviations"),
    Column("difference_of"),
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
    Column("seeds"),
    Column("test_accuracy_sd"),
    Column("test_loss"),
    Column("validation_accuracy"),
    Column("train_accuracy"),
    Column("seconds_train_sd"),
    Column("seconds_evaluate"),
    Column("seconds_total"),
    Column("peak_memory"),
    Column("split_train"),
    Column("split_validation"),
    Column("split_test"),
    Column("split_hash"),
    Column("data_sha256"),
    Column("fmbench_version"),
    Column("torch"),
    Column("git_commit"),
    Column("git_dirty"),
    Column("n_repeats"),
    Column("repeats_spread"),
    Column("n_failed"),
    Column("n_unfinished"),
    Column("n_pruned"),
    Column("configuration"),
    Column("command"),
)

SHOWN = tuple(column for column in COLUMNS if column.heading)


def shown(rows: Sequence[Row]) -> list[Column]:
    """The columns that people read of some rows: without the optional ones that no row fills."""
    return [
        column
        for column in SHOWN
        if not column.optional or any(column.cell(row) != MISSING for row in rows)
    ]
