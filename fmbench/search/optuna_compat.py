"""All that fmbench uses of Optuna's private parts.

A release may change any of it without notice; each has one test in
tests/search/test_optuna_compat.py that says what no longer works.
"""

import os
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial

#: Of the end of a journal, where a line without an end is looked for; lines are far shorter.
_TAIL = 2**20


def live(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A trial of a study that can be written to, whichever process asked for it."""
    return Trial(study, trial._trial_id)


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    """A value of any distribution; Optuna's public methods have one for each kind."""
    return trial._suggest(name, distribution)


class Journal(JournalFileBackend):
    """Optuna's journal in a file, under its open lock, that survives a line without an end.

    A full disk, or a machine that fails, leaves a part of one. The next line would be joined to it,
    and from then on nobody could read the journal.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, JournalFileOpenLock(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines, behind the last one that is whole."""
        self._lock.acquire()
        try:
            with Path(self._file_path).open("rb+") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 1))
                if file.read() not in (b"", b"\n"):
                    file.seek(max(0, size - _TAIL))
                    tail = file.read()
                    file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
        finally:
            self._lock.release()
        super().append_logs(logs)
