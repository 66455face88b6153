"""`hydra/sweeper=tuned`, where Hydra discovers it."""

from typing import Any

from hydra.plugins.sweeper import Sweeper


class TunedSweeper(Sweeper):
    """A tuned comparison; see `fmbench.search.tuned.Comparison`, imported when one starts."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, **given: Any) -> None:
        """Take what Hydra gives."""
        from fmbench.search.tuned import Comparison

        self.comparison = Comparison(self.options, **given)

    def sweep(self, arguments: list[str]) -> None:
        """Run the searches and the final runs."""
        self.comparison.sweep(arguments)
