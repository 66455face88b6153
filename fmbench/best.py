"""The best run of a search as an experiment: a file of options that makes it again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from fmbench.config import GROUPS
from fmbench.record import Record
from fmbench.storage import write_whole

#: Below the sweep's folder, so that `--config-dir FOLDER experiment=best` finds it.
BEST_NAME = Path("experiment") / "best.yaml"

#: What a search sets for its own sake.
_OF_SEARCHES = ("test_every", "keep_checkpoint")


def write(folder: Path, record: Record, number: int) -> Path:
    """Write the file of options of the best trial.

    Args:
        folder: of the sweep.
        record: of the trial.
        number: of the trial.

    Returns:
        The file.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / BEST_NAME
    path.parent.mkdir(exist_ok=True)
    content = text(record.overrides, number=number, accuracy=record.validation_accuracy)
    write_whole(path, content.encode())
    return path


def text(overrides: Sequence[str], *, number: int, accuracy: float | None) -> str:
    """The content of the file.

    Args:
        overrides: that make the run.
        number: of the trial.
        accuracy: of the run on the validation images.
    """
    defaults: list[Any] = []
    values: dict[str, Any] = {}
    gone = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if override.is_delete():
            gone.append(key)
        elif key == "experiment":
            defaults.insert(0, f"/experiment/{override.value()}")
        elif key in GROUPS:
            defaults.append({f"override /{key}": str(override.value())})
        elif key not in _OF_SEARCHES:
            _set(values, key.split("."), override.value())
    lines = [
        "# @package _global_",
        f"# Trial {number}, the best of its search; validation accuracy {accuracy:.4f}:"
        if accuracy is not None
        else f"# Trial {number}, among the best of its search:",
        "#   python -m fmbench --config-dir FOLDER experiment=best",
        "# where FOLDER is the search's.",
        *(f"# Was deleted from the config, which a file cannot do: ~{key}" for key in gone),
    ]
    content = {"defaults": [*defaults, "_self_"]} | values if defaults else values
    return "\n".join([*lines, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)])


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value
