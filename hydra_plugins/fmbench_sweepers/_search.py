"""The loop of a search: ask Optuna for trials, run them, tell it what became of them.

What is left of a trial is its run's record. The loop believes that alone: whatever became of a
worker, of its launcher or of an earlier start of this search, the record says whether the run has
completed, and a trial without such a record has failed or is to be run.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import optuna
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException, InstantiationException
from hydra.types import HydraContext, RunMode, TaskFunction
from hydra_plugins.hydra_optuna_sweeper._impl import (
    OptunaSweeperImpl,
    create_params_from_overrides,
)
from omegaconf import DictConfig, open_dict
from optuna.distributions import distribution_to_json
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fmbench import best, objectives, study
from fmbench.config import resolve
from fmbench.data import load
from fmbench.errors import ConfigError, StorageError
from fmbench.explain import Refusal, as_user_error
from fmbench.record import (
    CHECKPOINT_NAME,
    COMPLETED,
    OLDER_CHECKPOINT_NAME,
    PRUNED,
    RESULT_NAME,
    Record,
)
from fmbench.runfolder import RunFolder
from fmbench.splits import make_split
from fmbench.stop import StopRequested
from fmbench.storage import FolderLock, remove
from fmbench.sweep import search_keys
from hydra_plugins.fmbench_sweepers import _sampler, _written

log = logging.getLogger("fmbench.sweep")

#: What may change between two starts of a search.
_MAY_CHANGE = ("device", "threads", "checkpoint_every", "keep_model", "keep_checkpoint", "max_runs")

#: What a trial says of the overrides that it is made of.
_OVERRIDES = "fmbench.overrides"

#: Seconds to wait for a run that an earlier start of the search has left behind.
_PATIENCE = 60.0


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
        #: Where this search's runs are; its own database may be moved together with them.
        self.label = str(self.folder.absolute()) if self.of_search["storage"] else ""
        self.objectives = objectives.names(self.of_search["objective"])
        if self.of_search["jobs"] > 1 and config.hydra.launcher._target_.endswith("BasicLauncher"):
            self.launcher = _launcher_of_processes(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are as many as were asked for, then look at the best.

        Raises:
            UserError: the search cannot be, or its storage cannot be reached.
            StopRequested: the search was asked to stop; started again, it goes on.
        """
        given = self._parse_sweeper_params_config() + arguments
        self.space, self.fixed, self.deleted = create_params_from_overrides(given)
        for key in self.fixed.keys() & self.space.keys():
            del self.space[key]
        if not self.space and self.custom_search_space_extender is None:
            raise ConfigError(
                "hydra.sweeper.params: gives nothing to search; such as "
                "'optimizer.lr=tag(log,interval(1e-3,0.1))' or batch_size=64,256"
            )
        self.total = self._total()
        self.study = self._open()
        self._begin()
        chosen = self._tidy({_job(trial) for trial in self._mine()})
        for trials, first in self._batches():
            try:
                self._run(trials, first)
                chosen = self._tidy({*chosen, *range(first, first + len(trials))})
            finally:
                self._write()
        self._conclude()
        self._write()

    # The study

    def _open(self) -> optuna.Study:
        """The study, made where there is none.

        Raises:
            ConfigError: the storage's URL is none.
            StorageError: the storage cannot be reached, or the folder holds another sweep.
        """
        used = any(self.folder.glob(f"*/{RESULT_NAME}"))
        foreign = StorageError(
            f"{self.folder}: holds the runs of another sweep; take another folder"
        )
        # Before a database is made there, by which it would be taken for a search.
        if used and not self.label and not (self.folder / study.DATABASE_NAME).exists():
            raise foreign
        name = study.name(self.of_search, self.folder)
        directions = [
            StudyDirection[objectives.DIRECTIONS[each].upper()] for each in self.objectives
        ]
        storage = study.open_storage(self.of_search, self.folder)
        try:
            found = optuna.create_study(
                study_name=name,
                storage=storage,
                pruner=study.make_pruner(self.of_search["pruner"], self._epochs()),
                directions=directions,
                load_if_exists=True,
            )
        except study.FAULTS as error:
            raise StorageError(f"sweep.storage: {' '.join(str(error).split())[:300]}") from error
        if used and not any(study.is_of(trial, self.folder) for trial in found.get_trials()):
            raise foreign
        return found

    def _begin(self) -> None:
        """See that the study is this search's, and settle how its runs validate.

        Raises:
            StorageError: the study is of another search.
        """
        self.validation = self._validation()
        said = {
            "objective": ", ".join(self.objectives),
            **{key: distribution_to_json(value) for key, value in self.space.items()},
            **{
                name: value
                for key, value in self.fixed.items()
                if (name := key.lstrip("+")) not in _MAY_CHANGE and not name.startswith("sweep")
            },
            **dict.fromkeys(self.deleted, "deleted"),
        }
        before = self.study.user_attrs.get("fmbench")
        if before is None:
            self.study.set_user_attr("fmbench", said)
            return
        for key in [*before, *said]:
            if before.get(key) != said.get(key):
                there, here = (_shown(each.get(key)) for each in (before, said))
                raise StorageError(
                    f"{self.folder}: holds another search ({key} is {there} there and {here} "
                    "here); take another folder, or another sweep.study"
                )
        finished = [trial for trial in self._trials() if trial.state.is_finished()]
        log.info("goes on with the search: %d of %d trials are done", len(finished), self.total)
        if not self.label:
            # Asked for, when the process was killed: before the next line could say whose it is.
            for trial in self._trials(TrialState.RUNNING):
                if study.FOLDER not in trial.user_attrs:
                    self._adopt(Trial(self.study, trial._trial_id), self._next_job())

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _mine(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials whose runs are in this folder, by their numbers there."""
        found = [trial for trial in self._trials(*states) if study.is_of(trial, self.folder)]
        return sorted(found, key=_job)

    def _total(self) -> int:
        cells = _sampler.cells(self.sampler_config, self.space)
        trials = int(self.of_search["trials"])
        return trials if cells is None else min(cells, trials)

    # Trials

    def _batches(self) -> Iterator[tuple[list[Trial], int]]:
        """Trials to run at once, and the number of the first one's run.

        First those that an earlier start did not bring to an end, then new ones.
        """
        at_once = self.of_search["jobs"]
        left = list(enumerate(self._mine(TrialState.RUNNING)))
        for _, stretch in groupby(left, key=lambda pair: _job(pair[1]) - pair[0]):
            trials = [trial for _, trial in stretch]
            for start in range(0, len(trials), at_once):
                batch = trials[start : start + at_once]
                for trial in batch:
                    self._wait_for(_job(trial))
                yield [Trial(self.study, trial._trial_id) for trial in batch], _job(batch[0])
        while (room := self.total - self._drawn()) > 0:
            first = self._next_job()
            yield [self._ask(first + number) for number in range(min(room, at_once))], first

    def _drawn(self) -> int:
        """Trials that there are, but for those whose search was killed as it asked for them."""
        return sum(study.FOLDER in trial.user_attrs for trial in self._trials())

    def _next_job(self) -> int:
        mine = self._mine()
        return _job(mine[-1]) + 1 if mine else 0

    def _ask(self, job: int) -> Trial:
        self.study.sampler = _sampler.make(
            self.sampler_config, self.space, [len(self._trials()), *self.label.encode()]
        )
        trial = self.study.ask()
        self._adopt(trial, job)
        return trial

    def _adopt(self, trial: Trial, job: int) -> None:
        trial.set_user_attr(study.JOB, job)
        trial.set_user_attr(study.FOLDER, self.label)

    def _run(self, trials: Sequence[Trial], first: int) -> None:
        """Run trials and tell the study what became of them."""
        configured = self._configure_trials(list(trials), self.space, self.fixed, self.deleted)
        overrides = [[*each, *self._extra(look=False)] for each in configured]
        for trial, each in zip(trials, configured, strict=True):
            trial.set_user_attr(_OVERRIDES, list(each))
        returns: Sequence[JobReturn | None] = [None] * len(trials)
        try:
            returns = self._launch(overrides, first)
        except HydraException as error:
            # Values that cannot be together end their own trial.
            log.error("%s", as_user_error(error) or error)  # noqa: TRY400
        for job, (trial, returned) in enumerate(zip(trials, returns, strict=True), first):
            self._tell(trial, self._record(job), getattr(returned, "_return_value", None))

    def _launch(self, overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        assert self.launcher is not None
        returns = self.launcher.launch(overrides, initial_job_idx=first)
        for returned in returns:
            # Of other processes these come home as values.
            if isinstance(returned._return_value, (Refusal, StopRequested)):
                raise returned._return_value
        return returns

    def _tell(self, trial: Trial, record: Record | None, returned: object) -> None:
        state = TrialState.FAIL
        values: list[float] | None = None
        if record is not None and record.status == COMPLETED:
            found = [objectives.value(record, name) for name in self.objectives]
            known = [each for each in found if each is not None]
            if len(known) == len(found):
                state, values = TrialState.COMPLETE, known
        elif record is not None and record.status == PRUNED:
            state = TrialState.PRUNED
        if record is not None:
            trial.set_user_attr(study.SECONDS, record.seconds["train"])
        if state == TrialState.FAIL:
            said = (record.error if record is not None else None) or str(returned or "no record")
            trial.set_user_attr(study.ERROR, said)
            log.warning("failed: %s", said)
        try:
            self.study.tell(trial, values=values, state=state)
        except RuntimeError as error:
            if "Study.stop" not in str(error):  # which a grid calls when all is drawn
                raise
        if state == TrialState.COMPLETE and len(self.objectives) == 1:
            leader = self.study.best_trial
            where = "" if study.is_of(leader, self.folder) else " of another search"
            name, value = self.objectives[0], leader.value
            log.info("best so far: run %d%s, %s %.4g", _job(leader) + 1, where, name, value)

    def _record(self, job: int) -> Record | None:
        try:
            return Record.from_json((self.folder / str(job) / RESULT_NAME).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def _wait_for(self, job: int) -> None:
        """Wait until no process of an earlier start is at work on a run.

        Raises:
            StorageError: one still is.
        """
        folder = self.folder / str(job)
        patience = time.monotonic() + _PATIENCE
        while folder.is_dir():
            try:
                FolderLock(folder).release()
            except StorageError:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.2)
            else:
                return

    # The end

    def _best(self) -> list[FrozenTrial]:
        """The best trial, or the Pareto front."""
        if not self._trials(TrialState.COMPLETE):
            return []
        return [self.study.best_trial] if len(self.objectives) == 1 else self.study.best_trials

    def _tidy(self, jobs: set[int]) -> set[int]:
        """Remove the checkpoints of runs that are not among the best, and never will be again.

        Args:
            jobs: those that may have one.

        Returns:
            The best, which keep theirs: they are to be looked at.
        """
        chosen = {_job(trial) for trial in self._best() if study.is_of(trial, self.folder)}
        over = {_job(trial) for trial in self._mine() if trial.state.is_finished()}
        for job in (jobs & over) - chosen if "keep_checkpoint" not in self.fixed else ():
            if any(path.exists() for path in _checkpoints(self.folder / str(job))):
                with RunFolder(self.folder / str(job)) as folder:
                    for path in folder.checkpoints:
                        remove(path)
        return chosen

    def _conclude(self) -> None:
        """Look at the best on the test set, once, and write down how to run it again."""
        chosen = [trial for trial in self._best() if study.is_of(trial, self.folder)]
        for trial in chosen:
            record = self._record(_job(trial))
            if record is None or record.test_accuracy is not None:
                continue
            log.info("run %d is among the best: a look at the test set", _job(trial) + 1)
            overrides = [*trial.user_attrs[_OVERRIDES], *self._extra(look=True)]
            self._launch([overrides], _job(trial))
        if chosen and (record := self._record(_job(chosen[0]))) is not None:
            best.write(self.folder, record, chosen[0].number)

    def _write(self) -> None:
        _written.write(
            self.folder,
            self.study,
            total=self.total,
            pruner=self.of_search["pruner"],
            sampler=self.sampler_config._target_.rpartition(".")[2],
            names=self.objectives,
            best=self._best(),
        )

    # What the runs of a search are given

    def _first_config(self) -> dict[str, Any]:
        assert self.hydra_context is not None
        assert self.config is not None
        given = [f"{key}={value}" for key, value in self.fixed.items()]
        config = self.hydra_context.config_loader.load_sweep_config(
            self.config, [*given, *self.deleted]
        )
        return resolve(config)

    def _epochs(self) -> int:
        return int(self._first_config()["epochs"])

    def _validation(self) -> int:
        """How many training images every run must set aside; 0 where its split does so itself."""
        config = self._first_config()
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
        """Overrides of every trial: images to validate on, and no look at the test set, or one."""
        found = [f"data.split.validation={self.validation}"] if self.validation else []
        if "keep_checkpoint" not in self.fixed:
            found.append(f"keep_checkpoint={str(not look).lower()}")
        return [*found, f"test_every={0 if look else 'null'}"]


def _job(trial: FrozenTrial) -> int:
    return int(trial.user_attrs[study.JOB])


def _checkpoints(folder: Path) -> tuple[Path, ...]:
    return folder / CHECKPOINT_NAME, folder / OLDER_CHECKPOINT_NAME


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def _launcher_of_processes(
    context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Any:
    """The launcher that `hydra/launcher=joblib` chooses.

    Raises:
        ConfigError: it is not installed.
    """
    given = [*config.hydra.overrides.hydra, *config.hydra.overrides.task]
    composed = context.config_loader.load_configuration(
        config.hydra.job.config_name, [*given, "hydra/launcher=joblib"], RunMode.MULTIRUN
    )
    with open_dict(config):
        config.hydra.launcher = composed.hydra.launcher
        config.hydra.launcher.n_jobs = config.sweep.jobs
    try:
        return Plugins.instance().instantiate_launcher(
            config=config, hydra_context=context, task_function=task_function
        )
    except (ImportError, InstantiationException) as error:
        raise ConfigError(
            f"sweep.jobs={config.sweep.jobs}: a process for each needs pip install "
            "'fmbench[joblib]'"
        ) from error
