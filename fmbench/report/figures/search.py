"""A search as one picture: its history, the Pareto front, its parameters, importances.

Panels below each other; sizes are pixels of the page.
"""

from collections.abc import Mapping, Sequence

from fmbench.grid import MARGIN, SOFT
from fmbench.records.trials import FAILED, MAXIMIZE, PRUNED, Search, Trial
from fmbench.report.figure import Figure
from fmbench.report.figures.axis import value_axis
from fmbench.report.figures.parameters import (
    draw_slices,
    draw_surface,
    label,
    scatter,
    searched,
    slice_heights,
    surface_keys,
)
from fmbench.report.figures.sheet import (
    BLUE,
    GAP,
    GREY,
    HEADING,
    LABELS,
    LEFT,
    LINE,
    ORANGE,
    RED,
    RIGHT,
    TEXT,
    WIDTH,
    Sheet,
    drawing,
    fitted,
    text_on,
)
from fmbench.report.table.search import SearchPart, counts, importances, objective_name, ranking

HISTORY, FRONT, SURFACE, BAR = 220, 260, 280, 24  # heights
FRONT_GAP = 22
MOST_BARS = 12
BAR_NAMES, BAR_VALUES = 250, 60

_PANELS = {"front": "Pareto front", "surface": "two parameters together"}


def search_figure(part: SearchPart, name: str) -> Figure:
    """The picture of a search.

    Args:
        part: Of any size; a trial that is still running is not drawn.
        name: Of the files.
    """
    search = part.search
    complete = sorted(ranking(search), key=lambda trial: trial.number)
    heights = panels(search, complete)
    height = sum(heights.values()) + GAP * (len(heights) - 1) + 2 * MARGIN
    with drawing(name, height) as sheet:
        top = float(MARGIN)
        for panel, room in heights.items():
            if panel == "history":
                _history(sheet, top, search, complete)
            elif panel == "front":
                _front(sheet, top, search, complete)
            elif panel == "surface":
                draw_surface(sheet, top, search, complete, SURFACE)
            elif panel == "slices":
                draw_slices(sheet, top, search, complete)
            else:
                _importances(sheet, top, importances(search)[:MOST_BARS])
            top += room + GAP
        png, svg = sheet.saved(part.title)
    shown = [_PANELS.get(panel, panel) for panel in heights]
    listed = f"{', '.join(shown[:-1])} and {shown[-1]}" if shown[1:] else shown[0]
    alt = f"{listed[:1].upper()}{listed[1:]}: {part.alt_text}"
    return Figure(name, None, part.title, _caption(search, heights), alt, png, svg)


def _caption(search: Search, heights: Mapping[str, float]) -> str:
    objective = objective_name(search.objectives[0])
    said = [f"The {objective} of each trial in the order they were begun; {counts(search)}."]
    if any(trial.state == PRUNED for trial in search.trials):
        said.append("For a pruned trial it is the last before pruning.")
    if "surface" in heights:
        said.append(f"Below it what two parameters did together: colour is the {objective}.")
    if "slices" in heights:
        said.append("A slice shows the complete trials by one parameter, all with one scale.")
    return " ".join(said)


def panels(search: Search, complete: Sequence[Trial]) -> dict[str, float]:
    """The panels that there is something for, and how high each is."""
    heights: dict[str, float] = {"history": HEADING + LINE + HISTORY + LABELS}
    if complete and len(search.objectives) > 1:
        heights["front"] = HEADING + FRONT + LABELS
    if surface_keys(search, complete):
        heights["surface"] = HEADING + SURFACE + LABELS
    if searched(search, complete):
        heights["slices"] = HEADING + sum(slice_heights(search, complete))
    if search.importances:
        heights["importances"] = HEADING + BAR * min(len(search.importances), MOST_BARS)
    return heights


