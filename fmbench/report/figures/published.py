"""Published accuracies beside ours, a line each."""

from collections import Counter
from collections.abc import Sequence

from fmbench.grid import MARGIN
from fmbench.reference import BEST_ON_TEST
from fmbench.report import formats
from fmbench.report.columns import Row
from fmbench.report.escape import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures.axis import Axis, plain_axis, span_of
from fmbench.report.figures.evidence import interval
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

STEP = 34  # from one row to the next
WIDEST_NAME = 250
MOST_ROWS = 24

PUBLISHED = ("published", RED, "D")
OURS = ("ours, last epoch", BLUE, "o")
BEST = ("ours, best epoch on test", ORANGE, "^")
INTERVAL = ("95 % interval over the seeds", BLUE, "band")


def published_figure(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Published accuracies and ours; None where no row followed a published recipe.

    Args:
        rows: Of the table; those with another recipe than the published one are left out.
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
        _draw(sheet, shown, names)
        png, svg = sheet.saved(title)
    caption = "Rows that followed a published recipe; each published figure is one run's"
    chosen = {row["published_protocol"] for row in shown}
    if BEST_ON_TEST in chosen:
        caption += ", where it is joined to ours of the best epoch it was chosen on the test set"
    caption += "."
    if len(shown) < len(followed):
        caption += f" The first {len(shown)} of {len(followed):,} rows."
    said = "; ".join(_said(row, text) for row, text in zip(shown, names, strict=True))
    return Figure(name, data, title, caption, f"Published accuracy and ours. {said}.", png, svg)


def _followed(row: Row) -> bool:
    return row["published_accuracy"] is not None and not row["deviations"]


def _names(rows: Sequence[Row]) -> list[str]:
    """The experiment of each row, and the hardware where that alone does not tell them apart."""
    plain = [one_line(row["experiment"] or net(row), 60) for row in rows]
    times = Counter(plain)
    return [
        text if times[text] == 1
        else f"{text}, {one_line(formats.hardware(row['device'], row['precision']), 60)}"
        for text, row in zip(plain, rows, strict=True)
    ]  # fmt: skip


def _draw(sheet: Sheet, rows: Sequence[Row], names: Sequence[str]) -> None:
    texts = [fitted(name, WIDEST_NAME, TICK) for name in names]
    left = MARGIN + max(width_of(text, TICK) for text in texts) + 14
    x = _accuracies(rows)
    ticks = tuple((float(at), text) for at, text in enumerate(texts))
    y = Axis(len(rows) - 0.5, -0.5, ticks=ticks)  # the first row on top
    box = (left, MARGIN + HEADING, WIDTH - left - RIGHT, STEP * len(rows))
    axes = sheet.axes(box, x, y)
    marks: dict[Entry, None] = {}
    for at, row in enumerate(rows):
        ours, theirs = 100 * row["test_accuracy"], 100 * row["published_accuracy"]
        best = row["best_test_accuracy"]
        like = ours
        if best is not None:
            marks[BEST] = None
            if row["published_protocol"] == BEST_ON_TEST:
                like = 100 * best
        # What is compared with what: like with like.
        axes.plot([theirs, like], [at, at], color=GREY, lw=1, zorder=1)
        if (ends := interval(row)) is not None:
            marks[INTERVAL] = None
            inside = [min(max(end, x.low), x.high) for end in ends]
            axes.plot(inside, [at, at], color=BLUE, lw=5, alpha=0.3, solid_capstyle="butt")
        points = [(theirs, PUBLISHED), (ours, OURS)]
        points += [(100 * best, BEST)] if best is not None else []
        for place, (_, colour, marker) in points:
            axes.plot([place], [at], color=colour, marker=marker, ms=7.5, mew=0, ls="none")
    sheet.heading(MARGIN, "Test accuracy, published and ours")
    entries = [PUBLISHED, OURS, *(entry for entry in (INTERVAL, BEST) if entry in marks)]
    sheet.entries(sheet.height - MARGIN - LINE, *entries)


def _accuracies(rows: Sequence[Row]) -> Axis:
    values = [100 * row["published_accuracy"] for row in rows]
    values += [100 * row["test_accuracy"] for row in rows]
    values += [100 * row["best_test_accuracy"] for row in rows if row["best_test_accuracy"]]
    span = max(span_of(values), 1.0)  # of a tenth of a point a page wide would be much ado
    ends = [end for row in rows for end in interval(row) or ()]
    # An interval of two seeds may reach anywhere.
    low = min([*values, *(max(end, min(values) - span) for end in ends)])
    high = max([*values, *(min(end, max(values) + span) for end in ends)])
    return plain_axis(low - 0.08 * span, high + 0.08 * span, "test accuracy (%)")


def _said(row: Row, name: str) -> str:
    said = f"{name}: {formats.percent(row['published_accuracy'])} % published"
    said += f", {formats.percent(row['test_accuracy'])} % ours"
    best = row["best_test_accuracy"]
    return said if best is None else f"{said}, {formats.percent(best)} % its best epoch on test"
