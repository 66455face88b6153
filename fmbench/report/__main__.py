"""`python -m fmbench.report`: the benchmark table of all runs below some folders."""

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmbench import report
from fmbench.core.console import Parser, printed, run_command, say, typed_path
from fmbench.core.errors import PartialResultsError

if TYPE_CHECKING:
    from fmbench.report.table.compare import Comparison
    from fmbench.report.table.view import View

DEFAULT_FOLDERS = (Path("outputs"), Path("multirun"))

#: A folder, as an argument.
DIR: dict[str, Any] = {"type": typed_path, "metavar": "DIR"}

MAKES = """\
Make the benchmark of all runs below some folders: print its table, and write
benchmark.md (renders on GitHub), benchmark.html (one page to send to somebody),
benchmark.csv and benchmark.json (raw numbers), and figures/ (PNG and SVG)."""

EXAMPLES = """\
examples:
  python -m fmbench.report                              all runs below outputs and multirun
  python -m fmbench.report multirun --output results    one table of all sweeps, kept in results
  python -m fmbench.report old_runs new_runs            runs of several places in one table
  python -m fmbench.report --filter "model=resnet18 batch_size=64,256" --sort training_time
  python -m fmbench.report --target 0.90,0.92           epochs, images and time until then
  python -m fmbench.report --group-by batch_size --metric validation_accuracy
  python -m fmbench.report compare 1 2                  what sets the first two rows apart
  python -m fmbench.report compare --help               and how else two rows can be named

exit status:
  0  the report is complete          2  a DIR does not exist, or a wrong option
  4  some records could not be read: they are listed, the rest is reported
  5  the report could not be written or printed
"""

COMPARES = """\
Compare two rows of the benchmark, image by image where both were tested on the same
images: the difference with its interval, each class, the times, and what follows."""

