"""Test accuracy: against parameters or training time, by batch size, beside published figures."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from fmbench.config.published import BEST_ON_TEST
from fmbench.core.errors import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.table import formats
from fmbench.report.table.columns import METRICS, Row
from fmbench.report.table.describe import compared, is_like_with_like, settings_of
from fmbench.stats import one_more

# --- against cost ---------------------------------------------------------------------------------

MOST_HARDWARE = 3
MOST_SAID = 8  # points of the front in words
# More make an SVG that a page is slow with.
MOST_POINTS = 1_000
# Records may come from strangers: beyond these the ends of a logarithmic axis are no numbers.
LEAST, MOST = 1e-6, 1e18

OTHERS = "other models"


def front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """The Pareto front: points to which no other is at least as good in both and better in one.

    Their places are returned, the cheapest first.
    """
    points = list(zip(costs, accuracies, strict=True))
    found: list[int] = []
    for n in sorted(range(len(points)), key=lambda n: (costs[n], -accuracies[n])):
        last = points[found[-1]] if found else None
        if last is None or accuracies[n] > last[1] or points[n] == last:
            found.append(n)
    return found


def accuracy_parameters(
    rows: Sequence[Row], data: str, name: str, _budget: object = None
) -> Figure | None:
    """Test accuracy against parameters; None where all rows have as many."""
    return _figure({"": rows}, "parameters", data, name)


def accuracy_time(
    rows: Sequence[Row], data: str, name: str, _budget: object = None
) -> Figure | None:
    """Test accuracy against training time, a panel for each hardware: those with most rows."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        hardware = formats.hardware(row["device"], row["precision"])
        panels.setdefault(one_line(hardware, style.LONGEST), []).append(row)
    return _figure(panels, "seconds_train", data, name)


