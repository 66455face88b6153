"""The best run of a search made again: a file of options, or overrides of a final run."""

import copy
import re
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fmbench.config.checks import GROUPS
from fmbench.config.overrides import literal, mended
from fmbench.config.schema import IN_TRIALS
from fmbench.config.sources import MAX_BYTES
from fmbench.config.sweep import REPEATING
from fmbench.config.whitelist import TRUST_VARIABLE
from fmbench.core.files import make_folder, read_regular, write_whole
from fmbench.records.record import Record, recorded_overrides

#: Below the sweep's folder, so that `--config-dir FOLDER experiment=best` finds it.
BEST_NAME = Path("experiment") / "best.yaml"

#: How a run began with the best of a search.
_OF_A_SEARCH = re.compile(r"experiment=best(_\d+)?")


def write(
    folder: Path,
    records: Sequence[Record],
    number: int,
    *,
    name: str = BEST_NAME.stem,
    overrides: Sequence[str] | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> None:
    """Write the file of options of the best trial, by its runs, into the sweep's folder.

    Args:
        folder: of the sweep.
        records: of the runs of the trial.
        number: of the trial.
        name: of the option; of a tuned comparison, which has several.
        overrides: of the run that the file makes again, where it is not that of the trial.
        tuning: what records of its runs say of the search.
    """
    path, record = (folder / BEST_NAME).with_stem(name), records[0]
    make_folder(path.parent)
    found = [each.validation_accuracy for each in records]
    known = [accuracy for accuracy in found if accuracy is not None]
    # Where there are several runs, it says what they have in common.
    repeating = REPEATING if len(records) > 1 or name != BEST_NAME.stem else ()
    overrides = record.overrides if overrides is None else overrides
    kept = [o for o in overrides if o.lstrip("+").partition("=")[0] not in repeating]
    content = text(
        kept,
        number=number,
        accuracy=statistics.fmean(known) if known else None,
        runs=len(records),
        base=_base(record),
        command=_command([*record.config_dirs, str(folder.absolute())], record.trust, name),
        tuning=tuning,
    )
    write_whole(path, content.encode())


def _base(record: Record) -> dict[str, Any] | None:
    """The best of an earlier search, where this one started from it: both files have one name."""
    started = next((text for text in record.overrides if _OF_A_SEARCH.fullmatch(text)), None)
    if started is None:
        return None
    for folder in record.config_dirs:
        path = Path(folder, BEST_NAME).with_stem(started.partition("=")[2])
        if path.is_file():
            content = yaml.safe_load(read_regular(path, MAX_BYTES).decode("utf-8"))
            return content if isinstance(content, dict) else None
    return None


def _command(folders: Sequence[str], trust: str | None, name: str) -> str:
    """The command that runs it, from any folder; what a comment cannot hold is left to the user."""
    given = [f"--config-dir={name if name.isprintable() else 'FOLDER'}" for name in folders]
    words = [*([f"{TRUST_VARIABLE}={trust}"] if trust else []), "python", "-m", "fmbench", *given]
    return shlex.join([*words, f"experiment={name}"])


def text(
    overrides: Sequence[str],
    *,
    number: int,
    accuracy: float | None,
    runs: int = 1,
    base: Mapping[str, Any] | None = None,
    command: str = "",
    tuning: Mapping[str, Any] | None = None,
) -> str:
    """The content of the file; `base` is that of `experiment=best`, where the overrides name it."""
    values = copy.deepcopy(dict(base or {}))
    before = [entry for entry in values.pop("defaults", []) if entry != "_self_"]
    experiments = [entry for entry in before if isinstance(entry, str)]
    options = {
        group: name for entry in before if entry not in experiments for group, name in entry.items()
    }
    gone = []
    for override in OverridesParser.create().parse_overrides(mended(recorded_overrides(overrides))):
        key = override.key_or_group
        if override.is_delete():
            gone.append(key)
        elif key == "experiment":
            if base is None:
                experiments = [f"/experiment/{override.value()}"]
        elif key in GROUPS:
            options[f"override /{key}"] = str(override.value())
        elif key not in IN_TRIALS:
            _set(values, key.split("."), override.value())
    mean = f", the mean of {runs} runs" if runs > 1 else ""
    lines = [
        "# @package _global_",
        f"# Trial {number}, the best of its search; validation accuracy {accuracy:.4f}{mean}:"
        if accuracy is not None
        else f"# Trial {number}, among the best of its search:",
        f"#   {command}",
        *(f"# Was deleted from the config, which a file cannot do: ~{key}" for key in gone),
    ]
    values.pop("tuning", None)  # of an earlier search
    if tuning is not None:
        values["tuning"] = dict(tuning)
    defaults = [*experiments, *({group: name} for group, name in options.items())]
    content = {"defaults": [*defaults, "_self_"]} | values if defaults else values
    # Not as PyYAML does it: the name 1e3 is a number to OmegaConf, unless it stands in quotes.
    return "\n".join([*lines, OmegaConf.to_yaml(OmegaConf.create(content))])


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


def replayed(overrides: Sequence[str], records: Sequence[Record]) -> list[str]:
    """The overrides of a run that does without validation what a trial did by it.

    It trains as many epochs where early stopping ended the trial's runs, and its learning rate
    drops where a plateau dropped theirs; of several runs it is the median.

    Args:
        overrides: of the run.
        records: of the runs of the trial that it repeats, at least one.
    """
    found, config = list(overrides), records[0].config
    if (config.get("early_stop") or {}).get("patience") is not None:
        found.append("early_stop.patience=null")
        stopped = [record.stopped_epoch for record in records]
        trained = median_low([config["epochs"] if epoch is None else epoch for epoch in stopped])
        if trained in stopped:
            found.append(f"early_stop.after={trained}")
    schedule = config["scheduler"]
    follows = schedule.get("_target_") == "fmbench.optim.schedules.plateau"
    if follows and schedule.get("drops") is None:
        drops = literal(_median([record.rate_drops for record in records])).replace(" ", "")
        found.append(f"++scheduler.drops={drops}")
    return found


def _median(drops: Sequence[Sequence[int]]) -> list[int]:
    """The median number of drops, each at the median epoch of the runs that had as many."""
    count = median_low([len(of_run) for of_run in drops])
    enough = [of_run[:count] for of_run in drops if len(of_run) >= count]
    return [median_low(epochs) for epochs in zip(*enough, strict=True)]
