"""Checks of the nets' keyword arguments, phrased for the person who typed `model.<setting>=...`."""

from typing import TypeGuard

from fmbench.errors import ConfigError


def is_number(value: object) -> TypeGuard[float]:
    """Say whether a setting is a number; True and False are not, though Python lets them pass."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_positive(**settings: object) -> None:
    """Refuse a setting that is not a whole number of at least 1.

    Raises:
        ConfigError: Names the first such setting and its value.
    """
    for name, value in settings.items():
        if not is_number(value) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"model.{name}={value} is not allowed: a whole number, 1 or more")


def require_dropout(dropout: object) -> None:
    """Refuse a dropout that is not a probability below 1.

    Raises:
        ConfigError: Names the value; dropping everything (1.0) would leave nothing to learn from.
    """
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise ConfigError(
            f"model.dropout={dropout} is not allowed: a probability, 0 or more and below 1"
        )
