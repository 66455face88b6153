"""The parts of an augmentation: the parameters of each, their defaults and bounds.

They are the types of the `augmentation` group. `fmbench.data.augmentation` draws and applies them;
here is no torch, so that a sweep is checked before any is imported.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fmbench.core.errors import ConfigError

#: A side of no image is longer.
MOST_PIXELS = 4096


@dataclass
class Crop:
    """A window of the image's size, out of it with `padding` black pixels added on each side."""

    padding: int = 4

    def __post_init__(self) -> None:
        _check_pixels("crop.padding", self.padding)


@dataclass
class Flip:
    """The image mirrored left to right with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_probability("flip", self.probability)


@dataclass
class Cutout:
    """A square of `size` pixels set to the mean (DeVries and Taylor, 2017, section 3.2).

    With `inside` false its centre may be anywhere in the image, so that a part of the square can
    fall outside, as in the paper; with `inside` true the whole square lies in the image. The centre
    of an odd square is one of the pixels. That of an even one is a corner of pixels, one more a
    side: the paper leaves open how such a square lies around a pixel, and this way no side of the
    image is blanked more often than the other.
    """

    size: int = 16
    probability: float = 1.0
    inside: bool = False

    def __post_init__(self) -> None:
        _check_pixels("cutout.size", self.size)
        _check_probability("cutout", self.probability)
        if not isinstance(self.inside, bool):
            raise ConfigError(f"augmentation.cutout.inside={self.inside}: must be true or false")


@dataclass
class Erasing:
    """A rectangle of random area and shape set to the mean (Zhong et al., 2020, algorithm 1).

    Args:
        probability: of erasing at all.
        scale: least and greatest share of the image's area.
        ratio: least and greatest height over width; its logarithm is uniform.
    """

    probability: float = 0.5
    scale: list[float] = field(default_factory=lambda: [0.02, 0.33])
    ratio: list[float] = field(default_factory=lambda: [0.3, 3.3])

    def __post_init__(self) -> None:
        _check_probability("erasing", self.probability)
        _check_range("erasing.scale", self.scale, most=1)
        _check_range("erasing.ratio", self.ratio, most=math.inf)


@dataclass
class Parts:
    """The `augmentation` group: every part with its numbers, or None where it is left out."""

    crop: Crop | None = None
    flip: Flip | None = None
    cutout: Cutout | None = None
    erasing: Erasing | None = None

    def check(self, side: int) -> None:
        """Refuse what is larger than an image whose shorter side has so many pixels.

        Raises:
            ConfigError: a padding or a square is.
        """
        for name, pixels in (
            ("crop.padding", self.crop.padding if self.crop else 1),
            ("cutout.size", self.cutout.size if self.cutout else 1),
        ):
            if pixels > side:
                raise ConfigError(
                    f"augmentation.{name}={pixels}: must be at most {side}, as the images"
                )


_CLASSES: dict[str, type[Any]] = {"crop": Crop, "flip": Flip, "cutout": Cutout, "erasing": Erasing}


def read(config: Mapping[str, Any]) -> Parts:
    """The parts that a resolved `augmentation` group asks for; a number not given is the usual one.

    Raises:
        ConfigError: an unknown part, an unknown number of a part, or one that cannot be.
    """
    found = Parts()
    for name, numbers in config.items():
        if name not in _CLASSES:
            raise ConfigError(f"augmentation.{name}: no such part; there are {', '.join(_CLASSES)}")
        if numbers is None:
            continue
        if not isinstance(numbers, Mapping):
            raise ConfigError(f"augmentation.{name}={numbers}: must be null or its numbers")
        part = _CLASSES[name]
        known = [number.name for number in fields(part)]
        for key in numbers:
            if key not in known:
                raise ConfigError(
                    f"augmentation.{name}.{key}: no such key; there are: {', '.join(known)}"
                )
        setattr(found, name, part(**numbers))
    return found


def _is_number(value: Any) -> bool:
    # bool is an int to Python, and true is no number to a reader.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_probability(part: str, value: Any) -> None:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f"augmentation.{part}.probability={value}: must be a number, 0 to 1")


def _check_pixels(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_PIXELS:
        raise ConfigError(
            f"augmentation.{name}={value}: must be a whole number, 1 to {MOST_PIXELS}"
        )


def _check_range(name: str, value: Any, most: float) -> None:
    two = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))
    if not two or not 0 < value[0] <= value[1] <= most or math.isinf(value[1]):
        within = f"above 0, at most {most}" if most < math.inf else "above 0"
        raise ConfigError(f"augmentation.{name}={value}: must be two rising numbers {within}")
