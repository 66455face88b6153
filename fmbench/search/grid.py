"""Grids of runs: Hydra's own sweeper, which resumes after a stop and computes nothing twice."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count, product
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from fmbench.config import hydra_compat
from fmbench.config.checks import resolve
from fmbench.config.schema import MAY_CHANGE
from fmbench.config.sweep import REPEATING, has_one_data_set, paired
from fmbench.config.trust import refuse_untrusted_runs
from fmbench.core.console import logger
from fmbench.core.errors import PartialResultsError, StorageError
from fmbench.launch import make_executor
from fmbench.launch.drive import run_all
from fmbench.launch.executor import Executor
from fmbench.records.folder import as_computed, is_done, read_record
from fmbench.records.record import RESULT_NAME, Record, recorded_config, recorded_overrides
from fmbench.records.trials import has_study

log = logger("fmbench.sweep")

#: What is left out when configs are compared, and whether a record's is as it was computed.
_WAYS = (((), False), (MAY_CHANGE, False), (MAY_CHANGE, True))


class GridSweeper(hydra_compat.BasicSweeper):
    """Hydra's basic sweeper, which starts only what has not completed in its folder before.

    It composes a run's config where the run starts. The stock one composes them all beforehand as
    well, to find those that cannot be: here values have been tried by then (`check_sweep`).
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        """Take what Hydra gives; where runs differ in their data, faults of those are their own."""
        if not has_one_data_set(config):
            task_function = partial(task_function, same_data=False)
        self.hydra_context, self.config, self.task_function = hydra_context, config, task_function

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid, or what is left of it."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*hydra_compat.params(self), *arguments])
        grid = list(chain.from_iterable(self.split_arguments(overrides, None)))
        if self.config.sweep.plan:
            self._plan(grid)
            return None
        executor = make_executor(
            config=self.config,
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            runs=len(grid),
        )
        self.launcher = Resumed(executor, grid)
        return super().sweep(arguments)

    def _plan(self, grid: Sequence[Sequence[str]]) -> None:
        """Say what would run: of runs that differ in their seed alone, how many."""
        from fmbench.search.plan import Part, show  # imports torch

        loader, counts = self.hydra_context.config_loader, Counter[tuple[str, ...]]()
        for run in grid:
            counts[tuple(text for text in run if text.partition("=")[0] not in REPEATING)] += 1
        shared = {text for text in next(iter(counts)) if all(text in run for run in counts)}
        parts = [
            Part(
                " ".join(text for text in run if text not in shared) or "the run",
                runs,
                loader.load_sweep_config(self.config, list(run)),
            )
            for run, runs in counts.items()
        ]
        show(self.config, parts)

    def split_arguments(  # type: ignore[override]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The overrides of each run: all combinations of the axes, of which some are paired."""
        split = super().split_arguments  # of one key: its values
        every = {one.get_key_element(): split([one], None)[0] for one in overrides}
        axes: list[list[list[str]]] = [
            [list(chain(*values)) for values in zip(*(every[key] for key in keys), strict=True)]
            for keys in paired(self.config, every)
        ]
        runs = [list(chain(*parts)) for parts in product(*axes)]
        size = max_batch_size or max(1, len(runs))
        return [runs[start : start + size] for start in range(0, len(runs), size)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose one run of each combination of options, to find those that cannot be."""
        refuse_untrusted_runs(self.hydra_context.config_loader, self.config, batch)


class Resumed(Launcher):
    """A launcher that has an executor run what is left of a grid: the overrides of each run.

    A run is known by its config, not by its place: a grid may have got longer since.

    Raises:
        StorageError: the folder holds runs that are none of this grid.
    """

    def __init__(self, executor: Executor, grid: Sequence[Sequence[str]]) -> None:
        self.executor = executor
        context, _, config = executor.sweep
        self.folder, self.detach = Path(config.hydra.sweep.dir), bool(config.sweep.detach)
        if has_study(self.folder):
            raise StorageError(f"{self.folder}: holds a search; take another folder")
        there = dict(_records(self.folder)) if _numbered(config) else {}
        self.done: dict[int, float] = {}  # what it gave, by the place in the grid
        self.numbers = list(range(len(grid)))
        if there:
            composed = (context.config_loader.load_sweep_config(config, list(one)) for one in grid)
            self._match([_wanted(resolve(one)) for one in composed], there)

    def setup(self, **_: Any) -> None:
        """Nothing: the executor has been set up."""

    def _match(self, wanted: Sequence["_Wanted"], there: dict[int, "_Held"]) -> None:
        """Find the run of each config, by all of it or by all that decides."""
        found: dict[int, int] = {}
        for way in range(len(_WAYS)):
            left: dict[bytes, list[int]] = {}
            for number in sorted(there.keys() - found.values()):
                left.setdefault(there[number].config[way], []).append(number)
            for place, one in enumerate(wanted):
                same = left.get(one.config[way])
                if place not in found and same:
                    found[place] = same.pop(0)
        foreign = sorted(there.keys() - found.values())
        if foreign:
            record = read_record(self.folder / str(foreign[0]))
            raise StorageError(
                f"{self.folder}: holds runs that are not of this sweep, such as {foreign[0]} "
                f"({' '.join(recorded_overrides(record.overrides))}); take another folder"
            )
        # A run that has none yet gets the number of its place, where no other has it.
        own = {*self.numbers} - {*there}
        free = (number for number in count() if number not in there and number not in own)
        self.numbers = [
            found[place] if place in found else place if place in own else next(free)
            for place in self.numbers
        ]
        for place, number in found.items():
            if there[number].done[wanted[place].looks]:
                self.done[place] = there[number].value
        log.info("resumes the sweep: %d of %d runs are done", len(self.done), len(wanted))

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start the runs that are left; the others give what they gave."""
        places = range(initial_job_idx, initial_job_idx + len(job_overrides))
        returns = {
            place: hydra_compat.job_return(JobStatus.COMPLETED, self.done[place])
            for place in places
            if place in self.done
        }
        left = [place for place in places if place not in self.done]
        jobs = [(self.numbers[place], job_overrides[place - initial_job_idx]) for place in left]
        if self.detach:  # what they give is known later
            if jobs:
                self.executor.leave(jobs)
            gone = hydra_compat.job_return(JobStatus.COMPLETED, float("nan"))
            return [returns.get(place, gone) for place in places]
        over = {*self.done, *range(initial_job_idx)}  # in batches of `max_batch_size`
        folders = (self.folder / str(self.numbers[place]) for place in over)
        ran = run_all(self.executor, jobs, total=len(self.numbers), over=folders)
        returns.update(zip(left, ran, strict=True))
        return [_alone(returns[place]) for place in places]


class _Wanted(NamedTuple):
    """What is kept of a run's config: a grid may have ten thousand runs."""

    config: tuple[bytes, ...]  # a digest for each way to compare
    looks: bool  # at the test set


class _Held(NamedTuple):
    """The same of a run's record."""

    config: tuple[bytes, ...]
    value: float  # what it gave
    done: tuple[bool, bool]  # without an evaluation on the test set, and with one


def _wanted(config: dict[str, Any]) -> _Wanted:
    kept = recorded_config(config)
    digests = tuple(_digest(kept, ignored) for ignored, _ in _WAYS)
    return _Wanted(digests, config["evaluation"]["test"] != "never")


def _held(record: Record) -> _Held:
    digests = tuple(
        _digest(as_computed(record, "auto") if computed else record.config, ignored)
        for ignored, computed in _WAYS
    )
    value = record.objective if record.status == "completed" else None
    blind, looking = (is_done(record, {"evaluation": {"test": test}}) for test in ("never", "end"))
    return _Held(digests, float("nan") if value is None else value, (blind, looking))


def _records(folder: Path) -> Iterator[tuple[int, _Held]]:
    for path in folder.glob(f"*/{RESULT_NAME}"):
        if path.parent.name.isdecimal() and path.is_file():
            try:
                yield int(path.parent.name), _held(read_record(path.parent))
            except (OSError, ValueError, RecursionError) as error:
                said = getattr(error, "strerror", None) or error
                line = f"{path}: cannot be read ({said}); move its folder away"
                raise StorageError(line) from error


def _numbered(config: DictConfig) -> bool:
    """Whether the folders of runs are called by their numbers."""
    folders = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(folders, dict)
    return bool(folders["subdir"] == "${hydra.job.num}")


def _digest(config: Mapping[str, Any], ignored: Sequence[str]) -> bytes:
    kept = {key: value for key, value in config.items() if key not in ignored}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).digest()


def _alone(returned: JobReturn) -> JobReturn:
    """A run whose process died ends itself alone; Hydra's sweeper would end with it."""
    if returned.status == JobStatus.FAILED:
        error = hydra_compat.value(returned)
        if not isinstance(error, PartialResultsError):  # drive logs processes that died
            log.error("failed: %s", error, exc_info=error if isinstance(error, Exception) else None)
        returned.status, returned.return_value = JobStatus.COMPLETED, float("nan")
    return returned
