"""The errors people see: one line, no traceback, an exit status that scripts can tell apart."""


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
