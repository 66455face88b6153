"""Published figures that a run is compared with, as an experiment brings them.

A figure without its protocol misleads: the best of thirty looks at the test set is no match for
one look at the end. So a reference says which it is.
"""

import math
from collections.abc import Mapping
from typing import Any

from fmbench.core.errors import ConfigError

#: How a published accuracy was chosen, as far as its source says.
BEST_ON_TEST, LAST_EPOCH, NOT_STATED = "best epoch on test", "last epoch", "not stated"
PROTOCOLS = (BEST_ON_TEST, LAST_EPOCH, NOT_STATED)

_NUMBERS = {"accuracy": 1.0, "parameters": math.inf, "seconds": math.inf}
_TEXTS = ("device", "protocol", "source")


def check_reference(reference: Any) -> None:
    """Refuse a `reference` that is none.

    Args:
        reference: None, or `accuracy` (0 to 1), `parameters`, `seconds` (wall time of training) and
            `device`, each null where the source does not say; `protocol`, one of `PROTOCOLS`;
            `source`, where the figures stand; and `approximate`, true where the time is about so
            much.

    Raises:
        ConfigError: a key is missing or unknown, or its value cannot be.
    """
    if reference is None:
        return
    if not isinstance(reference, Mapping):
        raise ConfigError(f"reference={reference}: must be null, or published figures")
    keys = (*_NUMBERS, *_TEXTS)
    for key in reference:
        if key not in (*keys, "approximate"):
            raise ConfigError(f"reference.{key}: no such key; there are: {', '.join(keys)}")
    for key in keys:
        if key not in reference:
            raise ConfigError(f"reference.{key}: is not there; null says that it is not known")
    for key, most in _NUMBERS.items():
        _check_number(key, reference[key], most)
    for key in _TEXTS:
        if not isinstance(reference[key], str) and not (key == "device" and reference[key] is None):
            raise ConfigError(f"reference.{key}={reference[key]}: must be a text")
    if not isinstance(reference.get("approximate", False), bool):
        raise ConfigError(
            f"reference.approximate={reference['approximate']}: must be true or false"
        )
    if reference["protocol"] not in PROTOCOLS:
        raise ConfigError(
            f"reference.protocol={reference['protocol']}: must be one of {', '.join(PROTOCOLS)}"
        )


def in_words(protocol: str | None) -> str:
    """A protocol as it stands behind a figure."""
    return "protocol not stated" if protocol in (None, NOT_STATED) else str(protocol)


def comparable(
    protocol: str, last: float, best: float | None, *, every: int | None
) -> tuple[float, str]:
    """Which of our accuracies to compare a published one with, like with like.

    Args:
        protocol: of the published accuracy.
        last: ours, after the last epoch.
        best: ours, best epoch on test, if there is one.
        every: epochs between our evaluations on the test set; None for one at the end. The best of
            fewer than one an epoch is another figure than theirs.

    Returns:
        The accuracy, and the protocol it follows.
    """
    if protocol == BEST_ON_TEST and best is not None and every == 1:
        return best, BEST_ON_TEST
    return last, LAST_EPOCH


def _check_number(key: str, value: Any, most: float) -> None:
    if value is None:
        return
    types = int if key == "parameters" else (int, float)
    if not isinstance(value, types) or isinstance(value, bool) or not 0 <= value <= most:
        wanted = {
            "accuracy": "a number from 0 to 1",
            "parameters": "a whole number, 0 or more",
            "seconds": "a number of seconds, 0 or more",
        }
        raise ConfigError(f"reference.{key}={value}: must be {wanted[key]}, or null")
