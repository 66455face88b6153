"""The weights of a trained model as a safetensors file, whose metadata is one JSON text.

The format (https://github.com/huggingface/safetensors) is a JSON header, then the numbers. Reading
it runs no code. The file may come from a stranger, so all that it claims is checked here.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from fmbench.core.errors import ConfigError, DataError, one_line
from fmbench.core.files import open_regular

#: The types that a model's state may have, and their names in the format.
DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

#: Bounds of a header, which has a few kilobytes: bytes, commas of its config, names of classes.
MAX_HEADER, MAX_VALUES, MAX_CLASSES = 2**22, 10_000, 65_536

#: Pixels of a side of an image.
MAX_SIDE = 4096


def refuse_unkeepable(model: nn.Module) -> None:
    """Refuse a model whose state the format cannot hold, by a ConfigError, before training."""
    for name, value in model.state_dict().items():
        dtype = getattr(value, "dtype", type(value).__name__)
        if dtype not in DTYPES or value.layout != torch.strided:
            raise ConfigError(f"keep_model=true: {name} of the model cannot be kept, it is {dtype}")


def write_weights(model: nn.Module, file: IO[bytes], **description: Any) -> None:
    """Write `model.safetensors` tensor by tensor, as the library would need a copy of all.

    The same model gives the same bytes. A tensor that stands under two names is written twice.

    Args:
        model: on any device, in any memory format.
        file: empty.
        description: what `read_weights` gives back: `config` and `key` of the run, `classes`, the
            names of the logits, `shape`, `mean` and `std` of the images, `memory_format`, and
            `source`, the hash of the user's own code that the model is made of, or None.
    """
    state = model.state_dict()
    # The widest come first, so that all numbers are aligned.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"fmbench": json.dumps(description, allow_nan=False)}}
    end = 0
    for name in names:
        value = state[name]
        start, end = end, end + value.nbytes
        kind, shape = DTYPES[value.dtype], list(value.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        flat = state[name].detach().cpu().contiguous().reshape(-1)
        file.write(flat.view(torch.uint8).numpy().data)


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file of weights; returns its description, checked, and its tensors, mapped lazily.

    Raises:
        DataError: It is no whole safetensors file, or not one of a run.
    """
    try:
        with open_regular(path, 2**63) as begin:
            length = int.from_bytes(begin.read(8), "little")
        if length > MAX_HEADER:
            raise DataError(f"its header has {length:,} bytes, at most {MAX_HEADER:,} are read")
        with safe_open(path, framework="pt") as file:
            texts, state = file.metadata() or {}, file.get_tensors()
    except (SafetensorError, OSError) as error:
        text = one_line(str(error), 200)
        raise DataError(f"not a whole safetensors file ({text})") from error
    try:
        found: dict[str, Any] = {"memory_format": "channels_last", "source": None}
        if "fmbench" in texts:
            found |= json.loads(texts["fmbench"])
        else:  # of 0.1.0, with a key for each; readable for one more release
            found |= texts | {name: json.loads(texts[name]) for name in ("config", "classes")}
        config, classes = found["config"], found["classes"]
        # Of older files: all were of Fashion-MNIST or its twin.
        given = {"shape": [1, 28, 28], "mean": config["data"]["mean"], "std": config["data"]["std"]}
        found = given | found
        sound = (
            json.dumps(config).count(",") <= MAX_VALUES
            and len(classes) <= MAX_CLASSES
            # Interpolations would be resolved when the model is built.
            and "${" not in json.dumps(config["model"])
            and 0 <= config["seed"] < 2**63
            and len(found["shape"]) == 3
            and all(type(side) is int and 0 < side <= MAX_SIDE for side in found["shape"])
            and _are_numbers(found["mean"], found["std"], found["shape"][0])
            and all(type(text) is str for text in (found["key"], *classes))
        )
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"its header is not that of a run ({type(error).__name__})") from error
    if not sound:
        raise DataError("its header is not that of a run")
    return found, state


def _are_numbers(mean: Any, std: Any, channels: int) -> bool:
    """Whether these normalise the images, raising a TypeError or an ArithmeticError at worst."""
    pairs = list(zip(mean, std, strict=True)) if isinstance(mean, list) else [(mean, std)]
    return len(pairs) in (1, channels) and all(math.isfinite(m / s) for m, s in pairs)


@contextmanager
def bounded_by(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop the building of a model that has far more weights than a file holds.

    Far more, because some models build layers to try them out, or to replace others.

    Raises:
        DataError: Within the block, before the memory of a large tensor is touched.
    """
    left = 10 * sum(100_000 + value.numel() for value in state.values()) + 10_000_000

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None:  # each costs time too
            left -= 100_000 if is_lazy(parameter) else 100_000 + parameter.numel()
        if left < 0:
            raise DataError("the model of its config is far larger than its weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
