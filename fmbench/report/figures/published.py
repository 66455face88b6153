"""Published accuracies beside ours, a line each."""

from collections import Counter
from collections.abc import Sequence

from fmbench.config.published import BEST_ON_TEST
from fmbench.core.errors import one_line
from fmbench.grid import MARGIN
from fmbench.report.figure import Figure
from fmbench.report.figures.axis import Axis, plain_axis, span_of
from fmbench.report.figures.names import net
from fmbench.report.figures.sheet import (
    BLUE,
    GREY,
    HEADING,
    LABELS,
    LINE,
    ORANGE,
    RED,
    RIGHT,
    TICK,
    WIDTH,
    Entry,
    Sheet,
    drawing,
    fitted,
    width_of,
)
from fmbench.report.table import formats
from fmbench.report.table.columns import Row
from fmbench.report.table.describe import compared, is_like_with_like
from fmbench.stats import one_more

STEP = 44  # from one row to the next
WIDEST_NAME = 250
MOST_ROWS = 24

# Of two seeds it would fill the page.
LEAST_SEEDS = 3

PUBLISHED = ("published", RED, "D")
OURS = ("ours, last epoch", BLUE, "o")
BEST = ("ours, best epoch on test", ORANGE, "^")
BAND = ("one more run, 95 %", GREY, "band")

#: In rows above the middle: marks that mean nearly the same would hide each other.
LANES = {PUBLISHED: 0.25, OURS: 0.0, BEST: -0.25}


def published_figure(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Published accuracies and ours; None where no row followed a published recipe.

    Args:
        rows: Of the table, from the top; those with another recipe than the published one are left
            out.
        data: The data set.
        name: Of the files.
    """
    followed = [row for row in rows if _followed(row)]
    shown = followed[:MOST_ROWS]
    if not shown:
        return None
    names = _names(shown)
    height = MARGIN + HEADING + STEP * len(shown) + LABELS + LINE + MARGIN
    title = "Published accuracy and ours"
    with drawing(name, height) as sheet:
        banded = _draw(sheet, shown, names)
        png, svg = sheet.saved(title)
    caption = "Rows that followed a published recipe; means over n seeds."
    if banded:
        caption += (
            " A band is where one more run of ours would land in 95 of 100 cases; it is"
            " drawn, from three seeds on, around the figure chosen as the published one was."
        )
    if len({row["split_test"] for row in shown}) > 1:
        caption += " Not all were tested on the same images."
    if len(shown) < len(followed):
        caption += f" The first {len(shown)} of {len(followed):,} rows."
    said = "; ".join(_said(row, text) for row, text in zip(shown, names, strict=True))
    return Figure(name, data, title, caption, f"Published accuracy and ours. {said}.", png, svg)


def _followed(row: Row) -> bool:
    return row["published_accuracy"] is not None and not row["deviations"]


def _names(rows: Sequence[Row]) -> list[str]:
    """The experiment of each row, and the hardware where that alone does not tell them apart.

    And its number format, where that is not the recipe's.
    """
    plain = [
        one_line(", ".join(filter(None, [row["experiment"] or net(row), row["difference_in"]])), 60)
        for row in rows
    ]
    times = Counter(plain)
    return [
        text if times[text] == 1
        else f"{text}, {one_line(formats.hardware(row['device'], row['precision']), 60)}"
        for text, row in zip(plain, rows, strict=True)
    ]  # fmt: skip


def _draw(sheet: Sheet, rows: Sequence[Row], names: Sequence[str]) -> bool:
    """Draw all but what stands below the picture; whether there is a band."""
    texts = [
        f"{fitted(name, WIDEST_NAME, TICK)}  n = {row['n']:,}"
        for name, row in zip(names, rows, strict=True)
    ]
    left = MARGIN + max(width_of(text, TICK) for text in texts) + 14
    x = _accuracies(rows)
    ticks = tuple((float(at), text) for at, text in enumerate(texts))
    y = Axis(len(rows) - 0.5, -0.5, ticks=ticks)  # the first row on top
    box = (left, MARGIN + HEADING, WIDTH - left - RIGHT, STEP * len(rows))
    axes = sheet.axes(box, x, y)
    used: dict[Entry, None] = {PUBLISHED: None, OURS: None}
    for at, row in enumerate(rows):
        points = {PUBLISHED: row["published_accuracy"], OURS: row["test_accuracy"]}
        if row["best_test_accuracy"] is not None:
            points[BEST] = row["best_test_accuracy"]
        used |= dict.fromkeys(points)
        if (ends := _band(row)) is not None:
            entry = BEST if row["difference_of"] == BEST_ON_TEST else OURS
            used[BAND] = None
            inside = [min(max(end, x.low), x.high) for end in ends]
            axes.plot(
                inside, [at - LANES[entry]] * 2, color=entry[1], lw=7, alpha=0.25,
                solid_capstyle="butt",
            )  # fmt: skip
        for entry, share in points.items():
            _, colour, marker = entry
            axes.plot(
                [100 * share], [at - LANES[entry]], color=colour, marker=marker, ms=7, mew=0,
                ls="none",
            )  # fmt: skip
    sheet.heading(MARGIN, "Test accuracy, published and ours")
    marks = [entry for entry in (*LANES, BAND) if entry in used]
    sheet.entries(sheet.height - MARGIN - LINE, *marks)
    return BAND in used


def _band(row: Row) -> tuple[float, float] | None:
    """Where one more run would land, in percent; None where that is no match, or seeds are few."""
    values = compared(row)
    if (
        not is_like_with_like(row)
        or len(values) < LEAST_SEEDS
        or (ends := one_more(values)) is None
    ):
        return None
    return 100 * ends[0], 100 * ends[1]


def _accuracies(rows: Sequence[Row]) -> Axis:
    keys = ("published_accuracy", "test_accuracy", "best_test_accuracy")
    values = [100 * row[key] for row in rows for key in keys if row[key] is not None]
    span = max(span_of(values), 1.0)  # of a tenth of a point a page wide would be much ado
    ends = [end for row in rows for end in _band(row) or ()]
    # A band of three seeds may reach far.
    low = min([*values, *(max(end, min(values) - span) for end in ends)])
    high = max([*values, *(min(end, max(values) + span) for end in ends)])
    return plain_axis(low - 0.08 * span, high + 0.08 * span, "test accuracy (%)")


def _said(row: Row, name: str) -> str:
    said = f"{name}: {formats.percent(row['published_accuracy'])} % published"
    said += f", {formats.percent(row['test_accuracy'])} % ours"
    best = row["best_test_accuracy"]
    return said if best is None else f"{said}, {formats.percent(best)} % our best epoch on test"
