"""The loop of a search: run its trials, which `draw` gives, and report their results.

The executor takes a trial whenever it has room for one: no trial waits for another. The result of a
trial is read from its run's record alone, whatever became of a worker, of its launcher or of an
earlier start of this search.
"""

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, Trial, TrialState

from fmbench.config import hydra_compat, schema
from fmbench.config.checks import resolve
from fmbench.config.messages import as_user_error
from fmbench.config.spaces import is_of_space, of_params, told
from fmbench.config.sweep import OF_BEST, repeats, search_keys
from fmbench.config.trust import call_data, refuse_untrusted_runs
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, PartialResultsError, StorageError, UserError, described
from fmbench.core.files import read_regular, remove, write_whole
from fmbench.data.load import load
from fmbench.data.splits import make_split
from fmbench.launch import jobs_at_once, make_executor
from fmbench.launch.drive import Housekeeping, drive, how_ended, run_all
from fmbench.launch.executor import Executor, Here, Job, Runs
from fmbench.records.folder import RunFolder
from fmbench.records.record import (
    CHECKPOINT_NAME,
    COMPLETED,
    HISTORY_NAME,
    MOST_BYTES,
    OLDER_CHECKPOINT_NAME,
)
from fmbench.records.trials import CLAIMS_NAME, SEARCH_NAME
from fmbench.records.trials import Search as Described
from fmbench.search import best, plan, sampler, study
from fmbench.search.claims import Claims
from fmbench.search.draw import Draws
from fmbench.search.pruning import make_pruner
from fmbench.search.study import SearchStudy, is_of, jobs_of

log = logger("fmbench.sweep")


@dataclass
class SearchWorker:
    """One of the workers of a detached search, in a process of its own.

    Args:
        options: of the search's sweeper.
        arguments: of its command line.
        seeds: `sweep.seeds` as it was typed.
    """

    options: dict[str, Any]
    arguments: list[str]
    seeds: int

    def __call__(self, runs: Runs) -> None:
        """Take trials until there are as many as were asked for; the last worker concludes."""
        context, function, config = runs.sweep
        config.sweep.seeds = self.seeds
        given: dict[str, Any] = {"hydra_context": context, "task_function": function}
        search = Search(**self.options, config=config, executor=Here(runs), **given)
        search.sweep(self.arguments)


@dataclass(frozen=True)
class Block:
    """The place of a search among several that share a folder and an executor.

    Args:
        study: the name of its study, in the database of the folder.
        first: the number of its first run.
        repeats: what each run of a trial sets.
        validation: how many training images every run must set aside; 0 where its split does so.
        tuning: what the record of each of its runs says of it.
    """

    study: str
    first: int
    repeats: list[list[str]]
    validation: int
    tuning: str


@dataclass(eq=False)
class _Begun:
    """A trial whose runs have begun."""

    trial: Trial
    overrides: list[str]
    jobs: range
    ended: list[int] = field(default_factory=list)
    pruned: bool = False  # runs of it were given up


