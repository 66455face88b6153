"""Which code a run was made with: the git commit, when fmbench runs from a checkout."""

import functools
import subprocess

from fmbench.config.checks import PACKAGE
from fmbench.records.record import Git


@functools.cache
def git_state() -> Git | None:
    """The commit of the checkout that fmbench runs from, and whether files differ from it.

    None where fmbench is installed rather than checked out, or git is not there. Asked once per
    process: the code that runs is the code that was imported.
    """
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD").strip()
        # New files count too, where code and options are: they may be what the run is made of.
        status = _git("status", "--porcelain", "--", "fmbench", "hydra_plugins", "conf")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status.strip())}


def _git(*arguments: str) -> str:
    return subprocess.run(  # noqa: S603 - fixed arguments
        ["git", *arguments],  # noqa: S607 - the user's own git
        cwd=PACKAGE.parent,
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout
