"""Training speed: the machine's limit, fmbench, and the loops that people write instead.

    python -m benchmarks.throughput

Images per second, for every model and batch size, on the real images, of

- limit: the bare step (forward, loss, backward, optimizer) on one batch that already lies on the
  device, in whichever memory format and precision is fastest (on a GPU also as a CUDA graph); and
  in those that fmbench takes ("same precision");
- fmbench: whole epochs through the product's own path, with crop and flip;
- usual: the loop of older projects: torchvision's data set, a PIL transform for each image, a
  DataLoader with 0 and with 2 workers, float32;
- lightning: the same model and DataLoader in a Lightning Trainer, where lightning is installed.

A turn of each takes about so many `--seconds`; after a `--budget` of seconds a model at one batch
size gets no more turns than three. On a GPU whose bf16 peak is known, one more column has fmbench's
share of it.
"""

import contextlib
import importlib.util
import io
import itertools
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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

from benchmarks.frame import Results, Spread, Timed, Work, interleaved, main, ratio
from fmbench.config import checks as configuration
from fmbench.core.signals import Listener
from fmbench.runs import prepare
from fmbench.runs.checkpointing import RunState
from fmbench.runs.progress import Display
from fmbench.training.cost import count_flops
from fmbench.training.device import MEMORY_FORMATS, Device, choose_precision, settings_kept
from fmbench.training.step import record_graph
from fmbench.training.trainer import Trainer

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

#: Dense bfloat16 FLOP/s by the name that CUDA gives. NVIDIA's H100, H200 and A100 data sheets;
#: where a sheet prints the figure with sparsity, half of it. Other forms of a chip (PCIe and NVL
#: cards of the H100, slices of one) have other peaks, so only whole names count.
BF16_PEAK = dict.fromkeys(("NVIDIA H100 80GB HBM3", "NVIDIA H200"), 989.4e12) | dict.fromkeys(
    [f"NVIDIA A100{name}" for name in ("-SXM4-40GB", "-SXM4-80GB", "-PCIE-40GB", " 80GB PCIe")],
    312e12,
)


def measure(
    *,
    models: Sequence[str] = ("lenet5", "lenet", "resnet18", "preact_resnet20", "densenet"),
    batch_sizes: Sequence[int] = (8, 64, 256, 512),
    repeats: int = 5,
    seconds: float = 2.0,
    budget: float = 180.0,
    usual: bool = True,
    overrides: Sequence[str] = (),
) -> Iterator[Results]:
    """The speed of every contender, named "MODEL, batch SIZE: CONTENDER"."""
    for model, batch_size in itertools.product(models, batch_sizes):
        setup = Setup(f"model={model}", f"batch_size={batch_size}", *overrides)
        works, fastest = contenders(setup, seconds, usual=usual)
        rates = interleaved(works, repeats, wait=setup.device.synchronize, budget=budget)
        # A short look beforehand does not say reliably which of two variants is faster.
        same = rates["same precision"]
        limit = [max(pair) for pair in zip(same, rates.pop("limit", same), strict=True)]
        rates = {"limit": limit, **rates}
        found: Results = {name: Spread.of(values, "images/s") for name, values in rates.items()}
        ours = rates.pop("fmbench")
        found |= {f"over {name}": ratio(ours, theirs) for name, theirs in rates.items()}
        shares = [share_of_peak(setup.flops, rate, setup.device.name) for rate in ours]
        if None not in shares:
            found["share of bf16 peak"] = Spread.of([100 * share for share in shares], "%")
        found["limit runs in"] = fastest
        yield {f"{model}, batch {batch_size}: {name}": value for name, value in found.items()}


def share_of_peak(flops: int | None, images_per_second: float, chip: str) -> float | None:
    """The share of a chip's bfloat16 peak that training comes to, 0 to 1; None if not known.

    Counted as is usual for training ("model FLOPs utilisation", Chowdhery et al. 2022,
    arXiv:2204.02311, appendix B): the way forward once and the way back as twice that. `flops` are
    of one image's way forward, a multiply-add as two, as data sheets count.
    """
    if flops is None or chip not in BF16_PEAK:
        return None
    return 3 * flops * images_per_second / BF16_PEAK[chip]


