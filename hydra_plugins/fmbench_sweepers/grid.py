"""Grids of runs: Hydra's own sweeper, but for what it does twice."""

import math
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fmbench.errors import PartialResultsError


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, which composes every run's config only where it starts.

    The stock one composes them all beforehand as well, to find those that cannot be. Values have
    been tried by then (`fmbench.sweep.check_sweep`), so it is enough to compose each combination
    of options once. And the stock one ends the sweep where the process of one run has died.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self.launcher is not None
        self.launcher = _Lenient(self.launcher)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose one run of each combination of options.

        Raises:
            HydraException: one cannot be composed.
        """
        assert self.config is not None
        groups = self.config.hydra.runtime.choices
        runs: dict[tuple[str, ...], Sequence[str]] = {}
        for overrides in batch:
            chosen = (text for text in overrides if _key(text) in groups)
            runs.setdefault(tuple(chosen), overrides)
        super().validate_batch_is_legal(list(runs.values()))


class _Lenient(Launcher):
    """A launcher whose runs that died count as runs that failed, which return NaN."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives; the launcher has it by now."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start runs and wait for all of them."""
        returns = self.launcher.launch(job_overrides, initial_job_idx)
        for ended in returns:
            # To read the value in another way is to raise it.
            if isinstance(ended._return_value, PartialResultsError):  # noqa: SLF001
                ended.return_value, ended.status = math.nan, JobStatus.COMPLETED
        return returns


def _key(override: str) -> str:
    """`data.split` of `+data.split@package=custom`."""
    return override.partition("=")[0].lstrip("+~").partition("@")[0]
