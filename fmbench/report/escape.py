"""How a value that came from a record is made harmless in each output.

A net's name or an error's text is whatever somebody wrote into a config. It must neither break a
table nor become a link, a tag, a formula or a colour of the terminal.
"""

import functools
import re
import shlex
from urllib.parse import quote

_WHITE = re.compile(r"\s+")
_MARKDOWN = re.compile(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])|^[-+=#](?=.)")
# Entities stand for what would start a tag or end a cell, whichever dialect reads it.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
# GitHub makes links of bare addresses, @names and #numbers after it has undone all escapes: only
# an invisible joiner (U+2060) between the two halves keeps them apart.
_LINKS = re.compile(r"(?<=:)(?=//)|(?<=[@#])(?=\w)|(?<=www)(?=\.)", re.IGNORECASE)

# A tab or a carriage return in front would do as well; `one_line` leaves none. The wide forms are
# what a spreadsheet set to Chinese or Japanese takes for the narrow ones.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def one_line(value: str, limit: int | None = None) -> str:
    """The value on one line, without characters that act instead of being seen.

    Args:
        value: Any text.
        limit: Where to cut it, in characters.
    """
    if limit is not None and len(value) > limit:
        value = f"{value[:limit]}..."
    if value.isprintable() and "  " not in value:
        return value
    return _visible(_WHITE.sub(" ", value).strip())


@functools.lru_cache(maxsize=10_000)
def markdown(value: str) -> str:
    """The value as plain text inside a Markdown table cell, list item or paragraph."""
    inert = _LINKS.sub("\u2060", one_line(value))
    return _MARKDOWN.sub(r"\\\g<0>", inert).translate(_ENTITIES)


def spreadsheet(value: str) -> str:
    """The value as a CSV cell on one line that no spreadsheet takes for a formula."""
    line = one_line(value)
    return f"'{line}" if line.lstrip().startswith(_FORMULA) else line


def shell_word(value: str) -> str:
    """The value as one word of a shell command on one line."""
    if value.isprintable():
        return shlex.quote(value)
    # Newlines are allowed in quotes, but would let a value end the code block it is shown in.
    inner = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_visible(inner)}'"


def link(path: str) -> str:
    """A relative path as the address of a Markdown link."""
    return quote(path, errors="backslashreplace")


def _visible(value: str) -> str:
    # What Python does not call printable acts on its surroundings instead of being seen: controls
    # (the escape that starts a terminal's colour codes is one), marks that turn the direction of
    # writing around or have no width, line separators, characters that no font agrees about.
    return "".join(c if c.isprintable() else _escaped(ord(c)) for c in value)


def _escaped(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
