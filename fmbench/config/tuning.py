"""How the settings of a run were searched for, as its config and its record say it."""

from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from fmbench.core.errors import ConfigError

#: What a run of a tuned comparison is: one of a search, or one of the best setting that it found.
TRIAL, FINAL = "trial", "final"

_Text = Annotated[str, Meta(max_length=10_000)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Number = Annotated[float, Meta(gt=-1e300, lt=1e300)]


class Chosen(TypedDict):
    """The trial that was chosen."""

    trial: _Count
    value: _Number | None  # of the objective
    parameters: dict[_Text, _Text | int | float | bool | None]


class Tuning(TypedDict, total=False):
    """How settings were searched for; of a trial only what is known before its search has ended."""

    trials: _Count  # of the search
    epochs: _Count  # that these trained, all together
    space: dict[_Text, _Text]  # the distribution of each key, as typed
    sampler: _Text
    pruner: _Text
    objective: _Text
    best: Chosen
    # Of a tuned comparison alone.
    contestant: _Text
    search: _Count  # which of the contestant's searches, from 1
    stage: Annotated[str, Meta(pattern=rf"\A({TRIAL}|{FINAL})\Z")]
    final_on: _Text


def check_tuning(tuning: Any) -> None:
    """Refuse a `tuning` that no record could hold.

    Raises:
        ConfigError: what is wrong with it.
    """
    try:
        msgspec.convert(tuning, Tuning | None)
    except msgspec.ValidationError as error:
        raise ConfigError(f"tuning: {error}; a search writes it") from error
