"""What a sweep is going to run, and about how long that takes: `--plan`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from fmbench.config.checks import resolve
from fmbench.config.hydra_compat import runs_in_turn
from fmbench.core.console import aligned, printed, say
from fmbench.core.errors import UserError
from fmbench.launch import jobs_at_once
from fmbench.records.record import recorded_config
from fmbench.records.status_text import duration
from fmbench.runs.estimate import Estimate, estimate

#: Configs that are measured; of a grid of more, the others are taken to be like these.
_MOST = 12


@dataclass
class Part:
    """Runs that are alike: a contestant's, a search's, or one of a grid.

    Args:
        label: what it is called.
        runs: how many.
        config: composed; of what is searched, at the values that are there without a search.
        said: what else is said of it, a line each.
    """

    label: str
    runs: int
    config: DictConfig
    said: list[str] = field(default_factory=list)


def show(config: DictConfig, parts: Sequence[Part], *, said: Sequence[str] = ()) -> None:
    """Print the plan of a sweep.

    Args:
        config: of the sweep.
        parts: of which it is made.
        said: of all of them, a line each.
    """
    resolved = [resolve(part.config) for part in parts]
    epochs = [part.runs * int(one["epochs"]) for part, one in zip(parts, resolved, strict=True)]
    found = _measured(resolved, parts)
    seconds = [
        None if each is None else total * (each.epoch + each.evaluation)
        for each, total in zip(found, epochs, strict=True)
    ]
    known = [one for one in seconds if one is not None]
    runs = sum(part.runs for part in parts)
    lines = [f"{runs:,} runs, {sum(epochs):,} epochs at most"]
    cells = [("", "runs", "epochs", "s an epoch", "time")]
    for part, of_part, each, took in zip(parts, epochs, found, seconds, strict=True):
        speed = "-" if each is None else f"{each.epoch:.3g}"
        time = "-" if took is None else duration(took)
        cells.append((part.label, f"{part.runs:,}", f"{of_part:,}", speed, time))
    lines += [*said, "", *aligned(cells, [False, True, True, True, True]), ""]
    for part in parts:
        lines += [f"{part.label}: {text}" for text in part.said]
    lines.append(_in_all(config, sum(known), len(known) < len(parts), found))
    printed("fmbench", lambda: say(*lines))


def _measured(resolved: Sequence[dict[str, Any]], parts: Sequence[Part]) -> list[Estimate | None]:
    """What was measured of each config; of those that are alike once: a seed changes no time."""
    found, texts = dict[str, Estimate | None](), list[str]()
    for config, part in zip(resolved, parts, strict=True):
        kept = {key: value for key, value in recorded_config(config).items() if key != "seed"}
        texts.append(text := json.dumps(kept, sort_keys=True))
        if text not in found:
            wanted, found[text] = len(found) < _MOST, None
            try:
                found[text] = estimate(config) if wanted else None
            except UserError as error:
                part.said.append(f"cannot be measured: {error}")
    return [found[text] for text in texts]


def _in_all(
    config: DictConfig, seconds: float, partly: bool, found: Sequence[Estimate | None]
) -> str:
    """About how long all of it takes."""
    steps = [one.steps for one in found if one is not None]
    if not steps:
        return "how long it takes is not known"
    least, most = min(steps), max(steps)
    by = f"by {least if least == most else f'{least} to {most}'} steps each, measured now here"
    some = " of those that were measured" if partly else ""
    if not runs_in_turn(config.hydra.launcher):
        return f"about {duration(seconds)} of training{some}, one after the other, {by}"
    jobs = jobs_at_once(config)
    if jobs == 1:
        return f"about {duration(seconds)} of training{some}, {by}"
    return (
        f"about {duration(seconds / jobs)} of training{some} with {jobs} runs at once, if these do "
        f"not slow each other down ({duration(seconds)} one after the other), {by}"
    )
