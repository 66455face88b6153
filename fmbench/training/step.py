"""One step of training, as it is or recorded once as a CUDA graph and replayed.

A small model keeps a GPU busy for less time than Python needs to ask for its kernels. A graph asks
for all of them at once. On a CPU the number of threads that is fastest now is tried here.
"""

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fmbench.core.errors import ConfigError, is_out_of_memory
from fmbench.training.device import Device
from fmbench.training.losses import Loss

#: Steps taken one by one before a graph is recorded: cuDNN chooses its algorithms in them and the
#: optimizer makes its state. PyTorch's notes on CUDA graphs take as many.
WARM_UP = 3

#: Seconds in which the number of threads is chosen, and for which one number is tried at a time:
#: much longer than PyTorch's threads wait actively for more to do.
TRIAL, TURN = 0.45, 0.02

#: How many times as long a step must take with all threads as with one, by short trials, for one to
#: be taken: on a machine with nothing else to do, and where others have the cores at times. There
#: short trials flatter all threads, which find both cores free after a turn of one thread.
CLEARLY, CLEARLY_BUSY = 1.05, 0.85

#: FLOPs forward, and three times as many in all, that a core does in a second at least; a step that
#: would take longer than a third of the trial by them is not tried.
FLOPS_OF_A_CORE = 1e10

#: Shares of the time in which one thread has a core: less than that, and others have the cores for
#: the most part; or some have them at all.
TAKEN, BUSY = 0.4, 0.75

#: Steps of the shortest run that is worth a trial.
WORTH = 50


def faster_threads(
    step: Callable[[], None],
    most: int,
    *,
    steps: int,
    trial: float = TRIAL,
    clock: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.thread_time,
    use: Callable[[int], None] = torch.set_num_threads,
) -> int:
    """Whether one thread or all of them train faster now: 1 or `most`.

    PyTorch's threads wait for one another after each operation, actively. Where other programs have
    the cores, the one that waits takes the time of the one that is waited for, and all are slower
    than one alone, ten times and more. So both are tried, in turns. Where one thread alone hardly
    gets a core, all are not tried: a step of theirs could take seconds. A step that is too long
    for trials on a machine with nothing else to do stays at `most`.

    `step` trains, and is called some hundred times. Of the run's `steps` the trial takes a tenth of
    their time at most, and one turn; of seconds `trial` at most, and one step more. `clock` gives
    seconds, `cpu` those in which this thread had a core, `use` sets the number of threads.
    """
    begin, passed, worked = clock(), 0.0, 0.0  # what one thread alone took, and had a core for

    def once(threads: int) -> float:
        """Seconds of a step; the first one makes the kernels, which differ by the threads."""
        use(threads)
        begun = clock()
        step()
        return clock() - begun

    def turn(threads: int) -> float:
        """Seconds of a step, the mean of those that take up a turn."""
        nonlocal passed, worked
        start, had = clock(), cpu()
        found = once(threads)
        if found < TURN:  # that step still met the threads of the turn before
            begun = now = clock()
            taken = 0
            while now < begun + TURN:
                step()
                taken, now = taken + 1, clock()
            found = (now - begun) / taken
        if threads == 1:
            passed, worked = passed + clock() - start, worked + cpu() - had
        return found

    alone = turn(1)
    if trial / 3 < alone < trial * 2 / 3:  # kernel creation?
        alone = turn(1)
    share = worked / passed
    if share < TAKEN:
        return 1
    if alone > trial / 3:
        return 1 if share < BUSY else most
    together = once(most)
    end = begin + min(trial, 0.1 * steps * alone)
    slower = []  # how many times as long a step takes with all as with one, by turns
    order = [1, most]
    while clock() + max(alone, TURN) + max(together, TURN) < end:
        found = {threads: turn(threads) for threads in order}
        alone, together = found[1], found[most]
        slower.append(together / alone)
        order.reverse()
    if not slower:
        return 1 if share < BUSY or together > 1.5 * alone else most
    # Short trials mislead where other programs have the cores at times.
    limit = CLEARLY_BUSY if worked / passed < BUSY else CLEARLY
    return 1 if statistics.median(slower) > limit else most


