"""All that fmbench uses of the private parts of Hydra, OmegaConf and Hydra's plugins.

A release may change any of it without notice. So these versions are pinned in pyproject.toml, and
each thing has one test in tests/config/test_hydra_compat.py that says what no longer works.

Plugins are imported by the functions that need them: Optuna alone takes a second.
"""

import contextlib
import hashlib
import pickle
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper as BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource as FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource as ImportlibResourcesConfigSource,
)
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import _run_hydra
from hydra._internal.utils import get_args_parser as get_args_parser
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, _save_config
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import TaskFunction
from hydra.version import VersionBase
from omegaconf import Container, DictConfig, Node, OmegaConf
from omegaconf.basecontainer import BaseContainer

_SWEEPER = "hydra_plugins.hydra_optuna_sweeper._impl"

#: The functions of Hydra's Optuna sweeper that make the samplers with two and more objectives.
SAMPLER_FUNCTIONS = (f"{_SWEEPER}.create_nsgaii_sampler", f"{_SWEEPER}.create_nsgaiii_sampler")

#: Hydra's own launcher and sweeper, as a config names them.
BASIC_LAUNCHER = f"{BasicLauncher.__module__}.{BasicLauncher.__qualname__}"
BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"

_LOAD_CONFIG = CachingConfigRepository.load_config
_MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
_RESOLVE = Container.resolve_parse_tree
_TO_CONTENT = BaseContainer._to_content

#: Merged options as pickles, which are read ten times as fast as a config is copied.
_merged: dict[bytes, bytes] = {}

#: Each has some 20 KB.
_MOST_MERGED = 100


# The command


def run_command(
    arguments: Namespace, parser: ArgumentParser, task: TaskFunction, config_dir: Path
) -> None:
    """Do what the arguments ask for with `config.yaml` of a folder, as `hydra.main` does."""
    _run_hydra(
        args=arguments,
        args_parser=parser,
        task_function=task,
        config_path=str(config_dir),
        config_name="config",
    )


# Composition


def read_with(**sources: type[ConfigSource]) -> None:
    """Have Hydra read configs of a scheme (`file`, `pkg`) with these classes."""
    Plugins.instance()  # registers Hydra's own sources, which would refuse to take turns later
    SourcesRegistry.instance().types.update(sources)


def store(name: str, node: DictConfig) -> None:
    """Have Hydra know a structured config by this name, in place of one that it had.

    Hydra's own method copies it, once for each run of a program with many.
    """
    name = f"{name}.yaml"
    ConfigStore.instance().repo[name] = ConfigNode(name, node, None, None, "fmbench")


