"""The code that a run is made of: a hash of the user's own, the git commit of fmbench's."""

import ast
import functools
import hashlib
import itertools
import json
import linecache
import os
import subprocess
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from fmbench.config.checks import PACKAGE
from fmbench.config.whitelist import TARGETS
from fmbench.records.record import Git

#: What is no code of the user's, beside site-packages. PyTorch may have been built where it lies.
_OUTSIDE = tuple(
    os.path.realpath(str(place))
    for place in (
        PACKAGE,
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")),
        *(
            Path(str(spec.origin)).parent
            for spec in map(find_spec, ("torch", "torchvision", "numpy"))
            if spec is not None
        ),
    )
)

#: Where a notebook's cells and a script's own classes are; the second in its child processes.
_MAIN = ("__main__", "__mp_main__")

#: Values that lead to no code.
_DATA = (type(None), bool, int, float, complex, str, bytes, torch.Tensor, np.ndarray)

#: What an item of a class may be, and what it is made of.
_WRAPPERS = {
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    functools.cached_property: ("func",),
    functools.partialmethod: ("func", "args", "keywords"),
    functools.partial: ("func", "args", "keywords"),
    MethodType: ("__func__", "__self__"),
}

#: Files as they were when first looked at, by the import that they were read for: what is edited
#: later is not what runs.
_AS_IMPORTED: dict[str, tuple[Any, "_Text"]] = {}

_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Source:
    """The user's own code that a run is made of."""

    digest: str | None  # hash of it; None where all is fmbench's or of installed packages
    missing: tuple[str, ...] = ()  # names of what runs without a source that says what it does
    edited: tuple[str, ...] = ()  # files that say something else now than what runs


def own_source(config: Mapping[str, Any], *built: Any) -> Source:
    """Hash the user's own code that a run is made of: the files that define it, and their imports.

    A file counts when a class or a function of what was built comes from it, and so does each file
    that it imports, but for fmbench, the standard library and installed packages. Of `__main__`, a
    notebook or a script, the classes and functions count that are used, not what stands around
    them. Comments, docstrings and formatting do not count, and neither do names and places of
    files: a copy of the code elsewhere has the same hash. The targets of the config, which may be
    some of its groups, count, and what was `built`: the model, the optimizer, the schedule, say.
    """
    found = _Found()
    for group in (*TARGETS, "augmentation"):
        for target in _targets(config.get(group)):
            found.visit(_loaded(target))
    found.visit(*built)
    found.finish()
    digest = _hash(sorted(found.digests)) if found.digests else None
    return Source(digest, tuple(sorted(found.missing)), tuple(sorted(found.edited)))


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from _targets(value)


def _loaded(target: str) -> Any:
    """What a target names, where that is loaded: a target that was not started is not imported."""
    value = None
    for path in itertools.accumulate(target.split("."), "{}.{}".format):
        value = sys.modules.get(path) or getattr(value, path.rpartition(".")[2], None)
    return value


