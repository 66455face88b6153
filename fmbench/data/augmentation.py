"""Random crop, flip, Cutout and erasing: one draw per image, applied to whole batches.

What is drawn and how it is applied are apart. `Augmentation.draw` makes the numbers for every image
of an epoch at once, on the CPU, from a generator keyed by seed and epoch; `move` and `blank` look
up those of the images in a batch. So the batch size changes nothing about what an image goes
through, and neither does the device.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from fmbench.config import augmentation
from fmbench.config.augmentation import Crop, Cutout, Erasing, Flip, Parts

#: What was drawn: a tensor with one row per image of the training part, by name.
Draws = dict[str, Tensor]

#: Height and width of an image.
Size = tuple[int, int]

#: Tries at a rectangle that fits in the image, as torchvision has it; then none is erased.
ATTEMPTS = 10


class Augmentation:
    """The chosen parts, in the order crop, flip, normalise, Cutout, erasing."""

    def __init__(
        self,
        crop: Crop | None = None,
        flip: Flip | None = None,
        cutout: Cutout | None = None,
        erasing: Erasing | None = None,
    ) -> None:
        self.parts = Parts(crop, flip, cutout, erasing)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Augmentation":
        """Build from the `augmentation` group: part name to its numbers, null for none.

        Raises:
            ConfigError: an unknown part, an unknown number of a part, or one that cannot be.
        """
        return cls(**vars(augmentation.read(config)))

    @property
    def padding(self) -> int:
        """Black pixels that the stored images need on each side."""
        return self.parts.crop.padding if self.parts.crop else 0

    def draw(self, count: int, size: Size, generator: torch.Generator) -> Draws:
        """The draws of one epoch for `count` images of a size, on the CPU.

        Returns:
            `crop_top`, `crop_left`: (count,) int64, the window's corner in the padded image.
            `flip`: (count,) bool, whether to mirror.
            `cutout`, `erasing`: (count, 4) int64, the rows and columns [top, bottom), [left, right)
            to blank; some may lie outside the image.
            Those of parts that are left out are missing.
        """
        chosen = self.parts
        draws: Draws = {}
        if chosen.crop:
            draws |= _draw_crop(chosen.crop, count, generator)
        if chosen.flip:
            draws["flip"] = torch.rand(count, generator=generator) < chosen.flip.probability
        if chosen.cutout:
            draws["cutout"] = _draw_cutout(chosen.cutout, count, size, generator)
        if chosen.erasing:
            draws["erasing"] = _draw_erasing(chosen.erasing, count, size, generator)
        return draws

    def stored(self, images: int, shape: tuple[int, int, int]) -> int:
        """Bytes that `windows` of so many images of a shape (C, H, W) takes: one a pixel."""
        channels, height, width = shape
        edge = 2 * self.padding
        ways = 2 if self.parts.flip else 1
        return images * channels * (height + edge) * (width + edge) * ways

    def windows(self, images: Tensor) -> Tensor:
        """All that crop and flip can make of the images, as a view: nothing is copied per window.

        Args:
            images: (N, C, H, W).

        Returns:
            (1, N, places, places, C, H, W), by the row and the column that a window begins at in
            the padded image; with a flip (2, N, ...), the mirrored images second. They are stored
            too: picking from them is half the work of mirroring what was picked.
        """
        height, width = images.shape[2:]
        padded = F.pad(images, (self.padding,) * 4) if self.padding else images
        ways = torch.stack([padded, padded.flip(-1)]) if self.parts.flip else padded[None]
        return ways.unfold(3, height, 1).unfold(4, width, 1).movedim(2, 4)

    def move(self, windows: Tensor, draws: Draws, ids: Tensor) -> Tensor:
        """Crop and flip: the pixels of the images `ids`, still as they are stored.

        Args:
            windows: what `windows` made of the images.
            draws: the epoch's draws, on the device of `windows`.
            ids: (B,) int64, which images.

        Returns:
            (B, C, H, W), a copy.
        """
        if "crop_top" in draws:
            top, left = draws["crop_top"][ids], draws["crop_left"][ids]
        else:
            top = left = torch.zeros_like(ids)
        if "flip" not in draws:
            return windows[0, ids, top, left]
        mirrored = draws["flip"][ids]
        # Cropped, then mirrored: in the mirrored image that window is as far from the other side.
        left = torch.where(mirrored, windows.shape[3] - 1 - left, left)
        return windows[mirrored.long(), ids, top, left]

    def blank(self, images: Tensor, draws: Draws, ids: Tensor) -> Tensor:
        """Cutout and erasing: set rectangles of the normalised images to 0, the mean, in place.

        Args:
            images: (B, C, H, W) float.
            draws: the epoch's draws, on the device of `images`.
            ids: (B,) int64, which images they are.
        """
        height, width = (torch.arange(side, device=images.device) for side in images.shape[2:])
        for name in ("cutout", "erasing"):
            if name in draws:
                top, bottom, left, right = draws[name][ids, :, None].unbind(1)
                rows = (height >= top) & (height < bottom)
                columns = (width >= left) & (width < right)
                images.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)
        return images


def _draw_crop(crop: Crop, count: int, generator: torch.Generator) -> Draws:
    places = 2 * crop.padding + 1
    return {
        "crop_top": torch.randint(places, (count,), generator=generator),
        "crop_left": torch.randint(places, (count,), generator=generator),
    }


def _draw_cutout(cutout: Cutout, count: int, size: Size, generator: torch.Generator) -> Tensor:
    square, corners = cutout.size, []
    for side in size:
        low, high = -(square // 2), side - square // 2 + (square % 2 == 0)
        if cutout.inside:
            low, high = 0, side - square + 1
        corners.append(torch.randint(low, high, (count,), generator=generator))
    wanted = torch.rand(count, generator=generator) < cutout.probability
    edge, (top, left) = wanted * square, corners
    return torch.stack([top, top + edge, left, left + edge], dim=1)


def _draw_erasing(erasing: Erasing, count: int, size: Size, generator: torch.Generator) -> Tensor:
    tries, (rows, columns) = (count, ATTEMPTS), size
    area = rows * columns * torch.empty(tries).uniform_(*erasing.scale, generator=generator)
    log_ratio = torch.empty(tries).uniform_(
        math.log(erasing.ratio[0]), math.log(erasing.ratio[1]), generator=generator
    )
    heights = (area * log_ratio.exp()).sqrt().round().long()
    widths = (area / log_ratio.exp()).sqrt().round().long()
    fits = (heights < rows) & (widths < columns)
    first = fits.long().argmax(dim=1, keepdim=True)  # the first that fits, else the first
    wanted = torch.rand(count, generator=generator) < erasing.probability
    erase = wanted & fits.any(dim=1)
    height = heights.gather(1, first).squeeze(1) * erase
    width = widths.gather(1, first).squeeze(1) * erase
    place = torch.rand(2, count, generator=generator)
    top = (place[0] * (rows - height + 1)).long()
    left = (place[1] * (columns - width + 1)).long()
    return torch.stack([top, top + height, left, left + width], dim=1)
