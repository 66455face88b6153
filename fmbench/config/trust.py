"""What a config file may not set, whoever wrote it: Hydra itself.

Hydra is configured by the same files as a run: the folders that it writes into, the files that it
logs to, the callbacks, launchers and sweepers that it starts. A file of options is somebody's text;
those are for the user to decide. So the `hydra` part of a composed config must be what fmbench and
the command line alone make of it. A file may set what a sweep searches, a folder below the current
one, and callbacks of trusted packages.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fmbench.config.schema import Config
from fmbench.config.whitelist import TRUST_VARIABLE, execution_whitelist
from fmbench.core.errors import ConfigError

#: What is looked at one by one, or set by Hydra when it composes.
_APART = ("overrides", "runtime", "mode", "sweeper", "callbacks", "run", "sweep", "job")

_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")

#: What may stand in the name of a folder that a file gives. A dot would let `now` give `..`.
_HARMLESS = re.compile(
    r"\$\{(now:[^{}/.]*|fmbench\.token:|hydra[.:]job\.(num|id|name)|hydra:job\.(num|id))\}"
)

#: How the name of a folder begins that may be absolute.
_OWN_ROOT = re.compile(r"/|\$\{hydra[.:]runtime\.cwd")

_NOT_BY_A_FILE = "{}: a config file may not set it; it can be given on the command line"

_OF_LOGGING = (
    "logging.StreamHandler",
    "logging.FileHandler",
    "colorlog.ColoredFormatter",
    "sys.stdout",
    "sys.stderr",
)

_PLAIN = re.compile(r"(?!\.+$)[\w.-]{1,100}")


def refuse_untrusted(config: DictConfig, config_name: str | None = "config") -> None:
    """Refuse a config whose `hydra` part is not what the command line makes of it.

    Args:
        config: composed, with its `hydra` part; Hydra must still be initialized.
        config_name: that it was composed from.

    Raises:
        ConfigError: the first key that a file may not set, or that cannot be.
    """
    refuse_variables(config)
    of_hydra, of_run = typed(config)
    # Those of the sweeper may need one that a ready sweep chooses. The folders that were typed are
    # the ones that are there; without them, the runs of a process share one composition.
    typed_folders = {key for key in _FOLDERS if _sets(key, of_hydra)}
    others = tuple(
        text for text in of_hydra if _kept(text) and not any(_sets(key, [text]) for key in _FOLDERS)
    )
    path = str(GlobalHydra.instance().config_loader().get_search_path())
    wanted = _wanted(config_name, others, path)
    found = _plain(config)
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
    for folder in _FOLDERS:
        _, part, key = folder.split(".")
        there = found[part][key]
        given = there if folder in typed_folders else wanted[part][key]
        _check_folder(folder, there, given, config)
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
    _check_started(found, of_hydra)
    _check_data(config, of_run)
    for key in ("sweep.storage", "sweep.study"):
        if OmegaConf.select(config, key) is not None and not _sets(key, of_run):
            raise ConfigError(_NOT_BY_A_FILE.format(key))
    # Or a sweep that is somebody's would say itself how much it may take.
    if config.get("max_runs", Config.max_runs) != Config.max_runs and not _sets("max_runs", of_run):
        raise ConfigError(_NOT_BY_A_FILE.format("max_runs"))


def refuse_variables(config: DictConfig) -> None:
    """Refuse a config that sets environment variables: they can make programs run other programs.

    Raises:
        ConfigError: `hydra.job.env_set` is not empty.
    """
    for name in config.hydra.job.env_set:
        raise ConfigError(
            f"hydra.job.env_set.{name}: a config may not set environment variables; "
            "set them in the shell"
        )


def refuse_untrusted_runs(
    loader: ConfigLoader, config: DictConfig, runs: Iterable[Sequence[str]]
) -> None:
    """Refuse runs of a sweep whose options set together what none of them sets alone.

    Args:
        loader: Hydra's.
        config: of the sweep.
        runs: the overrides of each run.

    Raises:
        ConfigError: as `refuse_untrusted`.
        HydraException: one cannot be composed.
    """
    for overrides in runs:
        composed = loader.load_sweep_config(config, list(overrides))
        refuse_untrusted(composed, config.hydra.job.config_name)


def typed(config: Any) -> tuple[list[str], list[str]]:
    """The overrides of a command line, of Hydra and of the run, as they were typed.

    Taken one by one, their interpolations would be resolved.

    Args:
        config: with a `hydra` part.
    """
    given = OmegaConf.to_container(config.hydra.overrides, resolve=False)
    assert isinstance(given, dict)
    of_hydra, of_run = ([str(text) for text in given[part]] for part in ("hydra", "task"))
    return of_hydra, of_run


def _sets(key: str, overrides: Sequence[str]) -> bool:
    return any(text.lstrip("+").startswith(f"{key}=") for text in overrides)


def _kept(override: str) -> bool:
    return not override.lstrip("+~").startswith(("hydra.sweeper", "hydra/sweeper"))


@lru_cache(maxsize=8)  # the same for the command, for its run and for each option of a sweep
def _wanted(config_name: str | None, overrides: tuple[str, ...], _path: str) -> dict[str, Any]:
    """The `hydra` part that a command line makes with these overrides and no other."""
    loader = GlobalHydra.instance().config_loader()
    return _plain(loader.load_configuration(config_name, list(overrides), RunMode.MULTIRUN))


def _plain(config: DictConfig) -> dict[str, Any]:
    """The `hydra` part as it was written, interpolations not followed."""
    plain = OmegaConf.to_container(config.hydra, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _same(key: str, found: Any, wanted: Any) -> None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in dict.fromkeys([*found, *wanted]):
            _same(f"{key}.{name}", found.get(name), wanted.get(name))
    elif found != wanted:
        raise ConfigError(_NOT_BY_A_FILE.format(key))


def _check_folder(key: str, found: Any, wanted: Any, config: DictConfig) -> None:
    text = str(found)
    if not text.strip() or not text.isprintable():
        raise ConfigError(f"{key}={text}: must be the name of a folder, of printable characters")
    rest = _HARMLESS.sub("x", text)
    inside = not PurePath(rest).is_absolute() and ".." not in PurePath(rest).parts
    roundabout = PurePath(rest).as_posix() != rest  # ./ would give a second name to a run's folder
    if key == "hydra.sweep.subdir" and ("${" not in text or not inside or roundabout):
        raise ConfigError(
            f"{key}={text}: must be below the sweep's folder and another for each run, such as "
            "${hydra.job.num}"
        )
    if found != wanted and ("${" in rest or rest.startswith("~") or not inside):
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


def _check_data(config: DictConfig, of_run: Sequence[str]) -> None:
    """Refuse a folder of data outside the current one that a file names: fetched files go there.

    `FMBENCH_DATA`, and what is typed, may name any.
    """
    key = "data.root"
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    data = plain.get("data")
    root = data.get("root") if isinstance(data, Mapping) else None
    if root is None or _sets(key, of_run):
        return
    path = PurePath(str(root))
    if "${" in str(root) or str(root).startswith("~") or path.is_absolute() or ".." in path.parts:
        raise ConfigError(
            f"{key}={root}: a config file may name a folder in the current one; any other can be "
            "given on the command line, or by FMBENCH_DATA"
        )


def _check_logging(path: str, node: Any) -> None:
    """Refuse what Python's logging would import or call: `()`, `class`, and `ext://`."""
    if not isinstance(node, (Mapping, list)):
        text = str(node)
        if path.endswith((".()", ".class")) or text.startswith("ext://"):
            _may_start(path, text.removeprefix("ext://"), _OF_LOGGING)
        return
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        _check_logging(f"{path}.{key}", value)


