"""fmbench: the sweep and benchmark harness for Fashion-MNIST classifiers.

From Python, for notebooks::

    record = fmbench.run(["model=lenet", "epochs=3"])
    frame = fmbench.load_results("multirun")
    model = fmbench.load_model("outputs/lenet")  # of a run made with keep_model=true

Importing this package is light: what a name needs is imported when the name is first used.
"""

import os
import sys

# `python -m fmbench` has the current folder first, where a stranger's files may lie that are called
# as Python's own or as a package. `fmbench.core.console.import_from_here` puts it back, behind all
# else.
if (
    sys.argv[:1] == ["-m"]
    and any(word.removeprefix("-m").partition(".")[0] == "fmbench" for word in sys.orig_argv)
    and (not sys.path[0] or sys.path[0] == os.getcwd())  # noqa: PTH109 - pathlib would be one of them
):
    del sys.path[0]

from typing import TYPE_CHECKING, Any

from fmbench._version import __version__

if TYPE_CHECKING:
    from fmbench.cli.main import run
    from fmbench.predict.model import load_model
    from fmbench.records.reader import load_results

__all__ = ["__version__", "load_model", "load_results", "run"]


_MODULES = {"run": "cli.main", "load_results": "records.reader", "load_model": "predict.model"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fmbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fmbench.{_MODULES[name]}"), name)
