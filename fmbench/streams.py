"""Standard output and error of the commands, also where they are closed or cut off."""

import contextlib
import os
import sys


def complain(program: str, line: str) -> None:
    """Write one line to standard error, if there is one to write to.

    Args:
        program: stands in front.
        line: its white space is made single.
    """
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{program}: {' '.join(line.split())}\n")


def silence() -> None:
    """Let the rest of standard output go nowhere: `| head` has seen enough, or it is broken.

    Python flushes it once more when it ends, which must not fail again.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
