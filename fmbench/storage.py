"""Files that exist whole or not at all."""

import contextlib
import errno
import os
import secrets
import sys
from pathlib import Path

from fmbench.errors import StorageError

if sys.platform != "win32":
    import fcntl

#: What a file system says that has no locks for folders.
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def write_whole(path: Path, content: bytes, *, keep: Path | None = None) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Under a temporary name first, flushed to the disk, then renamed.

    Args:
        path: of the file.
        content: all of it.
        keep: where the old content goes; between the two renames only this name is there.

    Raises:
        StorageError: it could not be written; the old content, if any, is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
            _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error


def remove_temporaries(folder: Path, name: str) -> None:
    """Remove what `write_whole` left of a file when its process was killed.

    Raises:
        StorageError: one cannot be removed.
    """
    for path in folder.glob(f".{name}.*"):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be removed: {error.strerror}") from error


def _flush_folder(folder: Path) -> None:
    """Bring the new name to the disk, where the system lets a folder be flushed."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


class FolderLock:
    """Keeps other processes out of a folder while this one lives.

    The system lets go of the lock when the process ends, however it ends, and the folder holds no
    file that says so. Where folders cannot be locked (Windows, some network disks) nothing is.

    Args:
        folder: that is there.

    Raises:
        StorageError: another process has it, or it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.handle: int | None = None
        if sys.platform == "win32":
            return
        try:
            self.handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise StorageError(
                f"{folder}: another process is at work there; take another folder, or wait"
            ) from None
        except OSError as error:
            self.release()
            if error.errno not in _NO_LOCKS:
                raise storage_error(folder, error) from error

    def release(self) -> None:
        """Let others in; calling it again is harmless."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def storage_error(path: Path, error: OSError) -> StorageError:
    """What a person should read of a write that failed."""
    return StorageError(f"{path}: cannot be written: {error.strerror or error}")
