"""A tuned comparison: a search for each contestant, then runs of its best setting.

All runs stand side by side in one folder, with one executor. Each search of a contestant has a
block of consecutive numbers: first those of its trials, then those of its final runs, which begin
when its search is over. What a start has to do is read from the folder, so that a comparison that
was killed goes on where it was.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fmbench.config.checks import resolve
from fmbench.config.contestants import Contestant, contestants
from fmbench.config.overrides import literal
from fmbench.config.sweep import search_keys
from fmbench.config.trust import call_data
from fmbench.config.tuning import FINAL, TRIAL
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, StorageError, UserError
from fmbench.core.files import write_whole
from fmbench.data.load import load
from fmbench.data.splits import make_split
from fmbench.launch import jobs_at_once, make_executor
from fmbench.launch.drive import Housekeeping, drive, how_ended
from fmbench.launch.executor import Job
from fmbench.records import tuned
from fmbench.records.folder import is_done
from fmbench.records.record import RESULT_NAME
from fmbench.records.tuned import TUNED_NAME, Tuned, knows_source, read_tuned
from fmbench.records.validation import UnreadableError
from fmbench.search import best, plan, sampler, study
from fmbench.search.loop import Block, Search, set_aside
from fmbench.search.plan import Part
from fmbench.search.study import jobs_of

log = logger("fmbench.sweep")

#: What a final run is told: it is evaluated on the test set once, at its end.
_OF_FINALS = {"evaluation.test": "end"}


class _Contest:
    """One search for a contestant, with the final runs of its best setting.

    Args:
        comparison: that it is part of.
        place: of its block, from 0.
        contestant: that is searched.
        repeat: which of the contestant's searches, from 1.
    """

    def __init__(
        self, comparison: "Comparison", place: int, contestant: Contestant, repeat: int
    ) -> None:
        self.comparison, self.contestant, self.repeat = comparison, contestant, repeat
        self.place, keys = place, comparison.keys
        self.trial_runs = keys["trials"] * keys["seeds"]
        self.first = place * comparison.block_size
        # Of one number all contestants have the same seeds; no two numbers share any.
        start = comparison.seed + (repeat - 1) * (keys["seeds"] + keys["final_seeds"])
        seeds = range(start, start + keys["seeds"])
        self.final_seeds = range(seeds.stop, seeds.stop + keys["final_seeds"])
        self.tuning = {
            "contestant": contestant.label,
            "search": repeat,
            "trials": keys["trials"],
            "space": dict(contestant.space),
            "sampler": comparison.sampler_name,
            "pruner": keys["pruner"],
            "objective": keys["objective"],
            "final_on": keys["final_on"],
        }
        block = Block(
            study=str(place + 1),
            first=self.first,
            repeats=[[f"seed={seed}"] for seed in seeds],
            validation=comparison.validation,
            tuning=_override({**self.tuning, "stage": TRIAL}),
        )
        self.search = Search(
            sampler=comparison.sampler(contestant.label, repeat),
            params=None,
            custom_search_space=comparison.options["custom_search_space"],
            config=comparison.config,
            executor=comparison.executor,
            block=block,
            **comparison.given,
        )
        self.finals: list[Job] | None = None  # that are left, once the search is over
        self.at_work: set[int] = set()  # final runs
        self.epochs: int | None = None  # that its trials trained, once they have ended

    def prepare(self) -> None:
        """Open the study, and see that it is of this search."""
        arguments = [t for t in self.contestant.given if not t.startswith("seed=")]
        self.search.prepare(arguments)
        self.search.begin()

    @property
    def busy(self) -> int:
        """How many of its runs are at work."""
        return len(self.search.at_work) + len(self.at_work)

    def take(self) -> Job | None:
        """The next run; None where there is none, by now."""
        if self.finals is None:
            if jobs := self.search.take(1):
                return jobs[0]
            if self.search.waiting or self.search.at_work or self.search.draws.left:
                return None
            self._conclude()
        assert self.finals is not None
        for place, (number, overrides) in enumerate(self.finals):
            if not self.search.draws.is_at_work(number):
                del self.finals[place]
                if self._is_done(number):  # by a run that an earlier start has left
                    return self.take()
                self.at_work.add(number)
                return number, overrides
        return None

    @property
    def over(self) -> bool:
        """Whether there are no more runs, and none is at work."""
        return self.finals == [] and not self.busy

    def ended(self, number: int, returned: JobReturn) -> None:
        """Take the result of a run."""
        if number in self.at_work:
            self.at_work.remove(number)
        else:
            self.search.ended(number, returned)

    def _conclude(self) -> None:
        """Settle the final runs, once all trials have ended."""
        self.finals, self.epochs = [], self.search.trained()
        chosen = next(iter(self.search.study.best_here()), None)
        if chosen is None:
            log.warning(
                "search %d, %s: no trial has completed", self.place + 1, self.contestant.label
            )
            return
        records = [r for job in jobs_of(chosen) if (r := self.search.study.record(job))]
        said = {
            **self.tuning,
            "epochs": self.epochs,
            "best": {
                "trial": chosen.number,
                "value": chosen.value,
                "parameters": {key: study.plain(one) for key, one in chosen.params.items()},
            },
        }
        log.info(
            "search %d, %s: trial %d is chosen, %s %.4g",
            *(self.place + 1, self.contestant.label, chosen.number),
            *(self.comparison.keys["objective"], chosen.value),
        )
        numbers = range(self.first + self.trial_runs, self.first + self.comparison.block_size)
        overrides = [*chosen.user_attrs[study.OVERRIDES], *self.comparison.of_finals]
        if records and self.comparison.joins:
            overrides = best.replayed(overrides, records)
        if records:
            best.write(
                self.comparison.folder,
                records,
                chosen.number,
                name=f"best_{self.place + 1}",
                overrides=overrides,
                tuning=said,
            )
        overrides += [*self.search.of_best, *self.search.logger]
        tuning = _override({**said, "stage": FINAL})
        for number, seed in zip(numbers, self.final_seeds, strict=True):
            if not self._is_done(number):
                self.finals.append((number, [*overrides, f"seed={seed}", tuning]))

    def _is_done(self, number: int) -> bool:
        record = self.search.study.record(number)
        return record is not None and is_done(record, {"evaluation": {"test": "end"}})

    def described(self) -> tuned.Block:
        """What has become of it so far."""
        place = self.comparison.contestants.index(self.contestant)
        search, over = self.search.described(), self.finals is not None
        seeds = tuple(self.final_seeds)
        return tuned.Block(
            place, self.repeat, self.first, seeds, search, over=over, epochs=self.epochs
        )


class Comparison:
    """The tuned comparison of a sweep's folder: a source of runs for an executor.

    Args:
        options: of its sweeper.
        config: of the sweep.
        given: what else Hydra gives a sweeper.

    Raises:
        UserError: from `sweep`, where the comparison cannot be, or the folder holds another one.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        config: DictConfig,
        hydra_context: HydraContext,
        task_function: TaskFunction,
    ) -> None:
        self.options, self.config = options, config
        self.given: dict[str, Any] = {
            "hydra_context": hydra_context,
            "task_function": task_function,
        }
        self.keys = search_keys(config)
        self.folder = Path(config.hydra.sweep.dir)
        self.block_size = self.keys["trials"] * self.keys["seeds"] + self.keys["final_seeds"]
        self.sampler_name = sampler.called(options["sampler"])
        self.rest = Housekeeping(self._write, needed=True)

    def sweep(self, arguments: Sequence[str]) -> None:
        """Run all searches, and the final runs of each.

        Raises:
            UserError: the comparison cannot be, or its folder holds another one.
            StopRequested: it was asked to stop; started again, it resumes.
        """
        loader = self.given["hydra_context"].config_loader
        params = self.options["params"] or {}
        self.contestants = contestants(loader, self.config, params, arguments)
        self._settle()
        if self.keys["plan"]:
            self._plan()
            return
        before = self._before()
        self.jobs = jobs_at_once(self.config)
        self.executor = make_executor(config=self.config, runs=self.jobs, **self.given)
        self.contests = [_Contest(self, *one) for one in self._blocks(before)]
        self._say()
        for contest in self.contests:
            contest.prepare()
        #: By the label of a contestant, the hashes of the user's own code in its runs.
        self.sources: dict[str, set[str | None]] = {}
        for contest in self.contests if before else ():
            for number in range(contest.first, contest.first + self.block_size):
                self._source(contest, number)
        try:
            self._write()  # what is run in a folder without it would be another sweep's
        except ValueError as error:
            raise ConfigError(f"{TUNED_NAME}: {error}") from error
        try:
            drive(self.executor, self)
        finally:
            with contextlib.suppress(UserError, *study.FAULTS):
                self._write()

    def _plan(self) -> None:
        keys, parts = self.keys, []
        for one in self.contestants:
            space = "; ".join(f"{key}: {values}" for key, values in one.space.items())
            runs = keys["searches"] * self.block_size
            parts.append(Part(one.label, runs, one.config, [f"searches {space}"]))
        times = "a search" if keys["searches"] == 1 else f"{keys['searches']} searches"
        trials = f"{keys['trials']:,} trials"
        trials += f" of {keys['seeds']} runs" if keys["seeds"] > 1 else ""
        said = (
            f"{len(parts)} contestants, each with {times} of {trials} and {keys['final_seeds']:,} "
            f"final runs of its best setting, on {keys['final_on'].replace('_', ' ')}"
        )
        held_out = f"trials validate on {self.validating:,} images, held out of those that train"
        plan.show(self.config, parts, said=[said, held_out])

    # What all contestants share

    def _settle(self) -> None:
        """Settle seeds, the images to validate on, and what the final runs train on."""
        config = resolve(self.contestants[0].config)
        self.seed = int(config["seed"])
        self.validating, self.validation = set_aside(config)
        self.of_finals = [f"{key}={value}" for key, value in _OF_FINALS.items()]
        #: Whether no images are left to validate on in the final runs.
        self.joins = self.keys["final_on"] != "train"
        if self.validation:
            if not self.joins:
                self.of_finals.append(f"data.split.validation={self.validation}")
        elif self.joins:
            self._join(config)

    def _join(self, config: Mapping[str, Any]) -> None:
        """Have the final runs train on the validation images too."""
        joined = {**config["data"], "split": {**config["data"]["split"], "validation": 0}}
        try:
            left = make_split(load(joined, call=call_data), joined).validation
        except ConfigError as error:
            raise ConfigError(f"sweep.final_on=train_and_validation: {error}") from error
        if len(left):
            raise ConfigError(
                "sweep.final_on=train_and_validation: this split keeps its validation images "
                f"(data.split={joined['split']['name']}); sweep.final_on=train leaves them out"
            )
        self.of_finals.append("data.split.validation=0")

    def sampler(self, label: str, repeat: int) -> DictConfig:
        """The sampler of a contestant's search: with a seed of its own, whoever else is there."""
        config: DictConfig = self.options["sampler"]
        if config.get("seed") is None:
            return config
        digest = hashlib.sha256(label.encode()).digest()
        stream = [int(config.seed), repeat, *np.frombuffer(digest, np.uint32).tolist()]
        own = {"seed": int(np.random.SeedSequence(stream).generate_state(1)[0])}
        if "scramble" in config:  # else a quasi-random sequence is the same with every seed
            own["scramble"] = True
        merged = OmegaConf.merge(config, own)
        assert isinstance(merged, DictConfig)
        return merged

    # What an earlier start has left

    def _before(self) -> Tuned | None:
        """What the folder holds of this comparison.

        Raises:
            StorageError: it holds something else.
        """
        try:
            before = read_tuned(self.folder)
        except (OSError, UnreadableError) as error:
            raise StorageError(f"{self.folder / TUNED_NAME}: cannot be read: {error}") from error
        if before is None:
            if any(self.folder.glob(f"*/{RESULT_NAME}")):
                raise study.foreign(self.folder)
            return None
        now = {"trials": "trials", "runs": "seeds", "final_seeds": "final_seeds"}
        now["final_on"] = "final_on"
        for name, key in now.items():
            there, here = getattr(before, name), self.keys[key]
            if there != here:
                raise StorageError(
                    f"{self.folder}: holds a comparison with sweep.{key}={there}, not {here}, "
                    "which all of its contestants share; take another folder"
                )
        known = {contestant.overrides for contestant in before.contestants}
        gone = known - {one.overrides for one in self.contestants}
        if gone:
            raise StorageError(
                f"{self.folder}: holds a contestant that is not listed now, "
                f"{' '.join(sorted(gone)[0])}; list it too, or take another folder"
            )
        if before.searches > self.keys["searches"]:
            raise StorageError(
                f"{self.folder}: holds sweep.searches={before.searches} for each contestant, more "
                f"than {self.keys['searches']}; take another folder"
            )
        # Those that were there keep their places.
        order = [one.overrides for one in before.contestants]
        self.contestants.sort(
            key=lambda one: order.index(one.overrides) if one.overrides in known else len(order)
        )
        return before

    def _blocks(self, before: Tuned | None) -> Iterator[tuple[int, Contestant, int]]:
        """The place, the contestant and the number of each search; those that are there first."""
        blocks = sorted(before.blocks, key=lambda one: one.first) if before else []
        found = [(block.contestant, block.repeat) for block in blocks]
        for repeat in range(1, self.keys["searches"] + 1):
            every = ((place, repeat) for place in range(len(self.contestants)))
            found += [one for one in every if one not in found]
        for place, (number, repeat) in enumerate(found):
            yield place, self.contestants[number], repeat

    def _say(self) -> None:
        for contest in self.contests:
            of = f" ({contest.repeat} of {self.keys['searches']})" * (self.keys["searches"] > 1)
            space = "; ".join(f"{k}: {value}" for k, value in contest.contestant.space.items())
            log.info(
                "search %d%s: %s, over %s", contest.place + 1, of, contest.contestant.label, space
            )

    # Source

    def take(self, room: int) -> Sequence[Job] | None:
        """The next runs, of those contestants first that have the fewest at work.

        So a search learns from nearly all of its trials, however many runs are at work.
        """
        jobs: list[Job] = []
        room = min(room, self.jobs - sum(contest.busy for contest in self.contests))
        idle: set[int] = set()  # have none by now
        while len(jobs) < room:
            left = [c for c in self.contests if c.place not in idle and not c.over]
            if not left:
                break
            contest = min(left, key=lambda one: (one.busy, one.place))
            job = contest.take()
            if job is None:
                idle.add(contest.place)
            else:
                jobs.append(job)
        over = all(contest.over for contest in self.contests)
        return None if over and not jobs else jobs

    def ended(self, number: int, returned: JobReturn) -> None:
        """Take the result of a run, as its contestant does."""
        contest = self.contests[number // self.block_size]
        contest.ended(number, returned)
        before = {*self.sources.get(contest.contestant.label, ())}
        if self._source(contest, number) - before and before:
            log.warning(
                "search %d, %s: run %d is of another version of your own code than the runs before "
                "it, so that this contestant gets no rank; compare the new code in another folder",
                *(contest.place + 1, contest.contestant.label, number),
            )
        self.rest.needed = True

    def _source(self, contest: _Contest, number: int) -> set[str | None]:
        """The hashes of a contestant's code, with that of a run which got so far as to know it."""
        known = self.sources.setdefault(contest.contestant.label, set())
        record = contest.search.study.record(number)
        if record and not record.unsourced and knows_source(record.source, record.parameters):
            known.add(record.source)
        return known

    def size(self) -> tuple[int | None, Mapping[str, int]]:
        """As `executor.Source` has it."""
        folders = (
            self.folder / str(number) for number in range(self.block_size * len(self.contests))
        )
        return self.block_size * len(self.contests), how_ended(folders)

    def _write(self) -> None:
        """Write `tuned.json`; of a search that it cannot hold, by a number say, the plan alone.

        Raises:
            ValueError: it cannot hold the plan.
        """
        blocks = [contest.described() for contest in self.contests]
        try:
            text = self._text(blocks)
        except ValueError:
            text = self._text(list(map(self._writable, blocks)))
        write_whole(self.folder / TUNED_NAME, text.encode())

    def _writable(self, block: tuned.Block) -> tuned.Block:
        try:
            self._text([block])
        except ValueError as error:
            number = block.first // self.block_size + 1
            log.warning("%s: without the trials of search %d: %s", TUNED_NAME, number, error)
            return replace(block, search=None)
        return block

    def _text(self, blocks: Sequence[tuned.Block]) -> str:
        return Tuned(
            trials=self.keys["trials"],
            runs=self.keys["seeds"],
            final_seeds=self.keys["final_seeds"],
            final_on=self.keys["final_on"],
            contestants=tuple(
                tuned.Contestant(one.overrides, dict(one.space)) for one in self.contestants
            ),
            blocks=tuple(blocks),
        ).to_json()


def _override(tuning: Mapping[str, Any]) -> str:
    return f"++tuning={literal(tuning)}"
