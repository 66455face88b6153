"""Real Slurm, PostgreSQL and Ray of this machine, which `scripts/daemons.py` starts."""

import importlib
import importlib.util
import sys

import pytest
from commands import CHECKOUT

#: Seconds that a command may take on a machine that has much else to do.
PATIENCE = 400


def installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def daemons_for(kind):
    """The environment in which commands find daemons, as a context manager.

    Skips the test where they are not installed.
    """
    sys.path.insert(0, str(CHECKOUT / "scripts"))
    try:
        module = importlib.import_module("daemons")
    finally:
        sys.path.pop(0)

    def started():
        try:
            with module.DAEMONS[kind]() as environment:
                yield environment
        except module.MissingError as missing:
            pytest.skip(f"{kind}: {missing}")

    return started()
