"""The weights of a trained net as a file.

The format is safetensors (https://github.com/huggingface/safetensors): a JSON header with the name,
type and shape of every tensor and with texts of one's own, then the numbers. Reading it runs no
code. What it says is somebody's claim all the same, and is checked here before it is used.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from fmbench._version import __version__
from fmbench.core.errors import ConfigError, DataError
from fmbench.data.loader import Normalization
from fmbench.training.device import MEMORY_FORMATS

#: The types that a net's state may have, by the names that the format has for them, in the order
#: in which its library writes them.
DTYPES = {
    "I64": torch.int64, "F64": torch.float64, "F32": torch.float32, "I32": torch.int32,
    "BF16": torch.bfloat16, "F16": torch.float16, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

#: The texts of a header are a few kilobytes. More are no record, and not worth reading; nor is a
#: header of very many tensors, or a config of very many values.
MOST_CHARACTERS, MOST_BYTES, MOST_VALUES = 2**20, 2**22, 10_000

#: By name, the type (a key of `DTYPES`, or one that no net may have) and the shape.
Layout = Mapping[str, tuple[str, tuple[int, ...]]]


def refuse_unkeepable(model: nn.Module) -> None:
    """Refuse a net whose state the format cannot hold, before hours are spent on training it.

    Raises:
        ConfigError: A part of the state is no tensor of numbers, or of an unusual type.
    """
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
        elif value.dtype not in DTYPES.values() or value.layout != torch.strided:
            kind = f"{value.dtype}, {value.layout}"
        else:
            continue
        raise ConfigError(f"keep_model=true: {name} of the net cannot be kept, it is {kind}")


def write_weights(
    model: nn.Module,
    file: IO[bytes],
    *,
    config: Mapping[str, Any],
    classes: Sequence[str],
    key: str,
    source: str | None = None,
    memory_format: str = "channels_last",
) -> None:
    """Write `model.safetensors`, tensor by tensor: a net's state and where it comes from.

    The same net gives the same bytes, those that the library would write, but for the order of the
    texts, which there changes from process to process.

    Args:
        model: On any device, in any memory format.
        file: Empty.
        config: As the record keeps it.
        classes: The name of each logit.
        key: Of the run.
        source: Hash of the user's own code that the net is made of, if it is.
        memory_format: That the net ran in.

    Raises:
        OSError: The file cannot be written.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    state = model.state_dict()
    order = list(DTYPES.values())
    header: dict[str, Any] = {
        "__metadata__": {
            "config": json.dumps(config, allow_nan=False),
            "classes": json.dumps(list(classes)),
            "key": key,
            "memory_format": memory_format,
            "fmbench_version": __version__,
            **({} if source is None else {"source": source}),
        }
    }
    # Each name gets numbers of its own: the format knows no strides and no shared memory. A tensor
    # that a net has under two names stands there twice, and both are read back into the one.
    ordered = sorted(state, key=lambda name: (order.index(state[name].dtype), name))
    end = 0
    for name in ordered:
        value = state[name]
        start, end = end, end + value.numel() * value.element_size()
        kind, shape = names[value.dtype], list(value.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    texts = json.dumps(header).encode()
    texts += b" " * (-len(texts) % 8)  # so that the numbers begin at a multiple of 8 bytes
    file.write(len(texts).to_bytes(8, "little") + texts)
    for name in ordered:
        numbers = state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        file.write(numbers.data)


@dataclass(frozen=True)
class Header:
    """What the texts of a file say about the net whose weights it holds."""

    config: dict[str, Any]  # with a sound seed, normalisation and target
    classes: tuple[str, ...]
    key: str
    normalization: Normalization
    memory_format: str
    source: str | None = None  # hash of the user's own code that the net was made of


def refuse_long_header(file: IO[bytes]) -> None:
    """Refuse a file whose header takes long to read.

    Args:
        file: At its beginning.

    Raises:
        DataError: The header says that it is longer than that of any net.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > MOST_BYTES:
        raise DataError(f"its header has {length:,} bytes, at most {MOST_BYTES:,} are read")


def read_header(texts: Mapping[str, str]) -> Header:
    """Check the texts of a file.

    Raises:
        DataError: One is missing or is not what it has to be.
    """
    missing = [name for name in ("config", "classes", "key") if name not in texts]
    if missing:
        raise DataError(f"its header has no {missing[0]}: not made by keep_model=true")
    if sum(map(len, texts.values())) > MOST_CHARACTERS:
        raise DataError(f"its header is not that of a run: over {MOST_CHARACTERS:,} characters")
    if sum(map(texts["config"].count, ",[{")) > MOST_VALUES:
        raise DataError(f"its header is not that of a run: a config of over {MOST_VALUES:,} values")
    try:
        config, classes = json.loads(texts["config"]), json.loads(texts["classes"])
        memory_format = texts.get("memory_format", "channels_last")  # as of all older files
        seed, target = config["seed"], config["model"]["_target_"]
        normalization = Normalization(config["data"]["mean"], config["data"]["std"])
        sound = {
            "config.model._target_": type(target) is str,
            # In a record stands what it led to; here it could lead to secrets of this machine.
            "config.model": "${" not in json.dumps(config["model"]),
            "memory_format": memory_format in MEMORY_FORMATS,
            "config.seed": type(seed) is int and 0 <= seed < 2**63,
            "config.data": math.isfinite(normalization.scale + normalization.shift),
            "classes": type(classes) is list
            and all(type(name) is str and name.isprintable() for name in classes),
        }
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"its header is not that of a run: {type(error).__name__}") from error
    wrong = [name for name, holds in sound.items() if not holds]
    if wrong:
        raise DataError(f"its header is not that of a run: {wrong[0]} cannot be")
    return Header(
        config, tuple(classes), texts["key"], normalization, memory_format, texts.get("source")
    )


def compare(found: Layout, model: nn.Module) -> None:
    """Refuse tensors that are not those of a net in name, type and shape.

    Args:
        found: In the file.
        model: On any device, meta too.

    Raises:
        DataError: Names the first that is not.
    """
    expected = model.state_dict()
    for name, value in expected.items():
        if name not in found:
            raise DataError(f"lacks {name}, which the net of its config has")
        kind, shape = found[name]
        if (DTYPES.get(kind), shape) != (value.dtype, tuple(value.shape)):
            raise DataError(
                f"{name} is {kind} {list(shape)}, but {value.dtype} {list(value.shape)} in the net "
                "of its config"
            )
    unknown = next((name for name in found if name not in expected), None)
    if unknown is not None:
        raise DataError(f"holds {ascii(unknown)[:80]}, which the net of its config has not")


@contextmanager
def not_far_beyond(found: Layout) -> Iterator[None]:
    """Stop the making of a net that has far more weights than there are in a file.

    Far more, because some nets make layers to try them out, or to put others in their place.

    Raises:
        DataError: Within the block, before the memory of a large tensor is touched.
    """
    tensors = 10 * len(found) + 100
    numbers = 10 * sum(math.prod(shape) for _, shape in found.values()) + 10_000_000

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, numbers
        if parameter is not None:
            tensors -= 1
            numbers -= 0 if is_lazy(parameter) else parameter.numel()
        if tensors < 0 or numbers < 0:
            raise DataError("the net of its config is far larger than the one whose weights it has")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
