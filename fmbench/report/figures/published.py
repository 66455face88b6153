"""Published accuracies beside ours, a line each."""

from collections.abc import Sequence

import numpy as np

from fmbench.config.published import BEST_ON_TEST
from fmbench.core.errors import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.figures.rows import model_of
from fmbench.report.table import formats
from fmbench.report.table.columns import Row
from fmbench.report.table.describe import compared, is_like_with_like
from fmbench.stats import one_more

MOST_ROWS, LONGEST_NAME = 24, 40

# Of two seeds it would fill the page.
LEAST_SEEDS = 3

#: Label, key of a row, colour, marker, and rows above the middle: marks that mean nearly the same
#: would hide each other.
MARKS = (
    ("published", "published_accuracy", style.RED, "D", 0.25),
    ("ours, last epoch", "test_accuracy", style.BLUE, "o", 0.0),
    ("ours, best epoch on test", "best_test_accuracy", style.ORANGE, "^", -0.25),
)
OURS, BEST = MARKS[1:]


def published_figure(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Published accuracies and ours; None where no row followed a published recipe."""
    known = [row for row in rows if row["published_accuracy"] is not None]
    followed = [row for row in known if not row["deviations"]]
    shown = followed[:MOST_ROWS]
    if not shown:
        return None
    said = ["Rows that followed a published recipe: means over n seeds."]
    if banded := any(map(_band, shown)):
        said.append(
            "In 95 of 100 cases one more run of ours would land in the band. It is drawn from three"
            " seeds on, around the accuracy that was chosen as the published one was."
        )
    if len({row["split_test"] for row in shown}) > 1:
        said.append("Not all were tested on the same images.")
    if len(shown) < len(followed):
        said.append(f"The first {len(shown)} of {len(followed):,} rows.")
    title = "Published accuracy and ours"
    alt = f"{title}. {'; '.join(map(_said, shown))}."
    with style.drawing(name, 1.25 + 0.5 * len(shown)) as figure:
        axes = figure.subplots()
        _draw(axes, shown)
        axes.set(title="Test accuracy (%)", ylim=(len(shown) - 0.5, -0.5))
        axes.set_yticks(range(len(shown)), map(_label, shown))
        handles, _ = axes.get_legend_handles_labels()
        band = style.entry("one more run, 95 %", color=style.GREY, ls="-", lw=6, alpha=0.4)
        style.legend(figure, [*handles, *[band] * banded])
        return style.saved(figure, name, data, title, " ".join(said), alt)


def _name(row: Row) -> str:
    """The experiment of a row, and its number format where that is not the recipe's."""
    said = filter(None, [row["experiment"] or model_of(row), row["difference_in"]])
    return one_line(", ".join(said), LONGEST_NAME)


def _label(row: Row) -> str:
    hardware = one_line(formats.hardware(row["device"], row["precision"]), LONGEST_NAME)
    return f"{_name(row)}\n{hardware}, n = {row['n']:,}"


def _draw(axes: "style.Axes", rows: Sequence[Row]) -> None:
    values: list[float] = []
    for label, of, colour, marker, up in MARKS:
        known = [(100 * row[of], at - up) for at, row in enumerate(rows) if row[of] is not None]
        if known:
            axes.plot(
                *zip(*known, strict=True), color=colour, marker=marker, ms=6, ls="none", label=label
            )
        values += [value for value, _ in known]
    span = max(max(values) - min(values), 1.0)  # a tenth of a point as wide as a page is too much
    reach = min(values) - span, max(values) + span  # a band of three seeds may be wide
    for at, row in enumerate(rows):
        if ends := _band(row):
            low, high = np.clip(ends, *reach).tolist()
            _, _, colour, _, up = BEST if row["difference_of"] == BEST_ON_TEST else OURS
            axes.hlines(at - up, low, high, color=colour, lw=6, alpha=0.25)
            values += [low, high]
    axes.set_xlim(min(values) - 0.08 * span, max(values) + 0.08 * span)


def _band(row: Row) -> tuple[float, float] | None:
    """Where one more run would land, in percent; None where that is no match, or seeds are few."""
    values = compared(row)
    if not is_like_with_like(row) or len(values) < LEAST_SEEDS:
        return None
    ends = one_more(values)
    return None if ends is None else (100 * ends[0], 100 * ends[1])


def _said(row: Row) -> str:
    words = ("published", "ours", "our best epoch on test")
    shares = [row[key] for _, key, *_ in MARKS]
    pairs = zip(shares, words, strict=True)
    said = [f"{formats.percent(share)} % {word}" for share, word in pairs if share is not None]
    return f"{_name(row)}: {', '.join(said)}"
