"""Searches: Hydra's Optuna sweeper, which goes on after a stop and outlives a trial that fails."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SearchSweeper(Sweeper):
    """The door to `_search.Search`: Hydra imports every plugin to know its name, Optuna with it.

    Args:
        sampler: Hydra's config of an Optuna sampler.
        params: what to search, as overrides.
        custom_search_space: a function of the user's, which see in Hydra's Optuna sweeper.
    """

    def __init__(
        self, sampler: DictConfig, params: DictConfig | None, custom_search_space: str | None
    ) -> None:
        from fmbench.search.loop import Search

        self.search = Search(sampler, params, custom_search_space)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives."""
        self.search.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search."""
        self.search.sweep(arguments)
