"""The command: compose, run, return the objective; and the same from Python.

Torch is imported when the first run starts, so that `--help`, `--cfg job` and tab completion answer
at once.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import fmbench
from fmbench.cli.callbacks import COMMAND, AlreadyDone
from fmbench.cli.summary import short_path, stopped_line, summary, sweep_line
from fmbench.config import checks as configuration
from fmbench.config import hydra_compat, messages, sources, trust
from fmbench.config.overrides import meant, mended, refuse_passwords
from fmbench.config.sources import hydra_alone
from fmbench.config.sweep import is_search, search_keys
from fmbench.config.trust import refuse_untrusted, refuse_variables, typed
from fmbench.config.tuning import FINAL
from fmbench.core import machine
from fmbench.core.console import Shown, complain, logger, printed, say, show_as_text, silence
from fmbench.core.errors import ConfigError, DataError, UserError, described
from fmbench.core.signals import StopRequested
from fmbench.records.record import INFEASIBLE, PRUNED
from fmbench.runs import experiment

if TYPE_CHECKING:
    from fmbench.records.record import Record
    from fmbench.runs.run import Watch

log = logger(__name__)

#: Hydra's variable that asks for tracebacks.
FULL_ERROR = "HYDRA_FULL_ERROR"


def main() -> None:
    """Run the command line; exits with the status that `fmbench.core.errors` names."""
    if "--version" in sys.argv[1:]:
        sys.exit(printed("fmbench", lambda: say(f"fmbench {fmbench.__version__}")))
    wanted_traceback = os.environ.get(FULL_ERROR)
    # Hydra then passes every error on, where it would print many lines and exit with status 1.
    os.environ[FULL_ERROR] = "1"
    COMMAND.sweep, COMMAND.exit_status = None, 0
    try:
        error = messages.raised_by(_command)
    finally:
        if wanted_traceback is None:
            os.environ.pop(FULL_ERROR, None)
        else:
            os.environ[FULL_ERROR] = wanted_traceback
    if status := _status_after(error, traceback_wanted=wanted_traceback == "1"):
        sys.exit(status)


def _status_after(error: BaseException | None, *, traceback_wanted: bool) -> int:
    """Say in a line what has ended the command; returns the exit status."""
    if error is None:
        # What --cfg job printed may still be held.
        lost = 0 if sys.stdout is None else printed("fmbench", lambda: None)
        return COMMAND.exit_status or lost
    if isinstance(error, BrokenPipeError):
        silence()
        return COMMAND.exit_status
    if isinstance(error, AlreadyDone):
        record, folder = error.record, error.folder
        complain("fmbench", f"this run has ended already; nothing was changed in {folder}")
        error = messages.raised_by(lambda: _ended(record, folder, in_sweep=False))
        if error is None:
            return 0
    if isinstance(error, KeyboardInterrupt):
        if not isinstance(error, StopRequested):
            error = StopRequested(signal.SIGINT, saved=False)
        line = stopped_line(error, sys.argv[1:], sweep=COMMAND.sweep)
        complain("fmbench", line, most=None)  # of a command no end is left out
        return error.exit_status
    nameless = isinstance(error, OSError) and error.errno and not error.filename
    if sys.stdout is not None and (nameless or isinstance(error, SystemExit)):
        # --help to a full disk; of what standard output took nothing is held that would tell.
        lost = printed("fmbench", lambda: say("") if nameless else None)
        if lost and not messages.half_written(error):
            return lost
    known = messages.as_user_error(error)
    if known is None or traceback_wanted:
        raise error
    messages.remove_half_written(error)
    complain("fmbench", f"{known}{messages.sweep_hint(str(known), sys.argv)}")
    return known.exit_status


def _command() -> None:
    """What the command line asks for: a run, a sweep, or a look at what there is."""
    configuration.register()
    parser = hydra_compat.get_args_parser()
    arguments = _arguments(parser)
    # Whether it shows something rather than running it.
    flags = ("help", "hydra_help", "cfg", "info", "shell_completion")
    looks = any(getattr(arguments, flag) for flag in flags)
    if arguments.hydra_help:  # the same for every program and config
        arguments.overrides, arguments.config_dirs = [], []
    with (
        hydra.utils.execution_whitelist(trust.around_runs()),
        sources.own_folders(arguments.config_dirs),
        contextlib.ExitStack() as shown,
    ):
        # For --help too Hydra opens the log that the config names.
        if arguments.help and (arguments.overrides or arguments.config_dirs):
            with _initialize():
                _vet(_composed(arguments.overrides), arguments.overrides)
        if looks:
            if sys.stdout is None:
                sys.exit(printed("fmbench", lambda: None))
            if arguments.config_dirs and (arguments.cfg or arguments.info):
                with _initialize():
                    refuse_variables(_composed(arguments.overrides).hydra)
            # --info logs to standard output, by a handler of Hydra's; then the process ends.
            logging.raiseExceptions = False
            # Names of options, and what they say.
            shown.enter_context(contextlib.redirect_stdout(Shown(sys.stdout)))
        with hydra_compat.checked(_vet):
            hydra_compat.run_command(arguments, parser, job, configuration.CONFIG_DIR)


def job(config: DictConfig, *, same_data: bool = True) -> float | None:
    """One run, as Hydra calls it; returns what a search maximises.

    In a sweep, a run that diverges or raises ends itself alone and returns NaN; only a fault that
    every run shares, of the storage or of the `same_data`, ends the sweep.
    """
    show_as_text()  # in a process of a sweep too
    context = HydraConfig.get()
    folder = Path(context.runtime.output_dir)
    in_sweep = context.mode == RunMode.MULTIRUN
    try:
        watched = in_sweep and is_search(context)
        final = (config.tuning or {}).get("stage") == FINAL  # of a tuned comparison
        watch = _watch(config, context) if watched and not final else None
        at_most = search_keys(config)["at_most"] if watched else None
        record = _execute(config, context, in_sweep=in_sweep, watch=watch, at_most=at_most)
    except Exception as error:
        if not in_sweep:
            raise
        shared = messages.refusal(error)
        if shared is not None and (same_data or not isinstance(error, DataError)):
            raise shared from error
        # A mistake in the config needs no traceback.
        log.error("failed: %s", described(error), exc_info=not isinstance(error, UserError))  # noqa: TRY400
        return float("nan")
    return _ended(record, folder, in_sweep=in_sweep)


def _watch(config: DictConfig, context: Any) -> "Watch | None":
    """What a run of a search tells the search after each epoch."""
    from fmbench.search.pruning import watch

    base = Path(context.runtime.cwd)
    return watch(
        search_keys(config, base), base / context.sweep.dir, context.job.num, config.epochs
    )


def _ended(record: "Record", folder: Path, *, in_sweep: bool) -> float | None:
    """Say how a run has ended; returns what a search maximises."""
    if record.status != "completed":
        if record.status in (INFEASIBLE, PRUNED):
            message = f"{record.status}: {record.error}"
        else:
            from fmbench.records.reader import read_history  # imports pandas

            epoch = len(read_history(folder)) + 1
            message = f"{record.status} in epoch {epoch}: {record.error}"
        if not in_sweep:
            raise UserError(f"{message}; the record is in {short_path(folder)}")
        log.log(logging.INFO if record.status in (INFEASIBLE, PRUNED) else logging.ERROR, message)
        return float("nan")
    said = sweep_line(record) if in_sweep else summary(record, folder)
    # That of a sweep is told at its end.
    if not (in_sweep and sys.stdout is None):
        lost = printed("fmbench", lambda: say(*said.split("\n")), only_there=False)
        COMMAND.exit_status = COMMAND.exit_status or lost
    return record.objective


def run(
    overrides: Sequence[str] = (), *, config_dir: str | Path | Sequence[str | Path] = ()
) -> "Record":
    """Train one model, as `python -m fmbench OVERRIDES` does; shows nothing.

    Args:
        overrides: such as ``["model=lenet", "epochs=3"]``.
        config_dir: a folder with options of your own, or several, as for `--config-dir`.

    A run that was stopped (Ctrl-C) has been saved: with the same overrides and
    `hydra.run.dir=FOLDER` it resumes, and returns at once where it has completed.

    What the process has set (PyTorch's default device and type, gradients, autocast, threads, where
    the random numbers stand, a Hydra of its own) changes nothing, and is as it was afterwards. In
    several threads, runs wait for each other.

    Returns:
        The record; its status is completed or diverged.

    Raises:
        UserError: the config, the data or the run folder is at fault.
        KeyboardInterrupt: the run was asked to stop.
    """
    from fmbench.training.device import settings_kept

    if not isinstance(overrides, (list, tuple)) or not all(isinstance(o, str) for o in overrides):
        raise ConfigError(f"overrides={overrides!r}: must be a list of texts, as ['epochs=3']")
    refuse_passwords(overrides)
    given = mended(overrides)
    done: list[Record] = []

    def task(config: DictConfig) -> None:
        done.append(_execute(config, HydraConfig.get(), shown=False))

    folders = [config_dir] if isinstance(config_dir, (str, Path)) else list(config_dir)

    def command() -> None:
        with (
            hydra_alone(),
            settings_kept(),
            hydra.utils.execution_whitelist(trust.around_runs(), reset=True),
            sources.own_folders(sources.found(folders)),
            hydra_compat.checked(_vet),
        ):
            configuration.register()
            _initialize()
            GlobalHydra.instance().hydra.run(  # type: ignore[union-attr]
                config_name="config",
                task_function=task,
                overrides=given,
                with_log_configuration=False,
            )

    error = messages.raised_by(command)
    if isinstance(error, AlreadyDone):
        return error.record
    if error is not None:
        known = messages.as_user_error(error)
        if known is None or known is error:
            raise error
        messages.remove_half_written(error)
        raise known from error
    return done[0]


def _execute(config: DictConfig, context: Any, **how: Any) -> "Record":
    """Make the run that Hydra has composed; `how` goes to `fmbench.runs.run.execute`."""
    from fmbench.runs.run import execute

    refuse_variables(context)
    resolved = configuration.resolve(config)
    how["described"] = {
        **experiment.described(resolved, context),
        "runs_at_once": _runs_at_once(context),
    }
    how["base"] = Path(context.runtime.cwd)
    try:
        return execute(resolved, Path(context.runtime.output_dir), **how)
    except Exception as error:
        error.add_note(messages.RAISED_IN_A_RUN)
        raise


def _runs_at_once(context: Any) -> int | None:
    """How many runs of its sweep share the machine, if its launcher says so; a cluster does not."""
    said = machine.runs_at_once()
    if said is not None:
        return said
    in_turn = hydra_compat.runs_in_turn(context.launcher)
    return 1 if context.mode != RunMode.MULTIRUN or in_turn else None


def _arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, as Hydra reads them; `config_dirs` are the folders of all `--config-dir`."""
    refuse_passwords(sys.argv[1:])

    def refuse(message: str) -> NoReturn:
        flag = message.partition("unrecognized arguments: ")[2].partition(" ")[0]
        key = meant(flag.lstrip("-").partition("=")[0].replace("-", "_"))
        did_you_mean = f"; did you mean {key}=VALUE?" if flag and key else ""
        raise ConfigError(f"{message}{did_you_mean}; --help and --hydra-help explain")

    parser.error, parser.prog = refuse, "fmbench"  # type: ignore[method-assign]
    # In the place of Hydra's, which takes one.
    parser.add_argument_group(conflict_handler="resolve").add_argument(
        "--config-dir", "-cd", action="append", help="A folder of options of one's own; or several"
    )
    parser.add_argument(
        "--plan", action="store_true", help="Say what a sweep would run, and about how long"
    )
    arguments = parser.parse_intermixed_args()
    if arguments.plan:
        arguments.overrides.append("sweep.plan=true")
    given, arguments.config_dir = arguments.config_dir or [], None
    if arguments.shell_completion:  # the shell passes on the line that is being typed
        typed_line = os.environ.get("COMP_LINE", "").split()[1:]
        given = parser.parse_known_intermixed_args(typed_line)[0].config_dir or []
        given = [name for name in given if Path(name).expanduser().is_dir()]
    else:
        arguments.overrides = mended(arguments.overrides)
    arguments.config_dirs = sources.found(given)
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(
                f"--{flag.replace('_', '-')}: not supported; options of your own are in a folder "
                "given with --config-dir, and a record's overrides make its run again"
            )
    return arguments


def _initialize() -> AbstractContextManager[None]:
    """Initialize Hydra with fmbench's own options and the user's, at once."""
    return hydra.initialize_config_dir(str(configuration.CONFIG_DIR), job_name="fmbench")


def _vet(composed: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a config with something that is for the command line alone."""
    of_hydra, of_run = typed(composed)
    if sorted([*of_hydra, *of_run]) != sorted(overrides):
        raise ConfigError("hydra.overrides: says what was typed; it cannot be set")
    sources.refuse_twice(composed.hydra.runtime.choices)
    refuse_untrusted(composed)


def _composed(overrides: Sequence[str]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
