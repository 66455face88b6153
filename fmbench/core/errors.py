"""The errors people see: one line, no traceback, an exit status that scripts can tell apart.

And `one_line`, by which every text of a config, a record, a file's name or an exception passes on
its way to a terminal, a log or a page.
"""

import re
import shlex
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path

#: The password of a URL: behind the user's name, or in a parameter of a driver. What a name may be
#: long is bounded, as texts of any length come here.
_PASSWORD = re.compile(
    r"(://[^\s:@/?#]{0,200}:)[^\s@]{1,200}(?=@)"
    r"|((?:[?&;]|%3B)(?:[\w-]{0,30}(?:secret|token|api_?key)|(?:ssl)?pass(?:word|wd|phrase)?|pwd)"
    r"(?:=|%3D))[^\s&;'\"]{1,200}",
    re.IGNORECASE,
)

#: White space that is more than spaces.
_WHITE = re.compile(r" *[^\S ]\s*")

#: What Python calls printable and nobody sees: letters and marks without a shape.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

#: What the extras of `pyproject.toml` bring, by their names. Messages name the packages themselves:
#: on PyPI the name `fmbench` belongs to another project.
PACKAGES = {
    "slurm": ("submitit>=1.5",),
    "ray": ("ray>=2.60",),
    "postgresql": ("psycopg[binary]>=3.2",),
    "parquet": ("pyarrow>=17",),
    "tensorboard": ("tensorboard>=2.20",),
    "timm": ("timm>=1",),
    "schedulefree": ("schedulefree>=1.4,<2",),
    "optimizers": ("pytorch-optimizer>=4,<5",),
    "mlflow": ("mlflow-skinny>=3.7,<4", "alembic>=1.13", "sqlalchemy>=2.0"),
}


def installs(extra: str) -> str:
    """The command that installs what an extra brings."""
    return shlex.join(["pip", "install", *PACKAGES.get(extra, (extra,))])


def one_line(value: str, limit: int | None = None) -> str:
    """The value on one line of at most so many characters, none of which act."""
    if "://" in value:
        value = without_password(value)
    if limit is not None and len(value) > limit:
        value = f"{value[:limit]}..."
    if value.isprintable() and (value.isascii() or not _BLANK.search(value)):
        return value
    return visible(_WHITE.sub(" ", value).strip())


def visible(value: str) -> str:
    """The value, spelled out what acts on its surroundings, and without passwords of URLs.

    That is what Python does not call printable: controls, as the escape of a terminal's colours,
    marks that turn the direction of writing, line separators; and what has no shape.
    """
    value = without_password(value)
    if not value.isprintable():
        value = "".join(c if c.isprintable() else _escaped(c) for c in value)
    return value if value.isascii() else _BLANK.sub(lambda found: _escaped(found[0]), value)


def without_password(value: str) -> str:
    """The value, the passwords of the URLs in it as `***`."""
    if "://" not in value:
        return value
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", value)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


#: Packages of code that is nobody's own.
_NOT_OWN = {"fmbench", "hydra", "hydra_plugins", "omegaconf", "torch"} | sys.stdlib_module_names

#: Messages of PyTorch's CPU allocator and the libraries, which have no exceptions of their own.
_SAID = (
    *("can't allocate memory", "not enough memory", "CUDA error: out of memory"),
    *("could not create a primitive", "could not create a memory object"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)


class UserError(Exception):
    """Something the user can mend; its text says what is wrong, where, and what is allowed."""

    exit_status = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


def described(error: BaseException, limit: int | None = None) -> str:
    """An exception in one line, with its type in front unless it is a `UserError`."""
    kind, text = type(error).__name__, one_line(str(error), limit)
    if isinstance(error, UserError):
        return text
    return f"{kind}: {text}" if text else kind


def place(error: BaseException) -> str:
    """` (loss.py, line 12)`: the last place in a user's own code that an exception came through.

    That is none in Python's library, PyTorch, Hydra or fmbench, nor in another package that is
    installed, if there is one beside. Empty where there is none, and where the exception is of a
    file that Python cannot read: its own text has the place.
    """
    if isinstance(error, SyntaxError):
        return ""
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NOT_OWN
    ]
    own = [one for one in places if "site-packages" not in one[0]] or places
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means too little memory."""
    if isinstance(error, RuntimeError):  # by name: this module loads no torch
        kind, text = type(error).__name__, str(error)
        return kind == "OutOfMemoryError" or any(said in text for said in _SAID)
    return isinstance(error, MemoryError)


class ConfigError(UserError):
    """The composed config asks for something that does not exist or cannot be."""

    exit_status = 2


class FailedError(ConfigError):
    """Code of the user's own fails for a reason that may be the device it is tried on."""


class DataError(UserError):
    """A data file is missing, damaged, or not what it claims to be."""

    exit_status = 3


class PartialResultsError(UserError):
    """Some runs of a sweep did not complete, or some records of a folder could not be read."""

    exit_status = 4


class RunDiedError(PartialResultsError):
    """A run ended without a result: killed, out of memory or time, cancelled, its machine lost."""


class StorageError(UserError):
    """A run folder or a report could not be written."""

    exit_status = 5


def require_package(option: str, module: str, extra: str) -> None:
    """Refuse an option whose package, that an extra brings, is not installed.

    Raises:
        ConfigError: it is not; the line says how to install it.
    """
    found = find_spec(module)
    if found is None or found.origin is None:  # None: a folder that has the package's name
        name = module.replace("_", "-")
        raise ConfigError(f"{option}: {name} is not installed; {installs(extra)} brings it")
