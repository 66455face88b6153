"""Environment variables: what a config may read of them, which is little, and set, which is none.

A record keeps the config of its run, and may be published; a variable may be a secret.
"""

import os
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from fmbench.core.errors import FROM_ENVIRONMENT, ConfigError

#: Set by launchers: how many runs of a sweep share this machine.
RUNS_AT_ONCE = "FMBENCH_RUNS_AT_ONCE"

#: The only key that may be read from the environment, and the variable. Records leave it out.
_FROM_ENVIRONMENT, _VARIABLE = "data.root", "FMBENCH_DATA"

#: Of a text, the variables that it names.
_NAMED = re.compile(r"oc\.env:\s*([^\s,{}]+)")

#: The variables read since the list was emptied.
_variables_read: list[str] = []

#: Those that the command line names itself.
_typed: set[str] = set()


class VariableError(ConfigError):
    """A config file is to read a variable that it may not."""


def read(name: str, *default: Any, _root_: Any) -> str | None:
    """The resolver `oc.env`, which leaves word of what was read.

    A file may read the place of the data. What else there is in the environment may be a secret,
    and would be quoted by the first error about it: only who types a name may have it read.

    Raises:
        VariableError: it is another variable.
    """
    note_typed(_root_)
    _variables_read.append(name)
    if name != _VARIABLE and name not in _typed:
        raise VariableError(
            f"reads the environment variable {name}; of a config file only {_FROM_ENVIRONMENT} may "
            f"read one, {_VARIABLE}"
        )
    return oc.env(name, *default)


def note_typed(root: Any) -> None:
    """Note the variables that a command line names, where a config has its `hydra` part."""
    given = OmegaConf.select(root, "hydra.overrides", throw_on_resolution_failure=False)
    if isinstance(given, DictConfig):
        words = str(OmegaConf.to_container(given, resolve=False)).replace("\\", "")
        _typed.clear()
        _typed.update(_NAMED.findall(words))  # a sweep puts them in quotes


def refuse_in(node: Any, path: str) -> None:
    """Refuse values that come from the environment: they would be written into records.

    Each value is read by itself, so that one which leads there through others is found too.

    Args:
        node: of a composed config, whose values are looked at.
        path: of the node, with dots.

    Raises:
        ConfigError: the first key whose value does.
    """
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        place = f"{path}.{key}" if path else str(key)
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            _variables_read.clear()
            try:
                value = node[key]
                if OmegaConf.is_config(value):
                    OmegaConf.to_container(value, resolve=True)
            except OmegaConfBaseException:
                if not _variables_read:
                    raise
            foreign = [name for name in _variables_read if name != _VARIABLE and name not in _typed]
            if foreign or (_variables_read and place != _FROM_ENVIRONMENT):
                name = (foreign or _variables_read)[0]
                raise ConfigError(
                    f"{place}: reads the environment variable {name}; only {_FROM_ENVIRONMENT} "
                    f"may, so that none gets into a record, and of a config file only {_VARIABLE}"
                )
        elif OmegaConf.is_config(node[key]):
            refuse_in(node[key], place)


def place_of_data(node: Any, base: Path) -> str | None:
    """The folder of the data, where a variable names it: absolute, and called by it in errors.

    Args:
        node: the `data` part of a composed config.
        base: where the program was started.
    """
    if not OmegaConf.is_config(node) or not OmegaConf.is_interpolation(node, "root"):
        return None
    _variables_read.clear()
    root = node["root"]
    named = [name for name in _variables_read if os.environ.get(name)]
    if not named or not isinstance(root, str) or not root:
        return None
    path = Path(os.path.expanduser(root))  # noqa: PTH111 - Path's raises where there is no user
    found = str(base / path)
    whole = os.environ.get(named[0]) == root
    FROM_ENVIRONMENT[found] = f"${named[0]}" if whole else _FROM_ENVIRONMENT
    return found


def refuse_set(config: DictConfig) -> None:
    """Refuse a config that sets environment variables: they can make programs run other programs.

    Raises:
        ConfigError: `hydra.job.env_set` is not empty.
    """
    names = list(config.hydra.job.env_set)
    if names:
        raise ConfigError(
            f"hydra.job.env_set.{names[0]}: a config may not set environment variables; "
            "set them in the shell"
        )
