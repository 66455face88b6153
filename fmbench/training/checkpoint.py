"""Checkpoints: what a run needs to resume, in a file that is whole or not used.

A checkpoint is the SHA-256 of what follows it, and a PyTorch archive of tensors, numbers and texts
that is read with `weights_only=True`: reading one starts no code. It may be a stranger's all the
same, whose SHA-256 is right too. So it is read within bounds; `restore` checks what it holds.
"""

import contextlib
import copy
import hashlib
import io
import os
import pickletools
import random
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fmbench.core import machine
from fmbench.core.console import logger
from fmbench.core.errors import StorageError
from fmbench.core.files import open_regular, remove, whole_file
from fmbench.training.averaging import Average, WeightAverage

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logger(__name__)

#: Opens every checkpoint; the number is the format's.
MAGIC = b"fmbench checkpoint 1\n"

#: Seconds between checkpoints: at least so many after an epoch, and within one, where the epochs
#: of a large model take hours.
AFTER_EPOCH, WITHIN_EPOCH = 5.0, 300.0

#: A checkpoint is due when the last one is so many times as long ago as it took to write: 2 %.
PATIENCE = 50

#: The end of an archive as PyTorch writes it (APPNOTE.TXT of PKWARE, sections 4.3.14 to 4.3.16),
#: and an entry of its directory (section 4.3.12), before its name.
_END = struct.Struct("<4s 20x QQQQ 4s 4x Q 4x 4s 16x H")
_ENTRY = struct.Struct("<4s 6x H 12x I HHH 8x I")

#: What a pickle may name: what PyTorch writes for tensors, numbers and texts. Others that its
#: reader knows take memory as large as they are told.
_NAMES = re.compile(
    r"torch\._utils _rebuild_(tensor_v[23]|parameter)|torch (Size|device|bool|[a-z]+\d+)"
    r"|torch [A-Z]\w*Storage|torch\.storage UntypedStorage|collections (OrderedDict|Counter)"
    r"|(__builtin__|builtins) (set|complex)"
)
_MORE = "it holds more than tensors, numbers and texts"


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


class Bounds(NamedTuple):
    """How large a checkpoint can be, in bytes: the file, and what of it is no tensor."""

    file: int
    texts: int


#: Of a checkpoint of any size.
UNBOUNDED = Bounds(2**63, 2**63)


def bounds(
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: object,
    *,
    epochs: int,
    loss: Mapping[str, Tensor] = MappingProxyType({}),
    average: Average | None = None,
) -> Bounds:
    """How large the checkpoints of a run of so many epochs can be; `loss` is the loss's state."""
    ours = isinstance(average, WeightAverage)
    state = [*list(model.state_dict().values()) * (2 if ours else 1), *loss.values()]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    # An archive has some 300 bytes a tensor; PyTorch's optimizers have up to 4 of each shape.
    texts = 2**22 + 1000 * min(epochs, 10**6) + 1000 * (len(state) + 4 * len(parameters))
    known = is_torchs(optimizer) and is_torchs(scheduler) and (ours or average is None)
    if not known or not all(isinstance(value, Tensor) for value in state):
        memory = machine.usable().memory or 2**40  # one's own may keep anything
        return Bounds(memory, memory)
    return Bounds(
        texts + sum(one.nbytes for one in state) + 4 * sum(one.nbytes for one in parameters), texts
    )


def is_torchs(part: object) -> bool:
    """Whether an optimizer or a scheduler is one of PyTorch's."""
    return type(part).__module__.startswith("torch.optim")


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
    """Write a state of tensors, numbers and texts, tensor by tensor, into an empty file.

    Raises:
        OSError: the file cannot be written.
        DamagedError: the state holds what PyTorch cannot write.
    """
    file.write(MAGIC + b"0" * 64 + b"\n")
    hashed = _Hashed(file)
    try:
        torch.save(state, cast("IO[bytes]", hashed))
    except Exception as error:
        raise DamagedError(f"cannot be written: {_reason(error)}") from error
    if hashed.error is not None:
        raise hashed.error
    file.seek(len(MAGIC))  # the place left for the SHA-256
    file.write(hashed.digest.hexdigest().encode())


