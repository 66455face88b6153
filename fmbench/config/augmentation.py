"""The parts of an augmentation: the parameters of each, their defaults and bounds.

They are the types of the `augmentation` group. `fmbench.data.augmentation` draws and applies them;
here is no torch, so that a sweep is checked before any is imported.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, get_args, get_type_hints

from fmbench.core.errors import ConfigError

#: A side of no image is longer.
MOST_PIXELS = 4096

#: Strengths of an operation of TrivialAugment: more than pixels show.
MOST_BINS = 1000

#: Without bool, which is an int to Python; true is no number to a reader.
_NUMBERS = (int, float)


def _checked(default: Any, fits: Callable[[Any], bool], wanted: str) -> Any:
    """A number of a part with its default, whether a value fits, and what it must be in words."""
    checks = {"fits": fits, "wanted": wanted}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=checks)
    return field(default=default, metadata=checks)


def _number(default: float, least: float, most: float) -> Any:
    def fits(value: Any) -> bool:
        return type(value) in _NUMBERS and least <= value <= most

    return _checked(default, fits, f"a number, {least} to {most}")


def _whole(default: int, least: int = 1, most: int = MOST_PIXELS) -> Any:
    wanted = f"a whole number, {least} to {most}"
    return _checked(default, lambda value: type(value) is int and least <= value <= most, wanted)


def _rising(default: list[float], most: float = math.inf) -> Any:
    def fits(value: Any) -> bool:
        two = isinstance(value, (list, tuple)) and len(value) == 2
        numbers = two and all(type(one) in _NUMBERS for one in value)
        return numbers and 0 < value[0] <= value[1] <= most and not math.isinf(value[1])

    within = f"above 0, at most {most}" if most < math.inf else "above 0"
    return _checked(default, fits, f"two rising numbers {within}")


_probability = partial(_number, least=0, most=1)


@dataclass
class _Part:
    """Refuses, by a ConfigError, a number of a part that cannot be."""

    def __post_init__(self) -> None:
        part = next(name for name, kind in _CLASSES.items() if kind is type(self))
        for one in fields(self):
            value, fits = getattr(self, one.name), one.metadata["fits"]
            if not fits(value):
                wanted = one.metadata["wanted"]
                raise ConfigError(f"augmentation.{part}.{one.name}={value}: must be {wanted}")


@dataclass
class Crop(_Part):
    """A window of the image's size, out of it with `padding` black pixels added on each side."""

    padding: int = _whole(4)


@dataclass
class Flip(_Part):
    """The image mirrored left to right with the given probability."""

    probability: float = _probability(0.5)


@dataclass
class Cutout(_Part):
    """A square of `size` pixels set to the mean (DeVries and Taylor, 2017, section 3.2).

    With `inside` false its centre may be anywhere in the image, so that a part of the square can
    fall outside, as in the paper; with `inside` true the whole square lies in the image. The centre
    of an odd square is one of the pixels. That of an even one is a corner of pixels, one more a
    side: the paper leaves open how such a square lies around a pixel, and this way no side of the
    image is blanked more often than the other.
    """

    size: int = _whole(16)
    probability: float = _probability(1.0)
    inside: bool = _checked(False, lambda value: isinstance(value, bool), "true or false")


@dataclass
class Erasing(_Part):
    """A rectangle of random area and shape set to the mean (Zhong et al., 2020, algorithm 1)."""

    probability: float = _probability(0.5)  # of erasing at all
    scale: list[float] = _rising([0.02, 0.33], most=1)  # least and greatest share of the area
    ratio: list[float] = _rising([0.3, 3.3])  # of height over width; its logarithm is uniform


@dataclass
class AlternatingFlip(_Part):
    """The image mirrored every other epoch (Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds").

    Which half is mirrored in the first epoch depends on the seed alone. So any two successive
    epochs see each image both ways, where random flips repeat a half of them.
    """


@dataclass
class Affine(_Part):
    """The image rotated, shifted, scaled and sheared about its centre, black coming in.

    Each number is uniform; bilinear interpolation, as `torchvision.transforms.RandomAffine` with
    it. Shifts are whole pixels.
    """

    degrees: float = _number(15.0, 0, 180)  # most of a rotation, either way
    translate: float = _number(0.1, 0, 1)  # most of a shift, as a share of height and width
    scale: list[float] = _rising([0.9, 1.1], most=10)  # least and greatest factor
    shear: float = _number(0.0, 0, 60)  # most along each axis, either way, in degrees


@dataclass
class TrivialAugment(_Part):
    """One of 14 operations of random strength (Mueller and Hutter, 2021; the "wide" space).

    As `torchvision.transforms.TrivialAugmentWide`.
    """

    bins: int = _whole(31, 2, MOST_BINS)  # strengths there are of each operation
    translate: int = _whole(32)  # most of a shift; the paper has 32 for images of 32 pixels


@dataclass
class Mixup(_Part):
    """The image and its label blended with another's (Zhang et al., 2018).

    The image's own share is drawn from Beta(alpha, alpha).
    """

    alpha: float = _number(0.2, 0.001, 1000)


@dataclass
class CutMix(_Part):
    """A rectangle of the image taken from another, and that share of its label (Yun et al., 2019).

    The share of the area that stays is drawn from Beta(alpha, alpha).
    """

    alpha: float = _number(1.0, 0.001, 1000)
    probability: float = _probability(0.5)  # of mixing; the paper: 0.5 (CIFAR), 1 (ImageNet)


@dataclass
class Parts:
    """The `augmentation` group: every part with its numbers, or None where it is left out.

    They are applied in this order.
    """

    crop: Crop | None = None
    flip: Flip | None = None
    alternating_flip: AlternatingFlip | None = None
    affine: Affine | None = None
    trivial_augment: TrivialAugment | None = None
    own: Any = None  # the user's transforms, mappings with `_target_`; in a config one, or a list
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
        padding, size = self.crop and self.crop.padding, self.cutout and self.cutout.size
        for name, pixels in (("crop.padding", padding), ("cutout.size", size)):
            if pixels and pixels > side:
                raise ConfigError(
                    f"augmentation.{name}={pixels}: must be at most {side}, as the images"
                )


#: The class of each part but `own`, by its name.
_CLASSES: dict[str, type[Any]] = {
    name: get_args(kind)[0] for name, kind in get_type_hints(Parts).items() if name != "own"
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