class Search:
    """A search, in the folder of its sweep; its arguments are those of Hydra's Optuna sweeper."""

    def __init__(
        self,
        *,
        sampler: DictConfig,
        params: DictConfig | None,
        custom_search_space: str | None,
        config: DictConfig,
        executor: Executor | None = None,
        block: Block | None = None,
        **given: Any,
    ) -> None:
        self.options = {
            "sampler": sampler,
            "params": params,
            "custom_search_space": custom_search_space,
        }
        self.sampler_config, self.config = sampler, config
        self.params = [f"{key}={values}" for key, values in of_params(params).items()]
        target = {"_target_": custom_search_space, "_partial_": True}
        self.extend = partial(instantiate(target), config) if custom_search_space else None
        self.loader = given["hydra_context"].config_loader
        self.keys, self.block = search_keys(config), block
        if block is not None:
            self.keys["study"] = block.study
        self.folder = Path(config.hydra.sweep.dir)
        #: Whether this is one of several workers, and no driver.
        self.is_worker = executor is not None and block is None
        self.jobs = 1 if self.is_worker else jobs_at_once(config)
        self.executor = executor or make_executor(config=config, runs=self.jobs, **given)
        #: Where other processes may be at work on this search in this folder.
        self.claims: Claims | None = None
        if config.sweep.detach or (self.folder / CLAIMS_NAME).is_dir():
            self.claims = Claims(self.folder)
        self.vetted: set[tuple[str, ...]] = set()  # combinations of options
        self.untidy: set[int] = set()  # runs that are over, and may have a checkpoint
        self.rest = Housekeeping(self._tidy, self._write)

    def sweep(self, arguments: Sequence[str]) -> None:
        """Run trials until there are as many as were asked for, then evaluate the best.

        Raises:
            UserError: the search cannot be, or its storage cannot be reached.
            StopRequested: the search was asked to stop; started again, it resumes.
        """
        if self.keys["plan"]:
            self._plan(arguments)
            return
        seeds = self.config.sweep.seeds
        self.prepare(arguments)
        if not self.is_worker:
            for line in told(self.config):
                log.info(line)
            self._write()  # at once, for those who ask how many trials there will be
        if self.config.sweep.detach and not self.is_worker:
            left = self.total - sum(trial.state.is_finished() for trial in self.study.mine())
            worker = SearchWorker(self.options, list(arguments), seeds)
            self.executor.leave_workers(worker, max(1, min(self.jobs, left)))
            return
        try:
            self.begin()
            drive(self.executor, self)
            self._tidy()
            self._end()
        except BaseException:
            with contextlib.suppress(UserError, *study.FAULTS):
                self._write()
            raise
        finally:
            if self.claims is not None:
                self.claims.release_all()
        self._write()

    def _plan(self, arguments: Sequence[str]) -> None:
        """Say what would run, at the values that are there without the search."""
        runs, searched = repeats(self.config, [*self.params, *arguments])
        parsed = OverridesParser.create().parse_overrides(searched)
        pairs = zip(searched, parsed, strict=True)
        fixed = [text for text, override in pairs if not override.is_sweep_override()]
        composed = self.loader.load_sweep_config(self.config, fixed)
        trials = int(self.keys["trials"])
        part = plan.Part("the search", trials * len(runs), composed, told(self.config))
        plan.show(self.config, [part], said=[f"{trials:,} trials"])

    def prepare(self, arguments: Sequence[str]) -> None:
        """Settle what is searched, and see that the study is of this search; as `sweep` raises."""
        searched = [text for text in [*self.params, *arguments] if not is_of_space(text)]
        if self.block is not None:
            self.repeats = self.block.repeats
        else:
            self.repeats, searched = repeats(self.config, searched)
        self.config.sweep.seeds = len(self.repeats)  # by which runs are named
        try:
            space = hydra_compat.search_space(searched)
        except (AssertionError, NotImplementedError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.params: {described(error, 300)}") from error
        self.space, self.fixed, self.deleted = space
        self.typed = dict(text.partition("=")[::2] for text in searched)  # what is searched, too
        for key in self.fixed.keys() & self.space.keys():
            del self.space[key]
        # Of this start, not of its trials, which may resume with another.
        of_logger = [key for key in self.fixed if key.lstrip("+").partition(".")[0] == "logger"]
        self.logger = [f"{key}={self.fixed.pop(key)}" for key in of_logger]
        of_best = [key for key in self.fixed if key.lstrip("+") == OF_BEST]
        self.of_best = [f"{key}={self.fixed.pop(key)}" for key in of_best]
        self.given = [*(f"{key}={value}" for key, value in self.fixed.items()), *self.deleted]
        if not self.space and self.extend is None:
            raise ConfigError(
                "hydra.sweeper.params: gives nothing to search; such as "
                "'optimizer.lr=tag(log,interval(1e-3,0.1))' or batch_size=64,256"
            )
        try:  # before anything is written
            sampler.make(self.sampler_config, self.space, [0])
        except (InstantiationException, TypeError, ValueError) as error:
            cause = error.__cause__ or error  # Hydra's own text says where it called what
            raise ConfigError(f"hydra.sweeper.sampler: {described(cause, 300)}") from error
        self._begin()

    def begin(self) -> None:
        """Get ready to hand out runs, first those of trials that an earlier start has left."""
        if not self.executor.apart and self.total >= study.LEAST_TRIALS:
            # What they take of this process's memory later, runs would take for what others left.
            import optuna.importance  # noqa: F401
        self.draws.left = self.study.mine(TrialState.RUNNING)
        self.waiting: list[tuple[int, _Begun]] = []  # runs of trials that have begun
        self.at_work: dict[int, _Begun] = {}  # the trial of each run
        self.untidy = {*self.study.ended()}

    def _begin(self) -> None:
        """See that the study is of this search, and settle how its runs validate."""
        config = resolve(self.loader.load_sweep_config(self.config, self.given))
        trials = int(self.keys["trials"])
        pruner = make_pruner(self.keys["pruner"], epochs=int(config["epochs"]), trials=trials)
        first = None if self.block is None else self.block.first
        runs = len(self.repeats)
        self.study = SearchStudy(self.keys, self.folder, pruner, runs=runs, first=first)
        self.validation = set_aside(config)[1] if self.block is None else self.block.validation
        cells = sampler.cells(self.sampler_config, self.space)
        self.total = trials if cells is None else min(cells, trials)
        said = {
            "objective": ", ".join(self.study.objectives),
            **{key: distribution_to_json(value) for key, value in self.space.items()},
            **{
                name: str(value)
                for key, value in self.fixed.items()
                if (name := key.lstrip("+")) not in schema.MAY_CHANGE
                and not name.startswith("sweep")
            },
            **dict.fromkeys(self.deleted, "deleted"),
        }
        if len(self.repeats) > 1 or self.block is not None:
            said["runs of a trial"] = "; ".join(map(" ".join, self.repeats))
        if self.study.agree(said, sampler.choices(self.sampler_config)):
            if self.claims is None and not self.study.shared:
                self.study.adopt()
            done = sum(trial.state.is_finished() for trial in self.study.trials())
            of = "" if self.block is None else f" {self.block.study}"
            log.info("resumes the search%s: %d of %d trials are done", of, done, self.total)
        self.sampler_config = sampler.settled(self.sampler_config, self.study.sampler)
        self.draws = Draws(
            self.study,
            self.total,
            self.sampler_config,
            self.space,
            self.extend,
            self.given,
            self.claims,
            told=not self.is_worker,
        )

    # Trials

    def take(self, room: int) -> Sequence[Job] | None:
        """The next runs; None where there are no more.

        First those of trials that have begun, or that an earlier start did not bring to an end.
        """
        jobs: list[Job] = []
        room = min(room, self.jobs - len(self.at_work))
        while room > len(jobs):
            if not self.waiting:
                ours = {begun.trial.number for begun in self.at_work.values()}
                drawn = self.draws.take(ours)
                if drawn is None:
                    break
                self._begin_trial(*drawn)
            while self.waiting and room > len(jobs):
                job, begun = self.waiting.pop(0)
                self.at_work[job] = begun
                repeat = self.repeats[job - begun.jobs[0]]
                jobs.append((job, [*begun.overrides, *repeat, *self._extra(evaluated=False)]))
        # A worker leaves to others what they have.
        more = self.waiting or (self.draws.left and not self.is_worker)
        return jobs or ([] if more or not room else None)

    def _begin_trial(self, trial: Trial, overrides: list[str]) -> None:
        """Have the runs of a trial wait for their turn."""
        begun = _Begun(trial, overrides, jobs_of(trial))
        try:
            for repeat in self.repeats:
                whole = [*overrides, *repeat]
                refuse_untrusted_runs(self.loader, self.config, [whole], self.vetted)
        except HydraException as error:  # values that cannot be together end their own trial
            self._end_trial(begun, as_user_error(error) or error)
        else:
            self.waiting += [(job, begun) for job in begun.jobs]

    def ended(self, number: int, returned: JobReturn) -> None:
        """Take the result of a run; report its trial to the study with the last one."""
        begun, value = self.at_work.pop(number), hydra_compat.value(returned)
        begun.ended.append(number)
        if len(begun.jobs) > 1:
            self._judge(begun, number)
        if begun not in [trial for _, trial in self.waiting] + [*self.at_work.values()]:
            error = as_user_error(value) if isinstance(value, BaseException) else None
            self._end_trial(begun, error or value)

    def size(self) -> tuple[int | None, Mapping[str, int]]:
        """As `executor.Source` has it; not known where other searches have trials too."""
        total = None if self.study.label else self.total * len(self.repeats)
        return total, how_ended(self.folder / str(job) for job in self.study.ended())

    def _judge(self, begun: "_Begun", number: int) -> None:
        """Give up the runs of a trial that wait, where one has failed or the pruner says so."""
        record = self.study.record(number)
        goes_on = record is not None and record.status == COMPLETED
        if record is not None and goes_on and self.keys["pruner"] == schema.WILCOXON:
            value = study.reached(record, self.study.objectives[0])
            if value is not None:
                with warnings.catch_warnings(action="ignore"):  # of a run that was reported before
                    begun.trial.report(value, number - begun.jobs[0])
                    goes_on = not begun.trial.should_prune()
        left = [(job, other) for job, other in self.waiting if other is not begun]
        if not goes_on and len(left) < len(self.waiting):
            self.waiting, begun.pruned = left, True

    def _end_trial(self, begun: "_Begun", returned: object) -> None:
        """Report a trial to the study."""
        jobs = sorted(begun.ended)
        failure = self.study.tell(begun.trial, jobs, returned, pruned=begun.pruned)
        if self.claims is not None:
            self.claims.release(begun.trial.number)
        if failure is not None:
            log.warning("failed: %s", failure)
        if len(self.study.objectives) == 1 and (best_ones := self.study.best()):
            (leader,) = best_ones
            where = "" if is_of(leader, self.folder) else " of another search"
            said = f"trial {leader.number}{where}, {self.study.objectives[0]} {leader.value:.4g}"
            log.info(
                "best so far%s: %s",
                "" if self.block is None else f" of search {self.block.study}",
                said,
            )
        self.untidy.update(jobs)
        self.rest.needed = True

    # The end

    def _tidy(self) -> None:
        """Remove the checkpoints of trials that are over, but for the best, to be evaluated."""
        chosen = {job for trial in self.study.best_here() for job in jobs_of(trial)}
        for job in self.untidy - chosen if "keep_checkpoint" not in self.fixed else ():
            folder = self.folder / str(job)
            if any((folder / name).exists() for name in (CHECKPOINT_NAME, OLDER_CHECKPOINT_NAME)):
                # Where another worker is at it, that one removes them.
                with contextlib.suppress(StorageError), RunFolder(folder) as run_folder:
                    for path in run_folder.checkpoints:
                        remove(path)
        self.untidy &= chosen

    def _end(self) -> None:
        """Conclude, unless another worker has a trial, and will."""
        if self.claims is None:
            self._conclude()
            return
        if self.is_worker and self.study.mine(TrialState.RUNNING):
            return
        with self.claims.turn("end"):
            # Others may have left one that was the best for a while.
            self.untidy = {*self.study.ended()}
            self._tidy()
            self._conclude()

    def _conclude(self) -> None:
        """Evaluate the best on the test set, once, and write down how to run it again."""
        best_ones, left = self.study.best_here(), []
        for trial in best_ones:
            unseen = [job for job in jobs_of(trial) if not self._is_evaluated(job)]
            if unseen:
                log.info("trial %d is among the best: evaluated on the test set", trial.number)
            for job in unseen:
                repeat = self.repeats[job - jobs_of(trial)[0]]
                overrides = [*trial.user_attrs[study.OVERRIDES], *repeat]
                left.append((job, [*overrides, *self._extra(evaluated=True)]))
        run_all(self.executor, left)
        for job, _ in left:
            if not self._is_evaluated(job):
                raise PartialResultsError(
                    f"{self.folder / str(job)}: could not be evaluated on the test set; the same "
                    "command with this sweep's folder tries again"
                )
        for trial in best_ones[:1]:
            records = [self.study.record(job) for job in jobs_of(trial)]
            known = [record for record in records if record is not None]
            best.write(self.folder, known, trial.number, tuning=self._tuning(trial))

    def _tuning(self, trial: FrozenTrial) -> dict[str, Any]:
        """How the setting of a trial was found, as records of its runs say it."""
        parameters = {key: study.plain(value) for key, value in trial.params.items()}
        return {
            "trials": len(self.study.mine()),
            "epochs": self.trained(),
            "space": {key: self.typed[key] for key in self.space if key in self.typed},
            "sampler": sampler.called(self.sampler_config),
            "pruner": str(self.keys["pruner"]),
            "objective": ", ".join(self.study.objectives),
            "best": {
                "trial": trial.number,
                "value": trial.values[0],
                "parameters": parameters,
            },
        }

    def trained(self) -> int:
        """How many epochs the runs of its trials have trained."""
        jobs = (job for trial in self.study.mine() for job in jobs_of(trial))
        return sum(_epochs(self.folder / str(job)) for job in jobs)

    def _is_evaluated(self, job: int) -> bool:
        """Whether a run was evaluated on the test set; one that was is left as it ends."""
        record = self.study.record(job)
        if record is None or record.test_accuracy is None:
            return False
        if "keep_checkpoint" not in self.fixed:
            with RunFolder(self.folder / str(job)) as folder:
                folder.tidy(record)  # a start that was killed did not come to it
        return True

    def described(self) -> Described:
        """What the search has tried so far."""
        return self.study.described(
            total=self.total,
            pruner=self.keys["pruner"],
            sampler=sampler.called(self.sampler_config),
        )

    def _write(self) -> None:
        # One after the other: what was read first is not written last.
        turn = contextlib.nullcontext() if self.claims is None else self.claims.turn("write")
        try:
            with turn:
                write_whole(self.folder / SEARCH_NAME, self.described().to_json().encode())
        except ValueError as error:  # a number that no report could show
            log.warning("no %s: %s", SEARCH_NAME, error)

    # What the runs of a search are given

    def _extra(self, *, evaluated: bool) -> list[str]:
        """Overrides of every trial: images to validate on, trackers, whether to test."""
        found = [f"data.split.validation={self.validation}"] if self.validation else []
        if len(self.repeats) > 1 and "sweep.seeds" not in self.fixed:
            found.append(f"sweep.seeds={len(self.repeats)}")
        if self.block is not None:
            found += [f"sweep.study={self.block.study}", self.block.tuning]
        # One that is not evaluated on the test set keeps its checkpoint, in case it is the best.
        own = {} if evaluated else schema.IN_TRIALS
        if self.block is not None:  # whose trials are never evaluated
            own = {key: value for key, value in own.items() if key != "keep_checkpoint"}
        found += [f"{key}={schema.as_yaml(own[key])}" for key in own if key not in self.fixed]
        return [*found, *(self.of_best if evaluated else ()), *self.logger]


def set_aside(config: Mapping[str, Any]) -> tuple[int, int]:
    """How many images every run validates on, and how many it must be told to set aside for that.

    The second is 0 where its split holds some out itself.
    """
    split = make_split(load(config["data"], call=call_data), config["data"])
    if held_out := len(split.validation):
        return held_out, 0
    size = len(split.train) // 10
    said = "data.split=%s holds out no images: every run validates on %s of its training images"
    log.info(said, split.name, f"{size:,}")
    return size, size


def _epochs(folder: Path) -> int:
    """How many epochs a run has trained."""
    try:
        return read_regular(folder / HISTORY_NAME, MOST_BYTES[HISTORY_NAME]).count(b"\n")
    except OSError:
        return 0