class _Parts(io.RawIOBase):
    """A file as PyTorch reads an archive from it: not a part of it again and again."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file = file
        self.left = most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self.file.seek(offset, whence)  # `tell` goes by this too

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        if self.left < len(view):
            return 0
        content = self.file.readinto(view)  # type: ignore[attr-defined]
        self.left -= content
        return int(content)


def read_state(
    file: IO[bytes], device: str = "cpu", *, texts: int = UNBOUNDED.texts
) -> dict[str, Any]:
    """What `write_state` was given, the tensors on a device: `meta` keeps none of their numbers.

    Beside the tensors there may be `texts` bytes. The file is read twice, first to hash it.

    Raises:
        DamagedError: a byte is missing or not as it was written, or it is no checkpoint.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(len(MAGIC) + 65)
    if not head.startswith(MAGIC):
        raise DamagedError("does not begin as a checkpoint does")
    digest = hashlib.sha256()
    while part := file.read(min(2**20, size - file.tell())):
        digest.update(part)
    if head[len(MAGIC) :] != digest.hexdigest().encode() + b"\n":
        raise DamagedError("its SHA-256 is another than was written")
    _refuse_packed(file, len(head), size, min(texts, size))
    file.seek(len(head))
    parts = cast("IO[bytes]", _Parts(file, 2 * size))
    try:
        state = torch.load(parts, map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(f"PyTorch cannot read it: {_reason(error)}") from error
    if not isinstance(state, dict):
        raise DamagedError("holds no state")
    return state


def _refuse_packed(file: IO[bytes], start: int, end: int, texts: int) -> None:
    """Refuse an archive, from `start` to `end`, that PyTorch did not write.

    It can take far more memory than its bytes. Its directory is looked for where PyTorch's reader
    finds it, and nowhere else; it and the pickle may have `texts` bytes each.
    """
    try:
        file.seek(max(start, end - _END.size))
        *found, comment = _END.unpack(file.read(_END.size))
        first, here, count, size, place, locator, at, last = found
        marks = (first, locator, last, comment)
        whole = here == count and place + size == at == end - start - _END.size
        if marks != (b"PK\6\6", b"PK\6\7", b"PK\5\6", 0) or not whole or size > texts:
            raise DamagedError("is no whole archive as PyTorch writes them")
        file.seek(start + place)
        directory = file.read(size)
        offset, pickles = 0, []
        for _ in range(count):
            mark, method, length, *lengths, begin = _ENTRY.unpack_from(directory, offset)
            name = directory[offset + _ENTRY.size :][: lengths[0]]
            if mark != b"PK\1\2" or method != 0:
                raise DamagedError("its archive is compressed, which PyTorch does not do")
            if name.lower().endswith(b"data.pkl"):
                pickles.append((begin, length))
            offset += _ENTRY.size + sum(lengths)
        ((begin, length),) = pickles
        if offset != size or length > texts:
            raise DamagedError("is no whole archive as PyTorch writes them")
        file.seek(start + begin + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        for code, text, _ in pickletools.genops(file.read(length)):
            if code.name in ("GLOBAL", "INST") and not _NAMES.fullmatch(str(text)):
                raise DamagedError(f"PyTorch cannot read it: {_MORE}")
    except (struct.error, ValueError, OSError) as error:
        raise DamagedError("is no archive as PyTorch writes them") from error


def _reason(error: Exception) -> str:
    """What the many lines of PyTorch come down to."""
    text = " ".join(str(error).split()) or type(error).__name__
    return _MORE if "weights_only" in text else text[:200]


@dataclass(eq=False)
class Checkpoints:
    """The checkpoints of one run: the newest and the one before it.

    `every` says how many epochs there are from one to the next: 0 for none but when the run is
    stopped; None for after each epoch that takes its time, within the very long ones, and never for
    more than about 2 % of the time.
    """

    path: Path  # of the newest
    before: Path  # of the one before, which is used where the newest is damaged
    _: KW_ONLY
    every: int | None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.last = self.clock()
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
            DamagedError: it could not be read again, as the state of a foreign schedule may be.
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

    def read(self, most: Bounds = UNBOUNDED) -> dict[str, Any] | None:
        """The newest state that is whole; None where there is none, see `damaged`.

        Raises:
            StorageError: a file is there and cannot be read, or is larger than one of this run.
        """
        for path in (self.path, self.before):
            try:
                with open_regular(path, most.file) as file:
                    return read_state(file, texts=most.texts)
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
        """Remove what is there; a completed run needs none."""
        for path in (self.path, self.before):
            remove(path)


def random_states(device: torch.device) -> dict[str, Any]:
    """Where every global source of random numbers stands that a model may draw from."""
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
    """Put them back where `random_states` found them; raises anything where they are none."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    if type(position) is not int or not 0 <= position <= len(keys):
        raise DamagedError("NumPy's random numbers stand nowhere")  # NumPy would read there
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextlib.contextmanager
def preserved(
    model: nn.Module, optimizer: Optimizer | None = None, *, device: torch.device
) -> Iterator[tuple[nn.Module, Any]]:
    """Steps that are only tried: at the end everything is as it was, to the bit.

    Yields a model to call, and an optimizer to step (None where none was given). The model shares
    its parameters and buffers with the one given, so that trying it costs the memory of the weights
    once. These, their gradients, the modes (training or evaluation) and every global source of
    random numbers are put back. What else a model keeps, such as counters, lists or a generator of
    its own, and the state of the optimizer belong to a copy, thrown away later. Of a model that
    cannot be copied the attributes are put back, the contents of lists and dictionaries too.
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
        except Exception:  # noqa: BLE001 - a stranger's model may refuse in any way
            tried, memo = model, shared | {id(module): module for module in model.modules()}
            attributes = [_attributes_kept(module) for module in model.modules()]
        yield tried, None if optimizer is None else copied(optimizer, memo)
    finally:
        for put_back in attributes:
            put_back()
        for tensor, values, before, gradient in zip(tensors, data, saved, gradients, strict=True):
            tensor.data, tensor.grad = values, gradient
            # A view of one number as many cannot be written to, by the model neither.
            with contextlib.suppress(RuntimeError):
                values.copy_(before)
        for module, mode in modes:
            module.training = mode
        restore_random_states(random_numbers, device)


def copied(optimizer: Optimizer, memo: dict[int, Any]) -> Any:
    """A deep copy of an optimizer, with the attributes that PyTorch's copies of one lack."""
    twin = copy.deepcopy(optimizer, memo)
    for name, value in vars(optimizer).items():
        # Schedules wrap `step`, which would be that of the optimizer itself.
        if name not in vars(twin) and not callable(value):
            setattr(twin, name, copy.deepcopy(value, memo))
    return twin


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
