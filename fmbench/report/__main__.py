"""`python -m fmbench.report`: the benchmark table of all runs below some folders."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from fmbench import report
from fmbench.errors import StorageError, UserError
from fmbench.streams import complain, silence

DEFAULT_FOLDERS = (Path("outputs"), Path("multirun"))

EXAMPLES = """\
examples:
  python -m fmbench.report                              all runs below outputs and multirun
  python -m fmbench.report multirun --output results    one table of all sweeps, kept in results
  python -m fmbench.report old_runs new_runs            runs of several places in one table

exit status:
  0  the report is complete          2  a DIR does not exist, or a wrong option
  4  some records could not be read: they are listed, the rest is reported
  5  the report could not be written or printed
"""

NOTHING = """\
No completed run {where}. Make one, for instance in a few seconds without a download:
  python -m fmbench data=synthetic model=lenet epochs=1
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Print and write the benchmark, then exit with the status that `--help` explains.

    Args:
        argv: The arguments; those of the command line by default.
    """
    arguments = _parser().parse_args(argv)
    chosen = arguments.folders or [folder for folder in DEFAULT_FOLDERS if folder.is_dir()]
    try:
        made = report.build(chosen, arguments.output)
        status = _print(made, chosen)
    except UserError as error:
        complain("fmbench.report", str(error))
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _print(made: report.Report, chosen: Sequence[Path]) -> int:
    """Print a report; the exit status says what became of it."""
    if sys.stdout is None:  # started with `>&-`
        complain("fmbench.report", "standard output is closed: nothing was printed")
        return StorageError.exit_status
    # An old terminal's encoding may lack the sign for plus-minus; a question mark beats a crash.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        report.print_tables(made)
        if made.written:
            sys.stdout.write(f"Written: {', '.join(map(str, made.written))}\n")
        else:
            names = " or ".join(map(str, chosen or DEFAULT_FOLDERS))
            sys.stdout.write(NOTHING.format(where=f"below {names}"))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; the files are written
        silence()
    except OSError as error:
        silence()
        complain("fmbench.report", f"standard output: cannot be written: {error.strerror or error}")
        return StorageError.exit_status
    return made.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fmbench.report",
        description=(
            "Make the benchmark table of all runs below some folders: print it, and write\n"
            "benchmark.md (renders on GitHub), benchmark.html (one page to send, which sorts and\n"
            "filters) and benchmark.csv (raw numbers)."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="run folders, sweep folders, or whatever holds them (default: outputs and multirun, "
        "those that exist)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to write the files; made if it is not there (default: here)",
    )
    return parser


if __name__ == "__main__":
    main()
