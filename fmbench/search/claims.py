"""Who has which trial, where several processes work on one search in one folder."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from fmbench.core.errors import StorageError
from fmbench.core.files import FolderLock, HeldError, make_folder
from fmbench.records.trials import CLAIMS_NAME

#: Seconds between two tries to get the turn to ask.
_AGAIN = 0.05


class Claims:
    """The trials that this process has. A claim is a lock, so that it ends with the process.

    Raises:
        StorageError: from any method, where the file system has no locks, or cannot be written.
    """

    def __init__(self, sweep: Path) -> None:
        self.folder = sweep / CLAIMS_NAME
        self.held: dict[str, FolderLock] = {}

    def take(self, name: object) -> bool:
        """Claim a trial, by its number; whether nobody else has it."""
        folder = self.folder / str(name)
        make_folder(self.folder)
        make_folder(folder)
        try:
            lock = FolderLock(folder)
        except HeldError:
            return False
        if not lock.is_held:
            raise StorageError(
                f"{folder}: its file system has no locks, without which workers would run each "
                "other's trials; put the sweep's folder elsewhere, or leave out sweep.detach"
            )
        self.held[str(name)] = lock
        return True

    def release(self, name: object) -> None:
        """Let others have it."""
        if str(name) in self.held:
            self.held.pop(str(name)).release()

    def release_all(self) -> None:
        """Let others have all."""
        for name in list(self.held):
            self.release(name)

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Wait until no other process is in a block of this name."""
        while not self.take(name):
            time.sleep(_AGAIN)
        try:
            yield
        finally:
            self.release(name)
