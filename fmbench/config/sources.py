"""Where configs are read from: files, bounded and named in every error, and Hydra's own packages.

Hydra finds an option in folders and inside packages. To look into a package imports it, which runs
its code; and a file in a folder of somebody's can be anything. Both are checked here first.
"""

import contextlib
import errno
import io
import pickle
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path, PurePath
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmbench.config import hydra_compat
from fmbench.config.hydra_compat import FileConfigSource, ImportlibResourcesConfigSource
from fmbench.config.schema import OF_SWEEPS
from fmbench.core.console import typed_path
from fmbench.core.errors import ConfigError
from fmbench.core.files import read_regular

PACKAGE = Path(__file__).resolve().parents[1]

#: In a wheel `conf` travels inside the package; in a checkout it stands beside it.
CONFIG_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

#: The largest config of fmbench has 2 KB. What is larger than this is none, and not worth parsing.
MAX_BYTES = 2**20

#: Of a value in such a file, of a number, of the interpolations in one value (and ten times as many
#: in all); values in a file, as many as OmegaConf takes.
MOST_CHARACTERS, MOST_DIGITS, MOST_INTERPOLATIONS, MOST_NODES = 10_000, 100, 50, 10_000

_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-F_:.xXoO]*([eE][-+]?[0-9_]*)?")
_EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Groups whose options set keys of the whole config.
_GLOBAL = ("experiment", "sweep")

#: What a ready sweep may set, and what its defaults may be; all else would be of a run.
_OF_A_SWEEP = {"defaults", "hydra", "logger", *OF_SWEEPS}
_CHOICE = re.compile(r"override .*|(/sweep/)?[\w.-]+")

#: Options that a config may be composed of; those of fmbench take some 50. Two that each name the
#: next one twice, and so on, would be composed for ever.
MOST_OPTIONS = 500

#: What the interpolations of a config may cost together: each 5, and 5 more for 100 characters;
#: each list or table that they lead to 1.
MOST_COST = 20_000

#: The packages whose configs Hydra may look for.
PACKAGES = ("hydra", "hydra_plugins")


class _Below(ConfigSource):
    """Options that lie below a folder, whatever a config calls them."""

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file."""
        with contextlib.suppress(OSError):  # a name may be too long for the system
            return self.may_have(config_path) and super().is_config(config_path)  # type: ignore[safe-super]
        return False

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a folder of options."""
        with contextlib.suppress(OSError):
            return self.may_have(config_path) and super().is_group(config_path)  # type: ignore[safe-super]
        return False

    def may_have(self, config_path: str) -> bool:
        """Whether a path stays in the folder: Hydra takes `//` for the root of the system."""
        path = PurePath(config_path)
        return not path.is_absolute() and ".." not in path.parts


#: Of fmbench's own files, by path and state; as pickles, of which each load is a copy.
_parsed_files: dict[tuple[Path, int, int, int], bytes] = {}


