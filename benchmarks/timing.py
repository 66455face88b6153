"""Comparing speeds on a machine that others use too: interleaved, repeated, medians.

Contenders run in turns, so that a slow minute slows all of them, and what is quoted is a ratio of
medians from one run of the program, never of two.
"""

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Spread:
    """Repeated measurements: their median, and the quartiles around it."""

    median: float
    low: float
    high: float
    count: int
    unit: str = ""

    @classmethod
    def of(cls, values: Sequence[float], unit: str = "") -> "Spread":
        """Summarise values; with fewer than four the quartiles are the extremes."""
        if len(values) < 4:
            return cls(statistics.median(values), min(values), max(values), len(values), unit)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values), unit)

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)} - {number(self.high)})"


#: By name what was measured, or what was chosen, in words.
Results = dict[str, Spread | str]


class Timed(NamedTuple):
    """What a contender that reads the clock itself returns."""

    items: int
    seconds: float


#: Does some work and returns how many items that was.
Work = Callable[[], int | Timed]


def interleaved(
    contenders: Mapping[str, Work],
    repeats: int,
    *,
    wait: Callable[[], None] = lambda: None,
    budget: float = math.inf,
) -> dict[str, list[float]]:
    """Items per second of each contender, in turns.

    Args:
        contenders: by name.
        repeats: turns, after one that is not measured.
        wait: returns when the device has done all it was given. Else work that one contender has
            queued would be counted as the next one's.
        budget: seconds after which no turn starts, once three have been measured.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    first = time.perf_counter()
    for turn in range(repeats + 1):
        if turn > 3 and time.perf_counter() - first > budget:
            break
        # Each turn begins with another one: who comes after whom must not matter.
        for name, work in _rotated(list(contenders.items()), turn):
            wait()
            start = time.perf_counter()
            done = work()
            wait()
            taken = time.perf_counter() - start
            items, taken = done if isinstance(done, Timed) else (done, taken)
            if turn:
                rates[name].append(items / taken)
    return rates


def _rotated(items: list[tuple[str, Any]], by: int) -> list[tuple[str, Any]]:
    by %= len(items)
    return items[by:] + items[:by]


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """The ratios turn by turn: what was slow for one turn was slow for both."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)], "x")


def per_tenfold(small: tuple[float, float], large: tuple[float, float]) -> float:
    """How many times the cost ten times the size has: 10 where it grows in proportion.

    Args:
        small: a size and its cost.
        large: a larger size and its cost. Sizes that are not ten times apart give the same power
            law's factor.
    """
    return (large[1] / small[1]) ** (1 / math.log10(large[0] / small[0]))


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned text, the first column flush left."""
    widths = [max(len(row[place]) for row in [headings, *rows]) for place in range(len(headings))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [headings, *rows]
    ]
    return "\n".join(lines)


def listing(results: Results) -> str:
    """Results as a table: a line each, with median, quartiles and unit; below it what is text."""
    rows, texts = [], []
    for name, value in results.items():
        if isinstance(value, str):
            texts.append(f"{name}: {value}")
        else:
            figures = (value.median, value.low, value.high)
            # Three digits of an accuracy would hide what it is measured for.
            decimals = value.unit in ("%", "x") and value.high < 100
            cells = [f"{f:.2f}" if decimals else number(f) for f in figures]
            rows.append([name, cells[0], f"{cells[1]} - {cells[2]}", value.unit])
    return "\n".join([table(["what", "median", "quartiles", "unit"], rows), *texts])


def machine() -> dict[str, Any]:
    """What the figures hold for, as it is saved beside them."""
    import torch

    import fmbench
    from fmbench.training.device import processor

    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "fmbench": fmbench.__version__,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def save(path: Path | None, what: str, results: Mapping[str, Any]) -> None:
    """Write results with the machine they were measured on, if a path is given.

    Args:
        path: of the JSON file.
        what: the benchmark's name.
        results: spreads and texts, or by the name of a part its results.
    """
    if path is None:
        return
    content = {"benchmark": what, **machine(), "results": _plain(results)}
    path.write_text(json.dumps(content, indent=1) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return asdict(value) if isinstance(value, Spread) else value
