"""What a person types: mended where only one thing can be meant, and what to type where it cannot.

Hydra's grammar takes no `~`, no letters with accents and few signs outside quotes, and reads `1e3`
as a number where it is the name of an option.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fmbench.config import schema
from fmbench.config.checks import GROUPS
from fmbench.config.keys import SPACE
from fmbench.config.sources import CONFIG_DIR
from fmbench.core.errors import ConfigError, without_password

#: All groups of fmbench but Hydra's.
_GROUPS = (*GROUPS, "experiment", "sweep", "logger")

#: Keys that name a folder or a file.
_PLACES = (
    *("data.root", "data.test", "hydra.run.dir", "hydra.sweep.dir", "hydra.searchpath"),
    *("sweep.storage", "hydra.launcher.submitit_folder"),
)

#: What Hydra's grammar takes outside quotes, as one text.
_BARE = re.compile(r"[\w/\-+.%*@?|: ]*", re.ASCII)

#: What a text may hold that is certain to be no list, call, interpolation or text in quotes.
_SIMPLE = re.compile(r"[^'\"\[\]{}()\\$=\x00-\x1f]*")

#: What Hydra reads as a number or a truth value.
_NO_NAME = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf)|true|false", re.I)

#: The home folder where a path begins.
_HOME = re.compile(r"(?<![^=,\[])\s*~\w*(?=[/,\]]|$)|(?<=///)~(?=/)")

#: A number that Python would not read (`sys.get_int_max_str_digits`).
_TOO_LONG = re.compile(r"\d{4300}")

#: An override that spaces part: around its `=`, behind a comma or in brackets.
_PARTED = re.compile(
    r"(?<![^\0])([\w./@+~-]+)\0?=\0?(?!~)"
    r"(\w*[\[{(][^=]*?[\]})]|(?:[^\0=]*,\0(?!~))*[^\0=]+)(?![^\0])"
)

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
        "hydra.launcher.n_jobs": "n_jobs",
        "sweep.jobs": "hydra.sweeper.n_jobs",
        "sweep.trials": "n_trials max_trials",
        "sweep.objective": "direction directions",
        "sweep.study": "study_name",
        "evaluation.every": "test_every",
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


def literal(value: Any) -> str:
    """A value of plain Python as Hydra's override grammar has it."""
    if isinstance(value, Mapping):
        # Its grammar has no quotes around keys.
        inner = (f"{key}:{literal(one)}" for key, one in value.items())
        return "{" + ",".join(inner) + "}"
    if isinstance(value, str):
        return quoted(value)
    return schema.as_yaml(value)


def mended(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra takes them: `~` followed, in quotes where that is all that they need.

    Raises:
        ConfigError: one has no value, or spaces part it; or there is no such user.
    """
    for found in _PARTED.finditer("\0".join(overrides)):
        if "\0" in found[0]:
            value = found[2].replace(",\0", ",").replace("\0", " ")
            said = f"{found[0]}: no spaces may stand here".replace("\0", " ")
            raise ConfigError(f"{said}; write {shlex.quote(f'{found[1]}={value}')}")
    return [_mended(other) for text in overrides for other in _of_models(text)]


def _of_models(text: str) -> list[str]:
    """The override of today for one of a key that models had once."""
    key = text.lstrip("+~").partition("=")[0]
    return schema.renamed_override(text) if key in schema.OF_MODELS else [text]


def _mended(text: str) -> str:
    key, equals, value = text.partition("=")
    key, name = key.rstrip(), key.strip().lstrip("+~")
    if not equals:
        if text and not text.startswith("~"):
            raise ConfigError(_without_value(text))
        return text
    if _TOO_LONG.search(value):
        raise ConfigError(f"{text[:40]}...: has too many digits")
    if value.strip() == "null" and name in (*GROUPS, "logger"):
        raise ConfigError(f"{text}: must be the name of an option")
    if name in _PLACES and (within := re.fullmatch(r"(['\"])([^'\"\\$]*)\1", value.strip())):
        return f"{key}={quoted(_at_home(within[2]))}"
    if name.startswith(f"{SPACE}."):
        if key == name:
            key = f"++{name}"  # the optimizer of one of several contestants may lack it
        if value.strip() == "null" or value.strip()[:1] in "'\"":
            return f"{key}={value}"
        return f"{key}={quoted(value.strip())}"  # a range is its value, not a sweep over it
    if not _SIMPLE.fullmatch(value):
        return f"{key}={_at_home(value)}"
    is_option = name in _GROUPS or "/" in name
    parts = (_quoted_if_need_be(_at_home(part), is_option) for part in value.split(","))
    return f"{key}={','.join(parts)}"


def _quoted_if_need_be(text: str, is_option: bool) -> str:
    inner = text.strip()
    bare = _BARE.fullmatch(inner) and not (is_option and _NO_NAME.fullmatch(inner))
    return text if bare else quoted(inner)


def _at_home(value: str) -> str:
    """The value, `~` followed where a path begins."""
    try:
        return _HOME.sub(lambda found: str(Path(found[0].strip()).expanduser()), value)
    except RuntimeError:
        raise ConfigError(f"{value}: there is no such user; a folder ~NAME is ./~NAME") from None


def refuse_passwords(words: Iterable[str]) -> None:
    """Refuse typed words that hold a password, before any of them is quoted.

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


def _without_value(text: str) -> str:
    """What to type instead of a word that is no KEY=VALUE."""
    groups = [*_GROUPS, *_options()]
    near = [f"{group}={text}" for group in groups if text in _options()[group]]
    if key := meant(text.partition(":")[0]):
        near.append(f"{key}=VALUE")
    return (
        f"{text}: is no KEY=VALUE, as epochs=3 is, or seed=0,1,2 with -m"
        f"{f'; did you mean {near[0]}?' if near else ''}; a value with spaces stands "
        "in quotes; a subcommand (report, compare, preview, predict) comes first; --help lists the "
        "keys"
    )


def meant(key: str, there: Iterable[str] = schema.KEYS) -> str | None:
    """The key or group that is likely meant, by the end of its name, a synonym or its spelling.

    Args:
        key: as it was typed, perhaps without its group.
        there: the keys that there are.
    """
    # A group and its part of the config have one name, but Hydra's own: hydra/launcher.
    known = {path: path for path in there}
    known |= {group.replace("/", "."): group for group in _options()}
    key = key.replace("/", ".")
    group, _, last = key.rpartition(".")
    if group in known and last in ("name", "type"):
        return known[group]
    for name in (key, last):
        ends = [path for path in known if f".{path}".endswith(f".{name}")]
        if name in _SYNONYMS or ends:
            return _SYNONYMS.get(name) or known[min(ends, key=len)]
    names = {path.rpartition(".")[2]: path for path in known}
    near = difflib.get_close_matches(last.lower(), names, n=1, cutoff=0.75)
    return known[names[near[0]]] if near else None


@lru_cache
def _options() -> dict[str, list[str]]:
    """The groups that fmbench has, with their options."""
    found: dict[str, list[str]] = {}
    for file in sorted(CONFIG_DIR.rglob("*/*.yaml")):
        found.setdefault(file.parent.relative_to(CONFIG_DIR).as_posix(), []).append(file.stem)
    return found
