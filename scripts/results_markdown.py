"""Tables, pictures and commands in Markdown, as the pages of our own results have them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmbench.report.escape import markdown, one_line
from fmbench.report.figure import Figure
from fmbench.report.markdown import LONGEST_ALT

#: Seen from docs/results.md.
PICTURES = "images/results"


def table(headings: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table; its cells are Markdown already."""
    rules = ["---:" if flush else "---" for flush in right]
    return "\n".join(f"| {' | '.join(row)} |" for row in [headings, rules, *cells])


def picture(figure: Figure, folder: str = PICTURES, *, caption: bool = True) -> str:
    """A picture, and what it shows."""
    alt = markdown(one_line(figure.alt, LONGEST_ALT))
    shown = f"![{alt}]({folder}/{figure.name}.png)"
    return f"{shown}\n\n{markdown(figure.caption)}" if caption else shown


def command(line: str) -> str:
    """A command, to be copied."""
    return f"```sh\n{line}\n```"


def records(row: Mapping[str, Any], kept: Path) -> str:
    """Links to the records of a row, one a seed."""
    places = [Path(folder).relative_to(kept).as_posix() for folder in row["folders"]]
    return ", ".join(
        f"[seed {seed}](results/{place}/result.json)"
        for seed, place in zip(row["run_seeds"], places, strict=True)
    )


def commands(
    rows: Iterable[tuple[str, Mapping[str, Any]]], kept: Path, others: Iterable[str] = ()
) -> str:
    """What makes rows again, and their records, behind a click.

    Args:
        rows: Names, and rows of the benchmark table.
        kept: The folder of the records.
        others: More blocks.
    """
    blocks = ["<details><summary>Commands and records</summary>"]
    for name, row in rows:
        blocks += [f"{markdown(name)}: {records(row, kept)}", command(row["command"])]
    return "\n\n".join([*blocks, *others, "</details>"])
