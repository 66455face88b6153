"""What the files of a run may hold: bounds of values, and JSON read into types with such bounds.

The bounds stand beside the fields, in `record` and `trials`. A file is checked here, once, so that
whatever uses it afterwards may trust types, ranges and depth, whoever wrote it.
"""

import json
import re
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

#: A name: a longer one would fill the screen and every page.
MOST_OF_TEXT = 1_000
Text = Annotated[str, Meta(max_length=MOST_OF_TEXT)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Number = Annotated[float, Meta(gt=-1e300, lt=1e300)]
Amount = Annotated[float, Meta(ge=0, lt=1e300)]
Share = Annotated[float, Meta(ge=0, le=1)]

# A composed config is four deep. What is nested much deeper was made to exhaust the stack of
# whoever walks through it.
MAX_DEPTH = 50

_T = TypeVar("_T")


class UnreadableError(ValueError):
    """A file is not what its name says: one line with the field and what is allowed there."""


class _Version(msgspec.Struct):
    schema: int


_VERSION = msgspec.json.Decoder(_Version)

#: Where msgspec found a mistake, at the end of its message.
_PLACE = re.compile(r"(.*) - at (?:`key` in )?`\$\.?(.*)`", re.DOTALL)


def one_of(*texts: str) -> Meta:
    """The bound of a text that is one of some words."""
    return Meta(pattern=rf"\A({'|'.join(texts)})\Z")


def decode(
    decoder: msgspec.json.Decoder[_T], content: bytes | str, *, oldest: int, newest: int
) -> _T:
    """What a JSON file of one of the schemas from `oldest` to `newest` holds.

    Raises:
        UnreadableError: it is not JSON, of another schema, or a value is out of its bounds.
    """
    try:
        schema = _VERSION.decode(content).schema
        if schema > newest:
            raise UnreadableError(f"schema is newer than this fmbench reads ({newest}): upgrade it")
        if schema < oldest:
            raise UnreadableError(f"schema is older than this fmbench reads ({oldest})")
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        said = str(error).replace("Object missing required field", "lacks")
        raise UnreadableError(_PLACE.sub(r"\2: \1", said)) from None
    except msgspec.DecodeError as error:
        raise UnreadableError(f"half-written or not JSON: {error}") from None
    except RecursionError:
        raise UnreadableError(f"nested deeper than {MAX_DEPTH}") from None


def encode(value: Any, decoder: msgspec.json.Decoder[Any], *, schema: int) -> str:
    """The text of a JSON file that holds a dataclass of one schema; see `decode`.

    Raises:
        ValueError: `decode` would refuse it: a value is not finite, say.
    """
    text = json.dumps({"schema": schema, **asdict(value)}, indent=1, allow_nan=False) + "\n"
    decode(decoder, text, oldest=schema, newest=schema)
    return text


def may_be_deep(content: bytes | str) -> bool:
    """Whether a JSON file has more brackets than a value may be deep; a usual one has fewer."""
    content = content.encode() if isinstance(content, str) else content
    return content.count(b"{") + content.count(b"[") > MAX_DEPTH


def check_depth(name: str, value: Any) -> None:
    """Refuse a value that is nested too deep, by an UnreadableError."""
    # Level by level: a recursive walk is what a deep value breaks.
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise UnreadableError(f"{name}: nested deeper than {MAX_DEPTH}")
