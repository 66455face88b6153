"""Learning-rate schedules: PyTorch's own, each stepped at the interval its method wants.

Every function takes the optimizer, whose learning rate is the peak, the length of the run (epochs,
and optimizer steps in each), and its own options, and returns a `Schedule`. Where an optimizer has
groups of parameters with rates of their own, all of them are multiplied by the same factor. Epochs
count from 0: a rate that changes "before epoch 6" is in force from the seventh pass on.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeGuard

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from fmbench.core.errors import ConfigError


class Schedule:
    """A PyTorch scheduler and when to step it: after every batch, or after every epoch.

    Raises:
        ConfigError: the interval is neither "batch" nor "epoch".
    """

    def __init__(
        self, scheduler: lr_scheduler.LRScheduler, interval: Literal["batch", "epoch"]
    ) -> None:
        if interval not in ("batch", "epoch"):  # it would never take a step
            raise ConfigError(f'Schedule: interval={interval!r}: must be "batch" or "epoch"')
        self.scheduler = scheduler
        self.interval = interval

    def after_batch(self) -> None:
        """Call once after every optimizer step."""
        if self.interval == "batch":
            self.scheduler.step()

    def after_epoch(self) -> None:
        """Call once after every pass over the training images."""
        if self.interval == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state, for a checkpoint."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.scheduler.load_state_dict(state)


#: What a plateau is seen in: whether more is better.
METRICS = {"accuracy": True, "loss": False}


class Plateau(Schedule):
    """Multiplies the learning rate by a factor where validation brings nothing better any more."""

    scheduler: lr_scheduler.ReduceLROnPlateau

    def __init__(self, scheduler: lr_scheduler.ReduceLROnPlateau, metric: str) -> None:
        super().__init__(scheduler, "epoch")
        self.metric = metric
        #: The epochs, counted from 0, before which the rate dropped.
        self.drops: list[int] = []

    def after_epoch(self) -> None:
        """Nothing: what an epoch was worth, `after_validation` is told."""

    def after_validation(self, value: float) -> None:
        """Call once after every epoch, with its value of the metric on the validation images."""
        before = self.scheduler.get_last_lr()
        self.scheduler.step(value)
        if self.scheduler.get_last_lr() != before:
            self.drops.append(self.scheduler.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state and the drops, for a checkpoint."""
        return {**super().state_dict(), "drops": list(self.drops)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        rest = dict(state)
        self.drops = list(rest.pop("drops"))
        super().load_state_dict(rest)


def constant(optimizer: Optimizer, *, epochs: int, batches: int) -> Schedule:
    """The learning rate stays as it is."""
    return Schedule(lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0), "epoch")


def step(
    optimizer: Optimizer, *, epochs: int, batches: int, step_size: int, gamma: float = 0.1
) -> Schedule:
    """Multiply the learning rate by `gamma` every `step_size` epochs.

    Raises:
        ConfigError: `step_size` is no whole number above 0, or `gamma` is not above 0.
    """
    _check_epochs(step_size=step_size)
    _check_positive(gamma=gamma)
    return Schedule(lr_scheduler.StepLR(optimizer, step_size, gamma), "epoch")


def multistep(
    optimizer: Optimizer,
    *,
    epochs: int,
    batches: int,
    milestones: Sequence[int],
    gamma: float = 0.1,
) -> Schedule:
    """Multiply the learning rate by `gamma` before each epoch in `milestones`, counted from 0.

    Raises:
        ConfigError: the milestones are no rising whole numbers from 1 on; `gamma` is not above 0.
    """
    _check_positive(gamma=gamma)
    _check_rising("milestones", milestones)
    return Schedule(lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma), "epoch")


class _Cosine(lr_scheduler.CosineAnnealingLR):
    """PyTorch's, whose least rate is that of the first group; the others keep their ratio to it."""

    def get_lr(self) -> list[float | Tensor]:
        rates, (first, *_) = super().get_lr(), self.base_lrs
        if not first:
            return rates
        return [rates[0] * (base / first) for base in self.base_lrs]


def cosine(optimizer: Optimizer, *, epochs: int, batches: int, min_lr: float = 0.0) -> Schedule:
    """Half a cosine from the learning rate to `min_lr` over the run, a step every batch.

    Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts. Where groups have rates of
    their own, `min_lr` is that of the first, and each ends at the same share of its own.

    Raises:
        ConfigError: `min_lr` is negative.
    """
    if min_lr < 0:
        raise ConfigError(f"scheduler.min_lr={min_lr}: must be 0 or more")
    return Schedule(_Cosine(optimizer, epochs * batches, min_lr), "batch")


