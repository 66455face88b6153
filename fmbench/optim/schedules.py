"""Learning-rate schedules: PyTorch's own, each stepped at the interval its method wants.

Every function takes the optimizer, the length of the run, and its own options, and returns a
`Schedule`. Epochs count from 0: a rate that changes "before epoch 6" is in force from the seventh
pass on.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch.optim import Optimizer, lr_scheduler

from fmbench.core.errors import ConfigError


class Schedule:
    """A PyTorch scheduler and when to step it: after every batch, or after every epoch."""

    def __init__(
        self, scheduler: lr_scheduler.LRScheduler, interval: Literal["batch", "epoch"]
    ) -> None:
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


def constant(optimizer: Optimizer, *, epochs: int, batches: int) -> Schedule:  # noqa: ARG001
    """The learning rate stays as it is."""
    return Schedule(lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0), "epoch")


def step(
    optimizer: Optimizer,
    *,
    epochs: int,  # noqa: ARG001
    batches: int,  # noqa: ARG001
    step_size: int,
    gamma: float = 0.1,
) -> Schedule:
    """Multiply the learning rate by `gamma` every `step_size` epochs.

    Raises:
        ConfigError: `step_size` is no whole number above 0, or `gamma` is not above 0.
    """
    if not _is_whole(step_size) or step_size < 1:
        raise ConfigError(f"scheduler.step_size={step_size}: must be a whole number of epochs")
    _check_gamma(gamma)
    return Schedule(lr_scheduler.StepLR(optimizer, step_size, gamma), "epoch")


def multistep(
    optimizer: Optimizer,
    *,
    epochs: int,  # noqa: ARG001
    batches: int,  # noqa: ARG001
    milestones: Sequence[int],
    gamma: float = 0.1,
) -> Schedule:
    """Multiply the learning rate by `gamma` before each epoch in `milestones`, counted from 0.

    Raises:
        ConfigError: the milestones are no rising whole numbers from 1 on; `gamma` is not above 0.
    """
    _check_gamma(gamma)
    if not all(map(_is_whole, milestones)) or any(
        later <= sooner for sooner, later in zip([0, *milestones], milestones, strict=False)
    ):
        raise ConfigError(
            f"scheduler.milestones={list(milestones)}: must be whole numbers from 1 on, each "
            "above the one before"
        )
    return Schedule(lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma), "epoch")


def cosine(optimizer: Optimizer, *, epochs: int, batches: int, min_lr: float = 0.0) -> Schedule:
    """Half a cosine from the learning rate to `min_lr` over the run, a step every batch.

    Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts.

    Raises:
        ConfigError: `min_lr` is negative.
    """
    if min_lr < 0:
        raise ConfigError(f"scheduler.min_lr={min_lr}: must be 0 or more")
    return Schedule(lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches, min_lr), "batch")


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

    Smith and Topin, "Super-Convergence" (2018), section 3.

    Args:
        optimizer: its learning rate is the peak.
        epochs: passes of the run.
        batches: optimizer steps in a pass.
        warmup: share of all steps that climb, above 0 and below 1.
        div_factor: the first rate is the peak over this.
        final_div_factor: the last rate is the first over this.
        cycle_momentum: let the momentum (Adam's first beta) run the other way, from 0.95 to 0.85
            and back, as in the paper; it then takes the place of the optimizer's own.

    Raises:
        ConfigError: `warmup` is not between 0 and 1, a factor is not above 0, or there is no
            momentum to cycle.
    """
    if not 0 < warmup < 1:
        raise ConfigError(f"scheduler.warmup={warmup}: must be above 0 and below 1")
    for name, factor in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
        if factor <= 0:
            raise ConfigError(f"scheduler.{name}={factor}: must be above 0")
    has_momentum = "betas" in optimizer.defaults or optimizer.defaults.get("momentum", 0) > 0
    if cycle_momentum and not has_momentum:
        raise ConfigError("scheduler.cycle_momentum=True: the optimizer has no momentum to cycle")
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


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_gamma(gamma: float) -> None:
    if gamma <= 0:
        raise ConfigError(f"scheduler.gamma={gamma}: must be above 0")
