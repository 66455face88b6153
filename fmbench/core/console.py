"""What the commands share: standard output and error, also where they are closed; arguments.

What is written there, or to a log, goes through here: text that comes from a config, a record or a
file's name is shown and does not act on the terminal.
"""

import argparse
import contextlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fmbench.core.errors import ConfigError, StorageError, UserError, one_line, visible

_format_warning = warnings.formatwarning

#: What a value of any length is cut to. The longest list of options has 500.
MOST_CHARACTERS = 2000


def open_all() -> None:
    """Have something behind each standard stream that the program was started without (`2>&-`).

    Else the next file that is opened gets its number, and what PyTorch writes there.
    """
    show_as_text()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number is free


def show_as_text() -> None:
    """Have tracebacks and warnings, which quote what the program was given, shown as text."""
    sys.excepthook = lambda _kind, error, _trace: show_traceback(error)
    warnings.formatwarning = lambda *given, **named: _shown(_format_warning(*given, **named))


def show_traceback(error: BaseException) -> None:
    """Write an exception and where it was raised to standard error."""
    if sys.stderr is not None:
        sys.stderr.write(_shown("".join(traceback.format_exception(error))))


def _shown(text: str) -> str:
    """A text of several lines with what would act on a terminal spelled out."""
    return "\n".join(map(visible, text.split("\n")))


class Shown:
    """A stream that shows what would act on a terminal."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write what is seen of the text."""
        self.stream.write(_shown(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class SharedStream(io.TextIOWrapper):
    """Standard error of a process on which others write too: no line may be drawn anew.

    Attributes:
        progress: whether it takes lines on how far a run is; not where these are shown already.
    """

    progress = True

    def isatty(self) -> bool:
        """No."""
        return False


class OneLine(logging.Filter):
    """Makes one visible line of whatever is logged; the lines of a traceback are marked as such."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take what the record says; all of them pass."""
        with contextlib.suppress(TypeError, ValueError):  # of arguments that do not fit
            record.msg, record.args = one_line(record.getMessage()), None
        if record.exc_info and record.exc_info[0] and not record.exc_text:
            text = _shown("".join(traceback.format_exception(*record.exc_info)).rstrip())
            # A line of an error's text would pass for one of the log.
            record.exc_text = "\n".join(f"| {line}" for line in text.split("\n"))
        return True


class LogStream(logging.StreamHandler[Any]):
    """A log handler whose write errors neither end a run nor print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Ignore it."""


_ONE_LINE = OneLine()


def logger(name: str) -> logging.Logger:
    """The logger of a module: what it says is text of one line, whoever takes it."""
    found = logging.getLogger(name)
    found.addFilter(_ONE_LINE)
    return found


def say(*lines: str) -> None:
    """Write lines to standard output, white space as it is; `printed` sees to what may go wrong."""
    sys.stdout.write("".join(f"{visible(line)}\n" for line in lines))


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lines of equally many cells below each other; says which columns are flush `right`."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    made = []
    for line in lines:
        padded = []
        for cell, width, flush in zip(line, widths, right, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if flush else cell + space)
        made.append("  ".join(padded).rstrip())
    return made


def printed(program: str, write: Callable[[], object], *, only_there: bool = True) -> int:
    """Print; where standard output takes nothing, a line says so.

    Args:
        program: stands in front of the line.
        write: prints.
        only_there: whether what is lost on a closed standard output is nowhere else.

    Returns:
        The exit status: 0, also where the reader has gone (`| head`), or 5 where something is lost.
    """
    if sys.stdout is None:  # started with `>&-`
        complain(program, "standard output is closed: nothing was printed")
        return StorageError.exit_status if only_there else 0
    try:
        # An old terminal's encoding may lack a letter: a question mark beats a crash.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
    except OSError as error:
        silence()
        complain(program, f"standard output: cannot be written: {error.strerror or error}")
        return StorageError.exit_status
    return 0


def complain(program: str, line: str, *, most: int | None = MOST_CHARACTERS) -> None:
    """Write one line of at most so many characters to standard error, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{program}: {one_line(line, most)}\n")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as for all other mistakes; examples keep their layout."""

    def __init__(self, program: str, description: str, examples: str) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(
            program, None, description, examples, formatter_class=layout, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise ConfigError(f"{message}; --help explains")


def run_command(program: str, work: Callable[[], int], *, typed: bool) -> NoReturn:
    """Do the work of a command, and exit with the status that it returns or that its error has.

    Args:
        program: stands in front of the line that says a mistake.
        work: all of the command, with the reading of its arguments.
        typed: whether the arguments are those of the command line.
    """
    open_all()
    try:
        if typed:
            import_from_here()
        status = work()
    except UserError as error:
        complain(program, str(error))
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def typed_path(text: str) -> Path:
    """A path as it was typed; `~`, which a shell leaves alone behind `=`, is the home folder."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises where there is no user


def import_from_here() -> None:
    """Have the user's own code found in the current folder, behind all that is installed.

    Only where packages are trusted, or a function of the user's is named to search by: the folder
    may have been received, and Hydra imports each `hydra_plugins`, PyTorch what a `*.dist-info`
    says to be a backend of it. Processes that are started from here do not look there either.
    """
    with contextlib.suppress(FileNotFoundError):  # the folder is gone
        here = str(Path.cwd())
        if sys.path[:1] in ([""], [here]):
            del sys.path[0]
        named = any("custom_search_space=" in word for word in sys.argv[1:])
        not_installed = Path(here, "fmbench") == Path(__file__).parents[1]
        if not (os.environ.get("FMBENCH_TRUST") or named or not_installed):
            os.environ["PYTHONSAFEPATH"] = "1"
        elif here not in sys.path:
            sys.path.append(here)


def silence() -> None:
    """Let the rest of standard output go nowhere: Python flushes it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
