"""Where the trials of a search come from: what others have left, or new ones."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from omegaconf import DictConfig
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from fmbench.core.console import logger
from fmbench.core.errors import StorageError
from fmbench.core.files import FolderLock
from fmbench.search import optuna_compat, sampler, study
from fmbench.search.claims import Claims
from fmbench.search.study import SearchStudy, jobs_of

log = logger("fmbench.sweep")

#: A trial and the overrides of its runs.
Drawn = tuple[Trial, list[str]]

#: Seconds between looks at a run that an earlier start has left at work.
_LOOK = 1.0


@dataclass
class Draws:
    """The trials of a search, drawn one by one.

    Args:
        study: of the search.
        total: trials that there are to be.
        sampler: its config.
        space: what it draws.
        extend: draws more; None where nothing else is searched.
        given: overrides that all trials share.
        claims: where other processes may be at work on the search; else None.
        told: whether to say that a run is waited for.
    """

    study: SearchStudy
    total: int
    sampler: DictConfig
    space: Mapping[str, BaseDistribution]
    extend: Callable[[Trial], None] | None
    given: list[str]
    claims: Claims | None
    told: bool
    left: list[FrozenTrial] = field(default_factory=list)  # by an earlier start, or another worker
    looked: dict[int, tuple[float, bool]] = field(default_factory=dict)  # at runs, and when

    def take(self, ours: Collection[int]) -> Drawn | None:
        """A trial that nobody has, or a new one; None where there are enough.

        `ours` are the numbers of those that this process is at.
        """
        if found := self._left(ours):
            return found
        if self.claims is None:
            return self._new()
        with self.claims.turn("ask"):
            if not self.study.shared:  # of a process that was killed as it asked
                self.study.adopt()
            return self._left(ours) or self._new()

    def _left(self, ours: Collection[int]) -> Drawn | None:
        if self.claims is not None:
            left = self.study.mine(TrialState.RUNNING)
            self.left = [trial for trial in left if trial.number not in ours]
        for place, trial in enumerate(self.left):
            if not any(map(self.is_at_work, jobs_of(trial))) and self._claim(trial.number):
                del self.left[place]
                self._seed(trial.number)
                live = optuna_compat.live(self.study.study, trial)
                # It was drawn, unless its process was killed before.
                return live, trial.user_attrs.get(study.OVERRIDES) or self._draw(live)
        return None

    def _new(self) -> Drawn | None:
        if self.total <= self.study.drawn():
            return None
        self._seed(len(self.study.trials()))
        trial = self.study.ask(self.total, self._claim)
        return None if trial is None else (trial, self._draw(trial))

    def _claim(self, number: int) -> bool:
        """Take a trial, where others may; whether nobody has it, and it has not ended."""
        if self.claims is None:
            return True
        if not self.claims.take(number):
            return False
        if all(trial.number != number for trial in self.study.trials(TrialState.RUNNING)):
            self.claims.release(number)
            return False
        return True

    def _seed(self, number: int) -> None:
        """Have the sampler draw what it draws for this trial, whenever that is."""
        stream = [number, *self.study.label.encode()]
        self.study.study.sampler = sampler.make(self.sampler, self.space, stream)

    def _draw(self, trial: Trial) -> list[str]:
        for name, distribution in self.space.items():
            optuna_compat.suggest(trial, name, distribution)
        if self.extend is not None:
            self.extend(trial)
        overrides = [*(f"{name}={value}" for name, value in trial.params.items()), *self.given]
        trial.set_user_attr(study.OVERRIDES, overrides)
        return overrides

    def is_at_work(self, job: int) -> bool:
        """Whether a start that was killed has left this run at work: on a cluster it goes on."""
        folder, now = self.study.folder / str(job), time.monotonic()
        looked, found = self.looked.get(job, (float("-inf"), False))
        if now < looked + _LOOK:
            return found
        found = folder.is_dir()
        if found:
            with contextlib.suppress(StorageError):
                FolderLock(folder).release()
                found = False
        if found and job not in self.looked and self.told:
            log.info("waits for %s/, where an earlier start has left a run at work", job)
        self.looked[job] = now, found
        return found
