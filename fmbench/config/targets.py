"""What is wrong with a `_target_`, in words: it may not be started, or leads to nothing."""

import difflib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from fmbench.config import sources
from fmbench.config.whitelist import TRUST_VARIABLE, trusted
from fmbench.core.errors import ConfigError, described, one_line, place

#: Packages of which no message says how to trust them.
_NO_HINT = {"fmbench", "hydra_plugins", "torch", *sys.stdlib_module_names}

#: Names that a message lists.
_MOST_NAMES = 10


def refuse_unlisted(key: str, target: str, allowed: Sequence[str]) -> None:
    """Refuse a target, at a key, that none of the allowed patterns of import paths matches.

    Raises:
        ConfigError: it says what may have been meant, and what to type.
    """
    if any(fnmatchcase(target, pattern) for pattern in allowed):
        return
    module, _, name = target.rpartition(".")
    beside = [path.rpartition(".")[2] for path in allowed if path.rpartition(".")[0] == module]
    if near := _near(name, beside):
        raise ConfigError(f"{key}={target}: {module} has no {name} to use here{near}")
    said = f"{key}={target}: not allowed;"
    if not module and target.isidentifier():
        raise ConfigError(f"{said} must be an import path, as mine.{target} of mine.py")
    package = target.partition(".")[0]
    # A file may be a stranger's: what starts programs is nothing to trust at a hint.
    if not all(map(str.isidentifier, target.split("."))) or not module or package in _NO_HINT:
        raise ConfigError(f"{said} {TRUST_VARIABLE} names packages to trust")
    if package in packages_distributions():  # which has more in it than one's own has
        package = module
    now = trusted()
    every = ",".join([*now, package])
    there = f"trusted now: {', '.join(now)}" if now else "none is trusted now"
    raise ConfigError(
        f"{said} type {TRUST_VARIABLE}={every} before the command to trust {package} ({there})"
    )


def missing(target: str) -> str | None:
    """Why an import path that may be started leads to nothing; None where it leads to something.

    Of a module that fails as it is imported, where and why it does.
    """
    first, *rest = target.split(".")
    try:
        found: Any = import_module(first)
    except ModuleNotFoundError as error:
        return _no_package(first) if error.name == first else _failed(error)
    except Exception as error:  # noqa: BLE001 - whatever a module of the user's raises
        return _failed(error)
    path = first
    for name in rest:
        if not hasattr(found, name):
            if not isinstance(found, ModuleType):
                return f"{path} has no {name}{_near(name, dir(found))}"
            if not hasattr(found, "__path__"):
                return f"{path} has no {name}{_near_or_all(name, _own_names(found))}"
            try:
                import_module(f"{path}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{path}.{name}":
                    return _failed(error)
                modules = [one.name for one in pkgutil.iter_modules(found.__path__)]
                return f"{path} has no module {name}{_near_or_all(name, modules)}"
            except Exception as error:  # noqa: BLE001
                return _failed(error)
        found, path = getattr(found, name), f"{path}.{name}"
    return None


def parameters(target: str) -> list[str]:
    """The names of what is taken by what an import path, that was imported, leads to."""
    module, _, name = target.rpartition(".")
    try:
        return [*inspect.signature(getattr(sys.modules.get(module), name)).parameters]
    except (AttributeError, TypeError, ValueError):
        return ["other arguments"]


def is_function(target: str) -> bool:
    """Whether an import path that was imported leads to a plain function."""
    module, _, name = target.rpartition(".")
    return inspect.isfunction(getattr(sys.modules.get(module), name, None))


def _failed(error: Exception) -> str:
    return f"{described(error, 300)}{place(error)}"


def _no_package(name: str) -> str:
    said = f"No module named '{name}': commands are typed in the folder that holds it"
    for folder in sources.own():
        parent = Path(folder).absolute().parent
        if (parent / name).is_dir() or (parent / f"{name}.py").is_file():
            return f"{said} (cd {one_line(str(parent))})"
    return f"{said}, or it is installed"


def _own_names(module: ModuleType) -> list[str]:
    """The classes and functions that a module defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _near_or_all(name: str, there: Sequence[str]) -> str:
    if near := _near(name, there):
        return near
    shown = ", ".join([*there[:_MOST_NAMES], *["..."] * (len(there) > _MOST_NAMES)])
    return f"; there are: {shown}" if there else ""


def _near(name: str, there: Iterable[str]) -> str:
    by_lower = {one.lower(): one for one in there if not one.startswith("_")}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""
