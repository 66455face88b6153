"""What training images go through: one draw per image, applied to whole batches.

What is drawn and how it is applied are apart. `Augmentation.draw` makes the numbers for every image
of an epoch at once, on the CPU, from generators keyed by seed and epoch; `move`, `recolour`,
`blank` and `mix` look up those of the images in a batch. So the batch size changes nothing about
what an image goes through, and neither does the device.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from fmbench.config import augmentation
from fmbench.config.augmentation import Affine, Crop, CutMix, Cutout, Erasing, Parts, TrivialAugment
from fmbench.data import operations
from fmbench.data.operations import Size

#: What was drawn: a tensor with one row per image of the training part, by name.
Draws = dict[str, Tensor]

#: One's own: (B, C, H, W) float32 images of 0 to 1 and (B, n) float32 draws to such images. n is
#: its attribute `draws`, 1 where it has none.
Transform = Callable[[Tensor, Tensor], Tensor]

#: Tries at a rectangle that fits in the image, as torchvision has it; then none is erased.
ATTEMPTS = 10


class Augmentation:
    """The chosen parts, in the order of `Parts`; cutout and what follows on normalised pixels.

    Of the methods' arguments `draws` are those of an epoch, on the device of the images, and `ids`,
    (B,) int64, says which images these are.

    Args:
        transforms: the user's own, built as `parts.own` says.
        parts: by name, those of `Parts`.
    """

    def __init__(self, *, transforms: Sequence[Transform] = (), **parts: Any) -> None:
        self.parts = Parts(**parts)
        self.transforms = tuple(transforms)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        build: Callable[[Mapping[str, Any]], Transform] | None = None,
    ) -> "Augmentation":
        """Build from the `augmentation` group: part name to its numbers, null for none.

        `build` makes the user's transforms, each of a mapping with `_target_`.

        Raises:
            ConfigError: an unknown part, an unknown number of a part, or one that cannot be.
        """
        parts = augmentation.read(config)
        transforms = [build(one) for one in parts.own or ()] if build else ()
        return cls(transforms=transforms, **vars(parts))

    @property
    def padding(self) -> int:
        """Black pixels that the stored images need on each side."""
        return self.parts.crop.padding if self.parts.crop else 0

    @property
    def mirrors(self) -> bool:
        """Whether some images are mirrored."""
        return self.parts.flip is not None or self.parts.alternating_flip is not None

    def draw(
        self,
        count: int,
        size: Size,
        generator: torch.Generator,
        *,
        epoch: int = 0,
        lasting: torch.Generator | None = None,
    ) -> Draws:
        """The draws of one epoch for `count` images of a size, on the CPU.

        `generator` is that of the epoch, `lasting` the same for all epochs of a run; an alternating
        flip needs it.

        Returns:
            `crop_top`, `crop_left`: (count,) int64, the window's corner in the padded image.
            `flip`: (count,) bool, whether to mirror.
            `affine`: (count, 6) float32, see `operations.inverse_affine`.
            `operation`, `strength`, `matrix`: see `operations.trivial`.
            `own`: (count, n) float32, uniform, 0 to below 1: n numbers of all transforms together.
            `cutout`, `erasing`: (count, 4) int16, the rows and columns [top, bottom), [left, right)
            to blank; some may lie outside the image.
            `mixup`: (count,) float32, the share that an image keeps in a blend with its partner.
            `cutmix`: (count, 4) int16, the rectangle that is the partner's.
            `weight`: (count,) float32, the share of its own label in an image's target.
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
        # Added later: they come last, so that the draws of the others are what they were.
        if chosen.alternating_flip:
            assert lasting is not None
            first = torch.rand(count, generator=lasting) < 0.5
            draws["flip"] = first if epoch % 2 == 0 else ~first
        if chosen.affine:
            draws["affine"] = _draw_affine(chosen.affine, count, size, generator)
        if chosen.trivial_augment:
            draws |= _draw_trivial(chosen.trivial_augment, count, size, generator)
        if self.transforms:
            numbers = sum(map(draws_of, self.transforms))
            draws["own"] = torch.rand(count, numbers, generator=generator)
        if chosen.mixes:
            draws |= _draw_mix(chosen, count, size, generator)
        return draws

    def stored(self, images: int, shape: tuple[int, int, int]) -> int:
        """Bytes that `windows` of so many images of a shape (C, H, W) takes: one a pixel."""
        channels, height, width = shape
        edge = 2 * self.padding
        ways = 2 if self.mirrors else 1
        return images * channels * (height + edge) * (width + edge) * ways

    def drawn(self, images: int, size: Size) -> int:
        """Bytes that the draws of an epoch take for so many images of a size."""
        draws = self.draw(1, size, torch.Generator(), lasting=torch.Generator())
        return images * sum(one.nbytes for one in draws.values())

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
        ways = torch.stack([padded, padded.flip(-1)]) if self.mirrors else padded[None]
        return ways.unfold(3, height, 1).unfold(4, width, 1).movedim(2, 4)

    def move(self, windows: Tensor, draws: Draws, ids: Tensor) -> Tensor:
        """Crop and flip: from what `windows` made of all images to a copy of some, (B, C, H, W)."""
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

    def recolour(self, pixels: Tensor, draws: Draws, ids: Tensor) -> Tensor:
        """Affine maps, TrivialAugment and one's own transforms, of (B, C, H, W) uint8.

        Returns:
            (B, C, H, W) uint8; float32, 0 to 255, where there are transforms of one's own.
        """
        if "affine" in draws:
            pixels = operations.warp(pixels, draws["affine"][ids], "bilinear")
        if "operation" in draws:
            drawn = (draws[name][ids] for name in ("operation", "strength", "matrix"))
            pixels = operations.trivial(pixels, *drawn)
        if "own" in draws:
            pixels = self.transform(pixels / 255, draws["own"][ids]) * 255
        return pixels

    def transform(self, images: Tensor, draws: Tensor) -> Tensor:
        """One's own transforms: (B, C, H, W) float32 of 0 to 1 and (B, n) draws to such images."""
        each = torch.split(draws, [draws_of(one) for one in self.transforms], dim=1)
        for transform, numbers in zip(self.transforms, each, strict=True):
            images = transform(images, numbers)
        return images

    def blank(self, images: Tensor, draws: Draws, ids: Tensor) -> Tensor:
        """Cutout and erasing: in normalised images, (B, C, H, W), set rectangles to 0, the mean."""
        for name in ("cutout", "erasing"):
            if name in draws:
                images.masked_fill_(_within(draws[name][ids], images), 0)
        return images

    def mix(
        self, images: Tensor, labels: Tensor, draws: Draws, ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mixup and CutMix: each image with its partner, the next one.

        The order of an epoch is random, and so is who comes next. The papers' code takes partners
        from a permutation of the batch, and draws one share for all of it; here each image has its
        own, so that the batch size changes nothing.

        Args:
            images: (B + 1, C, H, W) float, normalised and blanked; the last is a partner alone.
            labels: (B + 1, classes) float32, a 1 in each row.
            draws: of the epoch.
            ids: (B + 1,) int64.

        Returns:
            (B, C, H, W) images and (B, classes) float32 targets, whose rows sum to 1.
        """
        ids, mixed, partners = ids[:-1], images[:-1], images[1:]
        if "cutmix" in draws:
            mixed = torch.where(_within(draws["cutmix"][ids], mixed), partners, mixed)
        if "mixup" in draws:
            share = draws["mixup"][ids, None, None, None]
            mixed = partners + share * (mixed - partners)
        weight = draws["weight"][ids, None]
        return mixed, weight * labels[:-1] + (1 - weight) * labels[1:]


def draws_of(transform: Transform) -> int:
    """How many uniform numbers a transform of one's own takes for each image."""
    return int(getattr(transform, "draws", 1))


def _within(rectangles: Tensor, images: Tensor) -> Tensor:
    """The pixels of (B, C, H, W) images that lie in (B, 4) rectangles: (B, 1, H, W) bool."""
    height, width = (torch.arange(side, device=images.device) for side in images.shape[2:])
    top, bottom, left, right = rectangles[:, :, None].unbind(1)
    rows = (height >= top) & (height < bottom)
    columns = (width >= left) & (width < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _rectangles(*borders: Tensor) -> Tensor:
    """(N,) borders side by side, in the smallest type that holds them: no image is that large."""
    return torch.stack(borders, dim=1).to(torch.int16)


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
    return _rectangles(top, top + edge, left, left + edge)


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
    return _rectangles(top, top + height, left, left + width)


def _between(count: int, most: float, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(-most, most, generator=generator)


def _draw_affine(affine: Affine, count: int, size: Size, generator: torch.Generator) -> Tensor:
    angle = _between(count, affine.degrees, generator)
    down, across = (_between(count, affine.translate * side, generator).round() for side in size)
    scale = torch.empty(count).uniform_(*affine.scale, generator=generator)
    shear_x, shear_y = (_between(count, affine.shear, generator) for _ in range(2))
    return operations.inverse_affine(angle, (across, down), scale, (shear_x, shear_y))


def _draw_trivial(
    trivial: TrivialAugment, count: int, size: Size, generator: torch.Generator
) -> Draws:
    operation = torch.randint(len(operations.DRAWN), (count,), generator=generator)
    bins = torch.randint(trivial.bins, (count,), generator=generator)
    minus = torch.rand(count, generator=generator) < 0.5
    strength = operations.strengths(trivial.bins, trivial.translate)[operation, bins]
    signed, factor = torch.tensor(operations.SIGNED), torch.tensor(operations.FACTORS)
    strength = torch.where(minus & signed[operation], -strength, strength) + factor[operation]
    matrix = operations.trivial_matrices(operation, strength, size)
    return {"operation": operation, "strength": strength, "matrix": matrix}


def _draw_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of Beta(alpha, alpha), by two of a gamma distribution.

    In logarithms: a number of Gamma(alpha) is one of Gamma(alpha + 1) times U^(1 / alpha)
    (Marsaglia and Tsang, 2000, section 6), which of a small alpha no float64 holds.
    """
    shape = torch.full((2, count), alpha + 1, dtype=torch.float64)
    # What torch.distributions.Beta uses, which takes no generator.
    gamma = torch._standard_gamma(shape, generator=generator)  # noqa: SLF001
    uniform = 1 - torch.rand(2, count, dtype=torch.float64, generator=generator)  # never 0
    first, second = gamma.log() + uniform.log() / alpha
    share: Tensor = (first - second).sigmoid()
    return share


def _draw_mix(parts: Parts, count: int, size: Size, generator: torch.Generator) -> Draws:
    """With both parts, each image is given to one of them, as likely as to the other."""
    draws: Draws = {}
    weight = torch.ones(count)
    by_cutmix = torch.full((count,), parts.mixup is None)
    if parts.mixup and parts.cutmix:
        by_cutmix = torch.rand(count, generator=generator) < 0.5
    if parts.mixup:
        share = _draw_beta(parts.mixup.alpha, count, generator).float()
        weight = draws["mixup"] = torch.where(by_cutmix, 1.0, share)
    if parts.cutmix:
        rectangle = _draw_cutmix(parts.cutmix, count, size, generator) * by_cutmix[:, None]
        top, bottom, left, right = rectangle.long().unbind(1)
        area = (bottom - top) * (right - left) / math.prod(size)
        draws["cutmix"], weight = rectangle, weight * (1 - area)
    return draws | {"weight": weight}


def _draw_cutmix(cutmix: CutMix, count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Rectangles in the image, as in section 3.2 and the authors' code; empty where none is."""
    side = (1 - _draw_beta(cutmix.alpha, count, generator)).sqrt()
    side = side * (torch.rand(count, generator=generator) < cutmix.probability)
    borders = []
    for pixels in size:
        middle = torch.randint(pixels, (count,), generator=generator)
        cut = (side * pixels).long()
        low = middle - cut // 2
        borders += [low.clamp(0, pixels), (low + cut // 2 * 2).clamp(0, pixels)]
    return _rectangles(*borders)
