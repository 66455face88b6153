"""What the commands share: standard output and error, also where they are closed; arguments."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fmbench.errors import ConfigError, StorageError

#: What a value of any length is cut to. The longest list of options has 500.
MOST_CHARACTERS = 2000


def open_all() -> None:
    """Have something behind each standard stream that the program was started without (`2>&-`).

    The next file that is opened would get its number, and what is written to that number, by
    PyTorch or a handler of signals, would end in the file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number is free


def printed(program: str, write: Callable[[], object], *, only_there: bool = True) -> int:
    """Print; where standard output takes nothing, a line says so.

    Args:
        program: stands in front of the line.
        write: prints.
        only_there: whether what is lost on a closed standard output is nowhere else.

    Returns:
        The exit status: 0, or 5 where something is lost. A reader that has gone (`| head`) has seen
        enough.
    """
    if sys.stdout is None:  # started with `>&-`
        complain(program, "standard output is closed: nothing was printed")
        return StorageError.exit_status if only_there else 0
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        silence()
    except OSError as error:
        silence()
        complain(program, f"standard output: cannot be written: {error.strerror or error}")
        return StorageError.exit_status
    return 0


def fails(error: BaseException | None = None) -> bool:
    """Whether standard output takes nothing.

    Args:
        error: that may have come of it; where it did not, an empty line is printed.
    """
    try:
        if sys.stdout is not None:
            if isinstance(error, OSError):  # what was to be printed may be held no more
                sys.stdout.write("\n")
            sys.stdout.flush()
    except BrokenPipeError:
        return False
    except OSError:
        return True
    return False


def complain(program: str, line: str) -> None:
    """Write one line to standard error, if there is one to write to.

    Args:
        program: stands in front.
        line: its white space is made single, and what would act on a terminal is shown instead.
    """
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{program}: {_visible(line)}\n")


def _visible(line: str) -> str:
    line = " ".join(line.split())
    if len(line) > MOST_CHARACTERS:
        line = f"{line[:MOST_CHARACTERS]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as for all other mistakes."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; --help explains")


def typed_path(text: str) -> Path:
    """A path as it was typed; `~`, which a shell leaves alone behind `=`, is the home folder."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises where there is no user


def import_from_here() -> None:
    """Have the user's own code found in the current folder, behind all that is installed.

    `python -m` puts the folder first, where a file `random.py` of the user's would take the place
    of Python's; a console script leaves it out.
    """
    with contextlib.suppress(FileNotFoundError):  # the folder is gone
        here = str(Path.cwd())
        if sys.path[:1] in ([""], [here]):
            del sys.path[0]
        if here not in sys.path:
            sys.path.append(here)


def silence() -> None:
    """Let the rest of standard output go nowhere: `| head` has seen enough, or it is broken.

    Python flushes it once more when it ends, which must not fail again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
