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

#: Keys that people set: of Hydra's, few.
_CHOSEN = re.compile(r"(?!hydra)|hydra\.(launcher|sweeper|run|sweep|verbose|searchpath)\b")

#: Flags of other programs.
_FLAGS = {
    "gpu": "device=cuda",
    "cuda": "device=cuda",
    "gpus": "device=cuda:0",
    "cpu": "device=cpu",
    "dry_run": "--cfg job",
}

#: By the type of a value in an option: what may stand there, in words.
_KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    list: ((list,), "a list"),
    bool: ((bool,), "true or false"),
    int: ((int, float), "a number"),
    float: ((int, float), "a number"),
}

#: Names that other programs have for a key.
_SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "opt": "optimizer",
    "sched": "scheduler",
    "lr_scheduler": "scheduler",
    "net": "model",
    "network": "model",
    "arch": "model",
    "architecture": "model",
    "dataset": "data",
    "data_dir": "data.root",
    "data_root": "data.root",
    "gpu": "device",
    "cuda": "device",
    "amp": "precision",
    "fp16": "precision",
    "dtype": "precision",
    "save": "keep_model",
    "save_model": "keep_model",
    "output": "hydra.run.dir",
    "output_dir": "hydra.run.dir",
    "out": "hydra.run.dir",
    "save_dir": "hydra.run.dir",
    "log_dir": "hydra.run.dir",
    "logdir": "hydra.run.dir",
    "resume": "hydra.run.dir",
    "tracker": "logger",
    "launcher": "hydra/launcher",
    "sweeper": "hydra/sweeper",
    "sampler": "hydra/sweeper/sampler",
    "hydra.sweeper.n_jobs": "sweep.jobs",
    "n_trials": "sweep.trials",
    "max_trials": "sweep.trials",
    "direction": "sweep.objective",
    "directions": "sweep.objective",
    "study_name": "sweep.study",
    "search_space": "hydra.sweeper.params",
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
    return [_mended(text) for text in overrides]


def _mended(text: str) -> str:
    key, equals, value = text.partition("=")
    key, name = key.rstrip(), key.strip().lstrip("+~")
    if not equals:
        return text

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


# What to type instead


def _without_value(text: str, rest: Sequence[str]) -> str:
    """What to type instead of a word that is no KEY=VALUE."""
    follows = next(iter(rest), "")
    if follows.startswith("="):
        value = follows[1:] or next((word for word in rest[1:2] if _is_bare(word)), "")
        return _spaces(text, follows, f"{text}={value}")
    name, _, value = text.partition(":")
    value = value or (follows if _is_bare(follows) else "")
    if places := meant(name):
        said = shlex.quote(f"{places[0]}={value or 'VALUE'}")
        return f"{text.rstrip(':')}: has no value; write {said}"
    groups = [group for group, options in _options().items() if text in options]
    if groups:
        group = min(groups, key=lambda name: name not in GROUPS)
        return f"{text}: is no KEY=VALUE; did you mean {group}={text}?"
    return (
        f"{text}: is no KEY=VALUE, as epochs=3 is, or seed=0,1,2 with -m; a subcommand (report, "
        "compare, preview, predict) comes first; --help lists the keys"
    )


def _spaces(text: str, follows: str, whole: str) -> str:
    return f"{text} {follows}: no spaces may stand here; write {shlex.quote(whole)}"


def _is_bare(text: str) -> bool:
    return bool(text) and "=" not in text and not text.startswith("~")


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


def for_flags(arguments: Sequence[str], flags: Iterable[str]) -> str | None:
    """What to type instead of the first flag that there is not, if it is called like a key.

    Args:
        arguments: of the command line.
        flags: that there are.
    """
    known = list(flags)
    for place, text in enumerate(arguments):
        flag, equals, value = text.partition("=")
        key = flag.lstrip("-").replace("-", "_")
        if not flag.startswith("-") or flag in known or not key:
            continue
        follows = next(iter(arguments[place + 1 :]), "")
        places = meant(key) if len(key) > 1 else []
        if not equals:
            value = follows if _is_bare(follows) and not follows.startswith("-") else ""
        if places and not value:
            usual = yaml.safe_load((CONFIG_DIR / "config.yaml").read_text("utf-8")).get(places[0])
            value = "true" if isinstance(usual, bool) else "VALUE"
        said = (
            _FLAGS.get(key) or _typed(places, value)
            if places or key in _FLAGS
            else next(iter(close(flag, sorted(known))), None)
        )
        if said:
            return f"{text}: is no flag; did you mean {said}?"
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
    options = (
        [option for option in _keys().get(places[0], ()) if places[0] not in paths]
        if places
        else []
    )
    if not options:
        return f", did you mean {_typed(places, value)}?" if places else ""
    said = f"{' or '.join(options[:3])} {'has' if len(options) == 1 else 'have'} it"
    return f", but {said}" if places == [key] else f", did you mean {_typed(places, value)}? {said}"


def misfit(group: str, given: Mapping[str, Any]) -> str | None:
    """The first value of a group that is of another kind than in its option; None if none is.

    Args:
        group: `model`, `optimizer` or `scheduler`.
        given: its part of the config.
    """
    for option in _options()[group]:
        usual = yaml.safe_load((CONFIG_DIR / group / f"{option}.yaml").read_text("utf-8"))
        if usual["_target_"] != given.get("_target_"):
            continue
        for key, value in usual.items():
            kinds = _KINDS.get(type(value))
            if kinds and key in given and type(given[key]) not in kinds[0]:
                said = f"must be {kinds[1]}, as {json.dumps(value)}"
                return f"{group}.{key}={given[key]}: {said}"
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
    if key in every:
        return [every[key]]
    if key in _SYNONYMS:
        return [_SYNONYMS[key]]
    parent, _, last = key.rpartition(".")
    if parent in groups and last in ("name", "type"):
        return [groups[parent]]
    ends = [path for path in every if path.endswith(f".{key}")]
    if found := [path for path in ends if path in there] or ends:
        return [every[path] for path in found]
    if last in _SYNONYMS:
        return [_SYNONYMS[last]]
    beside = {path.rpartition(".")[2]: path for path in there if path.rpartition(".")[0] == parent}
    names = {path.rpartition(".")[2]: path for path in reversed(every)}
    found = [names[last]] if last in names else [beside[name] for name in close(last, beside)]
    found += [names[name] for name in difflib.get_close_matches(last, names, n=1, cutoff=0.75)]
    return found[:1]


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
    found: dict[str, list[str]] = {}
    for group, options in {"": ["config"], **_options()}.items():
        if group in ("experiment", "sweep", *_INTERNAL[1:]):
            continue
        for option in options:
            text = (CONFIG_DIR / group / f"{option}.yaml").read_text("utf-8")
            for path in _paths(
                yaml.safe_load(text), f"{group.replace('/', '.')}." if group else ""
            ):
                if not path.rpartition(".")[2].startswith("_") and "defaults" not in path:
                    found.setdefault(path, []).extend([f"{group}={option}"] if group else [])
    return found
