"""PyTorch's optimizers without TorchDynamo, whose import is a third of what a run takes to start.

An optimizer of PyTorch imports `torch._dynamo` when it is made and at each step, to tell a compiler
where its graphs end (`torch.optim.optimizer`, `torch._compile`). Where nothing is compiled that
has no effect. So meanwhile a module stands in its place that has these two functions; whatever
else is asked of it loads the real one: `torch.compile`, a package of somebody's.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

_NAME = "torch._dynamo"

#: Where `torch._compile` keeps what `disable` gave for a function.
_KEPT = "__dynamo_disable"


class _NotLoaded(ModuleType):
    """`torch._dynamo` as optimizers see it while nothing is compiled."""

    def __init__(self) -> None:
        super().__init__(_NAME)
        self._disabled: list[Callable[..., Any]] = []

    @staticmethod
    def graph_break(*_: Any) -> None:
        """Nothing: without a compiler there is no graph."""

    def disable(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """The function itself: without a compiler nothing has to be switched off."""
        self._disabled.append(function)
        return function

    def leave(self) -> None:
        """Take it away, with all that it has given."""
        for function in self._disabled:
            if hasattr(function, _KEPT):
                delattr(function, _KEPT)
        self._disabled.clear()
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        if vars(torch).get("_dynamo") is self:
            del torch._dynamo  # noqa: SLF001

    def __getattr__(self, name: str) -> Any:
        # What looks through all modules asks for __file__ and the like; an import of a submodule
        # asks for __path__.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        self.leave()
        return getattr(importlib.import_module(_NAME), name)


@contextlib.contextmanager
def without_dynamo() -> Iterator[None]:
    """Make and use optimizers without importing TorchDynamo, unless something else needs it."""
    if _NAME in sys.modules:
        yield
        return
    stand_in = _NotLoaded()
    sys.modules[_NAME] = stand_in
    vars(torch)["_dynamo"] = stand_in
    try:
        yield
    finally:
        stand_in.leave()
