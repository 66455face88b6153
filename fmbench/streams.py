"""Standard output and error of the commands, also where they are closed or cut off."""

import contextlib
import os
import sys

#: What a value of any length is cut to. The longest list of options has 500.
MOST_CHARACTERS = 2000


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


def silence() -> None:
    """Let the rest of standard output go nowhere: `| head` has seen enough, or it is broken.

    Python flushes it once more when it ends, which must not fail again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
