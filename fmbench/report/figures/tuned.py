"""A tuned comparison as one figure: the best after k trials, sensitivity to the learning rate."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.table.best_after import best_after, is_drawn_blindly
from fmbench.report.table.search import metric_of
from fmbench.report.table.tuned import ComparisonPart, Entry

LEARNING_RATE = "optimizer.lr"

#: More contestants than there are colours and markers; the best are drawn.
MOST_DRAWN = len(style.LOOKS)

#: What draws a panel on its part of the figure.
Draw = Callable[["style.SubFigure"], None]


def tuned_figure(part: ComparisonPart, name: str) -> Figure | None:
    """The figure of a comparison; None where no trial has completed."""
    entries = [entry for entry in part.entries if entry.best][:MOST_DRAWN]
    if not entries:
        return None
    panels: list[tuple[float, Draw]] = [(3.25, partial(_after, entries))]
    rates = [entry for entry in entries if any(_rates(entry))]
    if rates:
        panels.append((3.25, partial(_sensitivity, rates)))
    metric = metric_of(entries[0].searches[0].objectives[0])
    heights = [height for height, _ in panels]
    with style.drawing(name, sum(heights) + 0.4) as figure:
        parts = figure.subfigures(len(panels), height_ratios=heights, squeeze=False).flat
        for subfigure, (_, draw) in zip(parts, panels, strict=True):
            draw(subfigure)
        best = "; ".join(
            f"{one.label}: best {metric.heading} {metric.with_unit(one.best[0].values[0])}"
            for one in entries[:3]
            if one.best[0].values
        )
        said = _caption(entries, len(part.entries), with_rates=bool(rates))
        return style.saved(figure, name, part.folder, part.title, said, f"{part.title}. {best}.")


def _caption(entries: Sequence[Entry], every: int, *, with_rates: bool) -> str:
    said = []
    if is_drawn_blindly(entries[0].searches[0].sampler):
        said.append(
            "The best of k trials, expected over all orders of the trials, which their sampler "
            "draws without looking at the others (after Dodge et al. 2019); the band has 80 of 100 "
            "orders."
        )
    else:
        said.append(
            "The best of the first k trials, in the order run, in which the sampler learns."
        )
        if any(len(entry.searches) > 1 for entry in entries):
            said.append("The mean of a contestant's searches; the band has all of them.")
    said.append("A trial without a value counts as the worst.")
    if with_rates:
        said.append("Below each complete trial by its learning rate; the chosen ones are large.")
    if len(entries) < every:
        said.append(f"Drawn are {len(entries)} of {every} contestants, the best.")
    return " ".join(said)


def _look(place: int) -> dict[str, Any]:
    return dict(style.LOOKS[place])


def _after(entries: Sequence[Entry], figure: "style.SubFigure") -> None:
    from matplotlib.ticker import MaxNLocator

    objective = entries[0].searches[0].objectives[0]
    metric = metric_of(objective)
    factor = 100.0 if metric.is_share else 1.0
    axes = figure.subplots()
    axes.set(title=f"Best after k trials: {metric.title}", xlabel="k")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    curves = [best_after(entry.searches) for entry in entries]
    low, high = style.limits(
        np.concatenate([factor * curve.mean for curve in curves]), objective.sign
    )
    axes.set_ylim(low, high)
    handles = []
    for place, (entry, curve) in enumerate(zip(entries, curves, strict=True)):
        look = _look(place)
        trials = np.arange(1, len(curve.mean) + 1)
        (line,) = axes.plot(
            trials, np.clip(factor * curve.mean, low, high), label=entry.label, lw=1.5, ms=4, **look
        )
        lower, upper = (np.clip(factor * end, low, high) for end in (curve.low, curve.high))
        axes.fill_between(trials, lower, upper, color=look["color"], alpha=style.BAND / 2, lw=0)
        handles.append(line)
    style.legend(figure, handles)


def _rates(entry: Entry) -> list[tuple[float, float, bool]]:
    """The learning rate and the objective of each complete trial, and whether it was chosen."""
    found = []
    for search in entry.searches:
        for trial in search.trials:
            rate = trial.parameters.get(LEARNING_RATE)
            is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
            if is_number and trial.values and float(rate or 0) > 0:
                found.append((float(rate or 0), trial.values[0], trial.number in search.best))
    return found


def _sensitivity(entries: Sequence[Entry], figure: "style.SubFigure") -> None:
    objective = entries[0].searches[0].objectives[0]
    metric = metric_of(objective)
    factor = 100.0 if metric.is_share else 1.0
    axes = figure.subplots()
    axes.set(title=f"Sensitivity: {metric.title} by learning rate", xlabel=LEARNING_RATE)
    points = [np.array(_rates(entry)) for entry in entries]
    every = np.concatenate(points)
    style.log_scale(axes, "x", every[:, 0])
    low, high = style.limits(factor * every[:, 1], objective.sign)
    axes.set_ylim(low, high)
    handles = []
    for place, (entry, known) in enumerate(zip(entries, points, strict=True)):
        look = style.MARKS | _look(place) | {"alpha": 0.8}
        values = np.clip(factor * known[:, 1], low, high)
        chosen = known[:, 2] > 0
        axes.plot(known[~chosen, 0], values[~chosen], **look | {"ms": 5})
        axes.plot(known[chosen, 0], values[chosen], **look | {"ms": 10})
        handles.append(style.entry(entry.label, **{**_look(place), "ls": "none"}))
    style.legend(figure, handles)
