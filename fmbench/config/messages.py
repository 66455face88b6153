"""An exception as the one line that a person should see."""

import contextlib
import difflib
import errno
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fmbench.config import hydra_compat
from fmbench.config.overrides import meant
from fmbench.config.schema import KEYS
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
    "is not a subclass of": "{key}: must be null or its numbers; '{key}={{}}' takes the usual ones",
    "is not Optional": "{key}=null: must have a value",
    "is not a ListConfig": "{key}: must be a list",
    "does not support deletion": "{key}: cannot be deleted; {key}=null leaves it out",
    "of type 'float' could not be converted to Integer": "{key}: {said}; of a search these are "
    "{key}=int(interval(A,B))",
    "of type 'list' could not": "{key}: {said}; values of a sweep have no brackets: -m {key}=A,B",
}

#: Modules that raise what is wrong with a config, and have no exception of their own for it.
_OF_HYDRA = ("hydra.", "logging.config")

#: Options that fmbench lacks and a library has.
_ELSEWHERE = {
    "optimizer": "; any of PyTorch's is optimizer=torch optimizer.name=NAME",
    "model": "; torchvision's are model=torchvision model.name=NAME, timm's model=timm",
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
    in_a_run = RAISED_IN_A_RUN in getattr(error, "__notes__", ())
    if isinstance(error, OSError):
        return _of_system(error, in_a_run=in_a_run)
    if isinstance(error, RecursionError) and not in_a_run:
        return ConfigError("the config is nested too deeply, or one of its files leads to itself")
    if type(error).__module__.startswith(("sqlalchemy.", "optuna.exceptions")):
        return StorageError(f"the study of the search (sweep.storage): {_words(error)}")
    return _of_hydra(error)


def _of_system(error: OSError, *, in_a_run: bool) -> UserError | None:
    """A file that cannot be written, or opened."""
    if error.errno in _NO_ROOM:
        name = error.filename or half_written(error) or "a file"
        return StorageError(f"{name}: cannot be written: {error.strerror}")
    if error.filename and not in_a_run:
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
            key, parent = null.groups()
            rest = key.removeprefix(f"{parent}.")
            return ConfigError(f"{key}: {parent} is null; write '{parent}={{{rest}: VALUE}}'")
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return ConfigError(_of_key(cause, override=str(error)))
    if isinstance(error, OverrideParseException):
        return ConfigError(_of_parser(error))
    said = _words(error)
    if group := re.match(r"Could not override '([^'@]+)'\. No match .* use \+\S+?=(.*)", said):
        return ConfigError(_no_such_group(*group.groups()))
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)' ", said):
        return ConfigError(f"{several[1]}: several values are a sweep; add -m")
    if twice := re.match(r"Multiple values for (\S+)\..*: '(.*?)' from 'command line'", said):
        said = f"+{twice[1]}={twice[2]}: has an option already; write {twice[1]}={twice[2]}"
    elif lost := re.match(r"In '.*': Could not load '([\w./]*\w)/([\w.-]+)'", said):
        said = f"{lost[1]}={lost[2]}: no such option"
    return ConfigError(said)


def _no_such_option(path: str, options: Sequence[str]) -> str:
    group, _, option = path.rpartition("/")
    near = [name for name in options if len(option) > 2 and option.lower() in name]
    near += difflib.get_close_matches(option.lower(), options, n=1)
    did_you_mean = f", did you mean {near[0]}?" if near else ""
    own = f"; one of your own is DIR/{group}/NAME.yaml, with --config-dir DIR"
    more = _ELSEWHERE.get(group, "") + ("" if group.startswith(("hydra", "data")) else own)
    there = f"there are: {', '.join(options)}"
    return f"{group}={option}: no such option{did_you_mean}; {there}{more}"


def _no_such_group(group: str, option: str) -> str:
    near = meant(group)
    did_you_mean = f", did you mean {near}={option}?" if near else ""
    return f"{group}={option}: no such group of options{did_you_mean}; --help lists them"


def _of_key(cause: OmegaConfBaseException, *, override: str) -> str:
    """What is wrong with a key; `override` is a message that may hold the override."""
    key, parent = str(cause.full_key), cause.parent_node
    missing = isinstance(cause, (ConfigAttributeError, ConfigKeyError))
    if missing and isinstance(parent, DictConfig) and key.rpartition(".")[2] not in parent:
        there = ", ".join(str(name) for name in parent if name != "hydra")
        if key == "augmentation._target_":
            return f"{key}: no such key; a transform of your own is own: {{_target_: ...}}"
        found = re.search(rf"\+({re.escape(key)}[^=\s]*)(=.*)", override)
        typed, value = found.groups() if found else (key, "")
        near = meant(typed, [*KEYS, *_keys_of_groups(hydra_compat.root(parent))])
        did_you_mean = f", did you mean {near}{value}?" if near else ""
        built = str(OmegaConf.select(parent, "_target_", default=""))
        free = built and (not built.startswith(("fmbench.", "torch.")) or ".by_name." in built)
        adds = f"; +{typed}{value} adds it" if free and not near else ""
        return f"{key}: no such key{did_you_mean}; there are: {there}{adds}"
    if key.startswith("hydra"):
        return f"{key}: {_words(cause)}"
    said = str(cause).splitlines()[0]
    for part, line in _OMEGACONF_SAYS.items():
        if part in said:
            return line.format(key=key, said=said)
    return f"{key}: {said}"


def _keys_of_groups(config: DictConfig) -> Iterator[str]:
    """`optimizer.momentum` and all the keys of the options that were chosen."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for group, keys in plain.items():
        if group != "hydra" and isinstance(keys, Mapping):
            yield from (f"{group!s}.{key!s}" for key in keys)


def _of_parser(error: OverrideParseException) -> str:
    """Why an override cannot be read."""
    said = str(error.__cause__ or error.message).partition("See https:")[0]  # a manual's address
    # Below the last line with a word in it the parser may draw a pointer to the place.
    last = [line for line in said.splitlines() if any(map(str.isalpha, line))][-1:] or [said]
    why = next((text for part, text in _PARSER_SAYS.items() if part in said), last[0].strip())
    return f"cannot read the override {error.override!r}: {why}"


def _of_hydra(error: BaseException) -> UserError | None:
    """A value that Hydra, or what it configures, refuses without an exception of its own."""
    cause = error.__cause__
    modules = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = modules[-1] if modules else ""
    if isinstance(error, KeyError) and module == "os":
        return ConfigError(f"hydra.job.env_copy: there is no environment variable {error}")
    if not (isinstance(error, (TypeError, ValueError)) and module.startswith(_OF_HYDRA)):
        return None
    if isinstance(cause, (UserError, OSError)):  # whatever the run's folder has against a log
        return as_user_error(cause)
    return ConfigError(f"hydra (launcher, sweeper, logging): {_words(error)}")


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
    """What helps where the line misses a key of a group that is swept: Hydra has not chosen yet."""
    missing = re.match(r"(([\w.]+)\.\w+): no such key", line)
    if missing and any(re.match(rf"{missing[2]}=.*,", text) for text in arguments):
        return f"; where {missing[2]} is swept, write ++{missing[1]}=VALUE"
    return ""


def _words(error: BaseException) -> str:
    """A message on one line, without what OmegaConf says below it about its own types."""
    return one_line(str(error).partition("\n    full_key:")[0])


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