COMPARE_EXAMPLES = """\
examples:
  python -m fmbench.report compare outputs/lenet outputs/resnet18     two runs
  python -m fmbench.report compare 1 3 multirun                       rows 1 and 3 of the table
  python -m fmbench.report compare "model=lenet batch_size=64" "model=lenet batch_size=256"
  python -m fmbench.report compare 1 2 --output pictures              what one alone has right
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Print and write the benchmark, then exit with the status that `--help` explains.

    Args:
        argv: The arguments; those of the command line by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        # Of 100,000 records nearly everything is kept to the end: looking through it again and
        # again for cycles to free costs a tenth of the time and frees next to nothing.
        gc.disable()

    def work() -> int:
        if words[:1] == ["compare"]:
            return _compare(_compare_parser().parse_args(words[1:]))
        return _report(_parser().parse_args(words), typed=argv is None)

    try:
        run_command("fmbench.report", work, typed=argv is None)
    finally:
        if argv is None:
            gc.freeze()  # nor does Python's own look through all, as it ends


def _report(arguments: argparse.Namespace, *, typed: bool) -> int:
    from fmbench.report.second import TwoProcesses  # begins to read before pandas is imported

    output: Path | None = arguments.output
    if any((arguments.filter, arguments.group_by, arguments.sort, arguments.target)):
        _view(arguments)  # what is wrong with it is said before anything is read
    # Another program's main module is not to be asked for by a second process.
    with TwoProcesses(_folders(arguments), alone=not typed) as reading:
        view = _view(arguments)
        if output is None and view.is_plain:
            output = Path()
        from fmbench.report.benchmark import report_of

        with _progress() as progress:
            made = report_of(reading.results(progress), view=view)
        figures = None if output is None else reading.draw(made)
        # The table first: figures take long to draw.
        status = printed("fmbench.report", lambda: report.print_tables(made))
        if output is not None:
            made = report.write(made, output, figures)
    ending = _ending(made, arguments.folders, plain=view.is_plain)
    return status or printed("fmbench.report", lambda: say(*ending)) or made.exit_status


def _view(arguments: argparse.Namespace) -> "View":
    from fmbench.report.table.targets import parsed
    from fmbench.report.table.view import View, check  # imports pandas, which --help must not

    view = View(
        condition=arguments.filter,
        group_by=tuple(filter(None, map(str.strip, arguments.group_by.split(",")))),
        metric=arguments.metric,
        sort=arguments.sort,
        targets=parsed(arguments.target),
    )
    check(view)
    return view


def _ending(made: "report.Report", folders: Sequence[Path], *, plain: bool) -> list[str]:
    """What was written, or why nothing was."""
    names = " or ".join(map(str, folders or DEFAULT_FOLDERS))
    if made.written:
        return [f"Written: {', '.join(map(str, made.written))}"]
    if not plain and not made.table.empty:
        return ["A view of the runs: nothing was written (--output DIR writes it)."]
    if made.view.condition:
        return [f"No completed run with {made.view.condition}."]
    if made.completed:
        return [f"Nothing was written: no run below {names} has a test accuracy."]
    return [
        f"No completed run below {names}. Make one, in a few seconds without a download:",
        "  python -m fmbench data=synthetic model=lenet epochs=1",
    ]


def _compare(arguments: argparse.Namespace) -> int:
    from fmbench.report.render.terminal import print_comparison
    from fmbench.report.table.compare import compare

    with _progress() as progress:
        found = compare(arguments.a, arguments.b, _folders(arguments), progress=progress)
    status = printed("fmbench.report", lambda: print_comparison(found))
    if arguments.output is not None:
        ending = _picture(found, arguments.output)
        status = status or printed("fmbench.report", lambda: say("", ending))
    return status or (PartialResultsError.exit_status if found.problems else 0)


def _picture(found: "Comparison", output: Path) -> str:
    """Write what one of two rows has right and the other wrong, as PNG and SVG; say where."""
    from fmbench.report.benchmark import write_figure
    from fmbench.report.figures.predictions import contrast

    figure = None
    if found.answers is not None:
        figure = contrast(found.rows, found.names, found.answers, "contrast")
    if figure is None:
        return (
            "No picture was written: of what one has right and the other wrong no image was kept "
            "(mistakes.npy of their runs)."
        )
    return f"Written: {', '.join(map(str, write_figure(figure, output)))}. {figure.caption}"


def _folders(arguments: argparse.Namespace) -> list[Path]:
    return arguments.folders or [folder for folder in DEFAULT_FOLDERS if folder.is_dir()]


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A callback that shows how many records were read, if standard error is a terminal."""

    def show(read: int, total: int) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone
            # The first few hundred take no time.
            text = f"reading {read:,} of {total:,} records" if read else ""
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()

    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    try:
        yield show
    finally:
        show(0, 0)


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m fmbench.report", MAKES, EXAMPLES)
    what = (
        "run folders, sweep folders, or whatever holds them (default: outputs and multirun, those "
        "that exist)"
    )
    parser.add_argument("folders", nargs="*", help=what, **DIR)
    where = (
        "where to write the files; made if it is not there (default: here, and nowhere with one of "
        "the options below)"
    )
    parser.add_argument("--output", help=where, **DIR)
    view = parser.add_argument_group("another look at the runs")
    conditions = (
        "only runs for which all hold: KEY=VALUE, KEY!=VALUE (several between commas, * for "
        "anything), KEY<NUMBER, <=, >, >=; a key is a column of benchmark.csv or of the config, "
        "such as optimizer.lr"
    )
    view.add_argument("--filter", default="", metavar="CONDITIONS", help=conditions)
    keys = "a row for all runs that share these, between commas (default: all but the seed)"
    view.add_argument("--group-by", default="", metavar="KEYS", help=keys)
    metric = (
        "what is shown with its spread and orders the rows: test_accuracy (default), "
        "validation_accuracy, balanced_accuracy (of the classes, on the validation images), "
        "train_accuracy, test_loss, seconds_train, seconds_evaluate, "
        "seconds_total, images_per_second, peak_memory, parameters, flops"
    )
    view.add_argument("--metric", default="test_accuracy", metavar="NAME", help=metric)
    column = "the column that orders the rows instead, such as parameters or training_time:desc"
    view.add_argument("--sort", metavar="COLUMN[:asc|:desc]", help=column)
    accuracies = "when rows reach these accuracies: shares between commas, such as 0.90,0.92"
    parser.add_argument("--target", default="", metavar="SHARES", help=accuracies)
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = Parser("python -m fmbench.report compare", COMPARES, COMPARE_EXAMPLES)
    row = (
        "the number of a row, a run or sweep folder (./1 if it is called so), or conditions as "
        "--filter takes them"
    )
    parser.add_argument("a", metavar="A", help=row)
    parser.add_argument("b", metavar="B", help="what to compare it with, likewise")
    where = "where numbers and conditions look (default: outputs and multirun)"
    parser.add_argument("folders", nargs="*", help=where, **DIR)
    picture = "draw images that one has right and the other wrong: contrast.png and .svg in DIR"
    parser.add_argument("--output", help=picture, **DIR)
    return parser


if __name__ == "__main__":
    main()
