"""The benchmark of many runs: tables in a terminal, Markdown, a web page, CSV and JSON.

The public surface is `build`, `print_tables`, `write`, `benchmark_table` and `Report`. They are
loaded on first use: pandas takes longer to import than `--help` should take to answer.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmbench.report.benchmark import Report, build, print_tables, write
    from fmbench.report.table.build import benchmark_table

__all__ = ["Report", "benchmark_table", "build", "print_tables", "write"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "table.build" if name == "benchmark_table" else "benchmark"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
