"""Values from records, escaped for each output; addresses of run folders.

A model's name or an error's text is whatever somebody wrote into a config. It must neither break a
table nor become a link, a tag, a formula or a colour of the terminal.
"""

import functools
import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from fmbench.core.errors import one_line, visible
from fmbench.records.record import RESULT_NAME

_MARKDOWN = re.compile(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])|^[-+=#](?=.)")
# Entities stand for what would start a tag or end a cell, whichever dialect reads it.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
# GitHub makes links of bare addresses, @names and #numbers after it has undone all escapes: only
# an invisible joiner (U+2060) between the two halves keeps them apart.
_LINKS = re.compile(r"(?<=:)(?=//)|(?<=[@#])(?=\w)|(?<=www)(?=\.)", re.IGNORECASE)

# A tab or a carriage return in front would do as well; `one_line` leaves none. The wide forms are
# what a spreadsheet set to Chinese or Japanese takes for the narrow ones.
# Nor does a program that parts cells at a `;` heed the quotes around a text that holds one: what
# follows it is a cell of its own.
_SIGNS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_FORMULA = re.compile(rf"((?:^|[;|])[\s\"']*)(?=[{re.escape(''.join(_SIGNS))}])")


# What an address has as it is (RFC 3986, 2.3), and slashes.
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~/-]*")


@functools.lru_cache(maxsize=10_000)
def markdown(value: str) -> str:
    """The value as plain text inside a Markdown table cell, list item or paragraph."""
    inert = _LINKS.sub("\u2060", one_line(value))
    return _MARKDOWN.sub(r"\\\g<0>", inert).translate(_ENTITIES)


@functools.lru_cache(maxsize=10_000)
def spreadsheet(value: str) -> str:
    """The value as a CSV cell on one line that no spreadsheet takes for a formula."""
    line = one_line(value)
    # Of a hundred thousand rows few cells need the search.
    if ";" in line or "|" in line or line.lstrip(" \"'").startswith(_SIGNS):
        return _FORMULA.sub(r"\1'", line)
    return line


def shell_word(value: str) -> str:
    """The value as one word of a shell command on one line."""
    if visible(value) == value:
        return shlex.quote(value)
    # Newlines are allowed in quotes, but would let a value end the code block it is shown in.
    inner = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{visible(inner)}'"


def link(path: str) -> str:
    """A relative path as the address of a Markdown link."""
    return path if _UNRESERVED.fullmatch(path) else quote(path, errors="backslashreplace")


class Run(NamedTuple):
    """The folder of a run, seen from a page."""

    place: str  # as people read it
    address: str  # of a link
    config: str  # the file in it that holds the config: Hydra's, or the record


class Places:
    """Where folders are, seen from a page in the folder `base`; None is the current one."""

    def __init__(self, base: Path | None) -> None:
        self._base = base or Path()
        # Most of many share a parent, which is found once.
        self._parent = functools.cache(self.path)
        self.run = functools.cache(self._run)

    def path(self, path: Path | str) -> str:
        """Any path, as people read it."""
        return os.path.relpath(path, self._base)

    def _run(self, folder: str) -> Run:
        parent, name = os.path.split(os.path.abspath(folder))  # noqa: PTH100
        place = f"{self._parent(parent)}/{name}".removeprefix("./")
        hydras = os.path.exists(f"{folder}/.hydra/config.yaml")  # noqa: PTH110
        config = ".hydra/config.yaml" if hydras else RESULT_NAME
        return Run(one_line(place), link(place), config)
