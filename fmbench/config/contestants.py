"""The contestants of a tuned comparison: what sets each apart, and what is searched for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from fmbench.config import hydra_compat, schema, spaces
from fmbench.config.checks import resolve
from fmbench.config.sweep import is_list, listed, paired
from fmbench.config.trust import refuse_untrusted
from fmbench.core.errors import ConfigError, described


@dataclass(frozen=True)
class Contestant:
    """One of those that are compared."""

    overrides: tuple[str, ...]  # that set it apart
    given: tuple[str, ...]  # to its search: its overrides, those that all share, and its space
    space: Mapping[str, str]  # the distribution of each key, as typed
    config: DictConfig  # composed, at the values that are not searched

    @property
    def label(self) -> str:
        """What it is called."""
        return " ".join(self.overrides)


def contestants(
    loader: ConfigLoader, config: DictConfig, params: Mapping[str, Any], arguments: Sequence[str]
) -> list[Contestant]:
    """The contestants of a comparison, in the order of what was typed.

    What was typed, `arguments`, outranks the `params` of the sweeper, which outrank the space that
    the option of the optimizer brings.

    Raises:
        ConfigError: one has nothing to search, is there twice, has other images or another seed
            than the first, or a key is listed and searched.
        HydraException: one cannot be composed.
    """
    every = listed(config)
    axes = [zip(*(every[key] for key in keys), strict=True) for keys in paired(config, every)]
    shared = _by_key([f"{key}={value}" for key, value in params.items() if value is not None])
    shared |= _by_key([text for text in arguments if not is_list(_parsed(text))])
    for key in every:  # of a key that was typed twice the last counts, which is the list
        shared.pop(key.lstrip("+"), None)
    fixed = [text for text in shared.values() if not _parsed(text).is_sweep_override()]
    found = []
    for values in product(*axes):
        overrides = tuple(str(one.input_line) for one in chain(*values))
        composed = loader.load_sweep_config(config, [*overrides, *fixed])
        refuse_untrusted(composed, config.hydra.job.config_name)
        own = {key: f"{key}={value}" for key, value in spaces.space(composed).items()}
        found.append(_contestant(overrides, own, shared, composed))
    _refuse_unlike(found)
    return found


def _refuse_unlike(found: Sequence[Contestant]) -> None:
    """Refuse a contestant that is there twice, and one with images or a seed of its own."""
    labels = [one.label for one in found]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"{twice[0]}: is listed twice; each contestant must differ")
    first, *others = (_shared(resolve(one.config)) for one in found)
    for label, other in zip(labels[1:], others, strict=True):
        for key in {**first, **other}:
            here, there = (repr(values.get(key)) for values in (other, first))
            if here != there:
                raise ConfigError(
                    f"{label}: has {key}={_shown(other, key)}, and {labels[0]} has "
                    f"{_shown(first, key)}; contestants need the same images, split and seed"
                )


def _shared(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values, by their keys, which contestants must share."""
    data = dict(config["data"])
    split = {f"data.split.{key}": value for key, value in data.pop("split").items()}
    return {"seed": config["seed"], **{f"data.{key}": v for key, v in data.items()}, **split}


def _shown(values: Mapping[str, Any], key: str) -> str:
    return schema.as_yaml(values[key]) if key in values else "no such key"


def _contestant(
    overrides: tuple[str, ...],
    own: Mapping[str, str],
    shared: Mapping[str, str],
    composed: DictConfig,
) -> Contestant:
    label = " ".join(overrides)
    for text in overrides:
        key = text.partition("=")[0].lstrip("+")
        if key in own and key not in shared:
            raise ConfigError(
                f"{text}: is listed, so that each value is a contestant, and the space of the "
                f"optimizer searches it ({own[key]}); optimizer.search.{key.rpartition('.')[2]}"
                "=null leaves it out there, and choice(...) in place of the list searches its "
                "values"
            )
    texts = {**own, **shared}
    texts = {key: text for key, text in texts.items() if not spaces.is_of_space(text)}
    try:
        searched, _, _ = hydra_compat.search_space(list(texts.values()))
    except (AssertionError, NotImplementedError, ValueError) as error:
        raise ConfigError(f"{label}: {described(error, 300)}") from error
    space = {
        key: text.partition("=")[2]
        for key, text in texts.items()
        if _parsed(text).is_sweep_override()
    }
    option = f"optimizer={composed.hydra.runtime.choices.get('optimizer')}"
    of_optimizer = {key for key in space if key.startswith("optimizer.")}
    typed_rate = any(key == "optimizer.lr" for key in (*texts, *_by_key(overrides)))
    if spaces.is_by_name(composed) and not of_optimizer and not typed_rate:
        raise ConfigError(f"{label}: {spaces.unranged(option)}")
    if not searched:
        raise ConfigError(
            f"{label}: has nothing to search: {option} brings no space; such as "
            "'optimizer.lr=tag(log,interval(1e-3,0.1))' gives it one"
        )
    return Contestant(overrides, (*overrides, *texts.values()), space, composed)


def _by_key(texts: Sequence[str]) -> dict[str, str]:
    """Overrides by their keys; the last of a key counts."""
    return {_parsed(text).get_key_element().lstrip("+"): text for text in texts}


def _parsed(text: str) -> Any:
    return OverridesParser.create().parse_override(text)
