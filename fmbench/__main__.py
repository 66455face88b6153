"""`python -m fmbench`, and the command `fmbench`."""

import sys

from fmbench.cli.subcommands import dispatched
from fmbench.core.console import import_from_here, open_all
from fmbench.core.signals import stop_in_order


def main() -> None:
    """Run a subcommand, or a run or a sweep; what they import takes a while, and may be stopped."""
    if dispatched(sys.argv):
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
