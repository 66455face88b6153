"""The composed config: its types, the checks that cross groups, what it may start.

Imports no torch: `--help`, `--cfg job` and tab completion pass through here and nothing heavier.
"""

import functools
import math
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from types import NoneType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmbench.config import augmentation, hydra_compat, schema, sources
from fmbench.config.keys import IN_GROUPS, OF_DATA, OF_SPLIT, Key
from fmbench.config.published import check_reference
from fmbench.config.targets import refuse_unlisted
from fmbench.config.tuning import check_tuning
from fmbench.config.whitelist import TARGETS, buildable
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError

log = logger(__name__)

PACKAGE, CONFIG_DIR = sources.PACKAGE, sources.CONFIG_DIR

#: The groups whose chosen options a record keeps.
GROUPS = (
    *("model", "optimizer", "scheduler", "loss", "averaging", "data", "data.split"),
    "augmentation",
)

#: What a key of an open group must hold.
_IN_WORDS = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list",
    dict: "a table", NoneType: "null",
}  # fmt: skip


def register() -> None:
    """Tell Hydra the schema and the resolvers that `conf/` uses; calling it again is harmless."""
    sources.install()
    hydra_compat.store("schema", _typed_schema())
    # Cached by OmegaConf in the config, so that all jobs of a sweep share one folder name.
    OmegaConf.register_resolver(
        "fmbench.token", lambda: secrets.token_hex(3), use_cache=True, replace=True
    )
    # Of an A/A test: two rows of so many seeds each.
    for name, values in (
        ("aa_labels", lambda seeds: ",".join(["A"] * seeds + ["B"] * seeds)),
        ("aa_seeds", lambda seeds: f"range({2 * seeds})"),
    ):
        OmegaConf.register_resolver(f"fmbench.{name}", values, replace=True)
    OmegaConf.register_resolver("fmbench.keys", schema.help_text, replace=True)
    OmegaConf.register_resolver("oc.env", _refuse_environment, replace=True)


@functools.cache
def _typed_schema() -> DictConfig:
    """The schema as Hydra keeps it; `fmbench.run` registers it anew for each run."""
    typed: DictConfig = OmegaConf.structured(schema.Config)
    return typed


def _refuse_environment(name: str, *_default: Any) -> None:
    """The resolver `oc.env`: a variable may be a secret, and records keep configs."""
    raise ConfigError(f"reads the environment variable {name}, which no config may")


def resolve(config: DictConfig) -> dict[str, Any]:
    """The config as plain Python, interpolations followed.

    Raises:
        ConfigError: an interpolation leads nowhere, into Hydra's own config or to the environment,
            or a mandatory value is missing.
    """
    sources.begin_cost()
    plain: dict[str, Any] = {}
    try:
        with hydra_compat.without_hydra(config):
            for key in map(str, config):
                value = config[key]
                if OmegaConf.is_config(value):
                    value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
                plain[key] = value
    except OmegaConfBaseException as error:
        text = str(error).splitlines()[0].rpartition("while resolving interpolation: ")[2]
        raise ConfigError(f"{error.full_key or 'config'}: {text}") from error
    former = plain.get("test_every", schema.UNSET)
    if former != schema.UNSET:
        if not (former is None or (type(former) is int and former >= 0)):
            raise ConfigError(f"test_every={former}: must be 0 or more, or null")
        _tell_of_former_name(former)
    optimizer = plain.get("optimizer")
    if isinstance(optimizer, dict):  # of searches; see `fmbench.config.spaces`
        space = optimizer.pop("search", None)
        if not (space is None or isinstance(space, dict)):
            raise ConfigError(
                f"optimizer.search={space}: is the space of searches, a table of KEY: VALUES, or "
                "null; an optimizer's argument must have another name"
            )
    found = schema.renamed(plain)
    smoothing = (found.get("loss") or {}).get("label_smoothing")
    if type(smoothing) in (int, float) and not found.get("label_smoothing"):
        found["label_smoothing"] = smoothing  # one number by two names
    return found


@functools.cache
def _tell_of_former_name(value: int | None) -> None:
    """Say once what `test_every` is called now."""
    now = " ".join(schema.renamed_override(f"test_every={schema.as_yaml(value)}"))
    log.warning("test_every is called %s now; the next release will refuse it", now)