class ConfigFiles(_Below, FileConfigSource):
    """A folder of options; one of the user's has none for Hydra itself, nor another schema."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.own = Path(self.path) == CONFIG_DIR
        if provider.startswith("hydra.searchpath") and not Path(self.path).is_dir():
            raise ConfigError(f"hydra.searchpath: {path} is no folder")

    def may_have(self, config_path: str) -> bool:
        """Whether the folder may have such an option."""
        hydras = config_path == "schema" or config_path.partition("/")[0] == "hydra"
        return super().may_have(config_path) and (self.own or not hydras)

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one file, or refuse it."""
        path = Path(self.path, self._normalize_file_name(config_path))
        try:
            # A link in a folder that was received may lead to any file of the user's, and a record
            # would hold that. Those of fmbench's own options are an installer's.
            if not self.own and not path.resolve().is_relative_to(Path(self.path).resolve()):
                raise ConfigError(f"{path}: is a link out of {self.path}, and is not followed")
            config, header = self._parsed_once(path) if self.own else self._parsed(path)
            group = config_path.partition("/")[0]
            if group in _GLOBAL and header.get("package") != "_global_":
                raise ConfigError(f"{path}: must begin with the line '# @package _global_'")
            # A record leaves a ready sweep out of its command, since that of one run must not start
            # the sweep again. What it had set would then be missing.
            if group == "sweep" and (keys := _of_runs(OmegaConf.to_container(config))):
                raise ConfigError(
                    f"{path}: sets {', '.join(keys)}; a ready sweep may choose options, set "
                    "hydra.sweeper and the keys of sweep, no key of a run"
                )
            where = f"{self.scheme()}://{self.path}"
            return ConfigResult(config=config, path=where, provider=self.provider, header=header)
        except (HydraException, OmegaConfBaseException):
            raise
        except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}{_fault(error)}") from error

    def _parsed(self, path: Path) -> tuple[Any, dict[str, str | None]]:
        """What a file holds, and the keys of its header."""
        # Some editors begin a file with a byte-order mark, which would hide its first line.
        content = read_regular(path, MAX_BYTES).decode("utf-8-sig")
        text = io.StringIO(content, newline=None).getvalue()
        if not self.own:
            _refuse_costly(path, text)
        return OmegaConf.load(io.StringIO(text)), self._get_header_dict(text)

    def _parsed_once(self, path: Path) -> tuple[Any, dict[str, str | None]]:
        """The same of one of fmbench's own, which a sweep reads again for each of its runs."""
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_size, state.st_ino)
        if key not in _parsed_files:
            _parsed_files[key] = pickle.dumps(self._parsed(path))
        # Hydra takes the list of defaults out of it.
        config, header = pickle.loads(_parsed_files[key])  # noqa: S301 - of our own making
        return config, header


class ConfigPackages(_Below, ImportlibResourcesConfigSource):
    """The configs inside a package, if it is one of Hydra's."""

    def __init__(self, provider: str, path: str) -> None:
        name = path.partition("://")[2].replace("/", ".")
        if name.partition(".")[0] not in PACKAGES:
            raise ConfigError(
                f"{path}: configs in packages are not read; allowed is a folder, --config-dir DIR"
            )
        super().__init__(provider, path)


#: The user's folders of options, of the running command.
_folders: ContextVar[Sequence[Path]] = ContextVar("folders", default=())


class OwnFolders(SearchPathPlugin):
    """The user's folders of options, behind fmbench's own; Hydra's own flag takes a single one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add them, in their order."""
        for path in _folders.get():
            search_path.append("command-line", f"file://{path}")


@contextlib.contextmanager
def own_folders(paths: Sequence[Path]) -> Iterator[None]:
    """Have whatever Hydra initializes meanwhile look into these folders too."""
    token = _folders.set(paths)
    try:
        yield
    finally:
        _folders.reset(token)


def own() -> Sequence[Path]:
    """The folders of options of the user's own, as far as this process was given any."""
    return _folders.get()


def found(given: Iterable[str | Path]) -> list[Path]:
    """The folders that were given with `--config-dir`, absolute; refused where one is not there."""
    paths = {typed_path(str(name)).absolute(): name for name in given}
    for path, name in paths.items():
        if not path.is_dir():
            raise ConfigError(f"--config-dir {name}: no such folder")
    return list(paths)


def refuse_twice(choices: Mapping[str, object]) -> None:
    """Refuse a chosen option that two of the user's folders have: Hydra takes the first."""
    for group, option in choices.items():
        name = f"{group}/{option}.yaml"
        theirs = [str(path) for path in _folders.get() if Path(path, name).is_file()]
        if len(theirs) > 1 and not Path(CONFIG_DIR, name).is_file():
            raise ConfigError(
                f"{group}={option}: is in {' and in '.join(theirs)}; give one of them"
            )


