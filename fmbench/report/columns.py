"""The columns of the benchmark table: heading, unit, format and place of each, said once.

The formatters are pure: numbers in, plain text out. Escaping belongs to the outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmbench.reference import BEST_ON_TEST, LAST_EPOCH, NOT_STATED

Row = Mapping[str, Any]

MISSING = "-"


def text(value: str | None) -> str:
    """A name as it is."""
    return MISSING if value is None else value


def net(model: str | None, settings: str, differs: str) -> str:
    """The net, its settings, and what sets this row apart where nothing else in the table does."""
    name = f"{text(model)} {settings}" if settings else text(model)
    return f"{name} ({differs})" if differs else name


def split(
    name: str | None, train: float | None, validation: float | None, test: float | None
) -> str:
    """The split and its images to train, validate and test: standard 60,000/0/10,000."""
    counts = (train, validation, test)
    if all(value is None for value in counts):
        return text(name)
    return f"{text(name)} {'/'.join(map(count, counts))}"


def seeds(n: int, failed: int, unfinished: int) -> str:
    """How many seeds a row has, and how many runs of the same configuration did not complete."""
    said = [(failed, "failed"), (unfinished, "unfinished")]
    extra = ", ".join(f"+{value:,} {word}" for value, word in said if value)
    return f"{n:,} ({extra})" if extra else f"{n:,}"


def number(value: float | None) -> str:
    """A setting such as a learning rate: 0.05, 1e-05."""
    return MISSING if value is None else f"{value:g}"


def count(value: float | None) -> str:
    """A whole number with thousands separators: 61,706."""
    return MISSING if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """A speed: 22,000, and 41.3 where a digit more still says something."""
    if value is None:
        return MISSING
    return f"{value:.1f}" if value < 99.95 else count(value)


def percent(share: float | None, deviation: float | None = None) -> str:
    """A share from 0 to 1 in percent, with its standard deviation if known: 90.16 ± 0.12."""
    if share is None:
        return MISSING
    mean = f"{100 * share:.2f}"
    return mean if deviation is None else f"{mean} ± {100 * deviation:.2f}"


def published(accuracy: float | None, protocol: str | None) -> str:
    """A published accuracy in percent, and how it was chosen where that is known."""
    if accuracy is None or protocol in (None, NOT_STATED):
        return percent(accuracy)
    return f"{percent(accuracy)}, {protocol}"


def points(
    share: float | None, of: str | None, protocol: str | None, deviations: tuple[str, ...]
) -> str:
    """A difference of shares in points: +0.31. Where the recipe is another one, that instead."""
    if protocol is not None and deviations:
        return "recipe changed"
    if share is None:
        return MISSING
    # Unlike with unlike, where ours was not looked at as the published one was.
    unlike = of == LAST_EPOCH and protocol == BEST_ON_TEST
    return f"{100 * share:+.2f}, {of}" if unlike else f"{100 * share:+.2f}"


def published_time(seconds: float | None, device: str | None) -> str:
    """A published wall time and where it was taken: 18 min 29 s, GTX 1070."""
    return MISSING if seconds is None else f"{duration(seconds)}, {text(device)}"


def flops(value: float | None) -> str:
    """Operations with a metric prefix: 0.83 M."""
    if value is None:
        return MISSING
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size / 10:
            return f"{value / size:.2f} {prefix}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """A time as people say it: 8.1 s, 18 min 29 s, 2 h 03 min."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def hardware(device: str | None, precision: str | None) -> str:
    """Where a row was measured, and in which number format."""
    return text(device) if precision is None else f"{text(device)}, {precision}"


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
    show: Callable[..., str] = text
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
    Column("model", "net", net, ("model", "model_settings", "differs"), recipe=True),
    Column("data", "data", recipe=True, gives_way=16),
    Column("split", "split", split, SPLIT, recipe=True, gives_way=6),
    Column("augmentation", "augmentation", recipe=True, gives_way=5),
    Column("optimizer", "optimizer", recipe=True, gives_way=9),
    Column("learning_rate", "learning rate", number, right=True, recipe=True, gives_way=2),
    Column("batch_size", "batch size", count, right=True, recipe=True, gives_way=1),
    Column("epochs", "epochs", count, right=True, recipe=True, gives_way=8),
    Column("n", "n", seeds, ("n", "n_failed", "n_unfinished"), right=True),
    Column("test_accuracy", "test accuracy", percent, ACCURACY, unit="%", right=True),
    Column(
        "best_test_accuracy",
        "best on test",
        percent,
        unit="optimistic, %",
        right=True,
        gives_way=15,
    ),
    Column(
        "published_accuracy",
        "published",
        published,
        ("published_accuracy", "published_protocol"),
        unit="%",
        right=True,
        optional=True,
        gives_way=7,
    ),
    Column(
        "difference",
        "difference",
        points,
        ("difference", "difference_of", "published_protocol", "deviations"),
        unit="points",
        right=True,
        optional=True,
        gives_way=4,
    ),
    Column("parameters", "parameters", count, right=True, gives_way=10),
    Column("flops", "FLOPs", flops, right=True, gives_way=13),
    Column("seconds_train", "wall time", duration, right=True, gives_way=3),
    Column(
        "published_seconds",
        "published time",
        published_time,
        ("published_seconds", "published_device"),
        right=True,
        optional=True,
        gives_way=12,
    ),
    Column("images_per_second", "images/s", rate, right=True, gives_way=11),
    Column("device", "device", hardware, ("device", "precision"), recipe=True, gives_way=14),
    # From here on in the CSV file only.
    Column("experiment"),
    Column("deviations"),
    Column("difference_of"),
    Column("published_protocol"),
    Column("published_parameters"),
    Column("published_device"),
    Column("published_source"),
    Column("model_settings"),
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
