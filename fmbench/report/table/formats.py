"""How the values of the benchmark table are written: numbers in, plain text out.

Escaping belongs to the outputs.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fmbench.config.published import BEST_ON_TEST, LAST_EPOCH, in_words

MISSING = "-"

#: A row of `benchmark_table`, as plain values.
Row = Mapping[str, Any]


def _written(form: str, factor: float = 1) -> Callable[[float | None], str]:
    return lambda value: MISSING if value is None else form.format(factor * value)


#: A setting such as a learning rate: 0.05, 1e-05.
number = _written("{:g}")
#: A whole number with thousands separators: 61,706.
count = _written("{:,.0f}")
#: A share from 0 to 1 in percent: 90.16.
percent = _written("{:.2f}", 100)
#: A loss: 0.2814.
loss = _written("{:.4f}")


def text(value: str | None) -> str:
    """A name as it is."""
    return MISSING if value is None else value


def model(model: str | None, settings: str | None, differs: str) -> str:
    """The model, its settings, and what sets its row apart where nothing else in the table does."""
    name = option(model, settings)
    return f"{name} ({differs})" if differs else name


def option(name: str | None, settings: str | None) -> str:
    """The option of a group, and what was typed about its keys: crop_flip cutout={size:8}."""
    return f"{text(name)} {settings}" if settings else text(name)


def split(name: str | None, *images: float | None) -> str:
    """The split and its images to train, validate and test: standard 60,000/0/10,000."""
    return option(name, "/".join(map(count, images)) if any(images) else None)


def seeds(  # noqa: PLR0917 - of a row's keys
    n: int,
    failed: int,
    unfinished: int,
    pruned: int,
    interrupted: int,
    folds: tuple[int, ...] | None = None,
) -> str:
    """How many seeds a row has, of how many runs if not all completed: 3 of 4 (1 failed).

    Or how many folds, and of several seeds each how many runs: 5 folds, 10 in 5 folds.
    """
    of = f" {'' if n == len(folds) else f'in {len(folds):,} '}folds" if folds else ""
    others = {
        "failed": failed, "interrupted": interrupted, "pruned": pruned, "unfinished": unfinished
    }  # fmt: skip
    said = ", ".join(f"{number:,} {word}" for word, number in others.items() if number)
    return f"{n:,} of {n + sum(others.values()):,}{of} ({said})" if said else f"{n:,}{of}"


def rank(value: float | None, of: str | None) -> str:
    """A rank among rows of several seeds: 1. Among rows of one seed: 1*, explained elsewhere."""
    return f"{count(value)}*" if of == "models" else count(value)


def parts(*shares: float | None) -> str:
    """Parts of a spread, in points: 0.05, 0.20."""
    return MISSING if None in shares else ", ".join(map(percent, shares))


def rate(value: float | None) -> str:
    """A speed: 22,000, and 41.3 where a digit more still says something."""
    return f"{value:.1f}" if value is not None and value < 99.95 else count(value)


def size(count: float | None) -> str:
    """Bytes with a metric prefix: 512 MB, 1.04 GB."""
    if count is None:
        return MISSING
    for prefix, unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= unit:
            return f"{count / unit:.{2 if count < 9.995 * unit else 0}f} {prefix}"
    return f"{count:.0f} B"


def published(accuracy: float | None, protocol: str | None) -> str:
    """A published accuracy in percent, and how it was chosen where that is known."""
    return MISSING if accuracy is None else f"{percent(accuracy)}, {in_words(protocol)}"


def points(  # noqa: PLR0917 - of a row's keys
    share: float | None,
    of: str | None,
    accuracy: float | None,
    protocol: str | None,
    deviations: tuple[str, ...] | None,
    arithmetic: str | None,
) -> str:
    """A difference of shares in points: +0.31. Where the recipe is another one, that instead."""
    if accuracy is not None and deviations:
        return "recipe changed"
    if share is None:
        return MISSING
    # Unlike with unlike, where ours was not chosen as the published one was.
    unlike = f", {of}" if of == LAST_EPOCH and protocol == BEST_ON_TEST else ""
    return f"{100 * share:+.2f}{unlike}{f', in {arithmetic}' if arithmetic else ''}"


def published_time(seconds: float | None, approximate: bool | None, device: str | None) -> str:
    """A published wall time and where it was taken: 18 min 29 s, GTX 1070; about 3.5 h, a CPU."""
    if seconds is None:
        return MISSING
    if not approximate:
        return f"{duration(seconds)}, {text(device)}"
    size, unit = next((one for one in ((3600, "h"), (60, "min")) if seconds >= one[0]), (1, "s"))
    value = seconds / size
    return f"about {value:{'.0f' if value >= 10 else '.2g'}} {unit}, {text(device)}"


def flops(value: float | None) -> str:
    """Operations with a metric prefix: 0.83 M."""
    if value is None:
        return MISSING
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size / 10:
            return f"{value / size:.2f} {prefix}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """A time in units that suit it: 8.1 s, 18 min 29 s, 2 h 03 min."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def at_once(counts: tuple[int, ...]) -> str:
    """How many runs of their sweep the runs of a row shared the machine with, itself included."""
    return " or ".join(map(count, counts)) or MISSING


def hardware(device: str | None, precision: str | None) -> str:
    """Where a row was measured, and in which number format."""
    return text(device) if precision is None else f"{text(device)}, {precision}"


def probability(p: float) -> str:
    """A p for a table: 0.51, 0.0021, < 0.0001; missing where there is no test."""
    if p != p:  # noqa: PLR0124 - NaN
        return MISSING
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"
