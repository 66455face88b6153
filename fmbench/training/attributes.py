"""What a user's object keeps where no checkpoint looks: attributes, as bytes that compare."""

import io
import pickle
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def attributes(part: Any) -> Iterator[tuple[str, bytes]]:
    """What a part of a run keeps outside its `state_dict`, by name, as bytes that compare.

    Of a module all but parameters and the buffers that are saved, of an optimizer all but `state`
    and `param_groups`. The bytes are empty where a value has none, such as a file.
    """
    if not isinstance(part, nn.Module):
        holder = getattr(part, "__self__", part)  # of a method
        apart = ("state", "param_groups") if isinstance(part, Optimizer) else ()
        for name, value in (getattr(holder, "__dict__", None) or {"itself": holder}).items():
            if name not in apart:
                yield name, _as_bytes(value)
        return
    saved = part.state_dict()
    for name, buffer in part.named_buffers():
        if name not in saved:
            yield name, _as_bytes(buffer)
    for path, module in part.named_modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                yield f"{path}.{name}".lstrip("."), _as_bytes(value)


class _Pickler(pickle.Pickler):
    """Of values that are only compared: tensors by their numbers, code as the object it is."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            numbers = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return str(value.dtype), tuple(value.shape), numbers.numpy().tobytes()
        if isinstance(value, torch.Generator):
            return value.get_state().numpy().tobytes()
        if isinstance(value, (type, FunctionType, BuiltinFunctionType, ModuleType)):
            return id(value)
        return None


def _as_bytes(value: Any) -> bytes:
    """A value as bytes; empty where it has none, such as a file's."""
    found = io.BytesIO()
    try:
        _Pickler(found).dump(value)
    except Exception:  # noqa: BLE001 - a stranger's object may refuse in any way
        return b""
    return found.getvalue()
