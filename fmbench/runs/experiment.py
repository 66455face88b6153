"""How the config of a run was composed: the names it gives, how it differs from its experiment.

A published figure belongs to its recipe. A run with fewer epochs is still worth a row, but the
difference to the published accuracy would then say nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmbench.config import schema
from fmbench.config.checks import CONFIG_DIR, GROUPS, resolve
from fmbench.config.overrides import mended
from fmbench.config.whitelist import TARGETS
from fmbench.records.record import leaves, recorded_overrides


def described(config: Mapping[str, Any], hydra: Any) -> dict[str, Any]:
    """The fields of a record that say how a resolved config was composed, by its `hydra` part.

    The Hydra program that composed it must still be running.
    """
    names = labels(config, hydra)
    for group in ("model", "optimizer"):  # one option that stands for many: timm, torch, extra
        if "name" in config[group]:
            names[group] += f"/{config[group]['name']}"
    sources = hydra.runtime.config_sources
    return {
        **{name: names[name] for name in (*TARGETS, "augmentation")},
        "choices": options(hydra),
        "overrides": recorded_overrides([*_typed(hydra), *options_of_sweep(hydra)]),
        "experiment": chosen(hydra, "experiment"),
        "deviations": deviations(config, hydra),
        "config_dirs": _own_folders((one.schema, one.path) for one in sources),
    }


def options(hydra: Any) -> dict[str, str]:
    """The option taken from each group, by the `hydra` part of a config."""
    return {group: str(hydra.runtime.choices.get(group)) for group in GROUPS}


def labels(config: Mapping[str, Any], hydra: Any) -> dict[str, str]:
    """What tables call the option of each group: its name, or the target where that is another."""
    found = options(hydra)
    for group in TARGETS:
        target = config[group].get("_target_")
        usual = _target_of(hydra.job.config_name, group, found[group])
        if usual is not None and target != usual:
            found[group] = str(target)
    return found


def _target_of(name: str, group: str, option: str) -> Any:
    """The `_target_` of an option; None where that cannot be composed alone."""
    shipped = CONFIG_DIR / group / f"{option}.yaml"
    if shipped.is_file():
        return OmegaConf.select(OmegaConf.load(shipped), "_target_")
    try:
        alone = _loaded(name, mended([f"{group}={option}"]))
    except (HydraException, OmegaConfBaseException):
        return None
    return OmegaConf.select(alone, f"{group}._target_")


def chosen(hydra: Any, group: str) -> str | None:
    """The option taken from a group that may be left empty: `experiment` or `sweep`."""
    option = hydra.runtime.choices.get(group)
    return None if option in (None, "null") else str(option)


def deviations(config: Mapping[str, Any], hydra: Any) -> list[str]:
    """The overrides that lead from the experiment as published to this run, such as `epochs=3`.

    Empty without an experiment. The seed, the device and its settings, and when the test set is
    evaluated are no part of a recipe.
    """
    experiment = chosen(hydra, "experiment")
    if experiment is None:
        return []
    name = _shipped_with(config["reference"]) or experiment
    published, there = _composed(hydra.job.config_name, [f"experiment={name}"])
    recipe, here = dict(_recipe(config)), options(hydra)
    found = [f"{group}={here[group]}" for group in GROUPS if here[group] != there[group]]
    for key in dict.fromkeys([*published, *recipe]):
        group = max((name for name in GROUPS if key.startswith(f"{name}.")), key=len, default="")
        # What another option is made of follows from the option.
        if group and here[group] != there[group]:
            continue
        if key not in recipe:
            # Of a part that is null now, null says it all.
            if not any(key.startswith(f"{other}.") for other in recipe):
                found.append(f"~{key}")
        elif recipe[key] != published.get(key):
            found.append(f"{key}={recipe[key]}")
    return found


def options_of_sweep(hydra: Any) -> list[str]:
    """The overrides that stand for `sweep=NAME` in the command of one of its runs.

    With `sweep=NAME` in it, that command would be the whole sweep's.
    """
    if chosen(hydra, "sweep") is None:
        return []
    given = {text.partition("=")[0]: text for text in _typed(hydra)}
    kept = [text for group, text in given.items() if group in {*GROUPS, "experiment"}]
    experiment = chosen(hydra, "experiment")
    found = [f"experiment={experiment}"] if experiment and "experiment" not in given else []
    _, without = _composed(hydra.job.config_name, (*kept, *found))
    taken = options(hydra)
    chose = [f"{name}={taken[name]}" for name in GROUPS if taken[name] != without[name]]
    return mended([*found, *chose])


def _typed(hydra: Any) -> list[str]:
    typed = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    return list(map(str, typed))


@lru_cache
def _shipped() -> dict[str, Any]:
    """The published figures of the experiments that come with fmbench, by name."""
    files = sorted((CONFIG_DIR / "experiment").glob("*.yaml"))
    return {path.stem: OmegaConf.to_object(OmegaConf.load(path).reference) for path in files}


def _shipped_with(reference: Mapping[str, Any] | None) -> str | None:
    """The experiment that these figures were published for, where only one has them.

    An experiment of one's own that builds on it has them too, and another recipe perhaps.
    """
    names = [name for name, figures in _shipped().items() if figures == reference]
    return names[0] if len(names) == 1 else None


def _composed(name: str, overrides: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The recipe that overrides make, and its options.

    Kept from run to run unless there are folders of the user's: another one may have another file
    of that name, and in a notebook a file may have been changed since.
    """
    loader = GlobalHydra.instance().config_loader()
    own = _own_folders((one.scheme(), one.path) for one in loader.get_sources())
    compose = _compose.__wrapped__ if own else _compose
    return compose(name, tuple(mended(overrides)))


@lru_cache
def _compose(name: str, overrides: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    composed = _loaded(name, overrides)
    return dict(_recipe(resolve(composed))), options(composed.hydra)


def _own_folders(sources: Iterable[tuple[str, str]]) -> list[str]:
    """The user's folders of options, of what Hydra takes options from, by scheme and path."""
    return [path for scheme, path in sources if scheme == "file" and Path(path) != CONFIG_DIR]


def _loaded(name: str, overrides: Sequence[str]) -> Any:
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration(name, list(overrides), RunMode.RUN)


def _recipe(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """All that decides a run but its seed, as texts under dotted names."""
    for key, value in leaves(config):
        if key == "loss.label_smoothing":
            continue  # stands at the top
        group, _, inner = key.partition(".")
        of_group = inner and group in (*GROUPS, "reference") and key not in schema.UNRECORDED
        if of_group or key in (*schema.DECIDING, *schema.DECIDING_IN_PARTS):
            yield key, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 0 and 0.0 are one recipe
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
