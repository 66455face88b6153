"""What a tuned comparison has tried and run: `tuned.json` in its folder.

The sweeper writes the file again as it goes on, the report reads it. It may come from a stranger,
so all of it is checked where it is read.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from msgspec.json import Decoder

from fmbench.config.schema import FINAL_ON
from fmbench.core.files import read_regular
from fmbench.records.trials import Search
from fmbench.records.validation import Count, Seed, Text, decode, encode, one_of

SCHEMA = 1
TUNED_NAME = "tuned.json"

#: Of such a file; a trial has some hundred.
MOST_BYTES = 2**26

_Positive = Annotated[int, Meta(ge=1, le=10**6)]


@dataclass(frozen=True)
class Contestant:
    """What is compared: overrides that set it apart, and what is searched for it."""

    overrides: tuple[Text, ...]
    space: dict[Text, Text]  # the distribution of each key, as typed

    @property
    def label(self) -> str:
        """What it is called."""
        return " ".join(self.overrides)


@dataclass(frozen=True)
class Block:
    """One search for a contestant, with its final runs. These have consecutive numbers."""

    contestant: Count  # its place in `Tuned.contestants`
    repeat: _Positive  # which of the contestant's searches
    first: Count  # number of the first run, which is that of the first trial
    seeds: tuple[Seed, ...]  # of the final runs, which stand behind the trials
    search: Search | None = None  # None until it has begun
    over: bool = False  # whether all of its trials have ended
    epochs: Count | None = None  # that its trials trained; None until they have ended

    def finals(self, trials: int) -> range:
        """The numbers of the final runs, behind those of so many runs of trials."""
        return range(self.first + trials, self.first + trials + len(self.seeds))


@dataclass(frozen=True)
class Tuned:
    """`tuned.json`, schema 1."""

    trials: _Positive  # of each search
    runs: _Positive  # of each trial
    final_seeds: _Positive
    final_on: Annotated[str, one_of(*FINAL_ON)]
    contestants: Annotated[tuple[Contestant, ...], Meta(max_length=10_000)]
    blocks: Annotated[tuple[Block, ...], Meta(max_length=100_000)]

    def __post_init__(self) -> None:
        if any(block.contestant >= len(self.contestants) for block in self.blocks):
            raise ValueError("blocks: of a contestant that is not there")
        if len({(block.contestant, block.repeat) for block in self.blocks}) < len(self.blocks):
            raise ValueError("blocks: one of them is there twice")
        if len({contestant.label for contestant in self.contestants}) < len(self.contestants):
            raise ValueError("contestants: one of them is there twice")
        if any(len(block.seeds) != self.final_seeds for block in self.blocks):
            raise ValueError("blocks: not as many seeds as there are final runs")
        first = sorted(block.first for block in self.blocks)
        if any(b - a < self.block_size for a, b in pairwise(first)):
            raise ValueError("blocks: two of them share numbers of runs")

    @property
    def searches(self) -> int:
        """How many searches each contestant has, or is to have."""
        return max((block.repeat for block in self.blocks), default=1)

    @property
    def block_size(self) -> int:
        """How many runs a search has, with the final ones."""
        return self.trials * self.runs + self.final_seeds

    @property
    def total(self) -> int:
        """How many runs there are to be."""
        return len(self.blocks) * self.block_size

    def to_json(self) -> str:
        """The text of `tuned.json`.

        Raises:
            ValueError: `from_json` would refuse it: a value is not finite, say.
        """
        return encode(self, _DECODER, schema=SCHEMA)

    @classmethod
    def from_json(cls, text: bytes | str) -> "Tuned":
        """A comparison as `to_json` gave it.

        Raises:
            UnreadableError: it is none, or of another schema, or a value is out of its bounds or
                contradicts the rest.
        """
        return decode(_DECODER, text, oldest=SCHEMA, newest=SCHEMA)


_DECODER = Decoder(Tuned)


def knows_source(source: str | None, parameters: float | None) -> bool:
    """Whether a run got so far as to know the user's own code in it: its parts were built."""
    return bool(source) or parameters is not None


def read_tuned(folder: Path) -> Tuned | None:
    """The comparison of a folder; None where it holds none.

    Raises:
        UnreadableError: what it holds is none.
        OSError: it cannot be read.
    """
    try:
        return Tuned.from_json(read_regular(folder / TUNED_NAME, MOST_BYTES))
    except FileNotFoundError:
        return None
