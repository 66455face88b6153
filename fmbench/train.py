"""Fit and evaluate. Knows nets, batches and clocks; nothing of configs, folders or Hydra."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.optim import Optimizer

from fmbench.device import Device
from fmbench.loader import EvaluationLoader, TrainLoader
from fmbench.schedule import Schedule
from fmbench.step import EagerStep, GraphStep, Step


class DivergedError(Exception):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Metrics:
    """What one pass over some images gave."""

    loss: float  # mean cross entropy per image
    accuracy: float  # 0 to 1


#: Told, as an epoch goes on: images seen, and the running sums of loss and of correct answers.
#: The sums live on the device; reading one makes the host wait for it.
Report = Callable[[int, Tensor, Tensor], None]


def train_epoch(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    step: Step,
    schedule: Schedule,
    *,
    report: Report,
) -> Metrics:
    """One pass over the training images.

    The metrics are means over the pass, each batch measured by the weights as they were before its
    step and with augmentation and dropout on.

    Raises:
        DivergedError: the mean loss is NaN or infinite.
    """
    model.train()
    step.begin_epoch()
    seen = 0
    for images, labels in batches:
        step(images, labels)
        schedule.after_batch()
        seen += len(labels)
        report(seen, step.loss_sum, step.correct)
    schedule.after_epoch()
    return _metrics(step.loss_sum, step.correct, seen)


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: EvaluationLoader, *, device: Device
) -> tuple[Metrics, Tensor]:
    """Mean loss and accuracy over a part of the split, and the predicted classes, (N,) uint8.

    In the precision of training; without label smoothing, so that losses compare.

    Raises:
        DivergedError: the mean loss is NaN or infinite.
    """
    model.eval()
    loss_sum = torch.zeros((), device=device.torch)
    correct = torch.zeros((), dtype=torch.int64, device=device.torch)
    predictions = []
    for images, labels in loader:
        with device.autocast():
            logits = model(images)
        predicted = logits.argmax(1)
        loss_sum += F.cross_entropy(logits.float(), labels, reduction="sum")
        correct += (predicted == labels).sum()
        predictions.append(predicted.to(torch.uint8))
    return _metrics(loss_sum, correct, len(loader)), torch.cat(predictions).cpu()


def _metrics(loss_sum: Tensor, correct: Tensor, count: int) -> Metrics:
    loss = loss_sum.item() / count
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss}")
    return Metrics(loss, correct.item() / count)


@dataclass
class Clocks:
    """Seconds of wall time, training and evaluation apart."""

    train: float = 0.0
    evaluate: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history."""

    epoch: int  # counted from 0
    learning_rate: float  # at the epoch's start
    train: Metrics
    validation: Metrics | None
    test: Metrics | None
    seconds: float  # training clock of this epoch
    predictions: Tensor | None  # on the test images, where they were looked at


class Trainer:
    """Fits a net, epoch after epoch; evaluates outside the training clock.

    Args:
        model: on the device.
        loader: the training images.
        validation: evaluated after every epoch, if given.
        test: evaluated every `test_every` epochs, and always after the last.
        optimizer: over the model's parameters.
        schedule: stepped here.
        epochs: passes over the training images.
        test_every: 0 for once, at the end.
        label_smoothing: share of the target spread over all classes.
        device: what to compute on.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loader: TrainLoader,
        validation: EvaluationLoader | None,
        test: EvaluationLoader,
        optimizer: Optimizer,
        schedule: Schedule,
        epochs: int,
        test_every: int,
        label_smoothing: float,
        device: Device,
    ) -> None:
        self.model = model
        self.loader = loader
        self.validation = validation
        self.test = test
        self.optimizer = optimizer
        self.schedule = schedule
        self.epochs = epochs
        self.test_every = test_every
        self.label_smoothing = label_smoothing
        self.device = device
        self.clocks = Clocks()

    def fit(self, report: Report) -> Iterator[Epoch]:
        """Train; yields each epoch as it ends.

        Raises:
            DivergedError: the loss is no longer a number.
        """
        step = self.make_step()
        for epoch in range(self.epochs):
            rate = float(self.optimizer.param_groups[0]["lr"])
            start = self._now()
            train = train_epoch(
                self.model,
                self.loader.epoch(epoch),
                step,
                self.schedule,
                report=report,
            )
            trained = self._now()
            validation = test = predictions = None
            if self.validation is not None:
                validation, _ = evaluate(self.model, self.validation, device=self.device)
            last = epoch + 1 == self.epochs
            if last or (self.test_every and (epoch + 1) % self.test_every == 0):
                test, predictions = evaluate(self.model, self.test, device=self.device)
            self.clocks.train += trained - start
            self.clocks.evaluate += self._now() - trained
            yield Epoch(epoch, rate, train, validation, test, trained - start, predictions)

    def make_step(self) -> Step:
        """How a batch is trained on, by what the device is set to."""
        step = EagerStep(
            self.model, self.optimizer, device=self.device, label_smoothing=self.label_smoothing
        )
        if self.device.cuda_graphs:
            return GraphStep(step, batch_size=self.loader.batch_size)
        return step

    def _now(self) -> float:
        self.device.synchronize()
        return time.perf_counter()
