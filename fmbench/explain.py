"""From the exceptions of Hydra and OmegaConf to the one line that a person should see."""

import contextlib
import difflib
import errno
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.utils import _save_config
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fmbench.errors import ConfigError, DataError, StorageError, UserError

#: What OmegaConf says of a key below one that is null.
_BELOW_NULL = re.compile(r"Cannot set '([^']+)' because '([^']+)' is None")

#: What a disk says that takes no more: full, over the quota, a file too large, read-only.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class Refusal(BaseException):
    """Carries an exception out of a Hydra callback, whose exceptions Hydra makes warnings."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error

    def unpack(self) -> NoReturn:
        """Raise what it carries, as if nothing had carried it."""
        context = self.error.__context__
        try:
            raise self.error
        finally:
            self.error.__context__ = context


def refusal(error: BaseException) -> Refusal | None:
    """What ends a sweep where every run of it would meet this error: of the data or the storage."""
    if isinstance(error, Refusal):
        return error
    known = as_user_error(error)
    return Refusal(known) if isinstance(known, (DataError, StorageError)) else None


def as_user_error(error: BaseException) -> UserError | None:
    """The one line that a person should see for this exception; None where it is a bug."""
    if isinstance(error, Refusal):
        return as_user_error(error.error)
    if isinstance(error, UserError):
        return error
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return ConfigError(
            f"{group}={option}: no such option{_close(option, error.options)}; "
            f"there are: {', '.join(error.options)}"
        )
    for cause in _chain(error):
        if below := _BELOW_NULL.fullmatch(str(cause)):
            return ConfigError(_below_null_line(*below.groups(), override=str(error)))
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return ConfigError(_omegaconf_line(cause))
    if isinstance(error, OverrideParseException):
        # After the place of the error comes a pointer to a manual; a line has no room for it.
        text = str(error.__cause__ or error.message).partition("See https:")[0]
        return ConfigError(
            f"cannot read the override {error.override!r}{_column(error)}: {_last_line(text)}"
        )
    if isinstance(error, RecursionError) and not _raised_in_a_run(error):
        return ConfigError("the config is nested too deeply, or one of its files leads to itself")
    if isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):
        folders = str(error).rpartition(" in ")[2]
        return StorageError(f"no temporary folder can be written to, of {folders}: is there room?")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        name = error.filename or half_written(error) or "a file"
        return StorageError(f"{name}: cannot be written: {error.strerror}")
    if isinstance(error, OSError) and error.filename and not _raised_in_a_run(error):
        return StorageError(f"{error.filename}: {error.strerror}")
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return ConfigError(_words(error))
    if type(error).__module__.startswith(("sqlalchemy.", "optuna.exceptions")):
        return StorageError(f"the study of the search (sweep.storage): {_words(error)}")
    return _raised_by_hydra(error)


def half_written(error: BaseException) -> Path | None:
    """The file that Hydra was writing when it met this exception; None where it was no such one."""
    for cause in _chain(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            if frame.f_code is _save_config.__code__ and "file" in frame.f_locals:
                return Path(frame.f_locals["file"].name)
    return None


def remove_half_written(error: BaseException) -> None:
    """Remove what Hydra has begun to write and could not, and its folder if that held no more."""
    path = half_written(error)
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()


def sweep_hint(line: str, arguments: Sequence[str]) -> str:
    """What helps against a line that says `no such key`, if it is about a group that is swept.

    Hydra composes a sweep once without its swept groups, and looks for the key in their defaults.
    """
    key, _, said = line.partition(": ")
    group = key.rpartition(".")[0]
    swept = any(text.startswith(f"{group}=") and "," in text for text in arguments)
    if not (said.startswith("no such key") and group and swept):
        return ""
    return f"; where {group} is swept, its keys are written with ++, as ++{key}=VALUE"


def _raised_in_a_run(error: BaseException) -> bool:
    """Whether it comes from the net or what feeds it, rather than from making a folder."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "fmbench.runner" for frame, _ in frames)


def _raised_by_hydra(error: BaseException) -> UserError | None:
    """The line where Hydra itself refused a value, for which it has no exception of its own."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in frames:
        made = frame.f_globals.get("__name__") == "hydra.core.plugins"
        if isinstance(error, TypeError) and made and frame.f_code.co_name == "_instantiate":
            return ConfigError(f"hydra.launcher, hydra.sweeper: {_words(error)}")
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    if not isinstance(error, ValueError) or not module.startswith(("hydra.", "logging.config")):
        return None
    text = _words(error)
    if module == "logging.config":
        for cause in _chain(error):
            if isinstance(cause, OSError):  # whatever the run's folder has against a log
                return StorageError(f"{cause.filename}: cannot be written: {cause.strerror}")
        return ConfigError(f"hydra.job_logging, hydra.hydra_logging: {text}")
    if text.startswith("Exceeds the limit"):  # of the digits that Python makes a number of
        texts = [frame.f_locals["s"] for frame in frames if frame.f_code.co_name == "parse_rule"]
        return ConfigError(f"{texts[-1][:40] if texts else 'a number'}...: has too many digits")
    # Its text names no key, but where it was raised there is one at hand.
    override = getattr(frames[-1].f_locals.get("override"), "input_line", None)
    return ConfigError(f"{override}: {text}" if override and override not in text else text)


def _column(error: BaseException) -> str:
    """Where in an override the parser stopped, which is known to the one that it told."""
    for cause in _chain(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            if frame.f_code.co_name == "syntaxError":
                return f", character {frame.f_locals['column'] + 1}"
    return ""


def _words(error: BaseException) -> str:
    """A message on one line, without what OmegaConf says below it about its own types."""
    return " ".join(str(error).partition("\n    full_key:")[0].split())


def _omegaconf_line(cause: OmegaConfBaseException) -> str:
    key = str(cause.full_key)
    parent = cause.parent_node
    last = key.rpartition(".")[2]
    if key.startswith("hydra"):
        return f"{key}: {_words(cause)}"
    missing = isinstance(cause, (ConfigAttributeError, ConfigKeyError))
    if missing and isinstance(parent, DictConfig) and last not in parent:
        there = [str(name) for name in parent if name != "hydra"]
        return f"{key}: no such key{_close(last, there)}; there are: {', '.join(there)}"
    line = str(cause).splitlines()[0]
    if "is not a subclass of" in line:  # of the type that holds the numbers of a part
        value = line.partition("value: ")[2]
        return f"{key}={value}: must be null or its numbers; '{key}={{}}' takes the usual ones"
    if "is not a ListConfig" in line:
        return f"{key}: must be a list"
    if "does not support deletion" in line:
        return f"{key}: cannot be deleted; {key}=null leaves it out"
    return f"{key}: {line}"


def _below_null_line(key: str, parent: str, *, override: str) -> str:
    """What to write instead: the parent whole, as OmegaConf makes no dictionary out of null.

    Args:
        key: That was to be set.
        parent: That is null.
        override: A message that ends in the override, `key=value`.
    """
    whole = override.partition("=")[2] or "..."
    for name in reversed(key.removeprefix(f"{parent}.").split(".")):
        whole = f"{{{name}: {whole}}}"
    return f"{key}: {parent} is null, it has no keys; write '{parent}={whole}' instead"


def _close(word: str, words: Sequence[str]) -> str:
    found = difflib.get_close_matches(word, words, n=1)
    return f", did you mean {found[0]}?" if found else ""


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    """An exception and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _last_line(text: str) -> str:
    """The last line that says something: below it the parser may draw a pointer to the place."""
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalpha, line))]
    return lines[-1] if lines else text.strip()
