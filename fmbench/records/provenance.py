"""Which code a run was made with: the git commit, when fmbench runs from a checkout."""

import functools
import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

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


def old_name() -> str | None:
    """A line for people whose environment has this checkout under the name it had, `fmbench`.

    None where it has not; another project's `fmbench` is none of ours.
    """
    checkout = PACKAGE.parent
    try:
        # Where pip installed it from; nothing is said of what comes from an index.
        said = metadata.distribution("fmbench").read_text("direct_url.json")
        url = urlsplit(json.loads(said or "")["url"])
        ours = url.scheme == "file" and Path(url2pathname(url.path)).samefile(checkout)
    except (metadata.PackageNotFoundError, LookupError, OSError, TypeError, ValueError):
        return None
    if not ours:
        return None
    return (
        "installed under its old name, which is another project's on PyPI: pip uninstall fmbench, "
        f"then pip install -c constraints.txt -e . in {checkout}"
    )


def _git(checkout: Any, *arguments: str) -> str:
    return subprocess.run(  # noqa: S603 - fixed arguments
        ["git", "-C", str(checkout), *arguments],  # noqa: S607 - the user's own git
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout
