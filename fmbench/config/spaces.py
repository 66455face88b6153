"""Search spaces: which values of an optimizer's arguments a search tries.

Every option of `optimizer` brings its own, under `search`, with keys relative to the option, as
`lr: tag(log, interval(1e-3, 0.3))`. It is no part of the option's config: a run does not see it.
"""

import re
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fmbench.config.keys import SPACE
from fmbench.config.schema import KEYS
from fmbench.config.trust import typed
from fmbench.core.errors import ConfigError

#: How an override of it begins.
_TYPED = re.compile(rf"[+~]*{re.escape(SPACE)}\b")

#: How a value of `hydra.sweeper.params` refers to it.
_REFERS = re.compile(rf"\$\{{(oc\.select:\s*)?{re.escape(SPACE)}\b")


def is_of_space(override: str) -> bool:
    """Whether an override changes an optimizer's space, and nothing of a run."""
    return _TYPED.match(override) is not None


def space(config: DictConfig) -> dict[str, str]:
    """The space that the optimizer of a composed config brings, as overrides of a search.

    Args:
        config: composed, interpolations not yet followed; with or without its `hydra` part.

    Returns:
        Such as `{"optimizer.lr": "tag(log, interval(1e-3, 0.3))"}`; empty where it brings none.

    Raises:
        ConfigError: a value is no range and no list, or the optimizer has no such key.
    """
    given = OmegaConf.select(config, SPACE)
    if given is None:
        return {}
    if not isinstance(given, DictConfig):
        raise ConfigError(f"{SPACE}={given}: must be a table of KEY: VALUES, or null")
    found = {}
    for name, values in ((str(key), value) for key, value in given.items()):
        if values is None:
            continue
        if OmegaConf.select(config, f"optimizer.{name}", default=...) is ...:
            raise ConfigError(f"{SPACE}.{name}: this optimizer has no key {name}")
        found[f"optimizer.{name}"] = _checked(name, values)
    return found


def _checked(name: str, values: Any) -> str:
    wrong = ConfigError(
        f"{SPACE}.{name}={values}: must be a range or a list in words, such as "
        "tag(log, interval(1e-3, 0.1)) or choice(0.8, 0.9), or null"
    )
    try:
        override = OverridesParser.create().parse_override(f"optimizer.{name}={values}")
    except HydraException:
        raise wrong from None
    if not override.is_sweep_override():
        raise wrong
    return str(values)


def is_by_name(config: DictConfig) -> bool:
    """Whether the optimizer is any of many, whose ranges have nothing in common."""
    target = str(OmegaConf.select(config, "optimizer._target_", throw_on_missing=False))
    return target.startswith("fmbench.optim.by_name.")


def unranged(option: str) -> str:
    """What is said where an optimizer by name is searched without a range."""
    return (
        f"{option}: brings no range, for each optimizer by name has its own (that of Prodigy is "
        "around 1); such as 'optimizer.lr=tag(log,interval(1e-4,0.1))' gives it one"
    )


def params(config: DictConfig) -> dict[str, str]:
    """What `hydra.sweeper.params` of a sweep says, by key; null takes a key out of the search."""
    return of_params(config.hydra.sweeper.get("params"))


def of_params(given: Mapping[Any, Any] | None) -> dict[str, str]:
    """The same of such params."""
    return {str(key): str(values) for key, values in (given or {}).items() if values is not None}


def told(config: DictConfig) -> list[str]:
    """What a search is going to vary, and who says so: lines for its user.

    Raises:
        ConfigError: a range would be guessed of an optimizer by name.
    """
    given = {key.lstrip("+"): values for key, values in params(config).items()}
    parser = OverridesParser.create()
    on_line = {}
    for override in parser.parse_overrides([t for t in typed(config)[1] if not is_of_space(t)]):
        key = str(override.get_key_element()).lstrip("+~")
        given.pop(key, None)
        if override.is_sweep_override() and not (key in KEYS and KEYS[key].repeats):
            on_line[key] = str(override.input_line).partition("=")[2]
    raw: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    written = {str(key).lstrip("+"): str(text) for key, text in (raw["params"] or {}).items()}
    option, brought = f"optimizer={config.hydra.runtime.choices.get('optimizer')}", space(config)
    parts = [f"{key}: {values} (as typed)" for key, values in on_line.items()]
    for key, values in given.items():
        whose = "as hydra.sweeper.params says"
        if _REFERS.match(written[key]):
            whose = f"of {option}" if key in brought else f"as usual; {option} brings no range"
            if key not in brought and is_by_name(config):
                raise ConfigError(unranged(option))
        parts.append(f"{key}: {values} ({whose})")
    lines = [f"searches {'; '.join(parts)}"] if parts else []
    if several := (given | on_line).get("optimizer"):
        lines.append(
            f"optimizer={several}: one search, in which the optimizers share a budget and a space; "
            "sweep=tuned gives each its own"
        )
    return lines
