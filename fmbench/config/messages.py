"""From the exceptions of Hydra and OmegaConf to the one line that a person should see."""

import contextlib
import errno
import inspect
import re
import shlex
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fmbench.config import hydra_compat
from fmbench.config.checks import CONFIG_DIR, GROUPS
from fmbench.config.overrides import close, for_key
from fmbench.core.errors import ConfigError, DataError, StorageError, UserError

#: What OmegaConf says of a key below one that is null.
_BELOW_NULL = re.compile(r"Cannot set '([^']+)' because '([^']+)' is None")

#: What a disk says that takes no more: full, over the quota, a file too large, read-only.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


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
    for cause in _chain(error):
        if isinstance(cause, ConfigError):  # of a resolver
            keys = (getattr(each, "full_key", None) for each in _chain(error))
            key = next(filter(None, keys), None)
            return ConfigError(f"{key}: {cause}" if key else str(cause))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        more = "" if option.lower() in error.options else _elsewhere(group, option)
        return ConfigError(
            f"{group}={option}: no such option{_close(option, error.options)}; "
            f"there are: {', '.join(error.options)}{more}"
        )
    if said := _a_sweep_without_m(error):
        return ConfigError(said)
    for cause in _chain(error):
        if below := _BELOW_NULL.fullmatch(str(cause)):
            return ConfigError(_below_null_line(*below.groups(), override=str(error)))
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return ConfigError(_omegaconf_line(cause, override=str(error)))
    if isinstance(error, OverrideParseException):
        # After the place of the error comes a pointer to a manual; a line has no room for it.
        text = str(error.__cause__ or error.message).partition("See https:")[0]
        if said := _about_values(error.override or "", text):
            return ConfigError(f"{error.override}: {said}")
        place, line = _column(error), _last_line(text)
        key, equals, _ = (error.override or "").partition("==")
        if equals and key.isidentifier():
            line = f"write {(error.override or '').replace('==', '=', 1)}"
        elif "expecting <EOF>" in line and "'='" in line:
            line = "each KEY=VALUE is a word of its own; a value with '=' in it stands in quotes"
        elif "expecting {" in line:
            line = "a value is missing, or stands at the wrong place"
        elif "LexerNoViableAlt" in line:
            at = int(place.rpartition(" ")[2] or 0)
            in_key = at <= (error.override or "").find("=")
            line = (
                "no sign of a key, which has letters from a to z, digits, and _ - . / between them"
                if in_key
                else "a sign that must stand in quotes, or a quote is not closed"
            )
        return ConfigError(f"cannot read the override {error.override!r}{place}: {line}")
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
        return ConfigError(_hydra_line(_words(error)))
    if type(error).__module__.startswith(("sqlalchemy.", "optuna.exceptions")):
        return StorageError(f"the study of the search (sweep.storage): {_words(error)}")
    return _raised_by_hydra(error)


def half_written(error: BaseException) -> Path | None:
    """The file that Hydra was writing when it met this exception; None where it was no such one."""
    for cause in _chain(error):
        if (path := hydra_compat.file_being_written(cause)) is not None:
            return path
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
    """Whether it comes from the model or what feeds it, rather than from making a folder."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "fmbench.runs.run" for frame, _ in frames)


def _raised_by_hydra(error: BaseException) -> UserError | None:
    """The line where Hydra itself refused a value, for which it has no exception of its own."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in frames:
        made = frame.f_globals.get("__name__") == "hydra.core.plugins"
        if isinstance(error, TypeError) and made and frame.f_code.co_name == "_instantiate":
            return ConfigError(f"hydra.launcher, hydra.sweeper: {_words(error)}")
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    if isinstance(error, KeyError) and module == "os":
        return ConfigError(f"hydra.job.env_copy: there is no environment variable {error}")
    if not isinstance(error, ValueError) or not module.startswith(("hydra.", "logging.config")):
        return None
    text = _words(error)
    if module == "logging.config":
        for cause in _chain(error):
            if isinstance(cause, UserError):
                return cause
            if isinstance(cause, OSError):  # whatever the run's folder has against a log
                return StorageError(f"{cause.filename}: cannot be written: {cause.strerror}")
        return ConfigError(f"hydra.job_logging, hydra.hydra_logging: {text}")
    if text.startswith("Exceeds the limit"):  # of the digits that Python makes a number of
        texts = [frame.f_locals["s"] for frame in frames if frame.f_code.co_name == "parse_rule"]
        return ConfigError(f"{texts[-1][:40] if texts else 'a number'}...: has too many digits")
    if "Config group override must be a string" in text:
        text = "must be the name of an option"
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


