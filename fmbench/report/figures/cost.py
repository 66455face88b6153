"""Test accuracy against what it costs: parameters, or training time on one hardware."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fmbench.core.errors import one_line
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.figures.rows import model_of
from fmbench.report.table import formats
from fmbench.report.table.columns import Row

MOST_HARDWARE = 3
MOST_SAID = 8  # points of the front in words
# More make an SVG that a page is slow with.
MOST_POINTS = 1_000
# Records may come from strangers: beyond these the ends of a logarithmic axis are no numbers.
LEAST, MOST = 1e-6, 1e18

OTHERS = "other models"


@dataclass(frozen=True)
class Cost:
    """What accuracy is drawn against: a key of the rows, its name, and how values are written."""

    key: str
    name: str
    show: Callable[[float], str]


PARAMETERS = Cost("parameters", "parameters", lambda value: f"{style.number(value)} parameters")
TIME = Cost("seconds_train", "training time", formats.duration)


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


def accuracy_parameters(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Test accuracy against parameters; None where all rows have as many."""
    return _figure({"": rows}, PARAMETERS, data, name)


def accuracy_time(rows: Sequence[Row], data: str, name: str) -> Figure | None:
    """Test accuracy against training time, a panel for each hardware: those with most rows."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        hardware = formats.hardware(row["device"], row["precision"])
        panels.setdefault(one_line(hardware, style.LONGEST), []).append(row)
    return _figure(panels, TIME, data, name)


def _figure(panels: Mapping[str, Sequence[Row]], cost: Cost, data: str, name: str) -> Figure | None:
    known = {
        where: [row for row in rows if LEAST < (row[cost.key] or 0) < MOST][:MOST_POINTS]
        for where, rows in panels.items()
    }
    several = [where for where, rows in known.items() if len({row[cost.key] for row in rows}) > 1]
    several = sorted(several, key=lambda where: -len(known[where]))[:MOST_HARDWARE]
    if not several:
        return None
    rows = [row for where in several for row in known[where]]
    best = sorted(rows, key=lambda row: -row["test_accuracy"])
    models = list(dict.fromkeys(map(model_of, best)))
    looks = dict(zip(models, style.LOOKS, strict=False))
    if len(models) > len(looks):
        looks[OTHERS] = {"color": style.GREY, "marker": "o"}
    title = f"Test accuracy against {cost.name}"
    alt = [f"{title} of {len(rows):,} rows."]
    caption = (
        "One point a row: its mean over the seeds, with the 95 % interval where it is known."
        f" No other row beats one on the Pareto front in both accuracy and {cost.name}."
        " Rows far worse than most lie at the lower edge."
    )
    if left := sum(map(len, panels.values())) - len(rows):
        caption += f" {left:,} rows are left out: of other hardware, or without a value."
    with style.drawing(name, 0.75 + 3.5 * len(several) + len(looks) // 4 * 0.25) as figure:
        panes = figure.subplots(len(several), squeeze=False).flat
        for axes, where in zip(panes, several, strict=True):
            axes.set_title(": ".join(filter(None, ["Test accuracy (%)", where])))
            said = [
                f"{model_of(row)} {formats.percent(row['test_accuracy'])} % with"
                f" {cost.show(row[cost.key])}"
                for row in _panel(axes, known[where], cost, looks)[:MOST_SAID]
            ]
            of = f" of {where}" if len(several) > 1 else ""
            alt.append(f"Pareto front{of}: {'; '.join(said)}.")
        entries = [style.entry(model, **look) for model, look in looks.items()]
        line = style.entry("Pareto front, numbers of rows", color=style.INK, ls="-")
        style.legend(figure, [*entries, line])
        return style.saved(figure, name, data, title, caption, " ".join(alt))


def _panel(
    axes: "style.Axes", rows: Sequence[Row], cost: Cost, looks: Mapping[str, dict[str, str]]
) -> list[Row]:
    """Draw rows, the best first; those on the Pareto front, the cheapest first."""
    costs = style.column(rows, cost.key)
    path = front(costs.tolist(), [row["test_accuracy"] for row in rows])
    axes.set_xlabel(cost.name)
    if cost is TIME:
        unit, size = style.time_unit(costs)
        costs /= size
        axes.set_xlabel(f"{cost.name} ({unit})")
    style.log_scale(axes, "x", costs)
    accuracies, bars = style.accuracy_axis(axes, rows)
    names = np.array([name if name in looks else OTHERS for name in map(model_of, rows)])
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
