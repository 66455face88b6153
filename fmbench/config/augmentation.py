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

#: Strengths of an operation of TrivialAugment: more than pixels show.
MOST_BINS = 1000


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
class AlternatingFlip:
    """The image mirrored every other epoch (Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds").

    Which half is mirrored in the first epoch depends on the seed alone. So any two successive
    epochs see each image both ways, where random flips repeat a half of them.
    """


@dataclass
class Affine:
    """The image rotated, shifted, scaled and sheared about its centre, black coming in.

    Each number is uniform; bilinear interpolation, as `torchvision.transforms.RandomAffine` with
    it. Shifts are whole pixels.

    Args:
        degrees: most of a rotation, either way.
        translate: most of a shift, as a share of height and width.
        scale: least and greatest factor.
        shear: most of a shear along each axis, either way, in degrees.
    """

    degrees: float = 15.0
    translate: float = 0.1
    scale: list[float] = field(default_factory=lambda: [0.9, 1.1])
    shear: float = 0.0

    def __post_init__(self) -> None:
        _check_number("affine.degrees", self.degrees, 0, 180)
        _check_number("affine.translate", self.translate, 0, 1)
        _check_range("affine.scale", self.scale, most=10)
        _check_number("affine.shear", self.shear, 0, 60)


@dataclass
class TrivialAugment:
    """One of 14 operations of random strength (Mueller and Hutter, 2021; the "wide" space).

    As `torchvision.transforms.TrivialAugmentWide`.

    Args:
        bins: strengths there are of each operation.
        translate: most of a shift, in pixels; 32 is that of the paper, for images of 32 pixels.
    """

    bins: int = 31
    translate: int = 32

    def __post_init__(self) -> None:
        if type(self.bins) is not int or not 2 <= self.bins <= MOST_BINS:
            raise ConfigError(
                f"augmentation.trivial_augment.bins={self.bins}: must be a whole number, 2 to "
                f"{MOST_BINS}"
            )
        _check_pixels("trivial_augment.translate", self.translate)


@dataclass
class Mixup:
    """The image and its label blended with another's (Zhang et al., 2018).

    Args:
        alpha: of Beta(alpha, alpha), which the image's own share is drawn from.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check_number("mixup.alpha", self.alpha, 0.001, 1000)


@dataclass
class CutMix:
    """A rectangle of the image taken from another, and that share of its label (Yun et al., 2019).

    Args:
        alpha: of Beta(alpha, alpha), which the share of the area that stays is drawn from.
        probability: of mixing at all; the paper has 0.5 for CIFAR and 1 for ImageNet.
    """

    alpha: float = 1.0
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_number("cutmix.alpha", self.alpha, 0.001, 1000)
        _check_probability("cutmix", self.probability)


@dataclass
class Parts:
    """The `augmentation` group: every part with its numbers, or None where it is left out.

    They are applied in this order.

    Attributes:
        own: transforms of the user's, each a mapping with `_target_`; in a config one, or a list.
    """

    crop: Crop | None = None
    flip: Flip | None = None
    alternating_flip: AlternatingFlip | None = None
    affine: Affine | None = None
    trivial_augment: TrivialAugment | None = None
    own: Any = None
    cutout: Cutout | None = None
    erasing: Erasing | None = None
    mixup: Mixup | None = None
    cutmix: CutMix | None = None

    @property
    def mixes(self) -> bool:
        """Whether an image gets a part of another one, and its label with it."""
        return self.mixup is not None or self.cutmix is not None

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


_CLASSES: dict[str, type[Any]] = {
    "crop": Crop,
    "flip": Flip,
    "alternating_flip": AlternatingFlip,
    "affine": Affine,
    "trivial_augment": TrivialAugment,
    "cutout": Cutout,
    "erasing": Erasing,
    "mixup": Mixup,
    "cutmix": CutMix,
}


def own(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The user's transforms in an `augmentation` group, each with its `_target_`.

    Raises:
        ConfigError: what stands there is none.
    """
    given = config.get("own")
    found: list[Any] = given if isinstance(given, list) else [given] * (given is not None)
    for one in found:
        if not isinstance(one, Mapping) or not isinstance(one.get("_target_"), str):
            raise ConfigError(
                f"augmentation.own={one}: must be a mapping with _target_, a list of them, or null"
            )
    return found


def read(config: Mapping[str, Any]) -> Parts:
    """The parts that a resolved `augmentation` group asks for; a number not given is the usual one.

    Raises:
        ConfigError: an unknown part, an unknown number of a part, or one that cannot be.
    """
    found = Parts()
    found.own = own(config) or None
    for name, numbers in config.items():
        if name == "own":
            continue
        if name not in _CLASSES:
            there = ", ".join(vars(found))
            raise ConfigError(f"augmentation.{name}: no such part; there are {there}")
        if numbers is None:
            continue
        if not isinstance(numbers, Mapping):
            raise ConfigError(f"augmentation.{name}={numbers}: must be null or its numbers")
        part = _CLASSES[name]
        known = [number.name for number in fields(part)]
        for key in numbers:
            if key not in known:
                raise ConfigError(
                    f"augmentation.{name}.{key}: no such key; there are: "
                    f"{', '.join(known) or 'none'}"
                )
        setattr(found, name, part(**numbers))
    if found.flip and found.alternating_flip:
        raise ConfigError(
            "augmentation.flip and augmentation.alternating_flip: one of them must be null"
        )
    return found


def _is_number(value: Any) -> bool:
    # bool is an int to Python, and true is no number to a reader.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if not _is_number(value) or not least <= value <= most:
        raise ConfigError(f"augmentation.{name}={value}: must be a number, {least} to {most}")


def _check_probability(part: str, value: Any) -> None:
    _check_number(f"{part}.probability", value, 0, 1)


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