def _omegaconf_line(cause: OmegaConfBaseException, *, override: str) -> str:
    """What is wrong with a key.

    Args:
        cause: what OmegaConf says.
        override: a message that may hold the override, `key=value`.
    """
    key = str(cause.full_key)
    parent = cause.parent_node
    last = key.rpartition(".")[2]
    missing = isinstance(cause, (ConfigAttributeError, ConfigKeyError))
    if missing and isinstance(parent, DictConfig) and last not in parent:
        there = [str(name) for name in parent if name != "hydra"]
        found = re.search(rf"\+({re.escape(key)}[^=\s]*)=(.*)", override)
        typed = found[1] if found else key
        root = OmegaConf.to_container(hydra_compat.root(parent), resolve=False)
        assert isinstance(root, dict)
        close = for_key(typed, found[2] if found else None, {str(k): v for k, v in root.items()})
        return f"{key}: no such key{close}; there are: {', '.join(there)}"
    if key.startswith("hydra"):
        return f"{key}: {_words(cause)}"
    line = str(cause).splitlines()[0]
    if "is not a subclass of" in line:  # of the type that holds the numbers of a part
        value = line.partition("value: ")[2]
        return f"{key}={value}: must be null or its numbers; '{key}={{}}' takes the usual ones"
    if "is not Optional" in line:
        return f"{key}=null: must have a value"
    if ends := re.match(r"Value '(\d+)(?:\.\.\.?|-|:)(\d+)'.*Integer", line):
        return f"{key}: {line}; a range is '{key}=range({ends[1]},{int(ends[2]) + 1})'"
    if values := re.match(r"Value '\[([^\]]*)\]' of type 'list'", line):
        text = values[1].replace(" ", "")
        return f"{key}: {line}; values of a sweep have no brackets: -m {key}={text}"
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


def _hydra_line(said: str) -> str:
    if twice := re.match(r"Multiple values for (\S+)\..*: '(.*?)' from 'command line'", said):
        return f"+{twice[1]}={twice[2]}: has an option already; write {twice[1]}={twice[2]}"
    if lost := re.match(r"In '.*': Could not load '([\w./]*\w)/([\w.-]+)'", said):
        return f"{lost[1]}={lost[2]}: no such option"
    return said


def _close(word: str, words: Sequence[str]) -> str:
    found = close(word, words)
    return f", did you mean {found[0]}?" if found else ""


def _elsewhere(group: str, option: str) -> str:
    """What can be done about an option that fmbench does not have, but PyTorch does, or a user."""
    name = option.rpartition(".")[2].lower().replace("-", "_")
    try:
        if group == "optimizer":
            return _of_torch(name)
        if group == "model":
            import torchvision

            if name in torchvision.models.list_models(torchvision.models):
                return f"; torchvision's is model=torchvision model.name={name}"
    except ImportError:
        pass
    if group not in (*GROUPS, "experiment", "sweep") or group.startswith("data"):
        return ""
    return f"; one of your own is DIR/{group}/{option or 'NAME'}.yaml, with --config-dir DIR"


def _of_torch(name: str) -> str:
    """The overrides that take an optimizer of PyTorch's, such as `radam`.

    It takes the place of the option that it shares most arguments with; what it does not take is
    left out.
    """
    import torch

    names = {there.lower(): there for there in vars(torch.optim) if there != "Optimizer"}
    if name not in names or not isinstance(vars(torch.optim)[names[name]], type):
        return ""
    taken = inspect.signature(vars(torch.optim)[names[name]]).parameters
    ways = []
    for file in (CONFIG_DIR / "optimizer").glob("*.yaml"):
        keys = [str(key) for key in OmegaConf.load(file) if key != "_target_"]
        gone = [f"~optimizer.{key}" for key in keys if key not in taken]
        ways.append((len(gone), -len(keys), file.stem, gone))
    _, _, option, gone = min(ways)
    words = [f"optimizer={option}", f"optimizer._target_=torch.optim.{names[name]}", *gone]
    return f"; PyTorch's is {' '.join(words)}"


def _about_values(override: str, said: str) -> str | None:
    """What to write instead of values that the grammar does not take.

    Args:
        override: as it was typed.
        said: by the parser.
    """
    null = re.fullmatch(r"(.*?=)choice\((.*)\)", override)
    if null and "NoneType" in said:
        return f"null cannot stand in choice(); write {null[1]}{null[2].replace(' ', '')}"
    if "Available:" in said and (call := re.fullmatch(r"([^=]*)=\w+\((.*)\)", override)):
        return (
            "no such function; values to search are 'KEY=choice(A,B)', 'KEY=range(A,B)', "
            "'KEY=interval(A,B)', or 'KEY=tag(log,interval(A,B))'".replace("KEY", call[1])
        )
    return None


def _a_sweep_without_m(error: BaseException) -> str | None:
    """What to say where several values are given to one run."""
    found = re.search(
        r"Ambiguous value for argument '(.*)'|Sweep parameters '(.*)' requires", str(error)
    )
    if not isinstance(error, HydraException) or found is None:
        return None
    text = found[1] or found[2]
    line = f"{text}: several values make a sweep, with -m: python -m fmbench -m {shlex.quote(text)}"
    key, _, values = text.partition("=")
    return f"{line}; a list is {shlex.quote(f'{key}=[{values}]')}" if found[1] else line


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
