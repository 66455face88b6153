"""What a person types: mended where only one thing can be meant, and what to type where it cannot.

Hydra's grammar takes no `~`, no letters with accents and few signs outside quotes, and reads `1e3`
as a number where it is the name of an option.
"""

import difflib
import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fmbench.config import schema
from fmbench.config.checks import GROUPS
from fmbench.config.sources import CONFIG_DIR
from fmbench.core.errors import ConfigError, without_password

#: Groups that are not GROUPS, as they decide nothing themselves.
_OTHER_GROUPS = ("experiment", "sweep", "logger")

#: Groups of Hydra that nobody chooses from.
_INTERNAL = (
    *("hydra", "hydra/output", "hydra/help", "hydra/callbacks"),
    *("hydra/job_logging", "hydra/hydra_logging"),
)

#: Keys that name a folder or a file.
_PLACES = (
    *("data.root", "hydra.run.dir", "hydra.sweep.dir", "hydra.searchpath", "sweep.storage"),
    "hydra.launcher.submitit_folder",
)

#: What Hydra's grammar takes outside quotes, as one text.
_BARE = re.compile(r"[\w/\-+.%*@?|: ]*", re.ASCII)

#: What a text may hold that is certain to be no list, call, interpolation or text in quotes.
_SIMPLE = re.compile(r"[^'\"\[\]{}()\\$,=\x00-\x1f]*")

#: What Hydra reads as a number or a truth value.
_NO_NAME = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)|true|false", re.I)

#: The home folder where a path begins.
_HOME = re.compile(r"(?<![^=,\[])\s*~\w*(?=[/,\]]|$)|(?<=///)~(?=/)")

#: A number that Python would not read (`sys.get_int_max_str_digits`).
_TOO_LONG = re.compile(r"\d{4300}")

#: Keys that people set: of Hydra's, few.
_CHOSEN = re.compile(r"(?!hydra)|hydra\.(launcher|sweeper|run|sweep|verbose|searchpath)\b")

#: The kinds of values in an option, in words.
_KINDS = {list: "a list", bool: "true or false", int: "a number", float: "a number"}

#: Names that other programs have for a key or a group.
_SYNONYMS = {
    word: key
    for key, words in {
        "optimizer.lr": "learning_rate",
        "optimizer.weight_decay": "wd",
        "batch_size": "bs batch",
        "optimizer": "opt",
        "scheduler": "sched lr_scheduler",
        "model": "net network arch architecture",
        "data": "dataset",
        "data.root": "data_dir data_root",
        "device": "gpu gpus cuda cpu",
        "precision": "amp fp16 dtype",
        "keep_model": "save save_model",
        "hydra.run.dir": "output output_dir out save_dir log_dir logdir resume",
        "logger": "tracker",
        "hydra/launcher": "launcher",
        "hydra/sweeper": "sweeper",
        "hydra/sweeper/sampler": "sampler",
        "sweep.jobs": "hydra.sweeper.n_jobs",
        "sweep.trials": "n_trials max_trials",
        "sweep.objective": "direction directions",
        "sweep.study": "study_name",
        "hydra.sweeper.params": "search_space",
    }.items()
    for word in words.split()
}


def quoted(text: str) -> str:
    """A text as Hydra's override grammar and OmegaConf's interpolations take it for itself."""
    # What stands bare might be a number or null, unless there is a slash in it.
    if re.fullmatch(r"[\w.\-]*/[\w./\-]*", text, re.ASCII):
        return text
    # OmegaConf: a backslash makes `${` a text, and those in front of it are doubled.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Hydra: the same of a quote, and of the one at the end.
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", text)) + "'"


