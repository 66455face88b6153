"""An exception as the one line that a person should see."""

import contextlib
import errno
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fmbench.config import hydra_compat
from fmbench.config.overrides import close, for_key
from fmbench.core.errors import ConfigError, DataError, StorageError, UserError, one_line

#: The note on what a run raises: a file that its model misses is none of fmbench's.
RAISED_IN_A_RUN = "raised in a run"

#: Errors of a disk that cannot be written: full, over quota, file too large, read-only.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

#: Parts of what Hydra's parser says of an override, and what is wrong.
_PARSER_SAYS = {
    "expecting <EOF>": "each KEY=VALUE is a word of its own; a value with '=' in it stands in "
    "quotes",
    "expecting {": "a value is missing, or stands at the wrong place",
    "LexerNoViableAlt": "a sign that must stand in quotes, or a quote is not closed",
}

#: Parts of what OmegaConf says of a value, and what is wrong with the key.
_OMEGACONF_SAYS = {
    "is not a subclass of": "{key}={value}: must be null or its numbers; '{key}={{}}' takes the "
    "usual ones",
    "is not Optional": "{key}=null: must have a value",
    "is not a ListConfig": "{key}: must be a list",
    "does not support deletion": "{key}: cannot be deleted; {key}=null leaves it out",
    "of type 'list' could not": "{key}: {said}; values of a sweep have no brackets: -m {key}=A,B",
}

#: Options that fmbench lacks and a library has.
_ELSEWHERE = {
    "optimizer": "; any of PyTorch's is optimizer._target_=torch.optim.NAME, with its arguments",
    "model": "; torchvision's are model=torchvision model.name=NAME",
}


class Refusal(BaseException):
    """Carries an exception out of a Hydra callback, whose exceptions Hydra makes warnings."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def raised_by(call: Callable[[], object]) -> BaseException | None:
    """What a call raises, taken out of its `Refusal`; None where it ends well."""
    try:
        call()
    except Refusal as refusal:
        return refusal.error
    except BaseException as error:  # noqa: BLE001 - the caller raises it, or says it in a line
        return error
    return None


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
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _of_composition(error)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, RecursionError) and not _raised_in_a_run(error):
        return ConfigError("the config is nested too deeply, or one of its files leads to itself")
    if type(error).__module__.startswith(("sqlalchemy.", "optuna.exceptions")):
        return StorageError(f"the study of the search (sweep.storage): {_words(error)}")
    return _of_hydra(error)


def _raised_in_a_run(error: BaseException) -> bool:
    """Whether the model or its data raised it, rather than creating a folder."""
    return RAISED_IN_A_RUN in getattr(error, "__notes__", ())


def _of_system(error: OSError) -> UserError | None:
    """A file that cannot be written, or opened."""
    if error.errno in _NO_ROOM:
        name = error.filename or half_written(error) or "a file"
        return StorageError(f"{name}: cannot be written: {error.strerror}")
    if error.filename and not _raised_in_a_run(error):
        return StorageError(f"{error.filename}: {error.strerror}")
    if "usable temporary directory" in str(error):
        return StorageError(f"{error}: is there room?")
    return None


def _of_composition(error: BaseException) -> UserError:
    """What Hydra or OmegaConf has against the config."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, UserError):  # of a resolver or of what reads a file
            key = next(filter(None, (getattr(each, "full_key", None) for each in chain)), None)
            return type(cause)(f"{key}: {cause}" if key else str(cause))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        return ConfigError(_no_such_option(error.missing_cfg_file, error.options))
    for cause in chain:
        if null := re.fullmatch(r"Cannot set '([^']+)' because '([^']+)' is None", str(cause)):
            return ConfigError(_below_null(*null.groups(), override=str(error)))
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return ConfigError(_of_key(cause, override=str(error)))
    if isinstance(error, OverrideParseException):
        return ConfigError(_of_parser(error))
    said = _words(error)
    if twice := re.match(r"Multiple values for (\S+)\..*: '(.*?)' from 'command line'", said):
        said = f"+{twice[1]}={twice[2]}: has an option already; write {twice[1]}={twice[2]}"
    elif lost := re.match(r"In '.*': Could not load '([\w./]*\w)/([\w.-]+)'", said):
        said = f"{lost[1]}={lost[2]}: no such option"
    return ConfigError(said)


