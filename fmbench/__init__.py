"""fmbench: the sweep and benchmark harness for Fashion-MNIST classifiers.

From Python, for notebooks::

    record = fmbench.run(["model=lenet", "epochs=3"])
    frame = fmbench.load_results("multirun")
    model = fmbench.load_model("outputs/lenet")  # of a run made with keep_model=true

Importing this package is light: what a name needs is imported when the name is first used.
"""

import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - pip reads the version here, with any Python
    raise SystemExit(f"fmbench needs Python 3.11 or newer; this is {sys.version.split()[0]}")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fmbench.classifier import load_model
    from fmbench.cli import run
    from fmbench.results import load_results

__all__ = ["__version__", "load_model", "load_results", "run"]


def __getattr__(name: str) -> Any:
    if name == "run":
        from fmbench.cli import run

        return run
    if name == "load_results":
        from fmbench.results import load_results

        return load_results
    if name == "load_model":
        from fmbench.classifier import load_model

        return load_model
    raise AttributeError(f"module 'fmbench' has no attribute {name!r}")