class _Found:
    """The sources found so far: their hashes, and the names of what has none."""

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.missing: set[str] = set()
        self.edited: set[str] = set()
        self.seen: dict[int, Any] = {}  # kept, so that no other object gets the number of one
        self.waiting: list[Any] = []
        self.texts: dict[str, _Text | None] = {}

    def visit(self, *values: Any) -> None:
        """Note objects to look at: instances, classes, functions, modules."""
        for value in values:
            if not issubclass(type(value), _DATA) and id(value) not in self.seen:
                self.seen[id(value)] = value
                self.waiting.append(value)

    def finish(self) -> None:
        """Look at all that was noted, and at what that leads to."""
        while self.waiting:
            value = self.waiting.pop()
            kind = type(value)
            if issubclass(kind, ModuleType):
                self._module(value)
            elif issubclass(kind, type):
                for one in value.__mro__:
                    self._class(one)
            elif kind is FunctionType:
                self._function(value)
            elif kind in _WRAPPERS:
                self.visit(*_behind(value))
            elif issubclass(kind, dict):
                self.visit(*dict.values(value))
            elif issubclass(kind, (list, tuple, set, frozenset)):
                self.visit(*value)
            elif issubclass(kind, (nn.Module, torch.optim.Optimizer)) or _is_own(kind):
                self.visit(kind, *getattr(value, "__dict__", {}).values())

    def _class(self, one: type) -> None:
        main, module = one.__module__ in _MAIN, sys.modules.get(one.__module__)
        if main:
            self.digests.add(_hash([one.__qualname__, *(base.__name__ for base in one.__bases__)]))
        elif _is_own(one):
            self.visit(module)
        loose = main or _file(module) is None  # no file says what it is
        for name, value in vars(one).items():
            hidden = name.startswith("__")
            for part in _behind(value):
                if type(part) is FunctionType:
                    path = part.__code__.co_filename
                    generated = hidden and path == "<string>"  # by dataclass or namedtuple
                    if (loose and not generated) or (_is_own_file(path) and Path(path).is_file()):
                        self.visit(part)
                elif main and not hidden:
                    self._value(name, part)

    def _function(self, function: FunctionType) -> None:
        code = function.__code__
        given = {f"={place}": value for place, value in enumerate(function.__defaults__ or ())}
        given |= {f"={name}": value for name, value in (function.__kwdefaults__ or {}).items()}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # empty
                given[name] = cell.cell_contents
        self.visit(getattr(function, "__wrapped__", None), *given.values())
        path, module = code.co_filename, sys.modules.get(function.__module__)
        if Path(path).is_file() and not _is_own_file(path):
            return
        file = _file(module)
        in_file = file is not None and os.path.realpath(file) == os.path.realpath(path)
        if module is not None and in_file and function.__module__ not in _MAIN:
            self.visit(module)
            text = self._text(path, module)
            plainly = type(getattr(module.__spec__, "loader", None)) is SourceFileLoader
            if text is not None and plainly and not text.has(code):
                self._miss(function)  # edited since it was imported
            return
        text = self._text(path, None)
        nodes = text.nodes(code) if text is not None and text.has(code) else []
        if not nodes:
            self._miss(function)
        self.digests.update(_of_tree(node) for node in nodes)
        for name in {name for one in _all_codes(code) for name in one.co_names}:
            if name in function.__globals__:
                given[name] = function.__globals__[name]
        for name, value in given.items():
            self._value(name, value)

    def _value(self, name: str, value: Any) -> None:
        """Look at what a function of `__main__` uses: a number or a text counts as it is."""
        try:
            self.digests.add(_hash([name, json.dumps(value)]))
        except (TypeError, ValueError, RecursionError):
            self.visit(value)

    def _miss(self, function: FunctionType) -> None:
        self.missing.add(f"{function.__module__}.{function.__qualname__}")
        # In one version of Python this shows whether it changed when the run resumes.
        self.digests.add(_hash(_bytecode(function.__code__)))

    def _module(self, module: ModuleType) -> None:
        path = _file(module)
        if path is not None and module.__name__ not in _MAIN and _is_own_file(path):
            self._source_file(path, module.__name__, module.__package__ or "", module)
            # Those that no import statement names, such as of `importlib.import_module`.
            self.visit(
                *(value for value in vars(module).values() if issubclass(type(value), ModuleType))
            )

    def _source_file(
        self, path: str, name: str, package: str, module: ModuleType | None = None
    ) -> None:
        """Hash a file, and visit what it imports."""
        text = self._text(path, module) if path.endswith(".py") else None
        if text is None:
            self.missing.add(name)
            with suppress(OSError):
                self.digests.add(hashlib.sha256(Path(path).read_bytes()).hexdigest())
            if module is not None:  # what it imports can only be seen in it
                code = (type, FunctionType, ModuleType)
                self.visit(*(one for one in vars(module).values() if isinstance(one, code)))
            return
        self.digests.add(text.digest)
        for node in ast.walk(text.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._imported(alias.name)
            elif isinstance(node, ast.ImportFrom):
                origin = node.module or ""
                if node.level:
                    with suppress(ImportError):
                        origin = resolve_name("." * node.level + origin, package)
                for alias in node.names:
                    # A module, or where a class or function is defined.
                    value = getattr(sys.modules.get(origin), "__dict__", {}).get(alias.name)
                    if isinstance(value, (type, FunctionType)):
                        self.visit(value)
                    elif not self._imported(f"{origin}.{alias.name}"):
                        self._imported(origin)

    def _imported(self, name: str) -> bool:
        """Visit a module by its name; returns whether there is one. Nothing is imported for it."""
        if name in sys.modules:
            self.visit(sys.modules[name])
            return True
        spec, path = None, None
        for part in itertools.accumulate(name.split("."), "{}.{}".format):
            spec = None
            if part in sys.modules:
                path = getattr(sys.modules[part], "__dict__", {}).get("__path__")
            else:
                with suppress(Exception):  # whatever a path entry's own finder raises
                    spec = PathFinder.find_spec(part, path)
                path = getattr(spec, "submodule_search_locations", None)
            if path is None:
                break
        if spec is None or spec.name != name:
            return False
        place = spec.origin if spec.has_location else None
        if place and place not in self.texts and _is_own_file(place):
            self._source_file(place, name, spec.parent or "")
        return True

    def _text(self, path: str, module: ModuleType | None) -> "_Text | None":
        if path not in self.texts:
            text = _Text.read(path, module)
            spec = getattr(module, "__spec__", None)
            if spec is not None:
                then, first = _AS_IMPORTED.get(path, (None, None))
                if then is spec and first is not None:
                    if text is None or text.digest != first.digest:
                        self.edited.add(path)
                    text = first
                elif text is not None:
                    _AS_IMPORTED[path] = spec, text
            self.texts[path] = text
        return self.texts[path]


class _Text:
    """The source of a file or a cell; raises what `compile` does where it is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = self._compiled(ast.PyCF_ONLY_AST)

    def _compiled(self, flags: int = 0) -> Any:
        flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # of notebooks
        with warnings.catch_warnings(action="ignore"):  # Python has warned when it was imported
            return compile(self.text, "", "exec", flags, dont_inherit=True)

    @classmethod
    def read(cls, path: str, module: ModuleType | None) -> "_Text | None":
        """A file as it is now, or a cell as the notebook keeps it; None where there is neither."""
        try:
            try:
                with tokenize.open(path) as file:
                    return cls(file.read())
            except OSError:
                lines = linecache.getlines(path, vars(module) if module else None)
            return cls("".join(lines)) if lines else None
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None

    @functools.cached_property
    def digest(self) -> str:
        """Hash of what it says."""
        return _of_tree(self.tree)

    @functools.cached_property
    def _codes(self) -> set[str]:
        return {_bytecode(code) for code in _all_codes(self._compiled())}

    def has(self, code: CodeType) -> bool:
        """Whether it is what the code was made of."""
        return _bytecode(code) in self._codes

    def nodes(self, code: CodeType) -> list[ast.AST]:
        """The functions that begin where the code does."""
        return [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, _FUNCTIONS)
            and code.co_name == getattr(node, "name", "<lambda>")
            and code.co_firstlineno
            == min(one.lineno for one in (node, *getattr(node, "decorator_list", ())))
        ]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _of_tree(tree: ast.AST) -> str:
    """Hash of what code says, however it is laid out."""
    said: list[str] = []
    waiting: list[Any] = [tree]
    while waiting:  # without recursion: an expression may be deep
        node = waiting.pop()
        if isinstance(node, ast.AST):
            said.append(type(node).__name__)
            fields: list[Any] = []
            documented = (
                isinstance(node, _WITH_DOCSTRING)
                and ast.get_docstring(node, clean=False) is not None
            )
            for name, value in ast.iter_fields(node):
                # What is empty may be unknown to an older version.
                if value is None or value == [] or name in ("kind", "type_ignores"):
                    continue
                fields += [(name,), value[1:] if name == "body" and documented else value]
            waiting += reversed([*fields, ("end",)])
        elif isinstance(node, list):
            waiting += reversed([("[",), *node, ("]",)])
        elif isinstance(node, tuple):
            said += node
        else:
            said.append(hex(node) if type(node) is int else repr(node))
    return _hash(said)


def _all_codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_codes(constant)


def _bytecode(code: CodeType) -> str:
    """What code does, without the lines it stands at."""
    constants = [
        _bytecode(one)
        if isinstance(one, CodeType)
        else repr(sorted(map(repr, one)) if isinstance(one, frozenset) else one)
        for one in code.co_consts
    ]
    return repr((code.co_code, code.co_names, code.co_varnames, code.co_flags, constants))


def _behind(value: Any) -> Iterable[Any]:
    """The functions of a property and its like; of all else, itself."""
    names = _WRAPPERS.get(type(value))
    return (value,) if names is None else [getattr(value, name) for name in names]


def _is_own(one: type) -> bool:
    path = _file(sys.modules.get(one.__module__))
    return one.__module__ in _MAIN or (path is not None and _is_own_file(path))


def _file(module: ModuleType | None) -> str | None:
    path = getattr(module, "__dict__", {}).get("__file__")
    return path if isinstance(path, str) else None


@functools.cache
def _is_own_file(path: str) -> bool:
    """Whether a file is neither fmbench's, nor the standard library's, nor an installed one."""
    real = Path(os.path.realpath(path))
    if {"site-packages", "dist-packages"} & set(real.parts):
        return False
    return not any(real.is_relative_to(place) for place in _OUTSIDE) and not _is_listed(real)


def _is_listed(path: Path) -> bool:
    """Whether an installer has noted a file: `pip install --target` needs no site-packages."""
    for folder in path.parents:
        line = f"\n{path.relative_to(folder).as_posix()},"
        for record in folder.glob("*.dist-info/RECORD"):
            with suppress(OSError, UnicodeDecodeError):
                if line in f"\n{record.read_text('utf-8')}":
                    return True
    return False


@functools.cache
def git_state() -> Git | None:
    """The commit of the checkout that fmbench runs from, and whether files differ from it.

    None where fmbench is installed rather than checked out, or git is not there. Asked once per
    process: the code that runs is the code that was imported.
    """
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        # New files count too, where code and options are: they may be what the run is made of.
        changed = _git("status", "--porcelain", "--", "fmbench", "hydra_plugins", "conf")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}


def _git(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed arguments
        ["git", *arguments],  # noqa: S607 - the user's own git
        cwd=PACKAGE.parent, check=True, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    return done.stdout.strip()
