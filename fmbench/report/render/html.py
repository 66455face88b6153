"""The benchmark as one self-contained web page, to send to somebody or to put on paper.

It needs nothing beside it and asks nobody for anything: its policy (Content-Security-Policy) lets
one script run, its own, which is known by its hash, and nothing be fetched.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fmbench._version import __version__
from fmbench.core.errors import one_line
from fmbench.records.reader import Problem
from fmbench.report.escape import link
from fmbench.report.figure import Figure
from fmbench.report.figures import search_name
from fmbench.report.render.packed import pack
from fmbench.report.render.places import Places
from fmbench.report.table.columns import NET
from fmbench.report.table.reading import READING
from fmbench.report.table.search import SearchPart
from fmbench.report.table.sections import LONGEST_REASON, UNFINISHED, Section, unfinished_cells

# So many rows of a table are drawn at first, and by a browser without JavaScript.
FIRST_ROWS = 100

# More runs that did not complete, or records that could not be read, are in benchmark.md.
MOST_LISTED = 200

# Why the page does not sort by a column that was chosen on the test set.
OPTIMISTIC = "Chosen on the test set, so no order: the page does not sort by it."

_FOLDER = Path(__file__).parent


def page(
    sections: Sequence[Section],
    problems: Sequence[Problem],
    made: datetime,
    places: Places,
    *,
    searches: Sequence[SearchPart] = (),
    figures: Sequence[Figure] = (),
    notes: Sequence[str] = (),
) -> str:
    """Write the page.

    Args:
        sections: What to show, a table each.
        problems: The records that could not be read.
        made: When, in UTC.
        places: Where runs are, seen from the page.
        searches: The searches among the runs.
        figures: Pictures of the sections, and of the searches: `search` of the first, `search_2`
            of the second. What belongs to none stands behind them.
        notes: What a reader must know of the whole page.

    Returns:
        HTML, ending in a newline.
    """
    style, script = (_FOLDER.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    owners = [_owner(figure, sections, len(searches)) for figure in figures]

    def owned(owner: tuple[str, int] | None) -> list[Figure]:
        return [figure for figure, of in zip(figures, owners, strict=True) if of == owner]

    return (
        _environment(places)
        .get_template("page.html.j2")
        .render(
            version=__version__,
            made=made,
            policy=_policy(script),
            style=Markup(style),  # noqa: S704, ours, as are the script and the pictures
            script=Markup(script),  # noqa: S704
            notes=notes,
            parts=[
                {
                    "section": section,
                    "packed": pack(section, places),
                    "unfinished": [
                        (unfinished_cells(run), run["folder"])
                        for run in section.unfinished[:MOST_LISTED]
                    ],
                    "figures": owned(("data", place)),
                }
                for place, section in enumerate(sections)
            ],
            searches=[
                {"part": part, "figures": owned(("search", place))}
                for place, part in enumerate(searches)
            ],
            other_figures=owned(None),
            problems=problems,
            reading=READING,
            headings=UNFINISHED,
            net=NET.key,
            optimistic=OPTIMISTIC,
            first=FIRST_ROWS,
            most=MOST_LISTED,
            longest=LONGEST_REASON,
        )
        + "\n"
    )


def _environment(places: Places) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "cut": one_line,
        "drawn": lambda figure: Markup(figure.inline),  # noqa: S704
        "json": lambda packed: Markup(packed.json),  # noqa: S704, it is escaped for its place
        "link": link,
        "place": places.path,
        # Spaces within its quotes count; `fmbench.report.escape.shell_word` made it one line.
        "verbatim": Markup.escape,
    }
    return environment


def _finalize(value: Any) -> Any:
    """No text of a record is more than a line, or has characters that act instead of being seen."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(script: str) -> str:
    # Pictures carry their styles in attributes, which have no hash.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _owner(figure: Figure, sections: Sequence[Section], searches: int) -> tuple[str, int] | None:
    """What a picture belongs to: a section or a search, by its place."""
    for place, section in enumerate(sections):
        if figure.data == section.data:
            return "data", place
    if figure.data is None:
        for place in range(searches):
            if figure.name == search_name(place + 1):
                return "search", place
    return None
