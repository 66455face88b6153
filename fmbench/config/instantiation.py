"""Build what a config names, under the whitelist; what Hydra may instantiate around the runs."""

import inspect
from collections.abc import Mapping
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from fmbench.config import hydra_compat
from fmbench.config.overrides import misfit
from fmbench.config.whitelist import TRUST_VARIABLE, buildable, trusted_patterns
from fmbench.core.errors import ConfigError, UserError

#: What a search may draw its values with.
SAMPLERS = [
    *hydra_compat.SAMPLER_FUNCTIONS,
    *(
        f"optuna.samplers.{name}Sampler"
        for name in (
            *("BruteForce", "CmaEs", "GP", "Grid", "NSGAII", "NSGAIII", "PartialFixed", "QMC"),
            *("Random", "TPE"),
        )
    ),
    *(
        f"optuna.samplers.nsgaii.{name}Crossover"
        for name in ("BLXAlpha", "SBX", "SPX", "UNDX", "Uniform", "VSBX")
    ),
    "optuna.samplers.nsgaii.PolynomialMutation",
]

#: What Hydra may instantiate around the runs. Plugins by the name of their class: other things in
#: their packages start programs.
_AROUND_RUNS = [
    "fmbench.cli.callbacks.Preflight",
    "fmbench.cli.callbacks.RunLog",
    "fmbench.cli.callbacks.SweepReport",
    "fmbench.core.console.LogStream",
    "fmbench.core.console.OneLine",
    hydra_compat.BASIC_LAUNCHER,
    hydra_compat.BASIC_SWEEPER,
    "hydra_plugins.fmbench_launchers.cluster.LocalLauncher",
    "hydra_plugins.fmbench_launchers.cluster.SlurmLauncher",
    "hydra_plugins.fmbench_launchers.processes.ProcessLauncher",
    "hydra_plugins.fmbench_launchers.ray_tasks.RayLauncher",
    "hydra_plugins.fmbench_sweepers.grid.GridSweeper",
    "hydra_plugins.fmbench_sweepers.search.SearchSweeper",
    *SAMPLERS,
]

#: What a class raises whose arguments do not fit.
_MISFITS = (ArithmeticError, ImportError, LookupError, TypeError, ValueError)


def around_runs() -> list[str]:
    """What Hydra may instantiate around the runs, as patterns of import paths."""
    return [*_AROUND_RUNS, *trusted_patterns()]


def instantiate(
    config: Mapping[str, Any],
    group: str,
    *args: Any,
    offered: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Call the `_target_` of a group, if it is one that a config may start.

    Args:
        config: of a run, resolved.
        group: `model`, `optimizer` or `scheduler`.
        args: passed on, before what the config gives.
        offered: passed on where the target has a parameter of that name and the config gives none.
        kwargs: passed on.

    Raises:
        ConfigError: it may not be started, does not exist, or refuses its arguments.
    """
    # What may be started around a run is none of its parts.
    allowed = hydra.utils.execution_whitelist(buildable(group), reset=True)
    option = dict(config[group])
    try:
        if offered:
            target = {"_target_": option["_target_"], "_partial_": True}
            made = hydra.utils.instantiate(target, _execution_whitelist_=allowed)
            known = inspect.signature(made.func).parameters
            option |= {k: v for k, v in offered.items() if k in known and k not in option}
        return hydra.utils.instantiate(
            option, *args, **kwargs, _convert_="all", _execution_whitelist_=allowed
        )
    except (InstantiationException, *_MISFITS) as error:
        # Hydra wraps what the target raised, unless HYDRA_FULL_ERROR is set.
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, UserError):
            raise cause from None
        if cause is not None and not isinstance(cause, _MISFITS):
            raise cause from error
        text = misfit(group, config[group]) or " ".join(str(cause or error).split())
        if cause is None and "whitelist" in text:
            text = f"{text.split('. ')[0]}; {TRUST_VARIABLE} names packages to trust"
        raise ConfigError(f"{group} ({config[group]['_target_']}): {text}") from cause or error
