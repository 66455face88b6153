"""What draws the trials of a search."""

import functools
import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GridSampler, QMCSampler

from fmbench.config import hydra_compat
from fmbench.config.trust import SAMPLERS

#: The seed of these is one of a whole design, not of a stream of random numbers.
_OF_A_DESIGN = (GridSampler, QMCSampler)

#: What a config leaves to the search, of a new one and of one that began before Optuna's defaults
#: were taken; null is what Optuna has for the number of objectives.
_NEW: Mapping[str, bool | None] = {"multivariate": None, "constant_liar": True}
_OLD: Mapping[str, bool | None] = {"multivariate": False, "constant_liar": False}


def choices(
    config: DictConfig, before: Mapping[str, bool | None] | None = _NEW
) -> dict[str, bool | None]:
    """What a sampler's config says of these, or leaves to the search by null.

    Args:
        config: of the sampler.
        before: what the study keeps of them; None where it is older than that.
    """
    usual = _OLD if before is None else {**_NEW, **before}
    said = {key: config[key] for key in usual if key in config}
    return {key: usual[key] if value is None else value for key, value in said.items()}


def settled(config: DictConfig, before: Mapping[str, bool | None] | None) -> DictConfig:
    """The config of a sampler with what its study keeps where it leaves that to the search."""
    merged = OmegaConf.merge(config, choices(config, before))
    assert isinstance(merged, DictConfig)
    return merged


def called(config: DictConfig) -> str:
    """The name of a sampler's class, as reports have it."""
    return str(config._target_).rpartition(".")[2]


def make(
    config: DictConfig, space: Mapping[str, BaseDistribution], stream: Sequence[int]
) -> BaseSampler:
    """The sampler as it draws one trial, with a seed of the trial's own.

    So a search that resumes after a stop does not draw its first points once more. `stream` says
    which trial of which search it is.
    """
    sampler: Any = _instantiate(config)
    if isinstance(sampler, functools.partial):  # of a grid, which wants to know it
        of_grid: BaseSampler = sampler(hydra_compat.grid_of(space))
        return of_grid
    if isinstance(sampler, CmaEsSampler) and find_spec("cmaes") is None:
        raise ValueError("the sampler cmaes needs pip install cmaes")
    seed = config.get("seed")
    if seed is not None and not isinstance(sampler, _OF_A_DESIGN):
        drawn = int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0])
        seeded = OmegaConf.merge(config, {"seed": drawn})
        sampler = _instantiate(seeded)
    assert isinstance(sampler, BaseSampler)
    return sampler


def _instantiate(config: Any) -> Any:
    # Optuna's warning that a sampler is experimental is not repeated for each trial.
    with warnings.catch_warnings(category=ExperimentalWarning, action="ignore"):
        return instantiate(config, _execution_whitelist_=SAMPLERS)


def cells(config: DictConfig, space: Mapping[str, BaseDistribution]) -> int | None:
    """How many trials there can be at most; None where there is no end."""
    if not isinstance(_instantiate(config), functools.partial):
        return None
    return math.prod(len(values) for values in hydra_compat.grid_of(space).values())
