"""What trains the same model on the same images: the bare step, fmbench, and what people write."""

import contextlib
import importlib.util
import io
import itertools
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.frame import Timed, Work, interleaved
from fmbench.config import checks as configuration
from fmbench.core.signals import Listener
from fmbench.runs import prepare
from fmbench.runs.checkpointing import RunState
from fmbench.runs.progress import Display
from fmbench.training.cost import count_flops
from fmbench.training.device import MEMORY_FORMATS, Device, choose_precision, settings_kept
from fmbench.training.trainer import Trainer, train_epoch

LIMIT, SAME = "limit", "same precision"

#: Seconds that PIL and torchvision take for an image, about.
PIL_SECONDS = 2e-4

#: Batches of a turn of the usual loops at least: starting the workers must hardly count.
FEWEST = 20

#: Of older projects, which knew torchvision's first transforms.
CROP_FLIP = transforms.Compose(
    [
        transforms.RandomCrop(28, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.2860,), (0.3530,)),
    ]
)


def compose(*overrides: str) -> dict[str, Any]:
    """The config of a run."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        return configuration.resolve(hydra.compose("config", list(overrides)))


class Setup:
    """What a run has made before its first step.

    Args:
        config: of the run.

    Attributes:
        inputs: the data and their split.
        flops: of the model.
        trainer: of the model.
        device: with its precision and memory format chosen.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.inputs = prepare.read_inputs(config)
        self.device = self.inputs.device
        model = self.model()
        self.flops = count_flops(model)
        precision = choose_precision(config["precision"], self.device.torch, self.flops)
        self.device = replace(self.device, precision=precision)
        self.trainer = self.make_trainer(len(self.inputs.split.train))
        self.device = self.trainer.device

    def model(self) -> nn.Module:
        """The model, always with the same weights."""
        torch.manual_seed(0)
        return prepare.make_model(self.config).train()

    def make_trainer(self, images: int) -> Trainer:
        """A trainer of a new model on the first so many training images."""
        split = replace(self.inputs.split, train=self.inputs.split.train[:images])
        inputs = replace(self.inputs, split=split)
        return prepare.make_trainer(self.config, inputs, self.model(), self.device, self.flops)


def train_for(trainer: Trainer, seconds: float) -> Timed:
    """Train on whole batches for about so long."""
    images = 0
    batches = itertools.chain.from_iterable(map(trainer.loader.epoch, itertools.count()))

    def train(some: Iterator[tuple[Tensor, Tensor]]) -> None:
        parts = trainer.model, some, trainer.step, trainer.schedule
        train_epoch(*parts, report=lambda *_sums: None)
        trainer.device.synchronize()

    def until(end: float) -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal images
        for batch in batches:
            yield batch
            images += len(batch[1])
            if time.perf_counter() >= end:
                return

    train(itertools.islice(batches, 2))  # makes what is made once, and ends the turn before
    start = time.perf_counter()
    train(until(start + seconds))
    return Timed(images, time.perf_counter() - start)


def contenders(setup: Setup, seconds: float, *, usual: bool = True) -> tuple[dict[str, Work], str]:
    """Each trains on some images and returns how many; and what the limit runs in.

    Args:
        setup: of the model.
        seconds: that each should take a turn, about; one step at least.
        usual: whether others than the limit and fmbench compete.
    """
    device, batch_size = setup.device, setup.config["batch_size"]
    ours = f"{device.memory_format}, {device.precision}{', captured' * device.cuda_graphs}"
    steps = bare_steps(setup)
    once = {name: lambda step=step: step() or 1 for name, step in steps.items()}
    rates = interleaved(once, 20, wait=device.synchronize, budget=min(1.0, seconds))
    times = {name: 1 / statistics.median(values) for name, values in rates.items()}
    fastest = min(times, key=times.__getitem__)
    there = len(setup.inputs.split.train) // batch_size
    count = max(1, min(there, round(seconds / times[fastest])))

    def repeated(step: Callable[[], None]) -> Work:
        def work() -> int:
            for _ in range(count):
                step()
            return count * batch_size

        return work

    found = {SAME: repeated(steps[ours]), "fmbench": whole_epochs(setup, count * batch_size)}
    if fastest != ours:
        found[LIMIT] = repeated(steps[fastest])
    if usual:
        few = min(count, max(FEWEST, round(seconds / PIL_SECONDS / batch_size)))
        chosen, data = setup.inputs.split.train[: few * batch_size], setup.inputs.dataset
        pictures = PilImages(data.train_images[chosen], data.train_labels[chosen], CROP_FLIP)
        for workers in (0, 2):
            loader = DataLoader(
                *(pictures, batch_size),
                shuffle=True,
                num_workers=workers,
                persistent_workers=workers > 0,
            )
            found[f"usual, {workers} workers"] = usual_loop(setup.model(), loader, device)
        if importlib.util.find_spec("lightning"):  # fmbench does not need it
            loader = DataLoader(pictures, batch_size, shuffle=True)
            found["lightning"] = lightning_fit(setup.model(), loader, device)
    return found, fastest


