"""What people write instead: torchvision's data set, PIL transforms, a DataLoader; and Lightning.

float32 as PyTorch comes: on a GPU its convolutions round to TF32, which fmbench forbids itself.
"""

import contextlib
import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.augment import PilImages
from benchmarks.timing import Timed, Work
from fmbench.training.device import Device, settings_kept

#: Of older projects, which knew torchvision's first transforms.
CROP_FLIP = transforms.Compose(
    [
        transforms.RandomCrop(28, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.2860,), (0.3530,)),
    ]
)


def batches(
    images: np.ndarray, labels: np.ndarray, *, batch_size: int, workers: int
) -> DataLoader[Any]:
    """The usual DataLoader over images that go through PIL, with crop and flip.

    Args:
        images: (N, 28, 28) uint8.
        labels: (N,) whole numbers.
        batch_size: images a step.
        workers: processes; they start once and stay.
    """
    return DataLoader(
        PilImages(torch.from_numpy(images), torch.from_numpy(labels), CROP_FLIP),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def loop(model: nn.Module, loader: DataLoader[Any], device: Device) -> Work:
    """The loop of older projects: one pass over the images, running sums read at every step."""
    model = model.to(device.torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = nn.CrossEntropyLoss()

    def work() -> int:
        seen, total, correct = 0, 0.0, 0
        with as_pytorch_comes():
            for batch in loader:
                inputs, labels = (part.to(device.torch) for part in batch)
                optimizer.zero_grad()
                outputs = model(inputs)
                loss = criterion(outputs, labels)
                loss.backward()
                optimizer.step()
                total += loss.item()
                correct += (outputs.argmax(1) == labels).sum().item()
                seen += len(labels)
        return seen

    return work


def has_lightning() -> bool:
    """Whether Lightning is installed; fmbench does not need it."""
    return importlib.util.find_spec("lightning") is not None


def lightning_fit(model: nn.Module, loader: DataLoader[Any], device: Device) -> Work:
    """One pass over the images by a Lightning Trainer, which reads the clock itself.

    From the start of its epoch to the end: setting the Trainer up is not counted.
    """
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.seen, self.start, self.seconds = 0, 0.0, 0.0

        def training_step(self, batch: Any, _number: int) -> torch.Tensor:
            inputs, labels = batch
            self.seen += len(labels)
            return F.cross_entropy(self.model(inputs), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

        def on_train_epoch_start(self) -> None:
            device.synchronize()
            self.start = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            device.synchronize()
            self.seconds = time.perf_counter() - self.start

    net = Net()
    gpu = device.torch.type == "cuda"

    def work() -> Timed:
        net.seen = 0
        with warnings.catch_warnings(), silent(), as_pytorch_comes():
            warnings.simplefilter("ignore")
            lightning.Trainer(
                accelerator="gpu" if gpu else "cpu",
                devices=[device.torch.index] if gpu else 1,
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(net, loader)
        return Timed(net.seen, net.seconds)

    return work


@contextlib.contextmanager
def as_pytorch_comes() -> Iterator[None]:
    """The settings that a run of fmbench changes, as they are without it."""
    with settings_kept():
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        yield


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Lightning greets on standard output and error."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
