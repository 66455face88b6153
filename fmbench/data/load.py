"""Load the data set that a config names."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fmbench.core.errors import ConfigError, DataError
from fmbench.data import cache, files, known, synthetic
from fmbench.data.dataset import Dataset
from fmbench.data.own import PARTS, Part, assemble
from fmbench.data.pictures import FITS

#: A user's own data, by what they lie in.
OWN = ("arrays", "csv", "parquet", "folder")

#: The data sets that there are.
NAMES = (*known.NAMES, "synthetic", *OWN)

#: Keys of a user's own data that decide how they are read.
_READING = (
    *("name", "size", "fit", "channels", "classes", "test_fraction", "seed", "keys", "image"),
    "label",
)


#: Of which a function of the user's need not say anything.
_USUAL = {
    "size": None, "fit": "crop", "channels": None, "classes": None, "test_fraction": 0.2, "seed": 0
}  # fmt: skip

#: Keys of every data set that say nothing of how it is read.
_OURS = ("mean", "std", "split", "limit", "limit_test")


#: Calls the `_target_` of a config with the rest of it.
Call = Callable[[Mapping[str, Any]], Any]


def load(config: Mapping[str, Any], base: Path = Path(), call: Call | None = None) -> Dataset:
    """Load a data set; again in the same process it costs a look at the file system.

    Args:
        config: The `data` group.
        base: The folder that relative paths start from.
        call: What calls a user's function, `data._target_`.

    Raises:
        ConfigError: The name is unknown, or a value of the group is not allowed.
        DataError: The data are missing or damaged.
        StorageError: A file that was fetched cannot be written.
    """
    name = config["name"]
    if call is not None and "_target_" in config:
        return _call(config, call)
    if name == "synthetic":
        return synthetic.load(config)
    if name in known.NAMES:
        return known.load(config, base)
    if name in OWN:
        return _load_own(config, base)
    raise ConfigError(f"data.name={name}: unknown; allowed are {', '.join(NAMES)}")


def _call(config: Mapping[str, Any], call: Call) -> Dataset:
    """The data set that a function of a trusted package returns.

    It gets the keys of the group that are none of fmbench's, and returns a mapping: from `train`,
    `test` and perhaps `validation` to images and labels, and perhaps from `classes` to their names.
    """
    name = config["name"]
    if name in NAMES:
        raise ConfigError(f"data.name={name}: is another set's; name yours otherwise")
    reading = _USUAL | {key: value for key, value in config.items() if key in _READING}
    try:
        _check(reading | {"cache": None})
    except TypeError as error:
        raise ConfigError(f"data.name={name}: a value of the group has the wrong type") from error
    arguments = {key: value for key, value in config.items() if key not in (*_READING, *_OURS)}
    return _called(name, json.dumps(arguments), json.dumps(reading), call)


@lru_cache(maxsize=3)
def _called(name: str, arguments: str, reading: str, call: Call) -> Dataset:
    found = call(json.loads(arguments))
    if not isinstance(found, Mapping) or not {*found} <= {*PARTS, "classes"}:
        raise DataError(
            f"data.name={name}: its function must return images and labels by {', '.join(PARTS)}"
        )
    parts = {}
    for part in (part for part in PARTS if part in found):
        try:
            images, labels = (np.asarray(array) for array in found[part])
        except (TypeError, ValueError) as error:
            raise DataError(f"data.name={name}: {part} must be images and labels") from error
        parts[part] = Part(images, labels, f"{name}, {part}")
    return assemble(name, parts, json.loads(reading), found.get("classes"))


def _load_own(config: Mapping[str, Any], base: Path) -> Dataset:
    _check(config)
    kind = config["name"]
    if not config["root"]:
        raise ConfigError(f"data={kind}: data.root is missing; it names the data")
    root = known.folder(base, config["root"])
    test = known.folder(base, config["test"]) if config.get("test") else None
    if not os.path.exists(root):  # noqa: PTH110 - Path.exists raises on a long name
        raise DataError(f"data.root={root}: there is no such file or folder")
    sources, read = _sources(kind, root, test, config)
    reading = {key: config.get(key) for key in _READING}
    try:
        key = cache.key(sources, reading | {"stem": root.stem})
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return _prepared(_Job(key, f"{kind} {root.stem}", read, config))


@dataclass(frozen=True)
class _Job:
    """How a data set is read; equal to another one of the same files and the same settings."""

    key: str
    title: str = field(compare=False)
    read: Callable[[], files.Found] = field(compare=False)
    config: Mapping[str, Any] = field(compare=False)


@lru_cache(maxsize=3)
def _prepared(job: _Job) -> Dataset:
    keeps = job.config["cache"] is not None
    found = cache.read(job.key) if keeps else None
    if found is None:
        parts, names = job.read()
        found = assemble(job.title, parts, job.config, names)
        if keeps:
            cache.write(job.key, found, job.config["cache_gb"])
    return found


def _sources(
    kind: str, root: Path, test: Path | None, config: Mapping[str, Any]
) -> tuple[Mapping[str, Sequence[Path]], Callable[[], files.Found]]:
    """The files that are read, by part, and what reads them."""
    if kind == "folder":
        listed = files.pictures_of(root)
        every = {part: [path for _, path in pictures] for part, pictures in listed.items()}
        return every, lambda: files.read_folder(listed, config)
    if kind == "arrays":
        return {"": [root]}, lambda: files.read_arrays(root, config)
    pattern = "*.csv" if kind == "csv" else "*.parquet"
    shards = {"train": [root]} if root.is_file() else files.shards(root, pattern)
    if test is not None:
        shards["test"] = [test]
    if kind == "parquet":
        return shards, lambda: files.read_parquet(shards, config)
    for part, paths in shards.items():
        if len(paths) > 1:
            raise DataError(f"{root}: has {len(paths)} CSV files for {part}; must be one")
    return shards, lambda: files.read_csv({p: paths[0] for p, paths in shards.items()}, config)


def _check(config: Mapping[str, Any]) -> None:
    """Refuse what cannot be, before anything is read."""
    for key, least, most in (("size", 4, 1024), ("cache_gb", 0, 10_000)):
        value = config.get(key)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"data.{key}={value}: must be {least} to {most:,}")
    if config["fit"] not in FITS:
        raise ConfigError(f"data.fit={config['fit']}: must be one of {', '.join(FITS)}")
    if config["channels"] not in (None, 1, 3):
        raise ConfigError(f"data.channels={config['channels']}: must be 1, 3 or null")
    if not 0 < config["test_fraction"] < 1:
        raise ConfigError(f"data.test_fraction={config['test_fraction']}: must be within 0 and 1")
    if config["seed"] < 0:
        raise ConfigError(f"data.seed={config['seed']}: negative; allowed are 0 and above")
    if config["cache"] not in (None, "auto"):
        raise ConfigError(f"data.cache={config['cache']}: must be auto or null")
