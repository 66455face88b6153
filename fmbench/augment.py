"""Random crop, flip, Cutout and erasing: one draw per image, applied to whole batches.

What is drawn and how it is applied are apart. A part's `draw` makes the numbers for every image of
an epoch at once, from a generator keyed by seed and epoch; `Augmentation.__call__` looks up those
of the images in a batch. So the batch size changes nothing about what an image goes through, and
neither does the device.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmbench.errors import ConfigError

#: What was drawn: a tensor with one row per image of the training part, by name.
Draws = dict[str, Tensor]

SIDE = 28


@dataclass(frozen=True)
class Crop:
    """A 28 x 28 window of the image with `padding` black pixels added on each side."""

    padding: int = 4

    def __post_init__(self) -> None:
        _check_pixels("crop.padding", self.padding)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The window's top left corner in the padded image, uniform: (count,) int64 each."""
        places = 2 * self.padding + 1
        return {
            "crop_top": torch.randint(places, (count,), generator=generator),
            "crop_left": torch.randint(places, (count,), generator=generator),
        }


@dataclass(frozen=True)
class Flip:
    """The image mirrored left to right with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_probability("flip", self.probability)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Whether to mirror: (count,) bool."""
        return {"flip": torch.rand(count, generator=generator) < self.probability}


@dataclass(frozen=True)
class Cutout:
    """A square of `size` pixels set to the mean (DeVries and Taylor, 2017, section 3.2).

    With `inside` false its centre may be any point of the image, so that a part of the square can
    fall outside, as in the paper; with `inside` true the whole square lies in the image.
    """

    size: int = 16
    probability: float = 1.0
    inside: bool = False

    def __post_init__(self) -> None:
        _check_probability("cutout", self.probability)
        _check_pixels("cutout.size", self.size)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The square's rows and columns, [top, bottom) and [left, right): (count, 4) int64."""
        low, high = -(self.size // 2), SIDE - self.size // 2 + (self.size % 2 == 0)
        if self.inside:
            low, high = 0, SIDE - self.size + 1
        corner = torch.randint(low, high, (2, count), generator=generator)
        size = torch.where(torch.rand(count, generator=generator) < self.probability, self.size, 0)
        top, left = corner
        return {"cutout": torch.stack([top, top + size, left, left + size], dim=1)}


@dataclass(frozen=True)
class Erasing:
    """A rectangle of random area and shape set to the mean (Zhong et al., 2020, algorithm 1).

    Args:
        probability: of erasing at all.
        scale: least and greatest share of the image's area.
        ratio: least and greatest height over width; its logarithm is uniform.
    """

    probability: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    #: Tries at a rectangle that fits in the image, as torchvision has it; then none is erased.
    attempts = 10

    def __post_init__(self) -> None:
        _check_probability("erasing", self.probability)
        _check_range("erasing.scale", self.scale, most=1)
        _check_range("erasing.ratio", self.ratio, most=math.inf)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The rectangle's rows and columns, [top, bottom) and [left, right): (count, 4) int64."""
        tries = (count, self.attempts)
        area = SIDE**2 * torch.empty(tries).uniform_(*self.scale, generator=generator)
        log_ratio = torch.empty(tries).uniform_(
            math.log(self.ratio[0]), math.log(self.ratio[1]), generator=generator
        )
        heights = (area * log_ratio.exp()).sqrt().round().long()
        widths = (area / log_ratio.exp()).sqrt().round().long()
        fits = (heights < SIDE) & (widths < SIDE)
        first = fits.long().argmax(dim=1, keepdim=True)  # the first that fits, else the first
        wanted = torch.rand(count, generator=generator) < self.probability
        erase = wanted & fits.any(dim=1)
        height = heights.gather(1, first).squeeze(1).where(erase, torch.tensor(0))
        width = widths.gather(1, first).squeeze(1).where(erase, torch.tensor(0))
        place = torch.rand(2, count, generator=generator)
        top = (place[0] * (SIDE - height + 1)).long()
        left = (place[1] * (SIDE - width + 1)).long()
        return {"erasing": torch.stack([top, top + height, left, left + width], dim=1)}


PARTS = {"crop": Crop, "flip": Flip, "cutout": Cutout, "erasing": Erasing}


class Augmentation:
    """The chosen parts, in the order crop, flip, normalise, Cutout, erasing."""

    def __init__(
        self,
        crop: Crop | None = None,
        flip: Flip | None = None,
        cutout: Cutout | None = None,
        erasing: Erasing | None = None,
    ) -> None:
        self.crop = crop
        self.parts = [part for part in (crop, flip, cutout, erasing) if part is not None]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Augmentation":
        """Build from the `augmentation` group: part name to its numbers, null for none.

        Raises:
            ConfigError: an unknown part, an unknown number of a part, or one out of range.
        """
        parts: dict[str, Any] = {}
        for name, options in config.items():
            if name not in PARTS:
                raise ConfigError(
                    f"augmentation.{name}: no such part; there are {', '.join(PARTS)}"
                )
            if options is not None:
                if not isinstance(options, Mapping):
                    raise ConfigError(f"augmentation.{name}={options}: must be null or its numbers")
                values = {
                    key: tuple(value) if isinstance(value, list) else value
                    for key, value in options.items()
                }
                try:
                    parts[name] = PARTS[name](**values)
                except TypeError as error:
                    raise ConfigError(f"augmentation.{name}={dict(options)}: {error}") from error
        return cls(**parts)

    @property
    def padding(self) -> int:
        """Black pixels that the stored images need on each side."""
        return self.crop.padding if self.crop else 0

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The draws of one epoch for `count` images, on the CPU."""
        draws: Draws = {}
        for part in self.parts:
            draws |= part.draw(count, generator)
        return draws

    def move(self, windows: Tensor, draws: Draws, ids: Tensor) -> Tensor:
        """Crop and flip: the pixels of the images `ids`, still as they are stored.

        Args:
            windows: (N, places, places, 28, 28), the view of the padded set that `unfold` gives.
            draws: the epoch's draws, on the device of `windows`.
            ids: (B,) int64, which images.

        Returns:
            (B, 28, 28), a copy.
        """
        if self.crop:
            images = windows[ids, draws["crop_top"][ids], draws["crop_left"][ids]]
        else:
            images = windows[ids, 0, 0]
        if "flip" in draws:
            images = images.flip(-1).where(draws["flip"][ids, None, None], images)
        return images

    def blank(self, images: Tensor, draws: Draws, ids: Tensor) -> Tensor:
        """Cutout and erasing: set rectangles of the normalised images to 0, the mean, in place.

        Args:
            images: (B, 28, 28) float.
            draws: the epoch's draws, on the device of `images`.
            ids: (B,) int64, which images they are.
        """
        axis = torch.arange(SIDE, device=images.device)
        for name in ("cutout", "erasing"):
            if name in draws:
                top, bottom, left, right = draws[name][ids, :, None].unbind(1)
                rows = (axis >= top) & (axis < bottom)
                columns = (axis >= left) & (axis < right)
                images.masked_fill_(rows[:, :, None] & columns[:, None, :], 0)
        return images


def _check_probability(part: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"augmentation.{part}.probability={value}: must be 0 to 1")


def _check_pixels(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= SIDE:
        raise ConfigError(f"augmentation.{name}={value}: must be a whole number, 1 to {SIDE}")


def _check_range(name: str, value: tuple[float, float], most: float) -> None:
    numbers = isinstance(value, tuple) and all(isinstance(end, (int, float)) for end in value)
    if not numbers or len(value) != 2 or not 0 < value[0] <= value[1] <= most:
        within = f"above 0, at most {most}" if most < math.inf else "above 0"
        raise ConfigError(f"augmentation.{name}={value}: must be two rising numbers {within}")
