"""Tables, pictures and commands in Markdown, as the pages of our own results have them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmbench.errors import one_line
from fmbench.report.escape import markdown
from fmbench.report.figure import Figure
from fmbench.report.render.markdown import LONGEST_ALT, code_block

#: Seen from docs/results.md.
PICTURES = "images/results"


def table(headings: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table; its cells are Markdown already."""
    rules = ["---:" if flush else "---" for flush in right]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, rules, *cells])


def picture(figure: Figure, folder: str = PICTURES) -> str:
    """A picture, and what it shows."""
    alt = markdown(one_line(figure.alt, LONGEST_ALT))
    return f"![{alt}]({folder}/{figure.name}.png)\n\n{markdown(figure.caption)}"


def records(row: Mapping[str, Any], kept: Path) -> str:
    """Links to the records of a row, one a seed."""
    return ", ".join(
        f"[seed {seed}]({record_of(folder, kept)})"
        for seed, folder in zip(row["run_seeds"], row["folders"], strict=True)
    )


def record_of(folder: str, kept: Path) -> str:
    """Where the record of a run lies, seen from docs/results.md."""
    return f"results/{Path(folder).relative_to(kept).as_posix()}/result.json"


def commands(blocks: Iterable[tuple[str, str]]) -> str:
    """Commands, each below what it makes, behind a click."""
    said = ["<details><summary>Commands and records</summary>"]
    for name, line in blocks:
        said += [name, code_block(line)]
    return "\n\n".join([*said, "</details>"])
