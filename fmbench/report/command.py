"""The command that makes a row of the benchmark again, and what was typed to get it."""

from collections.abc import Sequence

from fmbench.report.escape import shell_word


def command(
    overrides: tuple[str, ...],
    seeds: list[int],
    *,
    folders: Sequence[str] = (),
    trust: str | None = None,
) -> str:
    """The command that makes a row's runs again, quoted for a POSIX shell.

    Args:
        overrides: Of one of its runs.
        seeds: Of all of them.
        folders: With options of the user's own.
        trust: Packages of the user's own, as FMBENCH_TRUST names them.
    """
    words = [word for word in overrides if not word.lstrip("+").startswith("seed=")]
    if seeds:
        words.append(f"seed={','.join(map(str, seeds))}")
    start = ["python", "-m", "fmbench", *(["-m"] if len(seeds) > 1 else [])]
    for folder in folders:
        start += ["--config-dir", folder]
    trusting = [f"FMBENCH_TRUST={shell_word(trust)}"] if trust else []
    return " ".join([*trusting, *map(shell_word, [*start, *words])])


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
