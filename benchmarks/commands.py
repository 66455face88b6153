"""Commands as a user starts them, in folders that are nobody's."""

import os
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """This one, such that any folder finds the fmbench of this checkout and the same data set."""
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    root = Path(os.environ.get("FMBENCH_DATA") or "data").absolute()
    data = {"FMBENCH_DATA": str(root)} if root.is_dir() else {}
    return {**os.environ, **data, "PYTHONPATH": os.pathsep.join(paths)}


def timed(*arguments: str, folder: Path) -> float:
    """How many seconds `python -m fmbench ARGUMENTS` takes in a folder."""
    start = time.perf_counter()
    python("-m", "fmbench", *arguments, folder=folder)
    return time.perf_counter() - start


def python(*arguments: str, folder: Path) -> str:
    """Run `python ARGUMENTS` in a folder; what it printed.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout)[-2000:]
        raise SystemExit(f"`python {' '.join(arguments)}` failed:\n{said}")
    return done.stdout
