"""Published figures that a run is compared with, as an experiment brings them.

A figure without its protocol misleads: the best of thirty looks at the test set is no match for
one look at the end. So a reference says which it is.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from fmbench.core.errors import ConfigError

#: How a published accuracy was chosen, as far as its source says.
BEST_ON_TEST, LAST_EPOCH, NOT_STATED = "best epoch on test", "last epoch", "not stated"
PROTOCOLS = (BEST_ON_TEST, LAST_EPOCH, NOT_STATED)


def _is_number(value: Any, most: float = math.inf, types: Any = (int, float)) -> bool:
    """Whether it is null, or a number from 0 on; to Python true is one too."""
    number = isinstance(value, types) and not isinstance(value, bool)
    return value is None or (number and 0 <= value <= most)


#: By key: what fits, and that in words. Null says that the source does not say.
_KEYS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "accuracy": (lambda value: _is_number(value, 1), "a number from 0 to 1, or null"),
    "parameters": (lambda value: _is_number(value, types=int), "a whole number, or null"),
    "seconds": (_is_number, "a number of seconds, 0 or more, or null"),
    "device": (lambda value: isinstance(value, str | None), "a text, or null"),
    "protocol": (lambda value: value in PROTOCOLS, f"one of {', '.join(PROTOCOLS)}"),
    "source": (lambda value: isinstance(value, str), "a text"),
    "approximate": (lambda value: isinstance(value, bool), "true or false"),
}


def check_reference(reference: Any) -> None:
    """Refuse a `reference` that is none.

    Its `seconds` are the wall time of training, `source` says where the figures stand, and
    `approximate` that the time is about so much. Null: the source does not say.

    Raises:
        ConfigError: a key is missing or unknown, or its value cannot be.
    """
    if reference is None:
        return
    if not isinstance(reference, Mapping):
        raise ConfigError(f"reference={reference}: must be null, or published figures")
    figures = {"approximate": False, **reference}
    for key in figures:
        if key not in _KEYS:
            raise ConfigError(f"reference.{key}: no such key; there are: {', '.join(_KEYS)}")
    for key, (fits, wanted) in _KEYS.items():
        if key not in figures:
            raise ConfigError(f"reference.{key}: is not there; null says that it is not known")
        if not fits(figures[key]):
            raise ConfigError(f"reference.{key}={figures[key]}: must be {wanted}")


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
