"""What a search may look for, and which way it is better.

Never test accuracy: the test set is used once, after the search.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fmbench.config.checks import refuse_out_of_bounds
from fmbench.core.errors import ConfigError

MAXIMIZE, MINIMIZE = "maximize", "minimize"

#: Of a run, after its last epoch. The first three are known after each epoch as well.
DIRECTIONS = {
    "validation_accuracy": MAXIMIZE,
    "balanced_accuracy": MAXIMIZE,  # on the validation part: the mean recall of the classes
    "validation_loss": MINIMIZE,
    "train_seconds": MINIMIZE,
    "parameters": MINIMIZE,
    "flops": MINIMIZE,
}

#: Those that say after an epoch how the last one may be.
OF_AN_EPOCH = ("validation_accuracy", "balanced_accuracy", "validation_loss")

#: What `sweep.at_most` may limit: what is known of a model before it is trained.
OF_A_MODEL = ("parameters", "flops")

#: Most objectives allowed.
MOST = 3


def names(objective: Any) -> tuple[str, ...]:
    """The names in `sweep.objective`: one of `DIRECTIONS`, or a list of up to `MOST` of them.

    Raises:
        ConfigError: it is none, or names one twice.
    """
    given = [objective] if isinstance(objective, str) else objective
    known = [name for name in DIRECTIONS if isinstance(given, Sequence) and name in given]
    if not 1 <= len(known) <= MOST or len(given) != len(known):
        allowed = f"one of {', '.join(DIRECTIONS)}, or a list of up to {MOST} of them"
        raise ConfigError(f"sweep.objective={objective}: must be {allowed}")
    return tuple(given)


def check(sweep: Mapping[str, Any]) -> None:
    """Refuse the first of the keys of `sweep`, resolved, that no search can be made of."""
    for key in ("trials", "pruner"):
        refuse_out_of_bounds(f"sweep.{key}", sweep[key])
    limits = {} if sweep["at_most"] is None else sweep["at_most"]
    if not isinstance(limits, Mapping):
        raise ConfigError(f"sweep.at_most={limits}: must be {{parameters: N, flops: N}}")
    for name, most in limits.items():
        if name not in OF_A_MODEL:
            raise ConfigError(f"sweep.at_most.{name}: must be {' or '.join(OF_A_MODEL)}")
        if not isinstance(most, (int, float)) or isinstance(most, bool) or not 0 < most < math.inf:
            raise ConfigError(f"sweep.at_most.{name}={most}: must be a number above 0")
    of_search = names(sweep["objective"])
    if sweep["pruner"] != "none" and (len(of_search) > 1 or of_search[0] not in OF_AN_EPOCH):
        raise ConfigError(
            f"sweep.pruner={sweep['pruner']}: prunes by {' or '.join(OF_AN_EPOCH)} alone, not by "
            f"{', '.join(of_search)}; give it sweep.pruner=none"
        )
