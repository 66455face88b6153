"""How many examples hypothesis makes: few and the same each time, or many new ones."""

import os

from hypothesis import HealthCheck, settings

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


def fuzz(examples):
    """So many examples, always the same; or, where it is asked for, 200 times as many new ones."""
    how = {"max_examples": 200 * examples} if LONG else {"max_examples": examples, "database": None}
    return settings(
        derandomize=not LONG, deadline=None, suppress_health_check=list(HealthCheck), **how
    )
