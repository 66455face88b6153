"""fmbench: the sweep and benchmark harness for Fashion-MNIST classifiers.

From Python, for notebooks::

    record = fmbench.run(["model=lenet", "epochs=3"])
    frame = fmbench.load_results("multirun")

Importing this package is light: what a name needs is imported when the name is first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fmbench.cli import run
    from fmbench.results import load_results

__all__ = ["__version__", "load_results", "run"]


def __getattr__(name: str) -> Any:
    if name == "run":
        from fmbench.cli import run

        return run
    if name == "load_results":
        from fmbench.results import load_results

        return load_results
    raise AttributeError(f"module 'fmbench' has no attribute {name!r}")
