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

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.timing import Results, Spread, interleaved, number, ratio, save, table
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import CHUNK, Normalization, TrainLoader
from fmbench.preview.__main__ import compose
from fmbench.training.device import processor

MEAN, STD = 0.2860, 0.3530

#: Every option of fmbench, and all parts at once.
OPTIONS = {
    "none": ["augmentation=none"],
    "flip": ["augmentation=flip"],
    "crop_flip": ["augmentation=crop_flip"],
    "crop_flip_cutout": ["augmentation=crop_flip_cutout"],
    "crop_flip_erasing": ["augmentation=crop_flip_erasing"],
    "all four parts": ["augmentation=crop_flip_cutout", "augmentation.erasing={}"],
}

#: The same by torchvision: of PIL images, to tensors, of tensors.
CROP_FLIP = [v2.RandomCrop(28, padding=4), v2.RandomHorizontalFlip()]
TO_TENSOR = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN], [STD])]
PER_IMAGE = {
    "none": TO_TENSOR,
    "crop_flip": [*CROP_FLIP, *TO_TENSOR],
    "crop_flip_erasing": [*CROP_FLIP, *TO_TENSOR, v2.RandomErasing(0.5)],
}


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets give them: each made a PIL image, then transformed."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self.images = images.numpy()
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        """Images in all."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(1, 28, 28) float32, and the label."""
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loaders(
    images: Tensor, labels: Tensor, *, batch_size: int, subset: int
) -> dict[str, Callable[[int], Any]]:
    """By name, what gives the batches of an epoch: (B, 1, 28, 28) float32 images and (B,) labels.

    Args:
        images: (N, 28, 28) uint8.
        labels: (N,) int64.
        batch_size: images a batch.
        subset: how many of the images torchvision gets.
    """
    found: dict[str, Callable[[int], Any]] = {}
    for name, overrides in OPTIONS.items():
        config, _ = compose(overrides)
        found[f"fmbench, {name}"] = TrainLoader(
            images,
            labels,
            batch_size=batch_size,
            seed=0,
            augmentation=Augmentation.from_config(config["augmentation"]),
            normalization=Normalization(MEAN, STD),
        ).epoch
    for name, transforms in PER_IMAGE.items():
        data = PilImages(images[:subset], labels[:subset], v2.Compose(transforms))
        batches = DataLoader(data, batch_size, shuffle=True)
        found[f"torchvision, {name}"] = lambda _epoch, batches=batches: batches
    return found


def contenders(
    images: Tensor, labels: Tensor, *, batch_size: int, subset: int
) -> dict[str, Callable[[], int]]:
    """By name; each goes through an epoch and returns how many images that was."""

    def copy() -> int:
        for ids in torch.randperm(len(images)).split(CHUNK):
            images[ids]
        return len(images)

    def through(epoch: Callable[[int], Any]) -> Callable[[], int]:
        return lambda: sum(len(labels) for _, labels in epoch(0))

    chosen = loaders(images, labels, batch_size=batch_size, subset=subset)
    return {"bare copy": copy} | {name: through(epoch) for name, epoch in chosen.items()}


def measure(
    *, images: int = 60_000, subset: int = 6_000, batch_size: int = 128, repeats: int = 9
) -> Results:
    """Images per second of every way, and fmbench's over torchvision's.

    Sets PyTorch to one thread.

    Args:
        images: of an epoch.
        subset: how many of them torchvision gets.
        batch_size: images a batch.
        repeats: turns.
    """
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (images, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (images,))
    chosen = contenders(pixels, labels, batch_size=batch_size, subset=subset)
    rates = interleaved(chosen, repeats)
    results: Results = {}
    for name, values in rates.items():
        results[name] = Spread.of(values, "images/s")
        usual = name.replace("fmbench", "torchvision")
        if usual in rates and usual != name:
            results[f"{name}: over torchvision"] = ratio(values, rates[usual])
    return results


def rows(results: Results) -> str:
    """The results as a table with a line for each way."""
    lines = []
    for name, value in results.items():
        if isinstance(value, str) or name.endswith(": over torchvision"):
            continue
        over = results.get(f"{name}: over torchvision")
        lines.append(
            [
                name,
                number(value.median),
                f"{number(value.low)} - {number(value.high)}",
                f"{over.median:.1f} ({over.low:.1f}-{over.high:.1f})"
                if isinstance(over, Spread)
                else "",
            ]
        )
    return table(["images/s", "median", "quartiles", "over torchvision"], lines)


def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, save it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--subset", type=int, default=6_000, help="of the images, for torchvision")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    results = measure(
        images=arguments.images,
        subset=arguments.subset,
        batch_size=arguments.batch_size,
        repeats=arguments.repeats,
    )
    print(
        f"{processor()}, 1 thread; {arguments.images:,} images of random pixels "
        f"({arguments.subset:,} for torchvision)\nin batches of {arguments.batch_size}; "
        f"medians of {arguments.repeats} turns, and the quartiles\n"
    )
    print(rows(results))
    save(arguments.json, "augment", results)


if __name__ == "__main__":
    main()