def compose(*overrides: str) -> dict[str, Any]:
    """The config of a run."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        return configuration.resolve(hydra.compose("config", list(overrides)))


class Setup:
    """What a run with crop and flip has made before its first step."""

    def __init__(self, *overrides: str) -> None:
        self.config = compose("augmentation=crop_flip", "epochs=100000", *overrides)
        self.inputs = prepare.read_inputs(self.config)
        self.device = self.inputs.device
        self.flops = count_flops(self.model(), self.inputs.dataset.shape)
        precision = choose_precision(self.config["precision"], self.device.torch, self.flops)
        self.device = replace(self.device, precision=precision)
        self.trainer = self.make_trainer(len(self.inputs.split.train))
        self.device = self.trainer.device

    def model(self) -> nn.Module:
        """The model, always with the same weights."""
        torch.manual_seed(0)
        return prepare.make_model(self.config, self.inputs.facts).train()

    def make_trainer(self, images: int) -> Trainer:
        """A trainer of a new model on the first so many training images."""
        split = replace(self.inputs.split, train=self.inputs.split.train[:images])
        inputs = replace(self.inputs, split=split)
        return prepare.make_trainer(self.config, inputs, self.model(), self.device, self.flops)


def contenders(setup: Setup, seconds: float, *, usual: bool = True) -> tuple[dict[str, Work], str]:
    """Each trains for about so long, a step at least, on some images, and returns how many.

    Without the `usual` ones only the limit and fmbench compete.

    Returns:
        Them, and what the limit runs in.
    """
    device, batch_size = setup.device, setup.config["batch_size"]
    ours = f"{device.memory_format}, {device.precision}{', captured' * device.cuda_graphs}"
    steps = bare_steps(setup)
    once = {name: lambda step=step: step() or 1 for name, step in steps.items()}
    rates = interleaved(once, 20, wait=device.synchronize, budget=min(1.0, seconds))
    speed, fastest = max((statistics.median(values), name) for name, values in rates.items())
    there = len(setup.inputs.split.train) // batch_size
    count = max(1, min(there, round(seconds * speed)))

    def repeated(step: Callable[[], None]) -> Work:
        return lambda: sum(step() or batch_size for _ in range(count))

    found = {
        "same precision": repeated(steps[ours]),
        "fmbench": whole_epochs(setup, count * batch_size),
    }
    if fastest != ours:
        found["limit"] = repeated(steps[fastest])
    if usual:
        few = min(count, max(FEWEST, round(seconds / PIL_SECONDS / batch_size)))
        chosen, data = setup.inputs.split.train[: few * batch_size], setup.inputs.dataset
        pictures = PilImages(data.images[chosen, 0], data.labels[chosen], CROP_FLIP)
        for workers in (0, 2):
            how = {"num_workers": workers, "persistent_workers": workers > 0}
            loader = DataLoader(pictures, batch_size, shuffle=True, **how)
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
    contiguous = setup.device.memory_format == "contiguous"  # the model runs in no other
    formats = ("contiguous",) if contiguous else tuple(MEMORY_FORMATS)
    graphs = (False, True) if setup.device.torch.type == "cuda" else (False,)
    found = {}
    for name, precision, graph in itertools.product(formats, ("fp32", "bf16"), graphs):
        device = replace(setup.device, precision=precision, memory_format=name)
        step = bare_step(setup.model(), device, setup.config["batch_size"])
        key = f"{name}, {precision}{', captured' * graph}"
        found[key] = captured(step, device.torch) if graph else step
    return found


def bare_step(model: nn.Module, device: Device, batch_size: int) -> Callable[[], None]:
    """Forward, loss, backward, optimizer, on images that are always the same."""
    model = device.place(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = torch.randn(batch_size, 1, 28, 28, device=device.torch)
    images = images.to(memory_format=MEMORY_FORMATS[device.memory_format])
    labels = torch.randint(0, 10, (batch_size,), device=device.torch)

    def step() -> None:
        with device.autocast():
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The step as one CUDA graph, as PyTorch's notes on CUDA graphs have it."""
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        for _ in range(3):  # what is made at the first step must not be made by the graph
            step()
    torch.cuda.current_stream(device).wait_stream(aside)
    return record_graph(step, device=device)


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
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    where = {"accelerator": "gpu", "devices": [device.torch.index]} if gpu else {"devices": 1}

    def work() -> Timed:
        quiet = io.StringIO()
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
            as_pytorch_comes(),
        ):
            options = {"accelerator": "cpu", **where, **silent, "enable_checkpointing": False}
            lightning.Trainer(max_epochs=1, **options).fit(module, loader)
        return Timed(len(loader.dataset), times[-1] - times[-2])  # type: ignore[arg-type]

    return work


@contextlib.contextmanager
def as_pytorch_comes() -> Iterator[None]:
    """Without the settings of a run: on a GPU convolutions round to TF32, as they do unasked."""
    with settings_kept():
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        yield


if __name__ == "__main__":
    main(measure)
