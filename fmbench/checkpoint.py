"""Checkpoints: what a run needs to go on, in a file that is whole or not used.

A checkpoint is the SHA-256 of what follows it, and a PyTorch archive of tensors, numbers and texts
that is read with `weights_only=True`: reading one starts no code.
"""

import contextlib
import copy
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from fmbench.errors import StorageError
from fmbench.storage import remove, whole_file
from fmbench.streams import logger

log = logger(__name__)

#: Opens every checkpoint; the number is the format's.
MAGIC = b"fmbench checkpoint 1\n"

#: Bytes that are hashed at once.
_PART = 2**20

#: Seconds between checkpoints: at least so many after an epoch, and within one, where the epochs
#: of a large net take hours.
AFTER_EPOCH, WITHIN_EPOCH = 5.0, 300.0

#: A checkpoint is due when the last one is so many times as long ago as it took to write: 2 %.
PATIENCE = 50


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


class _Hashed:
    """A file as PyTorch writes into it: what is written is hashed on its way.

    PyTorch's writer does not survive an error of its file, so that is kept until it has ended.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        if self.error is None:
            self.digest.update(view)
            try:
                self.file.write(view)
            except OSError as error:
                self.error = error
        return len(view)

    def flush(self) -> None:
        """The file is flushed when all of it is there."""


def write_state(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a checkpoint, tensor by tensor; its SHA-256 last, into the place left for it.

    Args:
        state: nested dictionaries and lists of tensors, numbers and texts.
        file: empty, and one that can be moved in.

    Raises:
        OSError: the file cannot be written.
        DamagedError: the state holds what PyTorch cannot write.
    """
    file.write(MAGIC + b"0" * 64 + b"\n")
    hashed = _Hashed(file)
    try:
        torch.save(state, cast("IO[bytes]", hashed))
    except Exception as error:
        # A foreign schedule may keep what cannot be written; that must not end the run.
        raise DamagedError(f"cannot be written: {_reason(error)}") from error
    if hashed.error is not None:
        raise hashed.error
    file.seek(len(MAGIC))
    file.write(hashed.digest.hexdigest().encode())


def read_state(file: IO[bytes], device: str = "cpu") -> dict[str, Any]:
    """What `write_state` was given, its tensors on the CPU.

    Args:
        file: at its beginning; read twice, first to hash it.
        device: another one for the tensors: `meta` keeps none of their numbers.

    Raises:
        DamagedError: a byte is missing or not as it was written, or it is no checkpoint.
    """
    head = file.read(len(MAGIC) + 65)
    if not head.startswith(MAGIC):
        raise DamagedError("does not begin as a checkpoint does")
    digest = hashlib.sha256()
    while part := file.read(_PART):
        digest.update(part)
    if head[len(MAGIC) :] != digest.hexdigest().encode() + b"\n":
        raise DamagedError("its SHA-256 is another than was written")
    file.seek(len(head))
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(f"PyTorch cannot read it: {_reason(error)}") from error
    if not isinstance(state, dict):
        raise DamagedError("holds no state")
    return state


