"""Where the folders of runs are, seen from the page that names them."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fmbench.core.errors import one_line
from fmbench.report.escape import link

# A path that is its own address, as nearly all are: `quote` would take longer to say so.
_PLAIN = re.compile("[A-Za-z0-9_.~/-]+")


@dataclass(frozen=True)
class Run:
    """A run of a row: where its folder is, seen from the page.

    Attributes:
        place: The folder, as people read it.
        address: The same as the address of a link.
        has_config: Whether Hydra's config lies in it.
    """

    place: str
    address: str
    has_config: bool


class Places:
    """Where folders are, seen from a page.

    Args:
        base: The folder that the page will lie in; None for the current one.
    """

    def __init__(self, base: Path | None) -> None:
        self._base = base or Path()
        # Most of many share a parent, which is found once; each is asked for by every page.
        self._parents: dict[str, str] = {}
        self._runs: dict[str, Run] = {}

    def path(self, path: Path | str) -> str:
        """Any path, as people read it."""
        return os.path.relpath(path, self._base)

    def run(self, folder: str) -> Run:
        """The folder of a run."""
        if folder not in self._runs:
            self._runs[folder] = self._run(folder)
        return self._runs[folder]

    def _run(self, folder: str) -> Run:
        parent, name = os.path.split(folder)
        if name in ("", ".", ".."):
            parent, name = os.path.split(os.path.abspath(folder))  # noqa: PTH100
        if parent not in self._parents:
            self._parents[parent] = self.path(parent or ".")
        place = os.path.join(self._parents[parent], name).removeprefix("./")  # noqa: PTH118
        # A run that was started from Python has its record alone, which holds the config too.
        has_config = os.path.exists(f"{folder}/.hydra/config.yaml")  # noqa: PTH110
        if _PLAIN.fullmatch(place):
            return Run(place, place, has_config)
        return Run(one_line(place), link(place), has_config)
