"""Fit and evaluate. Knows models, batches and clocks; nothing of configs, folders or Hydra."""

import contextlib
import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.optim import Optimizer

from fmbench.data.loader import EvaluationLoader, TrainLoader
from fmbench.optim.schedules import Plateau, Schedule
from fmbench.training.attributes import Numbers
from fmbench.training.averaging import (
    STATISTICS_OF,
    Average,
    OptimizerAverage,
    WeightAverage,
    recompute_statistics,
)
from fmbench.training.checkpoint import (
    DamagedError,
    preserved,
    random_states,
    restore_random_states,
)
from fmbench.training.compiled import compile_model, sizes_of_parts
from fmbench.training.device import Device
from fmbench.training.early_stop import EarlyStop
from fmbench.training.losses import loss_state
from fmbench.training.restore import (
    is_ours,
    load_optimizer,
    load_schedule,
    require_like,
    require_number,
)
from fmbench.training.step import (
    FLOPS_OF_A_CORE,
    NOT_COUNTED,
    TRIAL,
    WORTH,
    EagerStep,
    GraphStep,
    Step,
    faster_threads,
)


class DivergedError(Exception):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Metrics:
    """What one pass over some images gave."""

    loss: float  # mean per image: of training what is minimised, of evaluation cross entropy
    accuracy: float | None  # 0 to 1; None of training on shares of classes (mixup)
    balanced_accuracy: float | None = None  # mean recall of the classes; of evaluations alone


class Predictions(NamedTuple):
    """The predicted class and its probability for each image, in the order of the images."""

    classes: Tensor  # (N,) uint8, or int32 of more than 256 classes, those it predicted
    confidences: Tensor  # (N,) float32, the probability it gave each of them
    probabilities: Tensor | None = None  # (N, classes) float32, where they were asked for


#: Called during an epoch with the images seen and the running sums of loss and correct predictions.
#: The sums live on the device; reading one makes the host wait for it.
Report = Callable[[int, Tensor, Tensor], None]


def train_epoch(
    model: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    step: Step,
    schedule: Schedule,
    *,
    average: Average | None = None,
    seen: int = 0,
    report: Report,
) -> Metrics:
    """One pass over the training images, or the rest of one.

    The metrics are means over the pass, each batch measured by the weights as they were before its
    step and with augmentation and dropout on. `seen` images of the pass were trained on before; the
    step has their sums.

    Raises:
        DivergedError: the mean loss is NaN or infinite.
    """
    model.train()
    if not seen:
        step.begin_epoch()
    for images, targets in batches:
        step(images, targets)
        schedule.after_batch()
        if average is not None:
            average.after_batch()
        seen += len(targets)
        report(seen, step.loss_sum, step.correct)
    return _metrics(step.loss_sum, step.correct, seen)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: EvaluationLoader,
    *,
    device: Device,
    flips: bool = False,
    between: Callable[[], None] = lambda: None,
    most: int = 0,
) -> tuple[Metrics, Predictions]:
    """Mean loss and accuracies over a part of the split; the predictions, on the CPU.

    With `flips` the logits are the mean of those of each image and of its mirror.

    In the precision of training. The loss is cross entropy whatever is trained with, without label
    smoothing, so that losses compare. The probabilities of all classes are among the predictions
    where they are at most `most` numbers.

    Raises:
        DivergedError: the mean loss is NaN or infinite.
    """
    model.eval()
    loss_sum = torch.zeros((), device=device.torch)
    correct = torch.zeros((), dtype=torch.int64, device=device.torch)
    classes, confidences, probabilities = [], [], []
    for images, labels in loader:
        with device.autocast():
            logits = model(images)
            if flips:  # in float32: bfloat16 would round the mean once more
                logits = (logits.float() + model(images.flip(-1)).float()) / 2
        predicted = logits.argmax(1)
        loss_sum += F.cross_entropy(logits.float(), labels, reduction="sum")
        correct += (predicted == labels).sum()
        # A byte holds 256 classes; a run writes what it needs.
        classes.append(predicted.to(torch.uint8 if logits.shape[1] <= 256 else torch.int32))
        shares = logits.float().softmax(1)
        confidences.append(shares.amax(1))
        if len(loader) * shares.shape[1] <= most:
            probabilities.append(shares.cpu())
        between()
    found = torch.cat(classes)
    metrics = _metrics(loss_sum, correct, len(loader))
    metrics = dataclasses.replace(metrics, balanced_accuracy=_mean_recall(found, loader.labels))
    kept = torch.cat(probabilities) if probabilities else None
    return metrics, Predictions(found.cpu(), torch.cat(confidences).cpu(), kept)


