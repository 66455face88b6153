"""Checkpoints: what a run needs to go on, in a file that is whole or not used.

A checkpoint is the SHA-256 of what follows it, and a PyTorch archive of tensors, numbers and texts
that is read with `weights_only=True`: reading one starts no code.
"""

import hashlib
import io
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmbench.errors import StorageError
from fmbench.storage import remove, write_whole

log = logging.getLogger(__name__)

#: Opens every checkpoint; the number is the format's.
MAGIC = b"fmbench checkpoint 1\n"

#: Seconds between checkpoints: at least so many after an epoch, and within one, where the epochs
#: of a large net take hours.
AFTER_EPOCH, WITHIN_EPOCH = 5.0, 300.0

#: A checkpoint is due when the last one is so many times as long ago as it took to write: 2 %.
PATIENCE = 50


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


def to_bytes(state: dict[str, Any]) -> bytes:
    """A checkpoint file's content.

    Args:
        state: nested dictionaries and lists of tensors, numbers and texts.
    """
    archive = io.BytesIO()
    torch.save(state, archive)
    content = archive.getvalue()
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def from_bytes(content: bytes) -> dict[str, Any]:
    """What `to_bytes` was given, its tensors on the CPU.

    Raises:
        DamagedError: a byte is missing or not as it was written, or it is no checkpoint.
    """
    head = len(MAGIC) + 65
    if not content.startswith(MAGIC):
        raise DamagedError("does not begin as a checkpoint does")
    digest = hashlib.sha256(content[head:]).hexdigest()
    if content[len(MAGIC) : head] != digest.encode() + b"\n":
        raise DamagedError("its SHA-256 is another than was written")
    try:
        state = torch.load(io.BytesIO(content[head:]), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(f"PyTorch cannot read it: {_reason(error)}") from error
    if not isinstance(state, dict):
        raise DamagedError("holds no state")
    return state


def _archived(state: dict[str, Any]) -> bytes:
    try:
        return to_bytes(state)
    except Exception as error:
        # A foreign schedule may keep what cannot be written; that must not end the run.
        raise DamagedError(f"cannot be written: {_reason(error)}") from error


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
            content = _archived(state)
            if not self.proven:
                from_bytes(content)
                self.proven = True
            write_whole(self.path, content, keep=self.before if self.sound else None)
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
                return from_bytes(path.read_bytes())
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
