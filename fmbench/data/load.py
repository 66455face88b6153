"""Load the data set that a config names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmbench.core.errors import ConfigError
from fmbench.data import known, synthetic
from fmbench.data.dataset import Dataset

#: The data sets that there are.
NAMES = (*known.NAMES, "synthetic")


def load(config: Mapping[str, Any], base: Path = Path()) -> Dataset:
    """Load a data set; again in the same process it costs a look at the file system.

    Args:
        config: The `data` group.
        base: The folder that relative paths start from.

    Raises:
        ConfigError: The name is unknown, or a value of the group is not allowed.
        DataError: The data are missing or damaged.
        StorageError: A file that was fetched cannot be written.
    """
    name = config["name"]
    if name == "synthetic":
        return synthetic.load(config)
    if name in known.NAMES:
        return known.load(config, base)
    raise ConfigError(f"data.name={name}: unknown; allowed are {', '.join(NAMES)}")
