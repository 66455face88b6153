"""What a config may start, and what a config file may not set, whoever wrote it.

A config builds what is listed in `fmbench.config.whitelist` and here, and nothing else.

A file of options is somebody's text. It says what is trained; it does not say what Hydra starts,
which folders and files are written, and where data are fetched to: those are for the user to
decide, on the command line. Three parts of a composed config are checked:

- Hydra's own part must be what fmbench and the command line alone make of it, but for what a sweep
  searches and callbacks of trusted packages.
- A folder that a file names must lie below the current one.
- The place of the data likewise, and of a search its database.
"""

import copy
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import hydra.utils
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fmbench.config import hydra_compat
from fmbench.config.schema import Config
from fmbench.config.sources import CONFIG_DIR
from fmbench.config.targets import is_function, missing, parameters, refuse_unlisted
from fmbench.config.whitelist import TARGETS, TRUST_VARIABLE, buildable, trusted_patterns
from fmbench.core.errors import (
    ConfigError,
    FailedError,
    UserError,
    described,
    is_out_of_memory,
    place,
)

_SAMPLERS = (
    *("BruteForce", "CmaEs", "GP", "Grid", "NSGAII", "NSGAIII", "PartialFixed", "QMC"),
    *("Random", "TPE"),
)
_CROSSOVERS = ("BLXAlpha", "SBX", "SPX", "UNDX", "Uniform", "VSBX")

#: What a search may draw its values with.
SAMPLERS = [
    *hydra_compat.SAMPLER_FUNCTIONS,
    *(f"optuna.samplers.{name}Sampler" for name in _SAMPLERS),
    *(f"optuna.samplers.nsgaii.{name}Crossover" for name in _CROSSOVERS),
    "optuna.samplers.nsgaii.PolynomialMutation",
]

#: What Hydra may instantiate around the runs. Plugins by the name of their class: other things in
#: their packages start programs.
_AROUND_RUNS = [
    *(f"fmbench.cli.callbacks.{name}" for name in ("Preflight", "RunLog", "SweepReport")),
    *(f"fmbench.core.console.{name}" for name in ("LogStream", "OneLine")),
    hydra_compat.BASIC_LAUNCHER,
    hydra_compat.BASIC_SWEEPER,
    "hydra_plugins.fmbench_launchers.cluster.SlurmLauncher",
    "hydra_plugins.fmbench_launchers.processes.ProcessLauncher",
    "hydra_plugins.fmbench_launchers.ray_tasks.RayLauncher",
    "hydra_plugins.fmbench_sweepers.grid.GridSweeper",
    "hydra_plugins.fmbench_sweepers.search.SearchSweeper",
    "hydra_plugins.fmbench_sweepers.tuned.TunedSweeper",
    *SAMPLERS,
]

#: What else the config of the logs may name.
_OF_LOGGING = [
    *("logging.StreamHandler", "logging.FileHandler", "colorlog.ColoredFormatter"),
    *("sys.stdout", "sys.stderr"),
]

#: The kinds of values in an option, in words.
_KINDS = {list: "a list", bool: "true or false", int: "a number", float: "a number"}

#: What a class raises whose arguments do not fit.
_MISFITS = (ArithmeticError, ImportError, LookupError, TypeError, ValueError)

#: Of groups whose target may be a function that is called with each batch: what that is.
_CALLED = {"loss": "loss", "augmentation.own": "transform"}

#: Parts of Hydra's config that are checked one by one, or set by Hydra when it composes.
_APART = ("overrides", "runtime", "mode", "sweeper", "callbacks", "run", "sweep", "job")

_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")

#: What may stand in the name of a folder that a file gives. A dot would let `now` give `..`.
_HARMLESS = re.compile(
    r"\$\{(now:[^{}/.]*|fmbench\.token:|hydra[.:]job\.(num|id|name)|hydra:job\.(num|id))\}"
)

#: How the name of a folder begins that may be absolute.
_OWN_ROOT = re.compile(r"/|\$\{hydra[.:]runtime\.cwd")

_PLAIN = re.compile(r"(?!\.+$)[\w.-]{1,100}")


def around_runs() -> list[str]:
    """What Hydra may instantiate around the runs, as patterns of import paths."""
    return [*_AROUND_RUNS, *trusted_patterns()]


