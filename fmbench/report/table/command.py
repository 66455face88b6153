"""The command that makes a row of the benchmark again, and what was typed to get it."""

import os
from collections.abc import Sequence
from pathlib import PurePath

from fmbench.core.errors import without_password
from fmbench.records.record import recorded_overrides
from fmbench.report.escape import shell_word

#: Packages whose classes a config may instantiate; see `fmbench.config.checks`.
_TRUST = "FMBENCH_TRUST"

#: Stands for a folder of a record that is too old to name it.
ANY_FOLDER = "DIR"


def command(
    overrides: tuple[str, ...],
    seeds: list[int],
    *,
    folders: Sequence[str] = (),
    trust: str | None = None,
) -> tuple[str, tuple[str, ...]]:
    """The command that makes a row's runs again, quoted for a POSIX shell.

    It is made to be copied, and a record may be a stranger's: it holds only what fmbench itself
    records for a run, and names no package that whoever makes the report does not trust.

    Args:
        overrides: Of one of its runs.
        seeds: Of all of them.
        folders: With options of the user's own.
        trust: Packages of the user's own, as FMBENCH_TRUST names them.

    Returns:
        The command, and the words of the record that it was made without.
    """
    kept = recorded_overrides(overrides)
    left = [without_password(word) for word in overrides if word not in kept]
    named = [name for name in folders if name == ANY_FOLDER or PurePath(name).is_absolute()]
    left += [f"--config-dir={name}" for name in folders if name not in named]
    if trust and not _names(trust) <= _names(os.environ.get(_TRUST, "")):
        left.append(f"{_TRUST}={trust}")
        trust = None
    words = [word for word in kept if not word.lstrip("+").startswith("seed=")]
    if seeds:
        words.append(f"seed={','.join(map(str, seeds))}")
    start = ["python", "-m", "fmbench", *(["-m"] if len(seeds) > 1 else [])]
    for folder in named:
        start += ["--config-dir", folder]
    trusting = [f"{_TRUST}={shell_word(trust)}"] if trust else []
    return " ".join([*trusting, *map(shell_word, [*start, *words])]), tuple(left)


def _names(trust: str) -> set[str]:
    return {name.strip() for name in trust.split(",") if name.strip()}


def model_settings(model: str, overrides: tuple[str, ...]) -> str:
    """What was typed about the net itself, as it stands behind its name: width=16 depth=40."""
    said = typed("model", overrides)
    # Where one option stands for many nets, the name of the net has it already.
    if model.endswith(f"/{said.get('name', '').partition('=')[2]}"):
        said.pop("name", None)
    if said.get("_target_") == f"_target_={model.partition('/')[0]}":
        said.pop("_target_")
    return " ".join(said.values())


def typed(group: str, overrides: tuple[str, ...]) -> dict[str, str]:
    """What was typed about the keys of a group, by key, without the group's name."""
    said: dict[str, str] = {}
    for word in overrides:
        key, equals, value = word.lstrip("+").partition("=")
        if key.lstrip("~").startswith(f"{group}."):
            key = key.replace(f"{group}.", "", 1)
            said[key] = f"{key}{equals}{value}"
    return said
