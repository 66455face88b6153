"""Batches out of tensors that already live on the device.

The whole training part is one uint8 tensor; a batch is a slice of a permutation of it. Both the
permutation and the augmentation are pure functions of (seed, epoch), drawn on the CPU, so that
every device, batch size and restart sees the same images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmbench.data.augmentation import Augmentation, Draws

#: Images gathered, augmented and normalised at once: enough that small batches cost little, few
#: enough that they stay in the processor's cache.
CHUNK = 2048

#: Keeps the streams of random numbers of one (seed, epoch) apart; the last is of all epochs.
ORDER, AUGMENT, LASTING = 0, 1, 2


def generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    state = np.random.SeedSequence((seed, epoch, stream)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class Normalization:
    """From uint8 pixels to floats of mean 0 and standard deviation 1: (x / 255 - mean) / std.

    Both are on a scale of 0 to 1, of all pixels or of those of each channel.
    """

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        means, stds = np.broadcast_arrays(np.atleast_1d(mean), np.atleast_1d(std))
        self.mean, self.std = means.tolist(), stds.tolist()
        self.scale: Any = (1 / (255 * stds)).tolist()
        self.shift: Any = (-means / stds).tolist()
        if len(means) == 1:
            (self.scale,), (self.shift,) = self.scale, self.shift
        else:
            self.scale, self.shift = (
                torch.tensor(numbers)[:, None, None] for numbers in (self.scale, self.shift)
            )

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> (B, C, H, W) float32."""
        if isinstance(self.scale, Tensor):
            device = pixels.device  # nothing is copied where they are there already
            self.scale, self.shift = self.scale.to(device), self.shift.to(device)
        normalized: Tensor = pixels.float().mul_(self.scale).add_(self.shift)
        return normalized

    def undo(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float32 -> (B, C, H, W) uint8, the pixels that these floats stand for."""
        pixels: Tensor = ((images - self.shift) / self.scale).round().clamp(0, 255).byte()
        return pixels


def keeps_windows(
    augmentation: Augmentation, images: int, shape: tuple[int, int, int], memory: int | None
) -> bool:
    """Whether padded and mirrored images are kept: where they take a quarter of the memory.

    Or less; and where nothing is padded or mirrored, since they are the images then.
    """
    stored = augmentation.stored(images, shape)
    same = stored == images * math.prod(shape)
    return memory is None or same or 4 * stored <= memory


@dataclass(eq=False)
class TrainLoader:
    """The training images, shuffled and augmented anew each epoch.

    They are padded and mirrored once, where that takes at most a quarter of the memory, else a
    group at a time: the same images, more slowly.
    """

    #: (N, C, H, W) uint8 on the device to train on; None where kept as windows.
    images: Tensor | None
    labels: Tensor  # (N,) int64 on the same device
    _: KW_ONLY
    batch_size: int  # images a step; the last batch of an epoch may be smaller
    seed: int  # of order and augmentation
    augmentation: Augmentation
    normalization: Normalization  # applied to every image
    classes: int = 0  # how many there are; needed where images are mixed
    memory: InitVar[int | None] = None  # bytes that there are on that device; None: enough
    # Whether the last image of an epoch, where it would be a batch of its own, is given with the
    # batch before it.
    joins_last: bool = False

    def __post_init__(self, memory: int | None) -> None:
        images = self.images
        assert images is not None
        self.shape = images.shape[1], images.shape[2], images.shape[3]
        self.windows = None  # what crop and flip can make of all images
        if keeps_windows(self.augmentation, len(images), self.shape, memory):
            self.windows, self.images = self.augmentation.windows(images), None
        # Beside a GPU the host has time to draw the next epoch while this one is trained on.
        self.pool = None if self.labels.device.type == "cpu" else ThreadPoolExecutor(1)
        self.coming: tuple[int, Future[tuple[Tensor, Draws]]] | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._sizes(len(self.labels)))

    @property
    def sizes(self) -> set[int]:
        """How many images batches have."""
        return {*self._sizes(len(self.labels))}

    def _sizes(self, images: int) -> list[int]:
        """How many images are in each batch of so many, the last ones of an epoch."""
        sizes = [self.batch_size] * (images // self.batch_size)
        left = images % self.batch_size
        if left == 1 and self.joins_last and sizes:
            sizes[-1] += 1
        elif left:
            sizes.append(left)
        return sizes

    def epoch(self, epoch: int, *, seen: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch: (B, C, H, W) float32 images and (B,) int64 labels.

        Where images are mixed, (B, classes) float32 targets instead of the labels.

        Args:
            epoch: counted from 0.
            seen: images of it that were trained on already, in whole batches: they are left out.
        """
        for ids, images, targets in self.chunks(epoch, seen=seen):
            sizes = self._sizes(len(ids))
            yield from zip(torch.split(images, sizes), torch.split(targets, sizes), strict=True)

    def chunks(self, epoch: int, *, seen: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The same in groups of batches, each with the indices of its images, (B,) int64."""
        count, start = len(self.labels), 0
        order, draws = self._drawn(epoch)
        chunk = self.batch_size * max(1, CHUNK // self.batch_size)
        # From the epoch's beginning, so that each image is made in the same group after a restart.
        while start < count:
            # A chunk is never followed by one image alone, which may belong to its last batch.
            end = start + chunk if start + chunk + 1 < count else count
            if seen < end:
                images, targets = self._made(order, start, end, draws)
                skip = max(0, seen - start)
                yield order[start + skip : end], images[skip:], targets[skip:]
            start = end

    @torch.no_grad()
    def _made(self, order: Tensor, start: int, end: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """The images and targets at these places of an order."""
        ids, mixes = order[start:end], self.augmentation.parts.mixes
        if mixes:  # the partner of the last image is the next one, of the very last the first
            ids = torch.cat([ids, order[end % len(order), None]])
        pixels = self.augmentation.recolour(self._moved_by(draws, ids), draws, ids)
        images = self.augmentation.blank(self.normalization(pixels), draws, ids)
        targets = self.labels[ids]
        if mixes:
            classes = torch.arange(self.classes, device=targets.device)
            targets = (targets[:, None] == classes).float()  # one_hot would wait for a GPU
            images, targets = self.augmentation.mix(images, targets, draws, ids)
        return images, targets

    def _moved_by(self, draws: Draws, ids: Tensor) -> Tensor:
        """Cropped and flipped: (B, C, H, W) uint8."""
        if self.windows is not None:
            return self.augmentation.move(self.windows, draws, ids)
        assert self.images is not None
        windows = self.augmentation.windows(self.images[ids])
        of_group = {name: drawn[ids] for name, drawn in draws.items()}
        return self.augmentation.move(windows, of_group, torch.arange(len(ids), device=ids.device))

    def _drawn(self, epoch: int) -> tuple[Tensor, Draws]:
        """An epoch's order, and what augmentation draws for its images, on the device."""
        if self.pool is None:
            return self._draw(epoch)
        coming = self.coming
        if coming is not None and coming[0] == epoch:
            order, draws = coming[1].result()
        else:
            order, draws = self._draw(epoch)
        # Averages look back at the first epoch: what is drawn for the next one stays.
        if coming is None or coming[0] <= epoch:
            self.coming = epoch + 1, self.pool.submit(self._draw, epoch + 1)
        return self._moved(order), {name: self._moved(drawn) for name, drawn in draws.items()}

    def _draw(self, epoch: int) -> tuple[Tensor, Draws]:
        """The same on the CPU, where all draws are made; asks nothing of a GPU, as a thread may."""
        count = len(self.labels)
        order = torch.randperm(count, generator=generator(self.seed, epoch, ORDER))
        draws = self.augmentation.draw(
            count,
            self.shape[1:],
            generator(self.seed, epoch, AUGMENT),
            epoch=epoch,
            lasting=generator(self.seed, 0, LASTING),
        )
        return order, draws

    def _moved(self, drawn: Tensor) -> Tensor:
        """On the device; from pinned memory the host need not wait for the copy."""
        device = self.labels.device
        if device.type == "cuda":
            drawn = drawn.pin_memory()
        return drawn.to(device, non_blocking=True)


@dataclass(eq=False)
class EvaluationLoader:
    """Images in their own order, as they are, in large batches."""

    images: Tensor  # (N, C, H, W) uint8 on the device
    labels: Tensor  # (N,) int64 on the same device
    _: KW_ONLY
    normalization: Callable[[Tensor], Tensor]  # applied to every batch of images
    batch_size: int  # images at once

    def __len__(self) -> int:
        """Images in all."""
        return len(self.labels)

    @property
    def sizes(self) -> set[int]:
        """How many images batches have."""
        return {min(len(self), self.batch_size), len(self) % self.batch_size} - {0}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, C, H, W) float32 images and (B,) int64 labels."""
        for images, labels in zip(
            torch.split(self.images, self.batch_size),
            torch.split(self.labels, self.batch_size),
            strict=True,
        ):
            yield self.normalization(images), labels
