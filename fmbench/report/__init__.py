"""The benchmark of many runs: tables in a terminal, Markdown, a web page, CSV and JSON.

The public surface is loaded on first use: pandas takes longer to import than `--help` should take
to answer.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmbench.report.benchmark import Report, build, write
    from fmbench.report.render.terminal import print_tables
    from fmbench.report.table.build import benchmark_table

__all__ = ["Report", "benchmark_table", "build", "print_tables", "write"]

_MODULES = {"benchmark_table": "table.build", "print_tables": "render.terminal"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "benchmark")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
