"""Axes of a picture: what they reach to, where their ticks stand, what they say."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fmbench.core.errors import one_line
from fmbench.grid import CHARACTER
from fmbench.records.trials import Objective, Parameter
from fmbench.report.table.search import is_share, parameter_text

# Where the largest is more than so many times the smallest, a linear axis shows the largest alone.
LOG_SPAN = 20

# Whole numbers of so few values, such as batch sizes, are a choice of these rather than a range.
MOST_CHOICES = 6

MOST_TICKS = 7

# A logarithmic axis of less than this shows differences that are none.
LEAST_SPAN = 4
# Ticks have six digits: an axis that spans a smaller share of its numbers would repeat itself.
LEAST_SHARE = 1e-4
# Points of percent; means that differ by less do so by rounding, or by a part of one image.
LEAST_POINTS = 0.01
# Records may come from strangers: an axis of less has no numbers between its ends.
SMALLEST = 1e-100
LONGEST_NAME = 14
NARROWEST = 15  # pixels from one slanted name to the next

# So many times the distance from the best to the worst but a quarter is still drawn: beyond lie
# trials that learned nothing and would leave no room for what tells the others apart.
REACH = 2

# Golden ratio: its multiples never pile up.
_SPREAD = 0.618033988749895


@dataclass(frozen=True)
class Axis:
    """An axis, in the unit it is drawn in.

    Attributes:
        low: Its one end.
        high: Its other end.
        label: What is written below or beside it.
        ticks: Places and texts.
        log: It is logarithmic.
        slanted: Its names need more room than there is side by side.
        labelled: Its ticks have their texts.
        factor: What a value is multiplied by to be drawn.
        worse: -1 where less is worse, 1 where more is, 0 where neither is.
        names: Places of categories.
    """

    low: float
    high: float
    label: str = ""
    ticks: tuple[tuple[float, str], ...] = ()
    log: bool = False
    slanted: bool = False
    labelled: bool = True
    factor: float = 1.0
    worse: int = 0
    names: dict[str, int] = field(default_factory=dict)

    @property
    def arrow(self) -> str:
        """The marker of what lies beyond its worse end."""
        return "^" if self.worse > 0 else "v"

    def scaled(self, value: float) -> float:
        """Where a value is drawn."""
        return self.factor * value

    def beyond(self, value: float) -> bool:
        """Whether a value lies outside."""
        return not self.low <= self.scaled(value) <= self.high

    def placed(self, value: Parameter, number: int = 0) -> float:
        """Where a value is drawn, at the end where it lies beyond.

        Args:
            value: A number, or one of the categories.
            number: Of the trial: those of one category stand a little beside each other.
        """
        if self.names:
            return self.names[parameter_text(value)] + 0.3 * (number * _SPREAD % 1 - 0.5)
        assert isinstance(value, (int, float))
        inset = 0.0 if self.log else 0.02 * (self.high - self.low)
        return min(max(self.scaled(value), self.low + inset), self.high - inset)


def value_axis(
    values: Sequence[float],
    objective: Objective | None = None,
    *,
    label: str = "",
    labelled: bool = True,
    may_log: bool = False,
    whole: bool = False,
    between: tuple[float, float] | None = None,
) -> Axis:
    """An axis for numbers.

    Args:
        values: All that are to be drawn.
        objective: What they are values of; without one all are inside.
        label: What is written at it.
        labelled: Its ticks have their texts.
        may_log: It is logarithmic where the values span more than `LOG_SPAN`.
        whole: They are counted.
        between: What `limits` gave, to have it in common with other axes.
    """
    factor = 100.0 if objective is not None and is_share(objective) else 1.0
    worse = 0 if objective is None else -objective.sign
    if may_log and _spans(values):
        low, high = _log_limits(values)
        return Axis(low, high, label, _log_ticks(low, high), log=True, labelled=labelled)
    low, high = between or limits(values, objective if not may_log else None, whole=whole)
    low, high = _widened(low * factor, high * factor)
    ticks = _ticks(low, high, whole=whole)
    return Axis(low, high, label, ticks, labelled=labelled, factor=factor, worse=worse)


def parameter_axis(values: Sequence[Parameter], label: str, room: float) -> Axis:
    """An axis for the values of a parameter: a range, logarithmic where it is wide, or a choice.

    Args:
        values: All that were tried.
        label: The parameter's name.
        room: Its width, in pixels.
    """
    numbers = [x for x in values if isinstance(x, (int, float)) and not isinstance(x, bool)]
    whole = all(isinstance(value, int) for value in numbers)
    if len(numbers) < len(values) or (whole and len(set(numbers)) <= MOST_CHOICES):
        return _choice(values, label, room)
    return value_axis(numbers, label=label, may_log=True, whole=whole)


def plain_axis(
    low: float, high: float, label: str = "", *, show: Callable[[float], str] | None = None
) -> Axis:
    """A linear axis from one number to another; `show` makes a tick's text."""
    low, high = _widened(low, high)
    ticks = _ticks(low, high, whole=False)
    return Axis(low, high, label, tuple((at, show(at) if show else text) for at, text in ticks))


