"""The contenders for the training speed of one net at one batch size, on the same images."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import torch
from torch import nn

from benchmarks import limit, usual
from benchmarks.timing import Work
from fmbench.config import checks as configuration
from fmbench.core.signals import Listener
from fmbench.runs import assembly
from fmbench.runs.attempt import CPU_TICK
from fmbench.runs.progress import Display, Ticker
from fmbench.runs.saver import Saver
from fmbench.training.checkpoint import Checkpoints
from fmbench.training.cost import count_flops
from fmbench.training.device import choose_precision

#: Seconds that PIL and torchvision take for an image, about.
PIL_SECONDS = 2e-4

LIMIT, SAME = "limit", "same precision"

#: Batches of a turn of the usual loops, where a turn of the limit has as many.
FEWEST = 20


def option_of_data(text: str) -> str:
    """What `--data` takes: an option of the group `data`, or the folder of the real images' files.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    options = sorted(path.stem for path in (configuration.CONFIG_DIR / "data").glob("*.yaml"))
    if text in options:
        return text
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(
            f"{text}: must be a folder, or one of {', '.join(options)}"
        )
    os.environ["FMBENCH_DATA"] = str(Path(text).absolute())
    return "fashion_mnist"


def compose(net: str, batch_size: int, data: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a run with crop and flip."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        chosen = [f"model={net}", f"batch_size={batch_size}", f"data={data}"]
        chosen += ["augmentation=crop_flip", "epochs=100000", *overrides]
        return configuration.resolve(hydra.compose("config", overrides=chosen))


class Contest:
    """The contenders for one net and batch size, each a function that trains on some images.

    Args:
        net: an option of the group `model`.
        batch_size: images a step.
        data: an option of the group `data`.
        seconds: that each contender should take a turn, about; one step at least.
        overrides: of the config beside these.

    Attributes:
        chosen: what the limit runs in.
        ours: what fmbench runs in.
        images: that fmbench and the limit train on each turn, in whole batches.
        usual_images: that the others do: no more than PIL makes in the same time.
    """

    def __init__(
        self,
        net: str,
        batch_size: int,
        *,
        data: str = "fashion_mnist",
        seconds: float = 2.0,
        overrides: Sequence[str] = (),
    ) -> None:
        self.config = compose(net, batch_size, data, overrides)
        self.batch_size = batch_size
        self.inputs = assembly.prepare(self.config)
        self.flops = count_flops(assembly.make_model(self.config))
        precision = choose_precision(self.config["precision"], self.inputs.device.torch, self.flops)
        chosen = replace(self.inputs.device, precision=precision)
        # A trainer's device has its memory format chosen.
        trainer = assembly.make_trainer(self.config, self.inputs, self._model(), chosen, self.flops)
        self.device = trainer.device
        self.ours = f"{self.device.memory_format}, {precision}"
        if self.device.cuda_graphs:
            self.ours += ", captured"
        self.variants = limit.variants(self._model, self.device, batch_size)
        self.chosen, step_seconds = limit.fastest(self.variants, min(0.2, seconds))
        there = len(self.inputs.split.train) // batch_size
        steps = max(1, min(there, round(seconds / step_seconds)))
        self.images = batch_size * steps
        # Workers start each turn with empty hands: so many batches that this hardly counts.
        usual_steps = max(FEWEST, round(seconds / PIL_SECONDS / batch_size))
        usual_steps = max(1, min(steps, usual_steps))
        self.usual_images = batch_size * usual_steps

    def contenders(self, *, others: bool = True) -> dict[str, Work]:
        """By name; each returns the images it trained on.

        Args:
            others: whether others than the limit and fmbench compete.
        """
        found = {SAME: self._limit(self.ours), "fmbench": self._fmbench()}
        if self.chosen != self.ours:
            found[LIMIT] = self._limit(self.chosen)
        if others:
            for workers in (0, 2):
                loader = self._usual_batches(workers)
                found[f"usual, {workers} workers"] = usual.loop(self._model(), loader, self.device)
            if usual.has_lightning():
                loader = self._usual_batches(0)
                found["lightning"] = usual.lightning_fit(self._model(), loader, self.device)
        return found

    def with_limit(self, rates: Mapping[str, list[float]]) -> dict[str, list[float]]:
        """Rates by turn, the limit first: of the variants measured, the fastest of each turn.

        A short look beforehand says which variants those are, but not reliably which is faster.
        """
        same = rates[SAME]
        best = [max(pair) for pair in zip(same, rates.get(LIMIT, same), strict=True)]
        return {LIMIT: best, **{name: rate for name, rate in rates.items() if name != LIMIT}}

    def _model(self) -> nn.Module:
        torch.manual_seed(0)
        return assembly.make_model(self.config).train()

    def _limit(self, variant: str) -> Work:
        def work() -> int:
            self.variants[variant](self.images // self.batch_size)
            return self.images

        return work

    def _fmbench(self) -> Work:
        split = replace(self.inputs.split, train=self.inputs.split.train[: self.images])
        inputs = replace(self.inputs, split=split)
        trainer = assembly.make_trainer(self.config, inputs, self._model(), self.device, self.flops)
        # As `fmbench.runs.runner` goes through it, with a display that shows nothing.
        saver: Any = Saver(
            *(None, trainer, None),  # type: ignore[arg-type]
            checkpoints=Checkpoints(Path(), Path(), every=0),
            listener=Listener(),
            since=0.0,
        )
        epochs = trainer.fit(Ticker(Display(), CPU_TICK), saver.between)

        def work() -> int:
            next(epochs)
            return self.images

        return work

    def _usual_batches(self, workers: int) -> Any:
        chosen = self.inputs.split.train[: self.usual_images]
        data = self.inputs.dataset
        return usual.batches(
            data.train_images[chosen],
            data.train_labels[chosen],
            batch_size=self.batch_size,
            workers=workers,
        )
