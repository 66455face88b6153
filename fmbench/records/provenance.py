"""Which code a run was made with: the git commit, when fmbench runs from a checkout."""

import functools
import subprocess
from typing import Any

from fmbench.config.checks import PACKAGE


@functools.cache
def git_state() -> dict[str, Any] | None:
    """The commit of the checkout that fmbench runs from, and whether files differ from it.

    None where fmbench is installed rather than checked out, or git is not there. Asked once per
    process: the code that runs is the code that was imported.
    """
    checkout = PACKAGE.parent
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD").strip()
        # New files count too, where code and options are: they may be what the run is made of.
        parts = ("fmbench", "hydra_plugins", "conf")
        dirty = bool(_git(checkout, "status", "--porcelain", "--", *parts).strip())
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(checkout: Any, *arguments: str) -> str:
    return subprocess.run(  # noqa: S603 - fixed arguments
        ["git", "-C", str(checkout), *arguments],  # noqa: S607 - the user's own git
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout
