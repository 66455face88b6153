"""Names at points, none of them on another or on a mark."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fmbench.report.figures.sheet import Box

HEIGHT = 15  # of a name, in pixels
NEAR, FAR = 9, 30  # from a point to its name; where that is taken, with a line to it
MARK = 6  # around the middle of a point


@dataclass(frozen=True)
class Placed:
    """Where a name stands, in pixels from the top left corner.

    Attributes:
        left: Its left end.
        middle: Its height.
        line: It is far from its point, and needs a line to it.
    """

    left: float
    middle: float
    line: bool


def place(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    others: np.ndarray,
    box: Box,
) -> list[Placed | None]:
    """Find a place for each name, in their order.

    Args:
        points: (x, y) of each name, in pixels from the top left corner.
        widths: Of each name.
        others: (N, 2) points without a name; a name on few of them is better than none.
        box: left, top, width, height that names stay in.

    Returns:
        None for a name that there is no room for.
    """
    named = np.array(points, dtype=float).reshape(-1, 2)
    taken: list[Box] = []
    found: list[Placed | None] = []
    for (x, y), width in zip(points, widths, strict=True):
        best: tuple[float, Placed] | None = None
        for cost, placed in _candidates(x, y, width):
            area = (placed.left, placed.middle - HEIGHT / 2, width, HEIGHT)
            if not _inside(area, box) or any(_overlap(area, other) for other in taken):
                continue
            if _covered(area, named, MARK):
                continue
            total = cost + 1.5 * _covered(area, others, MARK - 2)
            if best is None or total < best[0]:
                best = (total, placed)
        found.append(best[1] if best else None)
        if best:
            taken.append((best[1].left, best[1].middle - HEIGHT / 2, width, HEIGHT))
    return found


def _candidates(x: float, y: float, width: float) -> Iterator[tuple[float, Placed]]:
    """Places around a point, and what each costs: the nearer the better, first at the right."""
    for reach, line in ((NEAR, False), (FAR, True)):
        aside, up = reach, reach + 6
        slant = 0.75 * reach
        lefts = {"right": x + aside, "left": x - aside - width, "middle": x - width / 2}
        places = [
            ("right", 0.0), ("left", 0.0), ("right", -slant), ("right", slant),
            ("left", -slant), ("left", slant), ("middle", -up), ("middle", up),
        ]  # fmt: skip
        for cost, (side, down) in enumerate(places):
            yield 0.3 * cost + 4 * line, Placed(lefts[side], y + down, line)


def _inside(area: Box, box: Box) -> bool:
    left, top, width, height = area
    return (
        left >= box[0]
        and top >= box[1]
        and left + width <= box[0] + box[2]
        and top + height <= box[1] + box[3]
    )


def _overlap(one: Box, other: Box) -> bool:
    apart = (
        one[0] + one[2] + 4 < other[0]
        or other[0] + other[2] + 4 < one[0]
        or one[1] + one[3] < other[1]
        or other[1] + other[3] < one[1]
    )
    return not apart


def _covered(area: Box, points: np.ndarray, around: float) -> int:
    """How many points an area lies on."""
    left, top, width, height = area
    x, y = points[:, 0], points[:, 1]
    inside = (x > left - around) & (x < left + width + around)
    inside &= (y > top - around) & (y < top + height + around)
    return int(inside.sum())
