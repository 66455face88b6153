"""A search as one figure: history, Pareto front, response surface, slices, importances."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeGuard

import numpy as np

from fmbench.core.errors import one_line
from fmbench.records.trials import FAILED, PRUNED, Objective, Parameter, Search, Trial
from fmbench.report.figure import Figure
from fmbench.report.figures import style
from fmbench.report.table.search import (
    SearchPart,
    counts,
    importances,
    metric_of,
    parameter_text,
    ranking,
)

MOST_SLICES, COLUMNS, MOST_BARS = 12, 3, 12
# Whole numbers of so few values, such as batch sizes, are a choice of these rather than a range.
MOST_CHOICES = 6
MOST_TICKS, LONGEST_TICK, LONGEST_KEY = 12, 14, 34

LEARNING_RATE_AND_BATCH_SIZE = ("optimizer.lr", "batch_size")

POINT = style.MARKS | {"marker": "o", "color": style.BLUE, "alpha": 0.8}
OTHER = POINT | {"color": style.GREY}
BEST = style.MARKS | {"marker": "o", "color": style.RED, "ms": 7}
STOPPED = style.MARKS | {"marker": "x", "color": style.GREY, "mew": 1.5}
BROKEN = style.MARKS | {"marker": "|", "color": style.RED, "mew": 2, "ms": 9}

#: What draws a panel on its part of the figure.
Draw = Callable[["style.SubFigure"], None]


def search_figure(part: SearchPart, name: str) -> Figure:
    """The figure of a search of any size; a trial that is still running is not drawn."""
    shown = panels(part.search)
    metric, trials = metric_of(part.search.objectives[0]), counts(part.search)
    objective = metric.heading
    said = [f"The {objective} of each trial in the order they were begun: {trials}."]
    if any(trial.state == PRUNED for trial in part.search.trials):
        said.append("For a pruned trial it is the last before pruning.")
    if "response surface" in shown:
        said.append(f"In the response surface colour is the {objective}.")
    said.append("Trials far worse than most lie at the edge of a panel.")
    best = [
        f"best {metric.with_unit(trial.values[0])} in trial {trial.number}"
        for trial in part.best[:1]
        if trial.values
    ]
    alt = f"{', '.join(shown)}: {'; '.join([f'{objective} of the trials', *best, trials])}"
    heights = [height for height, _ in shown.values()]
    with style.drawing(name, sum(heights)) as figure:
        parts = figure.subfigures(len(shown), height_ratios=heights, squeeze=False).flat
        for subfigure, (_, draw) in zip(parts, shown.values(), strict=True):
            draw(subfigure)
        return style.saved(figure, name, part.folder, part.title, " ".join(said), alt)


def panels(search: Search) -> dict[str, tuple[float, Draw]]:
    """The panels that there is something for, each with its height in inches."""
    complete = ranking(search)[::-1]  # the best last, on top of the others
    found: dict[str, tuple[float, Draw]] = {"History": (3.25, partial(_history, search, complete))}
    if complete and len(search.objectives) > 1:
        found["Pareto front"] = (3.5, partial(_front, search, complete))
    if keys := surface_keys(search, complete):
        found["response surface"] = (3.5, partial(_surface, search, complete, keys))
    if keys := searched(search, complete):
        rows = math.ceil(min(len(keys), MOST_SLICES) / COLUMNS)
        found["slices"] = (0.75 + 2.25 * rows, partial(_slices, search, complete, keys))
    if bars := importances(search)[:MOST_BARS]:
        found["importances"] = (0.75 + 0.25 * len(bars), partial(_importances, bars))
    return found


def searched(search: Search, complete: Iterable[Trial]) -> list[str]:
    """The parameters, the most important first."""
    known = dict(importances(search))
    keys = dict.fromkeys(key for trial in complete for key in trial.parameters)
    return sorted(keys, key=lambda key: -known.get(key, 0.0))


def surface_keys(search: Search, complete: Sequence[Trial]) -> list[str]:
    """The two parameters of the response surface, where there are two with several numbers.

    Learning rate and batch size where both were searched, else the two most important.
    """
    tried = {
        key: {trial.parameters[key] for trial in complete if key in trial.parameters}
        for key in searched(search, complete)
    }
    numeric = [key for key in tried if len(tried[key]) > 1 and all(map(_is_number, tried[key]))]
    if set(LEARNING_RATE_AND_BATCH_SIZE) <= set(numeric):
        return list(LEARNING_RATE_AND_BATCH_SIZE)
    return numeric[:2] if len(numeric) > 1 else []


def label(objective: Objective) -> str:
    """The heading of an objective's axis: training time (s)."""
    return metric_of(objective).title + " (s)" * (objective.name == "train_seconds")