def mended(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra takes them: `~` followed, in quotes where that is all that they need.

    Raises:
        ConfigError: one has no value, or there are spaces around its `=`; or there is no such user.
    """
    for place, text in enumerate(overrides):
        rest = list(itertools.takewhile(_is_bare, overrides[place + 1 :]))
        if rest and any(text.count(a) > text.count(b) for a, b in ("{}", "[]", "()")):
            raise ConfigError(_spaces(text, rest[0], " ".join([text, *rest])))
        if rest and re.fullmatch(r"[\w./@+~-]+=(.*,)?", text):
            raise ConfigError(_spaces(text, rest[0], "".join([text, *rest])))
        if text and "=" not in text and not text.startswith("~"):
            raise ConfigError(_without_value(text, overrides[place + 1 :]))
    today = [other for text in overrides for other in _of_models(text)]
    return [_mended(text) for text in today]


def _of_models(text: str) -> list[str]:
    """The override of today for one of a key that models had once."""
    key = text.lstrip("+~").partition("=")[0]
    return schema.renamed_override(text) if key in schema.OF_MODELS else [text]


def _mended(text: str) -> str:
    key, equals, value = text.partition("=")
    key, name = key.rstrip(), key.strip().lstrip("+~")
    if not equals:
        return text
    if _TOO_LONG.search(value):
        raise ConfigError(f"{text[:40]}...: has too many digits")
    if value.strip() == "null" and name in (*GROUPS, "logger"):
        raise ConfigError(f"{text}: must be the name of an option")

    def at_home(part: str) -> str:
        return _HOME.sub(lambda found: _home(text, found[0].strip()), part)

    if name in _PLACES and (within := re.fullmatch(r"(['\"])([^'\"\\$]*)\1", value.strip())):
        return f"{key}={quoted(at_home(within[2]))}"
    if not _SIMPLE.fullmatch(value.replace(",", "")):
        return f"{key}={at_home(value)}"  # a list, say
    is_group = name in (*GROUPS, *_OTHER_GROUPS) or "/" in name
    parts = [_quoted_if_need_be(at_home(part), is_group) for part in value.split(",")]
    return f"{key}={','.join(parts)}"


def _quoted_if_need_be(text: str, is_name: bool) -> str:
    inner = text.strip()
    if is_name and (found := re.fullmatch(r"(?:\./)?([^/]+?)(?:\.yaml)?", inner)):
        text = inner = found[1]  # a file typed for the name of its option
    if not _BARE.fullmatch(inner) or (is_name and _NO_NAME.fullmatch(inner)):
        return quoted(inner)
    return text


def _home(override: str, name: str) -> str:
    try:
        return str(Path(name).expanduser())
    except RuntimeError:
        raise ConfigError(
            f"{override}: there is no user {name[1:]}; a folder called {name} is ./{name}"
        ) from None


def refuse_passwords(words: Iterable[str]) -> None:
    """Refuse words that hold a password, before any of them is quoted.

    Args:
        words: as they were typed.

    Raises:
        ConfigError: the first that does.
    """
    for word in words:
        key, equals, _ = word.partition("=")
        refuse_password(key if equals and "://" not in key else "a word", word)


def refuse_password(key: str, value: str) -> None:
    """Refuse a value that holds the password of a URL.

    Raises:
        ConfigError: it does.
    """
    if without_password(value) != value:
        raise ConfigError(
            f"{key}: holds a password, which would stand in files and in the list of processes; "
            "PostgreSQL's client reads it from ~/.pgpass or PGPASSWORD, others from a file of "
            "their own"
        )


# What to type instead


def _without_value(text: str, rest: Sequence[str]) -> str:
    """What to type instead of a word that is no KEY=VALUE."""
    follows = next(iter(rest), "")
    if follows.startswith("="):
        value = follows[1:] or next((word for word in rest[1:2] if _is_bare(word)), "")
        return _spaces(text, follows, f"{text}={value}")
    name, _, value = text.partition(":")
    value = value or (follows if _is_bare(follows) else "VALUE")
    if places := meant(name):
        return f"{text.rstrip(':')}: has no value; write {shlex.quote(f'{places[0]}={value}')}"
    for group in sorted(_options(), key=lambda group: group not in GROUPS):
        if text in _options()[group]:
            return f"{text}: is no KEY=VALUE; did you mean {group}={text}?"
    return (
        f"{text}: is no KEY=VALUE, as epochs=3 is, or seed=0,1,2 with -m; a subcommand (report, "
        "compare, preview, predict) comes first; --help lists the keys"
    )


def _spaces(text: str, follows: str, whole: str) -> str:
    return f"{text} {follows}: no spaces may stand here; write {shlex.quote(whole)}"


def _is_bare(text: str) -> bool:
    return bool(text) and "=" not in text and not text.startswith("~")


def for_flags(arguments: Sequence[str], flags: Iterable[str]) -> str | None:
    """What to type instead of the first flag that there is not, if it is called like a key.

    Args:
        arguments: of the command line.
        flags: that there are.
    """
    known = sorted(flags)
    for place, text in enumerate(arguments):
        flag, _, value = text.partition("=")
        key = flag.lstrip("-").replace("-", "_")
        if not flag.startswith("-") or flag in known or len(key) < 2:
            continue
        follows = next(iter(arguments[place + 1 :]), "")
        value = value or (follows if _is_bare(follows) and follows[0] != "-" else "VALUE")
        places = meant(key)
        if near := _typed(places, value) if places else next(iter(close(flag, known)), None):
            return f"{text}: is no flag; did you mean {near}?"
    return None


def for_key(key: str, value: str | None, there: Mapping[str, Any]) -> str:
    """What to say of a key that there is not; nothing where nothing is like it.

    Args:
        key: as it was typed.
        value: that it was given.
        there: the config, where it is not.
    """
    paths = [path for path in _paths(there) if key.startswith("hydra") or _CHOSEN.match(path)]
    places = meant(key, paths)
    if not places:
        return ""
    # The options that have the key, where none of them is chosen.
    options = [] if places[0] in paths else _keys().get(places[0], [])
    said = f" {' or '.join(options[:3])} {'has' if len(options) == 1 else 'have'} it"
    if options and places == [key]:
        return f", but{said}"
    return f", did you mean {_typed(places, value)}?{said if options else ''}"


def misfit(group: str, given: Mapping[str, Any]) -> str | None:
    """The first value of a group that is of another kind than in its option; None if none is.

    Args:
        group: `model`, `optimizer` or `scheduler`.
        given: its part of the config.
    """
    for option in _options()[group]:
        usual = _content(group, option)
        if usual["_target_"] != given.get("_target_"):
            continue
        for key, value in usual.items():
            kind = _KINDS.get(type(value))
            if kind and key in given and _KINDS.get(type(given[key])) != kind:
                return f"{group}.{key}={given[key]}: must be {kind}, as {json.dumps(value)}"
    return None


def _typed(places: Sequence[str], value: str | None) -> str:
    texts = [place if value is None else f"{place}={value}" for place in places[:3]]
    return " or ".join(text if _BARE.fullmatch(text.replace("=", "")) else shlex.quote(text)
                       for text in texts)  # fmt: skip


def meant(key: str, there: Sequence[str] = ()) -> list[str]:
    """The keys and groups that a key may be meant for, the likeliest first.

    Args:
        key: as it was typed, perhaps without its group.
        there: those of the config, which come first.
    """
    # A group and its part of the config have one name, but Hydra's own: hydra/launcher.
    groups = {group.replace("/", "."): group for group in _options() if group not in _INTERNAL}
    every = {path: path for path in [*there, *_keys()]} | groups
    key = key.replace("/", ".")
    parent, _, last = key.rpartition(".")
    if key not in every and parent in groups and last in ("name", "type"):
        return [groups[parent]]
    for name in (key, last):
        if name in every:
            return [every[name]]
        if name in _SYNONYMS:
            return [_SYNONYMS[name]]
        ends = [path for path in every if path.endswith(f".{name}")]
        if found := [path for path in ends if path in there] or ends:
            return [every[path] for path in found]
    beside = {path.rpartition(".")[2]: path for path in there if path.rpartition(".")[0] == parent}
    names = {path.rpartition(".")[2]: path for path in reversed(every)}
    near = [*(beside[name] for name in close(last, beside)),
            *(names[name] for name in difflib.get_close_matches(last, names, 1, 0.75))]  # fmt: skip
    return [every[path] for path in near[:1]]


def close(word: str, words: Iterable[str]) -> list[str]:
    """The words that one may be meant for, the likeliest first."""
    every = list(words)
    found = [name for name in every if len(word) > 2 and word.lower() in name]
    return found + difflib.get_close_matches(word.lower(), every, n=1)


def _paths(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of a nested config, the parts too."""
    found = []
    for key, value in node.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            found += _paths(value, f"{prefix}{key}.")
    return found


def _content(group: str, option: str) -> Any:
    """What the file of one of fmbench's own options holds."""
    return yaml.safe_load((CONFIG_DIR / group / f"{option}.yaml").read_text("utf-8"))


@lru_cache
def _options() -> dict[str, list[str]]:
    """The groups that fmbench has, with their options."""
    folders = [path for path in sorted(CONFIG_DIR.rglob("*")) if path.is_dir()]
    return {
        path.relative_to(CONFIG_DIR).as_posix(): sorted(file.stem for file in path.glob("*.yaml"))
        for path in folders
    }


@lru_cache
def _keys() -> dict[str, list[str]]:
    """The keys that fmbench's options have, each with the options that have it."""
    found: dict[str, list[str]] = {path: [] for path in [*schema.defaults(), "sweep", "evaluation"]}
    for group, options in _options().items():
        if group in ("experiment", "sweep", *_INTERNAL):
            continue
        for option in options:
            for path in _paths(_content(group, option), f"{group.replace('/', '.')}."):
                if not path.rpartition(".")[2].startswith("_") and "defaults" not in path:
                    found.setdefault(path, []).append(f"{group}={option}")
    return found
