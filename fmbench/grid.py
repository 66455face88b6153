"""What all figures share: sizes, colours, and an import of matplotlib that changes nothing."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Lengths are pixels of a page about 900 wide. The PNG has twice as many each way, so that its text
#: is sharp on a dense screen too.
DENSITY = 2
INCH = 64  # a power of two, so that no size is rounded on its way through inches
MARGIN = 20
CHARACTER = 5.9  # width of one, about

FONT, INK, SOFT = "DejaVu Sans", "#1a1a1a", "#555555"  # the font comes with matplotlib


@contextmanager
def matplotlib_alone() -> Iterator[None]:
    """Matplotlib is there, and says nothing of its own cache; what draws brings a canvas of Agg.

    Jupyter names a backend in `MPLBACKEND`, also to what a cell starts, where that may not be
    installed: the import would fail. A notebook in this process keeps the backend it asked for.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        if "matplotlib" not in sys.modules:
            asked = os.environ.pop("MPLBACKEND", None)
            try:
                import matplotlib as mpl
            finally:
                if asked is not None:
                    os.environ["MPLBACKEND"] = asked
            if asked:
                with contextlib.suppress(ValueError):
                    mpl.rcParams["backend"] = asked
        yield
    finally:
        logger.setLevel(level)
