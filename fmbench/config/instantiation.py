"""Build what a config names, under the whitelist."""

from collections.abc import Mapping
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from fmbench.config import whitelist
from fmbench.config.overrides import misfit
from fmbench.core.errors import ConfigError, UserError

#: What a class raises whose arguments do not fit.
_MISFITS = (ArithmeticError, ImportError, LookupError, TypeError, ValueError)


def instantiate(config: Mapping[str, Any], group: str, *args: Any, **kwargs: Any) -> Any:
    """Call the `_target_` of a group, if it is one that a config may start.

    Args:
        config: of a run, resolved.
        group: `model`, `optimizer` or `scheduler`.
        args: passed on, before what the config gives.
        kwargs: passed on.

    Raises:
        ConfigError: it may not be started, does not exist, or refuses its arguments.
    """
    try:
        return hydra.utils.instantiate(
            dict(config[group]),
            *args,
            **kwargs,
            _convert_="all",
            # What may be started around a run is none of its parts.
            _execution_whitelist_=hydra.utils.execution_whitelist(
                whitelist.execution_whitelist(group), reset=True
            ),
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
            text = f"{text.split('. ')[0]}; {whitelist.TRUST_VARIABLE} names packages to trust"
        raise ConfigError(f"{group} ({config[group]['_target_']}): {text}") from cause or error