def check(config: Mapping[str, Any]) -> None:
    """Refuse what the types let through and no run can be made of.

    Raises:
        ConfigError: one line with the key, its value and what is allowed.
    """
    _refuse_unknown("", config, list(schema.TOP))
    for key in schema.TOP:
        if key not in config and key != "test_every":
            raise ConfigError(f"{key}: is not there; it cannot be deleted")
    for key, value in _numbers(config):
        if not math.isfinite(value):
            raise ConfigError(f"{key}={value}: must be a finite number")
    evaluation = config["evaluation"]
    for name in schema.TOP:
        refuse_out_of_bounds(name, config.get(name))
    for part in ("evaluation", "early_stop"):
        for name, value in config[part].items():
            refuse_out_of_bounds(f"{part}.{name}", value)
    if evaluation["test"] == "never" and evaluation["every"] is not None:
        raise ConfigError(
            f"evaluation.every={evaluation['every']}: evaluates on the test set, and "
            "evaluation.test=never forbids it; leave one of them out"
        )
    _check_corruptions(evaluation)
    for name in ("early_stop.after", "grad_accumulation"):
        part, _, key = name.rpartition(".")
        value, most = (config[part] if part else config)[key], "epochs" if part else "batch_size"
        if value is not None and value > config[most]:
            raise ConfigError(f"{name}={value}: more than {most}={config[most]}")
    if config["compile"] and config["cuda_graphs"]:
        raise ConfigError("compile=true and cuda_graphs=true: take one of them")
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?", config["device"]):
        raise ConfigError(f"device={config['device']}: must be auto, cpu, cuda or cuda:N")
    _check_logger(config["logger"])
    check_reference(config["reference"])
    check_tuning(config["tuning"])
    own = OF_DATA.get(config["data"].get("name", ""), {})
    own = {**own, **OF_SPLIT.get(config["data"].get("split", {}).get("name", ""), {})}
    for key, meaning in {**IN_GROUPS, **own}.items():
        _has_type(config, key, meaning)
    if isinstance(name := config["data"].get("name"), str) and name in OF_DATA:
        inner = [key.partition(".")[2] for key in schema.KEYS if key.startswith("data.")]
        others = {key for keys in OF_DATA.values() for key in keys} - {*own}
        known = [key for key in inner if f"data.{key}" not in others and "." not in key]
        _refuse_unknown("data.", config["data"], [*known, "split"])
    started = [(group, config[group]) for group in TARGETS]
    if "_target_" in config["data"]:
        started.append(("data", config["data"]))
    started += [("augmentation.own", one) for one in augmentation.own(config["augmentation"])]
    for group, option in started:
        # Hydra looks at where it leads to, once more, when it is started.
        refuse_unlisted(f"{group}._target_", str(option["_target_"]), buildable(group))
    _check_normalization(config["data"])
    if config["optimizer"]["lr"] <= 0:
        raise ConfigError(f"optimizer.lr={config['optimizer']['lr']}: must be a number above 0")
    smoothing, of_loss = config["label_smoothing"], config["loss"].get("label_smoothing")
    if smoothing and smoothing != of_loss:
        other = "it is of loss=cross_entropy" if of_loss is None else f"loss's is {of_loss}"
        raise ConfigError(f"label_smoothing={smoothing}: does not reach the loss, {other}")
    augmentation.read(config["augmentation"])


def _check_corruptions(evaluation: Mapping[str, Any]) -> None:
    chosen = evaluation.get("corruptions")
    if chosen in (None, "all"):
        names: list[Any] = []
    elif isinstance(chosen, list) and chosen and all(type(name) is str for name in chosen):
        names = chosen
    else:
        raise ConfigError(f"evaluation.corruptions={chosen}: must be all, null, or a list of names")
    for name in names:
        if name not in schema.CORRUPTIONS or names.count(name) > 1:
            why = "twice" if names.count(name) > 1 else "no such corruption"
            there = ", ".join(schema.CORRUPTIONS)
            raise ConfigError(f"evaluation.corruptions: {name}: {why}; there are: {there}")
    if chosen is not None and evaluation["test"] == "never":
        raise ConfigError(
            "evaluation.corruptions: are of the test images, and evaluation.test=never forbids to "
            "look at them; leave one of them out"
        )


def _check_normalization(data: Mapping[str, Any]) -> None:
    """Refuse a mean or a standard deviation that is no number, and no number for each channel."""
    for key in ("mean", "std"):
        value = data[key]
        each = value if isinstance(value, list) else [value] * (value is not None)
        numbers = all(type(number) in (int, float) for number in each)
        if not numbers or value == [] or (key == "std" and any(number <= 0 for number in each)):
            above = " above 0" if key == "std" else ""
            raise ConfigError(
                f"data.{key}={value}: must be a number{above}, a list of one for each channel, or "
                "null, which computes it from the training part"
            )
    if (data["mean"] is None) != (data["std"] is None):
        raise ConfigError("data.mean and data.std: both must be null, or neither")


def refuse_out_of_bounds(name: str, value: Any) -> None:
    """Refuse a value that is out of the bounds of the key of that name."""
    fault = schema.KEYS[name].fault(value)
    if fault is not None:
        raise ConfigError(f"{name}={value}: {fault}")


def _refuse_unknown(prefix: str, keys: Iterable[str], known: Sequence[str]) -> None:
    for key in keys:
        if key not in known:
            raise ConfigError(f"{prefix}{key}: no such key; there are: {', '.join(known)}")


def _check_logger(logger: Mapping[str, Any]) -> None:
    _refuse_unknown("logger.", logger, [field.name for field in fields(schema.Logger)])
    refuse_out_of_bounds("logger.name", logger["name"])
    name = logger["experiment"]
    if not (name.strip() and name.isprintable() and len(name) <= 200):
        wanted = "a name of 1 to 200 printable characters"
        raise ConfigError(f"logger.experiment={name[:200]!r}: must be {wanted}")


def _has_type(config: Mapping[str, Any], key: str, meaning: Key) -> None:
    types = meaning.types
    wanted = " or ".join(_IN_WORDS[one] for one in types if one is not int or float not in types)
    *path, last = key.split(".")
    node: Any = config
    for name in path:
        node = node.get(name)
        if not isinstance(node, Mapping):
            raise ConfigError(f"{'.'.join(path)}={node}: must be one of the group's options")
    if last not in node and meaning.neutral is not ...:
        return
    if last not in node:
        raise ConfigError(f"{key}: is not there; must be {wanted}")
    value = node[last]
    # bool is an int to Python, and true is no number to a reader.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ConfigError(f"{key}={value}: must be {wanted}, is a {type(value).__name__}")


def _numbers(node: Any, path: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number in a nested config, with the dotted key it stands at."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _numbers(value, f"{path}[{index}]")
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield path, node
