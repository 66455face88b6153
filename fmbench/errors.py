"""The errors people see: one line, no traceback, an exit status that scripts can tell apart."""

import shlex

#: What the extras of `pyproject.toml` bring, by their names. Messages name the packages themselves:
#: on PyPI the name `fmbench` belongs to another project.
PACKAGES = {
    "joblib": ("hydra-joblib-launcher>=1.4.0rc3,<1.5", "cloudpickle>=3"),
    "slurm": ("hydra-submitit-launcher>=1.4.0rc3,<1.5",),
    "ray": ("hydra-ray-launcher>=1.4.0rc3,<1.5", "ray>=2.60"),
    "postgresql": ("psycopg[binary]>=3.2",),
    "tensorboard": ("tensorboard>=2.20",),
    "mlflow": ("mlflow-skinny>=3.7,<4", "alembic>=1.13", "sqlalchemy>=2.0"),
}


def installs(extra: str) -> str:
    """The command that installs what an extra brings."""
    return shlex.join(["pip", "install", *PACKAGES.get(extra, (extra,))])


class UserError(Exception):
    """Something the user can mend; its text says what is wrong, where, and what is allowed."""

    exit_status = 1


class ConfigError(UserError):
    """The composed config asks for something that does not exist or cannot be."""

    exit_status = 2


class DataError(UserError):
    """A data file is missing, damaged, or not what it claims to be."""

    exit_status = 3


class PartialResultsError(UserError):
    """Some runs of a sweep did not complete, or some records of a folder could not be read."""

    exit_status = 4


class RunDiedError(PartialResultsError):
    """A run ended without a result: killed, out of memory or time, cancelled, its machine lost."""


class StorageError(UserError):
    """A run folder or a report could not be written."""

    exit_status = 5
