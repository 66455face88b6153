"""What a sweep is going to do: which values of which keys, in how many runs."""

import copy
import math
from dataclasses import dataclass
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmbench.config import GROUPS, check, refuse_environment, resolve
from fmbench.errors import ConfigError


@dataclass(frozen=True)
class Axis:
    """One key of a sweep and the overrides that give it its values; one where it is fixed."""

    key: str
    overrides: tuple[Override, ...]


def is_search(config: DictConfig) -> bool:
    """Whether the sweeper looks for the best run, rather than running all of a grid."""
    return "n_trials" in config.hydra.sweeper


def total_runs(config: DictConfig) -> int:
    """How many runs a sweep has: the trials of a search, or the cells of a grid."""
    if is_search(config):
        return int(config.hydra.sweeper.n_trials)
    return math.prod(len(axis.overrides) for axis in axes(config))


def axes(config: DictConfig) -> list[Axis]:
    """The keys that a sweep sets: of `hydra.sweeper.params`, then of the command line.

    A key that both name is the command line's. A range of a search has no list of values: its two
    ends stand for it.

    Raises:
        ConfigError: a glob matches nothing.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    given = config.hydra.sweeper.get("params") or {}
    texts = [f"{key}={value}" for key, value in given.items()]
    found: dict[str, Axis] = {}
    for override in parser.parse_overrides(texts + list(config.hydra.overrides.task)):
        key = override.get_key_element()
        if override.is_discrete_sweep():
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not values:
                raise ConfigError(f"{override.input_line}: matches nothing")
            found[key] = Axis(key, tuple(parser.parse_overrides(values)))
        elif isinstance(value := override.value(), IntervalSweep):
            ends = [f"{key}={value.start}", f"{key}={value.end}"]
            found[key] = Axis(key, tuple(parser.parse_overrides(ends)))
        else:
            found[key] = Axis(key, (override,))
    return list(found.values())


def check_sweep(config: DictConfig, config_name: str) -> dict[str, Any]:
    """Check every value that a sweep gives to every key, one key at a time.

    Not every combination: there can be millions. One that fails only together with another ends
    its own run.

    Returns:
        The resolved config of the first run.

    Raises:
        ConfigError: a value cannot be, or a search would look for the worst run.
        HydraException: a value names no option or no key.
    """
    if is_search(config):
        direction = config.hydra.sweeper.direction
        name = getattr(direction, "name", direction)
        if name != "maximize":
            raise ConfigError(
                f"hydra.sweeper.direction={name}: runs return an accuracy, so it must be maximize; "
                "sweep=lr_batch has it set"
            )
        if config.hydra.sweeper.n_trials < 1:
            raise ConfigError(
                f"hydra.sweeper.n_trials={config.hydra.sweeper.n_trials}: must be 1 or more"
            )
    loader = GlobalHydra.instance().config_loader()
    every = axes(config)
    first = [_text(axis.overrides[0]) for axis in every]
    base = loader.load_configuration(config_name, first, RunMode.RUN)
    refuse_environment(base)
    resolved = resolve(base)
    check(resolved)
    _check_ready_sweep(base, resolved, first, config_name)
    own = OmegaConf.masked_copy(base, [str(key) for key in base if key != "hydra"])
    for place, axis in enumerate(every):
        for override in axis.overrides[1:]:
            there = OmegaConf.select(own, axis.key)
            # What is null now may become anything.
            is_group = there is None or axis.key in base.hydra.runtime.choices
            if is_group or OmegaConf.is_config(there):
                changed = [*first[:place], _text(override), *first[place + 1 :]]
                composed = loader.load_configuration(config_name, changed, RunMode.RUN)
                refuse_environment(composed)
                check(resolve(composed))
            else:
                # Ten times as fast as composing, and the values of a long range are of this kind.
                job = copy.deepcopy(own)
                OmegaConf.update(job, axis.key, override.value())
                check(resolve(job))
    return resolved


def _check_ready_sweep(
    base: DictConfig, resolved: dict[str, Any], overrides: list[str], config_name: str
) -> None:
    """Refuse a ready sweep that sets knobs itself.

    It may choose options and say what to sweep. A record leaves it out of its command, since that
    of one run must not start the sweep again; what it set would then be missing.
    """
    name = base.hydra.runtime.choices.get("sweep")
    if name in (None, "null"):
        return
    keys = [text.partition("=")[0] for text in overrides]
    without = [text for text in overrides if not text.startswith("sweep=")]
    chosen = base.hydra.runtime.choices
    without += [
        f"{group}={chosen[group]}"
        for group in (*GROUPS, "experiment")
        if group not in keys and chosen[group] is not None
    ]
    loader = GlobalHydra.instance().config_loader()
    other = resolve(loader.load_configuration(config_name, without, RunMode.RUN))
    changed = [key for key in resolved if resolved[key] != other.get(key)]
    if changed:
        raise ConfigError(
            f"sweep={name}: sets {', '.join(changed)}; a ready sweep may choose options and set "
            "hydra.sweeper, no knob of a run"
        )


def _text(override: Override) -> str:
    return str(override.input_line)
