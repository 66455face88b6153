"""The daemons of the tests in one file: started once, ended with the last of them."""

import pytest
from clusters import daemons_for, installed


@pytest.fixture(scope="module")
def slurm():
    yield from daemons_for("slurm")


@pytest.fixture(scope="module")
def postgresql():
    if not installed("psycopg"):
        pytest.skip("psycopg is not installed, of the extra postgresql")
    yield from daemons_for("postgresql")


@pytest.fixture(scope="module")
def ray():
    yield from daemons_for("ray")
