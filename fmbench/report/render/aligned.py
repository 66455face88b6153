"""Lines of cells as aligned text."""

from collections.abc import Sequence

from rich.cells import cell_len


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lines of cells below each other, as plain text.

    Args:
        lines: Of equally many cells.
        right: Which columns stand flush right.
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(cell_len, cells)) for cells in columns]
    made = []
    for line in lines:
        padded = [
            " " * (width - cell_len(cell)) + cell
            if flush
            else cell + " " * (width - cell_len(cell))
            for cell, width, flush in zip(line, widths, right, strict=True)
        ]
        made.append("  ".join(padded).rstrip())
    return made
