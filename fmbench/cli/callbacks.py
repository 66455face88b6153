"""What happens around runs: refusals before a folder is made, the table at the end of a sweep.

Hydra turns every exception of a callback into a warning. A refusal must stop the program, so it
travels as a `Refusal`, which Hydra lets through and `fmbench.cli.main` takes apart again.
"""

import logging
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmbench.config import hydra_compat, schema
from fmbench.config.checks import resolve
from fmbench.config.hydra_compat import runs_in_turn
from fmbench.config.messages import Refusal
from fmbench.config.sweep import (
    check_sweep,
    is_search,
    is_tuned,
    refuse_for_sweeps,
    run_name,
    total_runs,
)
from fmbench.config.trust import call_data, typed
from fmbench.core import machine
from fmbench.core.console import LogStream, logger, printed, say
from fmbench.core.errors import ConfigError, PartialResultsError, StorageError
from fmbench.core.files import LOCK_NAME, append_regular, refuse_links
from fmbench.records.folder import (
    RunFolder,
    SweepFolder,
    held,
    is_done,
    leftovers,
    read_record,
    refuse_foreign,
)
from fmbench.records.record import COMPLETED, Record, recorded_config
from fmbench.records.status import read_run
from fmbench.records.trials import COMPLETE, INFEASIBLE, PRUNED, RUNNING, STATES, Search
from fmbench.records.tuned import Tuned
from fmbench.runs.experiment import chosen
from fmbench.tracking import refuse_missing

log = logger(__name__)


@dataclass
class Command:
    """State that callbacks and runs report to their command."""

    sweep: Path | None = None  # the folder, once it has begun
    exit_status: int = 0  # 4: runs of a sweep did not complete, 5: something was not printed


#: The running command, where its callbacks find it: Hydra makes them.
COMMAND = Command()


class AlreadyDone(Exception):  # noqa: N818 - no error, but what ends the command
    """The run to start has already ended."""

    def __init__(self, record: Record, folder: Path) -> None:
        super().__init__(folder)
        self.record = record
        self.folder = folder


class Preflight(Callback):
    """Refuses invalid configs and data before anything is written."""

    def __init__(self) -> None:
        self.folder: SweepFolder | None = None
        self.run: RunFolder | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check config, data and folder of a single run."""
        from fmbench.runs.prepare import rehearse  # imports torch, which --help must not

        with _heard():
            refuse_for_sweeps(config)
            resolved = resolve(config)
            refuse_missing(resolved["logger"])
            folder = Path(config.hydra.run.dir)
            before = held(folder, recorded_config(resolved))
            if before is not None and is_done(before, resolved):
                if leftovers(folder, before):  # else it may be one that cannot be written to
                    with RunFolder(folder) as held_folder:
                        held_folder.tidy(before)
                raise AlreadyDone(before, folder)
            rehearse(resolved)
            # Before Hydra writes there what it composed; the run takes the lock over.
            self.run = RunFolder(folder)
        sweep = chosen(config.hydra, "sweep")
        if sweep is not None:
            log.warning("sweep=%s only chooses options for a single run; add -m to sweep", sweep)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave the folder to the run, which takes it at once."""
        self._leave()

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave the folder, and let an error end the program without a line of Hydra's."""
        self._leave()
        job_return: JobReturn = kwargs["job_return"]
        error = hydra_compat.value(job_return)
        if job_return.status == JobStatus.FAILED and isinstance(error, Exception):
            raise Refusal(error) from error

    def _leave(self) -> None:
        if self.run is not None:
            self.run.lock.release()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check every value that a sweep gives to every key, and that its folder is free."""
        from fmbench.data.load import load

        with _heard():
            folder = Path(config.hydra.sweep.dir)
            first = check_sweep(config, kwargs["config_name"])
            refuse_missing(first["logger"])
            # Data that are missing would end every run, one after the other.
            load(first["data"], call=call_data)
            self.folder = SweepFolder(folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Let others into the sweep's folder."""
        if self.folder is not None:
            self.folder.release()


class RunLog(logging.FileHandler):
    """The log of a run, which Hydra opens where the run starts, before it writes anything else.

    So this is where the folder of each run of a sweep is checked, whatever process it starts in.

    Raises:
        ConfigError: no run is starting, or its folder is not below that of its sweep.
        StorageError: the folder holds links, or what no run has left.
    """

    def __init__(self, filename: str, encoding: str | None = None) -> None:
        hydra = HydraConfig.get() if HydraConfig.initialized() else None
        if hydra is None or OmegaConf.is_missing(hydra.runtime, "output_dir"):
            raise ConfigError("fmbench.cli.callbacks.RunLog: is for the log of a run alone")
        folder = Path(hydra.runtime.output_dir)
        if hydra.mode == RunMode.MULTIRUN:
            sweep = Path(os.path.abspath(hydra.sweep.dir))  # noqa: PTH100 - as Hydra does
            if sweep not in folder.parents:
                raise ConfigError(f"{folder}: a run's folder must be below its sweep's, {sweep}")
        refuse_links(folder)
        refuse_foreign(folder, begun=True)
        super().__init__(filename, encoding=encoding)

    handleError = LogStream.handleError  # noqa: N815 - logging's name

    def _open(self) -> Any:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=append_regular)


