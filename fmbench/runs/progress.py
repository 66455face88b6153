"""What a person sees while a model trains, on standard error: stdout holds results alone."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from fmbench.core.console import SharedStream, logger
from fmbench.training.step import NOT_COUNTED
from fmbench.training.trainer import Epoch, mean_loss

log = logger(__name__)

#: Seconds between looks at the running means. To read them the host waits for the device: on a GPU
#: that would empty its queue in the middle of an epoch, so they are read once an epoch is long.
CPU_TICK, GPU_TICK = 0.2, 10.0

#: Seconds between lines within an epoch, where there is no terminal.
LINE_EVERY = 30.0


class Display:
    """Shows how far a run is; a context manager around its epochs.

    On a terminal a live bar with the time left, elsewhere a line per epoch and one now and then
    within a long epoch, and nothing where a sweep shows it. A terminal that is gone, or a full disk
    below a log, ends no run.

    Args:
        epochs: of the run.
        images: in an epoch.
        done: images that were trained on before, over all epochs.
        shown: False for the Python interface, where the caller shows what it likes.
        tick: seconds between looks at the running means.
    """

    def __init__(
        self, epochs: int, images: int, done: int = 0, *, shown: bool = True, tick: float = CPU_TICK
    ) -> None:
        self.epochs, self.images = epochs, images
        self.epoch = done // images
        shared = isinstance(sys.stderr, SharedStream) and not sys.stderr.progress
        self.shown = shown and sys.stderr is not None and not shared
        self.tick, self.next_tick = tick, time.perf_counter() + tick
        self.next_line = time.perf_counter() + LINE_EVERY
        self.bar: Progress | None = None
        if self.shown and sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.fields[means]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                console=Console(stderr=True),
                expand=True,
                transient=True,
            )
            self.task = self.bar.add_task(
                self._where(), total=epochs * images, completed=done, means="starting"
            )

    def __enter__(self) -> Self:
        """Begin to show."""
        if self.bar is not None:
            with self._tolerant():
                self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            with self._tolerant():
                self.bar.stop()

    def report(self, seen: int, loss_sum: Tensor, correct: Tensor) -> None:
        """Show the running means over the images seen, if the last look is long enough ago.

        Raises:
            DivergedError: the mean loss is NaN or infinite.
        """
        now = time.perf_counter()
        if now < self.next_tick:
            return
        self.next_tick = now + self.tick
        loss = mean_loss(loss_sum, seen)
        if not self.shown:
            return
        right = correct.item()
        means = f"loss {loss:.4f}"
        means += f"  accuracy {right / seen:.2%}" if right != NOT_COUNTED else ""
        if self.bar is None:
            if now >= self.next_line:
                self._print(f"{self._where()}  {seen:,} of {self.images:,} images  {means}")
            return
        speed = self.bar.tasks[0].speed
        means += f"  {speed:,.0f} images/s" if speed else ""
        done = self.epoch * self.images + seen
        with self._tolerant():
            self.bar.update(self.task, completed=done, description=self._where(), means=means)

    def ended(self, line: str) -> None:
        """Print the line of an epoch that has ended."""
        self.epoch += 1
        self._print(line)

    def _where(self) -> str:
        return f"epoch {min(self.epoch + 1, self.epochs)}/{self.epochs}"

    def _print(self, line: str) -> None:
        self.next_line = time.perf_counter() + LINE_EVERY
        with self._tolerant():
            if self.bar is not None:
                self.bar.console.print(line, highlight=False, markup=False)
            elif self.shown:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Stop showing anything once standard error cannot be written."""
        try:
            yield
        except OSError as error:
            bar, self.bar, self.shown = self.bar, None, False
            if bar is not None:
                with contextlib.suppress(OSError):
                    bar.stop()
            reason = error.strerror or error
            log.warning("standard error: cannot be written: %s; the run goes on without it", reason)


def epoch_line(epoch: Epoch, epochs: int, images: int) -> str:
    """The metrics of one of so many epochs, of so many images each, in one line."""
    parts = {"accuracy": epoch.train, "validation": epoch.validation, "test": epoch.test}
    accuracies = [
        f"{name} {part.accuracy:.2%}"
        for name, part in parts.items()
        if part and part.accuracy is not None
    ]
    speed = f"{images / epoch.seconds:,.0f} images/s"
    start = f"epoch {epoch.epoch + 1}/{epochs}  loss {epoch.train.loss:.4f}"
    return "  ".join([start, *accuracies, speed])
