"""How a value that came from a record is made harmless in each output.

A net's name or an error's text is whatever somebody wrote into a config. It must neither break a
table nor become a link, a tag, a formula or a colour of the terminal.
"""

import functools
import re
import shlex

_WHITE = re.compile(r"\s+")
# Controls (the escape that starts a terminal's colour codes is one), line separators, marks that
# turn the direction of writing around, and halves of surrogate pairs.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_MARKDOWN = re.compile(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])|^[-+=#](?=.)")
# Entities stand for what would start a tag or end a cell, whichever dialect reads it.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
# GitHub makes links of bare addresses, @names and #numbers after it has undone all escapes: only
# an invisible joiner (U+2060) between the two halves keeps them apart.
_LINKS = re.compile(r"(?<=:)(?=//)|(?<=[@#])(?=\w)|(?<=www)(?=\.)", re.IGNORECASE)

# A tab or a carriage return in front would do as well; `one_line` leaves none.
_FORMULA = ("=", "+", "-", "@")


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
    return _UNSEEN.sub(_visible, _WHITE.sub(" ", value).strip())


@functools.lru_cache(maxsize=10_000)
def markdown(value: str) -> str:
    """The value as plain text inside a Markdown table cell, list item or paragraph."""
    inert = _LINKS.sub("\u2060", one_line(value))
    return _MARKDOWN.sub(r"\\\g<0>", inert).translate(_ENTITIES)


def spreadsheet(value: str) -> str:
    """The value as a CSV cell on one line that no spreadsheet takes for a formula."""
    line = one_line(value)
    return f"'{line}" if line.startswith(_FORMULA) else line


def shell_word(value: str) -> str:
    """The value as one word of a shell command on one line."""
    if not _UNSEEN.search(value):
        return shlex.quote(value)
    # Newlines are allowed in quotes, but would let a value end the code block it is shown in.
    inner = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_UNSEEN.sub(_visible, inner)}'"


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
