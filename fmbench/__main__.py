"""`python -m fmbench`, and the command `fmbench`."""

from fmbench.core.console import import_from_here, open_all
from fmbench.core.signals import stop_in_order


def main() -> None:
    """Run the command line; the import of all that it needs takes a while, and may be stopped."""
    open_all()
    stop_in_order()
    import_from_here()
    from fmbench.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