def whole_epochs(setup: Setup, images: int) -> Work:
    """Epochs of the first so many images as a run goes through them, with a display of nothing."""
    trainer = setup.make_trainer(images)
    nowhere: Any = SimpleNamespace(checkpoints=(Path(), Path()))
    record: Any = None
    state = RunState({"checkpoint_every": 0}, record, nowhere, Listener())
    display = Display(trainer.epochs, images, shown=False)
    epochs = trainer.fit(display.report, state.after_batch)
    return lambda: images if next(epochs) else 0


def bare_steps(setup: Setup) -> dict[str, Callable[[], None]]:
    """The bare step in every memory format and precision; on a GPU also as one CUDA graph."""
    formats = dict(MEMORY_FORMATS)
    if setup.device.memory_format == "contiguous":  # the model does not run in the other
        del formats["channels_last"]
    found = {}
    for (name, memory_format), precision in itertools.product(formats.items(), ("fp32", "bf16")):
        device = replace(setup.device, precision=precision)
        for graph in (False, True) if device.torch.type == "cuda" else (False,):
            step = bare_step(setup.model(), device, setup.config["batch_size"], memory_format)
            key = f"{name}, {precision}{', captured' * graph}"
            found[key] = captured(step) if graph else step
    return found


def bare_step(
    model: nn.Module, device: Device, batch_size: int, memory_format: torch.memory_format
) -> Callable[[], None]:
    """Forward, loss, backward, optimizer, on images that are always the same."""
    model = model.to(device.torch).to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = torch.randn(batch_size, 1, 28, 28, device=device.torch)
    images = images.to(memory_format=memory_format)
    labels = torch.randint(0, 10, (batch_size,), device=device.torch)

    def step() -> None:
        with device.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as one CUDA graph, as PyTorch's notes on CUDA graphs have it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # what is made at the first step must not be made by the graph
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets give them: each made a PIL image, then transformed."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Any], Tensor]
    ) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        """Images in all."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(1, 28, 28) float32, and the label."""
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def usual_loop(model: nn.Module, loader: "DataLoader[Any]", device: Device) -> Work:
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


def lightning_fit(model: nn.Module, loader: "DataLoader[Any]", device: Device) -> Work:
    """One pass over the images by a Lightning Trainer; setting the Trainer up is not timed."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    times: list[float] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _number: int) -> Tensor:
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

        def on_train_epoch_start(self) -> None:
            device.synchronize()
            times.append(time.perf_counter())

        on_train_epoch_end = on_train_epoch_start

    module, gpu = Module(), device.torch.type == "cuda"

    def work() -> Timed:
        quiet = io.StringIO()
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
            as_pytorch_comes(),
        ):
            lightning.Trainer(
                accelerator="gpu" if gpu else "cpu",
                devices=[device.torch.index] if gpu else 1,
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(module, loader)
        return Timed(len(loader.dataset), times[-1] - times[-2])  # type: ignore[arg-type]

    return work


@contextlib.contextmanager
def as_pytorch_comes() -> Iterator[None]:
    """Without the settings of a run: on a GPU convolutions round to TF32, as they do unasked."""
    with settings_kept():
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        yield
