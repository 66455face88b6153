"""How many images a second one thread augments: fmbench's loader beside torchvision per image.

    python -m benchmarks.augment

Images per second of

- bare copy: the least that any loader does, the pixels in a new order, as they are;
- fmbench: whole epochs of the training loader, which draws, augments, and makes normalised floats;
- torchvision: a DataLoader in this process, which makes each image a PIL image and transforms it,
  over a part of the images. It has no Cutout. Its transforms of whole batches are no comparison:
  they draw once for all images of a batch.

The pixels are random: what is done to an image does not depend on what it shows.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.frame import Results, Spread, Work, interleaved, main, ratio
from benchmarks.throughput import PilImages, compose
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import CHUNK, Normalization, TrainLoader

MEAN, STD = 0.2860, 0.3530

#: Every option of fmbench, four parts at once, and parts after the crop and flip that they are
#: compared with.
OPTIONS = {
    name: [f"augmentation={name}"]
    for name in (
        *("none", "flip", "crop_flip", "crop_altflip", "crop_flip_cutout", "crop_flip_erasing"),
        *("mixup", "cutmix", "rotation", "affine", "trivial_augment"),
    )
} | {"all four parts": ["augmentation=crop_flip_cutout", "augmentation.erasing={}"]}
AFTER = ("mixup", "cutmix", "affine", "trivial_augment")
OPTIONS |= {
    f"crop_flip and {part}": ["augmentation=crop_flip", f"augmentation.{part}={{}}"]
    for part in AFTER
}

#: The same by torchvision: of PIL images, to tensors, of tensors.
CROP_FLIP = [v2.RandomCrop(28, padding=4), v2.RandomHorizontalFlip()]
TO_TENSOR = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN], [STD])]
PER_IMAGE = {
    "none": TO_TENSOR,
    "crop_flip": [*CROP_FLIP, *TO_TENSOR],
    "crop_flip_erasing": [*CROP_FLIP, *TO_TENSOR, v2.RandomErasing(0.5)],
}


def loaders(
    images: Tensor, labels: Tensor, *, batch_size: int, subset: int
) -> dict[str, Callable[[int], Any]]:
    """By name, what gives the batches of an epoch: (B, 1, 28, 28) float32 images and (B,) labels.

    They are of (N, 1, 28, 28) uint8 images and (N,) int64 labels; torchvision gets a subset.
    """
    found: dict[str, Callable[[int], Any]] = {}
    for name, overrides in OPTIONS.items():
        augmentation = Augmentation.from_config(compose(*overrides)["augmentation"])
        options: dict[str, Any] = {"augmentation": augmentation, "classes": 10}
        options["normalization"] = Normalization(MEAN, STD)
        loader = TrainLoader(images, labels, batch_size=batch_size, seed=0, **options)
        found[f"fmbench, {name}"] = loader.epoch
    for name, transforms in PER_IMAGE.items():
        data = PilImages(
            images[:subset, 0].numpy(), labels[:subset].numpy(), v2.Compose(transforms)
        )
        batches = DataLoader(data, batch_size, shuffle=True)
        found[f"torchvision, {name}"] = lambda _epoch, batches=batches: batches
    return found


def measure(
    *, images: int = 60_000, subset: int = 6_000, batch_size: int = 128, repeats: int = 9
) -> Iterator[Results]:
    """Images per second of every way by one thread, and fmbench's over torchvision's."""
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (images, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (images,))

    def copy() -> int:
        return sum(len(pixels[ids]) for ids in torch.randperm(images).split(CHUNK))

    def through(epoch: Callable[[int], Any]) -> Work:
        return lambda: sum(len(labels) for _, labels in epoch(0))

    chosen = loaders(pixels, labels, batch_size=batch_size, subset=subset)
    works = {"bare copy": copy} | {name: through(epoch) for name, epoch in chosen.items()}
    rates = interleaved(works, repeats)
    results: Results = {f"{name}: images/s": Spread.of(rate) for name, rate in rates.items()}
    for name in PER_IMAGE:
        over = ratio(rates[f"fmbench, {name}"], rates[f"torchvision, {name}"])
        results[f"fmbench, {name}: over torchvision"] = over
    for name in OPTIONS:
        longer = ratio(rates["fmbench, crop_flip"], rates[f"fmbench, {name}"])
        results[f"fmbench, {name}: time of crop_flip"] = longer
    yield results


if __name__ == "__main__":
    main(measure)
