"""Training speed: the machine's limit, fmbench, and the loops that people write instead.

    python -m benchmarks.throughput --nets lenet5 lenet --batch-sizes 64 256

Images per second of

- limit: the bare step (forward, loss, backward, optimizer) on one batch that already lies on the
  device, in whichever memory format and precision is fastest; and in those that fmbench takes
  ("same precision");
- fmbench: whole epochs through the product's own path, with crop and flip;
- usual: the loop of older projects: torchvision's data set, a PIL transform for each image, a
  DataLoader with 0 and with 2 workers, float32;
- lightning: the same net and DataLoader in a Lightning Trainer, where lightning is installed.

All on the real images. Each takes as many of them as last about `--seconds`; starting the
workers of a DataLoader is not counted.
"""

import argparse
import contextlib
import importlib.util
import itertools
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import Spread, interleaved, number, ratio, save, table
from fmbench import assembly
from fmbench import config as configuration
from fmbench.cost import count_flops
from fmbench.device import choose_precision
from fmbench.train import train_epoch

NETS = ("lenet5", "lenet", "resnet18", "preact_resnet20", "densenet")
BATCH_SIZES = (8, 64, 256, 512)


def compose(net: str, batch_size: int, data: str) -> dict[str, Any]:
    """The config of a run with crop and flip."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        overrides = [f"model={net}", f"batch_size={batch_size}", f"data={data}"]
        overrides += ["augmentation=crop_flip", "scheduler=constant"]
        return configuration.resolve(hydra.compose("config", overrides=overrides))


class Contest:
    """The contenders for one net and batch size, each a function that trains on some images."""

    def __init__(self, net: str, batch_size: int, data: str, seconds: float) -> None:
        self.config = compose(net, batch_size, data)
        self.batch_size = batch_size
        self.seconds = seconds
        self.inputs = assembly.prepare(self.config)
        self.flops = count_flops(assembly.make_model(self.config))
        precision = choose_precision("auto", self.inputs.device.torch, self.flops)
        self.device = replace(self.inputs.device, precision=precision)
        self.chosen = ""  # what the limit runs in

    def contenders(self, usual: bool) -> dict[str, Callable[[], int]]:
        """By name; each returns the images it trained on.

        Args:
            usual: whether others than the limit and fmbench compete.
        """
        images = self._images()
        same = f"channels_last, {self.device.precision}"
        found = {
            "limit": self._limit(self.variants[self.chosen], images),
            "same precision": self._limit(self.variants[same], images),
            "fmbench": self._fmbench(images),
        }
        if usual:
            found["usual, 0 workers"] = self._usual(images, workers=0)
            found["usual, 2 workers"] = self._usual(images, workers=2)
            if importlib.util.find_spec("lightning"):
                found["lightning"] = self._lightning(images)
        return found

    def _model(self) -> nn.Module:
        torch.manual_seed(0)
        return assembly.make_model(self.config).train()

    def _steps(self, memory_format: torch.memory_format, precision: str) -> Callable[[int], None]:
        """Train on one batch that is there already, a number of times."""
        device = replace(self.device, precision=precision)
        model = self._model().to(device.torch).to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
        images = torch.randn(self.batch_size, 1, 28, 28, device=device.torch)
        images = images.to(memory_format=memory_format)
        labels = torch.randint(0, 10, (self.batch_size,), device=device.torch)

        def steps(count: int) -> None:
            for _ in range(count):
                with device.autocast():
                    logits = model(images)
                loss = F.cross_entropy(logits.float(), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            device.synchronize()

        return steps

    def _best_steps(self) -> None:
        formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        variants = {
            f"{name}, {precision}": self._steps(memory_format, precision)
            for (name, memory_format), precision in itertools.product(
                formats.items(), ("fp32", "bf16")
            )
        }
        best: dict[str, float] = dict.fromkeys(variants, float("inf"))
        for turn in range(4):
            for name, steps in variants.items():
                count = 1 if turn == 0 else max(1, min(50, round(0.2 / best[name])))
                start = time.perf_counter()
                steps(count)
                taken = (time.perf_counter() - start) / count
                best[name] = taken if turn == 0 else min(best[name], taken)
        self.chosen = min(best, key=best.__getitem__)
        self.step_seconds = best[self.chosen]
        self.variants = variants

    def _images(self) -> int:
        """How many images take about as long as was asked for, in whole batches."""
        self._best_steps()
        there = len(self.inputs.split.train) // self.batch_size
        steps = max(4, min(there, round(self.seconds / self.step_seconds)))
        return steps * self.batch_size

    def _limit(self, steps: Callable[[int], None], images: int) -> Callable[[], int]:
        def work() -> int:
            steps(images // self.batch_size)
            return images

        return work

    def _fmbench(self, images: int) -> Callable[[], int]:
        split = replace(self.inputs.split, train=self.inputs.split.train[:images])
        inputs = replace(self.inputs, split=split)
        model = self.device.place(self._model())
        trainer = assembly.make_trainer(self.config, inputs, model, self.device, self.flops)
        epochs, step = itertools.count(), trainer.make_step()

        def work() -> int:
            train_epoch(
                trainer.model,
                trainer.loader.epoch(next(epochs)),
                step,
                trainer.schedule,
                report=lambda *_sums: None,
            )
            return images

        return work

    def _usual(self, images: int, workers: int) -> Callable[[], int]:
        loader = self._usual_loader(min(images, self._usual_images()), workers)
        model = self._model().to(self.device.torch)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        criterion = nn.CrossEntropyLoss()

        def work() -> int:
            seen, total, correct = 0, 0.0, 0
            for batch in loader:
                inputs, labels = (part.to(self.device.torch) for part in batch)
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

    def _usual_images(self) -> int:
        # PIL transforms an image in some 200 microseconds: about as long as the others take.
        return self.batch_size * max(4, round(self.seconds / 2e-4 / self.batch_size))

    def _usual_loader(self, images: int, workers: int) -> DataLoader[Any]:
        chosen = self.inputs.split.train[:images]
        data = self.inputs.dataset
        return DataLoader(
            Usual(data.train_images[chosen], data.train_labels[chosen]),
            batch_size=self.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def _lightning(self, images: int) -> Callable[[], int]:
        import lightning  # noqa: PLC0415 - not everybody has it

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        loader = self._usual_loader(min(images, self._usual_images()), workers=0)

        class Net(lightning.LightningModule):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.model = model

            def training_step(self, batch: Any, _number: int) -> torch.Tensor:
                inputs, labels = batch
                return F.cross_entropy(self.model(inputs), labels)

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)

        net = Net(self._model())

        def work() -> int:
            with warnings.catch_warnings(), silent():
                warnings.simplefilter("ignore")
                lightning.Trainer(
                    max_epochs=1,
                    logger=False,
                    enable_checkpointing=False,
                    enable_progress_bar=False,
                    enable_model_summary=False,
                ).fit(net, loader)
            return len(loader.dataset)  # type: ignore[arg-type]

        return work


class Usual(Dataset[Any]):
    """The images as torchvision's data set gives them, through PIL."""

    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(28, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.2860,), (0.3530,)),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Lightning greets on standard output and error."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def main() -> None:
    """Measure, print a table, save it where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, about")
    parser.add_argument("--no-usual", action="store_true", help="only the limit and fmbench")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    results, rows = {}, []
    for net, batch_size in itertools.product(arguments.nets, arguments.batch_sizes):
        contest = Contest(net, batch_size, arguments.data, arguments.seconds)
        rates = interleaved(contest.contenders(not arguments.no_usual), arguments.repeats)
        ours = rates["fmbench"]
        entry = {name: Spread.of(values) for name, values in rates.items()}
        ratios = {f"over {name}": ratio(ours, rates[name]) for name in rates if name != "fmbench"}
        for name, value in {**entry, **ratios}.items():
            results[f"{net}, batch {batch_size}: {name}"] = value
        cells = [number(spread.median) for spread in entry.values()]
        cells += [
            f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"
            for spread in ratios.values()
        ]
        rows.append([f"{net}, batch {batch_size}", *cells, contest.chosen])
        headings = ["images/s", *entry, *ratios, "limit runs in"]
        print(table(headings, [rows[-1]]), flush=True)
    print("\n" + table(headings, rows))
    save(arguments.json, "throughput", results)


if __name__ == "__main__":
    main()