def count_work(option: Callable[[int], None], cost: Callable[[int], None]) -> None:
    """Report what it costs to compose a config and to resolve its interpolations.

    Args:
        option: called with the number of each option that is loaded in a composition, from 1.
        cost: called with 5 for each interpolation, 1 more for each 20 characters of its value, and
            1 for each list or table that becomes plain Python.
    """

    def load(repository: CachingConfigRepository, config_path: str) -> ConfigResult | None:
        asked = vars(repository)["asked"] = vars(repository).get("asked", 0) + 1
        option(asked)
        return _LOAD_CONFIG(repository, config_path)

    def resolve(container: Container, *arguments: Any, **options: Any) -> Any:
        value = _RESOLVE(container, *arguments, **options)
        text = value._value() if isinstance(value, Node) else value
        cost(5 + (len(text) // 20 if isinstance(text, str) else 0))
        return value

    def to_content(*arguments: Any, **options: Any) -> Any:
        cost(1)
        return _TO_CONTENT(*arguments, **options)

    CachingConfigRepository.load_config = load  # type: ignore[method-assign,assignment]
    Container.resolve_parse_tree = resolve  # type: ignore[method-assign,assignment]
    BaseContainer._to_content = to_content  # type: ignore[method-assign]


def merge_once() -> None:
    """Have options that were merged before, with the same contents, not merged again.

    That takes half the time of a composition, and the runs of a sweep differ in values alone, which
    are set afterwards.
    """

    def merge(
        loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: CachingConfigRepository
    ) -> DictConfig:
        whole = [(default, _LOAD_CONFIG(repo, str(default.config_path))) for default in defaults]
        parts = [(vars(default), vars(loaded)) for default, loaded in whole if loaded is not None]
        try:
            key = hashlib.sha256(pickle.dumps(parts)).digest()
        except (AttributeError, TypeError, pickle.PicklingError):  # an object of another program's
            return _MERGE(loader, defaults, repo)
        if key not in _merged:
            while len(_merged) >= _MOST_MERGED:
                del _merged[next(iter(_merged))]
            merged = _MERGE(loader, defaults, repo)
            OmegaConf.clear_cache(merged)  # of what is new for each run, such as its folder
            _merged[key] = pickle.dumps(merged)
        made: DictConfig = pickle.loads(_merged[key])  # noqa: S301 - of our own making
        return made

    ConfigLoaderImpl._compose_config_from_defaults_list = merge  # type: ignore[method-assign,assignment]


@contextlib.contextmanager
def separate_state() -> Iterator[None]:
    """Give the block a Hydra of its own; what the process had set up is as before afterwards."""
    Plugins.instance()  # plugins register themselves, once
    store, registry = ConfigStore.instance(), SourcesRegistry.instance()
    before = Singleton._instances, BaseContainer._resolvers, store.repo, registry.types
    its_own = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
    Singleton._instances = {k: v for k, v in before[0].items() if k not in its_own}
    BaseContainer._resolvers = dict(before[1])
    # Hydra's own configs and those of its plugins.
    store.repo = {k: v for k, v in before[2].items() if k.startswith(("hydra", "_"))}
    registry.types = dict(before[3])
    try:
        yield
    finally:
        Singleton._instances, BaseContainer._resolvers, store.repo, registry.types = before
        CachingConfigRepository.load_config = _LOAD_CONFIG  # type: ignore[method-assign]
        ConfigLoaderImpl._compose_config_from_defaults_list = _MERGE  # type: ignore[method-assign]
        Container.resolve_parse_tree = _RESOLVE  # type: ignore[method-assign]
        BaseContainer._to_content = _TO_CONTENT  # type: ignore[method-assign]


@contextlib.contextmanager
def checked(check: Callable[[DictConfig, Sequence[str]], None]) -> Iterator[None]:
    """Have the config of a run or a sweep checked, with the overrides that it was composed with.

    That is before Hydra opens a log or makes a callback by it.
    """
    load = ConfigLoaderImpl._load_configuration

    def load_and_check(loader: ConfigLoaderImpl, **options: Any) -> DictConfig:
        config = load(loader, **options)
        if options["activate_config_repository"]:  # of a run or a sweep, none of our own
            check(config, options["overrides"])
        return config

    ConfigLoaderImpl._load_configuration = load_and_check  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ConfigLoaderImpl._load_configuration = load  # type: ignore[method-assign]


@contextlib.contextmanager
def without_hydra(config: DictConfig) -> Iterator[None]:
    """Have a config without its key `hydra` in the block; a copy would take much longer.

    A run has no such key either: what leads into it would mean one thing here, and nothing there.
    """
    content = vars(config)["_content"]
    vars(config)["_content"] = {key: node for key, node in content.items() if key != "hydra"}
    try:
        yield
    finally:
        vars(config)["_content"] = content


def root(node: Node) -> Any:
    """The whole config that a node is part of."""
    return node._get_root()


# Runs


def job_return(status: JobStatus, value: Any, overrides: Sequence[str] = ()) -> JobReturn:
    """What a launcher gives for a run: the value of one that completed, else its error."""
    made = JobReturn(overrides=list(overrides), status=status)
    made.return_value = value
    return made


def value(returned: JobReturn) -> Any:
    """What a run returned or raised; Hydra's own property raises it, and logs a line first."""
    return returned._return_value


def runs_in_turn(launcher: Mapping[str, Any]) -> bool:
    """Whether a launcher's config is that of Hydra's own, which runs in this process."""
    return launcher.get("_target_") == BASIC_LAUNCHER


def file_being_written(error: BaseException) -> Path | None:
    """The config that Hydra was writing into a run folder when this error arose, or None."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is _save_config.__code__ and "file" in frame.f_locals:
            return Path(frame.f_locals["file"].name)
    return None


# Sweepers


def params(sweeper: BasicSweeper) -> list[str]:
    """What the config of a grid sweeps, as overrides."""
    return sweeper._parse_config()


def search_space(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """What a search varies: Optuna's distributions by key; what it sets by key; what it deletes.

    Raises:
        AssertionError, NotImplementedError, ValueError: Optuna has no such distribution.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    space, fixed, deleted = create_params_from_overrides(list(overrides))
    return space, fixed, deleted


def grid_of(space: Mapping[str, Any]) -> dict[str, Any]:
    """All values of each distribution; a `ValueError` where there is no end of them."""
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    return {name: OptunaSweeperImpl._to_grid_sampler_choices(one) for name, one in space.items()}