def _history(search: Search, complete: Sequence[Trial], figure: "style.SubFigure") -> None:
    from matplotlib.ticker import MaxNLocator

    objective = search.objectives[0]
    axes = figure.subplots()
    axes.set(title=f"History: {label(objective)}", xlabel="trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    pruned = [
        replace(trial, values=(trial.last_report,))
        for trial in search.trials
        if trial.state == PRUNED and trial.last_report is not None
    ]
    drawn = [*sorted(complete, key=lambda trial: trial.number), *pruned]
    numbers = np.array([trial.number for trial in drawn])
    values = _objective_axis(axes, "y", search, drawn)
    done = len(complete)
    if done:
        best = (np.maximum if objective.sign > 0 else np.minimum).accumulate(values[:done])
        last = max(trial.number for trial in search.trials)
        path = ([*numbers[:done], last], [*best, best[-1]])
        axes.step(*path, where="post", color=style.ORANGE, label="best so far")
        axes.plot(numbers[:done], values[:done], label="complete", **POINT)
    if pruned:
        axes.plot(numbers[done:], values[done:], label="pruned, last report", **STOPPED)
    if failed := [trial.number for trial in search.trials if trial.state == FAILED]:
        low, high = axes.get_ylim()
        at = low + 0.03 * (high - low)
        axes.plot(failed, [at] * len(failed), label="failed", **BROKEN)
    if handles := axes.get_legend_handles_labels()[0]:
        style.legend(figure, handles)


def _front(search: Search, complete: Sequence[Trial], figure: "style.SubFigure") -> None:
    first, *others = search.objectives
    panes = figure.subplots(1, len(others), sharey=True, squeeze=False)[0]
    panes[0].set_title(f"Pareto front: {label(first)}")
    on = np.array([trial.number in search.best for trial in complete])
    for place, (axes, other) in enumerate(zip(panes, others, strict=True), 1):
        axes.set_xlabel(label(other))
        x = _objective_axis(axes, "x", search, complete, place)
        y = _objective_axis(axes, "y", search, complete)
        axes.plot(x[~on], y[~on], **OTHER)
        axes.plot(x[on], y[on], **BEST)
        if len(others) == 1:  # of three objectives no two make a line
            order = np.lexsort((y[on], x[on]))
            where = "post" if other.sign < 0 else "pre"
            axes.step(x[on][order], y[on][order], where=where, color=style.RED, lw=1)
    entries = [style.entry("Pareto front", **BEST), style.entry("other trials", **OTHER)]
    style.legend(figure, entries)


def _surface(
    search: Search, complete: Sequence[Trial], keys: Sequence[str], figure: "style.SubFigure"
) -> None:
    objective = search.objectives[0]
    axes = figure.subplots()
    known = [trial for trial in complete if trial.parameters.keys() >= set(keys)]
    pruned = [
        trial
        for trial in search.trials
        if trial.state == PRUNED and all(_is_number(trial.parameters.get(key)) for key in keys)
    ]
    x, y = (
        _parameter_axis(axes, side, key, [trial.parameters[key] for trial in known + pruned])
        for side, key in zip("xy", keys, strict=True)
    )
    done = len(known)
    values = _values(search, known)
    low, high = style.limits(values, objective.sign)
    axes.plot(x[done:], y[done:], **STOPPED)
    points = axes.scatter(
        x[:done], y[:done], c=values, s=60, linewidths=1, edgecolors=style.GREY,
        vmin=max(low, values.min()), vmax=min(high, values.max()),
    )  # fmt: skip
    figure.colorbar(points, ax=axes).outline.set_visible(False)
    axes.set_title(f"Response surface: {label(objective)}{'; crosses were pruned' * bool(pruned)}")