# Hydra tells them by these names, where it meets its own once more in a process of a sweep.
ConfigFiles.__name__ = FileConfigSource.__name__
ConfigPackages.__name__ = ImportlibResourcesConfigSource.__name__


#: What interpolations have cost since the last option was loaded, or `begin_cost`.
_cost: ContextVar[int] = ContextVar("cost", default=0)


def begin_cost(option: int = 0) -> None:
    """Let another option be loaded, by its number in a composition, or another config resolved."""
    if option > MOST_OPTIONS:
        raise ConfigError(
            f"the config is composed of over {MOST_OPTIONS:,} options, or one of its files leads "
            "to itself"
        )
    _cost.set(0)


def _add_cost(more: int) -> None:
    """Where each value names the next one twice, the last of thirty is read a billion times."""
    _cost.set(_cost.get() + more)
    if _cost.get() > MOST_COST:
        raise ConfigError("the interpolations of the config, ${...}, lead to too many others")


def install() -> None:
    """Have Hydra read configs through this module; calling it again is harmless."""
    hydra_compat.read_with(file=ConfigFiles, pkg=ConfigPackages)
    hydra_compat.count_work(begin_cost, _add_cost)
    hydra_compat.merge_once()
    begin_cost()
    Plugins.instance().register(OwnFolders)


#: Hydra's state is that of the process, so one thread at a time has it.
_alone = threading.RLock()


@contextlib.contextmanager
def hydra_alone() -> Iterator[None]:
    """Hydra for fmbench alone, whatever else in the process uses it; other threads wait."""
    with _alone, hydra_compat.separate_state():
        yield


def _of_runs(sweep: Any) -> list[str]:
    """What a ready sweep sets, or has others set, that is of a run."""
    keys = {*map(str, sweep)} - _OF_A_SWEEP
    defaults = sweep.get("defaults") or [] if isinstance(sweep, dict) else []
    names = (str(next(iter(one), "") if isinstance(one, dict) else one) for one in defaults)
    return sorted(keys.union(name for name in names if not _CHOICE.fullmatch(name)))


def _refuse_costly(path: Path, text: str) -> None:
    """Refuse what takes minutes to be understood.

    A number is read in a time that grows with the square of its length, and so is what stands in
    `${}`. In YAML 1:30 is a number too, to the base 60.
    """
    nodes = interpolations = 0
    for event in yaml.parse(text, Loader=_EVENTS):
        if not isinstance(event, yaml.ScalarEvent):
            continue
        value, here = event.value, event.value.count("${")
        nodes, interpolations = nodes + 1, interpolations + here
        if len(value) > MOST_CHARACTERS:
            fault = f"a value of over {MOST_CHARACTERS:,} characters"
        elif len(value) > MOST_DIGITS and _NUMBER.fullmatch(value):
            fault = f"a number of over {MOST_DIGITS} characters"
        elif max(here, interpolations / 10) > MOST_INTERPOLATIONS:
            fault = f"over {MOST_INTERPOLATIONS} interpolations"
        elif nodes > MOST_NODES:
            fault = f"over {MOST_NODES:,} values"
        else:
            continue
        raise ConfigError(f"{path}, line {event.start_mark.line + 1}: {fault}")


def _fault(error: Exception) -> str:
    """What is wrong with a file, to be said behind its path."""
    if isinstance(error, OSError):
        if error.errno == errno.EFBIG:
            return f": a config file may have at most {MAX_BYTES:,} bytes"
        return f": cannot be read: {error.strerror or error}"
    if isinstance(error, UnicodeDecodeError):
        return ": not UTF-8 text; a config file must be"
    if isinstance(error, RecursionError):
        return ": nested too deeply for a config"
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        text = str(getattr(error, "problem", None) or error)
        said = " ".join(text.partition(". See ")[0].partition("\n  in ")[0].split())
        return f"{where}: {said}"
    return f": {str(error).partition(';')[0]}"  # a number of 5,000 digits, a header that is none
