"""What a config file may not set, whoever wrote it.

A file of options is somebody's text. It says what is trained; it does not say what Hydra starts,
which folders and files are written, and where data are fetched to: those are for the user to
decide, on the command line. Three parts of a composed config are checked:

- Hydra's own part must be what fmbench and the command line alone make of it, but for what a sweep
  searches and callbacks of trusted packages.
- A folder that a file names must lie below the current one.
- The place of the data likewise, and of a search its database.
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

from fmbench.config.instantiation import around_runs
from fmbench.config.schema import Config
from fmbench.config.whitelist import TRUST_VARIABLE
from fmbench.core.errors import ConfigError

#: Parts of Hydra's config that are checked one by one, or set by Hydra when it composes.
_APART = ("overrides", "runtime", "mode", "sweeper", "callbacks", "run", "sweep", "job")

_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")

#: What may stand in the name of a folder that a file gives. A dot would let `now` give `..`.
_HARMLESS = re.compile(
    r"\$\{(now:[^{}/.]*|fmbench\.token:|hydra[.:]job\.(num|id|name)|hydra:job\.(num|id))\}"
)

#: How the name of a folder begins that may be absolute.
_OWN_ROOT = re.compile(r"/|\$\{hydra[.:]runtime\.cwd")

_OF_LOGGING = (
    "logging.StreamHandler",
    "logging.FileHandler",
    "colorlog.ColoredFormatter",
    "sys.stdout",
    "sys.stderr",
)

_PLAIN = re.compile(r"(?!\.+$)[\w.-]{1,100}")


def refuse_untrusted(config: DictConfig, config_name: str | None = "config") -> None:
    """Refuse a config with something in it that only the command line may set.

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
    others = tuple(
        text
        for text in of_hydra
        if not text.lstrip("+~").startswith(("hydra.sweeper", "hydra/sweeper"))
        and not any(_sets(key, [text]) for key in _FOLDERS)
    )
    path = str(GlobalHydra.instance().config_loader().get_search_path())
    wanted, found = _wanted(config_name, others, path), _plain(config)
    _check_hydra(config, found, wanted, of_hydra)
    for folder in _FOLDERS:
        _, part, key = folder.split(".")
        there = found[part][key]
        _check_folder(folder, there, config, by_file=there != wanted[part][key]
                      and not _sets(folder, of_hydra))  # fmt: skip
    _check_data(config, of_run)


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


def _not_by_a_file(key: str) -> ConfigError:
    return ConfigError(f"{key}: a config file may not set it; it can be given on the command line")


# Hydra's part


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


def _check_hydra(
    config: DictConfig, found: dict[str, Any], wanted: dict[str, Any], of_hydra: Sequence[str]
) -> None:
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
    _check_started(found)
    n_jobs = (found["launcher"] or {}).get("n_jobs")
    of_another_key = isinstance(n_jobs, str) and n_jobs.startswith("${")
    if n_jobs is not None and not of_another_key and (type(n_jobs) is not int or n_jobs == 0):
        raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: must be 1 or more, or -1 for all cores")
    key = "hydra.sweeper.custom_search_space"
    if (found["sweeper"] or {}).get("custom_search_space") is not None and not _sets(key, of_hydra):
        raise _not_by_a_file(key)


def _same(key: str, found: Any, wanted: Any) -> None:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in dict.fromkeys([*found, *wanted]):
            _same(f"{key}.{name}", found.get(name), wanted.get(name))
    elif found != wanted:
        raise _not_by_a_file(key)


def _check_logging(path: str, node: Any) -> None:
    """Refuse what Python's logging would import or call: `()`, `class`, and `ext://`."""
    if not isinstance(node, (Mapping, list)):
        text = str(node)
        if path.endswith((".()", ".class")) or text.startswith("ext://"):
            _may_start(path, text.removeprefix("ext://"), _OF_LOGGING)
        return
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        _check_logging(f"{path}.{key}", value)


def _check_started(hydra: Mapping[str, Any]) -> None:
    """Refuse a launcher, a sweeper or a sampler that is not listed."""
    for part in ("launcher", "sweeper", "sweeper.sampler"):
        first, _, second = part.partition(".")
        option = (hydra[first] or {}).get(second) if second else hydra[first]
        if option == MISSING:
            raise ConfigError(f"hydra/{part}: cannot be taken out")
        if isinstance(option, str):  # a dot typed for a slash
            write = f"hydra/{part.replace('.', '/')}={option}"
            raise ConfigError(f"hydra.{part}={option}: is no option's content; write {write}")
        target = (option or {}).get("_target_")
        if target is not None:
            _may_start(f"hydra.{part}._target_", str(target))


def _may_start(key: str, target: str, more: Sequence[str] = ()) -> None:
    if not any(fnmatchcase(target, known) for known in (*around_runs(), *more)):
        raise ConfigError(f"{key}={target}: not allowed; {TRUST_VARIABLE} names packages to trust")


# Folders


def _leaves(path: PurePath) -> bool:
    """Whether a path leads out of the folder that it is taken from."""
    return path.is_absolute() or ".." in path.parts


def _check_folder(key: str, found: Any, config: DictConfig, *, by_file: bool) -> None:
    text = str(found)
    if not text.strip() or not text.isprintable():
        raise ConfigError(f"{key}={text}: must be the name of a folder, of printable characters")
    rest = _HARMLESS.sub("x", text)
    leaves = _leaves(PurePath(rest))
    roundabout = PurePath(rest).as_posix() != rest  # ./ would give a second name to a run's folder
    if key == "hydra.sweep.subdir" and ("${" not in text or leaves or roundabout):
        raise ConfigError(
            f"{key}={text}: must be below the sweep's folder and another for each run, such as "
            "${hydra.job.num}"
        )
    if by_file and ("${" in rest or rest.startswith("~") or leaves):
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
    """Refuse a folder of data outside the current one, to which files would be fetched.

    And the database of a search, and a number of runs: a sweep that is somebody's would say itself
    how much it may take.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    data = plain.get("data")
    root = data.get("root") if isinstance(data, Mapping) else None
    text = str(root)
    outside = "${" in text or text.startswith("~") or _leaves(PurePath(text))
    if root is not None and outside and not _sets("data.root", of_run):
        raise ConfigError(
            f"data.root={root}: a config file may name a folder in the current one; any other can "
            "be given on the command line, or by FMBENCH_DATA"
        )
    for key, usual in {
        "sweep.storage": None,
        "sweep.study": None,
        "max_runs": Config.max_runs,
    }.items():
        if OmegaConf.select(config, key, default=usual) != usual and not _sets(key, of_run):
            raise _not_by_a_file(key)
