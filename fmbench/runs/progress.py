"""What a person sees while a net trains: a live bar on a terminal, plain lines elsewhere.

Both write to stderr, so that stdout holds results alone.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from fmbench.core.console import logger
from fmbench.training.trainer import DivergedError, Epoch

log = logger(__name__)


class Display:
    """Shows how far a run is; a context manager around it. This one shows nothing.

    It serves the Python interface, where the caller shows what it likes; the others build on it.
    """

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def begin(self, images: int) -> None:
        """So many images, over all epochs, were trained on before; called once, first."""

    def within(self, images: int, loss: float, accuracy: float) -> None:
        """So many images of the current epoch are done, with these running means."""

    def ended(self, epoch: Epoch, line: str) -> None:
        """An epoch has ended; `line` says what it gave."""


class LiveDisplay(Display):
    """A bar with epoch, loss, accuracy, images/s and time left.

    Args:
        epochs: of the run.
        images: in an epoch.
        console: where to draw; stderr by default.
    """

    def __init__(self, epochs: int, images: int, console: Console | None = None) -> None:
        self.epochs = epochs
        self.images = images
        self.done = 0  # images of the epochs that ended
        self.before = 0  # images that were trained on before the display began
        self.start = time.perf_counter()
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console or Console(stderr=True),
            expand=True,
            transient=True,
        )

    def __enter__(self) -> Self:
        self.start = time.perf_counter()
        self.task = self.progress.add_task(
            "", total=self.epochs * self.images, epoch=1, epochs=self.epochs, state="starting"
        )
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def begin(self, images: int) -> None:
        self.before = images
        self.done = images - images % self.images
        self.progress.update(self.task, completed=images)

    def within(self, images: int, loss: float, accuracy: float) -> None:
        seen = self.done + images
        speed = (seen - self.before) / (time.perf_counter() - self.start)
        self.progress.update(
            self.task,
            completed=seen,
            epoch=min(self.done // self.images + 1, self.epochs),
            state=f"loss {loss:.4f}  accuracy {accuracy:.2%}  {speed:,.0f} images/s",
        )

    def ended(self, epoch: Epoch, line: str) -> None:
        self.done += self.images
        self.progress.console.print(line, highlight=False, markup=False)


class PlainDisplay(Display):
    """A line an epoch, and a line now and then within a long one."""

    def __init__(self, epochs: int, images: int, seconds_between: float = 30.0) -> None:
        self.epochs = epochs
        self.images = images
        self.seconds_between = seconds_between
        self.epoch = 0
        self.last = time.perf_counter()

    def begin(self, images: int) -> None:
        self.epoch = images // self.images

    def within(self, images: int, loss: float, accuracy: float) -> None:
        if time.perf_counter() - self.last >= self.seconds_between:
            self._print(
                f"epoch {self.epoch + 1}/{self.epochs}  {images:,} of {self.images:,} images  "
                f"loss {loss:.4f}  accuracy {accuracy:.2%}"
            )

    def ended(self, epoch: Epoch, line: str) -> None:
        self.epoch = epoch.epoch + 1
        self._print(line)

    def _print(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
        self.last = time.perf_counter()


class Tolerant(Display):
    """Shows what another display does, for as long as standard error takes it.

    A terminal that is gone, or a full disk below a log, ends no run.
    """

    def __init__(self, shown: Display) -> None:
        self.shown: Display | None = shown

    def __enter__(self) -> Self:
        self._try(lambda shown: shown.__enter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._try(lambda shown: shown.__exit__(kind, error, traceback))

    def begin(self, images: int) -> None:
        self._try(lambda shown: shown.begin(images))

    def within(self, images: int, loss: float, accuracy: float) -> None:
        self._try(lambda shown: shown.within(images, loss, accuracy))

    def ended(self, epoch: Epoch, line: str) -> None:
        self._try(lambda shown: shown.ended(epoch, line))

    def _try(self, call: Callable[[Display], object]) -> None:
        if self.shown is None:
            return
        shown, self.shown = self.shown, None
        try:
            call(shown)
        except OSError as error:
            with contextlib.suppress(OSError):
                shown.__exit__(None, None, None)
            said = error.strerror or error
            log.warning("standard error: cannot be written: %s; the run goes on without it", said)
        else:
            self.shown = shown


def display_for(epochs: int, images: int) -> Display:
    """The live bar where stderr is a terminal, else plain lines; nothing where it is closed."""
    if sys.stderr is None:
        return Display()
    live = sys.stderr.isatty()
    return Tolerant(LiveDisplay(epochs, images) if live else PlainDisplay(epochs, images))


class Ticker:
    """Passes running means to a display a few times a second, and stops a run that diverged.

    Reading the sums makes the host wait for the device. On a GPU that would empty its queue in the
    middle of an epoch, so there they are read once an epoch is long: `seconds_between` apart.
    """

    def __init__(self, display: Display, seconds_between: float) -> None:
        self.display = display
        self.seconds_between = seconds_between
        self.next = time.perf_counter() + seconds_between

    def __call__(self, seen: int, loss_sum: Tensor, correct: Tensor) -> None:
        now = time.perf_counter()
        if now < self.next:
            return
        self.next = now + self.seconds_between
        loss = loss_sum.item() / seen
        if loss - loss != 0:  # NaN or infinite
            raise DivergedError(f"the loss is {loss}")
        self.display.within(seen, loss, correct.item() / seen)


def epoch_line(epoch: Epoch, epochs: int, images: int) -> str:
    """What an epoch gave, in one line."""
    parts = [
        f"epoch {epoch.epoch + 1}/{epochs}",
        f"loss {epoch.train.loss:.4f}",
        f"accuracy {epoch.train.accuracy:.2%}",
    ]
    if epoch.validation:
        parts.append(f"validation {epoch.validation.accuracy:.2%}")
    if epoch.test:
        parts.append(f"test {epoch.test.accuracy:.2%}")
    parts.append(f"{images / epoch.seconds:,.0f} images/s")
    return "  ".join(parts)