def log_axis(
    values: Sequence[float],
    label: str,
    *,
    show: Callable[[float], str] | None = None,
    places: Sequence[Sequence[float]] = (),
) -> Axis:
    """A logarithmic axis for numbers above zero, however near to each other.

    Args:
        values: All that are to be drawn.
        label: What is written at it.
        show: Makes a tick's text.
        places: Where ticks may stand, in order: the first of these of which three lie inside, else
            the last; by default round numbers.
    """
    show = show or _number
    low, high = min(values), max(values)
    middle, span = math.sqrt(low) * math.sqrt(high), max(high / low, LEAST_SPAN) ** 0.56
    low, high = middle / span, middle * span
    if not places:
        return Axis(low, high, label, _log_ticks(low, high, show), log=True)
    inside: list[float] = []
    for some in places:
        inside = [place for place in some if low <= place <= high]
        if len(inside) > 2:
            break
    every = math.ceil(len(inside) / MOST_TICKS) or 1
    return Axis(low, high, label, tuple((at, show(at)) for at in inside[::every]), log=True)


def limits(
    values: Sequence[float], objective: Objective | None = None, *, whole: bool = False
) -> tuple[float, float]:
    """From where to where an axis goes; far worse values than most may lie beyond.

    Args:
        values: All that are to be drawn.
        objective: What they are values of; without one all are inside.
        whole: They are counted, from half below the first to half above the last.
    """
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if whole:
        edge = max(0.5, 0.02 * (high - low))
        return low - edge, high + edge
    if objective is not None:
        ordered = sorted(values, key=lambda value: -objective.sign * value)
        most = ordered[math.floor(0.75 * (len(ordered) - 1))]
        reach = REACH * abs(ordered[0] - most)
        if reach > 0 and objective.sign > 0:
            low = max(low, high - reach)
        elif reach > 0:
            high = min(high, low + reach)
    around = 0.01 if objective is not None else 0.5
    edge = 0.07 * (high - low) or around * abs(high) or 1.0
    return low - edge, high + edge


def span_of(points: Sequence[float]) -> float:
    """From the least to the greatest of some percentages; 1 where they are equal."""
    span = max(points) - min(points)
    return span if span >= LEAST_POINTS else 1.0


def _widened(low: float, high: float) -> tuple[float, float]:
    least = max(LEAST_SHARE * max(abs(low), abs(high)), SMALLEST)
    more = max(least - (high - low), 0.0) / 2
    return low - more, high + more


def _choice(values: Sequence[Parameter], label: str, room: float) -> Axis:
    # Numbers in their order, then what is none.
    def order(value: Parameter) -> tuple[bool, float, str]:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return not number, float(value or 0) if number else 0.0, parameter_text(value)

    texts = list(dict.fromkeys(map(parameter_text, sorted(values, key=order))))
    names = {text: place for place, text in enumerate(texts)}
    each = room / len(texts)
    slanted = any(len(one_line(text, 40)) * CHARACTER > each - 6 for text in texts)
    every = math.ceil(NARROWEST / each)
    shown = [(text, one_line(text, LONGEST_NAME if slanted else None)) for text in texts[::every]]
    ticks = tuple((float(names[text]), said) for text, said in shown)
    return Axis(-0.6, len(texts) - 0.4, label, ticks, slanted=slanted, names=names)


def _spans(values: Sequence[float]) -> bool:
    # Further out, the ends of a logarithmic axis would be no numbers.
    sane = bool(values) and min(values) > 1e-100 and max(values) < 1e100
    return sane and max(values) / min(values) > LOG_SPAN


def _log_limits(values: Sequence[float]) -> tuple[float, float]:
    edge = (max(values) / min(values)) ** 0.05
    return min(values) / edge, max(values) * edge


def _log_ticks(
    low: float, high: float, show: Callable[[float], str] | None = None
) -> tuple[tuple[float, str], ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    places: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5)):
        places = [float(f"{step}e{decade}") for decade in decades for step in steps]
        places = [place for place in places if low <= place <= high]
        if len(places) > 2:
            break
    every = math.ceil(len(places) / MOST_TICKS) or 1
    return tuple((place, (show or _number)(place)) for place in places[::every])


def _ticks(low: float, high: float, *, whole: bool) -> tuple[tuple[float, str], ...]:
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10]
    places = MaxNLocator(nbins=10 if whole else 5, integer=whole, steps=steps).tick_values(
        low, high
    )
    inside = [float(place) for place in places if low <= place <= high]
    if whole:  # of less than two, matplotlib counts halves too
        inside = [place for place in inside if place.is_integer()]
    return tuple((place, _number(place)) for place in inside)


def _number(value: float) -> str:
    """A tick's number: 0.01, 1e-05, 61.7 k."""
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if size <= abs(value) < 1e12:
            unit = 1e3 if prefix == "k" else size
            return f"{value / unit:g} {prefix}"
    return f"{value:g}"