def _no_such_option(path: str, options: Sequence[str]) -> str:
    group, _, option = path.rpartition("/")
    near = close(option, options)
    meant = f", did you mean {near[0]}?" if near else ""
    own = f"; one of your own is DIR/{group}/NAME.yaml, with --config-dir DIR"
    more = _ELSEWHERE.get(group, "") + ("" if group.startswith(("hydra", "data")) else own)
    return f"{group}={option}: no such option{meant}; there are: {', '.join(options)}{more}"


def _below_null(key: str, parent: str, *, override: str) -> str:
    """What to write instead: the parent whole, as OmegaConf makes no dictionary out of null.

    Args:
        key: that was to be set.
        parent: that is null.
        override: a message that ends in the override, `key=value`.
    """
    whole = override.partition("=")[2] or "..."
    for name in reversed(key.removeprefix(f"{parent}.").split(".")):
        whole = f"{{{name}: {whole}}}"
    return f"{key}: {parent} is null, it has no keys; write '{parent}={whole}' instead"


def _of_key(cause: OmegaConfBaseException, *, override: str) -> str:
    """What is wrong with a key.

    Args:
        cause: what OmegaConf says.
        override: a message that may hold the override, `key=value`.
    """
    key, parent = str(cause.full_key), cause.parent_node
    missing = isinstance(cause, (ConfigAttributeError, ConfigKeyError))
    if missing and isinstance(parent, DictConfig) and key.rpartition(".")[2] not in parent:
        there = ", ".join(str(name) for name in parent if name != "hydra")
        found = re.search(rf"\+({re.escape(key)}[^=\s]*)=(.*)", override)
        typed, value = (found[1], found[2]) if found else (key, None)
        root = OmegaConf.to_container(hydra_compat.root(parent), resolve=False)
        assert isinstance(root, dict)
        near = for_key(typed, value, {str(name): node for name, node in root.items()})
        return f"{key}: no such key{near}; there are: {there}"
    if key.startswith("hydra"):
        return f"{key}: {_words(cause)}"
    said = str(cause).splitlines()[0]
    for part, line in _OMEGACONF_SAYS.items():
        if part in said:
            return line.format(key=key, value=said.partition("value: ")[2], said=said)
    return f"{key}: {said}"


def _of_parser(error: OverrideParseException) -> str:
    """Where and why an override cannot be read."""
    said = str(error.__cause__ or error.message).partition("See https:")[0]  # a manual's address
    where = ""
    for cause in _chain(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            if frame.f_code.co_name == "syntaxError":  # no exception holds the place
                where = f", character {frame.f_locals['column'] + 1}"
    # Below the last line with a word in it the parser may draw a pointer to the place.
    lines = [line for line in said.splitlines() if any(map(str.isalpha, line))] or [said]
    line = next((text for part, text in _PARSER_SAYS.items() if part in lines[-1]), lines[-1])
    if "Available:" in said:  # functions
        line = _words(error.__cause__ or error)
    return f"cannot read the override {error.override!r}{where}: {line.strip()}"


def _of_hydra(error: BaseException) -> UserError | None:
    """A value that Hydra, or what it configures, refuses without an exception of its own."""
    cause = error.__cause__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    if isinstance(error, ValueError) and module == "logging.config":
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, OSError):  # whatever the run's folder has against a log
            return StorageError(f"{cause.filename}: cannot be written: {cause.strerror}")
        return ConfigError(f"hydra.job_logging, hydra.hydra_logging: {_words(error)}")
    if isinstance(error, KeyError) and module == "os":
        return ConfigError(f"hydra.job.env_copy: there is no environment variable {error}")
    if isinstance(error, TypeError) and module.startswith("hydra."):
        return ConfigError(f"hydra.launcher, hydra.sweeper: {_words(error)}")
    if isinstance(error, ValueError) and module.startswith("hydra."):
        return ConfigError(_words(error))
    return None


def half_written(error: BaseException) -> Path | None:
    """The file that Hydra was writing when it met this exception; None where it was no such one."""
    return next(filter(None, map(hydra_compat.file_being_written, _chain(error))), None)


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


def _words(error: BaseException) -> str:
    """A message on one line, without what OmegaConf says below it about its own types."""
    return one_line(str(error).partition("\n    full_key:")[0])


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
