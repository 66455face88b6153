"""Grids of runs: Hydra's own sweeper, which goes on after a stop and does nothing twice."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from omegaconf import DictConfig

from fmbench.config.hydra_compat import BasicSweeper


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, which starts only what has not completed in its folder before.

    And composes every run's config only where it starts. The stock one composes them all
    beforehand as well, to find those that cannot be. Values have been tried by then
    (`fmbench.config.sweep.check_sweep`): to compose each combination of options once is enough.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        """Take what Hydra gives; where runs differ in their data, faults of those are their own."""
        from fmbench.config.sweep import has_one_data_set

        if not has_one_data_set(config):
            task_function = partial(task_function, same_data=False)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid, or what is left of it.

        Raises:
            StorageError: the folder holds runs of another sweep; nothing is written there.
        """
        from fmbench.search.grid import GoingOn

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        grid = list(chain.from_iterable(self.split_arguments(overrides, None)))
        self.launcher = GoingOn(self.launcher, self.hydra_context, self.config, grid)
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose one run of each combination of options.

        Raises:
            HydraException: one cannot be composed.
            ConfigError: the options of one set together what no config file may.
        """
        from fmbench.config.trust import refuse_untrusted_runs

        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        groups = {*self.config.hydra.runtime.choices, *loader.list_groups("")}
        runs: dict[tuple[str, ...], Sequence[str]] = {}
        for overrides in batch:
            chosen = (text for text in overrides if _key(text).partition("/")[0] in groups)
            runs.setdefault(tuple(chosen), overrides)
        refuse_untrusted_runs(loader, self.config, runs.values())


def _key(override: str) -> str:
    """`data.split` of `+data.split@package=custom`."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]
