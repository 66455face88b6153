"""The identity of a run: hashes of what it computes, not of where code lives.

A class or function is known by its name in `TARGETS`, which stays when a module is moved; one of
the user's by its import path and a hash of its source. A key that was added later counts as absent
at its neutral value (`fmbench.config.schema`), so that a new option splits no rows.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fmbench.config import schema
from fmbench.config.whitelist import TARGETS


def keys(
    config: Mapping[str, Any], data_sha256: str, split_hash: str, source: str | None = None
) -> tuple[str, str]:
    """The key of a run and of its configuration: hashes of all that decides the result.

    Two runs with one key and one fingerprint give the same bits; runs with one configuration key
    differ in their seed alone.

    Args:
        config: resolved.
        data_sha256: of the images and labels.
        split_hash: of which images train, validate and test.
        source: of the user's own code that is run; None where there is none.
    """
    deciding = schema.deciding(config)
    deciding |= {group: _called(group, config[group]) for group in TARGETS}
    # A part that is left out is null, as one that a later fmbench adds is to an older config.
    parts = config["augmentation"]
    deciding["augmentation"] = {name: part for name, part in parts.items() if part is not None}
    data = config["data"]
    deciding["data"] = {"sha256": data_sha256, "mean": data["mean"], "std": data["std"]}
    deciding["split"] = split_hash
    if source is not None:
        deciding["source"] = source
    configuration = _digest(deciding)
    return _digest({**deciding, "seed": config["seed"]}), configuration


def _called(group: str, option: Mapping[str, Any]) -> dict[str, Any]:
    """What is built, by its name, and its arguments."""
    target = option.get("_target_", "")
    return {**option, "_target_": TARGETS[group].get(target, target)}


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _canonical(value: Any) -> Any:
    """The same for what means the same: 1 and 1.0, a list and a tuple, keys in any order."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
