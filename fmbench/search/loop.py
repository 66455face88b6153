"""The loop of a search: ask Optuna for trials, run them, tell it what became of them.

What is left of a trial is its run's record. The loop believes that alone: whatever became of a
worker, of its launcher or of an earlier start of this search, the record says whether the run has
completed, and a trial without such a record has failed or is to be run.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.errors import HydraException, InstantiationException
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from omegaconf import DictConfig
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, Trial, TrialState

from fmbench.config import hydra_compat, schema
from fmbench.config.checks import resolve
from fmbench.config.messages import Refusal, as_user_error
from fmbench.config.sweep import search_keys
from fmbench.config.trust import refuse_untrusted_runs
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, PartialResultsError, StorageError, UserError
from fmbench.core.files import FolderLock, remove
from fmbench.core.signals import StopRequested
from fmbench.data.fashion_mnist import load
from fmbench.data.splits import make_split
from fmbench.launch.processes import ProcessLauncher
from fmbench.records.folder import RunFolder
from fmbench.records.record import CHECKPOINT_NAME, OLDER_CHECKPOINT_NAME
from fmbench.records.trials import SEARCH_NAME
from fmbench.search import best, sampler, study, written
from fmbench.search.ledger import Ledger, job_of

log = logger("fmbench.config.sweep")

#: A trial and the overrides of its run.
Drawn = tuple[Trial, list[str]]

#: Seconds between looks at a run that an earlier start has left at work: at first, and at most.
_LOOK, _LOOK_AT_MOST = 0.2, 5.0


class Search(OptunaSweeperImpl):
    """A search, in the folder of its sweep.

    Args:
        sampler: Hydra's config of an Optuna sampler.
        params: what to search, as overrides.
        custom_search_space: a function of the user's.
    """

    def __init__(
        self, sampler: DictConfig, params: DictConfig | None, custom_search_space: str | None
    ) -> None:
        super().__init__(
            sampler=None,
            direction="maximize",
            storage=None,
            study_name=None,
            n_trials=0,
            n_jobs=1,
            max_failure_rate=1.0,
            custom_search_space=custom_search_space,
            params=params,
        )
        self.sampler_config = sampler

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives, and a launcher that runs as many trials at once as are wanted."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.of_search = search_keys(config)
        self.folder = Path(config.hydra.sweep.dir)
        if self.of_search["jobs"] > 1 and hydra_compat.runs_in_turn(config.hydra.launcher):
            self.launcher = ProcessLauncher(n_jobs=self.of_search["jobs"])
            self.launcher.setup(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
        if isinstance(self.launcher, ProcessLauncher):
            self.launcher.at_once = self.of_search["jobs"]

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are as many as were asked for, then look at the best.

        Raises:
            UserError: the search cannot be, or its storage cannot be reached.
            StopRequested: the search was asked to stop; started again, it goes on.
        """
        given = self._parse_sweeper_params_config() + arguments
        try:
            self.space, self.fixed, self.deleted = hydra_compat.search_space(given)
        except (AssertionError, NotImplementedError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.params: {study.line(error)}") from error
        for key in self.fixed.keys() & self.space.keys():
            del self.space[key]
        # Of this start, not of its trials, which may go on with another one.
        of_logger = [key for key in self.fixed if key.lstrip("+").partition(".")[0] == "logger"]
        self.logger = [f"{key}={self.fixed.pop(key)}" for key in of_logger]
        if not self.space and self.custom_search_space_extender is None:
            raise ConfigError(
                "hydra.sweeper.params: gives nothing to search; such as "
                "'optimizer.lr=tag(log,interval(1e-3,0.1))' or batch_size=64,256"
            )
        try:  # before anything is written
            sampler.make(self.sampler_config, self.space, [0])
        except (InstantiationException, TypeError, ValueError) as error:
            cause = error.__cause__ or error  # Hydra's own text says where it called what
            raise ConfigError(f"hydra.sweeper.sampler: {study.line(cause)}") from error
        self._begin()
        try:
            chosen = {job_of(trial) for trial in self.ledger.mine()}
            for trials, first in self._batches():
                self._run(trials, first)
                chosen = self._tidy({*chosen, *range(first, first + len(trials))})
                self._write()
            self._conclude()
        except BaseException:
            with contextlib.suppress(UserError, *study.FAULTS):
                self._write()
            raise
        self._write()

    def _begin(self) -> None:
        """See that the study is of this search, and settle how its runs validate.

        Raises:
            UserError: the search cannot be, or the folder holds another one.
        """
        config = self._first_config()
        pruner = study.make_pruner(
            self.of_search["pruner"],
            epochs=int(config["epochs"]),
            trials=int(self.of_search["trials"]),
        )
        self.ledger = Ledger(self.of_search, self.folder, pruner)
        self.validation = self._validation(config)
        cells = sampler.cells(self.sampler_config, self.space)
        trials = int(self.of_search["trials"])
        self.total = trials if cells is None else min(cells, trials)
        said = {
            "objective": ", ".join(self.ledger.objectives),
            **{key: distribution_to_json(value) for key, value in self.space.items()},
            **{
                name: str(value)
                for key, value in self.fixed.items()
                if (name := key.lstrip("+")) not in schema.MAY_CHANGE
                and not name.startswith("sweep")
            },
            **dict.fromkeys(self.deleted, "deleted"),
        }
        if self.ledger.agree(said):
            done = sum(trial.state.is_finished() for trial in self.ledger.trials())
            log.info("goes on with the search: %d of %d trials are done", done, self.total)

    # Trials

    def _batches(self) -> Iterator[tuple[list[Drawn], int]]:
        """Trials to run at once with their overrides, and the number of the first one's run.

        First those that an earlier start did not bring to an end, then new ones.
        """
        at_once = self.of_search["jobs"]
        left = list(enumerate(self.ledger.mine(TrialState.RUNNING)))
        for _, stretch in groupby(left, key=lambda pair: job_of(pair[1]) - pair[0]):
            trials = [trial for _, trial in stretch]
            for start in range(0, len(trials), at_once):
                batch = trials[start : start + at_once]
                for trial in batch:
                    self._wait_for(job_of(trial))
                yield [self._drawn_before(trial) for trial in batch], job_of(batch[0])
        while (room := self.total - self.ledger.drawn()) > 0:
            first = self.ledger.next_job()
            asked = [self._ask(first + place) for place in range(min(room, at_once))]
            drawn = [trial for trial in asked if trial is not None]
            if not drawn:
                return
            yield drawn, first

    def _ask(self, job: int) -> Drawn | None:
        self._seed(len(self.ledger.trials()))
        trial = self.ledger.ask(job, self.total)
        return None if trial is None else (trial, self._draw(trial))

    def _drawn_before(self, trial: FrozenTrial) -> Drawn:
        """A trial that an earlier start has asked for, and drawn unless it was killed before."""
        self._seed(trial.number)
        live = self.ledger.live(trial)
        return live, self.ledger.overrides(trial) or self._draw(live)

    def _seed(self, number: int) -> None:
        """Have the sampler draw what it draws for this trial, whenever that is."""
        stream = [number, *self.ledger.label.encode()]
        self.ledger.study.sampler = sampler.make(self.sampler_config, self.space, stream)

    def _draw(self, trial: Trial) -> list[str]:
        (drawn,) = self._configure_trials([trial], self.space, {}, [])
        given = [f"{key}={value}" for key, value in self.fixed.items()]
        overrides = [*drawn, *given, *self.deleted]
        self.ledger.note(trial, overrides)
        return overrides

    def _wait_for(self, job: int) -> None:
        """Wait for a run that a killed start has left at work: on a cluster runs outlive it."""
        folder = self.folder / str(job)
        pause = _LOOK
        while folder.is_dir():
            try:
                FolderLock(folder).release()
            except StorageError:
                if pause == _LOOK:
                    log.info("waits for %s/, where an earlier start has left a run at work", job)
                time.sleep(pause)
                pause = min(2 * pause, _LOOK_AT_MOST)
            else:
                return

    def _run(self, trials: Sequence[Drawn], first: int) -> None:
        """Run trials and tell the study what became of them."""
        returns: Sequence[JobReturn | None] = [None] * len(trials)
        said: str | None = None
        try:
            extra = self._extra(look=False)
            returns = self._launch([[*overrides, *extra] for _, overrides in trials], first)
        except HydraException as error:  # values that cannot be together end their own trial
            said = str(as_user_error(error) or error)
        for job, ((trial, _), returned) in enumerate(zip(trials, returns, strict=True), first):
            value = said if returned is None else hydra_compat.value(returned)
            failure = self.ledger.tell(trial, job, value)
            if failure is not None:
                log.warning("failed: %s", failure)
        self._say_best()

    def _launch(self, overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        assert self.launcher is not None
        assert self.hydra_context is not None
        assert self.config is not None
        refuse_untrusted_runs(self.hydra_context.config_loader, self.config, overrides)
        returns = self.launcher.launch(overrides, initial_job_idx=first)
        for returned in returns:
            # Of other processes these come home as values.
            if isinstance(hydra_compat.value(returned), (Refusal, StopRequested)):
                raise hydra_compat.value(returned)
        return returns

    # The end

    def _say_best(self) -> None:
        best_ones = self.ledger.best()
        if len(self.ledger.objectives) > 1 or not best_ones:
            return
        (leader,) = best_ones
        where = "" if self.ledger.best_here() else " of another search"
        name = self.ledger.objectives[0]
        log.info("best so far: trial %d%s, %s %.4g", leader.number, where, name, leader.value)

    def _tidy(self, jobs: set[int]) -> set[int]:
        """Remove the checkpoints of runs that are not among the best, and never will be again.

        Args:
            jobs: those that may have one.

        Returns:
            The best, which keep theirs: they are to be looked at.
        """
        chosen = {job_of(trial) for trial in self.ledger.best_here()}
        over = {job_of(trial) for trial in self.ledger.mine() if trial.state.is_finished()}
        for job in (jobs & over) - chosen if "keep_checkpoint" not in self.fixed else ():
            folder = self.folder / str(job)
            if any((folder / name).exists() for name in (CHECKPOINT_NAME, OLDER_CHECKPOINT_NAME)):
                with RunFolder(folder) as run_folder:
                    for path in run_folder.checkpoints:
                        remove(path)
        return chosen

    def _conclude(self) -> None:
        """Look at the best on the test set, once, and write down how to run it again.

        Raises:
            PartialResultsError: the look at one failed.
        """
        for trial in self.ledger.best_here():
            job = job_of(trial)
            record = self.ledger.record(job)
            if record is None or record.test_accuracy is None:
                log.info("trial %d is among the best: a look at the test set", trial.number)
                overrides = [*self.ledger.overrides(trial), *self._extra(look=True)]
                self._launch([overrides], job)
                record = self.ledger.record(job)
            elif "keep_checkpoint" not in self.fixed:
                with RunFolder(self.folder / str(job)) as folder:
                    folder.tidy(record)  # a start that was killed did not come to it
            if record is None or record.test_accuracy is None:
                raise PartialResultsError(
                    f"{self.folder / str(job)}: could not be evaluated on the test set; the same "
                    "command with this sweep's folder tries again"
                )
        for trial in self.ledger.best_here()[:1]:
            record = self.ledger.record(job_of(trial))
            assert record is not None
            best.write(self.folder, record, trial.number)

    def _write(self) -> None:
        try:
            written.write(
                self.ledger,
                total=self.total,
                pruner=self.of_search["pruner"],
                sampler=self.sampler_config._target_.rpartition(".")[2],
            )
        except ValueError as error:  # a number that no report could show
            log.warning("no %s: %s", SEARCH_NAME, error)

    # What the runs of a search are given

    def _first_config(self) -> dict[str, Any]:
        assert self.hydra_context is not None
        assert self.config is not None
        given = [f"{key}={value}" for key, value in self.fixed.items()]
        config = self.hydra_context.config_loader.load_sweep_config(
            self.config, [*given, *self.deleted]
        )
        return resolve(config)

    def _validation(self, config: Mapping[str, Any]) -> int:
        """How many training images every run must set aside; 0 where its split does so itself."""
        split = make_split(load(config["data"]), config["data"]["split"])
        if len(split.validation):
            return 0
        size = len(split.train) // 10
        log.info(
            "data.split=%s holds out no images: every run validates on %s of its training images "
            "(data.split.validation)",
            split.name,
            f"{size:,}",
        )
        return size

    def _extra(self, *, look: bool) -> list[str]:
        """Overrides of every trial: images to validate on, who is told, a look at the test set.

        For one, nothing need be said; but until then there must be a checkpoint to look with.
        """
        found = [f"data.split.validation={self.validation}"] if self.validation else []
        found += self.logger
        if look:
            return found
        if "keep_checkpoint" not in self.fixed:
            found.append("keep_checkpoint=true")
        return [*found, "evaluation.every=null", "evaluation.test=never"]