class SweepReport(Callback):
    """Says which run of how many this is; writes and prints the table when a sweep ends."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.begun = False  # Hydra ends a sweep also where its start was refused
        self.idle_said = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the runs to come."""
        COMMAND.sweep = Path(config.hydra.sweep.dir)
        self.begun = True
        self.total = total_runs(config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say which run this is."""
        if config.hydra.mode == RunMode.MULTIRUN:
            number = config.hydra.job.num
            total = f" of {self.total}" if self.total else ""
            same: set[str] = set()  # in every run, and not typed for its sake
            if is_search(config.hydra):
                total = f" ({number + 1}{total})"
                same = {f"{key}={schema.as_yaml(one)}" for key, one in schema.IN_TRIALS.items()}
            shown = [
                text
                for text in filter_overrides(typed(config)[1])
                if text not in same
                and re.split("[.=]", text.lstrip("+"))[0] not in (*schema.OF_SWEEPS, "tuning")
            ]
            log.info("%s%s: %s", run_name(config, number), total, " ".join(shown))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Say once where cores are idle while runs wait for each other.

        And let go of the run's configs, of which a sweep would hold 0.2 MB a run to its end.
        """
        job_return.cfg = job_return.hydra_cfg = None
        more = self.total is not None and config.hydra.job.num + 1 < self.total
        if more and not self.idle_said and job_return.status == JobStatus.COMPLETED:
            said = _idle(config)
            if said is not None:
                self.idle_said = True
                log.info(said)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the report (`benchmark.md` and others) into the sweep's folder; print the table."""
        from fmbench import report  # imports pandas, which --help must not

        folder = Path(config.hydra.sweep.dir)
        # By the sweeper, before its first run.
        refused = isinstance(sys.exc_info()[1], (ConfigError, StorageError))
        planned = config.sweep.plan  # nothing was run
        begun = self.begun and not refused and folder.is_dir() and not planned
        if begun and config.sweep.detach:
            if sys.exc_info()[1] is None and sys.stdout is not None:
                where = shlex.quote(str(folder))
                lines = (f"fmbench status {where}", f"fmbench report {where}")
                COMMAND.exit_status = printed("fmbench", lambda: say(*lines))
            return
        if not begun or all(path.name == LOCK_NAME for path in folder.iterdir()):
            return
        with _heard():
            table = report.build([folder])
            lost = printed("fmbench", lambda: report.print_tables(table), only_there=False)
            made = report.write(table, folder)
            if sys.stdout is not None:
                lost = printed("fmbench", lambda: say(*map(str, made.written))) or lost
        COMMAND.exit_status = COMMAND.exit_status or lost
        well = table.completed + table.pruned + table.infeasible
        total = self.total or well + table.failed
        partial, said = well < total or table.exit_status > 0, ""
        if is_tuned(config.hydra) and table.comparisons:
            partial, said = _of_comparison(table.comparisons[0].tuned, folder)
        elif is_search(config.hydra) and table.searches:
            partial, said = _of_search(table.searches[0].search)
        elif partial:
            said = f"{table.completed} of {total} runs completed"
        if said:
            log.log(logging.WARNING if partial else logging.INFO, said)
        if partial:
            COMMAND.exit_status = PartialResultsError.exit_status


def _idle(config: DictConfig) -> str | None:
    """That the run of a sweep that has just ended used a part of the cores alone, or None.

    Only where nobody chose so, and where `sweep.jobs=auto` would have several at work.
    """
    from fmbench.launch.processes import fitting

    chosen = [text for text in typed(config)[1] if text.startswith("sweep.jobs=")]
    in_turn = runs_in_turn(config.hydra.launcher) and config.sweep.jobs == 1 and not chosen
    if not in_turn or config.threads is not None:
        return None
    try:
        fingerprint = read_record(Path(config.hydra.runtime.output_dir)).fingerprint
    except (OSError, ValueError):
        return None
    threads, cores = fingerprint.get("threads"), machine.usable().cores
    if fingerprint.get("device") != "cpu" or not threads or threads >= cores:
        return None
    if fitting(config) < 2:
        return None
    return (
        f"{cores} cores, of which a run uses {'one' if threads == 1 else threads}: sweep.jobs=auto "
        "runs several at once; their times are then of a shared machine"
    )


def _of_search(search: Search) -> tuple[bool, str]:
    """Whether trials of a search are missing, and how many ended well, in words."""
    counts = Counter(trial.state for trial in search.trials)
    well = counts[COMPLETE] + counts[PRUNED] + counts[INFEASIBLE]
    detail = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    # Of a study that is shared others may still be at work on theirs.
    elsewhere = sum(
        trial.state == RUNNING and Path(trial.folder or "").is_absolute() for trial in search.trials
    )
    partial = well + elsewhere < search.total or not counts[COMPLETE]
    return partial, f"{well} of {search.total} trials ended well: {detail or 'none was run'}"


def _of_comparison(tuned: Tuned, folder: Path) -> tuple[bool, str]:
    """The same of the trials and the final runs of a comparison."""
    trials, finals = Counter[str](), Counter[str]()
    for block in tuned.blocks:
        trials.update(trial.state for trial in (block.search.trials if block.search else ()))
        numbers = block.finals(tuned.trials * tuned.runs)
        runs = (read_run(folder / str(number)) for number in numbers)
        finals.update(run.state for run in runs if run is not None)
    searches = sum(block.search.total for block in tuned.blocks if block.search)
    well = trials[COMPLETE] + trials[PRUNED] + trials[INFEASIBLE]
    wanted = len(tuned.blocks) * tuned.final_seeds
    said = f"{well} of {searches} trials ended well, {finals[COMPLETED]} of {wanted} final runs"
    return well < searches or finals[COMPLETED] < wanted, f"{said} completed"


@contextmanager
def _heard() -> Iterator[None]:
    """Let any exception in a callback stop the program."""
    try:
        yield
    except Exception as error:
        raise Refusal(error) from error