#: In place of the number of correct predictions, where there is none.
NOT_COUNTED = -1


@dataclass(eq=False)
class EagerStep:
    """Forward pass, loss, backward pass, optimizer; each kernel asked for as Python gets to it."""

    model: nn.Module  # on the device, in training mode when called
    optimizer: Optimizer  # over its parameters
    _: KW_ONLY
    device: Device
    loss: Loss  # of a batch, the mean over its images
    micro_batch: int | None = None  # images at once, at most; None: all of a batch
    clip_norm: float | None = None  # of the gradient

    def __post_init__(self) -> None:
        self.parameters = list(self.model.parameters())
        # Running sums over the images of the epoch, on the device.
        self.loss_sum = torch.zeros((), device=self.device.torch)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device.torch)

    def __call__(self, images: Tensor, targets: Tensor) -> None:
        """Train on (B, C, H, W) float32 images.

        With (B,) int64 labels, or with (B, classes) float32 shares of the classes, of which no
        prediction is right or wrong: `correct` is NOT_COUNTED then.
        """
        self.optimizer.zero_grad(set_to_none=True)
        for some, their in micro_batches(images, targets, self.micro_batch):
            with self.device.autocast():
                logits = self.model(some)
            loss = self.loss(logits.float(), their)
            share = len(their) / len(targets)  # gradients add up to those of the whole batch
            (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
            self.loss_sum.add_(loss.detach(), alpha=len(their))
            if targets.dim() == 1:
                self.correct.add_((logits.detach().argmax(1) == their).sum())
            else:
                self.correct.fill_(NOT_COUNTED)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()

    def begin_epoch(self) -> None:
        """Reset the sums."""
        self.loss_sum.zero_()
        self.correct.zero_()


def micro_batches(
    images: Tensor, targets: Tensor, most: int | None
) -> Iterable[tuple[Tensor, Tensor]]:
    """A batch in parts of nearly the same size, of so many images at most."""
    if most is None or len(targets) <= most:
        return ((images, targets),)
    parts = -(-len(targets) // most)
    return zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True)


#: Records what a function asks of the GPU, without doing it; what it returns does it.
Recorder = Callable[[Callable[[], None]], Callable[[], None]]


class GraphStep:
    """Full batches by a recorded graph, all others (the last one of an epoch) as they are.

    A graph holds addresses, not values: the batch is copied to where the graph reads it, and so
    is the learning rate, which the schedule goes on keeping as a number. Every other number of the
    optimizer is part of the graph, which `recorder` makes of the step.
    """

    def __init__(
        self, step: EagerStep, *, batch_size: int, recorder: Recorder | None = None
    ) -> None:
        self.step = step
        self.loss, self.loss_sum, self.correct = step.loss, step.loss_sum, step.correct
        self.batch_size = batch_size
        self.recorder = recorder or partial(record_graph, device=step.device.torch)
        self.taken = 0
        self.replay: Callable[[Tensor, Tensor], None] | None = None
        self.rates: list[Tensor] = []
        self.recorded: list[dict[str, Any]] = []

    def begin_epoch(self) -> None:
        """Reset the sums."""
        self.step.begin_epoch()

    def __call__(self, images: Tensor, targets: Tensor) -> None:
        """Train on a batch as `EagerStep` does.

        Raises:
            ConfigError: the model, the loss or the optimizer cannot be recorded, or the schedule
                changes another number of the optimizer than its learning rate.
        """
        groups = self.step.optimizer.param_groups
        if not self.rates:
            self.rates = [torch.zeros((), device=images.device) for _ in groups]
            for group in groups:
                if "capturable" in group:
                    group["capturable"] = True
                    self._count_on_device(group["params"])
        for group, rate in zip(groups, self.rates, strict=True):
            rate.fill_(group["lr"])
        if len(targets) != self.batch_size:
            self._eagerly(images, targets)
        elif self.taken < WARM_UP:
            self.taken += 1
            with _beside(images.device):  # on a stream of its own, as recording will be
                self._eagerly(images, targets)
        else:
            if self.replay is None:
                self.replay = self._record(images, targets)
            self._refuse_changes()
            self.replay(images, targets)

    def _count_on_device(self, parameters: list[Tensor]) -> None:
        """Move what the optimizer counted on the CPU, before its run resumed with graphs."""
        for one in parameters:
            state = self.step.optimizer.state.get(one, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and not value.dim():
                    state[name] = value.to(one.device)

    def _eagerly(self, images: Tensor, targets: Tensor) -> None:
        """The same arithmetic as a replay's, the learning rate in float32 too."""
        with self._rates_on_device():
            self.step(images, targets)

    @contextlib.contextmanager
    def _rates_on_device(self) -> Iterator[None]:
        """Show the optimizer where the learning rates are, which the schedule keeps as numbers."""
        groups = self.step.optimizer.param_groups
        kept = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate
        try:
            yield
        finally:
            for group, number in zip(groups, kept, strict=True):
                group["lr"] = number

    def _record(self, images: Tensor, targets: Tensor) -> Callable[[Tensor, Tensor], None]:
        static_images, static_targets = images.clone(), targets.clone()
        self.recorded = [_fixed(group) for group in self.step.optimizer.param_groups]
        try:
            with self._rates_on_device():
                graph = self.recorder(lambda: self.step(static_images, static_targets))
        except (RuntimeError, UserWarning) as error:
            if lack := _lack_of_memory(error):
                raise lack from None
            raise ConfigError(
                "cuda_graphs=true: this model, loss or optimizer cannot be recorded "
                f"({str(error).splitlines()[0]}); take cuda_graphs=false, or a new process where "
                "an earlier run of this one had too little memory"
            ) from error

        def replay(images: Tensor, targets: Tensor) -> None:
            static_images.copy_(images)
            static_targets.copy_(targets)
            graph()

        return replay

    def _refuse_changes(self) -> None:
        for group, recorded in zip(self.step.optimizer.param_groups, self.recorded, strict=True):
            now = _fixed(group)
            keys = {**now, **recorded}
            if changed := sorted(key for key in keys if now.get(key) != recorded.get(key)):
                raise ConfigError(
                    f"cuda_graphs=true: the schedule changes optimizer.{changed[0]} too, a "
                    "recorded step follows the learning rate alone; take cuda_graphs=false"
                )


#: Trains on a batch and adds to the running sums.
Step = EagerStep | GraphStep


def _lack_of_memory(error: BaseException) -> BaseException | None:
    """The lack of memory that ended a recording; to end it may have failed in turn."""
    found: BaseException | None = error
    while found is not None and not is_out_of_memory(found):
        found = found.__context__
    return found


def _fixed(group: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an optimizer that a graph holds as they were."""
    return {name: value for name, value in group.items() if name not in ("params", "lr")}


@contextlib.contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """A stream of its own, before and after which the current one waits."""
    if device.type != "cuda":
        yield
        return
    own = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    own.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(own):
        yield
    torch.cuda.current_stream(device).wait_stream(own)


def record_graph(function: Callable[[], None], *, device: torch.device) -> Callable[[], None]:
    """Record a function as a CUDA graph; needs a GPU.

    Raises:
        RuntimeError: it does what a graph cannot hold.
        UserWarning: it did nothing on the device; such a graph would train nothing.
    """
    graph = torch.cuda.CUDAGraph()
    # PyTorch's own stream for recording belongs to the first device that recorded.
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with (
        warnings.catch_warnings(),
        torch.cuda.device(device),
        torch.cuda.graph(graph, stream=stream),
    ):
        warnings.filterwarnings("error", message=".*[Gg]raph is empty")
        function()
    return graph.replay
