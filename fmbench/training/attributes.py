"""What a user's object keeps outside its `state_dict`: attributes.

Numbers among them are in checkpoints too. All are compared, as bytes, where a part is tried.
"""

import io
import pickle
from collections.abc import Iterator, Mapping
from functools import cache
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fmbench.core.errors import ConfigError
from fmbench.optim.without_dynamo import without_dynamo


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


#: Where the classes are that keep what they remember in their `state_dict`.
_KNOWN = ("builtins", "functools", "fmbench", "pytorch_optimizer", "schedulefree", "timm", "torch",
          "torchvision")  # fmt: skip


@cache
def _of_all() -> frozenset[str]:
    """The attributes that every module and every optimizer has."""
    with without_dynamo():
        return frozenset([*vars(nn.Module()), *vars(Optimizer([torch.zeros(())], {}))])


def numbers(part: Any) -> dict[str, Any]:
    """The attributes, by name, of a part of a run that are numbers or None.

    Of the user's own classes alone. Lists and dictionaries of numbers do not count: they may grow.
    """
    return {
        f"{path}.{name}".lstrip("."): value
        for path, holder in _holders(part)
        for name, value in vars(holder).items()
        if name not in _of_all() and _is_number(value)
    }


def changed(part: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a part's `numbers` that are others than before; NaN is the same as NaN."""
    return {
        name: value
        for name, value in numbers(part).items()
        if repr(before.get(name, ...)) != repr(value)
    }


def put_numbers(part: Any, values: Mapping[str, Any]) -> None:
    """Put attributes back, whatever is there now.

    Raises:
        ValueError: it has no such attributes, or they are other than `numbers` gives.
    """
    holders = dict(_holders(part))
    for name, value in values.items():
        path, _, last = name.rpartition(".")
        holder = holders.get(path)
        # No method, no buffer; of a part that was made anew it may not be there yet.
        own = last in getattr(holder, "__dict__", ()) or _is_number(getattr(holder, last, None))
        if holder is None or last in _of_all() or not own or not _is_number(value):
            raise ValueError(f"it has no number {ascii(name)[:80]}")
        setattr(holder, last, value)


def refuse_counting(part: Any, before: Mapping[str, Any], key: str, who: str) -> None:
    """Refuse a part that has changed a number since `before`, where its code does not run again.

    Raises:
        ConfigError: it has, and by `key=true` a step is recorded or compiled.
    """
    for name in changed(part, before):
        raise ConfigError(
            f"{key}=true: {who} changes {name} when it is called, a number that such a step does "
            f"not follow; take {key}=false"
        )


class Numbers:
    """The numbers that parts of a run keep as attributes and have changed since this was made."""

    def __init__(self, **parts: Any) -> None:
        self.parts = parts
        self.first = {name: numbers(part) for name, part in parts.items()}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """By part and name; parts that have changed none are left out."""
        found = {name: changed(part, self.first[name]) for name, part in self.parts.items()}
        return {name: values for name, values in found.items() if values}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Restore what `state_dict` gave; a ValueError where it is of other parts."""
        for name, values in state.items():
            put_numbers(self.parts.get(name), values)


def _holders(part: Any) -> Iterator[tuple[str, Any]]:
    """What holds the attributes of a part, if it is of the user's own class, by path."""
    holder = getattr(part, "__self__", part)  # of a method
    every = holder.named_modules() if isinstance(holder, nn.Module) else [("", holder)]
    usual = nn.Module.get_extra_state  # of others, what it gives is in the `state_dict`
    for path, one in every:
        extra = isinstance(one, nn.Module) and type(one).get_extra_state is not usual
        known = type(one).__module__.partition(".")[0] in _KNOWN
        if not extra and not known and hasattr(one, "__dict__"):
            yield path, one


def _is_number(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float)


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
