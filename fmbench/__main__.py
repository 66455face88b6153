"""`python -m fmbench`, and the command `fmbench`."""

import importlib
import sys

from fmbench.core.console import import_from_here, open_all
from fmbench.core.signals import stop_in_order

#: The module whose `main` runs each word that may come first; `python -m fmbench.report`, and
#: likewise preview and predict, start the same one.
SUBCOMMANDS = {
    "report": "fmbench.report.__main__",
    "compare": "fmbench.report.__main__",
    "status": "fmbench.cli.status",
    "new": "fmbench.cli.new",
    "rescore": "fmbench.cli.rescore",
    "suspects": "fmbench.cli.suspects",
    "preview": "fmbench.preview.__main__",
    "predict": "fmbench.predict.__main__",
}


def main() -> None:
    """Run a subcommand, or a run or a sweep; what they import takes a while, and may be stopped."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in SUBCOMMANDS:
        if name != "compare":  # a word that the report knows
            del sys.argv[1]
        importlib.import_module(SUBCOMMANDS[name]).main()
        return
    open_all()
    stop_in_order()
    import_from_here()
    from fmbench.cli.main import main as command
    from fmbench.tracking import mlflow_defaults

    mlflow_defaults()
    command()


if __name__ == "__main__":
    main()