def _slices(
    search: Search, complete: Sequence[Trial], keys: Sequence[str], figure: "style.SubFigure"
) -> None:
    objective = search.objectives[0]
    shown = keys[:MOST_SLICES]
    columns = min(len(shown), COLUMNS)
    panes = figure.subplots(math.ceil(len(shown) / columns), columns, sharey=True, squeeze=False)
    for axes in panes.flat[len(shown) :]:
        axes.set_axis_off()
    values = _objective_axis(panes[0, 0], "y", search, complete)
    best = np.array([trial.number in search.best for trial in complete])
    for axes, key in zip(panes.flat, shown, strict=False):
        has = np.array([key in trial.parameters for trial in complete])
        tried = [trial.parameters[key] for trial in complete if key in trial.parameters]
        x = _parameter_axis(axes, "x", key, tried)
        for of, look in ((~best, POINT), (best, BEST)):
            axes.plot(x[of[has]], values[has & of], **look)
    some = f" (the first {len(shown)} of {len(keys)})" if len(keys) > len(shown) else ""
    panes[0, 0].set_title(f"Slices: {label(objective)} by parameter{some}")
    several = len(search.objectives) > 1
    style.legend(figure, [style.entry("on the Pareto front" if several else "best", **BEST)])


def _importances(bars: Sequence[tuple[str, float]], figure: "style.SubFigure") -> None:
    axes = figure.subplots()
    drawn = axes.barh(range(len(bars)), [share for _, share in bars], 0.6, color=style.BLUE)
    axes.bar_label(drawn, fmt="%.2f", padding=4)
    axes.set_yticks(range(len(bars)), [one_line(name, LONGEST_KEY) for name, _ in bars])
    axes.invert_yaxis()
    axes.set_title("Importances: share of what moves the objective")


def _values(search: Search, trials: Iterable[Trial], place: int = 0) -> np.ndarray:
    """What trials reached in an objective, in the unit that `label` says."""
    values = np.array([trial.values[place] for trial in trials if trial.values is not None])
    return values * (100.0 if metric_of(search.objectives[place]).is_share else 1.0)


def _objective_axis(
    axes: "style.Axes", side: str, search: Search, trials: Sequence[Trial], place: int = 0
) -> np.ndarray:
    """Set an axis for an objective; where trials are drawn, at its end if they are far worse."""
    values = _values(search, trials, place)
    if side == "x" and style.spans(values):
        style.log_scale(axes, side, values)
        return values
    ends = style.limits(values, search.objectives[place].sign) if len(values) else (0.0, 1.0)
    axes.set(**{f"{side}lim": ends})
    return np.asarray(values.clip(*ends))


def _parameter_axis(
    axes: "style.Axes", side: str, key: str, values: Sequence[Parameter]
) -> np.ndarray:
    """Set an axis for values of a parameter, a range or a choice; where they are drawn."""
    axes.set(**{f"{side}label": one_line(key, LONGEST_KEY)})
    numbers = [float(value) for value in values if _is_number(value)]
    few = len(set(numbers)) <= MOST_CHOICES and all(isinstance(value, int) for value in values)
    if len(numbers) == len(values) and not few:
        if style.spans(numbers):
            style.log_scale(axes, side, numbers)
        return np.array(numbers)

    # Numbers in their order, then what is none.
    def order(value: Parameter) -> tuple[bool, float, str]:
        number = float(value) if _is_number(value) else 0.0
        return not _is_number(value), number, parameter_text(value)

    texts = list(dict.fromkeys(map(parameter_text, sorted(values, key=order))))
    every = math.ceil(len(texts) / MOST_TICKS)
    shown = [one_line(text, LONGEST_TICK) for text in texts[::every]]
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_ticks(range(0, len(texts), every), shown)
    axes.set(**{f"{side}lim": (-0.6, len(texts) - 0.4)})
    if side == "x" and sum(map(len, shown)) > 24:
        axes.tick_params(axis="x", labelrotation=30)
    return np.array([texts.index(parameter_text(value)) for value in values], dtype=float)


def _is_number(value: Parameter) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