def onecycle(
    optimizer: Optimizer,
    *,
    epochs: int,
    batches: int,
    warmup: float = 0.2,
    div_factor: float = 10.0,
    final_div_factor: float = 1e4,
    cycle_momentum: bool = False,
) -> Schedule:
    """Climb to the learning rate, then anneal far below the start, both along cosines.

    Smith and Topin, "Super-Convergence" (2018), section 3. `warmup` is the share of all steps that
    climb, above 0 and below 1; the first rate is the peak over `div_factor`, the last one that over
    `final_div_factor`. With `cycle_momentum` the momentum (Adam's first beta) runs the other way,
    from 0.95 to 0.85 and back, as in the paper, in place of the optimizer's own.

    Raises:
        ConfigError: `warmup` is not between 0 and 1, a factor is not above 0, or there is no
            momentum to cycle, or more than one.
    """
    if not 0 < warmup < 1:
        raise ConfigError(f"scheduler.warmup={warmup}: must be above 0 and below 1")
    _check_positive(div_factor=div_factor, final_div_factor=final_div_factor)
    has_momentum = "betas" in optimizer.defaults or optimizer.defaults.get("momentum", 0) > 0
    if cycle_momentum and not has_momentum:
        raise ConfigError("scheduler.cycle_momentum=True: the optimizer has no momentum to cycle")
    if cycle_momentum and {"betas", "momentum"} <= optimizer.defaults.keys():
        # PyTorch would cycle the betas, and leave the momentum as it is.
        raise ConfigError(
            "scheduler.cycle_momentum=True: the optimizer has two momenta, as muon has; leave it "
            "false"
        )
    # One more than there are steps: the rate is set for the step after the last one too. PyTorch
    # divides by the length of the climb less one step, so a run of a few steps climbs for two.
    total_steps = max(epochs * batches + 1, 3)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=max(warmup, 2 / total_steps),
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=cycle_momentum,
    )
    return Schedule(scheduler, "batch")


def linear(
    optimizer: Optimizer, *, epochs: int, batches: int, warmup: float = 0.1, final: float = 0.0
) -> Schedule:
    """Climb to the learning rate, then fall, both along straight lines, a step every batch.

    Devlin et al., "BERT" (2018), appendix A.2, with `final` 0. `warmup` is the share of all steps
    that climb, 0 or more and below 1: the first step has a rate above 0, the first one after the
    climb the peak. `final` is the rate after the last step, as a share of the peak.

    Raises:
        ConfigError: a share is out of its bounds.
    """
    return _after_warmup(optimizer, epochs * batches, warmup, final, lambda left: left)


def cosine_warmup(
    optimizer: Optimizer, *, epochs: int, batches: int, warmup: float = 0.05, final: float = 0.0
) -> Schedule:
    """Climb to the learning rate along a line, then fall along half a cosine, a step every batch.

    Loshchilov and Hutter, "SGDR" (2017), equation 5, after the warm-up of Goyal et al., "Accurate,
    Large Minibatch SGD" (2017), section 2.2. The arguments are those of `linear`.

    Raises:
        ConfigError: a share is out of its bounds.
    """

    def fall(left: float) -> float:
        return (1 + math.cos(math.pi * (1 - left))) / 2

    return _after_warmup(optimizer, epochs * batches, warmup, final, fall)


def polynomial(
    optimizer: Optimizer,
    *,
    epochs: int,
    batches: int,
    power: float = 0.9,
    warmup: float = 0.0,
    final: float = 0.0,
) -> Schedule:
    """Fall as a power of the share of the steps that are left, a step every batch.

    Chen et al., "DeepLab" (2017), section 4.1.1, where the power is 0.9. The other arguments are
    those of `linear`.

    Raises:
        ConfigError: a share is out of its bounds, or `power` is not above 0.
    """
    _check_positive(power=power)
    return _after_warmup(optimizer, epochs * batches, warmup, final, lambda left: left**power)


