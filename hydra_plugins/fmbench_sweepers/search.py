"""`hydra/sweeper=optuna`, where Hydra discovers it."""

from typing import Any

from hydra.plugins.sweeper import Sweeper


class SearchSweeper(Sweeper):
    """A search; see `fmbench.search.loop.Search`, which is imported only when one starts."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, **given: Any) -> None:
        """Take what Hydra gives."""
        from fmbench.search.loop import Search

        self.search = Search(**self.options, **given)

    def sweep(self, arguments: list[str]) -> None:
        """Run the search."""
        self.search.sweep(arguments)