def _history(sheet: Sheet, top: float, search: Search, complete: Sequence[Trial]) -> None:
    objective = search.objectives[0]
    points = [(t.number, t.values[0]) for t in complete if t.values is not None]
    pruned = [
        (trial.number, value)
        for trial in search.trials
        if trial.state == PRUNED
        and (value := trial.last_report if trial.reports else (trial.values or (None,))[0])
        is not None
    ]
    failed = [trial.number for trial in search.trials if trial.state == FAILED]
    entries = [("complete", BLUE, "o"), ("best so far", ORANGE, "-")] if points else []
    entries += [("pruned, last report", GREY, "x")] if pruned else []
    entries += [("failed", RED, "|")] if failed else []

    last = max((trial.number for trial in search.trials), default=0)
    x = value_axis([0, last], label="trial", whole=True)
    y = value_axis([value for _, value in points + pruned], objective)
    axes = sheet.axes((LEFT, top + HEADING + LINE, WIDTH - LEFT - RIGHT, HISTORY), x, y)
    if not points and not pruned:
        middle = {"transform": axes.transAxes, "ha": "center", "color": SOFT}
        text_on(axes, 0.5, 0.5, "no trial reported a value", TEXT, **middle)
    beyond = scatter(axes, y, pruned, color=GREY, marker="x", ms=6, mew=1.5)
    beyond |= scatter(axes, y, points, color=BLUE, marker="o", ms=6, mew=0, alpha=0.8)
    for number in failed:
        axes.plot(number, 0.02, "|", color=RED, ms=9, mew=2, transform=axes.get_xaxis_transform())
    best: list[float] = []
    for _, value in points:
        better = max if objective.direction == MAXIMIZE else min
        best.append(better(best[-1], value) if best else value)
    if points:
        numbers = [number for number, _ in points]
        path = [y.scaled(value) for value in best]
        axes.plot([*numbers, last], [*path, path[-1]], drawstyle="steps-post", color=ORANGE, lw=2)
    if beyond:
        entries.append(("beyond the axis", SOFT, y.arrow))
    sheet.heading(top, f"History: {label(objective)}")
    sheet.entries(top + HEADING - 6, *entries)


def _front(sheet: Sheet, top: float, search: Search, complete: Sequence[Trial]) -> None:
    first, *others = search.objectives
    room = (WIDTH - LEFT - RIGHT - (len(others) - 1) * FRONT_GAP) / len(others)
    y_values = [trial.values[0] for trial in complete if trial.values is not None]
    beyond = False
    best = set(search.best)
    for place, other in enumerate(others, 1):
        x_values = [trial.values[place] for trial in complete if trial.values is not None]
        x = value_axis(x_values, other, label=label(other), may_log=True)
        y = value_axis(y_values, first, labelled=place == 1)
        left = LEFT + (place - 1) * (room + FRONT_GAP)
        axes = sheet.axes((left, top + HEADING, room, FRONT), x, y)
        pairs = [(x.placed(value), of) for value, of in zip(x_values, y_values, strict=True)]
        on_front = [trial.number in best for trial in complete]
        rest = [pair for pair, on in zip(pairs, on_front, strict=True) if not on]
        front = sorted(pair for pair, on in zip(pairs, on_front, strict=True) if on)
        beyond |= scatter(axes, y, rest, color=GREY, marker="o", ms=6, mew=0, alpha=0.7)
        if len(others) == 1:  # of three objectives no two make a line
            axes.plot(
                [at for at, _ in front], [y.placed(value) for _, value in front],
                drawstyle="steps-post" if other.sign < 0 else "steps-pre", color=ORANGE, lw=1.5,
            )  # fmt: skip
        beyond |= scatter(axes, y, front, color=RED, marker="o", ms=7, mew=0)
    entries = [("Pareto front", RED, "o"), ("other trials", GREY, "o")]
    entries += [("beyond the axis", SOFT, y.arrow)] if beyond else []
    sheet.heading(top, f"Pareto front: {label(first)}", *entries)


def _importances(sheet: Sheet, top: float, bars: Sequence[tuple[str, float]]) -> None:
    full = WIDTH - MARGIN - BAR_NAMES - BAR_VALUES - RIGHT
    for number, (name, share) in enumerate(bars):
        middle = top + HEADING + (number + 0.5) * BAR
        left = MARGIN + BAR_NAMES
        sheet.write(left - 8, middle, fitted(name, BAR_NAMES - 16, TEXT), color=SOFT, ha="right")
        length = max(full * share, 1)
        sheet.bar((left, middle - 7, length, 14), BLUE)
        sheet.write(left + length + 8, middle, f"{share:.2f}")
    sheet.heading(top, "Importances: share of what moves the objective")