def _mean_recall(predicted: Tensor, labels: Tensor) -> float:
    """Balanced accuracy (Brodersen et al. 2010): the mean recall of the classes that occur."""
    images = torch.bincount(labels)
    correct = torch.bincount(labels[predicted == labels], minlength=len(images))
    correct, images = torch.stack([correct, images]).cpu().double()
    return float((correct / images)[images > 0].mean())


def mean_loss(loss_sum: Tensor, count: int) -> float:
    """The mean over so many images; a DivergedError where it is NaN or infinite."""
    loss = loss_sum.item() / count
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss}")
    return loss


def _metrics(loss_sum: Tensor, correct: Tensor, count: int) -> Metrics:
    loss = mean_loss(loss_sum, count)
    right = correct.item()
    return Metrics(loss, None if right == NOT_COUNTED else right / count)


def _still(model: nn.Module) -> dict[str, Any]:
    """The `state_dict` of a model, in memory of its own what is no parameter, such as buffers."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    state = model.state_dict()
    return {name: one if name in weights else copy.deepcopy(one) for name, one in state.items()}


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
    last: bool  # of the run
    train: Metrics
    validation: Metrics | None
    test: Metrics | None
    seconds: float  # training clock of this epoch
    answers: Predictions | None  # on the test images, if evaluated
    validated: Predictions | None = None  # on the validation images


@dataclass
class Position:
    """How far a run is."""

    epoch: int = 0  # in progress, counted from 0
    seen: int = 0  # its images that were trained on
    learning_rate: float | None = None  # at the epoch's start, once it has begun
    seconds: float = 0.0  # training clock of the epoch, up to the last stop


@dataclass(eq=False)
class Trainer:
    """Fits a model, epoch after epoch; evaluates outside the training clock."""

    model: nn.Module  # on the device
    _: KW_ONLY
    loader: TrainLoader  # of the training images
    validation: EvaluationLoader | None  # evaluated after every epoch, if given
    test: EvaluationLoader | None  # evaluated after the last epoch; None for never
    optimizer: Optimizer  # over the model's parameters
    schedule: Schedule  # stepped here
    epochs: int  # passes over the training images
    evaluate_every: int | None  # epochs between evaluations on the test set before the last
    make_step: Callable[[nn.Module, Optimizer], EagerStep]
    device: Device
    most_probabilities: int = 0  # numbers that are kept of the last epoch, see `evaluate`
    average: Average | None = None  # of the weights; evaluated in their place
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    flips: bool = False  # evaluate the mean of each image and its mirror

    def __post_init__(self) -> None:
        self.clocks = Clocks()
        self.position = Position()
        self.started: float | None = None  # of the epoch's training, while in progress
        self.away = 0.0  # seconds that no clock counts
        self.halted: float | None = None  # since when, while the clocks stand still
        self.before: dict[str, Any] = {}  # the evaluation in progress: parts of `state_dict`

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        return self.position.epoch >= self.epochs or self.early_stop.why is not None

    @cached_property
    def step(self) -> Step:
        """How a batch is trained on, by what the device is set to."""
        step = self.make_step(self.model, self.optimizer)
        averaged: Any = self.average
        if isinstance(averaged, WeightAverage):
            averaged = averaged.averaged
        elif isinstance(averaged, OptimizerAverage):
            averaged = averaged.evaluated
        self.numbers = Numbers(
            model=self.model, optimizer=self.optimizer, average=averaged, loss=step.loss
        )
        if self.device.cuda_graphs:
            return GraphStep(step, batch_size=self.loader.batch_size)
        return step

    def compile(self) -> float:
        """Compile the model, before it is trained, with the threads that it will be trained with.

        Returns:
            The seconds that it took, on no clock.

        Raises:
            ConfigError: it cannot be compiled here.
        """
        images, _ = next(self.loader.epoch(0))
        assert isinstance(self.step, EagerStep)
        trained = {*sizes_of_parts(self.loader.sizes, self.step.micro_batch)}
        parts = [part for part in (self.validation, self.test) if part is not None]
        evaluated = {size for part in parts for size in part.sizes}
        return compile_model(
            self.model, images, trained=trained, evaluated=evaluated, device=self.device
        )

    def faster_threads(self, flops: int | None) -> int:
        """Whether one thread or all of the device's train faster now; nothing is left of the steps.

        Those of a large model, by the FLOPs of a forward pass per image (None counts as large), are
        not tried, since one alone may take as long as all trials may.
        """
        start = time.perf_counter()
        most, steps = self.device.threads, len(self.loader) * self.epochs
        longest = 3 * (flops or math.inf) * self.loader.batch_size / FLOPS_OF_A_CORE
        if most == 1 or steps < WORTH or longest > TRIAL / 3:
            return most
        torch.set_num_threads(1)  # beside other programs the batch alone could take too long
        images, targets = next(self.loader.epoch(0))
        with preserved(self.model, self.optimizer, device=self.device.torch) as (model, optimizer):
            self.model.train()
            model.train()
            step = self.make_step(model, optimizer)
            step.loss = copy.deepcopy(step.loss)  # which may remember what it was called with
            trial = max(TRIAL / 2, TRIAL - (time.perf_counter() - start))
            return faster_threads(lambda: step(images, targets), most, steps=steps, trial=trial)

    def fit(self, report: Report, between: Callable[[], None] = lambda: None) -> Iterator[Epoch]:
        """Train from where the position is; yields each epoch as it ends.

        `report` is told after every batch of training; `between` is called after every batch, of
        training or evaluation, when `state_dict` gives a state to resume from. What it raises ends
        the run.

        Raises:
            DivergedError: the loss is no longer a number.
        """
        while not self.done:
            try:
                epoch = self._epoch(report, between)
            except DivergedError:
                self.clocks.train += self._seconds()  # that time was spent
                raise
            yield epoch

    def _epoch(self, report: Report, between: Callable[[], None]) -> Epoch:
        epoch = self.position.epoch
        train = self._train(report, between)
        with self.evaluating():
            model = self.evaluated() if self._evaluates(epoch) else self.model
            trained = self._now()
            assert self.started is not None
            self.position.seconds, self.started = trained - self.started, None
            validation = validated = test = answers = None
            may_end = self.early_stop.patience is not None
            how: dict[str, Any] = {"device": self.device, "flips": self.flips, "between": between}
            how["most"] = self.most_probabilities if may_end or self._ends(epoch, None) else 0
            if self.validation is not None:
                validation, validated = evaluate(model, self.validation, **how)
            value = None if validation is None else getattr(validation, self.early_stop.metric)
            last = self._ends(epoch, value)
            if self.test is not None and (last or self._due(epoch)):
                test, answers = evaluate(model, self.test, **how)
        self.clocks.evaluate += self._now() - trained
        self.schedule.after_epoch()
        if isinstance(self.schedule, Plateau) and validation:
            self.schedule.after_validation(getattr(validation, self.schedule.metric))
        self.early_stop.note(epoch + 1, value)
        position, self.position = self.position, Position(epoch + 1)
        self.clocks.train += position.seconds
        assert position.learning_rate is not None
        rate, seconds = position.learning_rate, position.seconds
        return Epoch(epoch, rate, last, train, validation, test, seconds, answers, validated)

    def _due(self, epoch: int) -> bool:
        """Whether the test set is evaluated after an epoch that need not be the last."""
        return bool(self.evaluate_every and (epoch + 1) % self.evaluate_every == 0)

    def _evaluates(self, epoch: int) -> bool:
        """Whether anything may be evaluated after an epoch."""
        return self._ends(epoch, None) or self.validation is not None or self._due(epoch)

    def _ends(self, epoch: int, value: float | None) -> bool:
        """Whether an epoch with this validation value is the run's last."""
        return epoch + 1 == self.epochs or self.early_stop.ends(epoch + 1, value) is not None

    def evaluated(self) -> nn.Module:
        """The model that is evaluated and kept: that of training, or the average of its weights.

        An average gets batch-norm statistics of its own, from the first batches of training.
        """
        model = None if self.average is None else self.average.model()
        if model is None:
            return self.model
        size = self.loader.batch_size
        count = max(1, min(STATISTICS_OF, len(self.loader.labels)) // size)  # whole batches
        batches = itertools.islice(self.loader.epoch(0), count)
        recompute_statistics(model, (images for images, _ in batches), device=self.device)
        return model

    def _train(self, report: Report, between: Callable[[], None]) -> Metrics:
        """The epoch's pass over the training images, or what is left of it."""
        position = self.position

        def after_batch(seen: int, loss_sum: Tensor, correct: Tensor) -> None:
            position.seen = seen
            report(seen, loss_sum, correct)
            between()

        if position.learning_rate is None:
            position.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.started = self._now() - position.seconds
        return train_epoch(
            self.model,
            self.loader.epoch(position.epoch, seen=position.seen),
            self.step,
            self.schedule,
            average=self.average,
            seen=position.seen,
            report=after_batch,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that training resumes from, at the moments when `fit` calls `between`, or yields."""
        position = dataclasses.asdict(self.position) | {"seconds": self._seconds()}
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "loss": loss_state(self.step.loss),
            "sums": {"loss": self.step.loss_sum, "correct": self.step.correct},
            "early_stop": self.early_stop.state_dict(),
            "position": position,
            "clocks": dataclasses.asdict(self.clocks),
            **(self.before or self._changing()),
        }

    def _changing(self) -> dict[str, Any]:
        """Of `state_dict` what a model of the user's own may change where it is evaluated, too."""
        average = {} if self.average is None else self.average.state_dict()
        if isinstance(self.average, WeightAverage):
            average["averaged"] = _still(self.average.averaged)
        return {
            "model": _still(self.model),
            "average": average,
            "numbers": self.numbers.state_dict(),
            "random": random_states(self.device.torch),
        }

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let `state_dict` give the state of before: an evaluation that is stopped is repeated."""
        self.before = self._changing()
        try:
            yield
        finally:
            self.before = {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave, or from what a file claims that it gave.

        Raises:
            Exception: it is of another model, optimizer or schedule; whatever PyTorch then raises.
        """
        images, found = len(self.loader.labels), state["position"]
        rate = found["learning_rate"]
        if rate is not None:  # the epoch has begun
            require_number(rate, "position.learning_rate", least=0, most=1e300)
        require_like(found, dataclasses.asdict(Position(learning_rate=rate)), "position")
        require_number(found["epoch"], "position.epoch", least=0, most=self.epochs)
        require_number(found["seen"], "position.seen", least=0, most=images)
        require_like(state["clocks"], dataclasses.asdict(self.clocks), "clocks")
        for seconds in (found["seconds"], *state["clocks"].values()):
            require_number(seconds, "clocks", least=0, most=1e300)
        if found["seen"] % self.loader.batch_size and found["seen"] != images:
            raise DamagedError("position.seen is in the middle of a batch")
        model = self.model.state_dict()
        tensors = {name: value for name, value in model.items() if isinstance(value, Tensor)}
        require_like({name: state["model"][name] for name in tensors}, tensors, "model")
        if state["model"].keys() != model.keys():
            raise DamagedError("model has other keys")
        sums = {"loss": self.step.loss_sum, "correct": self.step.correct}
        require_like(state["sums"], sums, "sums")
        loss = loss_state(self.step.loss)  # older checkpoints have none
        require_like(state.get("loss", {}), loss, "loss")
        average = {} if self.average is None else self.average.state_dict()
        if self.average is None or isinstance(self.average, (WeightAverage, OptimizerAverage)):
            require_like(state.get("average", {}), average, "average")
        stop = self.early_stop.state_dict()
        seen = state.get("early_stop", stop)  # older checkpoints have none
        require_like(seen, stop, "early_stop")
        require_number(seen["waited"], "early_stop.waited", least=0, most=self.epochs)

        model.update(state["model"])  # with what modules noted of their versions, from here
        self.model.load_state_dict(model)
        load_optimizer(self.optimizer, state["optimizer"], any_number=not is_ours(self.schedule))
        batches = len(self.loader)
        load_schedule(self.schedule, state["schedule"], epochs=self.epochs, batches=batches)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.early_stop.load_state_dict(seen)
        self.numbers.load_state_dict(state.get("numbers", {}))  # older checkpoints have none
        for tensors, saved in ((sums, state["sums"]), (loss, state.get("loss", {}))):
            for name, tensor in tensors.items():
                tensor.copy_(saved[name])  # in place, where a recorded step looks for it
        self.position = Position(**found)
        self.clocks = Clocks(**state["clocks"])
        restore_random_states(state["random"], self.device.torch)

    @contextlib.contextmanager
    def halt(self) -> Iterator[None]:
        """Let the clocks of training and evaluation stand still, while the run is saved."""
        self.device.synchronize()
        self.halted = time.perf_counter()
        try:
            yield
        finally:
            self.away += time.perf_counter() - self.halted
            self.halted = None

    def _seconds(self) -> float:
        """The training clock of the epoch in progress."""
        return self.position.seconds if self.started is None else self._now() - self.started

    def _now(self) -> float:
        self.device.synchronize()
        return (time.perf_counter() if self.halted is None else self.halted) - self.away