def _figure(panels: Mapping[str, Sequence[Row]], key: str, data: str, name: str) -> Figure | None:
    cost = METRICS[key]
    known = {
        where: [row for row in rows if LEAST < (row[key] or 0) < MOST][:MOST_POINTS]
        for where, rows in panels.items()
    }
    several = [where for where, rows in known.items() if len({row[key] for row in rows}) > 1]
    several = sorted(several, key=lambda where: -len(known[where]))[:MOST_HARDWARE]
    if not several:
        return None
    rows = [row for where in several for row in known[where]]
    best = sorted(rows, key=lambda row: -row["test_accuracy"])
    models = list(dict.fromkeys(map(style.model_of, best)))
    looks = dict(zip(models, style.LOOKS, strict=False))
    if len(models) > len(looks):
        looks[OTHERS] = {"color": style.GREY, "marker": "o"}
    title, unit = f"Test accuracy against {cost.heading}", " parameters" * (key == "parameters")
    alt = [f"{title} of {len(rows):,} rows."]
    caption = (
        "One point a row: its mean over the seeds, with the 95 % interval where it is known."
        f" No other row beats one on the Pareto front in both accuracy and {cost.heading}."
        " Rows far worse than most lie at the lower edge."
    )
    if left := sum(map(len, panels.values())) - len(rows):
        caption += f" {left:,} rows are left out: of other hardware, or without a value."
    with style.drawing(name, 0.75 + 3.5 * len(several) + len(looks) // 4 * 0.25) as figure:
        panes = figure.subplots(len(several), squeeze=False).flat
        for axes, where in zip(panes, several, strict=True):
            axes.set_title(": ".join(filter(None, ["Test accuracy (%)", where])))
            said = [
                f"{style.model_of(row)} {formats.percent(row['test_accuracy'])} % with"
                f" {cost.show(row[key])}{unit}"
                for row in _cost_panel(axes, known[where], key, looks)[:MOST_SAID]
            ]
            of = f" of {where}" if len(several) > 1 else ""
            alt.append(f"Pareto front{of}: {'; '.join(said)}.")
        entries = [style.entry(model, **look) for model, look in looks.items()]
        line = style.entry("Pareto front, numbers of rows", color=style.INK, ls="-")
        style.legend(figure, [*entries, line])
        return style.saved(figure, name, data, title, caption, " ".join(alt))


def _cost_panel(
    axes: "style.Axes", rows: Sequence[Row], key: str, looks: Mapping[str, dict[str, str]]
) -> list[Row]:
    """Draw rows, the best first; those on the Pareto front, the cheapest first."""
    costs, label = style.column(rows, key), METRICS[key].heading
    path = front(costs.tolist(), [row["test_accuracy"] for row in rows])
    if key == "seconds_train":
        unit, size = style.time_unit(costs)
        costs, label = costs / size, f"{label} ({unit})"
    axes.set_xlabel(label)
    style.log_scale(axes, "x", costs)
    accuracies, bars = style.accuracy_axis(axes, rows)
    names = np.array([name if name in looks else OTHERS for name in map(style.model_of, rows)])
    for model, look in looks.items():
        of = names == model
        axes.vlines(costs[of], *bars[of].T, color=look["color"], lw=1.6, alpha=0.6)
        axes.plot(costs[of], accuracies[of], **(style.MARKS | look))
    axes.step(costs[path], accuracies[path], where="post", color=style.INK, lw=1, zorder=1)
    for place in path:
        axes.annotate(
            str(rows[place]["number"]), (costs[place], accuracies[place]), (-5, 4),
            textcoords="offset points", ha="right", fontsize=style.SMALL, in_layout=False,
        )  # fmt: skip
    return [rows[place] for place in path]


# --- by batch size --------------------------------------------------------------------------------

# Each has its whole config looked at.
MOST_ALIKE = 1_000
MOST_SIZES = 5  # that are written below an axis


def batch_size(
    model: str, rows: Sequence[Row], data: str, name: str, _budget: object = None
) -> Figure | None:
    """Accuracy, training time and images/s by batch size; None where no two rows compare."""
    series = alike(rows)
    if len(series) < 2:
        return None
    others = style.recipe(series[0]).partition(", ")[2]
    fewest, most = (end(row["n"] for row in series) for end in (min, max))
    n = f"n = {most}" if fewest == most else f"n = {fewest} to {most}"
    caption = f"Rows that differ in their batch size alone ({others}). "
    caption += f"Means over {n} seeds, with the 95 % interval." if most > 1 else "One seed a row."
    said = [
        f"batch size {row['batch_size']}: {formats.percent(row['test_accuracy'])} %"
        f", {formats.duration(row['seconds_train'])}"
        f", {formats.rate(row['images_per_second'])} images/s"
        for row in series
    ]
    alt = f"Test accuracy, training time and speed by batch size. {'; '.join(said)}."
    title = f"{one_line(model, style.LONGEST)}: batch size"
    sizes = [row["batch_size"] for row in series]
    unit, seconds = style.time_unit([row["seconds_train"] or 0.0 for row in series])
    with style.drawing(name, 3) as figure:
        from matplotlib.ticker import FixedLocator, NullLocator

        panes = figure.subplots(1, 3)
        accuracies, bars = style.accuracy_axis(panes[0], series)
        panes[0].vlines(sizes, *bars.T, color=style.BLUE, lw=1.6, alpha=0.6)
        panels = {
            "Test accuracy (%)": accuracies,
            f"Training time ({unit})": style.column(series, "seconds_train") / seconds,
            "Training images/s": style.column(series, "images_per_second"),
        }
        for axes, (heading, values) in zip(panes, panels.items(), strict=True):
            axes.plot(sizes, values, "o-", color=style.BLUE)
            axes.set(title=heading, xlabel="batch size", xscale="log")
            axes.xaxis.set_major_locator(FixedLocator(sizes, nbins=MOST_SIZES))
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.xaxis.set_minor_locator(NullLocator())
            if values is not accuracies:
                axes.set_ylim(0, 1.1 * np.nanmax([0.1, *values]))
        panes[2].yaxis.set_major_formatter("{x:,g}")
        return style.saved(figure, name, data, title, caption, alt)


def alike(rows: Sequence[Row]) -> list[Row]:
    """The most rows that differ in nothing but the batch size, by batch size.

    Where two such series are as long, the one with the better row.
    """
    keys = ("split", "augmentation", "optimizer", "learning_rate", "epochs")
    sized = [row for row in rows[:MOST_ALIKE] if row["batch_size"]]
    recipes = [tuple(row[key] for key in keys) for row in sized]
    sizes: dict[tuple[object, ...], set[int]] = defaultdict(set)
    for chosen, row in zip(recipes, sized, strict=True):
        sizes[chosen].add(row["batch_size"])
    series: dict[tuple[object, ...], dict[int, Row]] = defaultdict(dict)
    for chosen, row in zip(recipes, sized, strict=True):
        if len(sizes[chosen]) > 1:  # else its config need not be looked at
            said = settings_of(row)
            said.pop("batch_size", None)
            series[*chosen, *sorted(said.items())].setdefault(row["batch_size"], row)
    longest = max(series.values(), key=len, default={})
    return [longest[size] for size in sorted(longest)]


# --- beside published figures ---------------------------------------------------------------------

MOST_PUBLISHED, LONGEST_NAME = 24, 40

# Of two seeds the band would fill the page.
LEAST_SEEDS = 3

#: Label, key of a row, colour, marker, and rows above the middle: marks that mean nearly the same
#: would hide each other.
MARKS = (
    ("published", "published_accuracy", style.RED, "D", 0.25),
    ("ours, last epoch", "test_accuracy", style.BLUE, "o", 0.0),
    ("ours, best epoch on test", "best_test_accuracy", style.ORANGE, "^", -0.25),
)
OURS, BEST = MARKS[1:]


def published_figure(
    rows: Sequence[Row], data: str, name: str, _budget: object = None
) -> Figure | None:
    """Published accuracies and ours; None where no row followed a published recipe."""
    followed = [
        row for row in rows if row["published_accuracy"] is not None and not row["deviations"]
    ]
    shown = followed[:MOST_PUBLISHED]
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
    alt = f"{title}. {'; '.join(map(_accuracies, shown))}."
    with style.drawing(name, 1.25 + 0.5 * len(shown)) as figure:
        axes = figure.subplots()
        _draw_published(axes, shown)
        axes.set(title="Test accuracy (%)", ylim=(len(shown) - 0.5, -0.5))
        axes.set_yticks(range(len(shown)), map(_label, shown))
        handles, _ = axes.get_legend_handles_labels()
        band = style.entry("one more run, 95 %", color=style.GREY, ls="-", lw=6, alpha=0.4)
        style.legend(figure, [*handles, *[band] * banded])
        return style.saved(figure, name, data, title, " ".join(said), alt)


def _name(row: Row) -> str:
    """The experiment of a row, and its number format where that is not the recipe's."""
    said = filter(None, [row["experiment"] or style.model_of(row), row["difference_in"]])
    return one_line(", ".join(said), LONGEST_NAME)


def _label(row: Row) -> str:
    hardware = one_line(formats.hardware(row["device"], row["precision"]), LONGEST_NAME)
    return f"{_name(row)}\n{hardware}, n = {row['n']:,}"


def _draw_published(axes: "style.Axes", rows: Sequence[Row]) -> None:
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
            low, high = np.clip(100 * np.array(ends), *reach).tolist()
            _, _, colour, _, up = BEST if row["difference_of"] == BEST_ON_TEST else OURS
            axes.hlines(at - up, low, high, color=colour, lw=6, alpha=0.25)
            values += [low, high]
    axes.set_xlim(min(values) - 0.08 * span, max(values) + 0.08 * span)


def _band(row: Row) -> tuple[float, float] | None:
    """Where one more run would land; None where that is no match, or seeds are few."""
    values = compared(row)
    return one_more(values) if is_like_with_like(row) and len(values) >= LEAST_SEEDS else None


def _accuracies(row: Row) -> str:
    words = ("published", "ours", "our best epoch on test")
    shares = [row[key] for _, key, *_ in MARKS]
    pairs = zip(shares, words, strict=True)
    said = [f"{formats.percent(share)} % {word}" for share, word in pairs if share is not None]
    return f"{_name(row)}: {', '.join(said)}"
