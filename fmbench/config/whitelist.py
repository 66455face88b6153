"""What a config may have built and started: nothing else is, whoever wrote the config."""

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from fmbench.config import hydra_compat
from fmbench.config.targets import TARGETS

#: Names one's own packages, comma-separated, whose classes a config may instantiate.
TRUST_VARIABLE = "FMBENCH_TRUST"

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


def execution_whitelist(group: str | None = None) -> list[str]:
    """What a config may instantiate: nothing else is started, whoever wrote the config.

    Hydra asks for the class of a result too. So a function of a trusted package that returns a
    model of another one's class needs that other package trusted as well.

    Args:
        group: `model`, `optimizer` or `scheduler` of a run; None for what is around the runs.
    """
    own = _AROUND_RUNS if group is None else list(TARGETS[group])
    return own + [f"{name}.*" for name in trusted()]


def trusted() -> list[str]:
    """The packages that `FMBENCH_TRUST` names; a config that sets variables is refused before."""
    named = os.environ.get(TRUST_VARIABLE, "")
    return [name.strip() for name in named.split(",") if name.strip()]


def trust_needed(config: Mapping[str, Any]) -> str | None:
    """What `FMBENCH_TRUST` names, where a run needs it; None where it does not.

    Args:
        config: of the run, resolved.
    """
    listed = all(
        any(fnmatchcase(str(config[group].get("_target_")), pattern) for pattern in patterns)
        for group, patterns in TARGETS.items()
    )
    return None if listed else ",".join(trusted()) or None
