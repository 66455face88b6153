"""Checks of the models' keyword arguments, phrased for who typed `model.<setting>=...`."""

from collections.abc import Sequence
from typing import TypeGuard

from fmbench.core.errors import ConfigError

PARTS = 3  # stages, or dense blocks, of the models whose depth is one number


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


def require_multiple(of: int, **settings: int) -> None:
    """Refuse a setting that is not a positive multiple of a whole number.

    Raises:
        ConfigError: Names the first such setting, its value, and the nearest that are allowed.
    """
    require_positive(**settings)
    for name, value in settings.items():
        if value % of:
            lower = max(value // of, 1) * of
            raise ConfigError(
                f"model.{name}={value} is not allowed: a multiple of {of}, so that the other "
                f"layers' widths are whole numbers, as {lower} or {lower + of}"
            )


def require_dropout(dropout: object) -> None:
    """Refuse a dropout that is not a probability below 1.

    Raises:
        ConfigError: Names the value; dropping everything (1.0) would leave nothing to learn from.
    """
    if not is_number(dropout) or not 0 <= dropout < 1:
        raise ConfigError(
            f"model.dropout={dropout} is not allowed: a probability, 0 or more and below 1"
        )


def require_choice(allowed: Sequence[str], **settings: object) -> None:
    """Refuse a setting that is not one of some words.

    Raises:
        ConfigError: Names the first such setting, its value, and the words.
    """
    for name, value in settings.items():
        if value not in allowed:
            raise ConfigError(f"model.{name}={value} is not allowed: {' or '.join(allowed)}")


def require_depths(depths: object) -> None:
    """Refuse depths that are not one or more positive whole numbers.

    Raises:
        ConfigError: Names the depths, or the first that is not allowed.
    """
    # A config's own list type is a Sequence too, and a number or a string is what people mistype.
    if isinstance(depths, str) or not isinstance(depths, Sequence) or len(depths) == 0:
        raise ConfigError(
            f"model.depths={depths} is not allowed: one or more stages, as in [2,2,2,2]"
        )
    for stage, depth in enumerate(depths):
        require_positive(**{f"depths[{stage}]": depth})


def divide_depth(depth: int, *, outside: int, parts: str = "stages") -> int:
    """Return how many blocks of two layers each of three equal parts of a model gets.

    Args:
        depth: Layers with weights of the whole model.
        outside: Those that stand in no block.
        parts: What the parts are called.

    Raises:
        ConfigError: `depth` is no whole number, leaves a remainder, or is too small for a block.
    """
    require_positive(depth=depth)
    layers = 2 * PARTS
    blocks, remainder = divmod(depth - outside, layers)
    if remainder or blocks < 1:
        lower = max(blocks, 1) * layers + outside
        raise ConfigError(
            f"model.depth={depth} does not make three equal {parts}: "
            f"(depth - {outside}) % {layers} == 0 and depth >= {layers + outside} must hold, "
            f"as for {lower} or {lower + layers}"
        )
    return blocks
