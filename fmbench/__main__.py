"""`python -m fmbench`, and the command `fmbench`."""

from fmbench.stop import stop_in_order
from fmbench.streams import import_from_here, open_all


def main() -> None:
    """Run the command line; the import of all that it needs takes a while, and may be stopped."""
    open_all()
    stop_in_order()
    import_from_here()
    from fmbench.cli import main as command

    command()


if __name__ == "__main__":
    main()
