"""Some images as a run sees them: before its augmentation, and after, epoch by epoch.

They come out of the loader that the run trains from, so what a picture shows under `epoch 3` is
what the net of such a run gets in its third epoch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fmbench.assembly import make_train_loader, prepare
from fmbench.augment import Augmentation
from fmbench.grid import Grid
from fmbench.loader import TrainLoader
from fmbench.parts import SIDE


def collect(config: Mapping[str, Any], option: str, *, images: int, draws: int) -> Grid:
    """The first images of some classes, as they are and in each epoch.

    Args:
        config: resolved.
        option: the name of the augmentation.
        images: how many, of classes spread evenly over all.
        draws: how many epochs.

    Raises:
        UserError: what is wrong with the config or the data.
    """
    inputs = prepare(config)
    loader = make_train_loader(config, inputs, inputs.device.torch)
    plain = dataclasses.replace(inputs, augmentation=Augmentation())
    untouched = make_train_loader(config, plain, inputs.device.torch)
    names = inputs.dataset.classes
    classes = np.linspace(0, len(names) - 1, images).round().astype(int)
    labels = loader.labels.cpu().numpy()
    first = [int(np.argmax(labels == label)) for label in classes]
    return Grid(
        title=f"augmentation={option}",
        subtitle=_numbers(config),
        rows=tuple(names[label] for label in classes),
        columns=("as it is", *(f"epoch {epoch + 1}" for epoch in range(draws))),
        images=np.concatenate([_seen(untouched, first, 1), _seen(loader, first, draws)], axis=1),
    )


def _seen(loader: TrainLoader, wanted: Sequence[int], epochs: int) -> np.ndarray:
    """(wanted, epochs, 28, 28) uint8: how the images at the wanted places look in each epoch."""
    device = loader.labels.device
    # Batches come shuffled: with its place in the set as its label, each image can be found again.
    loader.labels = torch.arange(len(loader.labels), device=device)
    places = torch.tensor(wanted, device=device)
    seen = np.empty((len(wanted), epochs, SIDE, SIDE), dtype=np.uint8)
    for epoch in range(epochs):
        for images, labels in loader.epoch(epoch):
            for row, column in (places[:, None] == labels).nonzero().tolist():
                pixels = loader.normalization.undo(images[column])
                seen[row, epoch] = pixels[0].cpu().numpy()
    return seen


def _numbers(config: Mapping[str, Any]) -> str:
    """Every part with its numbers; below, what else decides how the images look."""
    parts = {name: numbers for name, numbers in config["augmentation"].items() if numbers}
    said = [
        f"{name}: {', '.join(f'{key} {_shown(value)}' for key, value in numbers.items())}"
        for name, numbers in parts.items()
    ]
    images = f"{config['data']['name']}, seed {config['seed']}"
    if parts.keys() & {"cutout", "erasing"}:
        images += f"; blanked pixels have the mean, {_shown(config['data']['mean'])}"
    return f"{';  '.join(said) or 'no part: every epoch sees the images as they are'}\n{images}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " to ".join(map(_shown, value))
    return f"{value:g}"