def _may_start(key: str, target: str, more: Sequence[str] = ()) -> None:
    if not any(fnmatchcase(target, known) for known in (*execution_whitelist(), *more)):
        raise ConfigError(f"{key}={target}: not allowed; {TRUST_VARIABLE} names packages to trust")


def _refuse_name(part: str, value: Any) -> None:
    """Refuse the name of an option where its content belongs: a dot typed for a slash."""
    if isinstance(value, str):
        option = f"hydra/{part.replace('.', '/')}={value}"
        raise ConfigError(f"hydra.{part}={value}: is no option's content; write {option}")


def _check_started(hydra: Mapping[str, Any], of_hydra: Sequence[str]) -> None:
    """Refuse a launcher or a sweeper that is not listed, and code that a sweeper is to find."""
    for part in ("launcher", "sweeper"):
        if hydra[part] == MISSING:
            raise ConfigError(f"hydra/{part}: cannot be taken out")
        _refuse_name(part, hydra[part])
        target = (hydra[part] or {}).get("_target_")
        if target is not None:
            _may_start(f"hydra.{part}._target_", str(target))
    _refuse_name("sweeper.sampler", (hydra["sweeper"] or {}).get("sampler"))
    sampler = ((hydra["sweeper"] or {}).get("sampler") or {}).get("_target_")
    if sampler is not None:
        _may_start("hydra.sweeper.sampler._target_", str(sampler))
    n_jobs = (hydra["launcher"] or {}).get("n_jobs")
    of_another_key = isinstance(n_jobs, str) and n_jobs.startswith("${")
    if n_jobs is not None and not of_another_key and (type(n_jobs) is not int or n_jobs == 0):
        raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: must be 1 or more, or -1 for all cores")
    key = "hydra.sweeper.custom_search_space"
    searched = (hydra["sweeper"] or {}).get("custom_search_space")
    if searched is not None and not _sets(key, of_hydra):
        raise ConfigError(_NOT_BY_A_FILE.format(key))
