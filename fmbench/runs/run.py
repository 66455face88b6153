"""One run end to end: config in, record out. The only module that knows all the others."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmbench.config.whitelist import trust_needed
from fmbench.core.console import logger
from fmbench.core.errors import StorageError, UserError, one_line
from fmbench.core.signals import StopRequested, listening
from fmbench.records.folder import RunFolder, held, is_done
from fmbench.records.identity import keys
from fmbench.records.provenance import git_state
from fmbench.records.record import (
    COMPLETED,
    DIVERGED,
    FAILED,
    FINAL,
    INTERRUPTED,
    PRUNED,
    Record,
    recorded_config,
    recorded_overrides,
)
from fmbench.runs.attempt import Attempt, PrunedError, Watch
from fmbench.runs.checkpointing import now
from fmbench.runs.progress import Display, display_for
from fmbench.tracking import Tracking
from fmbench.training.device import settings_kept
from fmbench.training.trainer import DivergedError

log = logger(__name__)


def execute(
    config: Mapping[str, Any],
    folder: Path,
    *,
    choices: Mapping[str, str],
    labels: Mapping[str, str],
    overrides: list[str],
    experiment: str | None = None,
    deviations: Sequence[str] = (),
    config_dirs: Sequence[str] = (),
    runs_at_once: int | None = None,
    in_sweep: bool = False,
    display: Callable[[int, int], Display] = display_for,
    watch: Watch | None = None,
    base: Path | None = None,
) -> Record:
    """Train one net and leave its record in `folder`, however it ends.

    A run that is at its end already is left as it is; one that was interrupted goes on. One that
    has not looked at the test set (`test_every=null`) and is to do so now, does that alone.

    Args:
        config: resolved, see `fmbench.config.checks`.
        folder: of the run; must not hold another one.
        choices: the option taken from each group.
        labels: what it is called in tables.
        overrides: that make the run again.
        experiment: the published row that it was started from.
        deviations: what it does otherwise than that.
        config_dirs: the user's folders that options could come from.
        runs_at_once: of its sweep on this machine; None where that is not known.
        in_sweep: whether a signal that comes too late to stop this run is to stop what follows.
        display: called with epochs and images per epoch, shows the progress.
        watch: of a search.
        base: where the program was started; the current folder unless given.

    Returns:
        The record; its status is completed, diverged or pruned.

    Raises:
        UserError: the config, the data or the folder is at fault.
        StopRequested: the run was asked to stop. It is saved, and the record says so, or the
            exception says that it could not be written.
        Exception: whatever the net raised. The record says so, with status failed.
    """
    record = _blank_record(config, choices, labels, overrides)
    record.experiment, record.deviations = experiment, list(deviations)
    record.config_dirs, record.runs_at_once = list(config_dirs), runs_at_once
    tracking = Tracking(config["logger"], folder, base or Path.cwd())
    with (
        settings_kept(),
        RunFolder(folder) as run_folder,
        listening(pass_on=in_sweep) as listener,
    ):
        before = held(folder, record.config, begun=True)
        if before is not None and is_done(before, config):
            run_folder.tidy(before)
            log.info("this run has %s already; nothing is changed", before.status)
            return before
        run_folder.clean()
        if before is not None and before.status in FINAL:
            before.overrides = record.overrides
            run = Attempt(config, before, run_folder, listener, tracking, before=before)
            with run.memory_watched():
                run.look_at_test()
            return before
        if before is not None:
            record.started, record.restarts = before.started, list(before.restarts)
        run = Attempt(
            *(config, record, run_folder, listener, tracking), before=before, in_sweep=in_sweep
        )
        run.write_record()
        stop: KeyboardInterrupt | None = None
        try:
            with run.memory_watched():
                run.prepare()
                run.fit(display, watch)
            record.status = COMPLETED
        except PrunedError as error:
            record.status, record.error = PRUNED, str(error)
        except DivergedError as error:
            record.status, record.error = DIVERGED, str(error)
        except KeyboardInterrupt as error:
            stop = error
            if isinstance(stop, StopRequested):
                stop.folder, stop.again = folder, again(record)
            record.status, record.error = INTERRUPTED, str(stop) or "stopped from the keyboard"
            raise
        except Exception as error:
            record.status, record.error = FAILED, describe(error)
            raise
        finally:
            try:
                run.end()
            except StorageError as error:
                if stop is None:
                    raise
                # That it can go on matters more than what its record says of it.
                log.warning("%s", error)
                if isinstance(stop, StopRequested):
                    stop.unrecorded = str(error)
    return record


def again(record: Record) -> tuple[str, ...]:
    """Overrides that go on to the same bits whether they were typed or not: the threads."""
    there = record.fingerprint
    return (f"threads={there['threads']}",) if there.get("device") == "cpu" else ()


def describe(error: BaseException) -> str:
    """An exception in one line, with its type unless it is a `UserError`."""
    text = one_line(str(error))
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _blank_record(
    config: Mapping[str, Any],
    choices: Mapping[str, str],
    labels: Mapping[str, str],
    overrides: list[str],
) -> Record:
    """The record of a run that has not begun: what is known from the config alone."""
    kept = recorded_config(config)
    # Until the images are read their names stand for them, so that no two runs share a key.
    data, split_config = config["data"]["name"], json.dumps(config["data"]["split"], default=str)
    key, row = keys(kept, data_sha256=data, split_hash=split_config)
    split = config["data"]["split"]["name"]
    name = labels.get("model", "?")
    if "name" in config["model"]:  # one option that stands for many nets: torchvision
        name = f"{name}/{config['model']['name']}"
    return Record(
        key=key,
        configuration=row,
        config=kept,
        choices=dict(choices),
        overrides=recorded_overrides(overrides),
        model=name,
        augmentation=labels.get("augmentation", "?"),
        optimizer=labels.get("optimizer", "?"),
        scheduler=labels.get("scheduler", "?"),
        data={"name": config["data"]["name"], "sha256": None},
        split={"name": split, "train": 0, "validation": 0, "test": 0, "hash": None},
        batch_size=config["batch_size"],
        learning_rate=_float(config["optimizer"].get("lr")),
        epochs=config["epochs"],
        seed=config["seed"],
        reference=config["reference"],
        trust=trust_needed(config),
        started=now(),
        git=git_state(),
    )


def _float(value: Any) -> Any:
    """1 as 1.0; what is no number, of a config that will be refused, as it is."""
    return float(value) if isinstance(value, int) else value
