"""Comparing speeds on a machine that others use too: interleaved, repeated, medians.

Contenders run in turns, so that a slow minute slows all of them, and what is quoted is a ratio of
medians from one run of the program, never of two.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Repeated measurements: their median, and the quartiles around it."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise values; with fewer than four the quartiles are the extremes."""
        if len(values) < 4:
            return cls(statistics.median(values), min(values), max(values), len(values))
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)} - {number(self.high)})"


def interleaved(
    contenders: Mapping[str, Callable[[], int]], repeats: int
) -> dict[str, list[float]]:
    """Items per second of each contender, in turns.

    Args:
        contenders: each does some work and returns how many items that was.
        repeats: turns, after one that is not measured.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            items = work()
            if turn:
                rates[name].append(items / (time.perf_counter() - start))
    return rates


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """The ratios turn by turn: what was slow for one turn was slow for both."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


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
        )
        for row in [headings, *rows]
    ]
    return "\n".join(lines)


def save(path: Path | None, what: str, results: Mapping[str, Any]) -> None:
    """Write results with the machine they were measured on, if a path is given."""
    if path is None:
        return
    import torch  # noqa: PLC0415 - slow to import

    from fmbench.device import processor  # noqa: PLC0415 - imports torch

    machine = {"processor": processor(), "threads": torch.get_num_threads()}
    plain = {
        name: asdict(value) if isinstance(value, Spread) else value
        for name, value in results.items()
    }
    path.write_text(json.dumps({"benchmark": what, **machine, "results": plain}, indent=1) + "\n")