def _reason(error: Exception) -> str:
    """What the many lines of PyTorch come down to."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "weights_only" in text:
        return "it holds more than tensors, numbers and texts"
    return text[:200]


class Checkpoints:
    """The checkpoints of one run: the newest and the one before it.

    Args:
        path: of the newest.
        before: of the one before, which is used where the newest is damaged.
        every: epochs from one to the next; 0 for none but when the run is stopped; None for after
            each epoch that takes its time, within the very long ones, and never for more than
            about 2 % of the time.
        clock: seconds.
    """

    def __init__(
        self,
        path: Path,
        before: Path,
        *,
        every: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.before = before
        self.every = every
        self.clock = clock
        self.last = clock()
        self.cost = 0.0  # seconds that the last one took
        self.sound = True  # the newest, as far as is known: a damaged one is not kept
        self.proven = False  # that what is written can be read
        self.damaged: list[Path] = []  # what was found so

    def due_after(self, epochs: int) -> bool:
        """Whether to write one now that so many epochs are done."""
        if self.every is None:
            return self._waited(AFTER_EPOCH)
        return self.every > 0 and epochs % self.every == 0

    def due_within(self) -> bool:
        """Whether to write one in the middle of an epoch."""
        return self.every is None and self._waited(WITHIN_EPOCH)

    def _waited(self, seconds: float) -> bool:
        return self.clock() - self.last >= max(seconds, PATIENCE * self.cost)

    def write(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; the one before stays until this one is whole.

        Raises:
            StorageError: it cannot be written; those that are there stay.
            DamagedError: it could not be read again: something in it is of a class of its own, as
                the state of a foreign schedule may be.
        """
        start = self.clock()
        try:
            with whole_file(self.path, keep=self.before if self.sound else None) as file:
                write_state(state, file)
                if not self.proven:
                    file.flush()
                    with Path(file.name).open("rb") as written:
                        read_state(written, "meta")
                    self.proven = True
            self.sound = True
        finally:
            self.last = self.clock()
            self.cost = self.last - start

    def read(self) -> dict[str, Any] | None:
        """The newest state that is whole; None where there is none, `damaged` says why.

        Raises:
            StorageError: a file is there and cannot be read.
        """
        for path in (self.path, self.before):
            try:
                with path.open("rb") as file:
                    return read_state(file)
            except FileNotFoundError:
                continue
            except DamagedError as error:
                if path == self.path:
                    self.sound = False
                self.damaged.append(path)
                log.warning("%s is damaged and not used: %s", path, error)
            except OSError as error:
                raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
        return None

    def remove(self) -> None:
        """Remove what is there; a completed run needs none.

        Raises:
            StorageError: one cannot be removed.
        """
        for path in (self.path, self.before):
            remove(path)


def random_states(device: torch.device) -> dict[str, Any]:
    """Where every global source of random numbers stands that a net may draw from."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss,
                  cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }  # fmt: skip


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put them back where `random_states` found them."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextlib.contextmanager
def preserved(
    model: nn.Module, optimizer: Optimizer | None = None, *, device: torch.device
) -> Iterator[tuple[nn.Module, Any]]:
    """Steps that are only tried: at the end everything is as it was, to the bit.

    What is yielded shares its parameters and buffers with the net, so that trying it costs the
    memory of the weights once. These, their gradients, the modes (training or evaluation) and every
    global source of random numbers are put back. What else a net keeps, such as counters, lists or
    a generator of its own, and the state of the optimizer belong to a copy, which is thrown away.
    Of a net that cannot be copied the attributes are put back, the contents of lists and
    dictionaries too.

    Args:
        model: on the device.
        optimizer: over its parameters.
        device: whose random numbers are put back too.

    Yields:
        The net to call, and the optimizer to step, None where none was given.
    """
    tensors = list(dict.fromkeys([*model.parameters(), *model.buffers()]))
    data = [tensor.data for tensor in tensors]
    saved = [values.clone() for values in data]
    gradients = [tensor.grad for tensor in tensors]
    modes = [(module, module.training) for module in model.modules()]
    random_numbers = random_states(device)
    # deepcopy takes what the memo holds for an object's id in place of copying that object.
    shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    attributes: list[Callable[[], None]] = []
    try:
        for tensor in tensors:  # what a step adds to gradients, it adds to none of these
            tensor.grad = None
        try:
            tried = copy.deepcopy(model, memo := dict(shared))
        except Exception:  # noqa: BLE001 - a stranger's net may refuse in any way
            tried, memo = model, shared | {id(module): module for module in model.modules()}
            attributes = [_attributes_kept(module) for module in model.modules()]
        yield tried, copy.deepcopy(optimizer, memo)
    finally:
        for put_back in attributes:
            put_back()
        for tensor, values, before, gradient in zip(tensors, data, saved, gradients, strict=True):
            tensor.data, tensor.grad = values, gradient
            # A view of one number as many cannot be written to, by the net neither.
            with contextlib.suppress(RuntimeError):
                values.copy_(before)
        for module, mode in modes:
            module.training = mode
        restore_random_states(random_numbers, device)


def _attributes_kept(module: nn.Module) -> Callable[[], None]:
    """What puts the attributes of a module back, in place: others may hold the same lists."""
    held = dict(vars(module))
    contents = [(at, copy.copy(at)) for at in held.values() if isinstance(at, (dict, list, set))]
    states = [(at, at.get_state()) for at in held.values() if isinstance(at, torch.Generator)]

    def put_back() -> None:
        vars(module).clear()
        vars(module).update(held)
        for value, before in contents:
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)
        for generator, state in states:
            generator.set_state(state)

    return put_back