def instantiate(
    config: Mapping[str, Any],
    group: str,
    *args: Any,
    offered: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Call the `_target_` of a group of a run's resolved config, if it is one that may be started.

    What is `offered` it gets where it has a parameter of that name and the config gives none.

    Raises:
        ConfigError: it may not be started, does not exist, or refuses its arguments; of the
            user's own, it fails, by a FailedError where that is a RuntimeError.
        Exception: there is too little memory; of fmbench's own, it fails.
    """
    # What may be started around a run is none of its parts.
    allowed = hydra.utils.execution_whitelist(buildable(group), reset=True)
    option = dict(config[group])
    try:
        if offered:
            known = _parameters(option, allowed)
            option |= {
                key: value
                for key, value in offered.items()
                if key in known and key not in option and not _is_width(known[key])
            }
        return hydra.utils.instantiate(
            option, *args, **kwargs, _convert_="all", _execution_whitelist_=allowed
        )
    except Exception as error:  # noqa: BLE001 - a stranger's code may fail in any way
        # Hydra wraps what the target raised, unless HYDRA_FULL_ERROR is set.
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        target = config[group]["_target_"]
        own = target not in TARGETS.get(group, ())
        said = own or isinstance(cause, _MISFITS)
        if cause is not None and (not said or is_out_of_memory(cause)):
            raise cause from cause.__cause__
        text = _misfit(group, config[group])
        if text is None and (cause is None or isinstance(cause, ImportError)):
            text = missing(target)
        if text is None:
            text = str(cause or error)
            if own and cause is not None and (where := place(cause)):
                text = f"{described(cause, 300)}{where}"
        if own and "unexpected keyword argument" in text:
            text += f"; it takes {', '.join(parameters(target))}"
            text += f", and is called with {' and '.join(kwargs)}" if kwargs else ""
        if isinstance(cause, TypeError) and group in _CALLED and is_function(target):
            text += f"; a function that is the {_CALLED[group]} itself needs _partial_: true"
        if cause is None and "whitelist" in text:
            text = f"{text.partition('. ')[0]}; {TRUST_VARIABLE} names packages to trust"
        kind = FailedError if isinstance(cause, RuntimeError) else ConfigError
        raise kind(f"{group} ({target}): {text}") from cause or error


def takes(config: Mapping[str, Any], group: str, first: str) -> bool:
    """Whether the first parameter of what a group builds has this name.

    False where it may not be started, or does not exist: to build it says so.
    """
    allowed = hydra.utils.execution_whitelist(buildable(group), reset=True)
    try:
        return next(iter(_parameters(config[group], allowed)), None) == first
    except (InstantiationException, *_MISFITS):
        return False


def _parameters(option: Mapping[str, Any], allowed: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of what an option builds, by their names."""
    target = {"_target_": option["_target_"], "_partial_": True}
    made = hydra.utils.instantiate(target, _execution_whitelist_=allowed)
    return inspect.signature(made.func).parameters


def _is_width(parameter: inspect.Parameter) -> bool:
    """Whether a parameter called `channels` is the model's own: no image has so many."""
    usual = parameter.default
    return parameter.name in ("channels", "in_channels") and usual not in (parameter.empty, 1, 3)


def call_data(arguments: Mapping[str, Any]) -> Any:
    """What the function that `data._target_` names returns; see `instantiate`."""
    return instantiate({"data": arguments}, "data")


def _misfit(group: str, given: Mapping[str, Any]) -> str | None:
    """The first value of a group that is of another kind than in its option; None if none is."""
    for file in sorted(CONFIG_DIR.glob(f"{group}/*.yaml")):
        usual = yaml.safe_load(file.read_text("utf-8"))
        for key, value in usual.items() if usual.get("_target_") == given["_target_"] else ():
            kind = _KINDS.get(type(value))
            if kind and key in given and _KINDS.get(type(given[key])) != kind:
                return f"{group}.{key}={given[key]}: must be {kind}, as {json.dumps(value)}"
    return None


def refuse_untrusted(config: DictConfig, config_name: str | None = "config") -> None:
    """Refuse a config with something in it that only the command line may set.

    It has its `hydra` part, and Hydra must still be initialized.

    Raises:
        ConfigError: the first key that a file may not set, or that cannot be.
    """
    refuse_variables(config.hydra)
    of_hydra, of_run = typed(config)
    # Those of the sweeper may need one that a ready sweep chooses. The folders that were typed are
    # the ones that are there; without them, the runs of a process share one composition.
    apart = ("hydra.sweeper", "hydra/sweeper", *(f"{key}=" for key in _FOLDERS))
    others = tuple(text for text in of_hydra if not text.lstrip("+~").startswith(apart))
    path = str(GlobalHydra.instance().config_loader().get_search_path())
    wanted, found = _wanted(config_name, others, path), _plain(config)
    _check_hydra(config, found, wanted)
    key = "hydra.sweeper.custom_search_space"
    if (found["sweeper"] or {}).get("custom_search_space") is not None and not _sets(key, of_hydra):
        raise _not_by_a_file(key)
    for folder in _FOLDERS:
        _, part, key = folder.split(".")
        there = found[part][key]
        _check_folder(folder, there, config, by_file=there != wanted[part][key]
                      and not _sets(folder, of_hydra))  # fmt: skip
    _check_data(config, of_run)


def refuse_untrusted_runs(
    loader: ConfigLoader,
    config: DictConfig,
    runs: Iterable[Sequence[str]],
    seen: set[tuple[str, ...]] | None = None,
) -> None:
    """Refuse runs of a sweep that set together what none of them sets alone.

    One of each combination of options is composed, but for those `seen` before; those of these
    runs are added to them. Of a run its overrides are given.

    Raises:
        ConfigError: as `refuse_untrusted`.
        HydraException: one cannot be composed.
    """
    seen = set() if seen is None else seen
    groups = {*config.hydra.runtime.choices, *loader.list_groups("")}
    for overrides in runs:
        # `data.split` of `+data.split@package=custom`.
        keys = (re.split("[=@/]", text.lstrip("+~"))[0] for text in overrides)
        chosen = tuple(t for t, key in zip(overrides, keys, strict=True) if key in groups)
        if chosen not in seen:
            composed = loader.load_sweep_config(config, list(overrides))
            refuse_untrusted(composed, config.hydra.job.config_name)
            seen.add(chosen)


def typed(config: Any) -> tuple[list[str], list[str]]:
    """The overrides of a command line, of Hydra and of the run, as they were typed."""
    given: Any = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    return [str(text) for text in given["hydra"]], [str(text) for text in given["task"]]


def _sets(key: str, overrides: Sequence[str]) -> bool:
    return any(text.lstrip("+").startswith(f"{key}=") for text in overrides)


def _not_by_a_file(key: str) -> ConfigError:
    return ConfigError(f"{key}: a config file may not set it; it can be given on the command line")


# Hydra's part


def refuse_variables(of_hydra: Any) -> None:
    """Refuse a `hydra` part that sets environment variables, which can start other programs."""
    for name in of_hydra.job.env_set:
        raise ConfigError(
            f"hydra.job.env_set.{name}: a config may not set environment variables; "
            "set them in the shell"
        )


@lru_cache(maxsize=8)  # the same for the command, for its run and for each option of a sweep
def _wanted(config_name: str | None, overrides: tuple[str, ...], _path: str) -> dict[str, Any]:
    """The `hydra` part that a command line makes with these overrides and no other."""
    loader = GlobalHydra.instance().config_loader()
    return _plain(loader.load_configuration(config_name, list(overrides), RunMode.MULTIRUN))


def _plain(config: DictConfig) -> dict[str, Any]:
    """The `hydra` part as it was written, interpolations not followed."""
    plain: dict[str, Any] = OmegaConf.to_container(config.hydra, resolve=False)  # type: ignore[assignment]
    return plain


def _check_hydra(config: DictConfig, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, value in found.items():
        if key not in _APART:
            _same(f"hydra.{key}", value, wanted.get(key))
    for name, value in wanted["callbacks"].items():
        _same(f"hydra.callbacks.{name}", found["callbacks"].get(name), value)
    # Hydra sets what it says of a job, which its folder may be called by, when the job starts.
    for key, value in found["job"].items():
        _same(f"hydra.job.{key}", value, wanted["job"].get(key))
    output_dir = found["runtime"]["output_dir"]
    _same("hydra.runtime.output_dir", output_dir, wanted["runtime"]["output_dir"])
    for key in ("job.name", "output_subdir"):
        name = OmegaConf.select(config.hydra, key)
        if name is not None and not _PLAIN.fullmatch(str(name)):
            raise ConfigError(
                f"hydra.{key}={name}: must be a plain name, letters, digits, '.', '-' and '_', "
                "at most 100"
            )
    if not isinstance(found["verbose"], (bool, str, list)):
        raise ConfigError(f"hydra.verbose={found['verbose']}: must be true, false or logger names")
    for part in ("job_logging", "hydra_logging"):
        _check_logging(f"hydra.{part}", found[part])
    _check_started("launcher", found["launcher"])
    _check_started("sweeper", found["sweeper"])
    _check_started("sweeper.sampler", (found["sweeper"] or {}).get("sampler"))


def _same(key: str, found: Any, wanted: Any) -> None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in dict.fromkeys([*found, *wanted]):
            _same(f"{key}.{name}", found.get(name), wanted.get(name))
    elif found != wanted:
        raise _not_by_a_file(key)


def _check_logging(path: str, node: Any) -> None:
    """Refuse what Python's logging would import or call: `()`, `class`, and `ext://`."""
    if isinstance(node, (Mapping, list)):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            _check_logging(f"{path}.{key}", value)
    elif path.endswith((".()", ".class")) or str(node).startswith("ext://"):
        refuse_unlisted(path, str(node).removeprefix("ext://"), [*around_runs(), *_OF_LOGGING])


def _check_started(part: str, option: Any) -> None:
    """Refuse a launcher, a sweeper or a sampler that is not listed."""
    if option == MISSING:
        raise ConfigError(f"hydra/{part}: cannot be taken out")
    if isinstance(option, str):  # a dot typed for a slash
        write = f"hydra/{part.replace('.', '/')}={option}"
        raise ConfigError(f"hydra.{part}={option}: is no option's content; write {write}")
    target = (option or {}).get("_target_")
    if target is not None:
        refuse_unlisted(f"hydra.{part}._target_", str(target), around_runs())


# Folders


def _leaves(text: str) -> bool:
    """Whether a path leads out of the folder that it is taken from."""
    return text.startswith(("/", "~")) or ".." in PurePath(text).parts


def _check_folder(key: str, found: Any, config: DictConfig, *, by_file: bool) -> None:
    text = str(found)
    if not text.strip() or not text.isprintable():
        raise ConfigError(f"{key}={text}: must be the name of a folder, of printable characters")
    rest = _HARMLESS.sub("x", text)
    roundabout = PurePath(rest).as_posix() != rest  # ./ would give a second name to a run's folder
    if key == "hydra.sweep.subdir" and ("${" not in text or _leaves(rest) or roundabout):
        raise ConfigError(
            f"{key}={text}: must be below the sweep's folder and another for each run, such as "
            "${hydra.job.num}"
        )
    if by_file and ("${" in rest or _leaves(rest)):
        raise ConfigError(
            f"{key}={text}: a config file may name a folder below the current one; any other can "
            "be given on the command line"
        )
    if "${" in rest and (led := _leads_out(key, text, config)):
        raise ConfigError(
            f"{key}={text}: comes to {led}; what stands for a key may not lead out of the folder "
            "that is named with it"
        )


def has_keys_in_subdir(config: DictConfig) -> bool:
    """Whether the folders of a sweep's runs are called by more than their numbers."""
    return "${" in _HARMLESS.sub("x", str(_plain(config)["sweep"]["subdir"]))


def _leads_out(key: str, text: str, config: DictConfig) -> str | None:
    """Where a folder leads that is called by keys of the config; None where it stays inside."""
    config = copy.deepcopy(config)
    OmegaConf.set_readonly(config.hydra, value=False)
    with open_dict(config.hydra.job):
        config.hydra.job.num, config.hydra.job.id = 0, "0"
    try:
        path = PurePath(str(OmegaConf.select(config, key)))
    except OmegaConfBaseException:  # as it says itself where it is needed
        return None
    out = path.is_absolute() and not _OWN_ROOT.match(text)
    return str(path) if out or (".." in path.parts and ".." not in PurePath(text).parts) else None


# Data, and what is around the runs


def _check_data(config: DictConfig, of_run: Sequence[str]) -> None:
    """Refuse a folder of data outside the current one, a database of a search, a number of runs."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    data = plain.get("data")
    for key in ("root", "test"):
        place = data.get(key) if isinstance(data, Mapping) else None
        outside = place is not None and ("${" in str(place) or _leaves(str(place)))
        if outside and not _sets(f"data.{key}", of_run):
            raise ConfigError(
                f"data.{key}={place}: a config file may name a folder in the current one; any "
                "other can be given on the command line, or by FMBENCH_DATA"
            )
    usual_of = {"sweep.storage": None, "sweep.study": None, "max_runs": Config.max_runs}
    for key, usual in usual_of.items():
        if OmegaConf.select(config, key, default=usual) != usual and not _sets(key, of_run):
            raise _not_by_a_file(key)