def wsd(
    optimizer: Optimizer,
    *,
    epochs: int,
    batches: int,
    warmup: float = 0.05,
    decay: float = 0.2,
    final: float = 0.0,
) -> Schedule:
    """Warm-up, stable, decay: climb, keep the learning rate, fall along a line at the end.

    Hu et al., "MiniCPM" (2024), section 4, with a straight line for their exponential, which
    Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations"
    (2024), compare. `decay` is the share of all steps that fall, above 0, with `warmup` at most 1;
    the other arguments are those of `linear`.

    Raises:
        ConfigError: a share is out of its bounds.
    """
    if decay <= 0 or warmup + decay > 1:  # 1 - 0.9 is less than 0.1
        raise ConfigError(f"scheduler.decay={decay}: must be above 0, and with warmup at most 1")
    total = epochs * batches
    # Both shares may be rounded up.
    falling = min(1.0, max(1, round(decay * total)) / (total - _steps(warmup, total)))
    return _after_warmup(optimizer, total, warmup, final, lambda left: min(1.0, left / falling))


def exponential(optimizer: Optimizer, *, epochs: int, batches: int, gamma: float = 0.9) -> Schedule:
    """Multiply the learning rate by `gamma` after every epoch.

    Raises:
        ConfigError: `gamma` is not above 0.
    """
    _check_positive(gamma=gamma)
    return Schedule(lr_scheduler.ExponentialLR(optimizer, gamma), "epoch")


def plateau(
    optimizer: Optimizer,
    *,
    epochs: int,
    batches: int,
    factor: float = 0.1,
    patience: int = 5,
    metric: str = "accuracy",
    drops: Sequence[int] | None = None,
) -> Schedule:
    """Multiply the learning rate by `factor` after `patience` epochs without a better validation.

    Better is better than in any epoch before, by however little. `factor` is above 0 and below 1,
    `metric` accuracy or loss, on the validation images. `drops` are the epochs, counted from 0,
    before which the rate drops whatever validation brings: those of another run replay it.

    Raises:
        ConfigError: an argument is out of its bounds.
    """
    if not 0 < factor < 1:
        raise ConfigError(f"scheduler.factor={factor}: must be above 0 and below 1")
    _check_epochs(patience=patience)
    if metric not in METRICS:
        raise ConfigError(f"scheduler.metric={metric}: must be {' or '.join(METRICS)}")
    if drops is not None:
        _check_rising("drops", drops)
        return Schedule(lr_scheduler.MultiStepLR(optimizer, list(drops), factor), "epoch")
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer,
        "max" if METRICS[metric] else "min",
        factor,
        patience - 1,  # PyTorch counts the epoch after its patience too
        threshold=0.0,
        threshold_mode="abs",
        eps=0.0,
    )
    return Plateau(scheduler, metric)


def _after_warmup(
    optimizer: Optimizer,
    total: int,
    warmup: float,
    final: float,
    fall: Callable[[float], float],
) -> Schedule:
    """A climb along a line, then what `fall` makes of the share of the other steps that is left.

    Raises:
        ConfigError: a share is out of its bounds.
    """
    if not 0 <= warmup < 1:
        raise ConfigError(f"scheduler.warmup={warmup}: must be 0 or more and below 1")
    if not 0 <= final <= 1:
        raise ConfigError(f"scheduler.final={final}: must be from 0 to 1")
    climb = _steps(warmup, total)

    def factor(step: int) -> float:
        if step < climb:
            return (step + 1) / (climb + 1)
        return final + (1 - final) * fall(max(0, total - step) / (total - climb))

    return Schedule(lr_scheduler.LambdaLR(optimizer, factor), "batch")


def _steps(share: float, total: int) -> int:
    """A share of all steps, rounded; one is left."""
    return min(round(share * total), total - 1)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_rising(name: str, epochs: Sequence[int]) -> None:
    if not all(map(_is_whole, epochs)) or any(
        later <= sooner for sooner, later in zip([0, *epochs], epochs, strict=False)
    ):
        raise ConfigError(
            f"scheduler.{name}={list(epochs)}: must be whole numbers from 1 on, each above the one "
            "before"
        )


def _check_epochs(**numbers: object) -> None:
    for name, value in numbers.items():
        if not _is_whole(value) or value < 1:
            raise ConfigError(f"scheduler.{name}={value}: must be a whole number of epochs")


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if value <= 0:
            raise ConfigError(f"scheduler.{name}={value}: must be above 0")
