"""Environment variables: what a config may read of them, which is little, and set, which is none.

A record keeps the config of its run, and may be published; a variable may be a secret.
"""

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from fmbench.errors import ConfigError

#: Set by launchers: how many runs of a sweep share this machine.
RUNS_AT_ONCE = "FMBENCH_RUNS_AT_ONCE"

#: The only key that may be read from the environment. Records leave it out.
_FROM_ENVIRONMENT = "data.root"

#: The variables read since the list was emptied.
_variables_read: list[str] = []


def read(name: str, *default: Any) -> str | None:
    """The resolver `oc.env`, which leaves word of what was read."""
    _variables_read.append(name)
    return oc.env(name, *default)


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
        if OmegaConf.is_missing(node, key) or place == _FROM_ENVIRONMENT:
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
            if _variables_read:
                raise ConfigError(
                    f"{place}: reads the environment variable {_variables_read[0]}; only "
                    f"{_FROM_ENVIRONMENT} may, so that none gets into a record"
                )
        elif OmegaConf.is_config(node[key]):
            refuse_in(node[key], place)


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
