"""`hydra/sweeper=basic`, where Hydra discovers it."""

from fmbench.search import grid


class GridSweeper(grid.GridSweeper):
    """A grid."""
