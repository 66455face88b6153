"""What all benchmarks share: turns, medians and quartiles, tables, a file, a command line.

Contenders take turns, so that a slow minute slows all of them, and what is quoted is a ratio from
one run of the program, never of two.
"""

import argparse
import inspect
import json
import math
import os
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import fmbench
from fmbench.training.device import processor, settings_kept

CHECKOUT = Path(__file__).resolve().parents[1]


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
        """Summarise values."""
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        return cls(median, low, high, len(values), unit)

    def __str__(self) -> str:
        """The median and the quartiles: 0.92 (0.90 - 0.93). Of speeds, which are many, no more."""
        decimals = self.unit in ("%", "x") and self.high < 100  # three digits would hide a seed's
        median, low, high = (
            f"{value:.2f}" if decimals else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            for value in (self.median, self.low, self.high)
        )
        alone = self.count == 1 or self.unit == "images/s"
        return median if alone else f"{median} ({low} - {high})"


#: What was measured, or was chosen, in words: by "WHERE: WHAT", or by its name alone.
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
    """Items per second of each contender, in turns, after one that is not measured.

    Args:
        contenders: by name.
        repeats: turns.
        wait: returns when the device has done all it was given. Else work that one contender has
            queued would be counted as the next one's.
        budget: seconds after which no turn starts, once three have been measured.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    first, names = time.perf_counter(), list(contenders)
    for turn in range(repeats + 1):
        if turn > 3 and time.perf_counter() - first > budget:
            break
        for name in names:
            wait()
            start = time.perf_counter()
            done = contenders[name]()
            wait()
            taken = time.perf_counter() - start
            items, taken = done if isinstance(done, Timed) else (done, taken)
            if turn:
                rates[name].append(items / taken)
        names = [*names[1:], names[0]]  # who comes after whom must not matter
    return rates


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """The ratios turn by turn: what was slow for one turn was slow for both."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)], "x")


def table(results: Results) -> str:
    """Medians and quartiles: a line for each WHERE, a column for each WHAT or unit."""
    lines: dict[str, dict[str, str]] = {}
    texts = []
    for name, value in results.items():
        where, _, what = name.partition(": ")
        if isinstance(value, Spread) or what:
            unit = "" if isinstance(value, str) else value.unit
            lines.setdefault(where, {})[what or unit] = str(value)
        else:
            texts.append(f"{name}: {value}")
    rows = pd.DataFrame.from_dict(lines, orient="index").fillna("")
    return "\n".join([rows.to_string()] * bool(lines) + texts)


def gather(pieces: Iterable[Results], benchmark: str = "", path: Path | None = None) -> Results:
    """All results, which are printed, and kept with the machine they hold for, piece by piece."""
    results: Results = {}
    with settings_kept():
        for piece in pieces:
            results |= piece
            print(f"{table(piece)}\n", flush=True)
            content = {
                "benchmark": benchmark,
                "processor": processor(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
                "torch": torch.__version__,
                "fmbench": fmbench.__version__,
                "date": datetime.now(UTC).isoformat(timespec="minutes"),
                "results": results,
            }
            if path is not None:
                path.write_text(json.dumps(content, indent=1, default=asdict) + "\n", "utf-8")
    if results != piece:
        print(table(results))
    return results


def main(measure: Callable[..., Iterator[Results]], argv: Sequence[str] | None = None) -> None:
    """The command of a measurement: its parameters are the options, one before `*` takes words."""
    parser = argparse.ArgumentParser(
        description=inspect.getmodule(measure).__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, parameter in inspect.signature(measure).parameters.items():
        (kind,) = typing.get_args(parameter.annotation) or (parameter.annotation,)
        options: dict[str, Any] = {"default": parameter.default, "help": "default: %(default)s"}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": kind, "nargs": None if kind is parameter.annotation else "*"}
        flag = name if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else f"--{name}"
        parser.add_argument(flag.replace("_", "-"), **options)
    parser.add_argument("--json", type=Path, help="the file to keep the results in")
    options = vars(parser.parse_args(argv))
    path = options.pop("json")
    gather(measure(**options), Path(inspect.getfile(measure)).stem, path)


def python(*arguments: str, folder: str | Path) -> tuple[str, float]:
    """What `python ARGUMENTS` prints in a folder, with the same data, and the seconds it takes.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    path = filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])
    data = Path(os.environ.get("FMBENCH_DATA") or "data").absolute()
    environment = {"FMBENCH_DATA": str(data), "PYTHONPATH": os.pathsep.join(path)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout)[-2000:]
        raise SystemExit(f"`python {' '.join(arguments)}` failed:\n{said}")
    return done.stdout, time.perf_counter() - start
